//! What an epoll event is about.

/// Kind in the upper half, slot of the process in the lower one. A slot that was reused since makes an event spurious,
/// never wrong: every handler finds out for itself, without blocking, what there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Signals,
    Supervisor,
    SupervisorStart,
    Start(u32),
    Holder(u32),
    /// Output that can be read: 0 terminal or standard output, 1 standard error.
    Output(u32, u8),
    /// Room in the ring of that output.
    Space(u32, u8),
}

impl Token {
    pub(super) fn encode(self) -> u64 {
        let (kind, slot) = match self {
            Self::Signals => (0, 0),
            Self::Supervisor => (1, 0),
            Self::SupervisorStart => (2, 0),
            Self::Start(slot) => (3, slot),
            Self::Holder(slot) => (4, slot),
            Self::Output(slot, stream) => (8 + u64::from(stream & 1), slot),
            Self::Space(slot, stream) => (10 + u64::from(stream & 1), slot),
        };
        kind << 32 | u64::from(slot)
    }

    pub(super) fn decode(value: u64) -> Option<Self> {
        let slot = u32::try_from(value & u64::from(u32::MAX)).ok()?;
        Some(match value >> 32 {
            0 => Self::Signals,
            1 => Self::Supervisor,
            2 => Self::SupervisorStart,
            3 => Self::Start(slot),
            4 => Self::Holder(slot),
            8 => Self::Output(slot, 0),
            9 => Self::Output(slot, 1),
            10 => Self::Space(slot, 0),
            11 => Self::Space(slot, 1),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_survives() {
        let tokens = [
            Token::Signals,
            Token::Supervisor,
            Token::SupervisorStart,
            Token::Start(3),
            Token::Holder(u32::MAX),
            Token::Output(5, 0),
            Token::Output(5, 1),
            Token::Space(6, 0),
            Token::Space(6, 1),
        ];
        for token in tokens {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
        assert_eq!(Token::decode(u64::MAX), None);
    }
}
