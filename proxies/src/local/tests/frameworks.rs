//! Real development servers with their default configuration, under a preview's name.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use whim_kit::servers;

use super::kit::{Kit, eventually};

const UPGRADE: &str = "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

/// A server and everything it started.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // The group is its own: `process_group(0)`.
        Command::new("kill")
            .args(["-KILL", "--", &format!("-{}", self.0.id())])
            .status()
            .unwrap();
        self.0.wait().unwrap();
    }
}

async fn start(
    kit: &Kit,
    program: &Path,
    arguments: &[&str],
    directory: &Path,
    environment: &[(&str, &str)],
) -> (Running, u16) {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let arguments: Vec<String> = arguments
        .iter()
        .map(|argument| argument.replace("PORT", &port.to_string()))
        .collect();
    let child = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let running = Running(child);
    let is_up = || {
        ["127.0.0.1", "::1"]
            .iter()
            .any(|host| std::net::TcpStream::connect((*host, port)).is_ok())
    };
    let wait = async {
        while !is_up() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait)
        .await
        .unwrap();
    let v4 = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    let address = if v4 {
        format!("127.0.0.1:{port}")
    } else {
        format!("[::1]:{port}")
    };
    kit.table.set(
        port,
        super::super::Server {
            port,
            addresses: vec![address.parse().unwrap()],
            program: 1,
            http: None,
        },
    );
    (running, port)
}

fn named(port: u16, line: &str, more: &str) -> String {
    let separator = if more.is_empty() { "" } else { "\n" };
    format!("{line}\nHost: {port}-ww.preview.example\nX-Forwarded-Proto: https{separator}{more}")
}

async fn page(kit: &Kit, port: u16, path: &str) -> String {
    let lines = named(port, &format!("GET {path} HTTP/1.1"), "Accept: text/html");
    let lines = format!("{lines}\nConnection: close");
    let mut client = kit.open(port, &lines, b"").await;
    // The first page of a development server is compiled now.
    tokio::time::timeout(
        Duration::from_secs(120),
        tokio::io::AsyncReadExt::read_to_end(&mut client.stream, &mut client.read),
    )
    .await
    .unwrap()
    .unwrap();
    String::from_utf8_lossy(&client.read).into_owned()
}

