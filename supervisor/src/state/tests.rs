//! The parts together, on a real process that is really stopped.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tempfile::TempDir;
use tokio::sync::watch;
use whim_wire::state::{AgentState, Backup, Phase, StateObject, Supervisor, VERSION};

use super::fusion::{Fusion, Verdict};
use super::observation::{Observation, Profile};
use super::tree::{Table, Top, Tree};
use super::{clock, publish};

const SECONDS: Duration = Duration::from_secs(20);

fn object(verdict: &Verdict) -> StateObject {
    let now = clock::now().unwrap();
    StateObject {
        version: VERSION,
        state: verdict.state,
        reason: verdict.reason.clone(),
        since: clock::wall(verdict.since, now, Timestamp::now()),
        at: Timestamp::now().into(),
        seq: 0,
        phase: Phase::Ready,
        stalled: verdict.stalled,
        idle_s: 0,
        keep_awake: vec![],
        active_generations: verdict.generations,
        supervisor: Supervisor::default(),
        sessions: vec![],
        ports: vec![],
        backup: Backup::default(),
        backend: None,
        dialog: verdict.dialog.clone(),
        provider_error: None,
        weaknesses: vec![],
    }
}

struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Not a test by itself: a supervisor in small with a busy agent, for the test below to stop and continue.
#[tokio::test]
async fn victim() {
    let Ok(directory) = std::env::var("WHIM_TEST_STATE") else {
        return;
    };
    let files = publish::StateFiles::open(std::path::Path::new(&directory)).unwrap();
    let busy = Command::new("bash")
        .args(["-c", "while :; do :; done"])
        .spawn();
    let agent = Agent(busy.unwrap());
    let mut tree = Tree::new(Top::Agent(agent.0.id()));
    let mut fusion = Fusion::new(Profile::CUSTOM);
    let now = clock::now().unwrap();
    let pid = agent.0.id();
    fusion.observe(now, now, Observation::Started { pid });
    let (states, watched) = watch::channel(Arc::new(object(&fusion.evaluate(now))));
    tokio::spawn(publish::publish(files, watched, std::future::pending()));
    let mut look = tokio::time::interval(Duration::from_secs(1));
    loop {
        let now = clock::now().unwrap();
        let due = fusion.next_deadline().map_or(SECONDS, |due| due - now);
        tokio::select! {
            () = tokio::time::sleep(due) => {}
            _ = look.tick() => {
                let sample = tree.look(&Table::read(now).unwrap()).unwrap();
                fusion.observe(now, now, Observation::Tree(sample));
            }
        }
        let verdict = fusion.evaluate(clock::now().unwrap());
        assert_ne!(verdict.state, AgentState::Stopped);
        states.send_replace(Arc::new(object(&verdict)));
    }
}

struct Group(Child);

impl Group {
    fn signal(&self, signal: nix::sys::signal::Signal) {
        let group = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        nix::sys::signal::killpg(group, signal).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(nix::sys::signal::Signal::SIGKILL);
        self.0.wait().unwrap();
    }
}

impl Group {
    /// A signal is only sent when `kill` returns; the kernel tells the parent once every thread has stopped.
    fn wait_until_stopped(&self) {
        use nix::sys::wait::{Id, WaitPidFlag, waitid};
        let leader = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        waitid(
            Id::Pid(leader),
            WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT,
        )
        .unwrap();
    }
}

#[test]
fn a_machine_that_stood_still_wakes_up_working() {
    use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};
    let directory = TempDir::new().unwrap();
    let group = Group(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "state::tests::victim"])
            .env("WHIM_TEST_STATE", directory.path())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap(),
    );
    let path = directory.path().join(publish::WORD);
    let object = directory.path().join(publish::OBJECT);
    let word = || std::fs::read_to_string(&path).unwrap_or_default();
    let written = || std::fs::metadata(&object).unwrap().modified().unwrap();
    let wait = |done: &dyn Fn() -> bool| {
        let deadline = std::time::Instant::now() + SECONDS;
        while !done() {
            assert!(
                std::time::Instant::now() < deadline,
                "the word is {:?}",
                word()
            );
            std::thread::yield_now();
        }
    };
    wait(&|| word() == "working\n");
    group.signal(SIGSTOP);
    group.wait_until_stopped();
    let stopped_at = written();
    // Longer than a custom agent may be quiet, and than an evaluation may be late.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(written(), stopped_at, "it stands still");
    group.signal(SIGCONT);
    // Two more publications: what it makes of the time that it lost. It is never idle on the way.
    let mut last = stopped_at;
    for _ in 0..2 {
        wait(&|| {
            assert_eq!(word(), "working\n");
            written() != last
        });
        last = written();
    }
}
