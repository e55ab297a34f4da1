//! The whole supervisor under many streams and many calls: what it holds in memory.
//!
//! Not in turns with others and not pinned: nothing here is a time. Resident sizes are the supervisor's own, as the
//! kernel tells them, in MB.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use whim_kit::{Root, Run, Whim, proc, wait};

use super::client::{self, request};
use super::{peers, runtime};

const PATIENCE: Duration = Duration::from_secs(60);
/// How long a number of streams is held: some beats of the supervisor, which gives memory back at one.
const HELD: Duration = Duration::from_secs(6);
/// Streams at once, and the MB that are wanted then at most.
const STREAMS: [(usize, f64); 2] = [(200, 25.0), (1000, 40.0)];
/// From the beginning of one to that of the next; and all at once, which leaves the pages of all bodies.
const APART: [Duration; 2] = [Duration::from_millis(2), Duration::ZERO];
/// Calls before the heap is expected to grow no more.
const SETTLED: usize = 100_000;
/// At once.
const CALLERS: usize = 32;

/// Prints a line a figure. `calls`: how many in all.
pub(crate) fn run(binary: &Path, calls: usize) {
    let upstream = peers::Upstream::start();
    let host = Host::start(binary, &upstream);
    // What the boot took is given back at rest.
    std::thread::sleep(HELD);
    println!("\nresident MB of the whole supervisor");
    println!("  {:28}{:8.1}", "idle", host.resident());
    let runtime = runtime();
    for (apart, (streams, wanted)) in APART
        .into_iter()
        .flat_map(|apart| STREAMS.map(|streams| (apart, streams)))
    {
        let (most, then) = runtime.block_on(host.streams(streams, apart));
        let met = if then <= wanted { "" } else { "  MISSED" };
        let how = if apart.is_zero() {
            ", begun at once"
        } else {
            ""
        };
        let what = format!("{streams} streams{how}");
        println!("  {what:28}{then:8.1}  at most {wanted}{met}   (at their beginning {most:.1})");
    }
    for (what, calls) in [
        ("settled", SETTLED.min(calls)),
        ("after the rest", calls.saturating_sub(SETTLED)),
    ] {
        runtime.block_on(host.calls(calls));
        println!("  {:28}{:8.1}   ({calls} calls)", what, host.resident());
    }
}

struct Host {
    whim: Whim,
    address: std::net::SocketAddr,
    token: String,
}

impl Host {
    /// With an agent that does nothing; its calls are made here, in its name.
    fn start(binary: &Path, upstream: &peers::Upstream) -> Self {
        let command = json!(["/bin/sleep", "100000"]).to_string();
        let whim = Run::new(binary)
            .args(["--agent", "custom", "--agent-command", &command])
            .env("ANTHROPIC_API_KEY", "scripted")
            .env("WHIM_UPSTREAM_URL", format!("http://{}", upstream.address))
            .start(Root::new().unwrap())
            .unwrap();
        let address = whim_kit::reachable(whim.ready(PATIENCE).unwrap().generation);
        let keeper = whim.keeper().unwrap();
        let token = wait::until("the agent's environment", PATIENCE, || {
            proc::descendants(keeper)
                .into_iter()
                .flat_map(|process| proc::environment(process.pid))
                .find_map(|word| Some(word.strip_prefix("ANTHROPIC_AUTH_TOKEN=")?.to_owned()))
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", whim.output()));
        Self {
            whim,
            address,
            token,
        }
    }

    fn resident(&self) -> f64 {
        let supervisor = self.whim.supervisor().unwrap();
        proc::kilobytes(supervisor, "VmRSS").unwrap() as f64 / 1024.0
    }

    /// So many that stream at once: what was resident at most, and after a while.
    async fn streams(&self, number: usize, apart: Duration) -> (f64, f64) {
        let (end, ended) = watch::channel(());
        let (running, mut begun) = tokio::sync::mpsc::channel(number);
        let mut tasks = JoinSet::new();
        for n in 0..number {
            tokio::time::sleep(apart).await;
            let request = request(self.address, &self.token, &format!("?paced={n}"), true);
            let (address, running, mut ended) = (self.address, running.clone(), ended.clone());
            tasks.spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(&request).await.unwrap();
                let mut buffer = vec![0; 4 << 10];
                let read = stream.read(&mut buffer).await.unwrap();
                let head = String::from_utf8_lossy(&buffer[..read]);
                assert!(head.starts_with("HTTP/1.1 200"), "{head}");
                running.send(()).await.unwrap();
                let stream = async {
                    while stream.read(&mut buffer).await.unwrap() > 0 {}
                    panic!("a stream was cut");
                };
                tokio::select! {
                    () = stream => {}
                    _ = ended.changed() => {}
                }
            });
        }
        for _ in 0..number {
            begun.recv().await.unwrap();
        }
        let (mut most, mut resident) = (0.0_f64, 0.0);
        let until = Instant::now() + HELD;
        while Instant::now() < until {
            resident = self.resident();
            most = most.max(resident);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        drop(end);
        tasks.join_all().await;
        (most, resident)
    }

    async fn calls(&self, number: usize) {
        let mut tasks = JoinSet::new();
        for _ in 0..CALLERS {
            let request = request(self.address, &self.token, "", false);
            let address = self.address;
            tasks.spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let mut buffer = vec![0; 64 << 10];
                for _ in 0..number / CALLERS {
                    stream.write_all(&request).await.unwrap();
                    client::answer(&mut stream, &mut buffer).await;
                }
            });
        }
        tasks.join_all().await;
    }
}
