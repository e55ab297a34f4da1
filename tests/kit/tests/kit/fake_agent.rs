//! The fake agent, as a host sees it.

use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};

use whim_kit::model::script::Script;
use whim_kit::{Upstream, proc, repo, wait};

use super::{Guard, LIMIT, start};

const FAKE: &str = env!("CARGO_BIN_EXE_fake-agent");

fn fake(steps: &[&str]) -> Command {
    let mut command = Command::new(FAKE);
    command
        .args(steps)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_fake_agent_does_a_task_with_tools() {
    let directory = tempfile::tempdir().unwrap();
    repo::sample(directory.path()).unwrap();
    let upstream = Upstream::start(whim_kit::model::demo::script()).unwrap();
    let mut command = fake(&[&format!("ask {}", repo::SAMPLE_TASK)]);
    command
        .current_dir(directory.path())
        .env("ANTHROPIC_BASE_URL", upstream.url())
        .env("ANTHROPIC_AUTH_TOKEN", "t");
    for who in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{who}_NAME"), "n")
            .env(format!("GIT_{who}_EMAIL"), "n@example.com");
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(printed(&output).contains("Fixed"), "{}", printed(&output));
    assert_eq!(
        repo::git(directory.path(), &["log", "--format=%s", "-1"]).unwrap(),
        "Squeeze separators in slugs"
    );
    assert_eq!(
        repo::git(directory.path(), &["status", "--short"]).unwrap(),
        ""
    );
    assert!(upstream.turns().iter().all(|turn| turn.key() == Some("t")));
}

#[test]
fn the_fake_agents_ends_are_what_they_say() {
    use std::os::unix::process::ExitStatusExt;
    let status = |steps: &[&str]| fake(steps).output().unwrap().status;
    assert_eq!(status(&["exit 3"]).code(), Some(3));
    assert_eq!(status(&["crash"]).signal(), Some(6));
    assert_eq!(status(&["kill KILL"]).signal(), Some(9));
    assert_eq!(
        status(&["ignore TERM", "kill TERM", "exit 4"]).code(),
        Some(4)
    );
    assert_eq!(status(&["dance"]).code(), Some(64));
    let trapped = fake(&["trap TERM 7 bye", "kill TERM", "forever"])
        .output()
        .unwrap();
    assert_eq!(
        (trapped.status.code(), printed(&trapped).as_str()),
        (Some(7), "bye")
    );
}

#[test]
fn a_daemon_leaves_the_way_it_was_told() {
    for way in ["plain", "setsid", "double", "scrub"] {
        let mut command = fake(&[&format!("daemon {way}"), "forever"]);
        let mut guard = Guard(command.env("KIT_DAEMON", "1").spawn().unwrap());
        let mut out = std::io::BufReader::new(guard.0.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        let daemon: i32 = line
            .trim()
            .strip_prefix("daemon ")
            .unwrap()
            .parse()
            .unwrap();
        let agent = i32::try_from(guard.0.id()).unwrap();
        let there = wait::until("the daemon to settle", LIMIT, || {
            let there = proc::process(daemon)?;
            let left = there.parent != agent;
            let own = there.session != proc::process(agent)?.session;
            // Between fork and exec its environment cannot be read.
            let scrubbed = proc::environment(daemon).is_empty();
            let settled = left == matches!(way, "double" | "scrub") && own == (way != "plain");
            (settled && scrubbed == (way == "scrub")).then_some(there)
        });
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(daemon),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
        there.unwrap_or_else(|error| panic!("{way}: {error}"));
    }
}

#[test]
fn an_interactive_fake_agent_takes_turns() {
    let (upstream, _) = start(Script::default());
    let mut command = Command::new(FAKE);
    command
        .env("ANTHROPIC_BASE_URL", upstream.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut guard = Guard(command.spawn().unwrap());
    let mut input = guard.0.stdin.take().unwrap();
    writeln!(
        input,
        "[[sh echo from-tool]] [[say First.]]\n[[say Second.]]\n/exit 5"
    )
    .unwrap();
    drop(input);
    let mut text = String::new();
    guard
        .0
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    for part in ["from-tool", "First.", "Second."] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(guard.0.wait().unwrap().code(), Some(5));
    assert_eq!(upstream.turns().len(), 3);
}
