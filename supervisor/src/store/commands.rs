//! The commands of a shell, as our integration writes them: one file a terminal, one line a command, only appended. Pure.
//!
//! A line is `1`, when the command began (microseconds since the epoch), how long it ran (microseconds; empty: not
//! known), its exit status, its directory and itself, with tabs between them. In the last two a backslash, tab, line
//! feed and carriage return are written as `\\`, `\t`, `\n` and `\r`. The agents' user can write anything there: what is
//! no such line is passed over.

use whim_wire::time::Time;

use super::text::clean;

/// End of the files' names; before it stands the terminal's.
const SUFFIX: &str = ".commands";
/// The version of a line.
const VERSION: &str = "1";

/// A command that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) began: Time,
    pub(super) duration_ms: Option<u64>,
    pub(super) exit: i32,
    pub(super) directory: String,
    pub(super) text: String,
}

/// What a line says; `None`: it is none of ours.
pub(super) fn read(line: &[u8]) -> Option<Command> {
    let line = String::from_utf8_lossy(line);
    let mut fields = line.trim_end_matches(['\n', '\r']).split('\t');
    if fields.next()? != VERSION {
        return None;
    }
    let began = jiff::Timestamp::from_microsecond(fields.next()?.parse().ok()?).ok()?;
    let duration = match fields.next()? {
        "" => None,
        micros => Some(micros.parse::<u64>().ok()? / 1000),
    };
    let exit = fields.next()?.parse().ok()?;
    let directory = clean(&unescape(fields.next()?));
    let text = clean(&unescape(fields.next()?));
    if fields.next().is_some() || text.trim().is_empty() {
        return None;
    }
    Some(Command {
        began: began.into(),
        duration_ms: duration,
        exit,
        directory,
        text,
    })
}

/// The terminal that a file of this name is of.
pub(super) fn terminal(file: &str) -> Option<&str> {
    let name = file.strip_suffix(SUFFIX)?;
    crate::conversation::place::is_plain(name).then_some(name)
}

fn unescape(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut characters = field.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => text.push('\n'),
            Some('t') => text.push('\t'),
            Some('r') => text.push('\r'),
            Some(other) => text.push(other),
            None => text.push('\\'),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_command_is_read_as_it_was_typed() {
        let line = b"1\t1763776800123456\t2500000\t7\t/srv/a\\tb\tfor i in 1; do\\n  echo '\\\\n'\\ndone\n";
        let command = read(line).unwrap();
        assert_eq!(command.began.to_string(), "2025-11-22T02:00:00.123Z");
        assert_eq!((command.duration_ms, command.exit), (Some(2500), 7));
        assert_eq!(command.directory, "/srv/a\tb");
        assert_eq!(command.text, "for i in 1; do\n  echo '\\n'\ndone");
        assert_eq!(
            read(b"1\t1763776800000000\t\t0\t/\tls\n")
                .unwrap()
                .duration_ms,
            None
        );
    }

    #[test]
    fn other_lines_are_passed_over() {
        for line in [
            &b""[..],
            b"\n",
            b"2\t1763776800000000\t0\t0\t/\tls\n",
            b"1\tnow\t0\t0\t/\tls\n",
            b"1\t1763776800000000\t-1\t0\t/\tls\n",
            b"1\t1763776800000000\t0\tx\t/\tls\n",
            b"1\t1763776800000000\t0\t0\t/\t\n",
            b"1\t1763776800000000\t0\t0\t/\n",
            b"1\t1763776800000000\t0\t0\t/\tls\tmore\n",
            b"1\t9999999999999999999\t0\t0\t/\tls\n",
        ] {
            assert_eq!(read(line), None, "{line:?}");
        }
    }

    #[test]
    fn files_are_named_after_terminals() {
        assert_eq!(terminal("shell-1.commands"), Some("shell-1"));
        for other in ["shell-1.bash", ".commands", "../x.commands", "a b.commands"] {
            assert_eq!(terminal(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_handled(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(read(&line).is_none_or(|command| !command.text.trim().is_empty()));
        }

        #[test]
        fn what_is_escaped_comes_back(text in "[a\\\\\t\n\r\"' é]{0,30}") {
            let escaped = text
                .replace('\\', "\\\\")
                .replace('\t', "\\t")
                .replace('\n', "\\n")
                .replace('\r', "\\r");
            prop_assert!(!escaped.contains(['\t', '\n', '\r']));
            prop_assert_eq!(unescape(&escaped), text);
        }
    }
}
