//! Points in time as every JSON document writes them: RFC 3339 in UTC with exactly three fractional digits.
//!
//! A [`Time`] is cut to the millisecond when it is made, so a value that went through JSON equals the one that did not.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A wall-clock time, millisecond precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Timestamp);

impl Time {
    /// The epoch: the earliest value that the product ever writes.
    pub const EPOCH: Self = Self(Timestamp::UNIX_EPOCH);

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn as_millisecond(self) -> i64 {
        self.0.as_millisecond()
    }

    /// The same point for calendar arithmetic.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        self.0
    }
}

impl From<Timestamp> for Time {
    fn from(timestamp: Timestamp) -> Self {
        // Only the ends of jiff's range (years -9999 and 9999) cannot be cut; they stay as they are.
        Self(Timestamp::from_millisecond(timestamp.as_millisecond()).unwrap_or(timestamp))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

impl FromStr for Time {
    type Err = jiff::Error;

    /// Accepts any RFC 3339 timestamp, whatever its offset.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<Timestamp>().map(Self::from)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Time;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 timestamp")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Time, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text).map_err(D::Error::custom)
    }
}

impl JsonSchema for Time {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn always_three_digits_and_utc() {
        let second: Time = "2026-11-22T03:04:05Z".parse().unwrap();
        assert_eq!(second.to_string(), "2026-11-22T03:04:05.000Z");
        let offset: Time = "2026-11-22T03:04:05.1239+02:00".parse().unwrap();
        assert_eq!(offset.to_string(), "2026-11-22T01:04:05.123Z");
    }

    proptest! {
        #[test]
        fn json_round_trip_is_exact(ns in -62_000_000_000_000_000_000i128..250_000_000_000_000_000_000i128) {
            let time = Time::from(Timestamp::from_nanosecond(ns).unwrap());
            let text = serde_json::to_string(&time).unwrap();
            prop_assert_eq!(serde_json::from_str::<Time>(&text).unwrap(), time);
            prop_assert_eq!(text.trim_matches('"').rsplit_once('.').unwrap().1.len(), 4);
        }
    }
}
