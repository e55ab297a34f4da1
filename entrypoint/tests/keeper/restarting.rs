//! Supervisors come and go; the rest stays.

use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::Signal;
use whim_entrypoint::wire::{FromKeeper, Streams, ToKeeper, memfd_sealed, read_memfd};

use crate::support::*;

fn hello(supervisor: &Supervisor) -> (u32, &str) {
    let FromKeeper::Hello {
        restarts, reason, ..
    } = &supervisor.hello
    else {
        panic!("{:?}", supervisor.hello)
    };
    (*restarts, reason)
}

/// The promise that the keeper exists for: an agent that prints without pause, and a supervisor killed 100 times with
/// bytes read but not yet recorded.
#[test]
fn a_hundred_kills_lose_no_byte_and_no_process() {
    const LINES: usize = 200_000;
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let mut launch = terminal(&format!(
        "stty -opost; seq 1 {LINES}; read line; echo got $line; exit 7"
    ));
    launch.holder = true;
    launch.end_with_leader = true;
    let started = supervisor.spawn("session/main", &launch);
    let mut terminal = started.descriptors[0].try_clone().unwrap();
    let mut ring = rings(started.descriptors, Streams::Terminal).remove(0);
    let mut recorded = Vec::new();
    let mut gaps = Vec::new();
    let mut round = 0;
    loop {
        // Take some in, record part of that, and be killed with the rest.
        let until = Instant::now() + PATIENCE;
        ring.clear_data().unwrap();
        if ring.head() == recorded.len() as u64 && round < 100 {
            assert!(readable(ring.data_fd(), until));
        }
        let outcome = ring.read_from(recorded.len() as u64, &mut recorded, 20_000);
        assert_eq!(outcome.skipped, 0);
        if round == 100 {
            break;
        }
        let keep = recorded.len() - outcome.length / 3;
        recorded.truncate(keep);
        ring.acknowledge(keep as u64).unwrap();
        let killed = Instant::now();
        supervisor.kill();
        round += 1;
        let (next, mut inventory) = keeper.ready_supervisor();
        gaps.push(killed.elapsed());
        assert_eq!(hello(&next), (round, "killed by signal 9"));
        assert_eq!(inventory.processes.len(), 1);
        let (description, descriptors) = inventory.processes.remove(0);
        let FromKeeper::Process {
            process,
            name,
            pid,
            streams: Streams::Terminal,
            status: None,
            gone: false,
        } = description
        else {
            panic!("{description:?}");
        };
        assert_eq!(
            (process, name.as_str(), pid),
            (started.id, "session/main", started.pid)
        );
        terminal = descriptors[0].try_clone().unwrap();
        ring = rings(descriptors, Streams::Terminal).remove(0);
        assert_eq!(ring.acknowledged(), keep as u64);
        supervisor = next;
    }
    while !recorded.ends_with(b"200000\n") {
        ring.clear_data().unwrap();
        let outcome = ring.read_from(recorded.len() as u64, &mut recorded, usize::MAX);
        ring.acknowledge(outcome.end()).unwrap();
        if outcome.length == 0 {
            assert!(readable(ring.data_fd(), Instant::now() + PATIENCE));
        }
    }
    let expected: String = (1..=LINES).map(|number| format!("{number}\n")).collect();
    assert!(recorded == expected.as_bytes(), "output differs");
    assert_eq!(ring.lost(), 0);
    nix::unistd::write(&terminal, b"me\n").unwrap();
    assert_eq!(libc::WEXITSTATUS(supervisor.finished(started.id)), 7);
    assert!(content(&ring).ends_with("got me\n"));
    gaps.sort();
    println!(
        "from kill to the next one's inventory: median {:?}, longest {:?}",
        gaps[50], gaps[99]
    );
}

