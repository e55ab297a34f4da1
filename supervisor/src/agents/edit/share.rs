//! What of a file is ours: what an edit puts into it, and how that is taken out again.
//!
//! A file of a CLI or of the user holds our values beside theirs. To take back what is wanted no more, three things must
//! come together: an edit of ours wanted it, the file did not hold it before ([`Share::missing_in`], remembered by the
//! caller as fingerprints), and it still stands there as we wrote it. Anything else is somebody else's and stays. Values
//! are plain values, single elements of arrays, and containers, which go when they are ours and empty.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jsonc_parser::cst::{CstObject, CstRootNode};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use toml_edit::{DocumentMut, Item, TableLike};

use super::json::JSONC;
use super::{Edit, EditError, FileEdit};

/// How a file is written, as far as taking something out needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Toml,
    /// The file as a whole.
    Whole,
    /// A marked part, which knows itself.
    Block,
}

/// What stands at one place.
#[derive(Clone, PartialEq)]
enum What {
    Plain(Value),
    Element(Value),
    Object,
    Array,
    /// SHA-256 of all of the file.
    Whole(String),
}

#[derive(Clone, PartialEq)]
struct Leaf {
    at: Vec<String>,
    what: What,
}

/// An edit's part of a file. `Debug` shows no values: they may be secrets.
#[derive(Clone)]
pub struct Share {
    form: Form,
    leaves: BTreeMap<String, Leaf>,
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Share")
            .field("form", &self.form)
            .field("leaves", &self.leaves.len())
            .finish()
    }
}

/// What becomes of a file out of which something was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// There was nothing to take.
    Same,
    Content(Vec<u8>),
    /// All of it was ours.
    Nothing,
}

impl FileEdit {
    /// All that this edit wants in its file.
    ///
    /// # Errors
    /// None in practice: an edit can always be applied to nothing.
    pub fn share(&self) -> Result<Share, EditError> {
        let form = match &self.edit {
            Edit::Json(_) => Form::Json,
            Edit::Toml(_) => Form::Toml,
            Edit::Replace(_) => Form::Whole,
            Edit::Block(_) => Form::Block,
        };
        let content = self.apply(None)?.unwrap_or_default();
        Ok(Share {
            form,
            leaves: leaves(form, &self.path, &content)?,
        })
    }
}

impl Share {
    /// Fingerprints of what `content` does not hold: what the edit is about to bring.
    ///
    /// # Errors
    /// When the content cannot be understood.
    pub fn missing_in(
        &self,
        path: &Path,
        content: Option<&[u8]>,
    ) -> Result<Vec<String>, EditError> {
        let present = match content {
            Some(content) => leaves(self.form, path, content)?,
            None => BTreeMap::new(),
        };
        let missing = self
            .leaves
            .keys()
            .filter(|print| !present.contains_key(*print));
        Ok(missing.cloned().collect())
    }

    /// What of `content` is among these fingerprints, whichever edit brought it.
    ///
    /// # Errors
    /// When the content cannot be understood.
    pub fn among(
        path: &Path,
        content: &[u8],
        prints: &BTreeSet<String>,
    ) -> Result<Self, EditError> {
        let by_name = match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Form::Json,
            Some("toml") => Form::Toml,
            _ => Form::Whole,
        };
        // A file of a skill is ours as a whole, whatever its name.
        let whole = leaves(Form::Whole, path, content)?;
        let form = if whole.keys().any(|print| prints.contains(print)) {
            Form::Whole
        } else {
            by_name
        };
        let mut leaves = leaves(form, path, content)?;
        leaves.retain(|print, _| prints.contains(print));
        Ok(Self { form, leaves })
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.leaves.extend(other.leaves);
        self
    }

    /// What `other` does not want.
    #[must_use]
    pub fn without(mut self, other: &Self) -> Self {
        self.leaves
            .retain(|print, _| !other.leaves.contains_key(print));
        self
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// Fingerprints of all of it.
    pub fn fingerprints(&self) -> impl Iterator<Item = &String> {
        self.leaves.keys()
    }

    /// Takes out what is `ours` and still stands as it was written.
    ///
    /// # Errors
    /// When the content cannot be understood.
    pub fn withdraw(
        &self,
        path: &Path,
        content: &[u8],
        ours: &BTreeSet<String>,
    ) -> Result<Left, EditError> {
        let mut leaves: Vec<&Leaf> = self
            .leaves
            .iter()
            .filter(|(print, _)| ours.contains(*print))
            .map(|(_, leaf)| leaf)
            .collect();
        // From the inside out, a container after what is in it.
        leaves.sort_by_key(|leaf| {
            let container = matches!(leaf.what, What::Object | What::Array);
            (std::cmp::Reverse(leaf.at.len()), container)
        });
        let new = match self.form {
            Form::Block => return Ok(Left::Same),
            Form::Whole => {
                let whole = What::Whole(digest(content));
                let ours = leaves.iter().any(|leaf| leaf.what == whole);
                return Ok(if ours { Left::Nothing } else { Left::Same });
            }
            Form::Json => {
                let root = json_root(path, content)?;
                if let Some(top) = root.object_value() {
                    leaves.iter().for_each(|leaf| take_json(&top, leaf));
                }
                root.to_string()
            }
            Form::Toml => {
                let mut document = toml_document(path, content)?;
                for leaf in leaves {
                    take_toml(document.as_table_mut(), leaf);
                }
                document.to_string()
            }
        };
        Ok(if new.as_bytes() == content {
            Left::Same
        } else {
            Left::Content(new.into_bytes())
        })
    }
}

fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fingerprint(leaf: &Leaf) -> String {
    let what = match &leaf.what {
        What::Plain(value) => json!(["plain", value]),
        What::Element(value) => json!(["element", value]),
        What::Object => json!(["object"]),
        What::Array => json!(["array"]),
        What::Whole(hash) => json!(["whole", hash]),
    };
    digest(json!([leaf.at, what]).to_string().as_bytes())
}

fn leaves(form: Form, path: &Path, content: &[u8]) -> Result<BTreeMap<String, Leaf>, EditError> {
    let mut found = Vec::new();
    match form {
        Form::Block => {}
        Form::Whole => found.push(Leaf {
            at: Vec::new(),
            what: What::Whole(digest(content)),
        }),
        Form::Json => {
            let value = json_root(path, content)?.value();
            let value = value.and_then(|value| value.to_serde_value());
            collect(&value.unwrap_or_default(), &mut Vec::new(), &mut found);
        }
        Form::Toml => {
            let document = toml_document(path, content)?;
            collect(
                &table_value(document.as_table()),
                &mut Vec::new(),
                &mut found,
            );
        }
    }
    Ok(found
        .into_iter()
        .map(|leaf| (fingerprint(&leaf), leaf))
        .collect())
}

fn collect(value: &Value, at: &mut Vec<String>, found: &mut Vec<Leaf>) {
    let mut leaf = |what| {
        found.push(Leaf {
            at: at.clone(),
            what,
        });
    };
    match value {
        Value::Object(members) => {
            if !at.is_empty() {
                leaf(What::Object);
            }
            for (name, member) in members {
                at.push(name.clone());
                collect(member, at, found);
                at.pop();
            }
        }
        Value::Array(elements) => {
            leaf(What::Array);
            elements
                .iter()
                .for_each(|element| leaf(What::Element(element.clone())));
        }
        plain => leaf(What::Plain(plain.clone())),
    }
}

fn text<'a>(path: &Path, content: &'a [u8]) -> Result<&'a str, EditError> {
    std::str::from_utf8(content).map_err(|_| EditError::NotText {
        path: path.to_owned(),
    })
}

