//! The hard budget: money is held before a call and settled after it.
//!
//! Pure: the caller passes the time. A call holds what its prompt is estimated to cost plus an output allowance, and
//! holds more while its answer grows; what cannot be held is refused or cut. So calls in parallel cannot spend the same
//! dollar, and the sum passes the cap by no more than what the estimates of the calls in flight fell short of: at most
//! one allowance ([`ALLOWANCE_TOKENS`] of output) of each stream, for output that no event showed.
//!
//! Two things are known only afterwards and can add to that: a prompt that was taken to be cached (the session's last
//! one, for five minutes) and was not, and an answer that is not streamed and states no limit, which holds one
//! allowance; one that states a limit holds all of it.
//!
//! A call that is alone may hold less than its full estimate, down to [`MINIMUM_TOKENS`] of output, so that the last
//! cents of a budget (or a small one) are of use: its stream is watched all the same.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use whim_wire::money::NanoUsd;

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
    /// Time since the first call.
    pub wall: Option<Duration>,
}

/// Money held for a call; to be settled.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a hold that is not settled blocks its money"]
pub struct Hold {
    amount: NanoUsd,
    session: String,
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
        /// It is the session's own cap.
        of_session: bool,
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
            Self::Money {
                cap,
                spent,
                held,
                of_session,
            } => {
                let whose = if *of_session {
                    "this session's budget"
                } else {
                    "the task's budget"
                };
                let held = match held.0 {
                    0 => String::new(),
                    _ => format!(", ${held} held by calls in flight"),
                };
                let how = if *of_session {
                    "start a session with a higher one".to_owned()
                } else {
                    let more = NanoUsd(cap.0.saturating_mul(2));
                    format!("raise it with PUT /v1/budget {{\"usd\":\"{more}\"}} or --budget-usd")
                };
                format!(
                    "Budget reached: {whose} is ${cap}, ${spent} is spent{held}. To go on, {how}."
                )
            }
            Self::Tokens { cap, used } => {
                format!(
                    "Token cap reached: {used} of {cap} tokens are used. To go on, raise the task's token cap."
                )
            }
            Self::Rate { cap, retry_after } => {
                format!("More than {cap} calls in a minute; the next one fits in {retry_after} s.")
            }
            Self::Time { cap } => {
                format!(
                    "Time cap reached: the task may call models for {} s.",
                    cap.as_secs()
                )
            }
        }
    }
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

#[derive(Debug, Default)]
struct Account {
    cap: Option<NanoUsd>,
    spent: NanoUsd,
    held: NanoUsd,
}

impl Account {
    /// What may still be held; none without a cap.
    fn free(&self) -> Option<NanoUsd> {
        self.cap
            .map(|cap| cap.saturating_sub(self.spent).saturating_sub(self.held))
    }

    fn denied(&self, of_session: bool) -> Denied {
        Denied::Money {
            cap: self.cap.unwrap_or_default(),
            spent: self.spent,
            held: self.held,
            of_session,
        }
    }
}

/// The books of a task.
#[derive(Debug, Default)]
pub struct Budget {
    caps: Caps,
    task: Account,
    sessions: HashMap<String, Account>,
    tokens: u64,
    calls: VecDeque<Instant>,
    first_call: Option<Instant>,
    warned: u8,
    in_flight: u64,
}

impl Budget {
    /// Books that begin with what was spent before (a restart).
    pub fn new(
        caps: Caps,
        spent: NanoUsd,
        tokens: u64,
        by_session: impl IntoIterator<Item = (String, NanoUsd)>,
    ) -> Self {
        let account = |(session, spent)| {
            (
                session,
                Account {
                    spent,
                    ..Account::default()
                },
            )
        };
        let mut budget = Self {
            caps,
            task: Account {
                cap: caps.usd,
                spent,
                held: NanoUsd::ZERO,
            },
            sessions: by_session.into_iter().map(account).collect(),
            tokens,
            ..Self::default()
        };
        budget.warned = budget.share();
        budget
    }

    /// Whether money is capped, for this session or at all.
    #[must_use]
    pub fn is_capped(&self, session_cap: Option<NanoUsd>) -> bool {
        self.task.cap.is_some() || session_cap.is_some()
    }

    /// The cap, what is spent, what is held.
    #[must_use]
    pub const fn state(&self) -> (Option<NanoUsd>, NanoUsd, NanoUsd) {
        (self.task.cap, self.task.spent, self.task.held)
    }

    /// Sets or removes the cap. Calls in flight are watched against the new one.
    pub fn set_cap(&mut self, cap: Option<NanoUsd>) {
        self.caps.usd = cap;
        self.task.cap = cap;
        self.warned = self.share();
    }

