//! What a started process gets, and what is reported about it.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};

use nix::errno::Errno;
use nix::libc;
use whim_entrypoint::wire::{FromKeeper, Io, Launch, ProcessId, Stdin, Streams, ToKeeper};

use crate::support::*;

const PIPES: Streams = Streams::Pipes { stdin: false };

fn run(launch: &Launch) -> (i32, String, String) {
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let started = supervisor.spawn("test", launch);
    let status = supervisor.finished(started.id);
    let rings = rings(started.descriptors, PIPES);
    (status, content(&rings[0]), content(&rings[1]))
}

#[test]
fn arguments_and_environment_are_handed_over_and_nowhere_to_be_read() {
    let mut setup = Setup::new();
    setup
        .command
        .env("SECRET_KEY", "hunter2-in-environment")
        .arg("--token")
        .arg("hunter2-in-argv");
    let keeper = setup.start();
    let supervisor = keeper.supervisor();
    assert_eq!(
        supervisor.arguments.arguments,
        ["--token", "hunter2-in-argv"]
    );
    let secret = (
        OsString::from("SECRET_KEY"),
        OsString::from("hunter2-in-environment"),
    );
    assert!(supervisor.arguments.environment.contains(&secret));
    for (pid, visible) in [(keeper.pid, "whim run"), (supervisor.pid, "whim supervise")] {
        let cmdline = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        assert_eq!(cmdline.trim_end_matches('\0').replace('\0', " "), visible);
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert!(
            environ.iter().all(|byte| *byte == 0),
            "{:?}",
            String::from_utf8_lossy(&environ)
        );
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", keeper.pid)).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"));
    let FromKeeper::Hello {
        version: 1,
        restarts: 0,
        reason,
        reaps: true,
        keeper_pid,
        ..
    } = supervisor.hello
    else {
        panic!("{:?}", supervisor.hello);
    };
    assert_eq!((reason.as_str(), keeper_pid), ("", keeper.pid));
}

#[test]
fn output_and_status_arrive_whole() {
    let (status, out, err) = run(&shell("echo out; echo err >&2; exit 3"));
    assert_eq!(
        (libc::WEXITSTATUS(status), out.as_str(), err.as_str()),
        (3, "out\n", "err\n")
    );
    let (status, ..) = run(&shell("kill -SEGV $$"));
    assert!(libc::WIFSIGNALED(status));
    assert_eq!(libc::WTERMSIG(status), libc::SIGSEGV);
}

#[test]
fn a_child_starts_clean() {
    let mut launch = shell(
        "ls /proc/self/fd | tr '\\n' ' '; echo; grep -E '^Sig(Blk|Ign)' /proc/self/status; umask; pwd; env; \
         cut -d' ' -f5-6 /proc/$$/stat; echo $$; ulimit -c",
    );
    launch.directory = "/usr".into();
    launch.environment.push(("ONLY".into(), "this".into()));
    let (_, out, _) = run(&launch);
    let lines: Vec<&str> = out.lines().collect();
    // 3 is the directory that ls itself reads.
    assert_eq!(lines[0].trim(), "0 1 2 3");
    assert_eq!(lines[1], "SigBlk:\t0000000000000000");
    assert_eq!(lines[2], "SigIgn:\t0000000000000000");
    assert_eq!(lines[3..5], ["0022", "/usr"]);
    let environment: Vec<&str> = lines[5..]
        .iter()
        .copied()
        .filter(|line| line.contains('='))
        .collect();
    let allowed = [
        "ONLY=this",
        "PATH=/usr/bin:/bin",
        "PWD=/usr",
        "OLDPWD=",
        "SHLVL=",
        "_=",
    ];
    assert!(
        environment
            .iter()
            .all(|line| allowed.iter().any(|start| line.starts_with(start))),
        "{environment:?}"
    );
    let pid = lines[lines.len() - 2];
    assert_eq!(
        lines[lines.len() - 3],
        format!("{pid} {pid}"),
        "leads its own group and session"
    );
    let own_limit = std::process::Command::new("sh")
        .args(["-c", "ulimit -c"])
        .output()
        .unwrap();
    assert_eq!(
        lines[lines.len() - 1],
        String::from_utf8_lossy(&own_limit.stdout).trim(),
        "has its limits back"
    );
}

