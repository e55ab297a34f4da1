use std::process::{Child, Command as Process, Stdio};

use tempfile::TempDir;
use tokio::task::JoinHandle as Task;
use whim_wire::event::kind;
use whim_wire::state::{Backup, Supervisor};

use super::*;
use crate::journal::{Delivery, Limits, Subscription};
use crate::state::fusion::Remembered;
use crate::state::observation::{Exit, Generation, Hook, Profile, Stop, Word};

const SECONDS: Duration = Duration::from_secs(20);

struct Bench {
    directory: TempDir,
    handle: Handle,
    state: watch::Receiver<Arc<StateObject>>,
    journal: Journal,
    stop: oneshot::Sender<()>,
    task: Task<Result<(), MonitorError>>,
}

fn facts() -> Facts {
    Facts {
        phase: Phase::Ready,
        supervisor: Supervisor::default(),
        keep_awake: vec![],
        ports: vec![],
        backup: Backup::default(),
        sessions: Default::default(),
    }
}

fn start_with(directory: TempDir) -> Bench {
    let (journal, _) = Journal::open(&directory.path().join("journal"), Limits::default()).unwrap();
    let memory = directory.path().join("last.json");
    let remembered = Memory::load(&memory).unwrap();
    let (monitor, handle) = Monitor::new(facts(), journal.clone(), memory, remembered).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(monitor.run(async {
        let _ = stopped.await;
    }));
    Bench {
        directory,
        state: handle.state(),
        handle,
        journal,
        stop,
        task,
    }
}

impl Bench {
    fn start() -> Self {
        start_with(TempDir::new().unwrap())
    }

    async fn open(&self, fusion: Fusion) {
        let facts = SessionFacts {
            agent: "claude".into(),
            mode: "interactive".into(),
            ..SessionFacts::default()
        };
        self.handle
            .open("main".into(), facts, fusion)
            .await
            .unwrap();
    }

    async fn see(&self, observation: Observation) {
        let now = clock::now().unwrap();
        self.handle
            .observe("main".into(), now, observation)
            .await
            .unwrap();
    }

    async fn until(&self, wanted: impl FnMut(&Arc<StateObject>) -> bool) -> Arc<StateObject> {
        let mut state = self.state.clone();
        let reached = tokio::time::timeout(SECONDS, state.wait_for(wanted)).await;
        match reached {
            Ok(state) => Arc::clone(&state.unwrap()),
            Err(_) => panic!("never reached; the state is {:#?}", self.state.borrow()),
        }
    }

    async fn reaches(&self, state: AgentState) -> Arc<StateObject> {
        self.until(|object| object.state == state).await
    }

    async fn end(self) -> TempDir {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
        drop((self.handle, self.state));
        self.journal.close(SECONDS).await.unwrap();
        self.directory
    }
}

/// The changes of state that the journal tells: `main working`, and `- working` for the container.
async fn told(subscription: &mut Subscription, count: usize) -> Vec<String> {
    let mut told = Vec::new();
    while told.len() < count {
        let next = tokio::time::timeout(SECONDS, subscription.next()).await;
        if let Delivery::Event(entry) = next.unwrap().unwrap().unwrap()
            && *entry.kind == *kind::STATE_CHANGED
        {
            let fields = entry.event().unwrap().fields;
            let session = fields
                .get("session")
                .and_then(|id| id.as_str())
                .unwrap_or("-");
            told.push(format!("{session} {}", fields["state"].as_str().unwrap()));
        }
    }
    told
}

