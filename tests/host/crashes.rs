//! What crashes comes back, or ends for good: agents, their supervisor, and both in turns.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use whim_kit::{Client, Whim, proc, wait};

use crate::support::{PATIENCE, custom, start, state, whim};

/// Events of a type so far.
fn events(client: &Client, kind: &str) -> Vec<Value> {
    let listed = client.json("/v1/events?limit=10000").unwrap_or_default();
    let all = listed["events"].as_array().or(listed.as_array());
    let ours = all
        .into_iter()
        .flatten()
        .filter(|event| event["type"] == kind);
    ours.cloned().collect()
}

fn kill_supervisor(whim: &Whim) {
    let supervisor = whim.supervisor().unwrap();
    kill(Pid::from_raw(supervisor), Signal::SIGKILL).unwrap();
    // Reaped: the next look finds the next one.
    wait::until("the supervisor's end", PATIENCE, || {
        (!proc::alive(supervisor)).then_some(())
    })
    .unwrap();
}

#[test]
fn an_agent_and_a_supervisor_that_crash_in_turns_come_to_an_end() {
    let (whim, client) = start(&custom(whim(), "sleep 0.2; exit 3"));
    for round in 1..=5 {
        let restarted = wait::until("the agent's restart", PATIENCE, || {
            (events(&client, "session.restarted").len() >= round).then_some(())
        });
        restarted.unwrap_or_else(|error| panic!("{error}, round {round}\n{}", whim.output()));
        kill_supervisor(&whim);
    }
    let stopped = state(&client, &whim, "the end of it", |state| {
        state["state"] == "stopped"
            && state["reason"]
                .as_str()
                .unwrap_or_default()
                .contains("crashed again")
    });
    assert_eq!(stopped["sessions"][0]["exit"], 3, "{stopped}");
    // Nor does the next supervisor begin anew.
    kill_supervisor(&whim);
    let after = state(&client, &whim, "the next supervisor", |state| {
        state["supervisor"]["restarts"] == 6 && state["phase"] == "ready"
    });
    assert_eq!(after["state"], "stopped", "{after}");
    assert_eq!(events(&client, "session.restarted").len(), 5);
}
