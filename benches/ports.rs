//! How long after `listen` and `close` the port monitor tells of it, and what looking costs.
//!
//! `bench-ports [ROUNDS]`. Ports from 20,000 on are opened one by one, out of step with the monitor's scans: first with a
//! kick, as when a process starts or an address is printed, then without. Its thread's CPU is read while nothing happens.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    reason = "a measurement that cannot go on ends by panicking, and prints what it found"
)]

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Receiver, channel};
use whim::ports::{Config, Notice, PortMonitor};
use whim_wire::port::PortChange;

const FIRST_PORT: u16 = 20_000;
/// How long the monitor's thread is watched while nothing happens.
const QUIET: Duration = Duration::from_secs(10);
/// The monitor looks less often after a minute without a change.
const IDLE: Duration = Duration::from_secs(65);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let rounds: u16 = std::env::args()
        .nth(1)
        .map_or(60, |rounds| rounds.parse().unwrap());
    let (sender, mut events) = channel(64);
    let config = Config {
        own: Vec::new(),
        preview_url: None,
        agents_uid: nix::unistd::geteuid().as_raw(),
        session_of: Arc::new(|_| None),
        proc: "/proc".into(),
    };
    let (_monitor, handle) = PortMonitor::start(config, sender).unwrap();
    for is_kicked in [true, false] {
        let (mut opened, mut closed) = (Vec::new(), Vec::new());
        for n in 0..rounds {
            out_of_step(n).await;
            let port = FIRST_PORT + n;
            let Ok(socket) = TcpListener::bind(("127.0.0.1", port)) else {
                println!("port {port} is taken: left out");
                continue;
            };
            let begun = Instant::now();
            if is_kicked {
                handle.kick();
            }
            wait_for(&mut events, port, PortChange::Opened).await;
            opened.push(begun.elapsed());
            out_of_step(n).await;
            drop(socket);
            let begun = Instant::now();
            wait_for(&mut events, port, PortChange::Closed).await;
            closed.push(begun.elapsed());
        }
        let how = if is_kicked { "kicked" } else { "not kicked" };
        println!("{how}: opened {}; closed {}", line(opened), line(closed));
    }
    println!("looking costs {:.3} % of a core at first", cost().await);
    tokio::time::sleep(IDLE).await;
    println!("and {:.3} % when idle", cost().await);
}

/// Percent of a core that looking takes while nothing happens.
async fn cost() -> f64 {
    let (before, begun) = (cpu_of_monitor(), Instant::now());
    tokio::time::sleep(QUIET).await;
    (cpu_of_monitor() - before) as f64 * 100.0 / begun.elapsed().as_nanos() as f64
}

/// A pause that differs from round to round.
async fn out_of_step(n: u16) {
    tokio::time::sleep(Duration::from_millis(60 + u64::from(n) * 7 % 50)).await;
}

async fn wait_for(events: &mut Receiver<Notice>, port: u16, change: PortChange) {
    loop {
        if let Notice::One(told, entry) = events.recv().await.unwrap()
            && told == change
            && entry.port == port
        {
            return;
        }
    }
}

fn line(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    times.last().map_or_else(
        || "never".to_owned(),
        |max| format!("p50 {:?} max {max:?}", times[times.len() / 2]),
    )
}

/// Nanoseconds that the monitor's thread has run.
fn cpu_of_monitor() -> u64 {
    let task = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .flatten()
        .find(|task| {
            std::fs::read_to_string(task.path().join("comm"))
                .is_ok_and(|name| name.trim() == "ports")
        });
    let text = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}
