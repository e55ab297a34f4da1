//! Files attached to a task, as the API tells of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::Time;

/// Where an attachment came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Named in the spec.
    Spec,
    /// A link given while the task runs.
    Api,
    /// Sent whole: dropped on the page, or posted.
    Upload,
}

/// One attached file, or why it is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attachment {
    /// Name of the file as stored: cleaned and numbered (`01-shot.png`); of one that failed, cleaned only.
    pub name: String,
    /// Name as it was given, control characters escaped.
    pub given: String,
    /// Absolute path in the container; absent where it failed.
    #[serde(default)]
    pub path: Option<String>,
    /// Size in bytes; absent where it failed.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// When it was stored, or failed.
    pub at: Time,
    pub origin: Origin,
    /// Why it is not there, for people.
    #[serde(default)]
    pub error: Option<String>,
    /// The same for programs: `link`, `forbidden`, `expired`, `too-large`, `executable`, `unreachable`, `full`, `store`.
    #[serde(default)]
    pub word: Option<String>,
}
