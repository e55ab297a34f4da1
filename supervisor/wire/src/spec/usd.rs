use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Digits after the point that a nano-dollar allows.
const DECIMALS: usize = 9;
const NANOS_PER_USD: u64 = 1_000_000_000;

/// An amount of US dollars, kept as an integer of nano-dollars; a decimal string in JSON (a JSON number is accepted
/// too, because people write `"usd": 5`). At most about 18.4 thousand million dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Usd(u64);

/// Why a text is not an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsdError {
    #[error("not a decimal amount such as 5 or 0.25")]
    NotDecimal,
    #[error("more than 9 digits after the point")]
    TooPrecise,
    #[error("too large")]
    TooLarge,
}

impl Usd {
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nano-dollars.
    pub const fn nanos(self) -> u64 {
        self.0
    }
}

impl FromStr for Usd {
    type Err = UsdError;

    /// Digits, optionally a point and digits; no sign, no exponent, no separators.
    fn from_str(text: &str) -> Result<Self, UsdError> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return Err(UsdError::NotDecimal);
        }
        if fraction.len() > DECIMALS {
            return Err(UsdError::TooPrecise);
        }
        let whole: u64 = whole.parse().map_err(|_| UsdError::TooLarge)?;
        let fraction: u64 = format!("{fraction:0<DECIMALS$}")
            .parse()
            .map_err(|_| UsdError::NotDecimal)?;
        whole
            .checked_mul(NANOS_PER_USD)
            .and_then(|nanos| nanos.checked_add(fraction))
            .map(Self)
            .ok_or(UsdError::TooLarge)
    }
}

impl fmt::Display for Usd {
    /// The shortest decimal with at least two digits after the point: `5.00`, `0.012345678`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:09}", self.0 % NANOS_PER_USD);
        let fraction = fraction.trim_end_matches('0');
        write!(f, "{}.{fraction:0<2}", self.0 / NANOS_PER_USD)
    }
}

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Text(String),
            // Its text is parsed, so that 0.1 stays exactly 0.1.
            Number(serde_json::Number),
        }
        let text = match Given::deserialize(deserializer)? {
            Given::Text(text) => text,
            Given::Number(number) => number.to_string(),
        };
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Usd {
    fn schema_name() -> Cow<'static, str> {
        "Usd".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "US dollars as a decimal string, at most 9 digits after the point.",
            "type": ["string", "number"],
            "pattern": r"^[0-9]+(\.[0-9]{1,9})?$",
            "minimum": 0,
        })
    }
}