/// A supervisor that dies right after it asked for a process never hears of it; the next one must, before it asks for
/// its own.
#[test]
fn what_a_dead_supervisor_asked_for_is_in_the_next_ones_inventory() {
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    for round in 0..20 {
        let mut launch = shell("exec sleep 1000");
        launch.holder = true;
        let name = format!("session/s{round}");
        let id = supervisor.request(&name, &launch, &[]);
        supervisor.kill();
        let (next, inventory) = keeper.ready_supervisor();
        let known = inventory.processes.iter().any(|(description, _)| {
            matches!(description, FromKeeper::Process { process, .. } if *process == id)
        });
        assert!(known, "round {round}: {inventory:?}");
        supervisor = next;
    }
}

#[test]
fn a_status_is_kept_until_it_is_acknowledged() {
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let started = supervisor.spawn("test", &shell("echo kept; exit 9"));
    supervisor.finished(started.id);
    supervisor.kill();
    let (supervisor, mut inventory) = keeper.ready_supervisor();
    let (description, descriptors) = inventory.processes.remove(0);
    let FromKeeper::Process {
        status: Some(status),
        gone: true,
        streams,
        ..
    } = description
    else {
        panic!("{description:?}");
    };
    assert_eq!(libc::WEXITSTATUS(status), 9);
    assert_eq!(content(&rings(descriptors, streams)[0]), "kept\n");
    supervisor.send(&ToKeeper::Acknowledge {
        process: started.id,
    });
    // The answer to a refusal shows that what came before it was carried out.
    supervisor.send(&ToKeeper::Release {
        name: "nothing".into(),
    });
    assert!(matches!(supervisor.receive().0, FromKeeper::Refused { .. }));
    supervisor.kill();
    assert!(keeper.ready_supervisor().1.processes.is_empty());
}

