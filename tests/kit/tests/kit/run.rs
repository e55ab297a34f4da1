//! Starting and ending, with the fake agent in the place of whim.

use std::time::Duration;

use nix::sys::signal::Signal;
use whim_kit::{AGENTS_USER, Root, Run, Whim, proc, wait};

use super::LIMIT;

/// A run of the fake agent that does these steps.
fn run(first: &str, steps: &[&str]) -> Run {
    Run::new(env!("CARGO_BIN_EXE_fake-agent"))
        .command(first)
        .args(steps)
}

fn printed(whim: &Whim, what: &str) -> String {
    wait::until(what, LIMIT, || {
        whim.stdout().contains(what).then(|| whim.stdout())
    })
    .unwrap()
}

#[test]
fn it_has_the_capabilities_of_a_container_and_no_others() {
    let step = "sh grep ^Cap /proc/self/status";
    let mut whim = run(step, &[])
        .with_docker_capabilities()
        .start(Root::new().unwrap())
        .unwrap();
    assert_eq!(whim.ended(LIMIT).unwrap(), 0);
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(
            whim.stdout().contains(&format!("{set}:\t00000000a80425fb")),
            "{}",
            whim.output()
        );
    }
}

#[test]
fn it_can_be_an_ordinary_user() {
    let mut whim = run("sh id -un; touch $WHIM_ROOT/whim/mine", &[])
        .ordinary()
        .start(Root::ordinary().unwrap())
        .unwrap();
    assert_eq!(whim.ended(LIMIT).unwrap(), 0);
    assert!(
        whim.stdout().starts_with(&format!("{AGENTS_USER}\n")),
        "{}",
        whim.output()
    );
    assert!(whim.root().at("/whim/mine").exists());
}

#[test]
fn it_can_be_pid_1_and_takes_its_signals() {
    let mut whim = run("trap TERM 7 bye", &["sh echo parent $PPID", "forever"])
        .as_pid_1()
        .start(Root::new().unwrap())
        .unwrap();
    printed(&whim, "parent 1\n");
    let keeper = whim.keeper().unwrap();
    assert!(proc::status(keeper, "NSpid").unwrap().ends_with("\t1"));
    whim.signal(Signal::SIGTERM).unwrap();
    assert_eq!(whim.ended(LIMIT).unwrap(), 7, "{}", whim.output());
}

#[test]
fn its_environment_is_what_was_given() {
    let mut whim = run("environment", &[])
        .env("GIVEN", "1")
        .start(Root::new().unwrap())
        .unwrap();
    assert_eq!(whim.ended(LIMIT).unwrap(), 0);
    let out = whim.stdout();
    let names: Vec<&str> = out
        .lines()
        .filter_map(|line| line.split('=').next())
        .collect();
    assert!(names.contains(&"GIVEN") && names.contains(&"WHIM_ROOT"));
    assert!(
        !names.iter().any(|name| name.starts_with("CARGO")),
        "{names:?}"
    );
}

#[test]
fn a_signal_is_an_exit_code() {
    let mut whim = run("kill KILL", &[]).start(Root::new().unwrap()).unwrap();
    assert_eq!(whim.ended(LIMIT).unwrap(), 137);
}

#[test]
fn waiting_in_vain_shows_what_was_printed() {
    let mut whim = run("print still here", &["forever"])
        .start(Root::new().unwrap())
        .unwrap();
    printed(&whim, "still here");
    let error = whim.ended(Duration::from_millis(20)).unwrap_err();
    assert!(error.to_string().contains("still here"), "{error}");
    let error = whim.ready(Duration::from_millis(20)).unwrap_err();
    assert!(error.to_string().contains("ready.json"), "{error}");
}

#[test]
fn dropping_ends_what_was_left_behind() {
    for namespace in [false, true] {
        let run = run("daemon double ignore TERM; forever", &["forever"]);
        let run = if namespace { run.as_pid_1() } else { run };
        let whim = run.start(Root::new().unwrap()).unwrap();
        printed(&whim, "daemon ");
        let left = wait::until("the daemon", LIMIT, || {
            let all = proc::with_argument("--become");
            let root = format!("WHIM_ROOT={}", whim.root().path().display());
            all.into_iter()
                .find(|process| proc::environment(process.pid).contains(&root))
        });
        let left = left.unwrap().pid;
        drop(whim);
        assert!(!proc::alive(left), "namespace: {namespace}");
    }
}
