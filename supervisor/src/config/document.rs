//! A spec as it was given: bytes to typed spec, with every structural mistake at once.
//!
//! The typed reader stops at its first error, so the text is first compared with the schema [`written`] from the same
//! types. Three things come out: mistakes (wrong types, words, numbers, missing members), warnings (members this version
//! does not know, with the likely meaning) and the spec. A `null` where a member may be left out counts as left out.
//!
//! Bound: [`MAX_BYTES`]; larger input is refused unread. JSON nested deeper than 128 levels is refused by the parser.

mod walk;

use serde_json::Value;
use whim_wire::spec::Spec;

use super::mistake::{Mistake, Place};
use crate::written;
use walk::Walk;

/// Largest spec in bytes: room for a hundred skills, far from what would matter to memory.
pub const MAX_BYTES: usize = 32 * 1024 * 1024;

/// The outcome of reading; `spec` is there when there are no mistakes.
#[derive(Debug, Default)]
pub struct Read {
    pub spec: Option<Spec>,
    /// Where there are mistakes: what is left without them, to be looked at for further ones.
    pub rest: Option<Spec>,
    pub mistakes: Vec<Mistake>,
    pub warnings: Vec<Mistake>,
}

/// The JSON Schema of the spec (draft 2020-12).
pub fn schema() -> Value {
    written::document(written::SPEC)
}

/// Extends a JSON pointer by a member or index (RFC 6901).
pub fn pointer(base: &str, member: &str) -> String {
    format!("{base}/{}", member.replace('~', "~0").replace('/', "~1"))
}

/// Reads a spec; says nothing yet about what its values mean.
pub fn read(text: &[u8]) -> Read {
    let mut out = Read::default();
    if text.len() > MAX_BYTES {
        out.mistakes.push(whole(
            "is larger than 32 MiB",
            "leave large files to attachments",
        ));
        return out;
    }
    let mut document: Value = match serde_json::from_slice(text) {
        Ok(document) => document,
        Err(error) => {
            // serde_json's message holds position and kind, never content.
            out.mistakes.push(whole(
                format!("is no JSON: {error}"),
                "send one JSON object",
            ));
            return out;
        }
    };
    let schema = schema();
    let mut walk = Walk {
        definitions: schema.get("$defs").and_then(Value::as_object),
        out: &mut out,
        nulls: Vec::new(),
    };
    walk.compare(&schema, &document, "");
    for (parent, member) in walk.nulls {
        if let Some(Value::Object(map)) = document.pointer_mut(&parent) {
            map.shift_remove(&member);
        }
    }
    if out.mistakes.is_empty() {
        match serde_json::from_value(document) {
            Ok(spec) => out.spec = Some(spec),
            Err(error) => out.mistakes.push(whole(
                format!("cannot be read: {error}"),
                "compare with `whim spec schema`",
            )),
        }
    } else {
        out.rest = rest(&document, &out.mistakes);
    }
    out
}

/// How many levels above a mistake are taken away with it, at most: a member that must be there takes its object along.
const ABOVE: usize = 3;

/// The document without what is wrong in it, if that is a spec.
fn rest(document: &Value, mistakes: &[Mistake]) -> Option<Spec> {
    let places = || {
        mistakes.iter().filter_map(|mistake| match &mistake.place {
            Place::Spec(pointer) => Some(pointer.as_str()),
            Place::Flag(_) | Place::Variable(_) => None,
        })
    };
    (0..=ABOVE).find_map(|above| {
        let mut left = document.clone();
        for place in places() {
            let place = (0..above).try_fold(place, |place, _| parent(place))?;
            take_away(&mut left, place);
        }
        serde_json::from_value(left).ok()
    })
}

/// The pointer of what holds this; none for the whole document.
pub fn parent(pointer: &str) -> Option<&str> {
    pointer.rsplit_once('/').map(|(parent, _)| parent)
}

/// A member goes; an element goes with those behind it, so that no other gets its number.
fn take_away(document: &mut Value, pointer: &str) {
    let Some((parent, name)) = pointer.rsplit_once('/') else {
        return;
    };
    match document.pointer_mut(parent) {
        Some(Value::Object(members)) => {
            let name = name.replace("~1", "/").replace("~0", "~");
            members.shift_remove(&name);
        }
        Some(Value::Array(elements)) => elements.truncate(name.parse().unwrap_or(0)),
        _ => {}
    }
}

fn whole(problem: impl Into<String>, remedy: &str) -> Mistake {
    Mistake::new(Place::Spec(String::new()), problem, remedy)
}

/// The most similar of the known words, if it is similar enough to be meant.
pub fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|word| {
            (
                strsim::jaro_winkler(&given.to_lowercase(), &word.to_lowercase()),
                word,
            )
        })
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests;
