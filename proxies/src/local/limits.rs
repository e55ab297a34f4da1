//! What the proxy allows, and how that is written: `connections=500,idle=30s`.

use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;

/// Bounds of the proxy. A client that exceeds one is told by the status in parentheses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Fields of a request (431).
    pub fields: usize,
    /// Bytes of a request's head (431).
    pub head: usize,
    /// Bytes of a request's target (414).
    pub url: usize,
    /// Fields of an answer (502).
    pub answer_fields: usize,
    /// Bytes of an answer's head (502).
    pub answer_head: usize,
    /// Client connections in all (503, connection closed).
    pub connections: usize,
    /// Requests and tunnels in progress per port (503).
    pub per_port: usize,
    /// Idle connections kept per server address; more are closed.
    pub idle_per_server: usize,
    /// A request's head must be complete within this (408).
    pub head_within: Duration,
    /// A kept connection is closed after this without a request.
    pub idle: Duration,
    /// How long requests that may wait do so for a server that is down (503).
    pub hold: Duration,
    /// Connecting to a server that listens (502).
    pub connect: Duration,
    /// From a complete request to the answer's head (504).
    pub answer_within: Duration,
    /// A peer that takes or gives nothing of a body for this long is gone.
    pub stall: Duration,
    /// Requests in progress get this long at shutdown.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fields: 256,
            head: 64 * 1024,
            url: 16 * 1024,
            answer_fields: 512,
            answer_head: 256 * 1024,
            connections: 4096,
            per_port: 1024,
            idle_per_server: 128,
            head_within: Duration::from_secs(15),
            idle: Duration::from_secs(75),
            hold: Duration::from_secs(5),
            connect: Duration::from_secs(2),
            answer_within: Duration::from_secs(300),
            stall: Duration::from_secs(300),
            drain: Duration::from_secs(2),
        }
    }
}

/// Why a text gives no limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    #[error("{0:?} is not NAME=VALUE")]
    Form(String),
    #[error("{0:?} is no limit; there are {known}", known = known())]
    Name(String),
    #[error("{name}: {value:?} is no whole number above 0")]
    Number { name: String, value: String },
    #[error("{name}: {value:?} is no time above 0, as 500ms, 30s or 5m")]
    Time { name: String, value: String },
}

/// A limit by its name.
enum Limit {
    Number(fn(&mut Limits) -> &mut usize),
    Time(fn(&mut Limits) -> &mut Duration),
}

const NAMES: [(&str, Limit); 12] = [
    (
        "connections",
        Limit::Number(|limits| &mut limits.connections),
    ),
    ("per_port", Limit::Number(|limits| &mut limits.per_port)),
    ("fields", Limit::Number(|limits| &mut limits.fields)),
    ("head", Limit::Number(|limits| &mut limits.head)),
    ("url", Limit::Number(|limits| &mut limits.url)),
    (
        "answer_fields",
        Limit::Number(|limits| &mut limits.answer_fields),
    ),
    (
        "answer_head",
        Limit::Number(|limits| &mut limits.answer_head),
    ),
    ("head_within", Limit::Time(|limits| &mut limits.head_within)),
    ("idle", Limit::Time(|limits| &mut limits.idle)),
    ("hold", Limit::Time(|limits| &mut limits.hold)),
    (
        "answer_within",
        Limit::Time(|limits| &mut limits.answer_within),
    ),
    ("stall", Limit::Time(|limits| &mut limits.stall)),
];

fn known() -> String {
    NAMES.map(|(name, _)| name).join(", ")
}

impl FromStr for Limits {
    type Err = LimitsError;

    /// The limits that are named; the others stay as they are by default.
    fn from_str(text: &str) -> Result<Self, LimitsError> {
        let mut limits = Self::default();
        for item in text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            let (name, value) = item
                .split_once('=')
                .ok_or_else(|| LimitsError::Form(item.to_owned()))?;
            let (name, value) = (name.trim(), value.trim());
            let Some((_, limit)) = NAMES.iter().find(|(known, _)| *known == name) else {
                return Err(LimitsError::Name(name.to_owned()));
            };
            let both = || (name.to_owned(), value.to_owned());
            match limit {
                Limit::Number(field) => {
                    let number = value.parse().ok().filter(|number| *number > 0);
                    *field(&mut limits) = number.ok_or_else(|| {
                        let (name, value) = both();
                        LimitsError::Number { name, value }
                    })?;
                }
                Limit::Time(field) => {
                    let time = value.parse::<SignedDuration>().ok();
                    let time = time.and_then(|time| Duration::try_from(time).ok());
                    *field(&mut limits) = time.filter(|time| !time.is_zero()).ok_or_else(|| {
                        let (name, value) = both();
                        LimitsError::Time { name, value }
                    })?;
                }
            }
        }
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_set_and_the_rest_stays() {
        let limits: Limits = "connections=500, idle=30s,answer_within=5m,head_within=1500ms"
            .parse()
            .unwrap();
        let expected = Limits {
            connections: 500,
            idle: Duration::from_secs(30),
            answer_within: Duration::from_secs(300),
            head_within: Duration::from_millis(1500),
            ..Limits::default()
        };
        assert_eq!(limits, expected);
        assert_eq!("".parse(), Ok(Limits::default()));
    }

    #[test]
    fn mistakes_name_field_value_and_remedy() {
        let error = |text: &str| text.parse::<Limits>().unwrap_err().to_string();
        assert_eq!(error("idle"), "\"idle\" is not NAME=VALUE");
        assert_eq!(error("url=0"), "url: \"0\" is no whole number above 0");
        assert_eq!(error("url=-1"), "url: \"-1\" is no whole number above 0");
        for time in ["0s", "-5s", "soon", "30"] {
            assert_eq!(
                error(&format!("idle={time}")),
                format!("idle: {time:?} is no time above 0, as 500ms, 30s or 5m")
            );
        }
        assert!(error("speed=1").starts_with("\"speed\" is no limit; there are connections, "));
    }
}
