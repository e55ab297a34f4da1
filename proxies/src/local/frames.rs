//! Does a tunnel carry something a person does, or bare pings? WebSocket frames are followed, not changed.
//!
//! Control frames (RFC 6455 §5.5) do not count, and neither do the short texts with which development servers and their
//! clients ping each other (Vite `{"type":"ping"}`, Next `{"event":"ping"}`, SockJS heartbeats). A compressed short
//! frame cannot be told from a ping and does not count either. Bytes that are no WebSocket all count.

/// Longest payload that may be an application's own ping.
const SHORT: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Collecting a header of up to 14 bytes.
    Header,
    Payload {
        left: u64,
        is_short: bool,
    },
}

/// Follows one direction.
#[derive(Clone, Debug)]
pub(crate) struct Frames {
    is_websocket: bool,
    state: State,
    /// The header so far, then the short payload.
    held: [u8; 14],
    filled: u8,
    mask: [u8; 4],
    text: [u8; SHORT],
    text_length: u8,
}

impl Frames {
    pub(crate) fn new(is_websocket: bool) -> Self {
        Self {
            is_websocket,
            state: State::Header,
            held: [0; 14],
            filled: 0,
            mask: [0; 4],
            text: [0; SHORT],
            text_length: 0,
        }
    }

    /// Takes the next bytes; true if they carry more than pings.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> bool {
        if !self.is_websocket {
            return !bytes.is_empty();
        }
        let mut counts = false;
        while let Some((first, rest)) = bytes.split_first() {
            match &mut self.state {
                State::Header => {
                    if let Some(slot) = self.held.get_mut(usize::from(self.filled)) {
                        *slot = *first;
                    }
                    self.filled += 1;
                    bytes = rest;
                    counts |= self.header();
                }
                State::Payload { left, is_short } => {
                    let taken =
                        usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    let (part, after) = bytes.split_at(taken);
                    if *is_short {
                        for byte in part {
                            let at = usize::from(self.text_length);
                            if let (Some(slot), Some(mask)) =
                                (self.text.get_mut(at), self.mask.get(at % 4))
                            {
                                *slot = byte ^ mask;
                                self.text_length += 1;
                            }
                        }
                    }
                    *left -= taken as u64;
                    bytes = after;
                    if *left == 0 {
                        counts |= *is_short && self.is_news();
                        self.state = State::Header;
                        self.filled = 0;
                    }
                }
            }
        }
        counts
    }

    /// Looks whether the header is complete; true if its frame counts whatever it contains.
    fn header(&mut self) -> bool {
        let [first, second, ..] = self.held;
        let extended: u8 = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let is_masked = second & 0x80 != 0;
        let length = 2 + extended + if is_masked { 4 } else { 0 };
        if self.filled < 2 || self.filled < length {
            return false;
        }
        let size = match extended {
            0 => u64::from(second & 0x7f),
            _ => self
                .held
                .iter()
                .skip(2)
                .take(usize::from(extended))
                .fold(0, |size, byte| size << 8 | u64::from(*byte)),
        };
        self.mask = [0; 4];
        if is_masked {
            for (to, from) in self
                .mask
                .iter_mut()
                .zip(self.held.iter().skip(usize::from(2 + extended)))
            {
                *to = *from;
            }
        }
        let is_control = first & 0x08 != 0;
        let is_compressed = first & 0x40 != 0;
        let is_short = !is_control && !is_compressed && size <= SHORT as u64;
        self.text_length = 0;
        self.filled = 0;
        if size > 0 {
            self.state = State::Payload {
                left: size,
                is_short,
            };
        }
        !is_control && size > SHORT as u64
    }

    fn is_news(&self) -> bool {
        let text = self
            .text
            .get(..usize::from(self.text_length))
            .unwrap_or_default();
        let lower = text.to_ascii_lowercase();
        let pings = [&b"ping"[..], b"pong", b"heartbeat"]
            .iter()
            .any(|word| super::head::contains(&lower, word));
        // Socket.IO's 2 and 3, SockJS's h.
        !pings && !matches!(text, b"" | b"2" | b"3" | b"h")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
        let mut out = vec![0x80 | opcode];
        let bit = if mask.is_some() { 0x80 } else { 0 };
        match payload.len() {
            length @ 0..=125 => out.push(bit | u8::try_from(length).unwrap()),
            length @ 126..=65535 => {
                out.push(bit | 126);
                out.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                out.push(bit | 127);
                out.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        let key = mask.unwrap_or_default();
        out.extend(mask.into_iter().flatten());
        out.extend(
            payload
                .iter()
                .enumerate()
                .map(|(at, byte)| byte ^ key[at % 4]),
        );
        out
    }

    #[test]
    fn pings_are_no_traffic_and_everything_else_is() {
        let long = vec![b'x'; 70_000];
        for (opcode, payload, expected) in [
            (9, &b"anything"[..], false),
            (10, b"", false),
            (8, b"\x03\xe8", false),
            (1, br#"{"type":"ping"}"#, false),
            (1, br#"{"event":"ping","tree":[]}"#, false),
            (1, b"2", false),
            (1, br#"{"type":"update"}"#, true),
            (2, b"\x00\x01", true),
            (1, &long[..100], true),
            (1, &long[..300], true),
            (2, &long, true),
        ] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let mut frames = Frames::new(true);
                assert_eq!(
                    frames.feed(&frame(opcode, payload, mask)),
                    expected,
                    "{opcode}"
                );
                assert_eq!(frames.state, State::Header);
            }
        }
        assert!(Frames::new(false).feed(b"\x89\x00"));
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(cuts in proptest::collection::vec(0usize..700, 0..10), masked in any::<bool>()) {
            let mask = masked.then_some([9, 8, 7, 6]);
            let mut bytes = frame(9, b"p", mask);
            bytes.extend(frame(1, br#"{"type":"ping"}"#, mask));
            bytes.extend(frame(10, &[b'x'; 125], mask));
            let quiet = bytes.len();
            bytes.extend(frame(1, &[b'y'; 400], mask));
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([quiet, bytes.len()]);
            cuts.sort_unstable();
            let (mut frames, mut start, mut first) = (Frames::new(true), 0, None);
            for cut in cuts {
                if frames.feed(&bytes[start..cut]) { first.get_or_insert(cut); }
                start = cut;
            }
            prop_assert!(first.unwrap() > quiet);
            prop_assert_eq!(frames.state, State::Header);
        }
    }
}
