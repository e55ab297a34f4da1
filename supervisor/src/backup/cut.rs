//! Where a file that is being written may be cut: after its last complete record. Pure.

/// Longest last line that is waited for; a longer one is saved as far as it goes.
pub const MAX_LINE: usize = 32 * 1024 * 1024;

/// How many of these bytes, the last of a file, are complete records. A last line without its end is complete when it
/// is a whole JSON object: nothing but the line's end can follow.
#[must_use]
pub fn complete(content: &[u8]) -> usize {
    let lines = memchr::memrchr(b'\n', content).map_or(0, |end| end + 1);
    let rest = content.get(lines..).unwrap_or_default();
    let object = || {
        let object = rest.trim_ascii();
        object.starts_with(b"{") && serde_json::from_slice::<serde::de::IgnoredAny>(object).is_ok()
    };
    if rest.len() > MAX_LINE || object() {
        content.len()
    } else {
        lines
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_being_written_is_not_cut_in_two() {
        for (content, wanted) in [
            ("", 0),
            ("{\"a\":1}\n", 8),
            ("{\"a\":1}\n{\"b\":", 8),
            ("{\"a\":1}\n{\"b\":2}", 15),
            ("{\"a\":1", 0),
            ("one\ntwo", 4),
            ("12", 0),
        ] {
            assert_eq!(complete(content.as_bytes()), wanted, "{content:?}");
        }
        assert_eq!(complete(&vec![b'x'; MAX_LINE + 1]), MAX_LINE + 1);
    }

    proptest! {
        #[test]
        fn every_record_is_saved_whole_and_once(records in proptest::collection::vec("[a-z{}\"\\\\]{0,12}", 1..12), cuts in proptest::collection::vec(0_usize..200, 0..8)) {
            let lines: String = records.iter().map(|record| format!("{}\n", serde_json::json!({"r": record}))).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(lines.len())).collect();
            cuts.sort_unstable();
            let mut saved = 0;
            for cut in cuts.into_iter().chain([lines.len()]) {
                saved += complete(&lines.as_bytes()[saved..cut]);
                let so_far = String::from_utf8_lossy(&lines.as_bytes()[..saved]).into_owned();
                prop_assert!(so_far.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{so_far}");
                prop_assert!(!lines.as_bytes()[saved..cut].windows(2).any(|two| two == b"\n{"), "a complete record waits");
            }
            prop_assert_eq!(saved, lines.len());
        }
    }
}
