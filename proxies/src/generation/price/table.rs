//! The table: reading LiteLLM's schema, layering overrides, finding a model.
//!
//! <https://raw.githubusercontent.com/BerriAI/litellm/main/model_prices_and_context_window.schema.json>. Keys that are
//! not about text tokens are passed over, as the schema demands of readers. Numbers are read from their text.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use serde_json::value::RawValue;

use super::super::money::{AttoUsd, Multiplier, PriceTextError};
use super::{ModelPrice, Rates, names};

/// Where the shipped rates come from is written in the file itself.
static SHIPPED_JSON: &str = include_str!("../../../data/prices.json");

/// Parsed at the first use, so that a start without a model call does not pay for it.
static SHIPPED: LazyLock<Models> = LazyLock::new(|| match parse(SHIPPED_JSON) {
    Ok(models) => models,
    // A test reads the same constant.
    Err(error) => {
        tracing::error!(%error, "the price table of this build cannot be read");
        Models::default()
    }
});

/// Why a price file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Not a JSON object.
    #[error("not a JSON object of models")]
    Json(#[source] serde_json::Error),
    /// A model's entry is no object.
    #[error("{model}: not an object")]
    Model {
        /// Name of the entry.
        model: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A rate is no price.
    #[error("{model}: {key}: {source}")]
    Rate {
        /// Name of the entry.
        model: String,
        /// Key of the rate.
        key: String,
        /// What is wrong.
        source: PriceTextError,
    },
    /// A model has no input or no output rate.
    #[error("{model}: {key} is missing")]
    Missing {
        /// Name of the entry.
        model: String,
        /// Key of the rate.
        key: &'static str,
    },
}

#[derive(Debug, Default)]
struct Models {
    by_name: HashMap<String, Arc<ModelPrice>>,
    dearest: Option<Arc<ModelPrice>>,
}

/// Prices by model: the user's first, then those that ship with the program.
#[derive(Clone, Debug, Default)]
pub struct PriceTable {
    overrides: Option<Arc<Models>>,
}

impl PriceTable {
    /// The shipped prices alone.
    #[must_use]
    pub fn shipped() -> Self {
        Self::default()
    }

    /// The shipped prices under those of a file's text.
    ///
    /// # Errors
    /// [`TableError`] names the model and key.
    pub fn with_overrides(json: &str) -> Result<Self, TableError> {
        let overrides = Some(Arc::new(parse(json)?));
        Ok(Self { overrides })
    }

    /// The model's price under any of its spellings.
    #[must_use]
    pub fn find(&self, model: &str) -> Option<Arc<ModelPrice>> {
        let overrides = self.overrides.as_deref();
        // As it is written first of all; nothing shipped goes before another spelling of the user's.
        if let Some(price) = overrides.unwrap_or(&SHIPPED).by_name.get(model) {
            return Some(Arc::clone(price));
        }
        let names = names::candidates(model);
        let layers = overrides.into_iter().chain(std::iter::once(&*SHIPPED));
        layers
            .flat_map(|models| names.iter().filter_map(|name| models.by_name.get(name)))
            .next()
            .cloned()
    }

    /// The dearest model of all, for what has no price of its own.
    #[must_use]
    pub fn dearest(&self) -> Option<Arc<ModelPrice>> {
        let overrides = self.overrides.as_deref().and_then(|m| m.dearest.clone());
        let shipped = SHIPPED.dearest.clone();
        overrides
            .into_iter()
            .chain(shipped)
            .max_by_key(|price| price.dearness())
    }
}

fn parse(json: &str) -> Result<Models, TableError> {
    let entries: HashMap<String, &RawValue> =
        serde_json::from_str(json).map_err(TableError::Json)?;
    let mut models = Models::default();
    for (model, entry) in entries {
        // Names of descriptions begin with an underscore here, and LiteLLM's own is `sample_spec`.
        if model.starts_with('_') || model == "sample_spec" || model == "fallback_generalizations" {
            continue;
        }
        if let Some(price) = parse_model(&model, entry.get())? {
            models.by_name.insert(model, Arc::new(price));
        }
    }
    models.dearest = models
        .by_name
        .values()
        .max_by_key(|price| price.dearness())
        .cloned();
    Ok(models)
}

/// None for models that are not sold by the token.
fn parse_model(model: &str, json: &str) -> Result<Option<ModelPrice>, TableError> {
    let error = |source| TableError::Model {
        model: model.to_owned(),
        source,
    };
    let fields: HashMap<String, &RawValue> = serde_json::from_str(json).map_err(error)?;
    let mut price = ModelPrice::default();
    for (key, value) in &fields {
        let text = value.get();
        let rate_error = |source| TableError::Rate {
            model: model.to_owned(),
            key: key.clone(),
            source,
        };
        match key.as_str() {
            "max_output_tokens" => price.max_output = text.parse().ok(),
            "provider_specific_entry" => {
                let named: HashMap<String, &RawValue> =
                    serde_json::from_str(text).unwrap_or_default();
                for (name, by) in named {
                    if let Ok(by) = Multiplier::parse(by.get().trim_matches('"')) {
                        price.multipliers.push((name, by));
                    }
                }
            }
            "search_context_cost_per_query" => {
                let sizes: HashMap<String, &RawValue> =
                    serde_json::from_str(text).unwrap_or_default();
                let rates = sizes.values().filter_map(|v| AttoUsd::parse(v.get()).ok());
                price.per_search = rates.max().unwrap_or_default();
            }
            _ => {
                let Some((bucket, above, service)) = rate_key(key) else {
                    continue;
                };
                if text == "null" {
                    continue;
                }
                let rate = AttoUsd::parse(text.trim_matches('"')).map_err(rate_error)?;
                *bucket(price.rates(above, service)) = Some(rate);
            }
        }
    }
    if price.standard.is_empty() && price.services.is_empty() {
        return Ok(None);
    }
    let base = price.rates(0, "");
    for (rate, key) in [
        (base.input, "input_cost_per_token"),
        (base.output, "output_cost_per_token"),
    ] {
        if rate.is_none() {
            return Err(TableError::Missing {
                model: model.to_owned(),
                key,
            });
        }
    }
    Ok(Some(price))
}

impl ModelPrice {
    fn rates(&mut self, above: u64, service: &str) -> &mut Rates {
        let tiers = if service.is_empty() {
            &mut self.standard
        } else {
            self.services.entry(service.to_owned()).or_default()
        };
        tiers.entry(above).or_default()
    }
}

type Bucket = fn(&mut Rates) -> &mut Option<AttoUsd>;

/// Takes `cache_creation_input_token_cost_above_1hr_above_200k_tokens_priority` apart; none for other keys.
fn rate_key(key: &str) -> Option<(Bucket, u64, &str)> {
    const KEYS: [(&str, Bucket); 5] = [
        ("cache_creation_input_token_cost_above_1hr", |r| {
            &mut r.cache_write_1h
        }),
        ("cache_creation_input_token_cost", |r| &mut r.cache_write_5m),
        ("cache_read_input_token_cost", |r| &mut r.cache_read),
        ("input_cost_per_token", |r| &mut r.input),
        ("output_cost_per_token", |r| &mut r.output),
    ];
    let (rest, bucket) = KEYS
        .iter()
        .find_map(|(name, bucket)| key.strip_prefix(name).map(|rest| (rest, *bucket)))?;
    let (above, rest) = match rest.strip_prefix("_above_") {
        Some(rest) => {
            let (thousands, rest) = rest.split_once("k_tokens")?;
            (thousands.parse::<u64>().ok()?.checked_mul(1000)?, rest)
        }
        None => (0, rest),
    };
    let service = match rest.strip_prefix('_') {
        Some(service @ ("priority" | "flex" | "batches" | "ultrafast")) => service,
        Some(_) => return None,
        None if rest.is_empty() => "",
        None => return None,
    };
    Some((bucket, above, service))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_table_can_be_read() {
        let models = parse(SHIPPED_JSON).unwrap();
        assert!(models.by_name.len() > 300, "{}", models.by_name.len());
        assert!(models.dearest.is_some());
    }

    #[test]
    fn keys() {
        let taken = |key| rate_key(key).map(|(_, above, service)| (above, service.to_owned()));
        assert_eq!(taken("input_cost_per_token"), Some((0, String::new())));
        assert_eq!(
            taken("input_cost_per_token_above_272k_tokens_flex"),
            Some((272_000, "flex".into()))
        );
        let long = "cache_creation_input_token_cost_above_1hr_above_200k_tokens";
        assert_eq!(taken(long), Some((200_000, String::new())));
        for other in [
            "input_cost_per_token_audio",
            "input_cost_per_image",
            "output_cost_per_token_above_x",
        ] {
            assert_eq!(taken(other), None, "{other}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let error = |json| PriceTable::with_overrides(json).unwrap_err().to_string();
        assert_eq!(error("[]"), "not a JSON object of models");
        assert_eq!(error(r#"{"m":1}"#), "m: not an object");
        assert_eq!(
            error(r#"{"m":{"input_cost_per_token":-1e-6,"output_cost_per_token":1}}"#),
            "m: input_cost_per_token: negative"
        );
        assert_eq!(
            error(r#"{"m":{"input_cost_per_token":1e-6}}"#),
            "m: output_cost_per_token is missing"
        );
    }
}