    /// Begins a call.
    ///
    /// # Errors
    /// [`Denied`]: nothing is held.
    pub fn admit(
        &mut self,
        session: &str,
        session_cap: Option<NanoUsd>,
        ask: Ask,
        now: Instant,
    ) -> Result<Hold, Denied> {
        self.check_rate(now)?;
        let own = self.sessions.entry(session.to_owned()).or_default();
        own.cap = session_cap;
        let full = ask.prompt.saturating_add(ask.allowance);
        let least = ask.prompt.saturating_add(ask.minimum).min(full);
        let mut amount = full;
        for (account, of_session) in [(&*own, true), (&self.task, false)] {
            let Some(free) = account.free() else { continue };
            let alone = account.held == NanoUsd::ZERO;
            if free < full && !(alone && free >= least && free > NanoUsd::ZERO) {
                return Err(account.denied(of_session));
            }
            amount = amount.min(free);
        }
        own.held = own.held.saturating_add(amount);
        self.task.held = self.task.held.saturating_add(amount);
        self.in_flight += 1;
        self.calls.push_back(now);
        self.first_call.get_or_insert(now);
        Ok(Hold {
            amount,
            session: session.to_owned(),
        })
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
        let own = self.sessions.entry(hold.session.clone()).or_default();
        for (account, of_session) in [(&*own, true), (&self.task, false)] {
            if account.free().is_some_and(|free| free < more) {
                return Err(account.denied(of_session));
            }
        }
        for account in [own, &mut self.task] {
            account.held = account.held.saturating_add(more).saturating_sub(less);
        }
        hold.amount = target;
        Ok(())
    }

    /// Ends a call: its money is no longer held, what it cost is spent.
    #[must_use = "the warning is to be told"]
    pub fn settle(&mut self, hold: Hold, cost: NanoUsd, tokens: u64) -> Option<Warning> {
        let own = self.sessions.entry(hold.session).or_default();
        for account in [own, &mut self.task] {
            account.held = account.held.saturating_sub(hold.amount);
            account.spent = account.spent.saturating_add(cost);
        }
        self.tokens = self.tokens.saturating_add(tokens);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.warning()
    }

    /// Replaces an estimate by what a call turned out to cost.
    #[must_use = "the warning is to be told"]
    pub fn correct(&mut self, session: &str, estimate: NanoUsd, cost: NanoUsd) -> Option<Warning> {
        let own = self.sessions.entry(session.to_owned()).or_default();
        for account in [own, &mut self.task] {
            account.spent = account.spent.saturating_sub(estimate).saturating_add(cost);
        }
        self.warning()
    }

