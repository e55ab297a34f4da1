//! Configuration: what `whim run` was told, by flags, environment and spec.

pub mod document;
pub mod env_file;
pub mod environment;
pub mod layers;
pub mod mistake;
pub mod names;
pub mod options;
pub mod redact;
pub mod resolve;
mod secret;
pub mod settings;
pub mod users;
pub mod validate;
pub mod values;
pub mod variables;

pub use mistake::{Invalid, Mistake, Place};
pub use redact::{printable, redact};
pub use resolve::{Given, Request, Resolved, read};
pub use secret::Secret;
pub use settings::{Settings, Variables};
