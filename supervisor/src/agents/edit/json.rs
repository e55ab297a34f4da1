//! Changes to a JSON file that others write too.
//!
//! The file may hold comments and trailing commas (Copilot's and users' settings do); they stay. A change that is
//! already true touches nothing, so that a file that needs none stays byte for byte.

use std::path::Path;

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstArray, CstInputValue, CstObject, CstRootNode};
use serde_json::Value;

use super::EditError;

/// Comments and trailing commas, but none of JSON5's other liberties: what a CLI itself would not read is better
/// reported than repaired.
pub(super) const JSONC: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_loose_object_property_names: false,
    allow_trailing_commas: true,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// Changes, applied in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JsonEdit {
    pub changes: Vec<JsonChange>,
}

/// One change. A path names members of nested objects; missing ones are made.
#[derive(Clone, Debug, PartialEq)]
pub enum JsonChange {
    /// The member gets this value.
    Set { path: Vec<String>, value: Value },
    /// The member gets this value unless it exists.
    Default { path: Vec<String>, value: Value },
    /// The array holds this value (strings compare whole); others stay.
    Include { path: Vec<String>, value: Value },
    /// Of the array's objects the one whose member `key` equals the value's is replaced by it; none: it is added.
    Upsert {
        path: Vec<String>,
        key: &'static str,
        value: Value,
    },
    /// Objects are merged member by member, arrays united, anything else is set.
    Merge { path: Vec<String>, value: Value },
}

impl JsonEdit {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn set(mut self, path: &[&str], value: impl Into<Value>) -> Self {
        self.changes.push(JsonChange::Set {
            path: owned(path),
            value: value.into(),
        });
        self
    }

    #[must_use]
    pub fn default_to(mut self, path: &[&str], value: impl Into<Value>) -> Self {
        self.changes.push(JsonChange::Default {
            path: owned(path),
            value: value.into(),
        });
        self
    }

    #[must_use]
    pub fn include(mut self, path: &[&str], value: impl Into<Value>) -> Self {
        self.changes.push(JsonChange::Include {
            path: owned(path),
            value: value.into(),
        });
        self
    }

    #[must_use]
    pub fn upsert(mut self, path: &[&str], key: &'static str, value: impl Into<Value>) -> Self {
        self.changes.push(JsonChange::Upsert {
            path: owned(path),
            key,
            value: value.into(),
        });
        self
    }

    #[must_use]
    pub fn merge(mut self, path: &[&str], value: impl Into<Value>) -> Self {
        self.changes.push(JsonChange::Merge {
            path: owned(path),
            value: value.into(),
        });
        self
    }

    pub(super) fn apply(&self, file: &Path, old: &str) -> Result<String, EditError> {
        let text = if old.trim_start_matches('\u{feff}').trim().is_empty() {
            "{}\n"
        } else {
            old
        };
        let root = CstRootNode::parse(text, &JSONC).map_err(|error| EditError::NotJson {
            path: file.to_owned(),
            reason: error.to_string(),
        })?;
        let top = root.object_value().ok_or_else(|| EditError::Shape {
            path: file.to_owned(),
            at: String::new(),
            expected: "an object",
        })?;
        for change in &self.changes {
            change.apply(file, &top)?;
        }
        Ok(root.to_string())
    }
}

fn owned(path: &[&str]) -> Vec<String> {
    path.iter().map(|&part| part.to_owned()).collect()
}