#[tokio::test]
async fn a_turn_is_seen_told_and_numbered() {
    let bench = Bench::start();
    let mut events = bench.journal.subscribe(Some(0));
    bench.open(Fusion::new(Profile::INTERACTIVE)).await;
    bench.see(Observation::Started { pid: 31 }).await;
    bench.see(Observation::Word(Word::Idle)).await;
    let idle = bench.reaches(AgentState::Idle).await;
    assert_eq!(idle.sessions[0].pid, Some(31));
    bench.see(Observation::Hook(Hook::PromptSubmitted)).await;
    let event = Generation::Started { side: false };
    bench.see(Observation::Generation { call: 1, event }).await;
    let working = bench.until(|object| object.active_generations == 1).await;
    assert_eq!(working.state, AgentState::Working);
    assert!(working.seq > idle.seq, "a change has a number");
    let event = Generation::Ended(Stop::EndTurn);
    bench.see(Observation::Generation { call: 1, event }).await;
    bench.see(Observation::Hook(Hook::Stopped)).await;
    bench.see(Observation::Word(Word::Idle)).await;
    let idle = bench.reaches(AgentState::Idle).await;
    assert_eq!((idle.active_generations, idle.idle_s), (0, 0));
    let exit = Exit::Signal(9);
    bench.see(Observation::Exited { exit, note: None }).await;
    let stopped = bench.reaches(AgentState::Stopped).await;
    assert_eq!(
        (stopped.sessions[0].exit, stopped.sessions[0].pid),
        (Some(137), None)
    );
    let expected = [
        "- starting",
        "main starting",
        "main idle",
        "- idle",
        "main working",
        "- working",
    ];
    assert_eq!(told(&mut events, 6).await, expected);
    let expected = ["main idle", "- idle", "main stopped", "- stopped"];
    assert_eq!(told(&mut events, 4).await, expected);
    bench.end().await;
}

#[tokio::test]
async fn facts_show_at_once() {
    let bench = Bench::start();
    bench.open(Fusion::new(Profile::INTERACTIVE)).await;
    let change = |facts: &mut Facts| {
        facts.ports = vec![3000];
        facts.sessions.get_mut("main").unwrap().queued_prompts = 2;
    };
    bench.handle.facts(change).await.unwrap();
    let object = bench.until(|object| object.ports == [3000]).await;
    assert_eq!(object.sessions[0].queued_prompts, 2);
    let failed = |facts: &mut Facts| {
        facts.phase = Phase::Failed {
            step: "clone".into(),
            error: "no route".into(),
        };
    };
    bench.handle.facts(failed).await.unwrap();
    let object = bench.reaches(AgentState::Stopped).await;
    assert!(object.reason.contains("clone"), "{}", object.reason);
    bench.end().await;
}

#[tokio::test]
async fn nothing_new_is_nothing_sent() {
    let mut bench = Bench::start();
    bench.open(Fusion::new(Profile::INTERACTIVE)).await;
    bench.see(Observation::Started { pid: 31 }).await;
    bench.see(Observation::Word(Word::Idle)).await;
    bench.reaches(AgentState::Idle).await;
    bench.state.mark_unchanged();
    for _ in 0..50 {
        bench.see(Observation::Output { bytes: 10 }).await;
    }
    // A round trip: all of the above was judged.
    bench
        .handle
        .facts(|facts| facts.ports.push(1))
        .await
        .unwrap();
    let mut changes = 0;
    while bench.state.borrow_and_update().ports.is_empty() {
        changes += 1;
        bench.state.changed().await.unwrap();
    }
    assert!(changes <= 1, "{changes} states for 50 outputs");
    bench.end().await;
}

#[tokio::test]
async fn a_second_session_of_the_same_name_is_refused() {
    let bench = Bench::start();
    bench.open(Fusion::new(Profile::INTERACTIVE)).await;
    let again = bench.handle.open(
        "main".into(),
        SessionFacts::default(),
        Fusion::new(Profile::CUSTOM),
    );
    assert_eq!(again.await, Err(MonitorError::Known("main".into())));
    for n in 1..MAX_SESSIONS {
        let id = format!("s{n}").into();
        let opened = bench
            .handle
            .open(id, SessionFacts::default(), Fusion::new(Profile::CUSTOM));
        opened.await.unwrap();
    }
    let one_more = bench.handle.open(
        "more".into(),
        SessionFacts::default(),
        Fusion::new(Profile::CUSTOM),
    );
    assert_eq!(one_more.await, Err(MonitorError::TooMany("more".into())));
    bench.handle.close("s1".into()).await.unwrap();
    let room = bench.handle.open(
        "more".into(),
        SessionFacts::default(),
        Fusion::new(Profile::CUSTOM),
    );
    room.await.unwrap();
    bench.end().await;
}

