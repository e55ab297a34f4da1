//! What keeper and holder say to each other, as packets on a socket of their own. Both are always the same build.

use crate::spawn::SpawnError;
use crate::wire::{Channel, CodecError, Decoder, Encoder, Packet};

/// To the holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToHolder {
    /// To the leader, or to its process group.
    Signal { signal: i32, group: bool },
    /// End everything: TERM, at most `grace_ms`, KILL.
    End { grace_ms: u64 },
}

/// From the holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FromHolder {
    /// The leader's exec succeeded.
    Started { pid: i32 },
    /// It could not be started; nothing else follows.
    Failed(SpawnError),
    /// The leader ended, with its raw wait status.
    Exited { status: i32 },
    /// Nothing is left; nothing else follows.
    Gone,
}

pub(crate) type HolderChannel = Channel<FromHolder, ToHolder>;
pub(crate) type HolderHandle = Channel<ToHolder, FromHolder>;

impl Packet for ToHolder {
    fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let mut e = Encoder::new();
        match self {
            Self::Signal { signal, group } => {
                e.u8(1);
                e.i32(*signal);
                e.bool(*group);
            }
            Self::End { grace_ms } => {
                e.u8(2);
                e.u64(*grace_ms);
            }
        }
        Ok(e.finish())
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut d = Decoder::new(bytes);
        let message = match d.u8("kind")? {
            1 => Self::Signal {
                signal: d.i32("signal")?,
                group: d.bool("group")?,
            },
            2 => Self::End {
                grace_ms: d.u64("grace")?,
            },
            kind => return Err(CodecError::UnknownKind { kind }),
        };
        d.finish()?;
        Ok(message)
    }
}

impl Packet for FromHolder {
    fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let mut e = Encoder::new();
        match self {
            Self::Started { pid } => {
                e.u8(1);
                e.i32(*pid);
            }
            Self::Failed(error) => {
                e.u8(2);
                e.bytes("error", &error.to_bytes(), 5)?;
            }
            Self::Exited { status } => {
                e.u8(3);
                e.i32(*status);
            }
            Self::Gone => e.u8(4),
        }
        Ok(e.finish())
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut d = Decoder::new(bytes);
        let message = match d.u8("kind")? {
            1 => Self::Started { pid: d.i32("pid")? },
            2 => {
                let error = d
                    .bytes("error", 5)?
                    .try_into()
                    .map_err(|_| CodecError::Truncated { field: "error" })?;
                Self::Failed(SpawnError::from_bytes(error))
            }
            3 => Self::Exited {
                status: d.i32("status")?,
            },
            4 => Self::Gone,
            kind => return Err(CodecError::UnknownKind { kind }),
        };
        d.finish()?;
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;
    use crate::spawn::Step;

    #[test]
    fn every_message_survives() {
        for message in [
            ToHolder::Signal {
                signal: 15,
                group: true,
            },
            ToHolder::End { grace_ms: u64::MAX },
        ] {
            assert_eq!(ToHolder::decode(&message.encode().unwrap()), Ok(message));
        }
        for message in [
            FromHolder::Started { pid: 7 },
            FromHolder::Failed(SpawnError::new(Step::Directory, Errno::ENOTDIR)),
            FromHolder::Exited { status: 9 },
            FromHolder::Gone,
        ] {
            assert_eq!(FromHolder::decode(&message.encode().unwrap()), Ok(message));
        }
    }
}