impl JsonChange {
    fn apply(&self, file: &Path, top: &CstObject) -> Result<(), EditError> {
        let (path, value) = match self {
            Self::Set { path, value }
            | Self::Default { path, value }
            | Self::Include { path, value }
            | Self::Upsert { path, value, .. }
            | Self::Merge { path, value } => (path, value),
        };
        let Some((last, parents)) = path.split_last() else {
            return merge_members(file, top, "", value);
        };
        let mut object = top.clone();
        for (depth, part) in parents.iter().enumerate() {
            object = object
                .object_value_or_create(part)
                .ok_or_else(|| EditError::Shape {
                    path: file.to_owned(),
                    at: path.get(..=depth).unwrap_or_default().join("."),
                    expected: "an object",
                })?;
        }
        match self {
            Self::Set { .. } => set(&object, last, value),
            Self::Default { .. } => {
                if object.get(last).is_none() {
                    set(&object, last, value);
                }
            }
            Self::Include { .. } => include(&array_at(file, &object, last, path)?, value),
            Self::Upsert { key, .. } => {
                let array = array_at(file, &object, last, path)?;
                let same = array.elements().into_iter().find_map(|element| {
                    let old = element.to_serde_value()?;
                    (old.get(key).is_some() && old.get(key) == value.get(key))
                        .then_some((element, old))
                });
                match same {
                    Some((_, old)) if old == *value => {}
                    Some((element, _)) => {
                        let at = element.element_index().unwrap_or_default();
                        element.remove();
                        array.insert(at, input(value));
                    }
                    None => {
                        array.append(input(value));
                    }
                }
            }
            Self::Merge { .. } => merge(file, &object, last, &path.join("."), value)?,
        }
        Ok(())
    }
}

fn array_at(
    file: &Path,
    object: &CstObject,
    name: &str,
    path: &[String],
) -> Result<CstArray, EditError> {
    object
        .array_value_or_create(name)
        .ok_or_else(|| EditError::Shape {
            path: file.to_owned(),
            at: path.join("."),
            expected: "an array",
        })
}

fn include(array: &CstArray, value: &Value) {
    let holds = array
        .elements()
        .iter()
        .any(|element| element.to_serde_value().as_ref() == Some(value));
    if !holds {
        array.append(input(value));
    }
}

fn set(object: &CstObject, name: &str, value: &Value) {
    match object.get(name) {
        Some(member) if member.to_serde_value().as_ref() == Some(value) => {}
        Some(member) => member.set_value(input(value)),
        None => {
            object.append(name, input(value));
        }
    }
}

fn merge(
    file: &Path,
    object: &CstObject,
    name: &str,
    at: &str,
    value: &Value,
) -> Result<(), EditError> {
    match value {
        Value::Object(_) => {
            let inner = object
                .object_value_or_create(name)
                .ok_or_else(|| EditError::Shape {
                    path: file.to_owned(),
                    at: at.to_owned(),
                    expected: "an object",
                })?;
            merge_members(file, &inner, at, value)
        }
        Value::Array(wanted) => {
            let array = object
                .array_value_or_create(name)
                .ok_or_else(|| EditError::Shape {
                    path: file.to_owned(),
                    at: at.to_owned(),
                    expected: "an array",
                })?;
            for value in wanted {
                include(&array, value);
            }
            Ok(())
        }
        _ => {
            set(object, name, value);
            Ok(())
        }
    }
}

