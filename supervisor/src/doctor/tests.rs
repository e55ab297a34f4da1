use super::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

/// A machine in a directory: everything that the checks read can be changed.
struct Machine {
    directory: tempfile::TempDir,
    subject: Subject,
}

/// An ordinary user's ids that nobody owns files as.
const UID: u32 = 54321;

fn machine() -> Machine {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in [
        "bin",
        "etc",
        "proc/self",
        "cgroup",
        "root/app",
        "root/whim",
        "root/run",
        "root/tmp",
        "root/home/node",
    ] {
        fs::create_dir_all(at(name)).unwrap();
    }
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(at("root/home/node"), fs::Permissions::from_mode(0o777)).unwrap();
    let all = "NoNewPrivs:\t0\nCapEff:\t000001ffffffffff\n";
    fs::write(at("proc/self/status"), all).unwrap();
    fs::write(at("etc/group"), "node:x:54321:\ndocker:x:998:other\n").unwrap();
    let user = User {
        name: "node".into(),
        uid: UID,
        gid: UID,
        groups: vec![UID],
        home: at("root/home/node"),
        shell: "/bin/sh".into(),
    };
    let subject = Subject {
        root: Root::new(at("root")),
        etc: at("etc"),
        proc: at("proc"),
        cgroup: at("cgroup"),
        user: Ok(user),
        uid: nix::unistd::geteuid().as_raw(),
        agent: None,
        ports: Ports {
            generation: 0,
            local: 0,
            backup: 0,
            ui: 0,
        },
        bind: "::".parse().unwrap(),
        path: at("bin").into_os_string(),
        credentials: Vec::new(),
        mounted_secrets: vec![at("secrets")],
        engine_sockets: vec![at("docker.sock")],
        no_new_privs: false,
    };
    let machine = Machine { directory, subject };
    machine.program("git", "echo git version 2.47.3");
    machine.program("claude", "echo '2.1.197 (Claude Code)'");
    machine
}

impl Machine {
    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.at("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn user(&mut self) -> &mut User {
        self.subject.user.as_mut().unwrap()
    }

    /// The finding of this check, which must be the only one.
    fn find(&self, check: &str) -> Finding {
        let report = examine(&self.subject);
        let mut found = report
            .findings
            .iter()
            .filter(|finding| finding.check == check);
        let first = found
            .next()
            .unwrap_or_else(|| panic!("no {check} in\n{report}"))
            .clone();
        assert!(found.next().is_none(), "{report}");
        first
    }

    fn expect(&self, check: &str, level: Level, part: &str) {
        let finding = self.find(check);
        assert!(
            finding.level == level && finding.text.contains(part),
            "{finding}"
        );
        assert!(finding.remedy.is_some() || level == Level::Ok, "{finding}");
    }

    fn silent(&self, check: &str) {
        let report = examine(&self.subject);
        assert!(
            !report.findings.iter().any(|finding| finding.check == check),
            "{report}"
        );
    }
}

#[test]
fn a_good_machine_passes_with_one_line_per_finding() {
    let report = examine(&machine().subject);
    assert_eq!(report.exit_code(), 0, "{report}");
    assert_eq!(report.to_string().lines().count(), report.findings.len());
    let json = serde_json::to_value(&report).unwrap();
    assert!(
        json["findings"]
            .as_array()
            .unwrap()
            .iter()
            .any(|f| f["check"] == "git" && f["level"] == "ok"),
        "{json}"
    );
}

#[test]
fn git_must_be_there_and_answer() {
    let machine = machine();
    machine.expect("git", Level::Ok, "2.47.3 at ");
    machine.program("git", "echo git version 2.30.9");
    machine.expect("git", Level::Fail, "too old");
    machine.program("git", "exit 3");
    machine.expect("git", Level::Fail, "exit status: 3");
    machine.program("git", "echo hello");
    machine.expect("git", Level::Fail, "named none");
    fs::remove_file(machine.at("bin/git")).unwrap();
    machine.expect("git", Level::Fail, "not found");
    assert_eq!(examine(&machine.subject).exit_code(), 1);
}

