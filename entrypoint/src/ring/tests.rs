use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proptest::prelude::*;

use super::*;

fn ring(capacity: u64) -> (RingWriter, RingReader) {
    let writer = RingWriter::new("test", capacity).unwrap();
    let [memory, data, space] = writer
        .descriptors()
        .map(|fd| fd.try_clone_to_owned().unwrap());
    let reader = RingReader::new(&memory, data, space).unwrap();
    (writer, reader)
}

fn byte(offset: u64) -> u8 {
    (offset % 251) as u8
}

fn pattern(start: u64, length: u64) -> Vec<u8> {
    (start..start + length).map(byte).collect()
}

fn readable(fd: impl AsFd) -> bool {
    poll(
        &mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)],
        PollTimeout::ZERO,
    )
    .unwrap()
        == 1
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64),
    Discard(u64),
    Read { back: u64, max: usize },
    Acknowledge(u64),
    ReplaceReader,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..9000_u64).prop_map(Step::Write),
        1 => (0..9000_u64).prop_map(Step::Discard),
        4 => (0..9000_u64, 0..9000_usize).prop_map(|(back, max)| Step::Read { back, max }),
        2 => (0..5000_u64).prop_map(Step::Acknowledge),
        1 => Just(Step::ReplaceReader),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    /// A model of the ring in plain numbers, against random operations.
    #[test]
    fn every_unacknowledged_byte_is_there_until_it_is_given_up(steps in steps()) {
        const CAPACITY: u64 = 8192;
        let (mut writer, mut reader) = ring(CAPACITY);
        let (mut head, mut tail, mut lost) = (0_u64, 0_u64, 0_u64);
        for step in steps {
            match step {
                Step::Write(length) => {
                    let room = CAPACITY - (head - tail);
                    prop_assert_eq!(writer.room(), room);
                    let written = writer.write(&pattern(head, length)).unwrap() as u64;
                    prop_assert_eq!(written, length.min(room));
                    head += written;
                }
                Step::Discard(length) => {
                    let missing = length.min(CAPACITY).saturating_sub(CAPACITY - (head - tail));
                    writer.make_room(length);
                    tail += missing;
                    lost += missing;
                    prop_assert_eq!(reader.lost(), lost);
                }
                Step::Read { back, max } => {
                    let offset = head.saturating_sub(back);
                    let mut bytes = Vec::new();
                    let outcome = reader.read_from(offset, &mut bytes, max);
                    prop_assert_eq!(outcome.start, offset.max(head.saturating_sub(CAPACITY)));
                    prop_assert_eq!(outcome.skipped, outcome.start - offset);
                    prop_assert_eq!(outcome.length as u64, (head - outcome.start).min(max as u64));
                    prop_assert_eq!(&bytes, &pattern(outcome.start, outcome.length as u64));
                }
                Step::Acknowledge(ahead) => {
                    let offset = reader.acknowledged() + ahead;
                    reader.acknowledge(offset).unwrap();
                    tail = tail.max(offset.min(head));
                }
                Step::ReplaceReader => {
                    let [memory, data, space] = writer.descriptors().map(|fd| fd.try_clone_to_owned().unwrap());
                    reader = RingReader::new(&memory, data, space).unwrap();
                }
            }
            prop_assert_eq!(reader.head(), head);
            prop_assert_eq!(writer.acknowledged(), tail);
        }
    }

    /// Whatever numbers a broken peer leaves in the header, nothing panics and nothing outside the ring is read.
    #[test]
    fn wild_numbers_in_shared_memory_do_no_harm(values in any::<[u64; 4]>(), offset in any::<u32>(), max in 0..20_000_usize) {
        let (mut writer, reader) = ring(4096);
        writer.write(&pattern(0, 100)).unwrap();
        let [memory, ..] = writer.descriptors();
        for (index, value) in [0, 1, 2, 4].into_iter().zip(values) {
            nix::sys::uio::pwrite(memory, &(value >> 1).to_ne_bytes(), index * 8).unwrap();
        }
        let mut bytes = Vec::new();
        let outcome = reader.read_from(u64::from(offset), &mut bytes, max);
        prop_assert!(bytes.len() <= 4096 && outcome.length == bytes.len());
        reader.acknowledge(u64::from(offset)).unwrap();
        prop_assert!(writer.room() <= 4096);
        writer.make_room(10);
        prop_assert_eq!(writer.write(b"0123456789").unwrap(), 10);
    }
}

#[test]
fn a_waiting_writer_is_woken_by_an_acknowledgement_and_only_then() {
    let (mut writer, reader) = ring(4096);
    writer.write(&pattern(0, 4096)).unwrap();
    reader.acknowledge(1).unwrap();
    assert!(
        !readable(writer.space_fd()),
        "nobody waits, so nobody is woken"
    );
    writer.write(&pattern(4096, 1)).unwrap();
    assert!(writer.wait_for_room());
    assert!(!readable(writer.space_fd()));
    reader.acknowledge(100).unwrap();
    assert!(readable(writer.space_fd()));
    writer.woken();
    assert!(!readable(writer.space_fd()));
    assert_eq!(writer.room(), 99);
    assert!(
        !writer.wait_for_room(),
        "there is room, so there is nothing to wait for"
    );
}

#[test]
fn the_reader_is_woken_by_output() {
    let (mut writer, reader) = ring(4096);
    assert!(!readable(reader.data_fd()));
    writer.write(b"output").unwrap();
    writer.publish();
    assert!(readable(reader.data_fd()));
    reader.clear_data().unwrap();
    assert!(!readable(reader.data_fd()));
}

#[test]
fn memory_that_could_shrink_under_the_reader_is_refused() {
    let (writer, _reader) = ring(4096);
    let [_, data, space] = writer
        .descriptors()
        .map(|fd| fd.try_clone_to_owned().unwrap());
    let unsealed =
        nix::sys::memfd::memfd_create("test", nix::sys::memfd::MFdFlags::MFD_ALLOW_SEALING)
            .unwrap();
    nix::unistd::ftruncate(&unsealed, 100_000).unwrap();
    let unsealed: OwnedFd = unsealed;
    assert!(RingReader::new(&unsealed, data, space).is_err());
}

/// A reader that copies while the writer overtakes it: what it is given was not overwritten meanwhile.
#[test]
fn overtaken_bytes_are_skipped_and_never_torn() {
    const TOTAL: u64 = 20_000_000;
    let (mut writer, reader) = ring(8192);
    let writing = std::thread::spawn(move || {
        while writer.head() < TOTAL {
            writer.make_room(3000);
            writer.write(&pattern(writer.head(), 3000)).unwrap();
        }
    });
    let mut offset = 0;
    let mut given = 0;
    let mut bytes = Vec::new();
    while offset < TOTAL {
        bytes.clear();
        let outcome = reader.read_from(offset, &mut bytes, usize::MAX);
        assert!(outcome.start >= offset);
        let wrong = bytes
            .iter()
            .zip(outcome.start..)
            .find(|(found, at)| **found != byte(*at));
        assert_eq!(wrong, None, "torn at {outcome:?}");
        given += outcome.length;
        offset = outcome.end();
    }
    writing.join().unwrap();
    assert!(given > 0);
}
