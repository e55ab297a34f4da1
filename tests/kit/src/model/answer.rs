//! An answer before it is put into a wire format, and what the formats share.

use bytes::Bytes;
use serde_json::{Value, json};

use super::script::{Reply, Usage};
use super::tools::Call;

/// A reply with all that the script left open decided.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// The provider's id of the generation.
    pub(super) id: String,
    pub(super) model: String,
    pub(super) reply: Reply,
    pub(super) calls: Vec<Call>,
    /// OpenRouter's additions: cost in usage, the provider's name.
    pub(super) router: bool,
    /// Seconds since the epoch.
    pub(super) created: u64,
}

impl Answer {
    pub(super) fn usage(&self) -> &Usage {
        &self.reply.usage
    }

    /// The provider's word for why it stopped; formats differ in theirs.
    pub(super) fn stop_reason<'a>(&'a self, on_tools: &'a str, on_end: &'a str) -> &'a str {
        let own = if self.calls.is_empty() {
            on_end
        } else {
            on_tools
        };
        self.reply.stop_reason.as_deref().unwrap_or(own)
    }

    /// Adds what OpenRouter adds to a provider's usage: `cost`, `is_byok`, `cost_details`
    /// (<https://openrouter.ai/docs/use-cases/usage-accounting>).
    pub(super) fn add_cost(&self, usage: &mut Value) {
        if let (true, Some(usage)) = (self.router, usage.as_object_mut()) {
            usage.insert("cost".into(), self.cost());
            usage.insert(
                "is_byok".into(),
                self.usage().upstream_cost.is_some().into(),
            );
            let upstream = self.usage().upstream_cost.clone().unwrap_or(Value::Null);
            usage.insert(
                "cost_details".into(),
                json!({"upstream_inference_cost": upstream}),
            );
        }
    }

    /// `usage.cost`: the script's, or a price per token that is a round number of nano-dollars.
    pub(super) fn cost(&self) -> Value {
        let usage = self.usage();
        usage.cost.clone().unwrap_or_else(|| {
            let prompt =
                usage.input + usage.cache_read + usage.cache_write_5m + usage.cache_write_1h;
            let nano = prompt * 1_000 + usage.output * 5_000;
            format!("{}.{:09}", nano / 1_000_000_000, nano % 1_000_000_000)
                .parse::<f64>()
                .map_or(Value::Null, Value::from)
        })
    }
}

/// An SSE event with a name.
pub(super) fn named_event(name: &str, data: &Value) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

/// An SSE event with data only.
pub(super) fn plain_event(data: &Value) -> Bytes {
    Bytes::from(format!("data: {data}\n\n"))
}

/// Text in the portions in which models send it: a few words each, nothing lost.
pub(super) fn portions(text: &str) -> Vec<&str> {
    const LEAST: usize = 24;
    let mut portions = Vec::new();
    let mut rest = text;
    while let Some(end) = rest
        .char_indices()
        .find(|&(at, char)| at >= LEAST && char == ' ')
        .map(|(at, _)| at)
    {
        let (portion, after) = rest.split_at(end);
        portions.push(portion);
        rest = after;
    }
    if !rest.is_empty() {
        portions.push(rest);
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_lose_nothing() {
        let text = "Ein längerer Satz, der in Stücken kommt – auch mit Umlauten und 🦀 dazwischen.";
        let portions = portions(text);
        assert!(portions.len() > 2);
        assert_eq!(portions.concat(), text);
    }
}
