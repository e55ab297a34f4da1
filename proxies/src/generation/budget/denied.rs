//! Which bound a call met, and the sentence that says so.

use std::time::Duration;

use whim_wire::money::NanoUsd;

/// Which bound a call met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The task's money.
    Money {
        /// The cap.
        cap: NanoUsd,
        /// Spent and settled.
        spent: NanoUsd,
        /// Held by calls in flight.
        held: NanoUsd,
    },
    /// The task's tokens.
    Tokens {
        /// The cap.
        cap: u64,
        /// Used.
        used: u64,
    },
    /// Calls per minute.
    Rate {
        /// The cap.
        cap: u32,
        /// Seconds until one more fits.
        retry_after: u64,
    },
    /// Time.
    Time {
        /// The cap.
        cap: Duration,
    },
}

impl Denied {
    /// The sentence for the person: names the cap, the spend, and how to raise it.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Money { cap, spent, held } => {
                let held = match held.0 {
                    0 => String::new(),
                    _ => format!(", ${held} held by calls in flight"),
                };
                let more = NanoUsd(cap.0.saturating_mul(2));
                format!(
                    "Budget reached: the task's budget is ${cap}, ${spent} is spent{held}. To go on, raise it with PUT \
                     /v1/budget {{\"usd\":\"{more}\"}} or --budget-usd."
                )
            }
            Self::Tokens { cap, used } => {
                format!(
                    "Token cap reached: {used} of {cap} tokens are used. To go on, start again with a higher --cap-tokens."
                )
            }
            Self::Rate { cap, retry_after } => {
                format!(
                    "More than {cap} calls in a minute (--cap-requests-per-minute); the next one fits in {retry_after} s."
                )
            }
            Self::Time { cap } => {
                format!(
                    "Time cap reached: the task may call models for {} minutes. To go on, start again with more --cap-minutes.",
                    cap.as_secs() / 60
                )
            }
        }
    }
}
