//! The platform's API, as the supervisor calls it: the bodies of the calls under `/tasks/{id}/`.
//!
//! `openapi/platform.json` beside these sources describes the same for those who serve it; the reference backend of the
//! tests goes by that document and refuses what is not in it.
//!
//! Events are numbered within a *stream*, the numbering of one journal. A container that begins anew (another machine,
//! an empty disk) begins another stream for the same task, so a number says something together with its stream only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::port::Port;
use crate::spec::Sensitive;
use crate::time::Time;

/// Most events of one batch.
pub const BATCH_EVENTS: usize = 256;
/// Most bytes of a batch as JSON, everything included.
pub const BATCH_BYTES: usize = 1024 * 1024;

/// Body of `POST /tasks/{id}/events`. `events` and `missing` together name every number from `first` to `last` once.
#[derive(Clone, Debug, Serialize)]
pub struct EventBatch {
    /// Name of the numbering.
    pub stream: String,
    /// One more than the last number that was acknowledged.
    pub first: u64,
    pub last: u64,
    /// By rising number; each as it stands in the journal.
    pub events: Vec<Box<RawValue>>,
    /// Numbers that will never come: the journal lost them, or had to let them go while the platform was away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Numbers>,
}

/// Numbers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Numbers {
    pub first: u64,
    pub last: u64,
}

/// What the platform answers to a batch (200), and to one that does not follow on what it has (409).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Acknowledgement {
    /// The platform has every number of the stream up to this one for good.
    pub acknowledged: u64,
}

/// Body of `PUT /tasks/{id}/ports`: all that listens now, in place of what was told before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortList {
    pub ports: Vec<Port>,
}

/// Body of `POST /tasks/{id}/git-credentials`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GitQuestion {
    /// The repository, without a login.
    pub url: String,
}

/// The answer to it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct GitLogin {
    pub username: String,
    pub password: Sensitive,
    /// None: it holds until it is refused.
    #[serde(default)]
    pub expires_at: Option<Time>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use schemars::schema_for;
    use serde_json::Value;

    use super::*;

    const DOCUMENT: &str = include_str!("../openapi/platform.json");

    fn names(value: Option<&Value>) -> BTreeSet<String> {
        let members = value.and_then(Value::as_object);
        members
            .into_iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .collect()
    }

    #[test]
    fn the_document_has_the_types_fields_and_no_others() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        for (name, schema) in [
            ("Numbers", schema_for!(Numbers)),
            ("Acknowledgement", schema_for!(Acknowledgement)),
            ("PortList", schema_for!(PortList)),
            ("Port", schema_for!(Port)),
            ("GitQuestion", schema_for!(GitQuestion)),
            ("GitLogin", schema_for!(GitLogin)),
        ] {
            let described = document.pointer(&format!("/components/schemas/{name}/properties"));
            assert_eq!(names(described), names(schema.get("properties")), "{name}");
        }
        let batch = EventBatch {
            stream: "s".into(),
            first: 1,
            last: 1,
            events: Vec::new(),
            missing: vec![Numbers { first: 1, last: 1 }],
        };
        let batch = serde_json::to_value(batch).unwrap();
        let described = document.pointer("/components/schemas/EventBatch/properties");
        assert_eq!(names(described), names(Some(&batch)));
        let most = document
            .pointer("/components/schemas/EventBatch/properties/events/maxItems")
            .and_then(Value::as_u64);
        assert_eq!(most, u64::try_from(BATCH_EVENTS).ok());
    }
}
