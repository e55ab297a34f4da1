//! From a program's output into its ring.
//!
//! Owns when a descriptor is read: as long as there is room in the ring. At the bound (full of unacknowledged bytes) the
//! program waits; after [`UNREADY_PATIENCE`] without a ready supervisor, or [`READY_PATIENCE`] with one that does not
//! acknowledge, the oldest bytes go, counted, until somebody acknowledges again. So a program is never stopped for good by
//! a supervisor that does not come back.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::token::Token;
use crate::log;
use crate::ring::RingWriter;

/// How long a full ring waits for a supervisor to become ready.
pub(super) const UNREADY_PATIENCE: Duration = Duration::from_secs(30);
/// How long a full ring waits for a ready supervisor to acknowledge.
pub(super) const READY_PATIENCE: Duration = Duration::from_secs(300);
/// Read in one go before others get their turn: a flood of one terminal must not delay another's keystroke echo.
const BATCH: usize = 64 * 1024;
/// A terminal that reports an error while its program lives (something called `vhangup`) is tried again after this.
const HANGUP_RETRY: Duration = Duration::from_millis(200);

/// Buffer for one `read`. The line discipline gives at most 4 KiB; more helps only pipes, and costs resident memory.
pub(super) const BUFFER: usize = 16 * 1024;

#[derive(Clone, Copy, Debug)]
enum Flow {
    Reading,
    /// No room since then.
    Full(Instant),
    /// Hung up with a living program; to be tried at that time.
    HungUp(Instant),
    Ended,
}

/// One stream of output.
#[derive(Debug)]
pub(super) struct Output {
    source: OwnedFd,
    pub(super) ring: RingWriter,
    flow: Flow,
    /// Giving up the oldest bytes since the reader stood at this offset.
    discarding: Option<u64>,
    token: Token,
    space_token: Token,
}

impl Output {
    pub(super) fn new(source: OwnedFd, ring: RingWriter) -> Self {
        Self {
            source,
            ring,
            flow: Flow::Reading,
            discarding: None,
            token: Token::Output(0, 0),
            space_token: Token::Space(0, 0),
        }
    }

    pub(super) fn source(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }

    pub(super) fn register(&mut self, epoll: &Epoll, slot: u32, stream: u8) -> nix::Result<()> {
        self.token = Token::Output(slot, stream);
        self.space_token = Token::Space(slot, stream);
        epoll.add(
            &self.source,
            EpollEvent::new(EpollFlags::EPOLLIN, self.token.encode()),
        )?;
        epoll.add(
            self.ring.space_fd(),
            EpollEvent::new(EpollFlags::EPOLLIN, self.space_token.encode()),
        )
    }

    /// The descriptors stay open in supervisors, so closing ours would not take them out of the epoll set.
    pub(super) fn unregister(&mut self, epoll: &Epoll) {
        self.stop_polling(epoll);
        if let Err(errno) = epoll.delete(self.ring.space_fd()) {
            log::line(format_args!("epoll: space of a ring: {errno}"));
        }
    }

    fn stop_polling(&self, epoll: &Epoll) {
        if matches!(self.flow, Flow::Reading)
            && let Err(errno) = epoll.delete(&self.source)
        {
            log::line(format_args!("epoll: output: {errno}"));
        }
    }

    fn change(&mut self, epoll: &Epoll, flow: Flow) {
        let polled = |flow| matches!(flow, Flow::Reading);
        match (polled(self.flow), polled(flow)) {
            (true, false) => self.stop_polling(epoll),
            (false, true) => {
                let event = EpollEvent::new(EpollFlags::EPOLLIN, self.token.encode());
                if let Err(errno) = epoll.add(&self.source, event) {
                    log::line(format_args!("epoll: output: {errno}"));
                }
            }
            _ => {}
        }
        self.flow = flow;
    }

    /// Everything that will ever come is in the ring.
    pub(super) fn ended(&self) -> bool {
        matches!(self.flow, Flow::Ended)
    }

