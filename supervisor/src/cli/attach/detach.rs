//! The detach key: `Ctrl-\`, then `d`.
//!
//! `Ctrl-\` is byte 0x1c, or, once the program has turned on the kitty protocol or modifyOtherKeys, a sequence.
//! `Ctrl-\` twice types it once; before any other key it is typed as it was. Pure.

const FORMS: [&[u8]; 3] = [b"\x1c", b"\x1b[92;5u", b"\x1b[27;5;92~"];
const LETTERS: [&[u8]; 2] = [b"d", b"\x1b[100u"];

/// See the module's header.
#[derive(Debug, Default)]
pub(super) struct DetachKey {
    /// The form in which `Ctrl-\` came and still waits for the next key.
    waiting: Option<&'static [u8]>,
}

impl DetachKey {
    /// Takes keys; returns what is to be typed, and whether to detach.
    pub(super) fn take(&mut self, mut keys: &[u8]) -> (Vec<u8>, bool) {
        let mut typed = Vec::with_capacity(keys.len());
        while let Some(first) = keys.first() {
            let form = FORMS.into_iter().find(|form| keys.starts_with(form));
            if let Some(waiting) = self.waiting.take() {
                if LETTERS.into_iter().any(|letter| keys.starts_with(letter)) {
                    return (typed, true);
                }
                typed.extend_from_slice(waiting);
                if let Some(form) = form {
                    keys = keys.get(form.len()..).unwrap_or_default();
                    continue;
                }
            }
            let taken = match form {
                Some(form) => {
                    self.waiting = Some(form);
                    form.len()
                }
                None => {
                    typed.push(*first);
                    1
                }
            };
            keys = keys.get(taken..).unwrap_or_default();
        }
        (typed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(parts: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut key = DetachKey::default();
        let mut typed = Vec::new();
        for part in parts {
            let (bytes, detached) = key.take(part);
            typed.extend(bytes);
            if detached {
                return (typed, true);
            }
        }
        (typed, false)
    }

    #[test]
    fn detaches_in_every_form_and_at_every_cut() {
        assert_eq!(all(&[b"ab\x1cdignored"]), (b"ab".to_vec(), true));
        assert_eq!(all(&[b"\x1c", b"d"]), (vec![], true));
        assert_eq!(all(&[b"\x1b[92;5u", b"d"]), (vec![], true));
        assert_eq!(all(&[b"\x1b[27;5;92~d"]), (vec![], true));
    }

    #[test]
    fn everything_else_is_typed() {
        assert_eq!(all(&[b"\x1c\x1cx"]), (b"\x1cx".to_vec(), false));
        assert_eq!(all(&[b"\x1c", b"x"]), (b"\x1cx".to_vec(), false));
        assert_eq!(all(&[b"d\x1b[A"]), (b"d\x1b[A".to_vec(), false));
    }
}
