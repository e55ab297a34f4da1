//! A keeper under test, and the test as its supervisor.

use std::ffi::OsString;
use std::fs;
use std::io::{IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, getsockopt, recvmsg, sockopt::PeerCredentials,
};
use nix::unistd::Pid;
use whim_entrypoint::ring::RingReader;
use whim_entrypoint::wire::{
    Arguments, Credentials, FromKeeper, Io, Launch, MAX_ARGUMENTS, Packet, ProcessId, Stdin,
    Streams, SupervisorChannel, ToKeeper, memfd_sealed, read_memfd,
};

/// How long anything may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_whim-entrypoint-stand-in"))
}

/// Waits for readability; false when the time is over.
pub(crate) fn readable(fd: impl AsFd, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).unwrap();
    poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout).unwrap() == 1
}

/// Waits for a condition outside our reach (the process table), looking every millisecond.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn alive(pid: i32) -> bool {
    process_state(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// Whether it waits for something.
pub(crate) fn asleep(pid: i32) -> bool {
    process_state(pid) == Some('S')
}

fn process_state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

pub(crate) struct Keeper {
    pub(crate) process: Child,
    /// As we see it; inside its own namespace it is 1.
    pub(crate) pid: i32,
    pub(crate) directory: tempfile::TempDir,
    listener: UnixListener,
    ended: bool,
}

pub(crate) struct Setup {
    pub(crate) command: Command,
    directory: tempfile::TempDir,
    listener: UnixListener,
    namespace: bool,
}

impl Setup {
    /// Started as an ordinary process; a child subreaper then.
    pub(crate) fn new() -> Self {
        Self::wrapped(&[])
    }

    /// As PID 1 of a namespace of its own.
    pub(crate) fn pid_1() -> Self {
        let mut setup =
            Self::wrapped(&["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]);
        setup.namespace = true;
        setup
    }

    /// As PID 1 with what a container's root may do by default.
    pub(crate) fn container() -> Self {
        let mut setup = Self::wrapped(&[
            "unshare",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            "setpriv",
            "--bounding-set",
            "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,\
             +net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap",
            "--inh-caps",
            "-all",
        ]);
        setup.namespace = true;
        setup
    }

    /// As an ordinary user, with a binary that this user can reach wherever the build directory is.
    pub(crate) fn ordinary_user() -> Self {
        let mut setup = Self::new();
        let path = setup.directory.path().join("whim");
        fs::copy(binary(), &path).unwrap();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", "1001", "--regid", "1001", "--clear-groups"])
            .arg(path);
        let socket = setup.directory.path().join("supervisor.socket");
        command
            .arg("run")
            .env("WHIM_TEST_SOCKET", socket)
            .stdin(Stdio::null());
        setup.command = command;
        setup
    }

    /// Below another program.
    pub(crate) fn wrapped(wrapper: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("supervisor.socket");
        let listener = UnixListener::bind(&socket).unwrap();
        for path in [directory.path(), &socket] {
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        }
        let mut command = match wrapper {
            [] => Command::new(binary()),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(binary());
                command
            }
        };
        command
            .arg("run")
            .env("WHIM_TEST_SOCKET", socket)
            .stdin(Stdio::null());
        Self {
            command,
            directory,
            listener,
            namespace: false,
        }
    }

    pub(crate) fn start(mut self) -> Keeper {
        let process = self.command.spawn().unwrap();
        let outer = i32::try_from(process.id()).unwrap();
        let pid = if self.namespace {
            let mut inner = None;
            let children = format!("/proc/{outer}/task/{outer}/children");
            eventually("unshare forks", || {
                inner = fs::read_to_string(&children)
                    .ok()
                    .and_then(|text| text.trim().parse().ok());
                inner.is_some()
            });
            inner.unwrap()
        } else {
            outer
        };
        Keeper {
            process,
            pid,
            directory: self.directory,
            listener: self.listener,
            ended: false,
        }
    }
}

impl Keeper {
    pub(crate) fn start() -> Self {
        Setup::new().start()
    }

    pub(crate) fn start_pid_1() -> Self {
        Setup::pid_1().start()
    }

    /// The next supervisor, not yet greeted any further than `Hello`.
    pub(crate) fn supervisor(&self) -> Supervisor {
        assert!(
            readable(&self.listener, Instant::now() + PATIENCE),
            "no supervisor came"
        );
        let (stream, _) = self.listener.accept().unwrap();
        let credentials = getsockopt(&stream, PeerCredentials).unwrap();
        let mut bytes = [0; 4096];
        let mut control = nix::cmsg_space!([i32; 2]);
        assert!(
            readable(&stream, Instant::now() + PATIENCE),
            "the supervisor says nothing"
        );
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message =
            recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut control), flags).unwrap();
        let mut descriptors = Vec::new();
        for part in message.cmsgs().unwrap() {
            if let ControlMessageOwned::ScmRights(numbers) = part {
                // SAFETY: just received, owned by nobody else.
                #[expect(unsafe_code, reason = "descriptors come as numbers")]
                descriptors.extend(
                    numbers
                        .into_iter()
                        .map(|number| unsafe { OwnedFd::from_raw_fd(number) }),
                );
            }
        }
        let length = message.bytes;
        let hello = FromKeeper::decode(&bytes[..length]).unwrap();
        let memory = descriptors.pop().unwrap();
        let channel = SupervisorChannel::new(descriptors.pop().unwrap()).unwrap();
        let arguments = Arguments::decode(&read_memfd(memory, MAX_ARGUMENTS).unwrap()).unwrap();
        Supervisor {
            pid: credentials.pid(),
            stream,
            channel,
            hello,
            arguments,
            next_id: 1,
        }
    }

    /// A supervisor that has its inventory and said that it is ready.
    pub(crate) fn ready_supervisor(&self) -> (Supervisor, Inventory) {
        let mut supervisor = self.supervisor();
        let inventory = supervisor.inventory();
        supervisor.send(&ToKeeper::Ready);
        (supervisor, inventory)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn exit(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                self.ended = true;
                return status;
            }
            assert!(Instant::now() < until, "the keeper does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Keeper {
    /// The second TERM makes it kill everything, so that a failed test leaves nothing behind.
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_secs(3);
        while !self.ended && matches!(self.process.try_wait(), Ok(None)) {
            let late = Instant::now() > until;
            let signal = if late {
                Signal::SIGKILL
            } else {
                Signal::SIGTERM
            };
            let _gone = kill(Pid::from_raw(self.pid), signal);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) held: Vec<(String, OwnedFd)>,
    pub(crate) processes: Vec<(FromKeeper, Vec<OwnedFd>)>,
}

pub(crate) struct Supervisor {
    pub(crate) pid: i32,
    stream: UnixStream,
    pub(crate) channel: SupervisorChannel,
    pub(crate) hello: FromKeeper,
    pub(crate) arguments: Arguments,
    pub(crate) next_id: u64,
}

pub(crate) struct Started {
    pub(crate) id: ProcessId,
    pub(crate) pid: i32,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Supervisor {
    pub(crate) fn send(&self, message: &ToKeeper) {
        self.send_with(message, &[]);
    }

    fn send_with(&self, message: &ToKeeper, descriptors: &[BorrowedFd<'_>]) {
        let until = Instant::now() + PATIENCE;
        while let Err(error) = self.channel.send(message, descriptors) {
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
            let timeout =
                PollTimeout::try_from(until.saturating_duration_since(Instant::now())).unwrap();
            let mut fds = [PollFd::new(self.channel.as_fd(), PollFlags::POLLOUT)];
            assert_eq!(poll(&mut fds, timeout), Ok(1), "the keeper does not listen");
        }
    }

    pub(crate) fn receive_within(&self, patience: Duration) -> Option<(FromKeeper, Vec<OwnedFd>)> {
        let until = Instant::now() + patience;
        loop {
            match self.channel.receive() {
                Ok(Some(message)) => return Some(message),
                Ok(None) => panic!("the keeper closed the channel"),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if !readable(&self.channel, until) {
                        return None;
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn receive(&self) -> (FromKeeper, Vec<OwnedFd>) {
        self.receive_within(PATIENCE)
            .expect("the keeper says nothing")
    }

    pub(crate) fn inventory(&mut self) -> Inventory {
        let mut inventory = Inventory::default();
        loop {
            match self.receive() {
                (FromKeeper::Held { name }, mut descriptors) => {
                    inventory.held.push((name, descriptors.remove(0)))
                }
                (FromKeeper::InventoryEnd, _) => return inventory,
                (message @ FromKeeper::Process { process, .. }, descriptors) => {
                    self.next_id = self.next_id.max(process.0 + 1);
                    inventory.processes.push((message, descriptors));
                }
                (other, _) => panic!("{other:?} within the inventory"),
            }
        }
    }

    pub(crate) fn request(&mut self, name: &str, launch: &Launch, extra: &[&OwnedFd]) -> ProcessId {
        let id = ProcessId(self.next_id);
        self.next_id += 1;
        let memory = memfd_sealed("launch", &launch.encode().unwrap()).unwrap();
        let descriptors: Vec<_> = std::iter::once(memory.as_fd())
            .chain(extra.iter().map(|fd| fd.as_fd()))
            .collect();
        self.send_with(
            &ToKeeper::Spawn {
                process: id,
                name: name.to_owned(),
            },
            &descriptors,
        );
        id
    }

    pub(crate) fn spawn(&mut self, name: &str, launch: &Launch) -> Started {
        let id = self.request(name, launch, &[]);
        match self.receive() {
            (FromKeeper::Spawned { process, pid, .. }, descriptors) if process == id => Started {
                id,
                pid,
                descriptors,
            },
            (other, _) => panic!("{other:?} instead of Spawned"),
        }
    }

    /// Waits for `Exited` and `Gone` of one process, in this order.
    pub(crate) fn finished(&self, id: ProcessId) -> i32 {
        let status = match self.receive() {
            (FromKeeper::Exited { process, status }, _) if process == id => status,
            (other, _) => panic!("{other:?} instead of Exited"),
        };
        assert_eq!(self.receive().0, FromKeeper::Gone { process: id });
        status
    }

    /// Ends the supervisor's process with this code.
    pub(crate) fn exit(mut self, code: u8) {
        self.stream.write_all(&[code]).unwrap();
    }

    pub(crate) fn kill(self) {
        kill(Pid::from_raw(self.pid), Signal::SIGKILL).unwrap();
    }
}

/// `sh -c script` with pipes.
pub(crate) fn shell(script: &str) -> Launch {
    Launch {
        program: "sh".into(),
        arguments: ["sh", "-c", script].map(OsString::from).to_vec(),
        environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
        directory: PathBuf::from("/"),
        user: None,
        io: Io::Pipes { stdin: Stdin::Null },
        holder: false,
        end_with_leader: false,
        oom_score_adj: None,
        no_new_privs: false,
        descriptors: Vec::new(),
    }
}

pub(crate) fn terminal(script: &str) -> Launch {
    Launch {
        io: Io::Terminal {
            columns: 80,
            rows: 24,
        },
        ..shell(script)
    }
}

pub(crate) fn ring(descriptors: &mut Vec<OwnedFd>) -> RingReader {
    let memory = descriptors.remove(0);
    let data = descriptors.remove(0);
    let space = descriptors.remove(0);
    RingReader::new(&memory, data, space).unwrap()
}

/// Rings of a process with pipes (no stdin pipe) or its terminal, by the order of the protocol.
pub(crate) fn rings(mut descriptors: Vec<OwnedFd>, streams: Streams) -> Vec<RingReader> {
    match streams {
        Streams::Terminal => {
            drop(descriptors.remove(0));
            vec![ring(&mut descriptors)]
        }
        Streams::Pipes { stdin } => {
            if stdin {
                drop(descriptors.remove(0));
            }
            vec![ring(&mut descriptors), ring(&mut descriptors)]
        }
        Streams::None => Vec::new(),
    }
}

/// Everything in a ring, acknowledged or not.
pub(crate) fn content(ring: &RingReader) -> String {
    let mut bytes = Vec::new();
    ring.read_from(0, &mut bytes, usize::MAX);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits until a ring's content contains `text`.
pub(crate) fn wait_for(ring: &RingReader, text: &str) {
    let until = Instant::now() + PATIENCE;
    loop {
        ring.clear_data().unwrap();
        if content(ring).contains(text) {
            return;
        }
        assert!(
            readable(ring.data_fd(), until),
            "no {text:?} in {:?}",
            content(ring)
        );
    }
}

/// Path in the hierarchy of version 2.
pub(crate) fn cgroup(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .unwrap_or_default()
        .to_owned()
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// An ordinary user that owns nothing.
pub(crate) fn nobody() -> Credentials {
    Credentials {
        uid: 1001,
        gid: 1001,
        groups: vec![1001, 44],
    }
}