fn json_root(path: &Path, content: &[u8]) -> Result<CstRootNode, EditError> {
    let text = text(path, content)?;
    let text = if text.trim_start_matches('\u{feff}').trim().is_empty() {
        "{}"
    } else {
        text
    };
    CstRootNode::parse(text, &JSONC).map_err(|error| EditError::NotJson {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn toml_document(path: &Path, content: &[u8]) -> Result<DocumentMut, EditError> {
    text(path, content)?
        .parse()
        .map_err(|error: toml_edit::TomlError| EditError::NotToml {
            path: path.to_owned(),
            reason: error.message().to_owned(),
        })
}

fn take_json(top: &CstObject, leaf: &Leaf) {
    let Some((last, parents)) = leaf.at.split_last() else {
        return;
    };
    let mut object = top.clone();
    for part in parents {
        let Some(inner) = object.object_value(part) else {
            return;
        };
        object = inner;
    }
    let Some(member) = object.get(last) else {
        return;
    };
    let present = member.to_serde_value();
    match &leaf.what {
        What::Element(wanted) => {
            let array = object.array_value(last);
            let same = array.and_then(|array| {
                let mut elements = array.elements().into_iter();
                elements.find(|element| element.to_serde_value().as_ref() == Some(wanted))
            });
            if let Some(element) = same {
                element.remove();
            }
        }
        What::Plain(wanted) if present.as_ref() == Some(wanted) => member.remove(),
        What::Object if present == Some(json!({})) => member.remove(),
        What::Array if present == Some(json!([])) => member.remove(),
        _ => {}
    }
}

fn take_toml(top: &mut dyn TableLike, leaf: &Leaf) {
    let Some((last, parents)) = leaf.at.split_last() else {
        return;
    };
    let mut table = top;
    for part in parents {
        let Some(inner) = table.get_mut(part).and_then(Item::as_table_like_mut) else {
            return;
        };
        table = inner;
    }
    let Some(item) = table.get_mut(last) else {
        return;
    };
    let gone = match &leaf.what {
        What::Element(wanted) => {
            if let Some(array) = item.as_array_mut() {
                let at = array
                    .iter()
                    .position(|element| plain_value(element) == *wanted);
                if let Some(at) = at {
                    let _taken = array.remove(at);
                }
            }
            false
        }
        What::Plain(wanted) => item_value(item) == *wanted,
        What::Object => item_value(item) == json!({}),
        What::Array => item_value(item) == json!([]),
        What::Whole(_) => false,
    };
    if gone {
        let _taken = table.remove(last);
    }
}

fn item_value(item: &Item) -> Value {
    match item {
        Item::None => Value::Null,
        Item::Value(value) => plain_value(value),
        Item::Table(table) => table_value(table),
        Item::ArrayOfTables(tables) => tables.iter().map(|table| table_value(table)).collect(),
    }
}

fn table_value(table: &dyn TableLike) -> Value {
    let members = table
        .iter()
        .map(|(name, item)| (name.to_owned(), item_value(item)));
    Value::Object(members.collect::<Map<_, _>>())
}

fn plain_value(value: &toml_edit::Value) -> Value {
    use toml_edit::Value as Toml;
    match value {
        Toml::String(text) => json!(text.value()),
        Toml::Integer(number) => json!(number.value()),
        Toml::Float(number) => json!(number.value()),
        Toml::Boolean(word) => json!(word.value()),
        Toml::Datetime(time) => json!({"datetime": time.value().to_string()}),
        Toml::Array(array) => array.iter().map(plain_value).collect(),
        Toml::InlineTable(table) => table_value(table),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{JsonEdit, TomlEdit};
    use super::*;

    fn file(edit: Edit) -> FileEdit {
        FileEdit {
            path: "/f".into(),
            mode: 0o644,
            edit,
        }
    }

    fn json_file(value: Value) -> FileEdit {
        file(Edit::Json(JsonEdit::new().merge(&[], value)))
    }

    /// Writes `old` into a file that holds `before`, then replaces it by `new` as a reload does it.
    fn replaced(before: &str, old: &FileEdit, new: &FileEdit) -> String {
        let path = Path::new("/f");
        let share = old.share().unwrap();
        let ours = share.missing_in(path, Some(before.as_bytes())).unwrap();
        let ours: BTreeSet<String> = ours.into_iter().collect();
        let written = old.apply(Some(before.as_bytes())).unwrap();
        let written = written.unwrap_or_else(|| before.as_bytes().to_vec());
        let changed = new.apply(Some(&written)).unwrap().unwrap_or(written);
        let gone = share.without(&new.share().unwrap());
        match gone.withdraw(path, &changed, &ours).unwrap() {
            Left::Same => String::from_utf8(changed).unwrap(),
            Left::Content(content) => String::from_utf8(content).unwrap(),
            Left::Nothing => String::new(),
        }
    }

    fn value(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_was_brought_goes_and_what_was_there_stays() {
        let old = json_file(
            json!({"mcpServers": {"x": {"command": "a", "args": ["1"], "env": {}}, "y": {"url": "u"}},
            "permissions": {"allow": ["A", "B"]}, "model": "m", "same": 1}),
        );
        let new = json_file(json!({"mcpServers": {"y": {"url": "u"}}}));
        let before = "{\n  // mine\n  \"permissions\": {\"allow\": [\"A\"], \"deny\": []},\n  \"same\": 1\n}\n";
        let after = replaced(before, &old, &new);
        assert!(after.contains("// mine"), "{after}");
        let text = after.replace("// mine", "");
        assert_eq!(
            value(&text),
            json!({"permissions": {"allow": ["A"], "deny": []}, "same": 1, "mcpServers": {"y": {"url": "u"}}})
        );
    }

    #[test]
    fn what_somebody_changed_since_is_theirs() {
        let path = Path::new("/f");
        let share = json_file(json!({"a": {"b": 1, "c": 2}})).share().unwrap();
        let ours: BTreeSet<String> = share.fingerprints().cloned().collect();
        let left = share
            .withdraw(path, br#"{"a":{"b":7,"c":2}}"#, &ours)
            .unwrap();
        let Left::Content(content) = left else {
            panic!("{left:?}");
        };
        assert_eq!(
            value(std::str::from_utf8(&content).unwrap()),
            json!({"a": {"b": 7}})
        );
        // Never written by us: nothing to take.
        let nothing = share.withdraw(path, br#"{"a":{"b":1}}"#, &BTreeSet::new());
        assert_eq!(nothing.unwrap(), Left::Same);
        assert!(share.withdraw(path, b"{", &ours).is_err());
    }

    #[test]
    fn toml_tables_go_whole_and_others_stay() {
        let old = TomlEdit::new()
            .set(&["mcp_servers", "x", "command"], "run")
            .set(
                &["mcp_servers", "x", "args"],
                ["1"].into_iter().collect::<toml_edit::Value>(),
            )
            .set(&["projects", "/app", "trust_level"], "trusted");
        let new = TomlEdit::new().set(&["projects", "/app", "trust_level"], "trusted");
        let before = "# mine\nmodel = \"m\"\n\n[mcp_servers.mine]\ncommand = \"c\"\n";
        let after = replaced(before, &file(Edit::Toml(old)), &file(Edit::Toml(new)));
        assert!(after.starts_with(before), "{after}");
        assert!(
            after.contains("trust_level") && !after.contains("mcp_servers.x"),
            "{after}"
        );
    }

    #[test]
    fn a_whole_file_goes_only_as_it_was_written() {
        let path = Path::new("/f");
        let share = file(Edit::Replace(b"skill".to_vec())).share().unwrap();
        let ours: BTreeSet<String> = share.fingerprints().cloned().collect();
        assert_eq!(
            share.withdraw(path, b"skill", &ours).unwrap(),
            Left::Nothing
        );
        assert_eq!(
            share.withdraw(path, b"skill, edited", &ours).unwrap(),
            Left::Same
        );
        assert_eq!(
            share.withdraw(path, b"skill", &BTreeSet::new()).unwrap(),
            Left::Same
        );
    }

    #[test]
    fn values_do_not_show() {
        let share = json_file(json!({"env": {"KEY": "hunter2"}}))
            .share()
            .unwrap();
        assert!(!format!("{share:?}").contains("hunter2"));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            "[a-c]{1,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::btree_set("[a-c]", 0..4)
                    .prop_map(|set| set.into_iter().collect()),
                prop::collection::btree_map("[a-c]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn object() -> impl Strategy<Value = Value> {
        prop::collection::btree_map("[a-d]", any_json(), 0..4)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    /// Whether every value of `part` stands in `whole`.
    fn holds(whole: &Value, part: &Value) -> bool {
        match (whole, part) {
            (Value::Object(whole), Value::Object(part)) => part
                .iter()
                .all(|(name, part)| whole.get(name).is_some_and(|whole| holds(whole, part))),
            (Value::Array(whole), Value::Array(part)) => part.iter().all(|one| whole.contains(one)),
            (whole, part) => whole == part,
        }
    }

    proptest! {
        #[test]
        fn writing_and_taking_back_gives_the_file_that_was_there(before in object(), old in object()) {
            let old = json_file(old);
            // Where ours cannot be merged, or overrides a value, there is nothing to compare.
            let Ok(written) = old.apply(Some(before.to_string().as_bytes())) else { return Ok(()) };
            let written = written.unwrap_or_else(|| before.to_string().into_bytes());
            prop_assume!(holds(&value(std::str::from_utf8(&written).unwrap()), &before));
            let after = replaced(&before.to_string(), &old, &json_file(json!({})));
            prop_assert_eq!(value(&after), before);
        }

        #[test]
        fn what_is_wanted_is_there_whatever_was_before(before in object(), old in object(), new in object()) {
            let (old, wanted) = (json_file(old), json_file(new.clone()));
            prop_assume!(old.apply(Some(before.to_string().as_bytes())).is_ok_and(|written| {
                let written = written.unwrap_or_else(|| before.to_string().into_bytes());
                wanted.apply(Some(&written)).is_ok()
            }));
            let after = replaced(&before.to_string(), &old, &wanted);
            prop_assert!(holds(&value(&after), &new), "{after} does not hold {new}");
        }
    }
}