fn merge_members(
    file: &Path,
    object: &CstObject,
    at: &str,
    value: &Value,
) -> Result<(), EditError> {
    let Value::Object(members) = value else {
        return Err(EditError::Shape {
            path: file.to_owned(),
            at: at.to_owned(),
            expected: "an object",
        });
    };
    for (name, value) in members {
        let at = if at.is_empty() {
            name.clone()
        } else {
            format!("{at}.{name}")
        };
        merge(file, object, name, &at, value)?;
    }
    Ok(())
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(values) => CstInputValue::Array(values.iter().map(input).collect()),
        Value::Object(members) => CstInputValue::Object(
            members
                .iter()
                .map(|(name, value)| (name.clone(), input(value)))
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn apply(edit: &JsonEdit, old: &str) -> String {
        edit.apply(Path::new("/f"), old).unwrap()
    }

    fn value(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_missing_or_empty_file_becomes_an_object() {
        let edit = JsonEdit::new().set(&["a", "b"], true);
        for old in ["", "  \n", "{}"] {
            assert_eq!(value(&apply(&edit, old)), json!({"a": {"b": true}}));
        }
    }

    #[test]
    fn what_others_wrote_stays_with_order_and_comments() {
        let old = "// managed\n{\n  \"z\": 1, // keep\n  \"n\": 0.12638400000031875,\n  \"projects\": {\"/x\": {\"cost\": 2}},\n}\n";
        let edit = JsonEdit::new().set(&["projects", "/a.b c", "trust"], true);
        let new = apply(&edit, old);
        assert!(new.starts_with("// managed\n{\n  \"z\": 1, // keep\n"));
        assert!(new.contains("0.12638400000031875"));
        assert!(new.contains("\"cost\": 2") && new.contains("\"/a.b c\""));
        assert_eq!(apply(&edit, &new), new);
    }

    #[test]
    fn a_true_change_touches_nothing() {
        let old = "{\"a\":{\"b\" :true}, \"l\":[ 1,2 ]}";
        let edit = JsonEdit::new()
            .set(&["a", "b"], true)
            .include(&["l"], 2)
            .default_to(&["a"], json!({}))
            .merge(&["l"], json!([1]));
        assert_eq!(apply(&edit, old), old);
    }

    #[test]
    fn defaults_yield_to_what_exists() {
        let edit = JsonEdit::new()
            .default_to(&["theme"], "dark")
            .default_to(&["new"], 1);
        assert_eq!(
            value(&apply(&edit, r#"{"theme":"light"}"#)),
            json!({"theme": "light", "new": 1})
        );
    }

    #[test]
    fn include_adds_once() {
        let edit = JsonEdit::new().include(&["trustedFolders"], "/app/repo");
        let once = apply(&edit, r#"{"trustedFolders":["/other"]}"#);
        assert_eq!(
            value(&once),
            json!({"trustedFolders": ["/other", "/app/repo"]})
        );
        assert_eq!(apply(&edit, &once), once);
    }

    #[test]
    fn upsert_replaces_the_one_of_that_name() {
        let edit = JsonEdit::new().upsert(&["P"], "name", json!({"name": "w", "url": 2}));
        for (old, new) in [
            ("{}", json!([{"name": "w", "url": 2}])),
            (
                r#"{"P":[{"name":"a"},{"name":"w","url":1},{"name":"z"}]}"#,
                json!([{"name": "a"}, {"name": "w", "url": 2}, {"name": "z"}]),
            ),
            (r#"{"P":[3]}"#, json!([3, {"name": "w", "url": 2}])),
        ] {
            let once = apply(&edit, old);
            assert_eq!(value(&once)["P"], new, "{once}");
            assert_eq!(apply(&edit, &once), once);
        }
    }

    #[test]
    fn merge_goes_deep_and_unites_lists() {
        let edit = JsonEdit::new().merge(
            &[],
            json!({"permissions": {"allow": ["B"], "deny": ["C"]}, "model": "x"}),
        );
        let new = apply(
            &edit,
            r#"{"permissions":{"allow":["A"],"ask":[]},"model":"y","k":1}"#,
        );
        assert_eq!(
            value(&new),
            json!({"permissions": {"allow": ["A", "B"], "ask": [], "deny": ["C"]}, "model": "x", "k": 1})
        );
    }

    #[test]
    fn a_file_that_is_not_understood_is_refused() {
        let edit = JsonEdit::new().set(&["a", "b"], 1);
        for (old, part) in [
            ("{\"a\":", "no JSON"),
            ("[]", "an object"),
            ("{\"a\":3}", "`a` is not an object"),
            ("{a:1}", "no JSON"),
        ] {
            let error = edit.apply(Path::new("/f"), old).unwrap_err().to_string();
            assert!(
                error.contains(part) && error.contains("/f"),
                "{old}: {error}"
            );
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~é\n\"\\\\]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c/.]{1,3}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn setting_sets_that_and_nothing_else(
            old in prop::collection::btree_map("[a-c]{1,2}", any_json(), 0..5),
            name in "[a-c]{1,2}",
            wanted in any_json(),
        ) {
            let old = Value::Object(old.into_iter().collect());
            let edit = JsonEdit::new().set(&[&name], wanted.clone());
            let new = apply(&edit, &old.to_string());
            let mut expected = old;
            expected[&name] = wanted;
            prop_assert_eq!(value(&new), expected);
            prop_assert_eq!(apply(&edit, &new), new);
        }
    }
}
