//! Random tokens and ids, from the kernel.

use std::fmt::Write;

/// 32 random bytes as 64 hexadecimal digits: what cannot be guessed.
#[must_use]
pub fn token() -> String {
    hex(&bytes::<32>())
}

/// Eight hexadecimal digits, for names that need not be secret.
#[must_use]
pub fn short() -> String {
    hex(&bytes::<4>())
}

/// Any number, evenly drawn.
#[must_use]
pub fn number() -> u32 {
    u32::from_ne_bytes(bytes::<4>())
}

/// A version 4 UUID (RFC 9562).
#[must_use]
pub fn uuid() -> String {
    let mut bytes = bytes::<16>();
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
    *version = (*version & 0x0f) | 0x40;
    *variant = (*variant & 0x3f) | 0x80;
    let digits = hex(&bytes);
    let part = |range: std::ops::Range<usize>| digits.get(range).unwrap_or_default().to_owned();
    [
        part(0..8),
        part(8..12),
        part(12..16),
        part(16..20),
        part(20..32),
    ]
    .join("-")
}

/// The kernel has no other answer than random bytes once it is up (getrandom(2)); if it refuses, nothing that needs
/// them may go on.
#[expect(
    clippy::expect_used,
    reason = "a token that can be guessed is worse than no supervisor"
)]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("getrandom(2) fails only before the kernel is up");
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn shapes() {
        let uuid = super::uuid();
        assert_eq!(uuid.len(), 36);
        assert_eq!(uuid.as_bytes()[14], b'4');
        assert!(matches!(uuid.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        assert_eq!(super::token().len(), 64);
        assert_ne!(super::token(), super::token());
    }
}