#[tokio::test]
async fn after_a_restart_the_last_word_stands_and_is_not_told_again() {
    let bench = Bench::start();
    bench.open(Fusion::new(Profile::INTERACTIVE)).await;
    bench.see(Observation::Started { pid: 31 }).await;
    bench.see(Observation::Hook(Hook::PromptSubmitted)).await;
    bench.reaches(AgentState::Working).await;
    let directory = bench.end().await;

    let bench = start_with(directory);
    let mut events = bench.journal.subscribe(None);
    assert_eq!(
        bench.state.borrow().state,
        AgentState::Working,
        "before anything is found"
    );
    let now = clock::now().unwrap();
    let memory = Memory::load(&bench.directory.path().join("last.json")).unwrap();
    let word: Remembered = memory.sessions["main"].clone();
    assert_eq!(word.state, AgentState::Working);
    bench
        .open(Fusion::resume(Profile::INTERACTIVE, word, now, now))
        .await;
    bench.see(Observation::Word(Word::Busy)).await;
    bench.until(|object| object.sessions.len() == 1).await;
    assert_eq!(bench.state.borrow().state, AgentState::Working);
    bench.see(Observation::Word(Word::Idle)).await;
    bench.reaches(AgentState::Idle).await;
    let expected = ["main idle", "- idle"];
    assert_eq!(told(&mut events, 2).await, expected, "never starting");
    bench.end().await;
}

struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn a_custom_agent_that_computes_works_and_then_rests() {
    let bench = Bench::start();
    let script = "read go; for ((i = 0; i < 10000000; i++)); do read -t 0 && break; done; read end";
    let mut agent = Agent(
        Process::new("bash")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut stdin = agent.0.stdin.take().unwrap();
    bench.open(Fusion::new(Profile::CUSTOM)).await;
    let pid = agent.0.id();
    bench.see(Observation::Started { pid }).await;
    bench
        .handle
        .top("main".into(), Some(Top::Agent(pid)))
        .await
        .unwrap();
    bench.reaches(AgentState::Idle).await;
    std::io::Write::write_all(&mut stdin, b"go\n").unwrap();
    let working = bench.reaches(AgentState::Working).await;
    assert!(working.reason.contains("CPU"), "{}", working.reason);
    std::io::Write::write_all(&mut stdin, b"stop\n").unwrap();
    bench.reaches(AgentState::Idle).await;
    bench.end().await;
}

#[tokio::test]
async fn a_full_queue_is_said() {
    let directory = TempDir::new().unwrap();
    let (journal, _) = Journal::open(&directory.path().join("journal"), Limits::default()).unwrap();
    let memory = directory.path().join("last.json");
    let (monitor, handle) = Monitor::new(facts(), journal, memory, Memory::default()).unwrap();
    // It does not run yet.
    let output = || Observation::Output { bytes: 1 };
    let taken = (0..MAX_QUEUED + 5)
        .take_while(|_| handle.try_observe("main".into(), Moment::default(), output()))
        .count();
    assert_eq!(taken, MAX_QUEUED);
    drop(monitor);
    assert_eq!(handle.facts(|_| ()).await, Err(MonitorError::Ended));
}

/// Not a test by itself: a supervisor with a busy agent, for the test below to stop and continue.
#[tokio::test]
async fn victim() {
    let Ok(directory) = std::env::var("WHIM_TEST_MONITOR") else {
        return;
    };
    let directory = std::path::Path::new(&directory);
    let (journal, _) = Journal::open(&directory.join("journal"), Limits::default()).unwrap();
    let memory = directory.join("last.json");
    let (monitor, handle) = Monitor::new(facts(), journal, memory, Memory::default()).unwrap();
    let files = crate::state::publish::StateFiles::open(directory).unwrap();
    tokio::spawn(crate::state::publish::publish(
        files,
        handle.state(),
        std::future::pending(),
    ));
    let running = tokio::spawn(monitor.run(std::future::pending()));
    let agent = Agent(
        Process::new("bash")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap(),
    );
    let pid = agent.0.id();
    let fusion = Fusion::new(Profile::CUSTOM);
    handle
        .open("main".into(), SessionFacts::default(), fusion)
        .await
        .unwrap();
    let now = clock::now().unwrap();
    let started = Observation::Started { pid };
    handle.observe("main".into(), now, started).await.unwrap();
    handle
        .top("main".into(), Some(Top::Agent(pid)))
        .await
        .unwrap();
    running.await.unwrap().unwrap();
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

#[test]
fn a_machine_that_stood_still_wakes_up_working() {
    use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};
    use std::os::unix::process::CommandExt;
    let directory = TempDir::new().unwrap();
    let group = Group(
        Process::new(std::env::current_exe().unwrap())
            .args(["--exact", "state::monitor::tests::victim"])
            .env("WHIM_TEST_MONITOR", directory.path())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap(),
    );
    let path = directory.path().join(crate::state::publish::WORD);
    let object = directory.path().join(crate::state::publish::OBJECT);
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
