//! Files that people attach to a task.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use whim_kit::{Client, Upstream, wait};

use crate::support::{
    PATIENCE, agent, custom, kill_supervisor, ready, repository, says, start, state, whim, word,
};

/// Does nothing, for ever.
const SLEEPS: &str = "exec sleep 100000";

/// Sends one file; the call's status and what came of the file.
fn send(client: &Client, query: &str, bytes: &[u8]) -> (u16, Value) {
    let request = http::Request::builder()
        .method("POST")
        .uri(format!("/v1/attachments?{query}"))
        .header("content-type", "application/octet-stream")
        .body(bytes.to_vec().into())
        .unwrap();
    let answer = client.send(request).unwrap();
    (answer.status.as_u16(), answer.json().unwrap())
}

#[test]
fn a_file_that_is_sent_lies_there_for_the_agent_and_the_agent_is_told() {
    let upstream = Upstream::start(says("seen")).unwrap();
    let repository = repository();
    let run = agent("claude", &upstream, repository.path()).args([
        "--permission-mode",
        "bypass",
        "first task",
    ]);
    let (whim, client) = start(&run);
    word(&client, &whim, "idle");
    let (status, answer) = send(&client, "name=..%2Fmy%20sh%C3%B6t%E2%80%AE.png", b"\x89PNG");
    assert_eq!(status, 201, "{answer}");
    let file = whim.root().at("/app/attachments/01-my-shöt.png");
    assert_eq!(
        answer["attachments"][0]["path"],
        file.to_str().unwrap(),
        "{answer}"
    );
    assert_eq!(std::fs::read(&file).unwrap(), b"\x89PNG");
    let metadata = file.metadata().unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o644);
    assert_eq!(metadata.uid(), whim.root().agents().0);
    let told = upstream.wait_for("the prompt about the file", PATIENCE, |turns| {
        turns
            .iter()
            .any(|turn| turn.mentions("/app/attachments/01-my-sh"))
            .then_some(())
    });
    told.unwrap_or_else(|error| panic!("{error}\n{}", whim.output()));
    let prompt = answer["prompt_id"].as_str().unwrap();
    let path = format!("/v1/sessions/main/prompts/{prompt}");
    wait::until("the prompt's end", PATIENCE, || {
        client
            .json(&path)
            .ok()
            .filter(|prompt| prompt["state"] == "done")
    })
    .unwrap();
}

#[test]
fn ten_at_most_no_programs_and_numbers_that_outlive_the_supervisor() {
    let (whim, client) = start(&custom(whim(), SLEEPS));
    ready(&client, &whim);
    for (query, bytes, word) in [
        ("name=run.exe", &b"x"[..], "executable"),
        ("name=a.txt", b"#!/bin/sh\nid", "executable"),
        ("name=b.txt", b"\x7fELF\x02", "executable"),
    ] {
        let (status, answer) = send(&client, &format!("{query}&tell=false"), bytes);
        assert_eq!(
            (status, &answer["attachments"][0]["word"]),
            (207, &json!(word))
        );
    }
    let large = vec![0; 25 * 1024 * 1024 + 1];
    let (status, answer) = send(&client, "name=large.bmp&tell=false", &large);
    assert_eq!(status, 413, "{answer}");
    for number in 1..=5 {
        let (status, answer) = send(&client, "name=note.txt&tell=false", b"n");
        let name = format!("{number:02}-note.txt");
        assert_eq!(
            (status, &answer["attachments"][0]["name"]),
            (201, &json!(name))
        );
    }
    kill_supervisor(&client, &whim, 1);
    for number in 6..=10 {
        let (status, answer) = send(&client, "name=note.txt&tell=false", b"n");
        let name = format!("{number:02}-note.txt");
        assert_eq!(
            (status, &answer["attachments"][0]["name"]),
            (201, &json!(name))
        );
    }
    let (status, answer) = send(&client, "name=note.txt&tell=false", b"n");
    assert_eq!(
        (status, &answer["attachments"][0]["word"]),
        (207, &json!("full"))
    );
    // One is deleted: its number and its place are free.
    std::fs::remove_file(whim.root().at("/app/attachments/04-note.txt")).unwrap();
    let (status, answer) = send(&client, "name=other.txt&tell=false", b"n");
    assert_eq!(
        (status, &answer["attachments"][0]["name"]),
        (201, &json!("04-other.txt"))
    );
    let listed = client.json("/v1/attachments").unwrap();
    let there = |entry: &&Value| entry["error"].is_null();
    let listed = listed["attachments"].as_array().unwrap();
    assert_eq!(listed.iter().filter(there).count(), 10, "{listed:?}");
    assert_eq!(
        std::fs::read_dir(whim.root().at("/app/attachments"))
            .unwrap()
            .count(),
        10,
        "nothing half-written is left"
    );
}

