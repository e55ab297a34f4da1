//! The kit's own promises: what a test relies on must not be wrong itself.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on panics, also in its helpers"
)]

mod agents;
mod fake_agent;
mod run;
mod sockets;
mod upstream;

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use whim_kit::model::script::Script;
use whim_kit::{Client, Upstream};

const LIMIT: Duration = Duration::from_secs(10);

fn start(script: Script) -> (Upstream, Client) {
    let upstream = Upstream::start(script).unwrap();
    let client = Client::tcp(upstream.address()).unwrap();
    (upstream, client)
}

/// A program that ends with its guard.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn the_root_belongs_to_whom_it_should() {
    use std::os::unix::fs::MetadataExt;
    let root = whim_kit::Root::new().unwrap();
    let owner = |path: &str| std::fs::metadata(root.at(path)).unwrap().uid();
    let own = nix::unistd::geteuid().as_raw();
    assert_eq!(
        (owner("/home/node"), owner("/app"), owner("/whim")),
        (root.agents().0, root.agents().0, own)
    );
    let file = root
        .write_as_agent("/home/node/.claude/settings.json", "{}")
        .unwrap();
    assert_eq!(
        std::fs::metadata(file.parent().unwrap()).unwrap().uid(),
        root.agents().0
    );
    assert_eq!(
        std::fs::metadata(root.at("/tmp")).unwrap().mode() & 0o7777,
        0o1777
    );
    let path = root.path().to_owned();
    drop(root);
    assert!(!Path::new(&path).exists());
}
