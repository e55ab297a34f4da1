//! Configuration: what `whim run` was told by flags, environment and spec, and what follows from it for agents.
//!
//! ```text
//! arguments ──options──┐
//! environment ─────────┼─ resolve ─→ Settings (+ warnings)     or: Invalid, every mistake at once, exit code 64 or 65
//! spec ─ document ─ validate ─ layers ┘
//! Settings + User ─ environment ─→ the environment of agents and shells
//! ```
//!
//! Nothing is read from this process: arguments and environment are handed in, because the keeper takes both out of its
//! memory at start. Files that are read are those that the platform named (spec, credentials, prices) and `/etc/passwd`
//! and `/etc/group`; everything else here is pure. Bounds stand with their modules: 32 MiB for a spec, 64 KiB for a
//! credential's file, 1 MiB for all that layers add to the environment.
//!
//! Promises: a mistake has a place (flag, variable or JSON pointer), a problem and a remedy; no message holds a secret;
//! names and paths that pass can be used in paths, argument vectors and shell files as they stand.

pub mod document;
pub mod env_file;
pub mod environment;
pub mod layers;
pub mod mistake;
pub mod names;
pub mod options;
pub mod redact;
pub mod reload;
pub mod report;
pub mod resolve;
mod secret;
pub mod settings;
pub mod users;
pub mod validate;
pub mod values;
pub mod variables;

pub use mistake::{Invalid, Mistake, Place};
pub use redact::{printable, redact};
pub use resolve::{Given, Request, Resolved, SettledError, SpecSource, read};
pub use secret::Secret;
pub use settings::{Settings, Variables};
