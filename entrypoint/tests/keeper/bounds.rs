//! What happens at the bounds.

use std::collections::BTreeMap;

use nix::errno::Errno;
use nix::libc;
use whim_entrypoint::wire::{FromKeeper, Io, Launch, ToKeeper};

use crate::support::*;

const MAX_PROCESSES: u64 = 512;

/// A supervisor that asks and does not listen: its socket fills up with what it is told, and nothing of that is lost.
#[test]
fn a_supervisor_that_does_not_listen_is_told_all_later() {
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    for id in 1..=MAX_PROCESSES {
        let launch = Launch {
            io: Io::Null,
            ..shell(&format!("exit {}", id % 250))
        };
        assert_eq!(supervisor.request("member", &launch, &[]).0, id);
    }
    let extra = supervisor.request("one too many", &shell("exit 0"), &[]);
    let mut told: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    let mut refused = 0;
    while told.values().filter(|steps| steps.len() == 3).count() < 512 || refused == 0 {
        match supervisor.receive().0 {
            FromKeeper::Spawned { process, .. } => {
                told.entry(process.0).or_default().push("spawned")
            }
            FromKeeper::Exited { process, status } => {
                assert_eq!(libc::WEXITSTATUS(status), (process.0 % 250) as i32);
                told.entry(process.0).or_default().push("exited");
            }
            FromKeeper::Gone { process } => told.entry(process.0).or_default().push("gone"),
            FromKeeper::SpawnFailed {
                process,
                step,
                errno,
            } => {
                assert_eq!(
                    (process, step.as_str(), errno),
                    (extra, "limit", Errno::EAGAIN as i32)
                );
                refused += 1;
            }
            FromKeeper::Refused { what } => {
                assert!(what.starts_with(&format!("spawn {}:", extra.0)), "{what}");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(
        told.values()
            .all(|steps| steps == &["spawned", "exited", "gone"]),
        "{told:?}"
    );
    assert_eq!(refused, 1);

    // A new one is told the same once more, and what is acknowledged makes room.
    supervisor.kill();
    let (mut supervisor, inventory) = keeper.ready_supervisor();
    assert_eq!(inventory.processes.len(), 512);
    for id in 1..=MAX_PROCESSES {
        supervisor.send(&ToKeeper::Acknowledge {
            process: whim_entrypoint::wire::ProcessId(id),
        });
    }
    let started = supervisor.spawn("again", &shell("exit 0"));
    supervisor.finished(started.id);
}

#[test]
fn ending_without_a_holder_ends_the_group() {
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    for (leader, grace_ms) in [
        ("exec sleep 1000", 60_000),
        ("trap '' TERM; while :; do sleep 1000; done", 100),
    ] {
        let script = format!(
            "(trap '' TERM; echo member $(exec sh -c 'echo $PPID'); exec sleep 1000) & {leader}"
        );
        let mut started = supervisor.spawn("test", &shell(&script));
        let ring = ring(&mut started.descriptors);
        wait_for(&ring, "member");
        wait_for(&ring, "\n");
        let text = content(&ring);
        let member: i32 = text
            .trim()
            .strip_prefix("member ")
            .unwrap()
            .parse()
            .unwrap();
        supervisor.send(&ToKeeper::End {
            process: started.id,
            grace_ms,
        });
        supervisor.finished(started.id);
        eventually("the member ended", || !alive(member));
    }
}

/// Each process forks the next one into a new session and exits.
#[test]
fn one_that_hops_from_process_to_process_is_caught() {
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let hop = "import os\nprint('hopping', flush=True)\nwhile os.fork() == 0: os.setsid()\n";
    let launch = Launch {
        program: "python3".into(),
        arguments: vec!["python3".into(), "-c".into(), hop.into()],
        environment: vec![("PATH".into(), std::env::var_os("PATH").unwrap())],
        holder: true,
        ..shell("")
    };
    let mut started = supervisor.spawn("session/main", &launch);
    let ring = ring(&mut started.descriptors);
    wait_for(&ring, "hopping");
    assert!(matches!(supervisor.receive().0, FromKeeper::Exited { .. }));
    supervisor.send(&ToKeeper::End {
        process: started.id,
        grace_ms: 100,
    });
    assert_eq!(
        supervisor.receive().0,
        FromKeeper::Gone {
            process: started.id
        }
    );
}