    /// When to come again at the latest.
    pub(super) fn due(&self, unready_since: Option<Instant>) -> Option<Instant> {
        match self.flow {
            Flow::Full(since) => Some(patience_ends(since, unready_since)),
            Flow::HungUp(retry) => Some(retry),
            Flow::Reading | Flow::Ended => None,
        }
    }

    pub(super) fn woken(&mut self) {
        self.ring.woken();
    }

    /// Moves what there is, up to a batch; true when that bound ended it and there may be more. `over`: the program and
    /// all below it ended, so nothing to read now means nothing ever.
    pub(super) fn pump(
        &mut self,
        epoll: &Epoll,
        buffer: &mut [u8],
        now: Instant,
        over: bool,
        unready_since: Option<Instant>,
    ) -> bool {
        match self.flow {
            Flow::Ended => return false,
            Flow::HungUp(retry) if now < retry && !over => return false,
            Flow::Reading | Flow::Full(_) | Flow::HungUp(_) => {}
        }
        let before = self.ring.head();
        let mut flow = Flow::Reading;
        let mut moved = 0;
        while moved < BATCH {
            let Some(room) = self.room(buffer.len(), now, unready_since) else {
                flow = match self.flow {
                    Flow::Full(since) => Flow::Full(since),
                    _ => Flow::Full(now),
                };
                break;
            };
            match nix::unistd::read(&self.source, buffer.get_mut(..room).unwrap_or_default()) {
                Ok(0) => {
                    flow = Flow::Ended;
                    break;
                }
                Ok(count) => {
                    moved += count;
                    self.record(buffer.get(..count).unwrap_or_default());
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    if over {
                        flow = Flow::Ended;
                    }
                    break;
                }
                // All slaves of the terminal are closed.
                Err(Errno::EIO) => {
                    flow = if over {
                        Flow::Ended
                    } else {
                        Flow::HungUp(now + HANGUP_RETRY)
                    };
                    break;
                }
                Err(errno) => {
                    log::line(format_args!("reading output: {errno}"));
                    flow = if over {
                        Flow::Ended
                    } else {
                        Flow::HungUp(now + HANGUP_RETRY)
                    };
                    break;
                }
            }
        }
        self.change(epoll, flow);
        if self.ring.head() != before {
            self.ring.publish();
        }
        moved >= BATCH
    }

    /// Bytes that may be read now; `None` when the program has to wait.
    fn room(&mut self, most: usize, now: Instant, unready_since: Option<Instant>) -> Option<usize> {
        if self
            .discarding
            .is_some_and(|offset| self.ring.acknowledged() > offset && self.ring.room() > 0)
        {
            self.discarding = None;
        }
        if let Flow::Full(since) = self.flow
            && self.discarding.is_none()
            && self.ring.room() == 0
            && now >= patience_ends(since, unready_since)
        {
            log::line(format_args!(
                "nobody takes a program's output: from here on the oldest goes"
            ));
            self.discarding = Some(self.ring.acknowledged());
        }
        if self.discarding.is_some() {
            self.ring.make_room(most as u64);
            self.discarding = Some(self.ring.acknowledged());
        } else if self.ring.room() == 0 && self.ring.wait_for_room() {
            return None;
        }
        Some(
            usize::try_from(self.ring.room())
                .unwrap_or(usize::MAX)
                .min(most),
        )
    }

    fn record(&mut self, bytes: &[u8]) {
        match self.ring.write(bytes) {
            Ok(count) if count == bytes.len() => {}
            // Cannot be: no more was read than there is room for.
            Ok(count) => log::line(format_args!(
                "{} bytes of output do not fit",
                bytes.len() - count
            )),
            Err(error) => log::line(format_args!(
                "{} bytes of output lost: ring: {error}",
                bytes.len()
            )),
        }
    }
}

