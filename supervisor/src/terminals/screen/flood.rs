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
    const BLOCK: usize = 64;
    let mut at = 0;
    for block in bytes.chunks(BLOCK) {
        // Without an early exit inside the block the compiler checks it in a few vector instructions.
        let mut plain = true;
        for byte in block {
            plain &= is_plain(*byte);
        }
        if !plain {
            return at + block.iter().take_while(|byte| is_plain(**byte)).count();
        }
        at += block.len();
    }
    at
}

fn is_plain(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) | (byte == b'\n') | (byte == b'\r') | (byte == b'\t')
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
