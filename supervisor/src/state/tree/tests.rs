use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::*;
use crate::state::clock;

/// A process tree that ends with the test.
struct Session {
    child: std::process::Child,
    pid: u32,
}

impl Session {
    /// `script` for bash, in a process group of its own.
    fn start(script: &str) -> Self {
        let child = Command::new("bash")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let pid = child.id();
        Self { child, pid }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let out = self.child.stdout.as_mut().unwrap();
        // Unbuffered: one line at a time.
        let mut reader = BufReader::with_capacity(1, out);
        reader.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(i32::try_from(self.pid).unwrap());
        nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).unwrap();
        self.child.wait().unwrap();
    }
}

fn table() -> Table {
    Table::read(clock::now().unwrap()).unwrap()
}

/// Looks until `done`; the deadline is for a tree that never gets there.
fn look_until(tree: &mut Tree, done: impl Fn(&Sample) -> bool) -> Sample {
    let deadline = clock::now().unwrap() + Duration::from_secs(20);
    loop {
        if let Ok(sample) = tree.look(&table())
            && done(&sample)
        {
            return sample;
        }
        assert!(clock::now().unwrap() < deadline, "never seen");
        std::thread::yield_now();
    }
}

#[test]
fn a_tool_is_seen_with_its_command_and_its_cpu() {
    // The agent starts its tool when it is older than what starts with it.
    let mut session =
        Session::start("read go; bash -c 'while :; do :; done; exit' & echo $!; wait");
    let mut tree = Tree::new(Top::Agent(session.pid));
    let agent = table().process(session.pid).unwrap().started;
    while clock::now().unwrap() - agent <= TOGETHER + Duration::from_millis(20) {
        std::thread::yield_now();
    }
    let before = clock::now().unwrap();
    session.tell("go");
    let pid: u32 = session.line().parse().unwrap();
    let first = look_until(&mut tree, |sample| {
        sample
            .children
            .iter()
            // Until its exec it is still called what its parent is.
            .any(|child| child.command == "bash -c while :; do :; done; exit")
    });
    assert_eq!(first.children.len(), 1);
    assert_eq!(first.children[0].pid, pid);
    assert_eq!(
        first.children[0].command,
        "bash -c while :; do :; done; exit"
    );
    assert!(first.children[0].started + Duration::from_millis(10) >= before);
    let busy = look_until(&mut tree, |sample| {
        sample.children.first().and_then(|child| child.cpu_percent) > Some(5)
    });
    let percent = busy.children[0].cpu_percent.unwrap();
    assert!(percent <= 120, "one thread used {percent} %");
    assert!(busy.cpu_percent >= busy.children[0].cpu_percent);
}

#[test]
fn what_starts_with_the_agent_is_part_of_it() {
    // A wrapper, the real agent beneath, and a server; then the agent starts a tool.
    let mut session = Session::start(
        "bash -c 'sleep 1000 & echo up; read go; sleep 2000 & echo $!; wait; :' <&0; :",
    );
    assert_eq!(session.line(), "up");
    let mut tree = Tree::new(Top::Agent(session.pid));
    assert_eq!(tree.look(&table()).unwrap().children, []);
    let agent = table().process(session.pid).unwrap().started;
    while clock::now().unwrap() - agent <= TOGETHER + Duration::from_millis(20) {
        std::thread::yield_now();
    }
    session.tell("go");
    let pid: u32 = session.line().parse().unwrap();
    let sample = look_until(&mut tree, |sample| {
        sample
            .children
            .iter()
            .any(|child| child.command == "sleep 2000")
    });
    assert_eq!(sample.children.len(), 1);
    assert_eq!(sample.children[0].pid, pid);
}

#[test]
fn beneath_a_holder_the_agent_is_the_oldest_child() {
    let mut session =
        Session::start("sleep 1000 & echo agent $!; read go; sleep 2000 & echo orphan $!; wait");
    let agent: u32 = session
        .line()
        .strip_prefix("agent ")
        .unwrap()
        .parse()
        .unwrap();
    let started = table().process(agent).unwrap().started;
    while clock::now().unwrap() - started <= TOGETHER + Duration::from_millis(20) {
        std::thread::yield_now();
    }
    session.tell("go");
    let orphan: u32 = session
        .line()
        .strip_prefix("orphan ")
        .unwrap()
        .parse()
        .unwrap();
    let mut tree = Tree::new(Top::Holder(session.pid));
    let sample = look_until(&mut tree, |sample| !sample.children.is_empty());
    assert_eq!(
        sample.children[0].pid, orphan,
        "what the agent left is its own"
    );
    assert_eq!(sample.children.len(), 1);
}

#[test]
fn a_session_that_is_gone_is_named() {
    let session = Session::start("exec sleep 1000");
    let (holder, agent) = (Top::Holder(session.pid), Top::Agent(session.pid));
    assert!(matches!(
        Tree::new(holder).look(&table()),
        Err(TreeError::Gone { pid }) if pid == session.pid
    ));
    assert!(Tree::new(agent).look(&table()).is_ok());
    let pid = session.pid;
    drop(session);
    assert!(matches!(Tree::new(agent).look(&table()), Err(TreeError::Gone { pid: p }) if p == pid));
}

