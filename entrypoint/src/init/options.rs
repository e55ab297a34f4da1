//! Options as `getopt_long` takes them: clusters of letters, values in the same word or the next, long names that may be
//! shortened. Ends at `--` or the first word that is no option.

/// An option that exists: its letter, its long name, whether it takes a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) letter: u8,
    pub(super) long: Option<&'static str>,
    pub(super) value: bool,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// An option by its letter, with its value.
    Option(u8, Option<Vec<u8>>),
    UnknownLetter(u8),
    /// With its dashes, as given.
    UnknownLong(Vec<u8>),
    MissingValue(u8),
}

/// Goes through the words.
#[derive(Debug)]
pub(super) struct Options<'a> {
    known: &'a [Known],
    words: &'a [Vec<u8>],
    /// Position within a cluster of letters; 0: at the start of a word.
    letter: usize,
    ended: bool,
}

impl<'a> Options<'a> {
    pub(super) fn new(known: &'a [Known], words: &'a [Vec<u8>]) -> Self {
        Self {
            known,
            words,
            letter: 0,
            ended: false,
        }
    }

    /// What follows the options: the command.
    pub(super) fn rest(&self) -> &'a [Vec<u8>] {
        self.words
    }

    fn next_word(&mut self) {
        self.words = self.words.get(1..).unwrap_or_default();
        self.letter = 0;
    }

    fn take_word(&mut self) -> Option<Vec<u8>> {
        let word = self.words.first().cloned();
        self.next_word();
        word
    }

    fn long(&mut self, word: &[u8]) -> Found {
        let name = word.get(2..).unwrap_or_default();
        let (name, value) = match name.iter().position(|byte| *byte == b'=') {
            Some(at) => (
                name.get(..at).unwrap_or_default(),
                name.get(at + 1..).map(<[u8]>::to_vec),
            ),
            None => (name, None),
        };
        self.next_word();
        let exact = |option: &&Known| option.long.is_some_and(|long| long.as_bytes() == name);
        let starts = |option: &&Known| {
            option
                .long
                .is_some_and(|long| long.as_bytes().starts_with(name))
        };
        let mut shortened = self.known.iter().filter(starts);
        let only = shortened.next().filter(|_| shortened.next().is_none());
        match self.known.iter().find(exact).or(only) {
            Some(option) if option.value => match value.or_else(|| self.take_word()) {
                Some(value) => Found::Option(option.letter, Some(value)),
                None => Found::MissingValue(option.letter),
            },
            Some(option) if value.is_none() => Found::Option(option.letter, None),
            _ => Found::UnknownLong(word.to_vec()),
        }
    }
}

impl Iterator for Options<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        if self.ended {
            return None;
        }
        let word = self.words.first()?.clone();
        if self.letter == 0 {
            if word == b"--" {
                // It ends the options and is not part of the command.
                self.next_word();
                self.ended = true;
                return None;
            }
            if word.starts_with(b"--") && self.known.iter().any(|option| option.long.is_some()) {
                return Some(self.long(&word));
            }
            if word.first() != Some(&b'-') || word.len() < 2 {
                self.ended = true;
                return None;
            }
            self.letter = 1;
        }
        let letter = *word.get(self.letter)?;
        self.letter += 1;
        let last = self.letter >= word.len();
        let Some(option) = self.known.iter().find(|option| option.letter == letter) else {
            if last {
                self.next_word();
            }
            return Some(Found::UnknownLetter(letter));
        };
        if !option.value {
            if last {
                self.next_word();
            }
            return Some(Found::Option(letter, None));
        }
        let attached = word
            .get(self.letter..)
            .filter(|value| !value.is_empty())
            .map(<[u8]>::to_vec);
        self.next_word();
        Some(match attached.or_else(|| self.take_word()) {
            Some(value) => Found::Option(letter, Some(value)),
            None => Found::MissingValue(letter),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Known; 4] = [
        Known {
            letter: b'v',
            long: Some("verbose"),
            value: false,
        },
        Known {
            letter: b'V',
            long: Some("version"),
            value: false,
        },
        Known {
            letter: b'r',
            long: Some("rewrite"),
            value: true,
        },
        Known {
            letter: b'c',
            long: Some("single-child"),
            value: false,
        },
    ];

    fn parse(words: &str) -> (Vec<Found>, String) {
        let words: Vec<Vec<u8>> = words
            .split_whitespace()
            .map(|word| word.as_bytes().to_vec())
            .collect();
        let mut options = Options::new(&KNOWN, &words);
        let found = options.by_ref().collect();
        let rest: Vec<_> = options
            .rest()
            .iter()
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        (found, rest.join(" "))
    }

    fn value(letter: u8, text: &str) -> Found {
        Found::Option(letter, Some(text.as_bytes().to_vec()))
    }

    #[test]
    fn clusters_values_and_the_end() {
        let (found, rest) = parse("-vcr 1:2 -r3:4 --rewrite=5:6 --rewrite 7:8 sh -c x");
        let plain = |letter| Found::Option(letter, None);
        let pairs = ["1:2", "3:4", "5:6", "7:8"].map(|text| value(b'r', text));
        assert_eq!(found, [&[plain(b'v'), plain(b'c')][..], &pairs].concat());
        assert_eq!(rest, "sh -c x");
        assert_eq!(parse("-v -- -- x").1, "-- x");
        assert_eq!(parse("-v - x").1, "- x");
    }

    #[test]
    fn long_names_may_be_shortened_while_they_are_unique() {
        assert_eq!(
            parse("--verb x"),
            (vec![Found::Option(b'v', None)], "x".into())
        );
        assert_eq!(parse("--ver x").0, [Found::UnknownLong(b"--ver".to_vec())]);
        assert_eq!(
            parse("--yolo x").0,
            [Found::UnknownLong(b"--yolo".to_vec())]
        );
        assert_eq!(
            parse("--verbose=1 x").0,
            [Found::UnknownLong(b"--verbose=1".to_vec())]
        );
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(parse("-x").0, [Found::UnknownLetter(b'x')]);
        assert_eq!(
            parse("-v -r").0,
            [Found::Option(b'v', None), Found::MissingValue(b'r')]
        );
    }
}
