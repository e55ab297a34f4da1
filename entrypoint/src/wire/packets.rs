//! [`ToKeeper`] and [`FromKeeper`] as packets: a kind byte, then the fields in the order of their declaration.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::codec::{CodecError, Decoder, Encoder};
use super::message::{FromKeeper, MAX_PACKET, ProcessId, Streams, ToKeeper};
use super::{MAX_NAME, MAX_PATH, MAX_TEXT};

/// A message that fits a packet of [`MAX_PACKET`] bytes.
pub trait Packet: Sized {
    /// # Errors
    /// [`CodecError::TooLong`] when a field or the packet runs into its bound.
    fn encode(&self) -> Result<Vec<u8>, CodecError>;

    /// # Errors
    /// Any [`CodecError`]; [`CodecError::UnknownKind`] means a newer peer.
    fn decode(bytes: &[u8]) -> Result<Self, CodecError>;
}

fn bounded(encoder: Encoder) -> Result<Vec<u8>, CodecError> {
    let bytes = encoder.finish();
    if bytes.len() > MAX_PACKET {
        return Err(CodecError::TooLong {
            field: "packet",
            length: bytes.len(),
            bound: MAX_PACKET,
        });
    }
    Ok(bytes)
}

fn process(decoder: &mut Decoder<'_>) -> Result<ProcessId, CodecError> {
    decoder.u64("process").map(ProcessId)
}

fn encode_streams(encoder: &mut Encoder, streams: Streams) {
    encoder.u8(match streams {
        Streams::Terminal => 0,
        Streams::Pipes { stdin: false } => 1,
        Streams::Pipes { stdin: true } => 2,
        Streams::None => 3,
    });
}

fn decode_streams(decoder: &mut Decoder<'_>) -> Result<Streams, CodecError> {
    match decoder.u8("streams")? {
        0 => Ok(Streams::Terminal),
        1 => Ok(Streams::Pipes { stdin: false }),
        2 => Ok(Streams::Pipes { stdin: true }),
        3 => Ok(Streams::None),
        _ => Err(CodecError::Invalid { field: "streams" }),
    }
}

impl Packet for ToKeeper {
    fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let mut e = Encoder::new();
        match self {
            Self::Ready => e.u8(1),
            Self::Grace { milliseconds } => {
                e.u8(2);
                e.u64(*milliseconds);
            }
            Self::Spawn { process, name } => {
                e.u8(3);
                e.u64(process.0);
                e.bytes("name", name.as_bytes(), MAX_NAME)?;
            }
            Self::Signal {
                process,
                signal,
                tree,
            } => {
                e.u8(4);
                e.u64(process.0);
                e.i32(*signal);
                e.bool(*tree);
            }
            Self::End { process, grace_ms } => {
                e.u8(5);
                e.u64(process.0);
                e.u64(*grace_ms);
            }
            Self::Acknowledge { process } => {
                e.u8(6);
                e.u64(process.0);
            }
            Self::Hold { name } => {
                e.u8(7);
                e.bytes("name", name.as_bytes(), MAX_NAME)?;
            }
            Self::Release { name } => {
                e.u8(8);
                e.bytes("name", name.as_bytes(), MAX_NAME)?;
            }
            Self::Exit { code } => {
                e.u8(9);
                e.u8(*code);
            }
            Self::Upgrade { path } => {
                e.u8(10);
                e.bytes("path", path.as_os_str().as_bytes(), MAX_PATH)?;
            }
            Self::Flushed => e.u8(11),
        }
        bounded(e)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut d = Decoder::new(bytes);
        let message = match d.u8("kind")? {
            1 => Self::Ready,
            2 => Self::Grace {
                milliseconds: d.u64("grace")?,
            },
            3 => Self::Spawn {
                process: process(&mut d)?,
                name: d.text("name", MAX_NAME)?,
            },
            4 => Self::Signal {
                process: process(&mut d)?,
                signal: d.i32("signal")?,
                tree: d.bool("tree")?,
            },
            5 => Self::End {
                process: process(&mut d)?,
                grace_ms: d.u64("grace")?,
            },
            6 => Self::Acknowledge {
                process: process(&mut d)?,
            },
            7 => Self::Hold {
                name: d.text("name", MAX_NAME)?,
            },
            8 => Self::Release {
                name: d.text("name", MAX_NAME)?,
            },
            9 => Self::Exit {
                code: d.u8("code")?,
            },
            10 => Self::Upgrade {
                path: PathBuf::from(OsStr::from_bytes(d.bytes("path", MAX_PATH)?)),
            },
            11 => Self::Flushed,
            kind => return Err(CodecError::UnknownKind { kind }),
        };
        d.finish()?;
        Ok(message)
    }
}