#[test]
fn one_that_exits_while_nobody_supervises_is_reported_to_the_next() {
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let started = supervisor.spawn("test", &shell("exec sleep 1000"));
    // It cannot take anything any more, but is still there.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor.pid), Signal::SIGSTOP).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(started.pid), Signal::SIGKILL).unwrap();
    supervisor.kill();
    let (next, inventory) = keeper.ready_supervisor();
    match &inventory.processes[0].0 {
        FromKeeper::Process {
            status: Some(status),
            ..
        } => assert_eq!(*status, libc::SIGKILL),
        FromKeeper::Process { status: None, .. } => {
            assert_eq!(next.finished(started.id), libc::SIGKILL)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn held_descriptors_survive_and_are_bounded() {
    let keeper = Keeper::start();
    let (supervisor, inventory) = keeper.ready_supervisor();
    assert!(
        inventory.held.is_empty(),
        "arguments came before the inventory was counted"
    );
    let memory = |text: &str| memfd_sealed("held", text.as_bytes()).unwrap();
    for (name, text) in [("listener", "old"), ("other", "other"), ("listener", "new")] {
        let fd = memory(text);
        supervisor
            .channel
            .send(
                &ToKeeper::Hold { name: name.into() },
                &[std::os::fd::AsFd::as_fd(&fd)],
            )
            .unwrap();
    }
    supervisor.send(&ToKeeper::Release {
        name: "other".into(),
    });
    for number in 0..64 {
        let fd = memory("");
        let name = format!("many-{number}");
        supervisor
            .channel
            .send(&ToKeeper::Hold { name }, &[std::os::fd::AsFd::as_fd(&fd)])
            .unwrap();
    }
    let (FromKeeper::Refused { what }, _) = supervisor.receive() else {
        panic!("not refused")
    };
    assert!(what.contains("many-63"), "{what}");
    supervisor.kill();
    let (_, inventory) = keeper.ready_supervisor();
    assert_eq!(inventory.held.len(), 64);
    let (_, listener) = inventory
        .held
        .iter()
        .find(|(name, _)| name == "listener")
        .unwrap();
    assert_eq!(read_memfd(listener, 10).unwrap(), b"new");
}

#[test]
fn a_program_waits_while_nobody_acknowledges_and_then_goes_on() {
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let started = supervisor.spawn("test", &shell("seq 1 300000"));
    let ring = rings(started.descriptors, Streams::Pipes { stdin: false }).remove(0);
    eventually("the ring is full", || ring.head() == ring.capacity());
    // The program is stopped by its pipe, and nothing is lost.
    assert!(
        supervisor
            .receive_within(Duration::from_millis(100))
            .is_none()
    );
    assert_eq!((ring.head(), ring.lost()), (ring.capacity(), 0));
    let mut all = Vec::new();
    while !all.ends_with(b"300000\n") {
        ring.clear_data().unwrap();
        let outcome = ring.read_from(all.len() as u64, &mut all, 50_000);
        assert_eq!(outcome.skipped, 0);
        ring.acknowledge(outcome.end()).unwrap();
        if outcome.length == 0 {
            assert!(
                readable(ring.data_fd(), Instant::now() + PATIENCE),
                "the program was not woken"
            );
        }
    }
    assert_eq!(
        all.len(),
        (1..=300_000)
            .map(|number: i32| number.to_string().len() + 1)
            .sum::<usize>()
    );
    assert_eq!(supervisor.finished(started.id), 0);
}

#[test]
fn a_terminal_that_nobody_has_open_for_a_moment_is_not_at_its_end() {
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    // The leader closes its terminal and opens it again.
    let started = supervisor.spawn(
        "test",
        &terminal("t=$(tty); exec </dev/null >/dev/null 2>&1; sleep 0.3; echo back >$t; sleep 0.2; exit 4"),
    );
    assert_eq!(libc::WEXITSTATUS(supervisor.finished(started.id)), 4);
    assert_eq!(
        content(&rings(started.descriptors, Streams::Terminal)[0]),
        "back\r\n"
    );
}

#[test]
fn one_that_crashes_again_and_again_is_slowed_down() {
    let keeper = Keeper::start();
    for round in 0..=10 {
        let (supervisor, _) = keeper.ready_supervisor();
        assert_eq!(hello(&supervisor).0, round);
        if round > 0 {
            assert_eq!(hello(&supervisor).1, "exit code 70");
        }
        supervisor.exit(70);
    }
    let crashed = Instant::now();
    drop(keeper.ready_supervisor());
    assert!(
        crashed.elapsed() >= Duration::from_millis(50),
        "the eleventh was answered at once"
    );
}

#[test]
fn an_upgrade_is_a_restart_from_another_file() {
    let keeper = Keeper::start();
    let (supervisor, _) = keeper.ready_supervisor();
    let path = keeper.directory.path().join("newer");
    std::fs::copy(binary(), &path).unwrap();
    supervisor.send(&ToKeeper::Upgrade { path: path.clone() });
    supervisor.exit(0);
    let (supervisor, _) = keeper.ready_supervisor();
    assert_eq!(hello(&supervisor), (1, "upgrade"));
    assert_eq!(
        std::fs::read_link(format!("/proc/{}/exe", supervisor.pid)).unwrap(),
        path
    );
}

#[test]
fn an_upgrade_that_cannot_run_is_given_up() {
    let keeper = Keeper::start();
    let (supervisor, _) = keeper.ready_supervisor();
    supervisor.send(&ToKeeper::Upgrade {
        path: "/no/such/whim".into(),
    });
    supervisor.exit(0);
    let (supervisor, _) = keeper.ready_supervisor();
    assert_eq!(hello(&supervisor), (4, "exit code 70"));
}

#[test]
fn a_supervisor_without_a_channel_is_replaced() {
    let keeper = Keeper::start();
    let (supervisor, _) = keeper.ready_supervisor();
    let pid = supervisor.pid;
    let Supervisor { channel, .. } = &supervisor;
    nix::sys::socket::shutdown(
        std::os::fd::AsRawFd::as_raw_fd(channel),
        nix::sys::socket::Shutdown::Both,
    )
    .unwrap();
    let (next, _) = keeper.ready_supervisor();
    assert_ne!(next.pid, pid);
    assert!(!alive(pid));
}

#[test]
fn numbers_of_processes_go_on_above_the_inventory() {
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    supervisor.next_id = 41;
    supervisor.spawn("test", &shell("exec sleep 1000"));
    supervisor.kill();
    assert_eq!(keeper.ready_supervisor().0.next_id, 42);
}
