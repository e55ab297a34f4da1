//! The entrypoint's roles as `whim` has them, and for `supervise` a stand-in: it hands its channel to the test that named
//! a socket in `WHIM_TEST_SOCKET`, and ends as that test says.
#![expect(unsafe_code, reason = "the channel is inherited as a number")]
#![expect(
    clippy::unwrap_used,
    reason = "part of the tests: what fails here fails them"
)]

use std::io::{IoSlice, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use whim_entrypoint::ring::RingReader;
use whim_entrypoint::wire::{
    Arguments, FromKeeper, MAX_ARGUMENTS, Packet, SUPERVISOR_DESCRIPTOR, SupervisorChannel,
    read_memfd,
};

fn main() -> ExitCode {
    if let Some(code) = whim_entrypoint::dispatch() {
        return code;
    }
    match std::env::args().nth(1).as_deref() {
        Some("supervise") => supervise(),
        Some("drain") => drain(),
        _ => ExitCode::from(64),
    }
}

/// Reads the ring whose descriptors are 3 to 5 and writes each byte into the file 6 at its own offset, for ever.
fn drain() -> ExitCode {
    // SAFETY: the test gave us these and nobody else here knows them.
    let [memory, data, space, file] =
        [3, 4, 5, 6].map(|number| unsafe { OwnedFd::from_raw_fd(number) });
    let ring = RingReader::new(&memory, data, space).unwrap();
    let file = std::fs::File::from(file);
    let mut bytes = Vec::new();
    loop {
        ring.clear_data().unwrap();
        bytes.clear();
        let outcome = ring.read_from(ring.acknowledged(), &mut bytes, 3000);
        assert_eq!(outcome.skipped, 0);
        if outcome.length == 0 {
            let mut fds = [PollFd::new(ring.data_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::NONE).unwrap();
            continue;
        }
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, outcome.start).unwrap();
        ring.acknowledge(outcome.end()).unwrap();
    }
}

fn receive(channel: &SupervisorChannel) -> (FromKeeper, Vec<OwnedFd>) {
    use std::os::fd::AsFd;
    loop {
        match channel.receive() {
            Ok(Some(message)) => return message,
            Ok(None) => panic!("the keeper is gone"),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                let mut fds = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
                assert_eq!(
                    poll(&mut fds, PollTimeout::from(10_000_u16)),
                    Ok(1),
                    "the keeper says nothing"
                );
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn supervise() -> ExitCode {
    // SAFETY: the keeper started us with the channel at this number.
    let socket = unsafe { OwnedFd::from_raw_fd(SUPERVISOR_DESCRIPTOR) };
    let channel = SupervisorChannel::new(socket).unwrap();
    let (hello, _) = receive(&channel);
    let (held, mut descriptors) = receive(&channel);
    assert_eq!(
        held,
        FromKeeper::Held {
            name: "arguments".to_owned()
        }
    );
    let memory = descriptors.remove(0);
    let arguments = Arguments::decode(&read_memfd(&memory, MAX_ARGUMENTS).unwrap()).unwrap();
    let variable = |name: &str| {
        arguments
            .environment
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    };
    if let Some(code) = variable("WHIM_TEST_FAIL") {
        return ExitCode::from(code.to_str().unwrap().parse::<u8>().unwrap());
    }
    let mut test = UnixStream::connect(variable("WHIM_TEST_SOCKET").unwrap()).unwrap();
    let rights = [channel.as_raw_fd(), memory.as_raw_fd()];
    let hello = hello.encode().unwrap();
    let control = [ControlMessage::ScmRights(&rights)];
    sendmsg::<()>(
        test.as_raw_fd(),
        &[IoSlice::new(&hello)],
        &control,
        MsgFlags::empty(),
        None,
    )
    .unwrap();
    // From here on the channel is the test's alone, so that its closing is seen.
    drop((channel, memory));
    let mut code = [0];
    match test.read(&mut code) {
        Ok(1) => ExitCode::from(code[0]),
        _ => ExitCode::SUCCESS,
    }
}
