//! A session and everything that it leaves behind.

use std::fs;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use whim_entrypoint::ring::RingReader;
use whim_entrypoint::wire::{FromKeeper, Launch, Streams, ToKeeper};

use crate::support::*;

/// As in a default container: no hierarchy of version 2 to write to.
const WITHOUT_CGROUPS: [&str; 6] = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    "umount -l $(awk '$9 == \"cgroup2\" { print $5 }' /proc/self/mountinfo) || :; exec \"$@\"",
    "sh",
];

/// Starts daemons in every way that escapes group, session and ancestry (one ignores what asks it to end), prints their
/// pids and goes on with `then`.
fn with_daemons(then: &str) -> Launch {
    let daemon = "sh -c 'echo daemon $$; exec sleep 1000'";
    let script = format!(
        "trap '' HUP; {daemon} & setsid {daemon} & (setsid env -i /bin/{daemon} &); \
         (setsid sh -c 'trap \"\" TERM HUP INT; echo daemon $$; (setsid sleep 1000 &); while :; do sleep 1000; done' &); \
         trap - HUP; echo started; {then}"
    );
    Launch {
        holder: true,
        user: is_root().then(nobody),
        ..terminal(&script)
    }
}

fn daemons(ring: &RingReader) -> Vec<i32> {
    wait_for(ring, "started");
    let until = Instant::now() + PATIENCE;
    loop {
        let text = content(ring);
        let pids: Vec<i32> = text
            .lines()
            .filter_map(|line| line.strip_prefix("daemon ")?.trim().parse().ok())
            .collect();
        if pids.len() == 4 {
            return pids;
        }
        assert!(Instant::now() < until, "{text}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn holder_of(keeper: &Keeper) -> i32 {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", keeper.pid)).unwrap();
    let mut pids = children.split_whitespace().map(|pid| pid.parse().unwrap());
    pids.find(|pid| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .unwrap()
            .starts_with(b"whim\0hold\0session/main")
    })
    .expect("no holder")
}

#[test]
fn ending_takes_everything_and_spares_the_others() {
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let other = supervisor.spawn(
        "shell-1",
        &Launch {
            holder: true,
            ..terminal("exec sleep 1000")
        },
    );
    let session = supervisor.spawn("session/main", &with_daemons("exec sleep 1000"));
    let ring = rings(session.descriptors, Streams::Terminal).remove(0);
    let daemons = daemons(&ring);
    assert!(daemons.iter().all(|pid| alive(*pid)));
    supervisor.send(&ToKeeper::End {
        process: session.id,
        grace_ms: 300,
    });
    let status = supervisor.finished(session.id);
    assert_eq!(libc::WTERMSIG(status), libc::SIGTERM);
    assert!(daemons.iter().all(|pid| !alive(*pid)), "{daemons:?}");
    assert!(alive(other.pid));
}

#[test]
fn what_is_left_ends_with_the_leader_when_it_should() {
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let launch = Launch {
        end_with_leader: true,
        ..with_daemons("read line; exit 6")
    };
    let session = supervisor.spawn("session/main", &launch);
    let terminal = session.descriptors[0].try_clone().unwrap();
    let ring = rings(session.descriptors, Streams::Terminal).remove(0);
    let daemons = daemons(&ring);
    nix::unistd::write(&terminal, b"\n").unwrap();
    assert_eq!(libc::WEXITSTATUS(supervisor.finished(session.id)), 6);
    assert!(daemons.iter().all(|pid| !alive(*pid)));
}

#[test]
fn what_is_left_lives_on_when_it_may() {
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let session = supervisor.spawn("init", &with_daemons("read line; exit 0"));
    let terminal = session.descriptors[0].try_clone().unwrap();
    let ring = rings(session.descriptors, Streams::Terminal).remove(0);
    let daemons = daemons(&ring);
    nix::unistd::write(&terminal, b"\n").unwrap();
    assert!(matches!(
        supervisor.receive().0,
        FromKeeper::Exited { status: 0, .. }
    ));
    assert!(
        supervisor
            .receive_within(Duration::from_millis(200))
            .is_none(),
        "it is not gone"
    );
    assert!(daemons.iter().all(|pid| alive(*pid)));
    supervisor.send(&ToKeeper::End {
        process: session.id,
        grace_ms: 100,
    });
    assert_eq!(
        supervisor.receive().0,
        FromKeeper::Gone {
            process: session.id
        }
    );
    assert!(daemons.iter().all(|pid| !alive(*pid)));
}

fn killing_the_holder_saves_nobody(setup: Setup) {
    let keeper = setup.start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let other = Launch {
        holder: true,
        ..terminal("exec sleep 1000")
    };
    let other = supervisor.spawn("shell-1", &other);
    let session = supervisor.spawn("session/main", &with_daemons("exec sleep 1000"));
    let ring = rings(session.descriptors, Streams::Terminal).remove(0);
    let daemons = daemons(&ring);
    kill(Pid::from_raw(holder_of(&keeper)), Signal::SIGKILL).unwrap();
    let status = supervisor.finished(session.id);
    assert_eq!(libc::WTERMSIG(status), libc::SIGTERM);
    assert!(daemons.iter().all(|pid| !alive(*pid)), "{daemons:?}");
    if is_root() {
        // Ours runs as another user than the session that lost its holder.
        assert!(alive(other.pid));
    }
}

#[test]
fn killing_the_holder_saves_nobody_with_a_cgroup_where_one_can_be_made() {
    killing_the_holder_saves_nobody(Setup::new());
}

