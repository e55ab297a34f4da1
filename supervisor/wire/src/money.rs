//! Amounts of money: an integer of nano-dollars inside, a decimal string in USD outside.
//!
//! No amount ever passes through a float. The string has at least two and at most nine fractional digits and loses none;
//! parsing refuses what cannot be held exactly instead of rounding it. Sums stop at the largest amount (18.4 billion
//! dollars) instead of wrapping: a cap compared with such a sum still refuses.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const NANOS_PER_DOLLAR: u64 = 1_000_000_000;

/// A non-negative amount in nano-dollars (10⁻⁹ USD).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NanoUsd(pub u64);

impl NanoUsd {
    pub const ZERO: Self = Self(0);
    pub const MAX: Self = Self(u64::MAX);

    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl std::iter::Sum for NanoUsd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Self::saturating_add)
    }
}

impl fmt::Display for NanoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:09}", self.0 % NANOS_PER_DOLLAR);
        let mut digits = fraction.trim_end_matches('0').to_owned();
        while digits.len() < 2 {
            digits.push('0');
        }
        write!(f, "{}.{digits}", self.0 / NANOS_PER_DOLLAR)
    }
}

/// Why a text is no amount of money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("not a decimal amount in USD such as \"5.00\"")]
    Form,
    #[error("more than nine fractional digits")]
    Precision,
    #[error("larger than 18446744073.709551615 USD")]
    Range,
}

impl FromStr for NanoUsd {
    type Err = MoneyError;

    /// Digits, optionally a point and digits; no sign, exponent, separator or space.
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return Err(MoneyError::Form);
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > 9 {
            return Err(MoneyError::Precision);
        }
        let nanos: u64 = format!("{fraction:0<9}")
            .parse()
            .map_err(|_| MoneyError::Form)?;
        let whole = whole.trim_start_matches('0');
        let dollars: u64 = match whole {
            "" => 0,
            _ => whole.parse().map_err(|_| MoneyError::Range)?,
        };
        dollars
            .checked_mul(NANOS_PER_DOLLAR)
            .and_then(|n| n.checked_add(nanos))
            .map(Self)
            .ok_or(MoneyError::Range)
    }
}

impl Serialize for NanoUsd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NanoUsd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = NanoUsd;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a decimal string in USD such as \"5.00\"")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<NanoUsd, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for NanoUsd {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Usd".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9]+(\\.[0-9]{1,9})?$", "examples": ["5.00", "0.012345678"]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn form() {
        for (nanos, text) in [
            (0, "0.00"),
            (5_000_000_000, "5.00"),
            (12_345_678, "0.012345678"),
            (1_500_000_000, "1.50"),
            (1, "0.000000001"),
            (u64::MAX, "18446744073.709551615"),
        ] {
            assert_eq!(NanoUsd(nanos).to_string(), text);
            assert_eq!(text.parse(), Ok(NanoUsd(nanos)));
        }
        assert_eq!("5".parse(), Ok(NanoUsd(5_000_000_000)));
        assert_eq!(
            "0005.10000000000000".parse(),
            Ok(NanoUsd(5_100_000_000)),
            "zeros carry no value"
        );
    }

    #[test]
    fn refused() {
        use MoneyError::{Form, Precision, Range};
        for (text, error) in [
            ("", Form),
            (".", Form),
            ("5.", Form),
            (".5", Form),
            ("-1", Form),
            ("+1", Form),
            ("1e3", Form),
            ("1,000", Form),
            (" 1", Form),
            ("NaN", Form),
            ("٣", Form),
            ("0.0000000001", Precision),
            ("18446744073.709551616", Range),
            ("99999999999999999999999", Range),
        ] {
            assert_eq!(text.parse::<NanoUsd>(), Err(error), "{text}");
        }
        assert!(
            serde_json::from_str::<NanoUsd>("5.0").is_err(),
            "a JSON number is a float"
        );
    }

    proptest! {
        #[test]
        fn nothing_is_lost(nanos: u64) {
            let amount = NanoUsd(nanos);
            let json = serde_json::to_string(&amount).unwrap();
            prop_assert_eq!(serde_json::from_str::<NanoUsd>(&json).unwrap(), amount);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC*") {
            if let Ok(amount) = text.parse::<NanoUsd>() {
                prop_assert_eq!(amount.to_string().parse(), Ok(amount));
            }
        }
    }
}
