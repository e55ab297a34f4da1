//! Secrets known to the supervisor, put out of sight before a text is kept.

use std::fmt;

use memchr::memmem;
use zeroize::Zeroizing;

use crate::secrets;

/// What stands in a secret's place.
pub const MASK: &str = "***";
/// Most forms that are known.
const MOST: usize = 4096;

/// The secrets; nothing of them can be printed.
#[derive(Default)]
pub struct Mask(Vec<Zeroizing<String>>);

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mask({} secrets)", self.0.len())
    }
}

impl Mask {
    /// A secret, in every way that it is commonly written.
    pub fn learn(&mut self, secret: &str) {
        for form in secrets::forms(secret) {
            if self.0.len() < MOST && !self.0.contains(&form) {
                self.0.push(form);
            }
        }
    }

    /// Those that were learned after the first `known`, which is how many there were then.
    #[must_use]
    pub fn since(&self, known: usize) -> Vec<Zeroizing<String>> {
        self.0.get(known..).unwrap_or_default().to_vec()
    }

    /// How many there are, in all their forms.
    #[must_use]
    pub fn known(&self) -> usize {
        self.0.len()
    }

    /// The text without them. The longest first, so that no rest of one remains.
    #[must_use]
    pub fn hide(&self, text: String) -> String {
        let mut found: Vec<&str> = Vec::new();
        for secret in &self.0 {
            if memmem::find(text.as_bytes(), secret.as_bytes()).is_some() {
                found.push(secret.as_str());
            }
        }
        if found.is_empty() {
            return text;
        }
        found.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        let mut text = Zeroizing::new(text);
        for secret in found {
            text = Zeroizing::new(text.replace(secret, MASK));
        }
        std::mem::take(&mut *text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mask(secrets: &[&str]) -> Mask {
        let mut mask = Mask::default();
        for secret in secrets {
            mask.learn(secret);
        }
        mask
    }

    #[test]
    fn secrets_are_hidden_however_they_are_written() {
        let mask = mask(&["p\"a/ss w", "sk-123456", "sk-123456-long"]);
        for (text, hidden) in [
            ("key sk-123456.", "key ***."),
            ("key sk-123456-long.", "key ***."),
            (r#"{"k":"p\"a/ss w"}"#, r#"{"k":"***"}"#),
            ("https://u:p%22a%2Fss+w@h/", "https://u:***@h/"),
            ("nothing here", "nothing here"),
        ] {
            assert_eq!(mask.hide(text.to_owned()), hidden);
        }
        assert!(!format!("{mask:?}").contains("sk-"));
    }

    #[test]
    fn words_are_no_secrets() {
        assert_eq!(mask(&["abc", ""]).hide("abc".to_owned()), "abc");
    }

    #[test]
    fn what_is_new_is_told() {
        let mut mask = mask(&["first-secret"]);
        let known = mask.known();
        mask.learn("first-secret");
        assert!(mask.since(known).is_empty());
        mask.learn("second-secret");
        let new: Vec<String> = mask
            .since(known)
            .iter()
            .map(|new| (**new).clone())
            .collect();
        assert_eq!(new, ["second-secret"]);
    }

    proptest! {
        #[test]
        fn no_secret_survives(secret in "[A-Za-z0-9+/=_-]{6,20}", before in ".{0,20}", after in ".{0,20}") {
            let hidden = mask(&[&secret]).hide(format!("{before}{secret}{after}"));
            prop_assert!(!hidden.contains(&secret));
        }
    }
}
