//! Configuration: what `whim run` was told, by flags, environment and spec.

pub mod document;
pub mod env_file;
pub mod layers;
pub mod mistake;
pub mod names;
pub mod redact;
mod secret;
pub mod users;
pub mod validate;
pub mod values;

pub use mistake::{Invalid, Mistake, Place};
pub use redact::{printable, redact};
pub use secret::Secret;
