//! Changes to a TOML file that others write too. Comments, order and formatting stay.

use std::path::Path;

use toml_edit::{DocumentMut, Item, Table, TableLike, Value};

use super::EditError;

/// Changes, applied in order.
#[derive(Clone, Debug, Default)]
pub struct TomlEdit {
    pub changes: Vec<TomlChange>,
}

/// One change. A path names keys of nested tables; missing ones are made.
#[derive(Clone, Debug)]
pub enum TomlChange {
    Set {
        path: Vec<String>,
        value: Value,
    },
    /// Unless the key exists.
    Default {
        path: Vec<String>,
        value: Value,
    },
}

impl PartialEq for TomlEdit {
    fn eq(&self, other: &Self) -> bool {
        self.changes == other.changes
    }
}

impl PartialEq for TomlChange {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Set { path: a, value: x }, Self::Set { path: b, value: y })
            | (Self::Default { path: a, value: x }, Self::Default { path: b, value: y }) => {
                a == b && same(x, y)
            }
            _ => false,
        }
    }
}

impl TomlEdit {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn set(mut self, path: &[&str], value: impl Into<Value>) -> Self {
        self.changes.push(TomlChange::Set {
            path: path.iter().map(|&part| part.to_owned()).collect(),
            value: value.into(),
        });
        self
    }

    #[must_use]
    pub fn default_to(mut self, path: &[&str], value: impl Into<Value>) -> Self {
        self.changes.push(TomlChange::Default {
            path: path.iter().map(|&part| part.to_owned()).collect(),
            value: value.into(),
        });
        self
    }

    pub(super) fn apply(&self, file: &Path, old: &str) -> Result<String, EditError> {
        let mut document: DocumentMut =
            old.parse()
                .map_err(|error: toml_edit::TomlError| EditError::NotToml {
                    path: file.to_owned(),
                    reason: error.message().to_owned(),
                })?;
        for change in &self.changes {
            change.apply(file, document.as_table_mut())?;
        }
        Ok(document.to_string())
    }
}

impl TomlChange {
    fn apply(&self, file: &Path, top: &mut Table) -> Result<(), EditError> {
        let (path, value, only_missing) = match self {
            Self::Set { path, value } => (path, value, false),
            Self::Default { path, value } => (path, value, true),
        };
        let Some((last, parents)) = path.split_last() else {
            return Ok(());
        };
        let mut table: &mut dyn TableLike = top;
        for (depth, part) in parents.iter().enumerate() {
            let item = table.entry(part).or_insert_with(|| {
                // Implicit, so that `[a.b]` does not bring an empty `[a]` with it.
                let mut new = Table::new();
                new.set_implicit(true);
                Item::Table(new)
            });
            table = item.as_table_like_mut().ok_or_else(|| EditError::Shape {
                path: file.to_owned(),
                at: path.get(..=depth).unwrap_or_default().join("."),
                expected: "a table",
            })?;
        }
        match table.get_mut(last) {
            Some(_) if only_missing => {}
            Some(Item::Value(old)) if same(old, value) => {}
            Some(Item::Value(old)) => {
                let decor = old.decor().clone();
                *old = value.clone();
                *old.decor_mut() = decor;
            }
            Some(item) => *item = Item::Value(value.clone()),
            None => {
                table.insert(last, Item::Value(value.clone()));
            }
        }
        Ok(())
    }
}

/// The same value, however it is written.
fn same(a: &Value, b: &Value) -> bool {
    let plain = |value: &Value| {
        let mut value = value.clone();
        value.decor_mut().clear();
        value
    };
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.value() == b.value(),
        (Value::Integer(a), Value::Integer(b)) => a.value() == b.value(),
        (Value::Boolean(a), Value::Boolean(b)) => a.value() == b.value(),
        (Value::Float(a), Value::Float(b)) => a.value() == b.value(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| same(a, b))
        }
        (Value::InlineTable(a), Value::InlineTable(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(name, value)| b.get(name).is_some_and(|other| same(value, other)))
        }
        (a, b) => plain(a).to_string() == plain(b).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn apply(edit: &TomlEdit, old: &str) -> String {
        edit.apply(Path::new("/f"), old).unwrap()
    }

    fn wanted() -> TomlEdit {
        TomlEdit::new()
            .set(&["model_provider"], "whim")
            .default_to(&["tui", "show_tooltips"], false)
            .set(&["projects", "/app/a.b \"c\"", "trust_level"], "trusted")
            .set(
                &["mcp_servers", "x", "args"],
                ["a", "b"].into_iter().collect::<Value>(),
            )
    }

    #[test]
    fn a_new_file_is_valid_and_complete() {
        let new = apply(&wanted(), "");
        let document: DocumentMut = new.parse().unwrap();
        assert_eq!(document["model_provider"].as_str(), Some("whim"));
        assert_eq!(
            document["projects"]["/app/a.b \"c\""]["trust_level"].as_str(),
            Some("trusted")
        );
        assert!(!new.contains("[projects]\n"), "{new}");
    }

    #[test]
    fn what_others_wrote_stays() {
        let old = "# mine\nmodel = 'x' # dear\n\n[tui]\nshow_tooltips = true\n\n[projects.\"/other\"]\ntrust_level = \"untrusted\"\n";
        let new = apply(&wanted(), old);
        assert!(new.contains("# mine\nmodel = 'x' # dear\n"));
        assert!(new.contains("show_tooltips = true"));
        assert!(new.contains("[projects.\"/other\"]\ntrust_level = \"untrusted\""));
        let document: DocumentMut = new.parse().unwrap();
        assert_eq!(document["model_provider"].as_str(), Some("whim"));
        assert_eq!(apply(&wanted(), &new), new);
    }

    #[test]
    fn another_spelling_of_the_same_value_stays() {
        let old = "model_provider = 'whim' # ours\n";
        let edit = TomlEdit::new().set(&["model_provider"], "whim");
        assert_eq!(apply(&edit, old), old);
        let changed = apply(&edit, "model_provider = \"other\" # ours\n");
        assert_eq!(changed, "model_provider = \"whim\" # ours\n");
    }

    #[test]
    fn inline_tables_are_extended() {
        let edit = TomlEdit::new().set(&["features", "plugins"], false);
        let new = apply(&edit, "features = { apps = true }\n");
        let document: DocumentMut = new.parse().unwrap();
        assert_eq!(document["features"]["apps"].as_bool(), Some(true));
        assert_eq!(document["features"]["plugins"].as_bool(), Some(false));
    }

    #[test]
    fn a_file_that_is_not_understood_is_refused() {
        let edit = TomlEdit::new().set(&["a", "b"], 1);
        for (old, part) in [("a = ", "no TOML"), ("a = 3", "`a` is not a table")] {
            let error = edit.apply(Path::new("/f"), old).unwrap_err().to_string();
            assert!(
                error.contains(part) && error.contains("/f"),
                "{old}: {error}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_path_and_text_survive(name in "[ -~é]{1,12}", text in "[ -~é\n]{0,20}") {
            let edit = TomlEdit::new().set(&["t", &name], text.clone());
            let new = apply(&edit, "[t]\nother = 1\n");
            let document: DocumentMut = new.parse().unwrap();
            prop_assert_eq!(document["t"][&name].as_str(), Some(text.as_str()));
            if name != "other" {
                prop_assert_eq!(document["t"]["other"].as_integer(), Some(1));
            }
            prop_assert_eq!(apply(&edit, &new), new);
        }
    }
}
