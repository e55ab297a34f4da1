//! The steps a fake agent can do.

use nix::sys::signal::Signal;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// `print TEXT`: a line.
    Print(String),
    /// `write TEXT`: exactly this, with `\e`, `\a`, `\n`, `\r`, `\t`, `\\` and `\xHH` understood.
    Write(Vec<u8>),
    /// `count N MS`: N numbered lines, MS milliseconds apart.
    Count(u64, u64),
    /// `flood N`: N numbered lines as fast as they are taken.
    Flood(u64),
    /// `prompts`: an interactive agent until end of input or `/exit`.
    Prompts,
    /// `ask TEXT`: one turn with the model.
    Ask(String),
    /// `daemon plain|setsid|double|scrub [STEP; STEP…]`: a process that stays behind, and says `daemon PID`: a child; a
    /// child in a session of its own; a grandchild in a session of its own whose parent is gone; the same with an empty
    /// environment. It does the steps, or stays forever.
    Daemon(Way, Vec<String>),
    /// `children N`: N children that stay, in the same group.
    Children(u64),
    /// `orphans N`: N grandchildren that lose their parent and end at once.
    Orphans(u64),
    /// `sh COMMAND`: a shell command, waited for.
    Shell(String),
    /// `listen PORT`: a TCP listener on loopback that answers every connection with an HTTP 200; stays open.
    Listen(u16),
    /// `burn MS`: uses a CPU.
    Burn(u64),
    /// `sleep MS`
    Sleep(u64),
    /// `forever`: waits for a signal.
    Forever,
    /// `end-of-input`: waits for the end of standard input.
    EndOfInput,
    /// `ignore SIGNAL`: from now on it does nothing.
    Ignore(Signal),
    /// `trap SIGNAL CODE [TEXT]`: from now on it prints TEXT and exits with CODE.
    Trap(Signal, u8, String),
    /// `kill SIGNAL`: to itself.
    Kill(Signal),
    /// `crash`: by SIGABRT.
    Crash,
    /// `exit CODE`
    Exit(u8),
    /// `size`: prints `size COLUMNS ROWS` of its terminal.
    Size,
    /// `environment`: prints its environment, a variable per line.
    Environment,
}

/// How a daemon leaves its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Plain,
    Setsid,
    Double,
    Scrub,
}

/// What is wrong with a step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error("no such step: {0}")]
    Unknown(String),
    #[error("{step}: {what} is wrong")]
    Operand { step: String, what: String },
}

impl Step {
    /// Reads `VERB OPERANDS`.
    pub(crate) fn parse(line: &str) -> Result<Self, StepError> {
        let (verb, rest) = line
            .trim_start()
            .split_once(' ')
            .unwrap_or_else(|| (line.trim_start(), ""));
        let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
        let wrong = |what: &str| StepError::Operand {
            step: line.to_owned(),
            what: format!("{what:?}"),
        };
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| wrong(text));
        let code = |text: &str| text.trim().parse::<u8>().map_err(|_| wrong(text));
        let signal = |text: &str| {
            let name = text.trim();
            let name = if name.starts_with("SIG") {
                name.to_owned()
            } else {
                format!("SIG{name}")
            };
            name.parse::<Signal>().map_err(|_| wrong(text))
        };
        Ok(match verb {
            "print" => Self::Print(rest.to_owned()),
            "write" => Self::Write(unescaped(rest).ok_or_else(|| wrong(rest))?),
            "count" => Self::Count(number(first)?, number(second)?),
            "flood" => Self::Flood(number(rest)?),
            "prompts" => Self::Prompts,
            "ask" => Self::Ask(rest.to_owned()),
            "daemon" => {
                let steps = second
                    .split(';')
                    .map(str::trim)
                    .filter(|step| !step.is_empty());
                Self::Daemon(
                    Way::parse(first).ok_or_else(|| wrong(first))?,
                    steps.map(String::from).collect(),
                )
            }
            "children" => Self::Children(number(rest)?),
            "orphans" => Self::Orphans(number(rest)?),
            "sh" => Self::Shell(rest.to_owned()),
            "listen" => Self::Listen(rest.trim().parse().map_err(|_| wrong(rest))?),
            "burn" => Self::Burn(number(rest)?),
            "sleep" => Self::Sleep(number(rest)?),
            "forever" => Self::Forever,
            "end-of-input" => Self::EndOfInput,
            "ignore" => Self::Ignore(signal(rest)?),
            "trap" => {
                let (number, text) = second.split_once(' ').unwrap_or((second, ""));
                Self::Trap(signal(first)?, code(number)?, text.to_owned())
            }
            "kill" => Self::Kill(signal(rest)?),
            "crash" => Self::Crash,
            "exit" => Self::Exit(if rest.is_empty() { 0 } else { code(rest)? }),
            "size" => Self::Size,
            "environment" => Self::Environment,
            _ => return Err(StepError::Unknown(line.to_owned())),
        })
    }
}

impl Way {
    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Self::Plain, Self::Setsid, Self::Double, Self::Scrub]
            .into_iter()
            .find(|way| way.word() == word)
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Setsid => "setsid",
            Self::Double => "double",
            Self::Scrub => "scrub",
        }
    }
}

fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            bytes.extend(char.to_string().into_bytes());
            continue;
        }
        bytes.push(match chars.next()? {
            'e' => 0x1b,
            'a' => 7,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            '\\' => b'\\',
            'x' => u8::from_str_radix(&chars.by_ref().take(2).collect::<String>(), 16).ok()?,
            _ => return None,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read() {
        let step = |line: &str| Step::parse(line).unwrap();
        assert_eq!(
            step(r"write \e]0;hi\a\x41"),
            Step::Write(b"\x1b]0;hi\x07A".to_vec())
        );
        assert_eq!(
            step("trap TERM 7 good bye"),
            Step::Trap(Signal::SIGTERM, 7, "good bye".into())
        );
        let steps = vec!["ignore TERM".to_owned(), "forever".to_owned()];
        assert_eq!(
            step("daemon double ignore TERM; forever"),
            Step::Daemon(Way::Double, steps)
        );
        assert_eq!(step("exit"), Step::Exit(0));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "",
            "dance",
            "exit 256",
            "trap NEVER 1",
            "count 1",
            r"write \q",
            "daemon sideways",
        ] {
            assert!(Step::parse(line).is_err(), "{line}");
        }
    }
}