#[test]
fn one_agent_must_be_there_or_the_chosen_one() {
    let mut machine = machine();
    machine.expect("agent claude", Level::Ok, "2.1.197");
    machine.expect("agent codex", Level::Note, "not found");
    machine.subject.agent = Some(AgentKind::Codex);
    machine.expect("agent codex", Level::Fail, "not found");
    machine.program("codex", "echo codex-cli 0.170.0");
    machine.expect("agent codex", Level::Ok, "0.170.0");
    assert!(
        machine
            .find("agent codex")
            .text
            .contains("tried with 0.169.0")
    );
    machine.program(
        "ccr",
        r#"[ "$1" = version ] && echo claude-code-router version: 2.0.0"#,
    );
    machine.expect("agent ccr", Level::Ok, "2.0.0");
    fs::remove_file(machine.at("bin/claude")).unwrap();
    machine.subject.agent = Some(AgentKind::Ccr);
    machine.expect("agent claude", Level::Fail, "not found");
    fs::remove_file(machine.at("bin/codex")).unwrap();
    fs::remove_file(machine.at("bin/ccr")).unwrap();
    machine.subject.agent = None;
    machine.expect("agents", Level::Fail, "none of");
    machine.subject.agent = Some(AgentKind::Custom);
    machine.silent("agents");
}

/// Needs root: only then are programs run as somebody else.
#[test]
fn programs_run_as_the_agents_user_with_its_environment_only() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let machine = machine();
    machine.program("claude", r#"[ "$(id -u)$(id -G)$USER" = "5432154321node" ] && [ "${HOME#"${HOME%/home/node}"}" = /home/node ] && [ -z "$CARGO" ] && echo 1.2.3"#);
    // `id` is not beside the fakes.
    let mut subject = machine.subject.clone();
    subject.path =
        std::env::join_paths([machine.at("bin"), "/usr/bin".into(), "/bin".into()]).unwrap();
    let report = examine(&subject);
    let claude = report
        .findings
        .iter()
        .find(|finding| finding.check == "agent claude")
        .unwrap();
    assert_eq!(claude.level, Level::Ok, "{claude}");
}

