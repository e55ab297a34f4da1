//! The messages between keeper and supervisor.
//!
//! They travel over one `SOCK_SEQPACKET` pair, one message a packet, with descriptors as `SCM_RIGHTS`. Both sides come
//! from this file, but not from the same build: a supervisor may be newer than the keeper that started it. So the first
//! message names the version, variants are only ever added, and a side that meets a kind it does not know logs and
//! ignores it.
//!
//! Bounds: a packet holds at most [`MAX_PACKET`] bytes and [`MAX_DESCRIPTORS`] descriptors. What can be larger (argv,
//! environment) travels in a sealed memfd, see [`Launch`].

use std::ffi::OsString;
use std::path::PathBuf;

/// Version of this protocol; the keeper's is in [`FromKeeper::Hello`].
pub const VERSION: u32 = 1;
/// Largest packet in bytes.
pub const MAX_PACKET: usize = 16 * 1024;
/// Most descriptors in one packet.
pub const MAX_DESCRIPTORS: usize = 8;

/// Chosen by the supervisor when it asks for a process; never used twice in a keeper's life (a new supervisor goes on
/// above the highest number in the inventory).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId(pub u64);

/// What the supervisor asks of the keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToKeeper {
    /// All services answer. From here on a killed supervisor is restarted at once.
    Ready,
    /// How long an ordered end may take in all (§2 `--grace`), milliseconds.
    Grace { milliseconds: u64 },
    /// Start a process. Descriptor 0: a sealed memfd with an encoded [`Launch`]; then those that the launch names in
    /// [`Launch::descriptors`].
    Spawn { process: ProcessId, name: String },
    /// Send a signal to the process itself (`tree: false`), or to its whole process group (`tree: true`).
    Signal {
        process: ProcessId,
        signal: i32,
        tree: bool,
    },
    /// End the process and everything it left: TERM, at most `grace_ms`, KILL. Answered by `Gone`.
    End { process: ProcessId, grace_ms: u64 },
    /// The exit was recorded: forget the process, its rings and its status. Ignored while it still runs.
    Acknowledge { process: ProcessId },
    /// Keep a descriptor under this name for the next supervisor (descriptor 0; replaces an older one). The name
    /// [`FINAL_STATE_DIRECTORY`](super::FINAL_STATE_DIRECTORY) also asks for something: in that directory the keeper makes
    /// `claude_state` read `stopped` at its very end. [`ARGUMENTS`](super::ARGUMENTS) and `stdin:…` are the keeper's own
    /// names.
    Hold { name: String },
    /// Close the held descriptor of this name.
    Release { name: String },
    /// End the container in order with this exit code.
    Exit { code: u8 },
    /// Start the next supervisor from this file (an upgrade); the present one is about to exit by itself.
    Upgrade { path: PathBuf },
    /// Everything owed is durable; nothing more to wait for during the ordered end.
    Flushed,
}

/// What the keeper tells the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromKeeper {
    /// First message. `restarts`: how often a supervisor was started before this one; `reason`: why the last one ended,
    /// for people (`killed by signal 9`, `killed (possibly out of memory)`, `exit code 70`, `upgrade`), empty the first
    /// time. `keeper_pid`: as numbered in the container. `reaps`: false when orphans cannot be reaped.
    /// `started_ms`: `CLOCK_BOOTTIME` of the keeper's start.
    Hello {
        version: u32,
        keeper_pid: i32,
        restarts: u32,
        reason: String,
        reaps: bool,
        started_ms: u64,
    },
    /// A descriptor held since an earlier supervisor (descriptor 0). `arguments` is always there: a sealed memfd with the
    /// keeper's argv and initial environment, see [`Arguments`].
    Held { name: String },
    /// A process that exists, or existed and is not acknowledged yet. Descriptors as in `Spawned`. May follow after
    /// `InventoryEnd` when an earlier supervisor asked for it and its exec took until then.
    Process {
        process: ProcessId,
        name: String,
        pid: i32,
        streams: Streams,
        /// Raw wait status once the process itself has ended.
        status: Option<i32>,
        /// Nothing is left beneath it.
        gone: bool,
    },
    /// The inventory (`Held`, `Process`) is complete.
    InventoryEnd,
    /// The process runs: exec succeeded. Descriptors by `streams`, in this order:
    /// terminal: the PTY master (non-blocking), then ring (memfd, data eventfd, space eventfd);
    /// pipes: the write end of stdin (only with [`Stdin::Pipe`], non-blocking), then ring of stdout, then ring of stderr.
    Spawned {
        process: ProcessId,
        pid: i32,
        streams: Streams,
    },
    /// It could not be started, and its number is free again; `step` says which call failed (`exec`, `chdir`, `setuid`,
    /// …), `launch` that the request made no sense, `limit` that there are too many processes, `holder` that its holder
    /// could not be started.
    SpawnFailed {
        process: ProcessId,
        step: String,
        errno: i32,
    },
    /// The process itself ended, with its raw wait status. Sent again by `Process` to a new supervisor until
    /// acknowledged. Its rings still hold output until `Gone` or until drained.
    Exited { process: ProcessId, status: i32 },
    /// Everything beneath it ended and its output is wholly in the rings.
    Gone { process: ProcessId },
    /// The ordered end began. `signal`: what was received, 0 for `ToKeeper::Exit`. The supervisor flushes and says
    /// `Flushed`; at the deadline, `deadline_ms` milliseconds from now, it is killed.
    Stopping { signal: i32, deadline_ms: u64 },
    /// Held descriptors, processes or names ran into a bound; the request was not carried out.
    Refused { what: String },
}