    fn share(&self) -> u8 {
        let Some(cap) = self.task.cap else { return 0 };
        let passed = |percent: &&u8| {
            u128::from(self.task.spent.0) * 100 >= u128::from(cap.0) * u128::from(**percent)
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
            spent: self.task.spent,
            cap: self.task.cap?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(prompt: u64, allowance: u64, minimum: u64) -> Ask {
        Ask {
            prompt: NanoUsd(prompt),
            allowance: NanoUsd(allowance),
            minimum: NanoUsd(minimum),
        }
    }

    fn capped(usd: u64) -> Budget {
        Budget::new(
            Caps {
                usd: Some(NanoUsd(usd)),
                ..Caps::default()
            },
            NanoUsd::ZERO,
            0,
            [],
        )
    }

    #[test]
    fn two_hundred_at_once_with_money_for_three() {
        let mut budget = capped(350);
        let now = Instant::now();
        let admitted =
            (0..200).filter_map(|_| budget.admit("main", None, ask(40, 60, 10), now).ok());
        assert_eq!(admitted.count(), 3);
    }

    #[test]
    fn the_last_cents_serve_one_call_alone() {
        let mut budget = capped(50);
        let now = Instant::now();
        let hold = budget.admit("main", None, ask(10, 100, 20), now).unwrap();
        assert_eq!(hold.amount(), NanoUsd(50));
        assert!(
            budget.admit("main", None, ask(0, 1, 1), now).is_err(),
            "not two"
        );
        assert_eq!(
            budget.settle(hold, NanoUsd(25), 0).map(|w| w.percent),
            Some(50)
        );
        assert!(
            budget.admit("main", None, ask(10, 100, 20), now).is_err(),
            "25 left, 30 needed"
        );
        assert!(budget.admit("main", None, ask(5, 100, 20), now).is_ok());
    }

    #[test]
    fn a_hold_grows_only_into_free_money() {
        let mut budget = capped(100);
        let now = Instant::now();
        let mut a = budget.admit("a", None, ask(10, 30, 5), now).unwrap();
        let b = budget.admit("b", None, ask(10, 30, 5), now).unwrap();
        assert!(budget.adjust(&mut a, NanoUsd(60)).is_ok());
        assert!(budget.adjust(&mut a, NanoUsd(61)).is_err());
        assert_eq!(a.amount(), NanoUsd(60));
        assert!(budget.adjust(&mut a, NanoUsd(20)).is_ok());
        budget.set_cap(Some(NanoUsd(200)));
        assert!(
            budget.adjust(&mut a, NanoUsd(160)).is_ok(),
            "raised while running"
        );
        assert_eq!(budget.settle(b, NanoUsd(0), 0), None);
        assert!(budget.settle(a, NanoUsd(160), 0).is_some());
        assert_eq!(
            budget.state(),
            (Some(NanoUsd(200)), NanoUsd(160), NanoUsd(0))
        );
    }

    #[test]
    fn a_session_may_have_its_own_cap() {
        let mut budget = capped(1000);
        let now = Instant::now();
        let hold = budget
            .admit("s", Some(NanoUsd(100)), ask(50, 50, 1), now)
            .unwrap();
        let denied = budget
            .admit("s", Some(NanoUsd(100)), ask(50, 50, 1), now)
            .unwrap_err();
        assert!(matches!(
            denied,
            Denied::Money {
                of_session: true,
                ..
            }
        ));
        assert!(budget.admit("other", None, ask(50, 50, 1), now).is_ok());
        assert_eq!(budget.settle(hold, NanoUsd(1), 0), None);
    }

    #[test]
    fn warnings_come_once_and_again_after_a_raise() {
        let mut budget = capped(100);
        let now = Instant::now();
        let spend = |budget: &mut Budget, cost| {
            let hold = budget.admit("main", None, ask(0, 1, 1), now).unwrap();
            budget.settle(hold, NanoUsd(cost), 0).map(|w| w.percent)
        };
        assert_eq!(spend(&mut budget, 49), None);
        assert_eq!(spend(&mut budget, 1), Some(50));
        assert_eq!(spend(&mut budget, 1), None);
        assert_eq!(spend(&mut budget, 45), Some(95));
        budget.set_cap(Some(NanoUsd(1000)));
        assert_eq!(spend(&mut budget, 404), Some(50));
    }

    #[test]
    fn other_caps() {
        let now = Instant::now();
        let caps = Caps {
            requests_per_minute: Some(2),
            ..Caps::default()
        };
        let mut budget = Budget::new(caps, NanoUsd::ZERO, 0, []);
        for _ in 0..2 {
            let hold = budget.admit("m", None, ask(1, 1, 1), now).unwrap();
            assert_eq!(budget.settle(hold, NanoUsd(1), 1), None);
        }
        let denied = budget
            .admit("m", None, ask(1, 1, 1), now + Duration::from_secs(20))
            .unwrap_err();
        assert_eq!(
            denied,
            Denied::Rate {
                cap: 2,
                retry_after: 41
            }
        );
        assert!(
            budget
                .admit("m", None, ask(1, 1, 1), now + Duration::from_secs(60))
                .is_ok()
        );

        let mut budget = Budget::new(
            Caps {
                tokens: Some(10),
                ..Caps::default()
            },
            NanoUsd::ZERO,
            10,
            [],
        );
        assert!(matches!(
            budget.admit("m", None, ask(1, 1, 1), now),
            Err(Denied::Tokens { .. })
        ));

        let mut budget = Budget::new(
            Caps {
                wall: Some(Duration::from_secs(60)),
                ..Caps::default()
            },
            NanoUsd::ZERO,
            0,
            [],
        );
        assert!(budget.admit("m", None, ask(1, 1, 1), now).is_ok());
        let later = now + Duration::from_secs(60);
        assert!(matches!(
            budget.admit("m", None, ask(1, 1, 1), later),
            Err(Denied::Time { .. })
        ));
    }

    #[test]
    fn the_sentence_names_cap_spend_and_remedy() {
        let denied = Denied::Money {
            cap: NanoUsd(5_000_000_000),
            spent: NanoUsd(4_990_000_000),
            held: NanoUsd(0),
            of_session: false,
        };
        let message = denied.message();
        for part in [
            "$5.00",
            "$4.99",
            "PUT /v1/budget {\"usd\":\"10.00\"}",
            "--budget-usd",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }

    proptest! {
        /// Whatever calls come and go, what is held and spent never passes the cap, if calls cost what they hold.
        #[test]
        fn holds_never_pass_the_cap(cap in 0u64..10_000, steps: Vec<(u8, u16, u16)>) {
            let mut budget = capped(cap);
            let now = Instant::now();
            let mut holds = Vec::new();
            for (what, a, b) in steps {
                let (a, b) = (u64::from(a) % 500, u64::from(b) % 500);
                match what % 3 {
                    0 => holds.extend(budget.admit("m", None, ask(a, b, 1), now).ok()),
                    1 => if let Some(hold) = holds.last_mut() {
                        let _refused = budget.adjust(hold, NanoUsd(a + b));
                    },
                    _ => if let Some(hold) = holds.pop() {
                        let cost = hold.amount();
                        let _told = budget.settle(hold, cost, 0);
                    },
                }
                let (_, spent, held) = budget.state();
                prop_assert!(spent.0 + held.0 <= cap);
                prop_assert_eq!(held.0, holds.iter().map(|h| h.amount().0).sum::<u64>());
            }
        }
    }
}
