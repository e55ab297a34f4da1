//! Dev servers that an agent starts.

use serde_json::{Value, json};
use whim_kit::{Client, Whim, wait};

use super::support::{PATIENCE, custom, start, whim};

/// A number that the kernel chose is noise (a debugger, a test's socket) unless somebody is told of it.
#[test]
fn a_port_of_the_ephemeral_range_is_shown_when_its_address_is_printed() {
    let script = "python3 -c 'import socket, time; s = socket.socket(); s.bind((\"127.0.0.1\", 0)); s.listen(); \
                  print(\"silent\", s.getsockname()[1], flush=True); time.sleep(1000)' > silent & \
                  python3 -u -m http.server 0 --bind 127.0.0.1; wait";
    let (whim, client) = start(&custom(whim(), script));
    let silent = wait::until("the silent port", PATIENCE, || {
        let text = std::fs::read_to_string(whim.root().at("/app/repo/silent")).ok()?;
        text.split_whitespace().nth(1)?.parse::<u64>().ok()
    })
    .unwrap();
    // The machine may have servers of others; whose one is may be known a moment later than that it is there.
    let shown = wait::until("the printed port", PATIENCE, || {
        let ports = client.json("/v1/ports").ok()?;
        let own = |port: &&Value| port["session"] == "main" && !port["process"].is_null();
        let own: Vec<Value> = ports.as_array()?.iter().filter(own).cloned().collect();
        (!own.is_empty()).then_some(own)
    });
    let shown = shown.unwrap_or_else(|error| panic!("{error}\n{}", whim.output()));
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_ne!(shown[0]["port"], silent);
    let command = shown[0]["process"]["command"].as_str().unwrap();
    assert!(command.contains("http.server"), "{shown:?}");
}

/// The one port that the agent serves.
fn served(whim: &Whim, client: &Client) -> u64 {
    let port = wait::until("the agent's port", PATIENCE, || {
        let ports = client.json("/v1/ports").ok()?;
        let mut own = ports.as_array()?.iter();
        let own = own.find(|port| port["session"] == "main" && port["http"] == true)?;
        own["port"].as_u64()
    });
    port.unwrap_or_else(|error| panic!("{error}\n{}", whim.output()))
}

#[test]
fn a_port_is_public_and_the_default_by_decision_also_after_a_crash() {
    let script = "echo hello > index.html; exec python3 -u -m http.server 0 --bind 127.0.0.1";
    let (running, client) = start(&custom(whim(), script));
    let local = running.ready(PATIENCE).unwrap().local;
    let preview = Client::tcp(whim_kit::reachable(local)).unwrap();
    let port = served(&running, &client);
    let status = |path: &str| preview.get(path).unwrap().status;
    let named = format!("/proxy/{port}/");
    assert_eq!(status(&named), 401, "private by default");

    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_whim"));
    let number = port.to_string();
    let set = |arguments: &[&str]| {
        let line = [&["ports", "set", &number][..], arguments].concat();
        let output = running.whim(binary, &line).output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    let said = format!("port {port}: public, host localhost, the default\n");
    let line = ["--public", "--host", "localhost", "--default"];
    assert_eq!(set(&line), (0, said));
    assert_eq!(status(&named), 200);
    assert_eq!(status("/"), 200, "no port is named");

    let before = running.supervisor().unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(before),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    wait::until("the port after a crash", PATIENCE, || {
        let again = running.supervisor().ok()? != before;
        (again && preview.get(&named).is_ok_and(|answer| answer.status == 200)).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", running.output()));

    let private = format!("port {port}: private, host localhost\n");
    assert_eq!(set(&["--public=false", "--default=false"]), (0, private));
    assert_eq!(status(&named), 401);
    let (code, said) = set(&["--host", "nobody"]);
    assert_eq!(code, 64, "{said}");
    let path = format!("/v1/ports/{port}");
    let refused = client.patch(&path, &json!({"publik": true})).unwrap();
    let document = refused.json().unwrap();
    assert_eq!(document["type"], "urn:whim:invalid", "{}", refused.text());
    let detail = document["detail"].as_str().unwrap();
    assert!(
        detail.contains("publik") && detail.contains("public"),
        "{detail}"
    );
}
