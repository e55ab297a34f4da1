//! What crashes comes back, or ends for good: agents, their supervisor, and both in turns.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use whim_kit::{Upstream, Whim, proc, wait};

use crate::support::{
    PATIENCE, bypassing, custom, events, first_turn, prompt, reached, repository, says, start,
    state, whim,
};

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

#[test]
fn the_router_is_taken_up_watched_and_ended_with_its_agent() {
    let upstream = Upstream::start(says("yes")).unwrap();
    let repository = repository();
    let run = bypassing("ccr", &upstream, repository.path(), "first task");
    let (mut whim, client) = start(&run);
    first_turn(&client, &whim);
    let router = |count: usize| {
        let started = wait::until("the router", PATIENCE, || {
            let started = events(&client, "companion.started");
            (started.len() >= count).then(|| started[count - 1]["pid"].as_i64())
        });
        i32::try_from(started.unwrap().unwrap()).unwrap()
    };
    let first = router(1);
    kill_supervisor(&whim);
    state(&client, &whim, "the next supervisor", |state| {
        state["supervisor"]["restarts"] == 1 && state["phase"] == "ready"
    });
    assert_eq!(router(2), first, "taken up, not another one");
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    let second = router(3);
    assert_ne!(second, first);
    let exited = events(&client, "companion.exited");
    assert_eq!(exited.len(), 1, "{exited:?}");
    assert_eq!(exited[0]["returns"], true);
    let id = prompt(&client, "second task");
    let ended = reached(&client, &whim, &id, &["done", "failed", "interrupted"]);
    assert_eq!(ended["state"], "done", "{ended}");
    assert!(
        upstream
            .turns()
            .iter()
            .any(|turn| turn.mentions("second task"))
    );
    let stopped = client.post("/v1/sessions/main/stop", &json!({})).unwrap();
    assert_eq!(stopped.status, 202, "{}", stopped.text());
    assert_eq!(whim.ended(PATIENCE).unwrap(), 0, "{}", whim.output());
    assert!(!proc::alive(second));
}
