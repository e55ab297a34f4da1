//! The servers that are compared: whim as it runs in a container, and ttyd.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use whim_kit::{Client, Root, Run, Whim, proc, wait};

use super::viewer::Place;

const PATIENCE: Duration = Duration::from_secs(60);

/// A server of terminals.
pub(crate) trait Server {
    fn name(&self) -> &'static str;
    /// A shell of its own.
    fn shell(&self) -> Place;
    /// Ends it, with what runs in it.
    fn end(&self, shell: &Place);
    /// Processes that carry the bytes.
    fn processes(&self) -> Vec<i32>;

    /// Milliseconds of processor time so far.
    fn processor(&self) -> f64 {
        self.processes().into_iter().map(processor).sum()
    }

    /// Resident kilobytes.
    fn memory(&self) -> u64 {
        let all = self.processes().into_iter();
        all.filter_map(|pid| proc::kilobytes(pid, "VmRSS")).sum()
    }

    fn threads(&self) -> usize {
        let all = self.processes().into_iter();
        all.map(|pid| count(&format!("/proc/{pid}/task"))).sum()
    }

    fn descriptors(&self) -> usize {
        let all = self.processes().into_iter();
        all.map(|pid| count(&format!("/proc/{pid}/fd"))).sum()
    }
}

fn count(directory: &str) -> usize {
    fs::read_dir(directory).unwrap().count()
}

fn processor(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks: f64 = [11, 12]
        .into_iter()
        .map(|at: usize| fields[at].parse::<f64>().unwrap())
        .sum();
    ticks * 10.0
}

/// Keeper and supervisor, with an agent that does nothing.
pub(crate) struct Ours {
    whim: Whim,
    client: Client,
    address: SocketAddr,
}

impl Ours {
    pub(crate) fn start(binary: &Path) -> Self {
        let command = json!(["/bin/sleep", "100000"]).to_string();
        let whim = Run::new(binary)
            .args(["--agent", "custom", "--agent-command", &command])
            .start(Root::new().unwrap())
            .unwrap();
        let client = whim.client(PATIENCE).unwrap().limit(PATIENCE);
        wait::until("whim", PATIENCE, || {
            let state = client.json("/v1/state").ok()?;
            (state["phase"] == "ready").then_some(())
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", whim.output()));
        let address = whim_kit::reachable(whim.ready(PATIENCE).unwrap().ui);
        Self {
            whim,
            client,
            address,
        }
    }
}

impl Server for Ours {
    fn name(&self) -> &'static str {
        "whim"
    }

    fn shell(&self) -> Place {
        let body = json!({"command": ["/bin/bash", "--norc"]});
        let opened = self.client.post("/v1/terminals", &body).unwrap();
        assert_eq!(opened.status, 201, "{}", opened.text());
        let opened = opened.json().unwrap();
        Place {
            address: self.address,
            path: format!("/t/{}/ws", opened["id"].as_str().unwrap()),
            bearer: Some(self.whim.token().to_owned()),
        }
    }

    fn end(&self, shell: &Place) {
        let id = shell.path.split('/').nth(2).unwrap();
        let ended = self.client.delete(&format!("/v1/terminals/{id}")).unwrap();
        assert!(ended.status.is_success(), "{}", ended.text());
    }

    fn processes(&self) -> Vec<i32> {
        vec![self.whim.keeper().unwrap(), self.whim.supervisor().unwrap()]
    }
}

/// A shell for each connection.
pub(crate) struct Ttyd {
    child: Child,
    address: SocketAddr,
}

impl Ttyd {
    /// `None` when it is not installed.
    pub(crate) fn start() -> Option<Self> {
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let child = Command::new("ttyd")
            .args(["-i", "127.0.0.1", "-W", "-p", &address.port().to_string()])
            .args(["bash", "--norc"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < until, "ttyd does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(Self { child, address })
    }
}

impl Server for Ttyd {
    fn name(&self) -> &'static str {
        "ttyd"
    }

    fn shell(&self) -> Place {
        Place {
            address: self.address,
            path: "/ws".to_owned(),
            bearer: None,
        }
    }

    /// It ended with its connection.
    fn end(&self, _: &Place) {}

    fn processes(&self) -> Vec<i32> {
        vec![i32::try_from(self.child.id()).unwrap()]
    }
}

impl Drop for Ttyd {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
