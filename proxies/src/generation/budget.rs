//! The hard budget: money is held before a call and settled after it.
//!
//! Pure: the caller passes the time. A call holds what its prompt is estimated to cost plus an output allowance, and
//! holds more while its answer grows; what cannot be held is refused or cut. So calls in parallel cannot spend the same
//! dollar, and the sum passes the cap by no more than what the estimates of the calls in flight fell short of: at most
//! one allowance ([`ALLOWANCE_TOKENS`] of output) of each stream, for output that no event showed.
//!
//! Three things are known only afterwards and can add to that: a prompt that was taken to be cached (the session's last
//! one, for five minutes) and was not; an answer that is not streamed and states no limit, which holds one allowance
//! (one that states a limit holds all of it, each for as many answers as are asked for); and a prompt that the provider
//! keeps and the request only names (`previous_response_id` and `conversation` of responses, unless what is gone on from
//! was a response of the same WebSocket), which is seen when the answer's count comes, at its end. What would not be seen
//! at all, an answer in the background, is refused.
//!
//! A stream that is alone may hold less than its full estimate, down to [`MINIMUM_TOKENS`] of output, so that the last
//! cents of a budget (or a small one) are of use: it is watched all the same.

mod denied;
#[cfg(test)]
mod tests;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use whim_wire::money::NanoUsd;

pub use denied::Denied;

/// Output tokens that a stream holds beyond what it has shown.
pub const ALLOWANCE_TOKENS: u64 = 4096;
/// Output tokens below which a call is not begun.
pub const MINIMUM_TOKENS: u64 = 256;
/// Shares of the cap, in per cent, that are told when the spend passes them.
pub const WARNINGS: [u8; 3] = [50, 80, 95];

/// Bounds beside each other; none is set by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Money of the task.
    pub usd: Option<NanoUsd>,
    /// Tokens of the task, all buckets together.
    pub tokens: Option<u64>,
    /// Calls within any 60 seconds.
    pub requests_per_minute: Option<u32>,
    /// Time since the task's first call, over restarts and restores.
    pub wall: Option<Duration>,
}

/// Money held for a call; to be settled.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a hold that is not settled blocks its money"]
pub struct Hold {
    amount: NanoUsd,
}

impl Hold {
    /// What is held.
    #[must_use]
    pub const fn amount(&self) -> NanoUsd {
        self.amount
    }
}

/// What a call asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Estimated cost of the prompt.
    pub prompt: NanoUsd,
    /// Cost of the output allowance.
    pub allowance: NanoUsd,
    /// Cost of the least output that makes the call worth beginning.
    pub minimum: NanoUsd,
}

/// The spend passed a share of the cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Which share, of [`WARNINGS`].
    pub percent: u8,
    /// Spent and settled.
    pub spent: NanoUsd,
    /// The cap.
    pub cap: NanoUsd,
}

/// The books of a task.
#[derive(Debug, Default)]
pub struct Budget {
    caps: Caps,
    spent: NanoUsd,
    held: NanoUsd,
    tokens: u64,
    calls: VecDeque<Instant>,
    first_call: Option<Instant>,
    warned: u8,
}

impl Budget {
    /// Books that begin with what was spent before (a restart).
    #[must_use]
    pub fn new(caps: Caps, spent: NanoUsd, tokens: u64) -> Self {
        let mut budget = Self {
            caps,
            spent,
            tokens,
            ..Self::default()
        };
        budget.warned = budget.share();
        budget
    }

    /// Whether money is capped.
    #[must_use]
    pub const fn is_capped(&self) -> bool {
        self.caps.usd.is_some()
    }

    /// The cap, what is spent, what is held.
    #[must_use]
    pub const fn state(&self) -> (Option<NanoUsd>, NanoUsd, NanoUsd) {
        (self.caps.usd, self.spent, self.held)
    }

    /// What may still be held; none without a cap.
    fn free(&self) -> Option<NanoUsd> {
        self.caps
            .usd
            .map(|cap| cap.saturating_sub(self.spent).saturating_sub(self.held))
    }

    fn denied(&self) -> Denied {
        Denied::Money {
            cap: self.caps.usd.unwrap_or_default(),
            spent: self.spent,
            held: self.held,
        }
    }

    /// Replaces all bounds. Calls in flight are watched against the new ones.
    pub fn set_caps(&mut self, caps: Caps) {
        self.caps = caps;
        self.set_cap(caps.usd);
    }

    /// The first call was at this time, if none was before.
    pub fn began(&mut self, at: Instant) {
        self.first_call = Some(self.first_call.map_or(at, |first| first.min(at)));
    }

