//! A machine that sleeps: everything stands still, and goes on later as if nothing had been.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use whim_kit::model::script::{Reply, Rule, Script};
use whim_kit::{Upstream, Whim, proc, wait};

use crate::support::{PATIENCE, bypassing, prompt, reached, repository, start, state, word};

/// The keeper and all beneath it.
fn everyone(whim: &Whim) -> Vec<i32> {
    let keeper = whim.keeper().unwrap();
    let below = proc::descendants(keeper);
    std::iter::once(keeper)
        .chain(below.iter().map(|process| process.pid))
        .collect()
}

/// Stopped, or gone; or where no signal counts before the kernel is left: the agent's runtime starts processes by vfork,
/// and waits there (`D`) for a child that was stopped before its exec.
fn stands_still(pid: i32) -> bool {
    proc::status(pid, "State").is_none_or(|state| state.starts_with(['T', 'Z', 't', 'D']))
}

fn send_all(pids: &[i32], signal: Signal) {
    for &pid in pids {
        // A tool's process may have ended by itself.
        let _gone = kill(Pid::from_raw(pid), signal);
    }
}

#[test]
fn the_state_is_right_after_a_sleep_and_a_prompt_given_meanwhile_is_done() {
    let script = Script::of([
        Rule::prompt("first", [Reply::say("done").gated("awake")]),
        Rule::prompt("second", [Reply::say("done, too")]),
    ]);
    let upstream = Upstream::start(script).unwrap();
    let repository = repository();
    let run = bypassing("claude", &upstream, repository.path(), "first task");
    let (whim, client) = start(&run);
    state(&client, &whim, "the turn", |state| {
        state["state"] == "working" && state["active_generations"] == 1
    });
    let asleep = everyone(&whim);
    assert!(
        asleep.len() >= 4,
        "keeper, supervisor, holder, agent: {asleep:?}"
    );
    send_all(&asleep, Signal::SIGSTOP);
    wait::until("sleep", PATIENCE, || {
        asleep.iter().all(|&pid| stands_still(pid)).then_some(())
    })
    .unwrap();
    // A sleep only counts as one when it is longer than any wait of the supervisor's own.
    std::thread::sleep(std::time::Duration::from_secs(8));
    // The prompt waits in the socket's queue, the model's answer in the network's.
    let address = whim.ready(PATIENCE).unwrap().ui;
    let token = whim.token().to_owned();
    let asked = std::thread::spawn(move || {
        let client = whim_kit::Client::tcp(whim_kit::reachable(address))
            .unwrap()
            .bearer(&token)
            .limit(PATIENCE);
        prompt(&client, "second task")
    });
    upstream.open("awake");
    send_all(&asleep, Signal::SIGCONT);
    let id = asked.join().unwrap();
    let ended = reached(&client, &whim, &id, &["done", "failed", "interrupted"]);
    assert_eq!(ended["state"], "done", "{ended}");
    let idle = word(&client, &whim, "idle");
    assert_eq!(idle["stalled"], false, "{idle}");
    assert_eq!(idle["supervisor"]["restarts"], 0, "{idle}");
    let turns = upstream.turns();
    assert!(turns.iter().any(|turn| turn.mentions("second task")));
}
