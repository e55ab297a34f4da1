//! A line of `/proc/PID/stat` (proc(5)).
//!
//! The second field is the name in parentheses. A process chooses its name: it may hold parentheses, spaces, newlines
//! and anything but NUL. Only the last `)` of the line ends it.

use crate::state::moment::Moment;

use super::TICKS_PER_SECOND;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat<'a> {
    pub(super) pid: u32,
    pub(super) name: &'a [u8],
    pub(super) state: u8,
    pub(super) parent: u32,
    /// CPU time of the process and of its children that were waited for, in ticks. What a child used moves to its
    /// parent when it is reaped, so the sum over a tree only grows.
    pub(super) ticks: u64,
    pub(super) started: Moment,
}

/// `None` for anything that is no such line.
pub(super) fn parse(line: &[u8]) -> Option<Stat<'_>> {
    let open = line.iter().position(|b| *b == b'(')?;
    let close = line.iter().rposition(|b| *b == b')')?;
    let pid = number(line.get(..open)?.strip_suffix(b" ")?)?;
    let name = line.get(open + 1..close)?;
    let rest = line.get(close + 1..)?.strip_prefix(b" ")?;
    // Numbered as in proc(5), whose third field is the first here.
    let mut fields = rest.split(|b| b.is_ascii_whitespace());
    let state = *fields.next()?.first()?;
    let parent = number(fields.next()?)?;
    let mut fields = fields.skip(9);
    let mut ticks = 0u64;
    for _ in 14..=17 {
        // Times of children are signed in the kernel's format.
        let used = fields.next()?;
        ticks = ticks.saturating_add(number(used).unwrap_or(0));
    }
    let started: u64 = number(fields.nth(4)?)?;
    Some(Stat {
        pid: u32::try_from(pid).ok()?,
        name,
        state,
        parent: u32::try_from(parent).ok()?,
        ticks,
        started: Moment::from_millis(started.saturating_mul(1_000 / TICKS_PER_SECOND)),
    })
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(pid: u32, name: &[u8], parent: u32, times: [u64; 4], start: u64) -> Vec<u8> {
        let mut line = format!("{pid} (").into_bytes();
        line.extend_from_slice(name);
        let [user, system, children_user, children_system] = times;
        line.extend_from_slice(
            format!(
                ") S {parent} 5 6 7 8 9 10 11 12 13 {user} {system} {children_user} {children_system} 20 0 1 0 {start} 1000 20 18446744073709551615\n"
            )
            .as_bytes(),
        );
        line
    }

    proptest! {
        #[test]
        fn any_name_is_taken_whole(
            pid in 1..4_194_304u32, parent: u32,
            name in proptest::collection::vec(1..=255u8, 0..64),
            times in any::<[u16; 4]>(), start in 0..u64::from(u32::MAX),
        ) {
            let text = line(pid, &name, parent, times.map(u64::from), start);
            let stat = parse(&text).unwrap();
            prop_assert_eq!(stat.pid, pid);
            prop_assert_eq!(stat.name, &name[..]);
            prop_assert_eq!(stat.state, b'S');
            prop_assert_eq!(stat.parent, parent);
            prop_assert_eq!(stat.ticks, times.iter().map(|t| u64::from(*t)).sum::<u64>());
            prop_assert_eq!(stat.started, Moment::from_millis(start * 10));
        }

        #[test]
        fn any_bytes_are_parsed_or_refused(bytes: Vec<u8>) {
            parse(&bytes);
        }
    }

    #[test]
    fn a_name_that_imitates_the_fields() {
        let text = line(42, b"x) R 1 (y", 7, [1, 2, 3, 4], 900);
        let stat = parse(&text).unwrap();
        assert_eq!(
            (stat.name, stat.parent, stat.state),
            (&b"x) R 1 (y"[..], 7, b'S')
        );
    }

    #[test]
    fn a_cut_line_is_refused() {
        let text = line(42, b"x", 7, [1, 2, 3, 4], 900);
        let start = text.windows(4).position(|w| w == b" 900").unwrap();
        for length in 0..=start {
            assert_eq!(parse(&text[..length]), None, "{length}");
        }
    }
}
