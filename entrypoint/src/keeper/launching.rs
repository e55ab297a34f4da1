//! From a request and its descriptors to a process under way.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Uid, fchown, pipe2};

use super::cgroup::{Cgroup, Cgroups};
use super::holding::Holder;
use super::output::Output;
use super::process::{Process, Streaming};
use crate::descriptors::{dev_null, set_nonblocking, standard};
use crate::holder;
use crate::holder::report::HolderHandle;
use crate::limits::Limits;
use crate::pty;
use crate::ring::{PIPE_CAPACITY, RingWriter, TERMINAL_CAPACITY};
use crate::spawn::{self, Plan, SpawnError, Step};
use crate::wire::{Io, Launch, MAX_LAUNCH, ProcessId, Stdin, pair, read_memfd};

/// Our own file, whatever became of its path.
pub(super) const SELF: &str = "/proc/self/exe";

/// Our ends and the child's.
struct Ends {
    ours: Streaming,
    child: [OwnedFd; 3],
}

fn at<E: Into<io::Error>>(step: Step) -> impl Fn(E) -> SpawnError {
    move |error| SpawnError::io(step, &error.into())
}

/// Starts what `descriptors` (a launch, then what it names) ask for.
///
/// # Errors
/// The step that failed; then nothing is left of it.
pub(super) fn launch(
    id: ProcessId,
    name: String,
    generation: u32,
    descriptors: Vec<OwnedFd>,
    limits: Option<Limits>,
    cgroups: &mut Cgroups,
) -> Result<Process, SpawnError> {
    let invalid = || SpawnError::new(Step::Launch, Errno::EINVAL);
    let mut descriptors = descriptors.into_iter();
    let memory = descriptors.next().ok_or_else(invalid)?;
    let extra: Vec<OwnedFd> = descriptors.collect();
    let bytes = read_memfd(&memory, MAX_LAUNCH).map_err(at(Step::Launch))?;
    let launch = Launch::decode(&bytes).map_err(|_| invalid())?;
    drop(bytes);
    if extra.len() != launch.descriptors.len() || (launch.holder && !extra.is_empty()) {
        return Err(invalid());
    }
    let ends = open(&launch)?;
    let (starting, holder) = if launch.holder {
        let cgroup = cgroups.create(id.0);
        let (starting, holder) =
            under_holder(&name, &launch, &memory, &ends.child, limits, cgroup)?;
        (starting, Some(holder))
    } else {
        (directly(&launch, &ends.child, &extra, limits)?, None)
    };
    Ok(Process::new(
        id, name, generation, starting, holder, ends.ours,
    ))
}

fn open(launch: &Launch) -> Result<Ends, SpawnError> {
    let null = || dev_null().map_err(at(Step::Pipe));
    match launch.io {
        Io::Null => Ok(Ends {
            ours: Streaming::None,
            child: [null()?, null()?, null()?],
        }),
        Io::Terminal { columns, rows } => {
            let pty = pty::open(columns, rows).map_err(at(Step::Terminal))?;
            if let Some(user) = &launch.user {
                // So that the user can open its own terminal by name (gpg, screen).
                fchown(&pty.slave, Some(Uid::from_raw(user.uid)), None)
                    .map_err(at(Step::Terminal))?;
            }
            let copy = || pty.slave.try_clone().map_err(at(Step::Terminal));
            let child = [copy()?, copy()?, copy()?];
            let ring = RingWriter::new("terminal", TERMINAL_CAPACITY).map_err(at(Step::Ring))?;
            let output = Output::new(pty.master, ring);
            Ok(Ends {
                ours: Streaming::Terminal {
                    output,
                    slave: Some(pty.slave),
                },
                child,
            })
        }
        Io::Pipes { stdin } => {
            let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(at(Step::Pipe));
            let (input, ours) = match stdin {
                Stdin::Null => (null()?, None),
                Stdin::Pipe => {
                    let (read, write) = pipe()?;
                    set_nonblocking(&write).map_err(at(Step::Pipe))?;
                    (read, Some(write))
                }
            };
            let ring = |name| RingWriter::new(name, PIPE_CAPACITY).map_err(at(Step::Ring));
            let ((output, child_output), (error, child_error)) = (pipe()?, pipe()?);
            for end in [&output, &error] {
                set_nonblocking(end).map_err(at(Step::Pipe))?;
            }
            let output = Output::new(output, ring("stdout")?);
            let error = Output::new(error, ring("stderr")?);
            Ok(Ends {
                ours: Streaming::Pipes {
                    stdin: ours,
                    output,
                    error,
                },
                child: [input, child_output, child_error],
            })
        }
    }
}

fn borrow(streams: &[OwnedFd; 3]) -> [BorrowedFd<'_>; 3] {
    let [input, output, error] = streams;
    [input.as_fd(), output.as_fd(), error.as_fd()]
}

fn directly(
    launch: &Launch,
    streams: &[OwnedFd; 3],
    extra: &[OwnedFd],
    limits: Option<Limits>,
) -> Result<spawn::Starting, SpawnError> {
    let mut plan = Plan::launch(launch, borrow(streams))?;
    plan.controlling_terminal = matches!(launch.io, Io::Terminal { .. });
    plan.extra = extra
        .iter()
        .map(AsFd::as_fd)
        .zip(launch.descriptors.iter().copied())
        .collect();
    plan.limits = limits;
    spawn::start(&plan)
}

fn under_holder(
    name: &str,
    launch: &Launch,
    memory: &OwnedFd,
    streams: &[OwnedFd; 3],
    limits: Option<Limits>,
    cgroup: Option<Cgroup>,
) -> Result<(spawn::Starting, Holder), SpawnError> {
    let (ours, theirs) = pair().map_err(at(Step::Holder))?;
    let handle = HolderHandle::new(ours).map_err(at(Step::Holder))?;
    let null = dev_null().map_err(at(Step::Holder))?;
    let [.., stderr] = standard();
    let arguments = ["whim", "hold", name];
    let mut plan = Plan::own(
        SELF.as_ref(),
        &arguments,
        launch.user.as_ref(),
        [null.as_fd(), null.as_fd(), stderr],
    )?;
    plan.extra = vec![
        (theirs.as_fd(), holder::SOCKET),
        (memory.as_fd(), holder::LAUNCH),
    ];
    plan.extra
        .extend(borrow(streams).into_iter().zip(holder::STREAMS));
    if let Some(cgroup) = &cgroup {
        plan.extra.push((cgroup.procs(), holder::CGROUP));
    }
    plan.limits = limits;
    let starting = spawn::start(&plan)?;
    let user = launch.user.as_ref();
    let uid = user.map_or_else(|| Uid::current().as_raw(), |user| user.uid);
    let holder = Holder::new(handle, starting.pid.as_raw(), uid, cgroup);
    Ok((starting, holder))
}