fn patience_ends(since: Instant, unready_since: Option<Instant>) -> Instant {
    let with_supervisor = since + READY_PATIENCE;
    let without = unready_since.map(|unready| since.max(unready) + UNREADY_PATIENCE);
    without.map_or(with_supervisor, |without| without.min(with_supervisor))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use nix::sys::epoll::EpollCreateFlags;

    use super::*;
    use crate::ring::RingReader;

    const CAPACITY: u64 = 8192;

    struct Fixture {
        epoll: Epoll,
        output: Output,
        program: std::io::PipeWriter,
        reader: RingReader,
    }

    impl Fixture {
        fn new() -> Self {
            let (read, program) = std::io::pipe().unwrap();
            crate::descriptors::set_nonblocking(&read).unwrap();
            let ring = RingWriter::new("test", CAPACITY).unwrap();
            let [memory, data, space] = ring
                .descriptors()
                .map(|fd| fd.try_clone_to_owned().unwrap());
            let reader = RingReader::new(&memory, data, space).unwrap();
            let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
            let mut output = Output::new(read.into(), ring);
            output.register(&epoll, 0, 0).unwrap();
            Self {
                epoll,
                output,
                program,
                reader,
            }
        }

        fn pump(&mut self, now: Instant, unready_since: Option<Instant>) {
            let mut buffer = [0; 1000];
            while self
                .output
                .pump(&self.epoll, &mut buffer, now, false, unready_since)
            {}
        }
    }

    #[test]
    fn the_oldest_goes_only_when_patience_ends_and_only_until_somebody_acknowledges() {
        let start = Instant::now();
        let mut fixture = Fixture::new();
        let unready = Some(start);
        fixture.program.write_all(&[b'a'; 8192]).unwrap();
        fixture.program.write_all(&[b'b'; 2000]).unwrap();
        fixture.pump(start, unready);
        assert_eq!(
            (fixture.reader.head(), fixture.reader.lost()),
            (CAPACITY, 0)
        );
        let patience = start + UNREADY_PATIENCE;
        assert_eq!(fixture.output.due(unready), Some(patience));
        assert_eq!(
            fixture.output.due(None),
            Some(start + READY_PATIENCE),
            "a ready one gets more time"
        );

        let almost = UNREADY_PATIENCE
            .checked_sub(Duration::from_millis(1))
            .unwrap();
        fixture.pump(start + almost, unready);
        assert_eq!(fixture.reader.head(), CAPACITY);

        fixture.pump(patience, unready);
        assert_eq!(fixture.reader.head(), CAPACITY + 2000);
        assert!(
            fixture.reader.lost() >= 2000 && fixture.reader.lost() <= 3000,
            "{}",
            fixture.reader.lost()
        );
        let mut bytes = Vec::new();
        let outcome = fixture.reader.read_from(0, &mut bytes, usize::MAX);
        assert_eq!(outcome.skipped, 2000);
        assert!(bytes.ends_with(&[b'b'; 2000]) && bytes.starts_with(b"aaaa"));

        // Somebody is there again: from here on nothing may be lost.
        fixture.reader.acknowledge(outcome.end()).unwrap();
        let lost = fixture.reader.lost();
        fixture.program.write_all(&[b'c'; 10_000]).unwrap();
        fixture.pump(patience, None);
        assert_eq!(fixture.reader.head(), outcome.end() + CAPACITY);
        assert_eq!(fixture.reader.lost(), lost);
    }

    #[test]
    fn the_end_of_a_pipe_is_found_and_polled_no_more() {
        let mut fixture = Fixture::new();
        fixture.program.write_all(b"last words").unwrap();
        drop(std::mem::replace(
            &mut fixture.program,
            std::io::pipe().unwrap().1,
        ));
        fixture.pump(Instant::now(), None);
        assert!(fixture.output.ended());
        assert_eq!(fixture.reader.head(), 10);
        let mut events = [EpollEvent::empty(); 4];
        assert_eq!(fixture.epoll.wait(&mut events, 0_u8), Ok(0));
    }
}
