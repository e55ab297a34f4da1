//! The container's end.

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use whim_entrypoint::wire::{FromKeeper, Launch, ToKeeper};

use crate::support::*;

fn stubborn() -> Launch {
    Launch {
        holder: true,
        ..shell("trap '' TERM HUP INT; echo deaf; while :; do sleep 1000; done")
    }
}

fn start_stubborn(supervisor: &mut Supervisor) -> Started {
    let mut started = supervisor.spawn("session/main", &stubborn());
    let ring = ring(&mut started.descriptors);
    wait_for(&ring, "deaf");
    started
}

#[test]
fn term_ends_in_order_and_early_when_all_is_done() {
    let mut keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let directory = fs::File::open(keeper.directory.path()).unwrap();
    supervisor
        .channel
        .send(
            &ToKeeper::Hold {
                name: "final-state-dir".into(),
            },
            &[directory.as_fd()],
        )
        .unwrap();
    let state = keeper.directory.path().join("claude_state");
    fs::write(&state, "working\n").unwrap();
    let process = supervisor.spawn(
        "session/main",
        &Launch {
            holder: true,
            ..terminal("exec sleep 1000")
        },
    );
    supervisor.send(&ToKeeper::Grace {
        milliseconds: 15_000,
    });
    supervisor.send(&ToKeeper::Release {
        name: "nothing".into(),
    });
    assert!(matches!(supervisor.receive().0, FromKeeper::Refused { .. }));
    let begun = Instant::now();
    keeper.signal(Signal::SIGTERM);
    let FromKeeper::Stopping {
        signal: 15,
        deadline_ms,
    } = supervisor.receive().0
    else {
        panic!("not stopping")
    };
    assert!((10_000..=15_000).contains(&deadline_ms));
    supervisor.finished(process.id);
    assert!(
        keeper.process.try_wait().unwrap().is_none(),
        "the supervisor has not flushed yet"
    );
    supervisor.send(&ToKeeper::Flushed);
    supervisor.exit(0);
    assert_eq!(keeper.exit().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(fs::read_to_string(state).unwrap(), "stopped\n");
}

#[test]
fn what_ignores_term_is_killed_before_the_deadline_and_the_code_is_still_0() {
    let mut keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    supervisor.send(&ToKeeper::Grace { milliseconds: 3000 });
    let process = start_stubborn(&mut supervisor);
    let begun = Instant::now();
    keeper.signal(Signal::SIGTERM);
    assert!(matches!(
        supervisor.receive().0,
        FromKeeper::Stopping { .. }
    ));
    supervisor.finished(process.id);
    let killed = begun.elapsed();
    assert!(killed >= Duration::from_millis(1500), "{killed:?}");
    assert!(
        keeper.process.try_wait().unwrap().is_none(),
        "it was killed only with everything else"
    );
    // The supervisor never flushes: it has the whole grace, no more.
    assert_eq!(keeper.exit().code(), Some(0));
    let ended = begun.elapsed();
    assert!(ended >= Duration::from_millis(3000), "{ended:?}");
    assert!(!alive(supervisor.pid) && !alive(process.pid));
}

#[test]
fn a_second_term_kills_at_once() {
    for setup in [Setup::new(), Setup::pid_1()] {
        if !is_root() && setup.command.get_program() == "unshare" {
            continue;
        }
        let mut keeper = setup.start();
        let (mut supervisor, _) = keeper.ready_supervisor();
        start_stubborn(&mut supervisor);
        keeper.signal(Signal::SIGTERM);
        assert!(matches!(
            supervisor.receive().0,
            FromKeeper::Stopping { .. }
        ));
        let begun = Instant::now();
        keeper.signal(Signal::SIGTERM);
        assert_eq!(keeper.exit().code(), Some(137));
        assert!(begun.elapsed() < Duration::from_secs(6));
        eventually("the supervisor is gone", || !alive(supervisor.pid));
    }
}

#[test]
fn the_supervisor_may_end_the_container_with_a_code() {
    let mut keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let process = supervisor.spawn("session/main", &shell("exec sleep 1000"));
    supervisor.send(&ToKeeper::Exit { code: 75 });
    assert!(matches!(
        supervisor.receive().0,
        FromKeeper::Stopping { signal: 0, .. }
    ));
    supervisor.finished(process.id);
    supervisor.exit(0);
    assert_eq!(keeper.exit().code(), Some(75));
}

#[test]
fn a_first_supervisor_that_gives_up_ends_the_container_with_its_code() {
    let mut setup = Setup::new();
    setup.command.env("WHIM_TEST_FAIL", "64");
    assert_eq!(setup.start().exit().code(), Some(64));
}

#[test]
fn a_supervisor_that_dies_before_the_flush_is_given_another_try() {
    let mut keeper = Keeper::start();
    let (supervisor, _) = keeper.ready_supervisor();
    keeper.signal(Signal::SIGTERM);
    assert!(matches!(
        supervisor.receive().0,
        FromKeeper::Stopping { .. }
    ));
    supervisor.kill();
    let (next, _) = keeper.ready_supervisor();
    assert!(matches!(next.receive().0, FromKeeper::Stopping { .. }));
    next.kill();
    assert_eq!(keeper.exit().code(), Some(0));
}

#[test]
fn as_pid_1_everything_in_the_namespace_ends() {
    if !is_root() {
        return;
    }
    let mut keeper = Keeper::start_pid_1();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let FromKeeper::Hello {
        keeper_pid: 1,
        reaps: true,
        ..
    } = supervisor.hello
    else {
        panic!("{:?}", supervisor.hello)
    };
    supervisor.send(&ToKeeper::Grace { milliseconds: 2000 });
    // An orphan without a holder: the keeper's own to end.
    let started = supervisor.spawn(
        "test",
        &shell("setsid sh -c 'trap \"\" TERM; sleep 1000' & exit 0"),
    );
    supervisor.finished(started.id);
    keeper.signal(Signal::SIGTERM);
    assert!(matches!(
        supervisor.receive().0,
        FromKeeper::Stopping { .. }
    ));
    supervisor.send(&ToKeeper::Flushed);
    supervisor.exit(0);
    assert_eq!(keeper.exit().code(), Some(0));
}

#[test]
fn other_signals_mean_nothing() {
    let keeper = Keeper::start();
    let (supervisor, _) = keeper.ready_supervisor();
    for signal in [
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGPIPE,
        Signal::SIGWINCH,
        Signal::SIGTSTP,
    ] {
        keeper.signal(signal);
    }
    supervisor.send(&ToKeeper::Release {
        name: "nothing".into(),
    });
    assert!(matches!(supervisor.receive().0, FromKeeper::Refused { .. }));
}
