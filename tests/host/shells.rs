//! The shells that people open beside the agent.

use serde_json::json;
use whim_kit::{Client, Whim, wait};

use crate::support::{PATIENCE, custom, start, state, whim};

/// Opens a shell that reads these lines from its terminal as if typed, and waits for its end.
fn shell(client: &Client, command: &str) -> String {
    let opened = client
        .post(
            "/v1/terminals",
            &json!({"command": ["/bin/sh", "-c", command]}),
        )
        .unwrap();
    assert_eq!(opened.status, 201, "{}", opened.text());
    let id = opened.json().unwrap()["id"].as_str().unwrap().to_owned();
    wait::until("the shell's end", PATIENCE, || {
        let all = client.json("/v1/terminals").ok()?;
        let all = all["terminals"].as_array()?;
        all.iter()
            .any(|one| one["id"] == id.as_str() && one["state"] == "exited")
            .then_some(())
    })
    .unwrap();
    id
}

/// What the terminal's recording says was printed.
fn printed(whim: &Whim, id: &str) -> String {
    let read = || {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_whim"))
            .args(["logs", id, "--cast", "--root"])
            .arg(whim.root().path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        // The recorder is a viewer: it writes the end when it has seen it.
        text.contains("\"x\"").then_some(text)
    };
    let cast = wait::until("the recording's end", PATIENCE, read).unwrap();
    let events = cast.lines().skip(1);
    events
        .filter_map(|line| serde_json::from_str::<(f64, String, String)>(line).ok())
        .filter(|(_, code, _)| code == "o")
        .map(|(_, _, data)| data)
        .collect()
}

#[test]
fn prompts_and_exit_codes_are_marked_and_histories_are_kept_apart() {
    let (whim, client) = start(&custom(whim(), "exec sleep 100000"));
    state(&client, &whim, "ready", |state| state["phase"] == "ready");
    let first = shell(
        &client,
        "printf 'true\\n(exit 7)\\necho from-the-first\\n' | bash -i",
    );
    let output = printed(&whim, &first);
    let at = |mark: &str| {
        output
            .find(mark)
            .unwrap_or_else(|| panic!("{mark:?} is not in {output:?}"))
    };
    assert!(at("\x1b]133;A\x1b\\") < at("\x1b]133;B\x1b\\"));
    assert!(at("\x1b]133;C\x1b\\") < at("\x1b]133;D;0\x1b\\"));
    assert!(at("\x1b]133;D;0\x1b\\") < at("\x1b]133;D;7\x1b\\"));
    // The second knows what was typed in the first, and keeps its own.
    let second = shell(
        &client,
        "printf 'echo from-the-second\\nhistory\\n' | bash -i",
    );
    assert!(printed(&whim, &second).contains("echo from-the-first"));
    let histories = whim.root().at("/home/node/.local/state/whim/history");
    let kept = |id: &str| std::fs::read_to_string(histories.join(format!("{id}.bash"))).unwrap();
    assert!(kept(&first).contains("echo from-the-first"));
    assert!(kept(&second).contains("echo from-the-second"));
    assert!(
        !kept(&second).contains("from-the-first"),
        "{}",
        kept(&second)
    );
}

#[test]
fn shells_that_are_opened_at_the_same_moment_have_names_of_their_own() {
    let (whim, client) = start(&custom(whim(), "exec sleep 100000"));
    state(&client, &whim, "ready", |state| state["phase"] == "ready");
    let names = std::thread::scope(|scope| {
        let open = || {
            let body = json!({"command": ["/bin/sh", "-c", "exec sleep 100000"]});
            let answer = client.post("/v1/terminals", &body).unwrap();
            assert_eq!(answer.status, 201, "{}", answer.text());
            answer.json().unwrap()["id"].as_str().unwrap().to_owned()
        };
        let opening: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        let names = opening.into_iter().map(|one| one.join().unwrap());
        names.collect::<std::collections::BTreeSet<_>>()
    });
    assert_eq!(names.len(), 8, "{names:?}");
}
