#![expect(
    unsafe_code,
    reason = "descriptors that arrive in a control message are owned from their raw numbers"
)]
//! One end of the socket between keeper and supervisor.
//!
//! `SOCK_SEQPACKET`: a packet arrives whole or not at all, and the end of the peer is seen as end of file. Never blocks:
//! what the socket does not take now is the caller's to keep, which both sides do as state and not as a queue.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

use super::message::{FromKeeper, MAX_DESCRIPTORS, MAX_PACKET, ToKeeper};
use super::packets::Packet;

/// Most descriptors that the kernel puts in one control message (`SCM_MAX_FD`). There is room for all of them, so that
/// a packet with too many is refused with every descriptor closed, and not cut with some of them leaked.
const KERNEL_MAX_DESCRIPTORS: usize = 253;
const CONTROL_SIZE: usize = 16 + 4 * KERNEL_MAX_DESCRIPTORS + 4;

#[repr(align(8))]
struct Control([u8; CONTROL_SIZE]);

/// An end that sends `S` and receives `R`.
pub struct Channel<S, R> {
    socket: OwnedFd,
    direction: PhantomData<fn(S) -> R>,
}

/// The supervisor's end.
pub type SupervisorChannel = Channel<ToKeeper, FromKeeper>;
/// The keeper's end.
pub type KeeperChannel = Channel<FromKeeper, ToKeeper>;

/// Two connected sockets, closed on exec.
///
/// # Errors
/// Those of `socketpair`.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

impl<S: Packet, R: Packet> Channel<S, R> {
    /// Takes over a `SOCK_SEQPACKET` socket and makes it non-blocking and closed on exec.
    ///
    /// # Errors
    /// Those of `fcntl`.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_truncate(fcntl(&socket, FcntlArg::F_GETFL)?);
        fcntl(&socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        fcntl(&socket, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
        Ok(Self {
            socket,
            direction: PhantomData,
        })
    }

    /// Sends one message with its descriptors, wholly or not at all.
    ///
    /// # Errors
    /// `WouldBlock` when the socket is full, `InvalidInput` for more than [`MAX_DESCRIPTORS`], a
    /// [`CodecError`](super::CodecError) as `InvalidData`, `BrokenPipe` when the peer is gone.
    pub fn send(&self, message: &S, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        if descriptors.len() > MAX_DESCRIPTORS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "too many descriptors for a packet",
            ));
        }
        let bytes = message.encode()?;
        let raw: Vec<i32> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        let sent = sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(&bytes)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    /// The next message with its descriptors (closed on exec); `None` when the peer closed its end.
    ///
    /// # Errors
    /// `WouldBlock` when there is none yet; `Unsupported` for a kind of message this build does not know;
    /// `InvalidData` for a packet that is cut, carries too many descriptors or is no message. After the last two the
    /// channel goes on with the next packet; what came with the bad one is closed.
    pub fn receive(&self) -> io::Result<Option<(R, Vec<OwnedFd>)>> {
        let mut buffer = [0; MAX_PACKET];
        let mut control = Control([0; CONTROL_SIZE]);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let packet = recvmsg::<()>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut control.0),
            flags,
        )?;
        let length = packet.bytes;
        let mut cut = packet.flags.contains(MsgFlags::MSG_TRUNC);
        let mut descriptors = Vec::new();
        match packet.cmsgs() {
            Ok(messages) => {
                for message in messages {
                    if let ControlMessageOwned::ScmRights(raw) = message {
                        for number in raw {
                            // SAFETY: the kernel installed this descriptor for us just now and nobody else knows it.
                            descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
                        }
                    }
                }
            }
            Err(_) => cut = true,
        }
        if cut {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "packet was cut"));
        }
        // An empty packet is never sent, so nothing read is the peer's end.
        if length == 0 {
            return Ok(None);
        }
        if descriptors.len() > MAX_DESCRIPTORS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "too many descriptors in a packet",
            ));
        }
        let message = R::decode(buffer.get(..length).unwrap_or_default())?;
        Ok(Some((message, descriptors)))
    }

    /// The socket itself, for instance to hand it to a child.
    #[must_use]
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }
}