#[test]
fn names_and_commands_that_lie_are_harmless() {
    let directory = TempDir::new().unwrap();
    let evil = directory.path().join("a) S 1 (b\n\u{1b}]0;x\u{7}");
    std::fs::copy("/bin/sleep", &evil).unwrap();
    let mut child = Command::new(&evil)
        .arg("1000")
        .arg0("\u{1b}[2Jrm\t-rf\n/\u{202e}")
        .spawn()
        .unwrap();
    let mut tree = Tree::new(Top::Agent(std::process::id()));
    let pid = child.id();
    let deadline = clock::now().unwrap() + Duration::from_secs(20);
    let command = loop {
        let table = table();
        let process = table.process(pid).unwrap();
        let command = table.command(process);
        if process.parent == std::process::id()
            && command.contains("1000")
            && command.contains("rm")
        {
            break command;
        }
        assert!(clock::now().unwrap() < deadline, "{command:?}");
    };
    assert_eq!(command, "[2Jrm -rf / 1000");
    tree.look(&table()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_look_that_follows_too_soon_repeats_what_was_computed() {
    let mut session = Session::start("echo up; while :; do :; done");
    session.line();
    let mut tree = Tree::new(Top::Agent(session.pid));
    let sample = look_until(&mut tree, |sample| sample.cpu_percent > Some(5));
    let again = tree.look(&table()).unwrap();
    assert_eq!(again.cpu_percent, sample.cpu_percent);
}

/// Files as `/proc` has them: pid, parent, state, ticks, start in ticks, argv.
fn fake(processes: &[(u32, u32, char, u64, u64, &str)]) -> TempDir {
    let proc = TempDir::new().unwrap();
    for (pid, parent, state, ticks, start, argv) in processes {
        let directory = proc.path().join(pid.to_string());
        std::fs::create_dir(&directory).unwrap();
        let name = argv.split(' ').next().unwrap();
        let stat = format!(
            "{pid} ({name}) {state} {parent} 0 0 0 0 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 {start} 0 0\n"
        );
        std::fs::write(directory.join("stat"), stat).unwrap();
        std::fs::write(directory.join("cmdline"), argv.replace(' ', "\0")).unwrap();
    }
    proc
}

fn look(tree: &mut Tree, processes: &[(u32, u32, char, u64, u64, &str)], at: u64) -> Sample {
    let proc = fake(processes);
    let table = Table::read_from(proc.path(), Moment::from_millis(at)).unwrap();
    tree.look(&table).unwrap()
}

#[test]
fn cpu_use_counts_children_that_ended_meanwhile() {
    let mut tree = Tree::new(Top::Agent(10));
    let agent = (10, 1, 'S', 50, 0, "claude");
    look(
        &mut tree,
        &[agent, (20, 10, 'S', 5, 500, "make all")],
        10_000,
    );
    // The compilers that ran have ended and were waited for: their time is now in make's.
    let later = [agent, (20, 10, 'S', 105, 500, "make all")];
    let sample = look(&mut tree, &later, 12_000);
    assert_eq!(sample.children[0].cpu_percent, Some(50));
    assert_eq!(sample.cpu_percent, Some(50));
}

#[test]
fn a_process_id_that_is_used_again_is_another_process() {
    let mut tree = Tree::new(Top::Agent(10));
    let agent = (10, 1, 'S', 50, 0, "claude");
    look(
        &mut tree,
        &[agent, (20, 10, 'S', 1_000, 500, "old")],
        10_000,
    );
    let sample = look(&mut tree, &[agent, (20, 10, 'S', 30, 1_100, "new")], 12_000);
    // 300 ms in the second that it lived.
    assert_eq!(sample.children[0].cpu_percent, Some(30));
    assert_eq!(sample.children[0].command, "new");
}

#[test]
fn wrappers_are_looked_through_and_zombies_left_out() {
    let agent = (10, 1, 'S', 50, 0, "claude");
    let processes = [
        agent,
        (20, 10, 'S', 0, 500, "bash -c source-the-snapshot"),
        (21, 20, 'S', 0, 501, "timeout 600 cargo test"),
        (22, 21, 'S', 3, 502, "cargo test"),
        (23, 22, 'R', 90, 503, "rustc --crate-name x"),
        (24, 20, 'S', 1, 504, "tee log"),
        (30, 10, 'Z', 0, 600, "done"),
    ];
    let sample = look(&mut Tree::new(Top::Agent(10)), &processes, 10_000);
    assert_eq!(sample.children.len(), 1);
    assert_eq!(sample.children[0].command, "cargo test");
}

#[test]
fn circles_and_crowds_end() {
    let circle = [
        (10, 12, 'S', 1, 0, "a"),
        (11, 10, 'S', 1, 100, "b"),
        (12, 11, 'S', 1, 200, "c"),
    ];
    let sample = look(&mut Tree::new(Top::Agent(10)), &circle, 10_000);
    assert_eq!(sample.children.len(), 1);
    let circle = [
        (9, 11, 'S', 1, 0, "holder"),
        (10, 9, 'S', 1, 0, "agent"),
        (11, 10, 'S', 1, 1, "b"),
    ];
    assert_eq!(
        look(&mut Tree::new(Top::Holder(9)), &circle, 10_000).children,
        []
    );
    let mut crowd = vec![(10, 1, 'S', 1, 0, "agent")];
    crowd.extend((0..200).map(|n| (100 + n, 10, 'S', 1, 500 + u64::from(n), "x")));
    let sample = look(&mut Tree::new(Top::Agent(10)), &crowd, 10_000);
    assert_eq!(sample.children.len(), MAX_CHILDREN);
    assert_eq!(sample.children.last().unwrap().pid, 299, "the newest stay");
}