/// Opens the development server's socket as the preview's own page does, and as another site's.
async fn sockets(kit: &Kit, port: u16, path: &str, extra: &str) {
    let own = format!("Origin: https://{port}-ww.preview.example\n{extra}{UPGRADE}");
    let mut client = kit
        .open(
            port,
            &named(port, &format!("GET {path} HTTP/1.1"), &own),
            b"",
        )
        .await;
    let answer = client.until("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let foreign = format!("Origin: https://evil.example\n{extra}{UPGRADE}");
    let mut client = kit
        .open(
            port,
            &named(port, &format!("GET {path} HTTP/1.1"), &foreign),
            b"",
        )
        .await;
    let answer = client.until("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn vite_serves_page_and_hot_reload_with_and_without_its_variable() {
    let fw = servers::installed().unwrap();
    let project = tempfile::tempdir_in(&fw).unwrap();
    std::fs::write(
        project.path().join("index.html"),
        "<h1>vite says hello</h1><script type=module src=/main.js></script>",
    )
    .unwrap();
    std::fs::write(project.path().join("main.js"), "console.log(1)").unwrap();
    let vite = [
        "../node_modules/vite/bin/vite.js",
        "--port",
        "PORT",
        "--strictPort",
    ];
    for environment in [
        &[][..],
        &[("__VITE_ADDITIONAL_SERVER_ALLOWED_HOSTS", ".preview.example")],
    ] {
        let kit = Kit::new().await;
        let (_running, port) =
            start(&kit, Path::new("node"), &vite, project.path(), environment).await;
        for _ in 0..2 {
            let html = page(&kit, port, "/").await;
            assert!(
                html.starts_with("HTTP/1.1 200 ") && html.contains("vite says hello"),
                "{html}"
            );
        }
        let known = kit.proxy.memory.of(port, 1);
        assert_eq!(
            known.pages_as_localhost,
            environment.is_empty(),
            "with the variable nothing is rewritten"
        );
        let script = kit
            .ask(port, &named(port, "GET /@vite/client HTTP/1.1", ""), b"")
            .await;
        let token = script
            .split("wsToken = \"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .unwrap()
            .to_owned();
        sockets(
            &kit,
            port,
            &format!("/?token={token}"),
            "Sec-WebSocket-Protocol: vite-hmr\n",
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn next_serves_page_resources_and_hot_reload() {
    let fw = servers::installed().unwrap();
    let project = tempfile::tempdir_in(&fw).unwrap();
    let pages = project.path().join("pages");
    std::fs::create_dir(&pages).unwrap();
    std::fs::write(project.path().join("package.json"), "{\"private\":true}").unwrap();
    std::fs::write(
        pages.join("index.js"),
        "export default function P(){return <h1>next says hello</h1>}",
    )
    .unwrap();
    let kit = Kit::new().await;
    let next = [
        "../node_modules/next/dist/bin/next",
        "dev",
        "--webpack",
        "-p",
        "PORT",
    ];
    let (_running, port) = start(
        &kit,
        Path::new("node"),
        &next,
        project.path(),
        &[("NEXT_TELEMETRY_DISABLED", "1")],
    )
    .await;
    let html = page(&kit, port, "/").await;
    assert!(
        html.starts_with("HTTP/1.1 200 ") && html.contains("next says hello"),
        "{html}"
    );
    let script = html
        .split("src=\"/_next/")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap();
    let lines = named(
        port,
        &format!("GET /_next/{script} HTTP/1.1"),
        &format!(
            "Origin: https://{port}-ww.preview.example\nSec-Fetch-Site: same-origin\nSec-Fetch-Mode: cors"
        ),
    );
    let resource = kit.ask(port, &lines, b"").await;
    assert!(
        resource.starts_with("HTTP/1.1 200 "),
        "{}",
        resource.get(..300).unwrap_or(&resource)
    );
    sockets(&kit, port, "/_next/hmr", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webpack_dev_server_serves_page_and_hot_reload() {
    let fw = servers::installed().unwrap();
    let project = tempfile::tempdir_in(&fw).unwrap();
    std::fs::create_dir_all(project.path().join("public")).unwrap();
    std::fs::write(
        project.path().join("public/index.html"),
        "<h1>webpack says hello</h1>",
    )
    .unwrap();
    std::fs::create_dir_all(project.path().join("src")).unwrap();
    std::fs::write(project.path().join("src/index.js"), "console.log(1)").unwrap();
    let kit = Kit::new().await;
    let webpack = [
        "../node_modules/webpack-cli/bin/cli.js",
        "serve",
        "--mode",
        "development",
        "--port",
        "PORT",
    ];
    let (_running, port) = start(&kit, Path::new("node"), &webpack, project.path(), &[]).await;
    let html = page(&kit, port, "/").await;
    assert!(
        html.starts_with("HTTP/1.1 200 ") && html.contains("webpack says hello"),
        "{html}"
    );
    sockets(&kit, port, "/ws", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flask_and_django_serve_pages_and_django_takes_forms() {
    let fw = servers::installed().unwrap();
    let packages = servers::python_path(&fw);
    let environment = [("PYTHONPATH", packages.to_str().unwrap())];
    let python = Path::new("python3");
    let project = tempfile::tempdir_in(&fw).unwrap();
    std::fs::write(project.path().join("app.py"), "from flask import Flask,request\napp=Flask(__name__)\n@app.route('/')\ndef i(): return 'flask says hello '+request.host\n").unwrap();
    let kit = Kit::new().await;
    let (_flask, port) = start(
        &kit,
        python,
        &["-m", "flask", "--app", "app", "run", "--port", "PORT"],
        project.path(),
        &environment,
    )
    .await;
    let html = page(&kit, port, "/").await;
    assert!(
        html.ends_with(&format!("flask says hello {port}-ww.preview.example")),
        "{html}"
    );

    let django = "import sys\nfrom django.conf import settings\nfrom django.http import HttpResponse\nfrom django.urls import path\n\
        from django.middleware.csrf import get_token\n\
        settings.configure(DEBUG=True,SECRET_KEY='x',ROOT_URLCONF=__name__,MIDDLEWARE=['django.middleware.common.CommonMiddleware','django.middleware.csrf.CsrfViewMiddleware'])\n\
        def i(r):\n  return HttpResponse('django says hello '+get_token(r)+' '+r.method)\n\
        urlpatterns=[path('',i)]\nfrom django.core.management import execute_from_command_line\nexecute_from_command_line(sys.argv)\n";
    std::fs::write(project.path().join("site_.py"), django).unwrap();
    let (_django, port) = start(
        &kit,
        python,
        &["site_.py", "runserver", "--noreload", "127.0.0.1:PORT"],
        project.path(),
        &environment,
    )
    .await;
    let html = page(&kit, port, "/").await;
    assert!(
        html.starts_with("HTTP/1.1 200 ") && html.contains("django says hello"),
        "{html}"
    );
    let cookie = html
        .split("csrftoken=")
        .nth(1)
        .and_then(|rest| rest.split(';').next())
        .unwrap();
    let body = format!("csrfmiddlewaretoken={cookie}");
    let form = format!(
        "Origin: https://{port}-ww.preview.example\nCookie: csrftoken={cookie}\nContent-Type: application/x-www-form-urlencoded\nContent-Length: {}",
        body.len()
    );
    let answer = kit
        .ask(
            port,
            &named(port, "POST / HTTP/1.1", &form),
            body.as_bytes(),
        )
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("POST"),
        "{}",
        answer.get(..600).unwrap_or(&answer)
    );
    eventually("both are remembered", || {
        kit.table.observed.lock().unwrap().len() >= 2
    })
    .await;
}