impl<S, R> AsFd for Channel<S, R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl<S, R> AsRawFd for Channel<S, R> {
    fn as_raw_fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }
}

impl<S, R> fmt::Debug for Channel<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("socket", &self.socket)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::ProcessId;
    use super::super::{memfd_sealed, read_memfd};
    use super::*;

    fn ends() -> (SupervisorChannel, KeeperChannel) {
        let (a, b) = pair().unwrap();
        (Channel::new(a).unwrap(), Channel::new(b).unwrap())
    }

    #[test]
    fn messages_and_descriptors_arrive_in_order_and_closed_on_exec() {
        let (supervisor, keeper) = ends();
        assert_eq!(
            keeper.receive().unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        let first = memfd_sealed("first", b"1").unwrap();
        let second = memfd_sealed("second", b"2").unwrap();
        let spawn = ToKeeper::Spawn {
            process: ProcessId(7),
            name: "session/main".into(),
        };
        supervisor
            .send(&spawn, &[first.as_fd(), second.as_fd()])
            .unwrap();
        supervisor.send(&ToKeeper::Ready, &[]).unwrap();
        let (message, descriptors) = keeper.receive().unwrap().unwrap();
        assert_eq!(message, spawn);
        let contents: Vec<Vec<u8>> = descriptors
            .iter()
            .map(|fd| read_memfd(fd, 9).unwrap())
            .collect();
        assert_eq!(contents, [b"1", b"2"]);
        assert_eq!(
            fcntl(&descriptors[0], FcntlArg::F_GETFD).unwrap() & nix::libc::FD_CLOEXEC,
            nix::libc::FD_CLOEXEC
        );
        assert_eq!(keeper.receive().unwrap().unwrap().0, ToKeeper::Ready);
        drop(supervisor);
        assert!(keeper.receive().unwrap().is_none());
    }

    #[test]
    fn a_full_socket_says_so_and_loses_nothing() {
        let (supervisor, keeper) = ends();
        let mut sent = 0;
        let error = loop {
            match supervisor.send(
                &ToKeeper::Acknowledge {
                    process: ProcessId(sent),
                },
                &[],
            ) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        for expected in 0..sent {
            let (message, _) = keeper.receive().unwrap().unwrap();
            assert_eq!(
                message,
                ToKeeper::Acknowledge {
                    process: ProcessId(expected)
                }
            );
        }
    }

    #[test]
    fn packets_that_are_too_long_or_no_message_leave_the_channel_usable_and_no_descriptor_behind() {
        let open = || {
            let links = std::fs::read_dir("/proc/self/fd")
                .unwrap()
                .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
            links
                .filter(|link| link.to_string_lossy().contains("memfd:leak-probe"))
                .count()
        };
        let (supervisor, keeper) = ends();
        let probe = memfd_sealed("leak-probe", b"").unwrap();
        let before = open();
        let raw = [probe.as_raw_fd(); 20];
        let rights = [ControlMessage::ScmRights(&raw)];
        let long = vec![1; MAX_PACKET + 1];
        for bytes in [&long[..], &[1], &[250]] {
            sendmsg::<()>(
                supervisor.as_raw_fd(),
                &[IoSlice::new(bytes)],
                &rights,
                MsgFlags::empty(),
                None,
            )
            .unwrap();
            assert_eq!(
                keeper.receive().unwrap_err().kind(),
                io::ErrorKind::InvalidData
            );
        }
        sendmsg::<()>(
            supervisor.as_raw_fd(),
            &[IoSlice::new(&[250])],
            &[],
            MsgFlags::empty(),
            None,
        )
        .unwrap();
        assert_eq!(
            keeper.receive().unwrap_err().kind(),
            io::ErrorKind::Unsupported
        );
        assert_eq!(open(), before);
        supervisor.send(&ToKeeper::Flushed, &[]).unwrap();
        assert_eq!(keeper.receive().unwrap().unwrap().0, ToKeeper::Flushed);
    }
}
