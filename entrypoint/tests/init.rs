//! `whim init` and its other names, as a real process around real commands.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portable_pty::{CommandBuilder, PtySize, native_pty_system};

/// The binary under another name.
fn named(directory: &tempfile::TempDir, name: &str) -> PathBuf {
    let path = directory.path().join(name);
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_whim-entrypoint-stand-in"), &path).unwrap();
    path
}

/// `whim init`, `tini` and `dumb-init`, for what all of them do.
fn all(test: impl Fn(&str, Command)) {
    let directory = tempfile::tempdir().unwrap();
    let mut whim = Command::new(env!("CARGO_BIN_EXE_whim-entrypoint-stand-in"));
    whim.arg("init");
    test("whim init", whim);
    for name in ["tini", "dumb-init"] {
        test(name, Command::new(named(&directory, name)));
    }
}

fn init() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whim-entrypoint-stand-in"));
    command.arg("init");
    command
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

fn shell(mut command: Command, script: &str) -> Output {
    run(command.args(["sh", "-c", script]))
}

fn start(command: &mut Command) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    (child, stdout)
}

fn line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line
}

/// A command with a controlling terminal of its own, and what it has printed so far.
struct Terminal {
    child: Box<dyn portable_pty::Child + Send + Sync>,
    output: Box<dyn Read + Send>,
    input: Box<dyn Write + Send>,
    seen: String,
    /// What of it no one has waited for yet
    ahead: String,
}

impl Terminal {
    fn start(command: CommandBuilder) -> Self {
        let pair = native_pty_system().openpty(PtySize::default()).unwrap();
        Self {
            child: pair.slave.spawn_command(command).unwrap(),
            output: pair.master.try_clone_reader().unwrap(),
            input: pair.master.take_writer().unwrap(),
            seen: String::new(),
            ahead: String::new(),
        }
    }

    fn enter(&mut self, line: &str) {
        self.input
            .write_all(format!("{line}\r").as_bytes())
            .unwrap();
    }

    /// Reads more; false at the end. A terminal whose last user is gone says EIO on Linux.
    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let count = self.output.read(&mut bytes).unwrap_or(0);
        let text = String::from_utf8_lossy(bytes.get(..count).unwrap()).into_owned();
        self.seen.push_str(&text);
        self.ahead.push_str(&text);
        count > 0
    }

    /// Reads until this stands after what was waited for last.
    fn until(&mut self, wanted: &str) {
        loop {
            if let Some((_, ahead)) = self.ahead.split_once(wanted) {
                self.ahead = ahead.to_owned();
                return;
            }
            assert!(self.read(), "{wanted:?} is not in {:?}", self.seen);
        }
    }

    /// All it printed, and its exit code.
    fn end(mut self) -> (String, u32) {
        while self.read() {}
        (self.seen, self.child.wait().unwrap().exit_code())
    }
}

#[test]
fn the_commands_status_is_ours() {
    all(|name, command| {
        assert_eq!(shell(command, "exit 37").status.code(), Some(37), "{name}");
    });
    all(|name, command| {
        let status = shell(command, "kill -USR1 $$").status;
        assert_eq!(
            (status.code(), status.signal()),
            (Some(128 + 10), None),
            "{name}"
        );
    });
    // 34 is the first real-time signal that programs may use.
    all(|name, command| {
        assert_eq!(
            shell(command, "kill -34 $$").status.code(),
            Some(128 + 34),
            "{name}"
        );
    });
}

#[test]
fn what_cannot_be_run_has_its_code() {
    for (program, code) in [("/no/such/program", 127), ("/etc", 126)] {
        assert_eq!(run(init().arg(program)).status.code(), Some(code));
        assert_eq!(run(init().args(["--", program])).status.code(), Some(code));
    }
    let usage = run(&mut init());
    assert_eq!(usage.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&usage.stderr).contains("Usage: whim init"));
    assert_eq!(run(init().args(["-x", "true"])).status.code(), Some(1));
}

#[test]
fn options_end_at_the_command() {
    let output = run(init().args(["echo", "-v", "--", "-e"]));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "-v -- -e\n");
}

#[test]
fn codes_can_be_declared_fine() {
    let status = |codes: &[&str]| {
        let mut command = init();
        for code in codes {
            command.args(["-e", code]);
        }
        shell(command, "exit 143").status.code()
    };
    assert_eq!(status(&["143"]), Some(0));
    assert_eq!(status(&["1", "142"]), Some(143));
    assert_eq!(status(&["256"]), Some(1));
}

#[test]
fn signals_reach_the_command() {
    all(|name, mut command| {
        let script = "trap 'echo got; exit 9' USR2; echo ready; while :; do sleep 0.01; done";
        let (mut child, mut stdout) = start(command.args(["sh", "-c", script]));
        assert_eq!(line(&mut stdout), "ready\n");
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGUSR2).unwrap();
        assert_eq!(line(&mut stdout), "got\n", "{name}");
        assert_eq!(child.wait().unwrap().code(), Some(9), "{name}");
    });
}

#[test]
fn only_with_g_the_group_hears_too() {
    let script = "trap '' USR1; (trap - USR1; echo ready; exec sleep 1000) & wait; wait; echo member gone; exit 0";
    let (mut child, mut stdout) = start(init().args(["-g", "bash", "-c", script]));
    assert_eq!(line(&mut stdout), "ready\n");
    // The member is between its line and its exec, where the signal ends it just as well.
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGUSR1).unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "member gone\n");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn orphans_are_reaped() {
    let script = "sh -c 'sleep 0.05 & echo $!' > \"$0\"; pid=$(cat \"$0\"); \
                  while [ -e /proc/$pid ]; do sleep 0.01; done; echo reaped";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let output = run(init()
        .args(["-s", "-w", "timeout", "10", "sh", "-c", script])
        .arg(&file));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "reaped\n");
    let pid = fs::read_to_string(&file).unwrap();
    let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        warnings.contains(&format!("Reaped zombie process with pid={}", pid.trim())),
        "{warnings}"
    );
}

