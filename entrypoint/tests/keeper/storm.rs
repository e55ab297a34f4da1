//! Many deaths at once.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use nix::libc;
use whim_entrypoint::wire::{FromKeeper, Io, Launch, ToKeeper};

use crate::support::*;

fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    text.split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

fn zombies(pid: i32) -> usize {
    children(pid)
        .into_iter()
        .filter(|child| !alive(*child))
        .count()
}

#[test]
fn two_thousand_orphans_leave_no_zombie() {
    let keeper = if is_root() {
        Keeper::start_pid_1()
    } else {
        Keeper::start()
    };
    let (mut supervisor, _) = keeper.ready_supervisor();
    let before = children(keeper.pid).len();
    // Each lives until its standard input ends, which all share.
    let fifo = keeper.directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!(
        "i=0; while [ $i -lt 2000 ]; do (read line < {0} &) 2>/dev/null; i=$((i+1)); done; echo done",
        fifo.display()
    );
    let started = supervisor.spawn("storm", &shell(&script));
    supervisor.finished(started.id);
    eventually("all are orphans", || {
        children(keeper.pid).len() == before + 2000
    });
    // Opening and closing it for writing lets all go.
    drop(fs::OpenOptions::new().write(true).open(&fifo).unwrap());
    eventually("all have ended", || {
        children(keeper.pid)
            .iter()
            .filter(|pid| alive(**pid))
            .count()
            == before
    });
    let last = Instant::now();
    eventually("all are reaped", || zombies(keeper.pid) == 0);
    println!(
        "0 zombies {:?} after the last exit was seen",
        last.elapsed()
    );
}

/// Ten thousand children with distinguishable ends, while orphans die all around.
#[test]
fn no_status_is_lost_or_mixed_up_in_a_storm() {
    const TOTAL: u64 = 10_000;
    const AT_A_TIME: usize = 200;
    let keeper = if is_root() {
        Keeper::start_pid_1()
    } else {
        Keeper::start()
    };
    let (mut supervisor, _) = keeper.ready_supervisor();
    let storm = supervisor.spawn(
        "storm",
        &shell("while :; do (sleep 0.01 &); (: &); done 2>/dev/null"),
    );
    let launch = |id: u64| {
        let script = if id % 10 == 9 {
            format!("kill -{} $$", 9 + id % 2 * 6)
        } else {
            format!("exit {}", id % 251)
        };
        Launch {
            io: Io::Null,
            // A holder's word comes in while the kernel takes its leader away.
            holder: id.is_multiple_of(5),
            ..shell(&script)
        }
    };
    let expected = |id: u64| -> i32 {
        if id % 10 == 9 {
            (9 + id % 2 * 6) as i32
        } else {
            ((id % 251) as i32) << 8
        }
    };
    let begun = Instant::now();
    let mut pending: BTreeMap<u64, i32> = BTreeMap::new();
    let mut requested = 0;
    let mut seen = 0;
    while seen < TOTAL {
        while requested < TOTAL && pending.len() < AT_A_TIME {
            let id = supervisor
                .request("member", &launch(supervisor.next_id), &[])
                .0;
            pending.insert(id, 0);
            requested += 1;
        }
        match supervisor.receive().0 {
            FromKeeper::Spawned { process, .. } => {
                assert_eq!(pending.insert(process.0, 1), Some(0))
            }
            FromKeeper::Exited { process, status } => {
                assert_eq!(status, expected(process.0), "status of {}", process.0);
                assert_eq!(pending.insert(process.0, 2), Some(1));
            }
            FromKeeper::Gone { process } => {
                assert_eq!(pending.remove(&process.0), Some(2));
                supervisor.send(&ToKeeper::Acknowledge { process });
                seen += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    println!("{TOTAL} children in {:?}", begun.elapsed());
    supervisor.send(&ToKeeper::Signal {
        process: storm.id,
        signal: libc::SIGKILL,
        tree: true,
    });
    supervisor.finished(storm.id);
    eventually("the storm is over", || zombies(keeper.pid) == 0);
}
