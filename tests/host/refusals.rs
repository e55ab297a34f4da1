//! Wrong input and broken surroundings: one clear message and the contract's exit code.

use whim_kit::{Root, Run, mounts};

use crate::support::{KEY, PATIENCE, custom, repository, root, whim};

fn ends(run: &Run, code: i32, says: &[&str]) {
    let mut whim = run.start(root(run)).unwrap();
    let ended = whim.ended(PATIENCE).unwrap();
    let output = whim.output();
    assert_eq!(ended, code, "{output}");
    for text in says {
        assert!(output.contains(text), "{text:?} is not in:\n{output}");
    }
    assert!(!output.contains(KEY));
}

#[test]
fn every_mistake_is_told_at_once() {
    let run = whim()
        .args(["--agent", "clod", "--budget-usd", "free"])
        .env("WHIM_UI_PORT", "70000");
    ends(&run, 64, &["clod", "free", "70000"]);
    ends(
        &whim().args(["--spec", r#"{"version":1,"agent":{"kind":7}}"#]),
        65,
        &["/agent/kind"],
    );
}

#[test]
fn a_repository_that_cannot_be_had() {
    ends(
        &custom(whim().args(["--repo", "/nowhere/at/all"]), "exit 0"),
        69,
        &["/nowhere/at/all"],
    );
    let repository = repository();
    let run = whim()
        .arg("--repo")
        .arg(repository.path())
        .args(["--source-branch", "no-such-branch"]);
    ends(&custom(run, "exit 0"), 69, &["no-such-branch", "main"]);
    let secret = format!("http://user:{KEY}@127.0.0.1:1/x.git");
    ends(
        &custom(whim().args(["--repo", &secret]), "exit 0"),
        69,
        &["127.0.0.1:1"],
    );
}

#[test]
fn an_init_script_that_fails() {
    let spec = r#"{"version":1,"config":[{"layer":"workspace","init_script":"echo installing; no-such-command"}]}"#;
    ends(
        &custom(whim().args(["--spec", spec]), "exit 0"),
        71,
        &["no-such-command", "workspace"],
    );
    let spec = r#"{"version":1,"init_timeout_s":1,"config":[{"layer":"user","init_script":"echo begun; sleep 1000"}]}"#;
    ends(
        &custom(whim().args(["--spec", spec]), "exit 0"),
        71,
        &["begun", "1 s"],
    );
}

#[test]
fn an_agent_that_is_not_there() {
    let run = whim()
        .args(["--agent", "claude", "--mode", "oneshot", "x"])
        .env("PATH", "/usr/bin:/bin")
        .env("ANTHROPIC_API_KEY", KEY);
    ends(&run, 78, &["claude", "npm install"]);
    let run = whim().args([
        "--agent",
        "custom",
        "--agent-command",
        r#"["/no/such/program"]"#,
    ]);
    ends(&run, 78, &["/no/such/program"]);
}

#[test]
fn every_agent_that_is_not_there_is_named_with_its_remedy() {
    for (kind, package) in [
        ("codex", "@openai/codex"),
        ("ccr", "@anthropic-ai/claude-code"),
        ("copilot", "@github/copilot"),
    ] {
        let run = whim()
            .args(["--agent", kind, "--model", "any", "--mode", "oneshot", "x"])
            .env("PATH", "/usr/bin:/bin")
            .env("OPENAI_API_KEY", KEY)
            .env("OPENROUTER_API_KEY", KEY);
        ends(&run, 78, &["npm install", package]);
    }
}

#[test]
fn a_machine_without_git() {
    let repository = repository();
    let empty = tempfile::tempdir().unwrap();
    let run = || whim().arg("--repo").arg(repository.path());
    let missing = run().env("PATH", empty.path());
    ends(&custom(missing, "exit 0"), 78, &["git", "install git"]);
    // One that cannot be run.
    let unusable = tempfile::tempdir().unwrap();
    std::fs::write(unusable.path().join("git"), "").unwrap();
    crate::support::open_to_all(unusable.path());
    let unusable = run().env("PATH", unusable.path());
    ends(&custom(unusable, "exit 0"), 78, &["git", "install git"]);
    // Without a repository nobody needs it.
    let none = whim().env("PATH", empty.path());
    ends(&custom(none, "exit 0"), 0, &[]);
}

#[test]
fn a_root_file_system_that_cannot_be_written() {
    mounts::apart(|| {
        let in_place = whim().env("WHIM_ROOT", "/").on_read_only_root();
        let told = ["/whim", "Read-only file system", "--root"];
        ends(&custom(in_place, "exit 0"), 73, &told);
        // With --root elsewhere everything works.
        let repository = repository();
        let run = whim().arg("--repo").arg(repository.path());
        let run = custom(
            run,
            "test -e README.md && ! touch /new && echo there > ~/there",
        );
        let root = Root::on_small_disk(64 << 20, whim().is_ordinary()).unwrap();
        let mut whim = run.on_read_only_root().start(root).unwrap();
        assert_eq!(whim.ended(PATIENCE).unwrap(), 0, "{}", whim.output());
        assert!(whim.root().at("/home/node/there").exists());
    })
    .unwrap();
}

#[test]
fn a_port_or_a_place_that_is_taken() {
    for (flag, address) in [
        ("--generation-port", "127.0.0.1"),
        ("--local-port", "::"),
        ("--backup-port", "::"),
        ("--ui-port", "::"),
    ] {
        let taken = std::net::TcpListener::bind((address, 0)).unwrap();
        let port = taken.local_addr().unwrap().port().to_string();
        let run = custom(whim().args([flag, &port]), "exit 0");
        ends(&run, 73, &[&port, flag]);
    }
    let run = custom(whim(), "exit 0");
    let root = root(&run);
    std::fs::create_dir(root.at("/tmp/claude_state")).unwrap();
    let mut whim = run.start(root).unwrap();
    assert_eq!(whim.ended(PATIENCE).unwrap(), 73, "{}", whim.output());
}

#[test]
fn the_agents_end_is_the_containers() {
    ends(&custom(whim(), "exit 0"), 0, &[]);
    ends(
        &custom(
            whim().args(["--mode", "oneshot", "x"]),
            "echo result; exit 7",
        ),
        7,
        &["result"],
    );
    ends(
        &custom(whim().args(["--mode", "oneshot", "x"]), "kill -9 $$"),
        137,
        &[],
    );
}
