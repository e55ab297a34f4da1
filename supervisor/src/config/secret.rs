use std::fmt;

use zeroize::Zeroizing;

/// A credential. `Debug` and `Display` print asterisks, it cannot be serialised, and its memory is overwritten when
/// the last owner drops it.
///
/// ```
/// # use whim::config::Secret;
/// let secret = Secret::new("sk-ant-1".to_owned());
/// assert_eq!(format!("{secret} {secret:?}"), "*** ***");
/// assert_eq!(secret.expose(), "sk-ant-1");
/// ```
#[derive(Clone)]
pub struct Secret(Zeroizing<Box<str>>);

impl Secret {
    /// Takes the text over. A `String` with spare capacity may leave its old allocation behind, so that one is
    /// overwritten here.
    pub fn new(text: String) -> Self {
        let text = Zeroizing::new(text);
        Self(Zeroizing::new(Box::from(text.as_str())))
    }

    /// The credential itself. Whoever calls this decides where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