#[test]
fn a_terminal_belongs_to_its_user_who_can_reopen_it() {
    if !is_root() {
        return;
    }
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let mut launch = terminal(
        "id -u; id -G; echo again > $(tty) && stat -c %u $(tty); stty size; cat /proc/self/oom_score_adj; exit 5",
    );
    launch.user = Some(nobody());
    launch.oom_score_adj = Some(300);
    for holder in [false, true] {
        launch.holder = holder;
        let started = supervisor.spawn("test", &launch);
        assert_eq!(libc::WEXITSTATUS(supervisor.finished(started.id)), 5);
        let ring = &rings(started.descriptors, Streams::Terminal)[0];
        assert_eq!(
            content(ring),
            "1001\r\n1001 44\r\nagain\r\n1001\r\n24 80\r\n300\r\n",
            "holder: {holder}"
        );
    }
}

#[test]
fn a_program_that_cannot_start_names_the_step() {
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let script = keeper.directory.path().join("script");
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let cases = [
        (
            Launch {
                program: "no-such-program".into(),
                ..shell("")
            },
            "exec",
            Errno::ENOENT,
        ),
        (
            Launch {
                program: "/etc".into(),
                ..shell("")
            },
            "exec",
            Errno::EACCES,
        ),
        (
            Launch {
                program: script.into(),
                ..shell("")
            },
            "exec",
            Errno::ENOENT,
        ),
        (
            Launch {
                directory: "/no/such".into(),
                ..shell("")
            },
            "chdir",
            Errno::ENOENT,
        ),
        (
            Launch {
                program: "a\0b".into(),
                ..shell("")
            },
            "launch",
            Errno::EINVAL,
        ),
    ];
    for (mut launch, expected, errno) in cases {
        for (holder, io) in [
            (false, launch.io),
            (true, launch.io),
            (
                true,
                Io::Terminal {
                    columns: 1,
                    rows: 1,
                },
            ),
        ] {
            (launch.holder, launch.io) = (holder, io);
            let id = supervisor.request("test", &launch, &[]);
            let (message, _) = supervisor.receive();
            let failed = FromKeeper::SpawnFailed {
                process: id,
                step: expected.into(),
                errno: errno as i32,
            };
            assert_eq!(message, failed, "holder: {holder}");
        }
    }
}

#[test]
fn a_script_without_interpreter_line_is_a_shell_script() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    fs::write(&script, "echo \"$0 $1\"\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = script.clone().into_os_string();
    let launch = Launch {
        program: path.clone(),
        arguments: vec![path, "argument".into()],
        ..shell("")
    };
    let (status, out, _) = run(&launch);
    assert_eq!(
        (status, out),
        (0, format!("{} argument\n", script.display()))
    );
}

#[test]
fn standard_input_ends_when_both_copies_are_closed() {
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let launch = Launch {
        io: Io::Pipes { stdin: Stdin::Pipe },
        ..shell("cat")
    };
    let mut started = supervisor.spawn("test", &launch);
    let mut stdin = fs::File::from(started.descriptors.remove(0));
    stdin.write_all(b"typed\n").unwrap();
    drop(stdin);
    let rings = rings(started.descriptors, PIPES);
    wait_for(&rings[0], "typed\n");
    supervisor.send(&ToKeeper::Release {
        name: format!("stdin:{}", started.id.0),
    });
    assert_eq!(supervisor.finished(started.id), 0);
}

#[test]
fn further_descriptors_come_at_their_numbers_and_no_others() {
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let (mut read, write) = std::io::pipe().unwrap();
    let write = write.into();
    let mut launch = shell("ls /proc/self/fd | tr '\\n' ' ' >&9");
    launch.descriptors = vec![9];
    let id = supervisor.request("test", &launch, &[&write]);
    assert!(matches!(supervisor.receive().0, FromKeeper::Spawned { process, .. } if process == id));
    drop(write);
    assert_eq!(supervisor.finished(id), 0);
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text, "0 1 2 3 9 ");
}

#[test]
fn an_acknowledged_process_is_forgotten_and_a_number_in_use_is_refused() {
    let keeper = Keeper::start();
    let (mut supervisor, _) = keeper.ready_supervisor();
    let started = supervisor.spawn("first", &shell("exit 0"));
    supervisor.finished(started.id);
    supervisor.next_id = started.id.0;
    supervisor.request("second", &shell("exit 0"), &[]);
    assert!(matches!(supervisor.receive().0, FromKeeper::Refused { .. }));
    supervisor.send(&ToKeeper::Acknowledge {
        process: started.id,
    });
    supervisor.next_id = started.id.0;
    let again = supervisor.spawn("third", &shell("exit 0"));
    assert_eq!(again.id, ProcessId(1));
    supervisor.finished(again.id);
}