/// How the output of a process travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// A PTY and one ring.
    Terminal,
    /// Two rings; `stdin` true: a pipe's write end comes first.
    Pipes { stdin: bool },
    /// No output wanted (`/dev/null`, or descriptors given by the supervisor).
    None,
}

/// All that is needed to start a process. Encoded into a sealed memfd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Absolute path, or a name looked up in the `PATH` of `environment`.
    pub program: OsString,
    /// argv, with argv\[0].
    pub arguments: Vec<OsString>,
    /// The whole environment; nothing is inherited.
    pub environment: Vec<(OsString, OsString)>,
    pub directory: PathBuf,
    /// Whom to run as; `None`: as the keeper (also everything in an ordinary user's run).
    pub user: Option<Credentials>,
    pub io: Io,
    /// Run under a holder (`whim hold NAME`): a subreaper that finds and ends everything the process leaves.
    pub holder: bool,
    /// With a holder: end what is left as soon as the process itself ends (agents, shells), or let it live on
    /// (init.sh may start daemons).
    pub end_with_leader: bool,
    /// Written to the child's `oom_score_adj` when higher than ours.
    pub oom_score_adj: Option<i32>,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// Target numbers (3..) of further descriptors that come with the `Spawn` packet, in order. Without a holder only.
    pub descriptors: Vec<i32>,
}

impl Launch {
    /// A program under a holder, without a word on its command line, in `/`, as the keeper: its output comes through
    /// pipes, it reads nothing, and what it leaves ends with it. The rest is set by whoever needs it otherwise.
    #[must_use]
    pub fn of(program: impl Into<OsString>) -> Self {
        let program = program.into();
        Self {
            arguments: vec![program.clone()],
            program,
            environment: Vec::new(),
            directory: "/".into(),
            user: None,
            io: Io::Pipes { stdin: Stdin::Null },
            holder: true,
            end_with_leader: true,
            oom_score_adj: None,
            no_new_privs: false,
            descriptors: Vec::new(),
        }
    }
}

/// Numeric identity of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// Standard streams of a new process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// A new PTY as controlling terminal; the slave is given to the user.
    Terminal {
        columns: u16,
        rows: u16,
    },
    Pipes {
        stdin: Stdin,
    },
    /// All three `/dev/null`.
    Null,
}

/// Where standard input of a process with pipes comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdin {
    Null,
    /// A pipe; the supervisor gets the write end, the keeper keeps a copy for the next supervisor. The process sees end
    /// of file when the supervisor releases `stdin:<process id>` (`ToKeeper::Release`) and closes its own copy.
    Pipe,
}

/// The keeper's own argv and initial environment, encoded into the memfd held as `arguments`. They leave the keeper's
/// memory at start (its `/proc/PID/cmdline` and `environ` are overwritten), so that no secret is readable there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// Without argv\[0] and the subcommand.
    pub arguments: Vec<OsString>,
    pub environment: Vec<(OsString, OsString)>,
}