#[test]
fn links_to_this_machine_are_refused_without_a_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let links: Vec<Value> = [
        format!("https://127.0.0.1:{port}/a"),
        format!("https://localhost:{port}/a"),
        format!("https://[::ffff:127.0.0.1]:{port}/a"),
        format!("https://2130706433:{port}/a"),
        "https://169.254.169.254/latest/meta-data/".to_owned(),
    ]
    .iter()
    .map(|url| json!({"name": "a.txt", "url": url}))
    .chain([json!({"name": "a.txt", "url": format!("http://127.0.0.1:{port}/a")})])
    .collect();
    let (whim, client) = start(&custom(whim(), SLEEPS));
    ready(&client, &whim);
    let body = json!({"attachments": links});
    let answer = client.post("/v1/attachments?tell=false", &body).unwrap();
    assert_eq!(answer.status, 207, "{}", answer.text());
    let answer = answer.json().unwrap();
    let words: Vec<&str> = answer["attachments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["word"].as_str().unwrap())
        .collect();
    let refused = ["forbidden"; 5].into_iter().chain(["link"]);
    assert_eq!(words, refused.collect::<Vec<_>>(), "{answer}");
    listener.set_nonblocking(true).unwrap();
    let nobody = listener.accept().unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
    let eleven =
        json!({"attachments": vec![json!({"name": "a", "url": "https://x.invalid/"}); 11]});
    let answer = client.post("/v1/attachments", &eleven).unwrap();
    assert_eq!(answer.status, 422, "{}", answer.text());
}

/// An outbound proxy that is itself the https server of every name: answers by path.
struct Outside {
    address: SocketAddr,
    /// PEM of the authority that whim must trust.
    certificate: String,
    tunnels: Arc<AtomicUsize>,
}

impl Outside {
    fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["files.invalid".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let outside = Self {
            address: listener.local_addr().unwrap(),
            certificate: pem(made.cert.der()),
            tunnels: Arc::default(),
        };
        let tunnels = outside.tunnels.clone();
        std::thread::spawn(move || {
            for tcp in listener.incoming().filter_map(Result::ok) {
                tunnels.fetch_add(1, Ordering::SeqCst);
                let config = config.clone();
                std::thread::spawn(move || {
                    // A client that has heard enough hangs up.
                    drop(serve(tcp, config));
                });
            }
        });
        outside
    }
}

fn serve(mut tcp: std::net::TcpStream, config: Arc<rustls::ServerConfig>) -> std::io::Result<()> {
    let asked = head(&mut tcp)?;
    assert!(asked.starts_with("CONNECT files.invalid:443 "), "{asked}");
    tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let connection = rustls::ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut tls = rustls::StreamOwned::new(connection, tcp);
    let asked = head(&mut tls)?;
    let answer: &[u8] = if asked.starts_with("GET /plan?sig=good ") {
        b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nthe plan"
    } else if asked.starts_with("GET /inside ") {
        b"HTTP/1.1 302 Found\r\nlocation: https://10.0.0.1/\r\ncontent-length: 0\r\n\r\n"
    } else {
        b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"
    };
    tls.write_all(answer)?;
    tls.conn.send_close_notify();
    tls.flush()
}

fn head(stream: &mut impl std::io::Read) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.by_ref().read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

#[test]
fn the_specs_files_are_there_before_the_agent_which_hears_what_is_missing() {
    let outside = Outside::start();
    let authorities = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(authorities.path(), &outside.certificate).unwrap();
    // Readable for whoever runs the program.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(authorities.path(), readable).unwrap();
    let upstream = Upstream::start(says("seen")).unwrap();
    let repository = repository();
    let spec = json!({"version": 1, "attachments": [
        {"name": "01-plan.md", "url": "https://files.invalid/plan?sig=good"},
        {"name": "02-old.png", "url": "https://files.invalid/old?sig=hunter2"},
        {"name": "03-keys.txt", "url": "https://files.invalid/inside"},
    ]});
    let run = agent("claude", &upstream, repository.path())
        .env("HTTPS_PROXY", format!("http://{}", outside.address))
        .env("SSL_CERT_FILE", authorities.path())
        .args([
            "--spec",
            &spec.to_string(),
            "--permission-mode",
            "bypass",
            "read the plan",
        ]);
    let (whim, client) = start(&run);
    let asked = upstream.wait_for("the prompt", PATIENCE, |all| {
        let mut turns = all.iter().filter(|one| one.is_turn());
        turns
            .any(|turn| turn.mentions("read the plan"))
            .then_some(())
    });
    asked.unwrap_or_else(|error| panic!("{error}\n{}", whim.output()));
    let plan = whim.root().at("/app/attachments/01-plan.md");
    assert_eq!(std::fs::read(&plan).unwrap(), b"the plan");
    let turns = upstream.turns();
    let first = turns
        .iter()
        .find(|turn| turn.mentions("read the plan"))
        .unwrap();
    for part in [
        "/app/attachments/01-plan.md",
        "02-old.png: the link has expired",
        "03-keys.txt: the link leads to an address inside",
    ] {
        assert!(first.mentions(part), "{part}\n{}", whim.output());
    }
    assert!(!first.mentions("hunter2") && !whim.output().contains("hunter2"));
    let events = client.json("/v1/events?limit=1000").unwrap().to_string();
    assert!(!events.contains("hunter2"));
    assert!(events.contains("attachment.stored") && events.contains("\"expired\""));
    let listed = client.json("/v1/attachments").unwrap();
    assert_eq!(
        listed["attachments"].as_array().unwrap().len(),
        3,
        "{listed}"
    );
    // Links end after an hour: what is there is not asked for again.
    let asked = outside.tunnels.load(Ordering::SeqCst);
    kill_supervisor(&client, &whim, 1);
    state(&client, &whim, "ready", |state| state["phase"] == "ready");
    assert_eq!(outside.tunnels.load(Ordering::SeqCst), asked);
}
