//! init.sh, environment files and bashrc: what runs before the agent, as whom, with what.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use whim_kit::{Run, wait};

use crate::support::{PATIENCE, custom, kill_supervisor, ready, root, start_in, state, whim};

const IDLE: &str = "exec sleep 100000";

fn with(config: &Value) -> Run {
    let spec = json!({"version": 1, "config": config}).to_string();
    custom(whim().args(["--spec", &spec]), IDLE)
}

/// Runs to its end; returns what it printed on standard error.
fn refused(run: &Run, code: i32) -> String {
    let mut whim = run.start(root(&whim())).unwrap();
    assert_eq!(whim.ended(PATIENCE).unwrap(), code, "{}", whim.output());
    whim.stderr()
}

#[test]
fn the_layers_parts_run_in_order_with_the_environment_files_sourced() {
    let script = |layer: &str, text: &str| json!({"layer": layer, "init_script": text});
    let config = json!([
        {"layer": "workspace", "env": {"PLAIN": "p"}, "env_files": {".env": "A=from-env\nB=low\n", ".env.local": "B='high one'\n"},
         "init_script": "echo \"workspace $A $B $PLAIN $(id -un)\" > ~/ran; export C=3; cd /usr"},
        script("user", "echo \"user $C $PWD\" >> ~/ran"),
    ]);
    let root = root(&whim());
    let run = with(&config);
    let (whim, client) = start_in(&run, &root);
    ready(&client, &whim);
    let ran = std::fs::read_to_string(root.at("/home/node/ran")).unwrap();
    assert_eq!(ran, "workspace from-env high one p node\nuser 3 /usr\n");
    // Once a life: not again when the supervisor is another one.
    kill_supervisor(&client, &whim, 1);
    let again = std::fs::read_to_string(root.at("/home/node/ran")).unwrap();
    assert_eq!(again, ran);
}

#[test]
fn its_failure_is_told_with_the_last_lines() {
    let script = "for i in $(seq 1 50); do echo line $i; done; echo to stderr >&2; exit 3";
    let said = refused(
        &with(&json!([{"layer": "workspace", "init_script": script}])),
        71,
    );
    for text in ["line 50", "to stderr", "exit code 3", "layer workspace"] {
        assert!(said.contains(text), "{text}: {said}");
    }
    assert!(!said.contains("line 20\n"), "only the last lines: {said}");
}

#[test]
fn its_output_is_visible_while_it_runs() {
    let root = root(&whim());
    let script = "echo installing; while ! [ -e /tmp/go ]; do sleep 0.1; done; echo installed";
    let go = root.at("/tmp/go");
    let script = script.replace("/tmp/go", go.to_str().unwrap());
    let run = with(&json!([{"layer": "team", "init_script": script}]));
    let (whim, client) = start_in(&run, &root);
    state(&client, &whim, "init", |state| {
        state["phase"]["step"] == "init" || state["step"] == "init"
    });
    let log = root.at("/whim/state/logs/init.log");
    wait::file(&log, PATIENCE, |text| {
        text.contains("installing").then_some(())
    })
    .unwrap();
    let mut following = whim
        .whim(
            Path::new(env!("CARGO_BIN_EXE_whim")),
            &["logs", "-f", "init"],
        )
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "installing");
    std::fs::write(&go, "").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "installed");
    ready(&client, &whim);
    following.kill().unwrap();
    following.wait().unwrap();
}

#[test]
fn a_crash_in_the_middle_of_it_neither_repeats_nor_skips_a_part() {
    let root = root(&whim());
    let go = root.at("/tmp/go").display().to_string();
    // Two shells: the user changes in between. Each leaves something running that goes on printing.
    let part = |name: &str| {
        format!(
            "echo {name} >> {go}.ran; while ! [ -e {go}.{name} ]; do sleep 0.1; done; \
             (while sleep 0.2; do echo beat of {name}; done) & "
        )
    };
    let config = json!([
        {"layer": "platform", "init_script": part("one"), "init_user": "root"},
        {"layer": "user", "init_script": part("two")},
    ]);
    std::fs::write(format!("{go}.ran"), "").unwrap();
    root.give_to_agent(Path::new(&format!("{go}.ran"))).unwrap();
    let run = with(&config);
    let (whim, client) = start_in(&run, &root);
    let ran = Path::new(&go).with_extension("ran");
    let kill = |restarts: u64| {
        let supervisor = nix::unistd::Pid::from_raw(whim.supervisor().unwrap());
        nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGKILL).unwrap();
        state(&client, &whim, "the next", |state| {
            state["supervisor"]["restarts"] == restarts
        });
    };
    let log = root.at("/whim/state/logs/init.log");
    let beats = |name: &str| {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.matches(&format!("beat of {name}")).count()
    };
    wait::file(&ran, PATIENCE, |text| (text == "one\n").then_some(())).unwrap();
    kill(1);
    std::fs::write(format!("{go}.one"), "").unwrap();
    wait::file(&ran, PATIENCE, |text| (text == "one\ntwo\n").then_some(())).unwrap();
    kill(2);
    std::fs::write(format!("{go}.two"), "").unwrap();
    ready(&client, &whim);
    kill_supervisor(&client, &whim, 3);
    assert_eq!(std::fs::read_to_string(&ran).unwrap(), "one\ntwo\n");
    // What they left running lives, and is still heard.
    for name in ["one", "two"] {
        let before = beats(name);
        wait::until("more of it", PATIENCE, || {
            (beats(name) > before + 1).then_some(())
        })
        .unwrap();
    }
}

#[test]
fn bashrc_parts_hold_in_interactive_shells() {
    let root = root(&whim());
    root.write_as_agent("/home/node/.bashrc", "OWN=own\n")
        .unwrap();
    let config = json!([
        {"layer": "team", "bashrc": "export PART=team ORDER=1"},
        {"layer": "user", "bashrc": "export PART=user; alias greet='echo hello'"},
    ]);
    let (whim, client) = start_in(&with(&config), &root);
    ready(&client, &whim);
    let told = root.at("/tmp/told");
    let ask = format!(
        "echo \"$PART $ORDER $OWN $(alias greet)\" > {}; exit",
        told.display()
    );
    let opened = client
        .post(
            "/v1/terminals",
            &json!({"command": ["/bin/bash", "-ic", ask]}),
        )
        .unwrap();
    assert_eq!(opened.status, 201, "{}", opened.text());
    let text = wait::file(&told, PATIENCE, |text| {
        (!text.is_empty()).then(|| text.to_owned())
    });
    assert_eq!(
        text.unwrap(),
        "user 1 own alias greet='echo hello'\n",
        "{}",
        whim.output()
    );
    let own = std::fs::read_to_string(root.at("/home/node/.bashrc")).unwrap();
    assert!(own.starts_with("OWN=own\n"), "{own}");
}

#[test]
fn all_mistakes_of_environment_files_are_told_at_once() {
    let config = json!([
        {"layer": "team", "env": {"LD_PRELOAD": "x", "1A": "x"}, "env_files": {".env": "GOOD=1\nno equals sign\nB='open\n"}},
        {"layer": "user", "env_files": {"../up": "A=1", "other": "X Y=secret-value\nGIT_DIR=/x\n"}},
    ]);
    let said = refused(&with(&config), 65);
    for text in [
        "LD_PRELOAD",
        "1A",
        ".env",
        "line 2",
        "line 3",
        "../up",
        "other",
        "line 1",
        "GIT_DIR",
    ] {
        assert!(said.contains(text), "{text} is not in:\n{said}");
    }
    assert!(!said.contains("secret-value"), "{said}");
}
