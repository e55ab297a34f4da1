//! The same life as root with everything, as a default container's PID 1, and as an ordinary user.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::libc;
use nix::sys::signal::Signal;
use whim_entrypoint::wire::{Credentials, FromKeeper, Launch, Streams, ToKeeper};

use crate::support::*;

/// Start, daemons, a killed supervisor, signals, the end.
fn a_whole_life(setup: Setup, user: Option<Credentials>) {
    let uid = user.as_ref().map_or(1001, |user| user.uid);
    let mut keeper = setup.start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let script = "id -u; cat /proc/self/oom_score_adj; (setsid sh -c 'echo daemon $$; exec sleep 1000' &); \
                  echo tty $(stat -c %u $(tty)); echo up; read line; echo $line; read line";
    let launch = Launch {
        holder: true,
        end_with_leader: true,
        oom_score_adj: Some(500),
        user,
        ..terminal(script)
    };
    let session = supervisor.spawn("session/main", &launch);
    let ring = rings(session.descriptors, Streams::Terminal).remove(0);
    wait_for(&ring, "up");
    wait_for(&ring, "daemon");
    let text = content(&ring);
    assert!(text.starts_with(&format!("{uid}\r\n500\r\n")), "{text}");
    assert!(text.contains(&format!("tty {uid}\r\n")), "{text}");

    // Neither is for the agents' user to look into.
    for pid in [keeper.pid, holder_above(&keeper)] {
        assert_eq!(
            fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid(),
            0
        );
    }

    supervisor.kill();
    let (next, mut inventory) = keeper.ready_supervisor();
    let (description, descriptors) = inventory.processes.remove(0);
    let FromKeeper::Process {
        process,
        status: None,
        ..
    } = description
    else {
        panic!("{description:?}")
    };
    nix::unistd::write(&descriptors[0], b"still here\n").unwrap();
    let ring = rings(descriptors, Streams::Terminal).remove(0);
    wait_for(&ring, "still here\r\nstill here");

    keeper.signal(Signal::SIGTERM);
    assert!(matches!(next.receive().0, FromKeeper::Stopping { .. }));
    let status = next.finished(process);
    assert!(libc::WIFSIGNALED(status), "{status}");
    next.send(&ToKeeper::Flushed);
    next.exit(0);
    assert_eq!(keeper.exit().code(), Some(0));
}

fn holder_above(keeper: &Keeper) -> i32 {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", keeper.pid)).unwrap();
    let pids = children
        .split_whitespace()
        .map(|pid| pid.parse::<i32>().unwrap());
    let holds = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .unwrap()
            .starts_with(b"whim\0hold")
    };
    pids.into_iter().find(holds).unwrap()
}

#[test]
fn as_root() {
    if is_root() {
        a_whole_life(Setup::new(), Some(nobody()));
    }
}

#[test]
fn as_pid_1_with_the_capabilities_of_a_default_container() {
    if is_root() {
        a_whole_life(Setup::container(), Some(nobody()));
    }
}

#[test]
fn as_an_ordinary_user() {
    if is_root() {
        a_whole_life(Setup::ordinary_user(), None);
    }
}
