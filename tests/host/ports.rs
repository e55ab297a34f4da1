//! Dev servers that an agent starts.

use serde_json::Value;
use whim_kit::wait;

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