impl Packet for FromKeeper {
    fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let mut e = Encoder::new();
        match self {
            Self::Hello {
                version,
                keeper_pid,
                restarts,
                reason,
                reaps,
                started_ms,
            } => {
                e.u8(1);
                e.u32(*version);
                e.i32(*keeper_pid);
                e.u32(*restarts);
                e.bytes("reason", reason.as_bytes(), MAX_TEXT)?;
                e.bool(*reaps);
                e.u64(*started_ms);
            }
            Self::Held { name } => {
                e.u8(2);
                e.bytes("name", name.as_bytes(), MAX_NAME)?;
            }
            Self::Process {
                process,
                name,
                pid,
                streams,
                status,
                gone,
            } => {
                e.u8(3);
                e.u64(process.0);
                e.bytes("name", name.as_bytes(), MAX_NAME)?;
                e.i32(*pid);
                encode_streams(&mut e, *streams);
                e.option_i32(*status);
                e.bool(*gone);
            }
            Self::InventoryEnd => e.u8(4),
            Self::Spawned {
                process,
                pid,
                streams,
            } => {
                e.u8(5);
                e.u64(process.0);
                e.i32(*pid);
                encode_streams(&mut e, *streams);
            }
            Self::SpawnFailed {
                process,
                step,
                errno,
            } => {
                e.u8(6);
                e.u64(process.0);
                e.bytes("step", step.as_bytes(), MAX_TEXT)?;
                e.i32(*errno);
            }
            Self::Exited { process, status } => {
                e.u8(7);
                e.u64(process.0);
                e.i32(*status);
            }
            Self::Gone { process } => {
                e.u8(8);
                e.u64(process.0);
            }
            Self::Stopping {
                signal,
                deadline_ms,
            } => {
                e.u8(9);
                e.i32(*signal);
                e.u64(*deadline_ms);
            }
            Self::Refused { what } => {
                e.u8(10);
                e.bytes("what", what.as_bytes(), MAX_TEXT)?;
            }
        }
        bounded(e)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut d = Decoder::new(bytes);
        let message = match d.u8("kind")? {
            1 => Self::Hello {
                version: d.u32("version")?,
                keeper_pid: d.i32("pid")?,
                restarts: d.u32("restarts")?,
                reason: d.text("reason", MAX_TEXT)?,
                reaps: d.bool("reaps")?,
                started_ms: d.u64("started")?,
            },
            2 => Self::Held {
                name: d.text("name", MAX_NAME)?,
            },
            3 => Self::Process {
                process: process(&mut d)?,
                name: d.text("name", MAX_NAME)?,
                pid: d.i32("pid")?,
                streams: decode_streams(&mut d)?,
                status: d.option_i32("status")?,
                gone: d.bool("gone")?,
            },
            4 => Self::InventoryEnd,
            5 => Self::Spawned {
                process: process(&mut d)?,
                pid: d.i32("pid")?,
                streams: decode_streams(&mut d)?,
            },
            6 => Self::SpawnFailed {
                process: process(&mut d)?,
                step: d.text("step", MAX_TEXT)?,
                errno: d.i32("errno")?,
            },
            7 => Self::Exited {
                process: process(&mut d)?,
                status: d.i32("status")?,
            },
            8 => Self::Gone {
                process: process(&mut d)?,
            },
            9 => Self::Stopping {
                signal: d.i32("signal")?,
                deadline_ms: d.u64("deadline")?,
            },
            10 => Self::Refused {
                what: d.text("what", MAX_TEXT)?,
            },
            kind => return Err(CodecError::UnknownKind { kind }),
        };
        d.finish()?;
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn to_keeper() -> impl Strategy<Value = ToKeeper> {
        let id = any::<u64>().prop_map(ProcessId);
        prop_oneof![
            Just(ToKeeper::Ready),
            any::<u64>().prop_map(|milliseconds| ToKeeper::Grace { milliseconds }),
            (id.clone(), "\\PC{0,60}")
                .prop_map(|(process, name)| ToKeeper::Spawn { process, name }),
            (id.clone(), any::<i32>(), any::<bool>()).prop_map(|(process, signal, tree)| {
                ToKeeper::Signal {
                    process,
                    signal,
                    tree,
                }
            }),
            (id.clone(), any::<u64>())
                .prop_map(|(process, grace_ms)| ToKeeper::End { process, grace_ms }),
            id.prop_map(|process| ToKeeper::Acknowledge { process }),
            "\\PC{0,60}".prop_map(|name| ToKeeper::Hold { name }),
            "\\PC{0,60}".prop_map(|name| ToKeeper::Release { name }),
            any::<u8>().prop_map(|code| ToKeeper::Exit { code }),
            proptest::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| ToKeeper::Upgrade {
                path: PathBuf::from(OsStr::from_bytes(&bytes))
            }),
            Just(ToKeeper::Flushed),
        ]
    }

    fn streams() -> impl Strategy<Value = Streams> {
        prop_oneof![
            Just(Streams::Terminal),
            any::<bool>().prop_map(|stdin| Streams::Pipes { stdin }),
            Just(Streams::None),
        ]
    }

    fn from_keeper() -> impl Strategy<Value = FromKeeper> {
        let id = any::<u64>().prop_map(ProcessId);
        prop_oneof![
            (
                any::<u32>(),
                any::<i32>(),
                any::<u32>(),
                "\\PC{0,60}",
                any::<bool>(),
                any::<u64>()
            )
                .prop_map(
                    |(version, keeper_pid, restarts, reason, reaps, started_ms)| {
                        FromKeeper::Hello {
                            version,
                            keeper_pid,
                            restarts,
                            reason,
                            reaps,
                            started_ms,
                        }
                    }
                ),
            "\\PC{0,60}".prop_map(|name| FromKeeper::Held { name }),
            (
                id.clone(),
                "\\PC{0,60}",
                any::<i32>(),
                streams(),
                any::<Option<i32>>(),
                any::<bool>()
            )
                .prop_map(|(process, name, pid, streams, status, gone)| {
                    FromKeeper::Process {
                        process,
                        name,
                        pid,
                        streams,
                        status,
                        gone,
                    }
                }),
            Just(FromKeeper::InventoryEnd),
            (id.clone(), any::<i32>(), streams()).prop_map(|(process, pid, streams)| {
                FromKeeper::Spawned {
                    process,
                    pid,
                    streams,
                }
            }),
            (id.clone(), "[a-z]{0,20}", any::<i32>()).prop_map(|(process, step, errno)| {
                FromKeeper::SpawnFailed {
                    process,
                    step,
                    errno,
                }
            }),
            (id.clone(), any::<i32>())
                .prop_map(|(process, status)| FromKeeper::Exited { process, status }),
            id.prop_map(|process| FromKeeper::Gone { process }),
            (any::<i32>(), any::<u64>()).prop_map(|(signal, deadline_ms)| FromKeeper::Stopping {
                signal,
                deadline_ms
            }),
            "\\PC{0,60}".prop_map(|what| FromKeeper::Refused { what }),
        ]
    }

    proptest! {
        #[test]
        fn requests_survive_the_wire(message in to_keeper()) {
            prop_assert_eq!(ToKeeper::decode(&message.encode().unwrap()).unwrap(), message);
        }

        #[test]
        fn reports_survive_the_wire(message in from_keeper()) {
            prop_assert_eq!(FromKeeper::decode(&message.encode().unwrap()).unwrap(), message);
        }

        #[test]
        fn a_cut_message_is_an_error(message in from_keeper(), keep in 0.0..1.0f64) {
            let bytes = message.encode().unwrap();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a share of a small length")]
            let keep = (bytes.len() as f64 * keep) as usize;
            prop_assert!(FromKeeper::decode(&bytes[..keep]).is_err());
        }

        #[test]
        fn garbage_is_an_error_or_a_message_that_encodes_to_itself(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(message) = ToKeeper::decode(&bytes) {
                prop_assert_eq!(message.encode().unwrap(), bytes.clone());
            }
            if let Ok(message) = FromKeeper::decode(&bytes) {
                prop_assert_eq!(message.encode().unwrap(), bytes);
            }
        }
    }

    #[test]
    fn a_kind_of_a_newer_peer_is_told_apart_from_garbage() {
        assert_eq!(
            ToKeeper::decode(&[200]),
            Err(CodecError::UnknownKind { kind: 200 })
        );
        assert_eq!(
            ToKeeper::decode(&[]),
            Err(CodecError::Truncated { field: "kind" })
        );
        assert_eq!(
            ToKeeper::decode(&[1, 0]),
            Err(CodecError::Trailing { length: 1 })
        );
    }

    #[test]
    fn a_name_over_its_bound_is_refused() {
        let name = "n".repeat(MAX_NAME + 1);
        assert!(matches!(
            ToKeeper::Hold { name }.encode(),
            Err(CodecError::TooLong { field: "name", .. })
        ));
    }
}