#[test]
fn a_program_that_hangs_ends_at_the_deadline_with_all_it_started() {
    let machine = machine();
    let marker = machine.at("root/tmp/pid");
    fs::set_permissions(machine.at("root/tmp"), fs::Permissions::from_mode(0o777)).unwrap();
    let path = std::env::join_paths([machine.at("bin"), "/usr/bin".into(), "/bin".into()]).unwrap();
    let subject = Subject {
        path,
        ..machine.subject.clone()
    };
    machine.program(
        "claude",
        &format!(
            "sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; echo 1.2.3; sleep 1000",
            marker.display()
        ),
    );
    let started = std::time::Instant::now();
    let deadline = Duration::from_millis(500);
    let error = run::run(&subject, &machine.at("bin/claude"), &[], deadline).unwrap_err();
    assert!(matches!(error, run::RunError::Deadline { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    let pid = fs::read_to_string(marker).unwrap();
    // It is dying; its descriptor says when it is dead, whoever adopted it.
    if let Ok(pidfd) = run::pidfd_open(pid.trim().parse().unwrap()) {
        use nix::poll::{PollFd, PollFlags, poll};
        use std::os::fd::AsFd as _;
        let ended = poll(
            &mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)],
            10_000u16,
        );
        assert_eq!(ended, Ok(1), "the sleep lives on");
    }
}

#[test]
fn endless_output_is_bounded() {
    let machine = machine();
    let path = std::env::join_paths([machine.at("bin"), "/usr/bin".into(), "/bin".into()]).unwrap();
    let subject = Subject {
        path,
        ..machine.subject.clone()
    };
    machine.program("claude", "head -c 3000000 /dev/zero");
    let answer = run::run(&subject, &machine.at("bin/claude"), &[], DEADLINE).unwrap();
    assert!(answer.status.success());
    assert_eq!(answer.stdout.len(), 64 * 1024);
}

#[test]
fn the_user_must_exist_with_a_shell_and_a_home() {
    let mut machine = machine();
    machine.expect("user", Level::Ok, "node (uid 54321");
    machine.expect("home", Level::Ok, "can be written by node");
    machine.user().shell = "/nonexistent".into();
    machine.expect("shell", Level::Fail, "/nonexistent");
    fs::set_permissions(
        machine.at("root/home/node"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    machine.expect("home", Level::Fail, "cannot write");
    machine.user().home = machine.at("root/home/new");
    machine.expect("home", Level::Ok, "will be made");
    let file = machine.at("root/whim/file");
    fs::write(&file, "").unwrap();
    machine.user().home = file.join("x");
    machine.expect("home", Level::Fail, "root/whim/file");
    machine.subject.user = Err("user node is not in /etc/passwd".into());
    machine.expect("user", Level::Fail, "is not in");
    assert_eq!(weaknesses(&machine.subject), []);
}

#[test]
fn places_that_cannot_be_written_fail() {
    let machine = machine();
    machine.expect("/whim/state", Level::Ok, "can be written");
    fs::remove_dir(machine.at("root/app")).unwrap();
    machine.expect("/app", Level::Ok, "can be written");
    fs::write(machine.at("root/app"), "").unwrap();
    machine.expect("/app", Level::Fail, "is no directory");
    fs::create_dir(machine.at("root/tmp/claude_state")).unwrap();
    machine.expect("state file", Level::Fail, "is a directory");
    let left: Vec<_> = fs::read_dir(machine.at("root/whim")).unwrap().collect();
    assert!(left.is_empty(), "the check leaves nothing: {left:?}");
}

#[test]
fn a_port_in_use_fails_with_its_flag() {
    let mut machine = machine();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    machine.subject.ports.generation = port;
    machine.expect(&format!("port {port}"), Level::Fail, "127.0.0.1");
    assert!(
        machine
            .find(&format!("port {port}"))
            .remedy
            .unwrap()
            .contains("--generation-port")
    );
    machine.subject.ports = Ports {
        generation: 0,
        local: port,
        backup: 0,
        ui: 0,
    };
    machine.subject.bind = "127.0.0.1".parse().unwrap();
    machine.expect(&format!("port {port}"), Level::Fail, "in use");
    machine.subject.bind = "192.0.2.1".parse().unwrap();
    machine.expect(&format!("port {port}"), Level::Fail, "no such address");
    // A whim that runs here holds its own ports.
    fs::create_dir(machine.at("root/run/whim")).unwrap();
    fs::write(machine.at("root/run/whim/ready.json"), r#"{"pid":77}"#).unwrap();
    machine.silent("ports");
    fs::create_dir(machine.at("proc/77")).unwrap();
    machine.expect("ports", Level::Ok, "pid 77");
}

#[test]
fn the_kernels_features_are_tried() {
    let machine = machine();
    for check in ["memfd", "pidfd", "subreaper", "terminals"] {
        machine.expect(check, Level::Ok, "works");
    }
    assert_ne!(machine.find("user namespaces").level, Level::Fail);
    machine.silent("memory.oom.group");
    fs::write(machine.at("cgroup/memory.oom.group"), "1\n").unwrap();
    machine.expect("memory.oom.group", Level::Note, "whole container");
    machine.silent("nsswitch.conf");
    fs::write(
        machine.at("etc/nsswitch.conf"),
        "passwd: files sss [NOTFOUND=return] ldap\n",
    )
    .unwrap();
    machine.expect("nsswitch.conf", Level::Note, "sss, ldap");
    fs::write(
        machine.at("proc/self/mountinfo"),
        "1 2 0:3 / /proc rw - proc proc rw,hidepid=2\n",
    )
    .unwrap();
    machine.expect("/proc", Level::Note, "hidepid");
}

fn weak(subject: &Subject) -> Vec<String> {
    weaknesses(subject)
        .into_iter()
        .map(|finding| finding.check)
        .collect()
}

#[test]
fn what_lets_the_agent_become_root_is_told() {
    let mut machine = machine();
    let same = nix::unistd::geteuid().as_raw();
    if same == 0 {
        assert_eq!(weak(&machine.subject), Vec::<String>::new());
    }
    machine.program("sudo", r#"[ "$*" = "-n true" ]"#);
    machine.expect("sudo", Level::Weak, "without a password");
    machine.subject.no_new_privs = true;
    machine.silent("sudo");
    machine.subject.no_new_privs = false;
    machine.program("sudo", "exit 1");
    machine.silent("sudo");
    machine.user().groups.push(998);
    machine.expect("groups", Level::Weak, "docker");
    machine.user().uid = same;
    if same == 0 {
        assert_eq!(weak(&machine.subject), ["agent is root"]);
        machine.subject.uid = UID;
        machine.user().uid = UID;
    }
    assert_eq!(
        weak(&machine.subject),
        ["same user", "ptrace scope", "groups"]
    );
    fs::create_dir_all(machine.at("proc/sys/kernel/yama")).unwrap();
    fs::write(machine.at("proc/sys/kernel/yama/ptrace_scope"), "1\n").unwrap();
    assert_eq!(weak(&machine.subject), ["same user", "groups"]);
}

#[test]
fn readable_credentials_are_told() {
    let mut machine = machine();
    let file = machine.at("etc/key");
    fs::write(&file, "k").unwrap();
    machine.subject.credentials = vec![file.clone(), machine.at("missing")];
    let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    machine.expect(
        "credential file",
        Level::Weak,
        "etc/key can be read by node",
    );
    mode(0o640);
    machine.silent("credential file");
    // A directory above that cannot be entered protects it.
    mode(0o644);
    fs::set_permissions(machine.at("etc"), fs::Permissions::from_mode(0o700)).unwrap();
    machine.silent("credential file");
    if nix::unistd::geteuid().is_root() {
        fs::set_permissions(machine.at("etc"), fs::Permissions::from_mode(0o755)).unwrap();
        mode(0o640);
        chown(&file, Some(0), Some(UID)).unwrap();
        machine.expect("credential file", Level::Weak, "etc/key");
        mode(0o400);
        chown(&file, Some(UID), Some(0)).unwrap();
        machine.expect("credential file", Level::Weak, "etc/key");
    }
}

#[test]
fn the_subject_is_the_machine_that_run_would_find() {
    let variables = Variables::new(
        [
            ("WHIM_ROOT", "/r"),
            ("WHIM_UI_PORT", "nonsense"),
            ("WHIM_AGENT", "codex"),
            ("OPENAI_API_KEY_FILE", "/nonexistent"),
            ("PATH", "/p"),
        ]
        .map(|(name, value)| (name.into(), value.into())),
    );
    let given = Given::parse(&[], variables.clone()).unwrap();
    let (subject, mistakes) = Subject::new(&given, &variables);
    let texts: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(mistakes.len(), 2, "{texts:?}");
    assert!(
        texts
            .iter()
            .any(|text| text.contains("WHIM_UI_PORT is no port")),
        "{texts:?}"
    );
    assert_eq!(subject.root.as_path(), Path::new("/r"));
    assert_eq!(
        (subject.agent, subject.ports.ui),
        (Some(AgentKind::Codex), 7681)
    );
    assert_eq!(subject.path, "/p");
    assert!(
        subject.credentials.contains(&"/nonexistent".into())
            && subject
                .credentials
                .contains(&"/r/run/whim/control-token".into())
    );
}

#[test]
fn an_engines_socket_is_told_when_the_user_may_write_to_it() {
    let machine = machine();
    let path = machine.at("docker.sock");
    fs::write(&path, "").unwrap();
    machine.silent("container engine");
    fs::remove_file(&path).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    machine.silent("container engine");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    machine.expect("container engine", Level::Weak, "docker.sock");
}

#[test]
fn mounted_secrets_are_found_through_the_links_of_kubernetes() {
    let machine = machine();
    fs::create_dir_all(machine.at("secrets/key/..2026")).unwrap();
    let real = machine.at("secrets/key/..2026/token");
    fs::write(&real, "k").unwrap();
    std::os::unix::fs::symlink("..2026", machine.at("secrets/key/..data")).unwrap();
    std::os::unix::fs::symlink("..data/token", machine.at("secrets/key/token")).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(
        weak(&machine.subject)
            .iter()
            .filter(|check| *check == "credential file")
            .count(),
        0
    );
    fs::set_permissions(&real, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(weak(&machine.subject).contains(&"credential file".to_owned()));
}

#[test]
fn an_empty_root_password_is_told() {
    let machine = machine();
    fs::write(machine.at("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    fs::write(machine.at("etc/shadow"), "root:*:1::::::\n").unwrap();
    machine.silent("root account");
    fs::write(machine.at("etc/shadow"), "root::1::::::\n").unwrap();
    machine.expect("root account", Level::Weak, "empty password");
    fs::write(machine.at("etc/shadow"), "root:*:1::::::\n").unwrap();
    fs::write(machine.at("etc/passwd"), "root::0:0::/root:/bin/sh\n").unwrap();
    machine.expect("root account", Level::Weak, "empty password");
}

#[test]
fn privileges_that_are_missing_are_told() {
    let mut machine = machine();
    machine.subject.uid = 0;
    let status = machine.at("proc/self/status");
    // Docker's default set is enough.
    fs::write(&status, "NoNewPrivs:\t0\nCapEff:\t00000000a80425fb\n").unwrap();
    machine.expect("capabilities", Level::Ok, "enough");
    machine.silent("no_new_privs");
    fs::write(&status, "NoNewPrivs:\t1\nCapEff:\t0000000000000041\n").unwrap();
    machine.expect("capabilities", Level::Fail, "KILL, SETUID missing");
    machine.expect("no_new_privs", Level::Note, "is set");
    machine.subject.uid = UID;
    machine.silent("capabilities");
    fs::remove_file(&status).unwrap();
    machine.expect("/proc", Level::Fail, "not readable");
}

#[test]
fn agents_that_would_be_root_fail() {
    let mut machine = machine();
    machine.user().uid = 0;
    machine.expect("user", Level::Fail, "refuse to work as root");
}

#[test]
fn without_a_cgroup_a_session_is_held_by_looking() {
    let mut machine = machine();
    assert!(!weak(&machine.subject).contains(&"cgroup".to_owned()));
    machine.subject.cgroup = machine.at("none");
    machine.expect("cgroup", Level::Weak, "found by looking");
    let shown: Vec<String> = weaknesses(&machine.subject)
        .iter()
        .map(Finding::short)
        .collect();
    assert!(
        shown[0].starts_with("cgroup: none can be made"),
        "{shown:?}"
    );
}
