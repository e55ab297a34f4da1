//! Where a long string ends: most of the bytes that pass are looked at here and nowhere else.

/// Whether an odd number of backslashes stands before a place.
pub(super) fn is_escaped(input: &[u8], at: usize) -> bool {
    let before = input.get(..at).unwrap_or_default().iter().rev();
    before.take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// Bytes that are looked at together in a string.
const BLOCK: usize = 64;

/// Where the first quotation mark stands that is not escaped.
///
/// Prompts are full of escaped marks (code, schemas), so stopping at each costs more than the bytes themselves. A block
/// is passed over when each of its marks follows one backslash that follows none: eight bytes are asked that at a time.
pub(super) fn end_of_text(input: &[u8]) -> Option<usize> {
    let mut at = 0_usize;
    loop {
        // Each byte is judged with the two before it.
        while let Some(from) = at.checked_sub(2)
            && let Some(block) = input.get(from..at + BLOCK)
            && is_passed_over(block)
        {
            at += BLOCK;
        }
        let to = input.len().min(at + BLOCK);
        let mut marks = memchr::memchr_iter(b'"', input.get(at..to)?).map(|mark| at + mark);
        if let Some(end) = marks.find(|mark| !is_escaped(input, *mark)) {
            return Some(end);
        }
        if to == input.len() {
            return None;
        }
        at = to;
    }
}

/// Whether every mark behind the first two bytes follows exactly one backslash.
fn is_passed_over(block: &[u8]) -> bool {
    let words = |from: usize| block.get(from..).unwrap_or_default().as_chunks::<8>().0;
    let ends = words(2).iter().zip(words(1)).zip(words(0));
    { ends }.all(|((text, before), further)| {
        let marks = places(*text, b'"');
        marks == 0 || marks & (!places(*before, b'\\') | places(*further, b'\\')) == 0
    })
}

/// The highest bit of each byte that is the wanted one. By hand, so that it is quick at every level of
/// optimisation: below the highest a loop over bytes stays one.
fn places(word: [u8; 8], wanted: u8) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const LOW: u64 = 0x7f * EACH;
    let differing = u64::from_le_bytes(word) ^ (EACH * u64::from(wanted));
    // Of a byte that differs, the sum has its highest bit or the byte itself has; no sum reaches the next byte.
    !(((differing & LOW) + LOW) | differing | LOW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same, escape by escape.
    fn end_of_text_slowly(input: &[u8]) -> Option<usize> {
        let mut escaped = false;
        input.iter().position(|byte| {
            let end = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            end
        })
    }

    proptest! {
        #[test]
        fn a_long_text_ends_where_its_escapes_say(
            pieces in prop::collection::vec("[a-z]{0,90}|\\\\{1,5}|\"", 0..40),
        ) {
            let text = pieces.concat();
            prop_assert_eq!(end_of_text(text.as_bytes()), end_of_text_slowly(text.as_bytes()), "{}", text);
        }
    }
}
