//! What the agent can reach of its host, and what a repository can make the host do.

use std::os::unix::fs::MetadataExt;

use whim_kit::{Root, proc, repo, wait};

use crate::support::{KEY, PATIENCE, custom, root, start, state, whim};

#[test]
fn a_hostile_repository_runs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let evidence = tempfile::tempdir().unwrap();
    for open in [directory.path(), evidence.path()] {
        let status = std::process::Command::new("chmod")
            .arg("0777")
            .arg(open)
            .status()
            .unwrap();
        assert!(status.success());
    }
    let repository = directory.path().join("repo");
    repo::hostile(&repository, evidence.path()).unwrap();
    let status = std::process::Command::new("chmod")
        .args(["-R", "a+rX"])
        .arg(&repository)
        .status()
        .unwrap();
    assert!(status.success());
    let (whim, client) = start(&custom(
        whim().arg("--repo").arg(&repository),
        "exec sleep 100000",
    ));
    state(&client, &whim, "ready", |state| state["phase"] == "ready");
    let by_root: Vec<_> = std::fs::read_dir(evidence.path())
        .unwrap()
        .filter_map(Result::ok)
        .filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.uid() == 0))
        .map(|entry| entry.path())
        .collect();
    assert!(
        by_root.is_empty(),
        "root did the repository's bidding: {by_root:?}"
    );
}

#[test]
fn no_secret_is_where_the_agent_can_look() {
    // The agent reads all that it can of every process, and of the layout.
    let look = format!(
        "for f in /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/mem; do cat $f 2>/dev/null | head -c 1000000; done \
         > found; env >> found; cat \"$HOME\"/../../whim/state/* \"$HOME\"/../../run/whim/* >> found 2>/dev/null; \
         grep -c {KEY} found > count; mv count seen; exec sleep 100000"
    );
    // Only processes of a namespace of its own: the test's arguments are not the container's.
    let run = custom(
        whim()
            .as_pid_1()
            .env("ANTHROPIC_API_KEY", KEY)
            .env("OPENAI_API_KEY", KEY),
        &look.replace(KEY, "sk-secret-of-the-[p]latform"),
    );
    let (whim, client) = start(&run);
    state(&client, &whim, "ready", |state| state["phase"] == "ready");
    let path = whim.root().at("/app/repo/seen");
    let count = wait::until("the agent's look", PATIENCE, || {
        std::fs::read_to_string(&path).ok()
    })
    .unwrap();
    assert_eq!(count.trim(), "0", "{}", whim.output());
    let found = std::fs::read_to_string(whim.root().at("/app/repo/found")).unwrap_or_default();
    assert!(!found.contains(whim.token()), "the control token");
    // Neither keeper nor supervisor can be dumped or traced by others.
    for pid in [whim.keeper().unwrap(), whim.supervisor().unwrap()] {
        assert!(
            !proc::environment(pid)
                .iter()
                .any(|variable| variable.contains(KEY))
        );
        assert!(
            !proc::arguments(pid)
                .iter()
                .any(|argument| argument.contains(KEY))
        );
    }
}

#[test]
fn links_and_pipes_in_the_agents_places_are_not_followed() {
    let run = custom(whim(), "exit 0");
    let root = root(&run);
    let victim = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(victim.path(), "precious").unwrap();
    std::os::unix::fs::symlink(victim.path(), root.at("/tmp/claude_state")).unwrap();
    std::os::unix::fs::symlink(victim.path(), root.at("/home/node/.bashrc")).unwrap();
    let pipe = root.at("/home/node/.gitconfig");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    std::os::unix::fs::chown(&pipe, Some(root.agents().0), Some(root.agents().1)).unwrap();
    let mut whim = run.start(root).unwrap();
    // A pipe in place of a file is an error with its name, and no hang.
    assert_eq!(whim.ended(PATIENCE).unwrap(), 73, "{}", whim.output());
    assert!(whim.output().contains(".gitconfig"), "{}", whim.output());
    assert_eq!(std::fs::read_to_string(victim.path()).unwrap(), "precious");
    let state = std::fs::symlink_metadata(whim.root().at("/tmp/claude_state")).unwrap();
    assert!(state.is_file(), "the state file is a file of our own");
}

#[test]
fn what_weakens_the_separation_is_said_by_status_as_by_doctor() {
    let whim = custom(whim().ordinary(), "exec sleep 100000")
        .start(Root::ordinary().unwrap())
        .unwrap();
    let client = whim.client(PATIENCE).unwrap();
    let told = state(&client, &whim, "the weaknesses", |state| {
        state["weaknesses"]
            .as_array()
            .is_some_and(|found| !found.is_empty())
    });
    let weaknesses: Vec<&str> = told["weaknesses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|weakness| weakness.as_str().unwrap())
        .collect();
    assert!(
        weaknesses
            .iter()
            .any(|weakness| weakness.starts_with("same user: ")),
        "{told}"
    );
    let status = whim
        .whim(env!("CARGO_BIN_EXE_whim").as_ref(), &["status"])
        .output()
        .unwrap();
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    for weakness in weaknesses {
        assert!(status.contains(weakness), "{weakness} is not in\n{status}");
    }
}