    /// Sets or removes the cap. Calls in flight are watched against the new one.
    pub fn set_cap(&mut self, cap: Option<NanoUsd>) {
        self.caps.usd = cap;
        self.warned = self.share();
    }

    /// Begins a call.
    ///
    /// # Errors
    /// [`Denied`]: nothing is held.
    pub fn admit(&mut self, ask: Ask, now: Instant) -> Result<Hold, Denied> {
        self.check_rate(now)?;
        let full = ask.prompt.saturating_add(ask.allowance);
        let least = ask.prompt.saturating_add(ask.minimum).min(full);
        let mut amount = full;
        if let Some(free) = self.free() {
            let alone = self.held == NanoUsd::ZERO;
            if free < full && !(alone && free >= least && free > NanoUsd::ZERO) {
                return Err(self.denied());
            }
            amount = amount.min(free);
        }
        self.held = self.held.saturating_add(amount);
        self.calls.push_back(now);
        self.began(now);
        Ok(Hold { amount })
    }

    fn check_rate(&mut self, now: Instant) -> Result<(), Denied> {
        const MINUTE: Duration = Duration::from_secs(60);
        if let Some(cap) = self.caps.tokens
            && self.tokens >= cap
        {
            return Err(Denied::Tokens {
                cap,
                used: self.tokens,
            });
        }
        if let (Some(cap), Some(first)) = (self.caps.wall, self.first_call)
            && now.saturating_duration_since(first) >= cap
        {
            return Err(Denied::Time { cap });
        }
        let Some(cap) = self.caps.requests_per_minute else {
            // Without a cap nobody asks when the calls were.
            self.calls.clear();
            return Ok(());
        };
        while self
            .calls
            .front()
            .is_some_and(|at| now.saturating_duration_since(*at) >= MINUTE)
        {
            self.calls.pop_front();
        }
        let limit = usize::try_from(cap).unwrap_or(usize::MAX);
        match self.calls.front() {
            Some(oldest) if self.calls.len() >= limit => {
                let wait = MINUTE.saturating_sub(now.saturating_duration_since(*oldest));
                Err(Denied::Rate {
                    cap,
                    retry_after: wait.as_secs() + 1,
                })
            }
            _ => Ok(()),
        }
    }

    /// Holds `target` instead of what is held: less at once, more only if it is free.
    ///
    /// # Errors
    /// [`Denied`]: the hold stays as it was.
    pub fn adjust(&mut self, hold: &mut Hold, target: NanoUsd) -> Result<(), Denied> {
        let more = target.saturating_sub(hold.amount);
        let less = hold.amount.saturating_sub(target);
        if self.free().is_some_and(|free| free < more) {
            return Err(self.denied());
        }
        self.held = self.held.saturating_add(more).saturating_sub(less);
        hold.amount = target;
        Ok(())
    }

    /// Ends a call: its money is no longer held, what it cost is spent.
    #[must_use = "the warning is to be told"]
    pub fn settle(&mut self, hold: Hold, cost: NanoUsd, tokens: u64) -> Option<Warning> {
        self.held = self.held.saturating_sub(hold.amount);
        self.spent = self.spent.saturating_add(cost);
        self.tokens = self.tokens.saturating_add(tokens);
        self.warning()
    }

    /// Counts a call that was settled elsewhere, before a restore. Shares of the cap that it passes are not told.
    pub fn carry_on(&mut self, cost: NanoUsd, tokens: u64) {
        self.spent = self.spent.saturating_add(cost);
        self.tokens = self.tokens.saturating_add(tokens);
        self.warned = self.share();
    }

    /// Replaces an estimate by what a call turned out to cost.
    #[must_use = "the warning is to be told"]
    pub fn correct(&mut self, estimate: NanoUsd, cost: NanoUsd) -> Option<Warning> {
        self.spent = self.spent.saturating_sub(estimate).saturating_add(cost);
        self.warning()
    }

    fn share(&self) -> u8 {
        let Some(cap) = self.caps.usd else { return 0 };
        let passed = |percent: &&u8| {
            u128::from(self.spent.0) * 100 >= u128::from(cap.0) * u128::from(**percent)
        };
        WARNINGS.iter().rev().find(passed).copied().unwrap_or(0)
    }

    fn warning(&mut self) -> Option<Warning> {
        let percent = self.share();
        if percent <= self.warned {
            return None;
        }
        self.warned = percent;
        Some(Warning {
            percent,
            spent: self.spent,
            cap: self.caps.usd?,
        })
    }
}