#[test]
fn killing_the_holder_saves_nobody_without_a_cgroup() {
    if is_root() {
        killing_the_holder_saves_nobody(Setup::wrapped(&WITHOUT_CGROUPS));
    }
}

#[test]
fn a_session_has_its_cgroup_while_it_lives() {
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let session = supervisor.spawn("session/main", &with_daemons("exec sleep 1000"));
    let ring = rings(session.descriptors, Streams::Terminal).remove(0);
    let daemons = daemons(&ring);
    let own = cgroup(session.pid);
    if own == cgroup(keeper.pid) {
        return println!("no cgroup can be made here");
    }
    assert!(own.contains("/whim-"), "{own}");
    assert!(daemons.iter().all(|pid| cgroup(*pid) == own));
    supervisor.send(&ToKeeper::End {
        process: session.id,
        grace_ms: 100,
    });
    supervisor.finished(session.id);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts
        .lines()
        .find(|line| line.contains(" - cgroup2 "))
        .unwrap();
    let directory = format!("{}{own}", mount.split(' ').nth(4).unwrap());
    assert!(fs::exists(&directory).unwrap());
    supervisor.send(&ToKeeper::Acknowledge {
        process: session.id,
    });
    eventually("it is removed", || !fs::exists(&directory).unwrap());
}

#[test]
fn a_keeper_that_is_gone_takes_its_sessions_with_it() {
    let mut keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let session = supervisor.spawn("session/main", &with_daemons("exec sleep 1000"));
    let ring = rings(session.descriptors, Streams::Terminal).remove(0);
    let daemons = daemons(&ring);
    keeper.signal(Signal::SIGKILL);
    keeper.exit();
    eventually("everything ended", || {
        !alive(session.pid) && daemons.iter().all(|pid| !alive(*pid))
    });
}

#[test]
fn a_holder_shows_nothing_and_cannot_be_stopped_with_term() {
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let mut launch = with_daemons("read line");
    launch
        .environment
        .push(("AGENT_TOKEN".into(), "whim-main-secret".into()));
    let session = supervisor.spawn("session/main", &launch);
    let holder = holder_of(&keeper);
    assert_eq!(
        fs::read(format!("/proc/{holder}/cmdline")).unwrap(),
        b"whim\0hold\0session/main\0"
    );
    assert!(
        fs::read(format!("/proc/{holder}/environ"))
            .unwrap()
            .is_empty()
    );
    kill(Pid::from_raw(holder), Signal::SIGTERM).unwrap();
    kill(Pid::from_raw(holder), Signal::SIGHUP).unwrap();
    let terminal = session.descriptors[0].try_clone().unwrap();
    let ring = rings(session.descriptors, Streams::Terminal).remove(0);
    daemons(&ring);
    assert!(alive(holder));
    if is_root() {
        let owner = fs::metadata(format!("/proc/{holder}/environ")).unwrap();
        assert_eq!(
            std::os::unix::fs::MetadataExt::uid(&owner),
            0,
            "undumpable: not the agents' to read"
        );
        let status = fs::read_to_string(format!("/proc/{holder}/status")).unwrap();
        assert!(status.contains("Uid:\t1001\t1001\t1001\t1001"));
    }
    nix::unistd::write(&terminal, b"\n").unwrap();
    assert!(matches!(supervisor.receive().0, FromKeeper::Exited { .. }));
}

#[test]
fn signals_reach_the_leader_or_its_group() {
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    for holder in [false, true] {
        let script = "trap 'echo leader' USR1; sh -c 'trap \"echo member\" USR1; echo up; while :; do sleep 0.05; done' & \
                      trap 'kill %1 2>/dev/null; exit 3' TERM; while :; do wait; done";
        let launch = Launch {
            holder,
            end_with_leader: true,
            ..shell(script)
        };
        let started = supervisor.spawn("test", &launch);
        let ring = rings(started.descriptors, Streams::Pipes { stdin: false }).remove(0);
        wait_for(&ring, "up");
        supervisor.send(&ToKeeper::Signal {
            process: started.id,
            signal: libc::SIGUSR1,
            tree: false,
        });
        wait_for(&ring, "leader");
        assert!(!content(&ring).contains("member"));
        supervisor.send(&ToKeeper::Signal {
            process: started.id,
            signal: libc::SIGUSR1,
            tree: true,
        });
        wait_for(&ring, "member");
        supervisor.send(&ToKeeper::Signal {
            process: started.id,
            signal: libc::SIGTERM,
            tree: false,
        });
        assert_eq!(
            libc::WEXITSTATUS(supervisor.finished(started.id)),
            3,
            "holder: {holder}"
        );
    }
}

#[test]
fn an_interactive_shell_that_ignores_term_is_hung_up() {
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let mut launch = Launch {
        holder: true,
        end_with_leader: true,
        ..terminal("")
    };
    launch.program = "bash".into();
    launch.arguments = vec!["bash".into(), "--norc".into(), "-i".into()];
    launch.environment.push(("PS1".into(), "ready> ".into()));
    let shell = supervisor.spawn("shell-1", &launch);
    let ring = rings(shell.descriptors, Streams::Terminal).remove(0);
    wait_for(&ring, "ready>");
    // A signal between its prompt and its wait for a key is noticed by bash with the next key only.
    eventually("bash waits for a key", || asleep(shell.pid));
    let asked = Instant::now();
    supervisor.send(&ToKeeper::End {
        process: shell.id,
        grace_ms: 10_000,
    });
    supervisor.finished(shell.id);
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "it was only killed at the end of the grace"
    );
}
