//! As much of JSON Schema as the platform's document uses.
//!
//! A keyword that is not known here is a fault of the document's, because it would pass without a check.

use serde_json::{Map, Value};

/// Keywords that say nothing about a value.
const SILENT: [&str; 1] = ["description"];
/// Deeper than any schema of the document's; a `$ref` to itself ends here.
const DEEPEST: usize = 32;

/// What is wrong with `value`, each with its place; nothing for a value that fits.
pub(super) fn check(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    Check {
        document,
        wrong: &mut wrong,
    }
    .value(schema, value, "", 0);
    wrong
}

struct Check<'a> {
    document: &'a Value,
    wrong: &'a mut Vec<String>,
}

impl Check<'_> {
    fn value(&mut self, schema: &Value, value: &Value, at: &str, depth: usize) {
        let Some(schema) = schema.as_object().filter(|_| depth < DEEPEST) else {
            self.wrong.push(format!("{at}: no schema"));
            return;
        };
        for (keyword, rule) in schema {
            self.keyword(schema, keyword, rule, value, at, depth);
        }
    }

    fn keyword(
        &mut self,
        schema: &Map<String, Value>,
        keyword: &str,
        rule: &Value,
        value: &Value,
        at: &str,
        depth: usize,
    ) {
        let limit = || rule.as_u64().unwrap_or_default();
        let length = |value: &Value| match value {
            Value::String(text) => text.chars().count() as u64,
            Value::Array(items) => items.len() as u64,
            _ => 0,
        };
        let fits = match keyword {
            "$ref" => {
                let pointer = rule.as_str().and_then(|name| name.strip_prefix('#'));
                let document = self.document;
                let target = pointer.and_then(|pointer| document.pointer(pointer));
                self.value(target.unwrap_or(&Value::Null), value, at, depth + 1);
                true
            }
            "type" => match rule {
                Value::Array(types) => types.iter().any(|name| is_a(name, value)),
                name => is_a(name, value),
            },
            "enum" => rule
                .as_array()
                .is_some_and(|allowed| allowed.contains(value)),
            "minimum" => value.as_f64().is_none_or(|number| number >= limit() as f64),
            "maximum" => value.as_f64().is_none_or(|number| number <= limit() as f64),
            "minLength" => !value.is_string() || length(value) >= limit(),
            "maxLength" => !value.is_string() || length(value) <= limit(),
            "minItems" => !value.is_array() || length(value) >= limit(),
            "maxItems" => !value.is_array() || length(value) <= limit(),
            "format" => value.as_str().is_none_or(|text| is_time(rule, text)),
            "required" => {
                let names = rule
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str);
                let missing: Vec<&str> = names
                    .filter(|name| value.is_object() && value.get(name).is_none())
                    .collect();
                for name in &missing {
                    self.wrong.push(format!("{at}/{name}: is missing"));
                }
                true
            }
            "properties" => {
                for (name, rule) in rule.as_object().into_iter().flatten() {
                    if let Some(member) = value.get(name) {
                        self.value(rule, member, &format!("{at}/{name}"), depth + 1);
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = schema.get("properties");
                let known = |name: &str| known.is_some_and(|known| known.get(name).is_some());
                if *rule == Value::Bool(false) {
                    for name in value.as_object().into_iter().flat_map(Map::keys) {
                        if !known(name) {
                            self.wrong
                                .push(format!("{at}/{name}: is not in the document"));
                        }
                    }
                }
                rule.is_boolean()
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    self.value(rule, item, &format!("{at}/{index}"), depth + 1);
                }
                true
            }
            other => {
                if !SILENT.contains(&other) {
                    self.wrong.push(format!(
                        "{at}: the document's keyword {other} is not known here"
                    ));
                }
                true
            }
        };
        if !fits {
            self.wrong
                .push(format!("{at}: {value} does not fit {keyword} {rule}"));
        }
    }
}

fn is_a(name: &Value, value: &Value) -> bool {
    match name.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        _ => false,
    }
}

/// The one form of time that the host writes: `2026-11-22T03:04:05.678Z`.
fn is_time(format: &Value, text: &str) -> bool {
    let shape = b"0000-00-00T00:00:00.000Z";
    format == "date-time"
        && text.len() == shape.len()
        && text.bytes().zip(shape).all(|(byte, shape)| match shape {
            b'0' => byte.is_ascii_digit(),
            other => byte == *other,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_does_not_fit_is_named_with_its_place() {
        let document = json!({"a": {"type": "object", "additionalProperties": false, "required": ["n", "m"],
            "properties": {"n": {"type": "integer", "minimum": 1}, "t": {"type": ["string", "null"], "format": "date-time"}}}});
        let schema = json!({"type": "array", "maxItems": 2, "items": {"$ref": "#/a"}});
        let fits = json!([{"n": 1, "m": 1, "t": "2026-11-22T03:04:05.678Z"}]);
        // `m` is required and not in the properties.
        assert_eq!(
            check(&document, &schema, &fits),
            ["/0/m: is not in the document"]
        );
        let wrong = check(
            &document,
            &schema,
            &json!([{"n": 0}, {"n": "x", "m": 1, "t": "today"}, 3]),
        );
        let all = wrong.join("\n");
        for part in [
            "maxItems",
            "/0/m: is missing",
            "/0/n: 0 does not fit minimum",
            "/1/n: \"x\" does not fit type",
            "/1/t: \"today\" does not fit format",
            "/2: 3 does not fit type",
        ] {
            assert!(all.contains(part), "{part} in {all}");
        }
    }

    #[test]
    fn an_unknown_keyword_does_not_pass() {
        let wrong = check(&json!({}), &json!({"pattern": "x"}), &json!("y"));
        assert!(wrong[0].contains("pattern"), "{wrong:?}");
    }
}
