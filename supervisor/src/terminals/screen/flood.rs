//! What of a large run of plain text can still be seen at its end.
//!
//! The rule: let a run consist of printable bytes, tabs, carriage returns and line feeds only, let it begin outside any
//! sequence, and let its tail (from behind some CR LF to its end) contain at least [`MAX_LINES`] + rows line
//! feeds. Then feeding the tail alone leaves the same screen and scrollback as feeding all of it: nothing in the run
//! changes pen, modes, margins or character sets; the tail starts in column 0 either way; so many line feeds replace
//! every row that the run could touch and every line of scrollback; and the last of them end in the same row.

use super::scrollback::MAX_LINES;

/// Runs shorter than this are fed as they are: looking for a tail would cost more than it saves.
pub(super) const WORTHWHILE: usize = 256 * 1024;

/// The part of `bytes` that must be fed, when less than all of it.
pub(super) fn visible_part(bytes: &[u8], at_rest: bool, rows: u16) -> Option<&[u8]> {
    if !at_rest || bytes.len() < WORTHWHILE {
        return None;
    }
    let plain = plain_length(bytes);
    let run = bytes.get(..plain)?;
    let wanted = MAX_LINES + usize::from(rows) + 1;
    let cut = memchr::memrchr_iter(b'\n', run)
        .skip(wanted)
        .find(|end| end.checked_sub(1).and_then(|before| run.get(before)) == Some(&b'\r'))?;
    bytes.get(cut + 1..)
}

/// How many leading bytes are plain in the sense of the rule. Bytes from 0x80 on are left out: a
/// character of unknown width, or a combining mark, may hang on what came before.
fn plain_length(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (number, word) in words.iter().enumerate() {
        // Line ends are the only controls of most words that have any.
        if !is_printable(*word)
            && let Some(end) = word.iter().position(|byte| !is_plain(*byte))
        {
            return number * 8 + end;
        }
    }
    let end = rest.iter().position(|byte| !is_plain(*byte));
    words.len() * 8 + end.unwrap_or(rest.len())
}

/// Whether all eight bytes are from 0x20 to 0x7e: floods are looked through whole, and a byte at a time that costs more
/// than what it saves.
fn is_printable(word: [u8; 8]) -> bool {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * EACH;
    let word = u64::from_le_bytes(word);
    // No byte has its highest bit, so no sum or difference reaches the next byte.
    word & HIGH == 0 && ((word | HIGH) - 0x20 * EACH) & (!(word + EACH)) & HIGH == HIGH
}

fn is_plain(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) | matches!(byte, b'\n' | b'\r' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: usize) -> Vec<u8> {
        (0..count)
            .flat_map(|number| format!("line {number} of a flood\r\n").into_bytes())
            .collect()
    }

    #[test]
    fn keeps_enough_lines() {
        let flood = lines(100_000);
        let part = visible_part(&flood, true, 24).unwrap();
        let kept = memchr::memchr_iter(b'\n', part).count();
        assert_eq!(kept, MAX_LINES + 24 + 1);
        assert!(
            visible_part(&flood, false, 24).is_none(),
            "inside a sequence nothing may go"
        );
    }

    #[test]
    fn every_byte_is_told_apart_at_every_place() {
        for byte in 0..=u8::MAX {
            let plain = matches!(byte, 0x20..=0x7e | b'\n' | b'\r' | b'\t');
            for place in 0..20 {
                let mut run = [b'a'; 20];
                run[place] = byte;
                assert_eq!(plain_length(&run), if plain { 20 } else { place });
            }
        }
    }

    #[test]
    fn an_escape_ends_the_run() {
        let mut flood = lines(100_000);
        flood.extend_from_slice(b"\x1b[31m");
        flood.extend_from_slice(&lines(5));
        let part = visible_part(&flood, true, 24).unwrap();
        assert_eq!(
            memchr::memchr_iter(b'\n', part).count(),
            MAX_LINES + 24 + 1 + 5
        );
        flood.insert(100, 0x1b);
        assert!(visible_part(&flood, true, 24).is_none());
    }
}
