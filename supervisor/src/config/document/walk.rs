//! A JSON value compared with its schema: everything that does not fit, in the words of people.

use serde_json::{Map, Value};
use whim_wire::spec::{IdleAction, Usd};

use super::{Read, nearest, pointer};
use crate::config::mistake::{Mistake, Place};

/// Comparison with the part of JSON Schema that the generator uses for these types.
pub(super) struct Walk<'a> {
    pub(super) definitions: Option<&'a Map<String, Value>>,
    pub(super) out: &'a mut Read,
    /// Members that are `null` and may be left out: pointer of the object, name.
    pub(super) nulls: Vec<(String, String)>,
}

impl<'a> Walk<'a> {
    pub(super) fn compare(&mut self, schema: &'a Value, value: &Value, at: &str) {
        let Some(schema) = schema.as_object() else {
            return;
        };
        if let Some(name) = schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|name| name.strip_prefix("#/$defs/"))
        {
            self.definition(name, value, at);
            return;
        }
        if let Some(branches) = ["anyOf", "oneOf"]
            .iter()
            .find_map(|key| schema.get(*key))
            .and_then(Value::as_array)
        {
            self.one_of(branches, value, at);
            return;
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            self.word(words.iter().filter_map(Value::as_str).collect(), value, at);
            return;
        }
        let types = types(schema);
        if !types.is_empty() && !types.iter().any(|kind| is_of(kind, value)) {
            self.mistake(
                at,
                None,
                format!("is {}, not {}", kind_of(value), spoken(&types)),
                "change the type",
            );
            return;
        }
        match value {
            Value::Number(number) => self.number(schema, number, at),
            Value::Array(items) => {
                if let Some(schema) = schema.get("items") {
                    for (index, item) in items.iter().enumerate() {
                        self.compare(schema, item, &format!("{at}/{index}"));
                    }
                }
                if let Some(least) = schema.get("minItems").and_then(Value::as_u64)
                    && (items.len() as u64) < least
                {
                    self.mistake(at, None, "is empty".to_owned(), "leave it out, or fill it");
                }
            }
            Value::Object(map) => self.object(schema, map, at),
            _ => {}
        }
    }

    fn definition(&mut self, name: &str, value: &Value, at: &str) {
        // Their patterns are for other programs; here the types judge themselves.
        let judged = match name {
            "Usd" => Some(serde_json::from_value::<Usd>(value.clone()).map(drop)),
            "IdleAction" => Some(serde_json::from_value::<IdleAction>(value.clone()).map(drop)),
            _ => None,
        };
        match judged {
            Some(Ok(())) => {}
            Some(Err(_)) if name == "Usd" => {
                let remedy = "give dollars as a decimal string such as \"5.00\", with at most 9 digits after the point";
                self.mistake(at, Some(value), "is no amount".to_owned(), remedy);
            }
            Some(Err(_)) => {
                self.mistake(
                    at,
                    Some(value),
                    "is no action".to_owned(),
                    "use report, exit or exec:/absolute/path",
                );
            }
            None => {
                if let Some(schema) = self.definitions.and_then(|all| all.get(name)) {
                    self.compare(schema, value, at);
                }
            }
        }
    }

    /// Exactly the alternatives that occur: a nullable, words with descriptions, and objects told apart by a member.
    fn one_of(&mut self, branches: &'a [Value], value: &Value, at: &str) {
        let words: Vec<&str> = branches.iter().flat_map(words_of).collect();
        if !words.is_empty() {
            if !(value.is_null() && branches.iter().any(is_null_schema)) {
                self.word(words, value, at);
            }
            return;
        }
        let branches: Vec<&Value> = branches
            .iter()
            .filter(|branch| !is_null_schema(branch))
            .collect();
        if let [only] = branches.as_slice() {
            if !value.is_null() {
                self.compare(only, value, at);
            }
            return;
        }
        let keys: Vec<&str> = branches
            .iter()
            .filter_map(|branch| branch.get("required")?.get(0)?.as_str())
            .collect();
        let Some(map) = value.as_object() else {
            self.mistake(
                at,
                None,
                format!("is {}, not an object", kind_of(value)),
                "change the type",
            );
            return;
        };
        let mut present = branches
            .iter()
            .zip(&keys)
            .filter(|(_, key)| map.contains_key(**key));
        match (present.next(), present.next()) {
            (Some((branch, _)), None) => self.compare(branch, value, at),
            (Some(_), Some(_)) => {
                self.mistake(
                    at,
                    None,
                    format!("has more than one of {}", keys.join(", ")),
                    "keep one of them",
                );
            }
            (None, _) => self.mistake(
                at,
                None,
                format!("has none of {}", keys.join(", ")),
                "add one of them",
            ),
        }
    }

    fn word(&mut self, words: Vec<&str>, value: &Value, at: &str) {
        match value.as_str() {
            Some(given) if words.contains(&given) => {}
            Some(given) => {
                let problem = format!("is none of {}", words.join(", "));
                let remedy = match nearest(given, words.iter().copied()) {
                    Some(likely) => format!("did you mean {likely}?"),
                    None => "use one of these words".to_owned(),
                };
                self.mistake(at, Some(value), problem, &remedy);
            }
            None => self.mistake(
                at,
                None,
                format!("is {}, not a string", kind_of(value)),
                "change the type",
            ),
        }
    }

    fn number(&mut self, schema: &Map<String, Value>, number: &serde_json::Number, at: &str) {
        let least = schema.get("minimum").and_then(Value::as_u64);
        let most = schema.get("maximum").and_then(Value::as_u64).or_else(|| {
            (schema.get("format").and_then(Value::as_str) == Some("uint32"))
                .then_some(u64::from(u32::MAX))
        });
        let Some(given) = number.as_u64() else {
            self.mistake(
                at,
                Some(&Value::Number(number.clone())),
                "is no whole number from 0 up".to_owned(),
                "give one",
            );
            return;
        };
        if least.is_some_and(|least| given < least) || most.is_some_and(|most| given > most) {
            let range = match (least, most) {
                (Some(least), Some(most)) if least == most => format!("is not {least}"),
                (least, Some(most)) => format!("is not from {} to {most}", least.unwrap_or(0)),
                (least, None) => format!("is less than {}", least.unwrap_or(0)),
            };
            self.mistake(
                at,
                Some(&Value::Number(number.clone())),
                range,
                "give a number in the range",
            );
        }
    }

    fn object(&mut self, schema: &'a Map<String, Value>, map: &Map<String, Value>, at: &str) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for name in &required {
            if !map.contains_key(*name) {
                self.mistake(at, None, format!("has no `{name}`"), "add it");
            }
        }
        for (name, value) in map {
            let here = pointer(at, name);
            match properties.and_then(|all| all.get(name)) {
                Some(_) if value.is_null() && !required.contains(&name.as_str()) => {
                    self.nulls.push((at.to_owned(), name.clone()));
                }
                Some(schema) => self.compare(schema, value, &here),
                None => match (schema.get("additionalProperties"), properties) {
                    (Some(rest), _) => self.compare(rest, value, &here),
                    (None, Some(known)) => {
                        let remedy = match nearest(name, known.keys().map(String::as_str)) {
                            Some(likely) => format!("did you mean `{likely}`?"),
                            None => "it is ignored".to_owned(),
                        };
                        self.out.warnings.push(Mistake::new(
                            Place::Spec(here),
                            "is not known to this version",
                            remedy,
                        ));
                    }
                    (None, None) => {}
                },
            }
        }
    }

    /// `value` is shown only where it cannot be a secret: words, numbers and amounts.
    fn mistake(&mut self, at: &str, value: Option<&Value>, problem: String, remedy: &str) {
        let mut mistake = Mistake::new(Place::Spec(at.to_owned()), problem, remedy);
        if let Some(value) = value {
            mistake = mistake.given(value.as_str().unwrap_or(&value.to_string()));
        }
        self.out.mistakes.push(mistake);
    }
}

fn words_of(branch: &Value) -> Vec<&str> {
    match (
        branch.get("const").and_then(Value::as_str),
        branch.get("enum").and_then(Value::as_array),
    ) {
        (Some(word), _) => vec![word],
        (None, Some(words)) => words.iter().filter_map(Value::as_str).collect(),
        (None, None) => Vec::new(),
    }
}

fn is_null_schema(branch: &Value) -> bool {
    branch.get("type").and_then(Value::as_str) == Some("null")
}

fn types(schema: &Map<String, Value>) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        // Which numbers fit is told apart later, for a better message.
        "integer" | "number" => value.is_number(),
        _ => true,
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn spoken(types: &[&str]) -> String {
    let named: Vec<&str> = types
        .iter()
        .filter(|kind| **kind != "null")
        .map(|kind| match *kind {
            "boolean" => "a boolean",
            "string" => "a string",
            "array" => "an array",
            "object" => "an object",
            "integer" => "a whole number",
            other => other,
        })
        .collect();
    named.join(" or ")
}