#[test]
fn where_reaping_cannot_work_it_says_so() {
    let warning =
        |command: &mut Command| String::from_utf8_lossy(&run(command).stderr).into_owned();
    assert!(warning(init().arg("true")).contains("zombie reaping won't work"));
    assert_eq!(warning(init().args(["-s", "true"])), "");
    assert_eq!(warning(init().env("TINI_SUBREAPER", "").arg("true")), "");
    assert_eq!(warning(init().env("TINI_VERBOSITY", "0").arg("true")), "");
}

#[test]
fn the_command_inherits_mask_and_dispositions() {
    // The shell ignores INT and PIPE and hands that on; what we set up for ourselves is undone.
    let script = "trap '' INT PIPE; exec \"$@\"";
    let output = run(Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(env!("CARGO_BIN_EXE_whim-entrypoint-stand-in"))
        .args(["init", "-s", "grep", "^Sig[BI]", "/proc/self/status"]));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mask = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    assert_eq!(mask("SigBlk"), 0, "{text}");
    // What an outer process ignored of libc's own two signals is not ours.
    let standard = mask("SigIgn") & 0x7fff_ffff;
    assert_eq!(standard, 1 << (2 - 1) | 1 << (13 - 1), "{text}");
    let plain = run(init().args(["-s", "grep", "^SigIgn", "/proc/self/status"]));
    let plain = String::from_utf8_lossy(&plain.stdout).into_owned();
    let ignored = u64::from_str_radix(plain.split_whitespace().nth(1).unwrap(), 16).unwrap();
    assert_eq!(
        ignored & 0x7fff_ffff,
        0,
        "SIGPIPE is not left ignored: {plain}"
    );
}

#[test]
fn the_parents_death_is_signalled_when_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("told");
    let inner = "trap 'echo told > \"$0\"; exit 0' USR1; echo ready; while :; do sleep 0.01; done";
    let middle = "\"$1\" init -p SIGUSR1 -- sh -c \"$2\" \"$3\" & wait";
    let (mut child, mut stdout) = start(
        Command::new("sh")
            .args([
                "-c",
                middle,
                "sh",
                env!("CARGO_BIN_EXE_whim-entrypoint-stand-in"),
                inner,
            ])
            .arg(&file),
    );
    assert_eq!(line(&mut stdout), "ready\n");
    child.kill().unwrap();
    child.wait().unwrap();
    // The pipe ends when the last of them has.
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "told\n");
}

#[test]
fn a_terminal_is_handed_over_with_job_control() {
    for (name, arguments) in [
        ("whim", vec!["init", "-s"]),
        ("dumb-init", vec![]),
        ("tini", vec!["-s"]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = if name == "whim" {
            PathBuf::from(env!("CARGO_BIN_EXE_whim-entrypoint-stand-in"))
        } else {
            named(&directory, name)
        };
        let mut command = CommandBuilder::new(&path);
        command.args(arguments);
        command.args(["bash", "--norc", "-i"]);
        command.env("PS1", "ready> ");
        let mut terminal = Terminal::start(command);
        terminal.until("ready> ");
        terminal.enter("sleep 1000 &");
        terminal.until("[1] ");
        terminal.enter("kill %1; echo \"flags=\"[$-]");
        terminal.until("flags=[");
        terminal.enter("exit 6");
        let (output, code) = terminal.end();
        let (_, flags) = output.split_once("flags=[").unwrap();
        let (flags, _) = flags.split_once(']').unwrap();
        assert!(flags.contains('m'), "{name}: {output}");
        assert!(!output.contains("no job control"), "{name}: {output}");
        assert_eq!(code, 6, "{name}: {output}");
    }
}

#[test]
fn under_the_other_name_signals_are_rewritten_and_go_to_the_session() {
    let directory = tempfile::tempdir().unwrap();
    let path = named(&directory, "dumb-init");
    let script = "trap 'wait; echo leader; exit 0' QUIT; \
                  (trap 'echo member; exit 0' QUIT; echo ready; while :; do sleep 0.01; done) & wait; wait";
    let (mut child, mut stdout) =
        start(Command::new(&path).args(["-r", "15:3", "bash", "-c", script]));
    assert_eq!(line(&mut stdout), "ready\n");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "member\nleader\n");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let wrong = run(Command::new(&path).args(["-r", "15", "true"]));
    assert_eq!(wrong.status.code(), Some(1));
    assert_eq!(
        run(Command::new(&path).arg("/no/such")).status.code(),
        Some(2)
    );
}

#[test]
fn what_the_session_leaves_is_told_to_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = named(&directory, "dumb-init");
    let script = "(trap 'echo told; exit 0' TERM; echo ready; while :; do sleep 0.01; done) & read line < \"$0\"; exit 4";
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (mut child, mut stdout) = start(Command::new(path).args(["bash", "-c", script]).arg(&fifo));
    assert_eq!(line(&mut stdout), "ready\n");
    fs::write(&fifo, "go\n").unwrap();
    assert_eq!(line(&mut stdout), "told\n");
    assert_eq!(child.wait().unwrap().code(), Some(4));
}
