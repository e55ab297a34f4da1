//! When the next supervisor starts, and what is said about the last one.
//!
//! Pure: knows exits and times, starts nothing. Killed from outside means started again at once, however often. A
//! supervisor that fails by itself is given time: at once at most [`EARLY_CRASHES`] times when it crashed right after it
//! was ready, and with growing pauses when it never became ready, so that a broken one does not burn the machine.

use std::time::Duration;

use nix::libc;

use crate::wait::End;

/// Exits right after ready that are answered at once, in a row.
const EARLY_CRASHES: u32 = 10;
/// How soon after ready an exit counts as such.
const EARLY: Duration = Duration::from_secs(1);
/// Kills before ready that are answered at once, in a row: a tester with `kill -9` in a loop, not the kernel's
/// out-of-memory killer meeting each new one.
const KILLS_BEFORE_READY: u32 = 128;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Starts of an upgraded binary that may fail to become ready before the keeper's own is taken again.
const UPGRADE_ATTEMPTS: u32 = 3;

/// How a supervisor ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exit {
    pub(super) end: End,
    /// How long it had been ready; `None`: never was.
    pub(super) ready_for: Option<Duration>,
    /// It had announced an upgrade.
    pub(super) upgrade: bool,
    /// The out-of-memory killer's counter: rose, did not, cannot be read.
    pub(super) out_of_memory: Option<bool>,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Restart(Duration),
    /// The very first one gave up before it was ready: the container ends with its code.
    GiveUp(u8),
}

#[derive(Debug, Default)]
pub(super) struct Policy {
    /// Some supervisor was ready once.
    was_ready: bool,
    exits: u32,
    early_crashes: u32,
    failures: u32,
    kills: u32,
    upgrade_failures: u32,
}

impl Policy {
    /// Judges an exit. `chance` is any number; it spreads the pauses of many containers.
    pub(super) fn judge(&mut self, exit: Exit, chance: u64) -> Verdict {
        let first = self.exits == 0;
        self.exits = self.exits.saturating_add(1);
        let killed = matches!(exit.end, End::Signal(signal) if from_outside(signal));
        if let Some(ready_for) = exit.ready_for {
            (
                self.was_ready,
                self.failures,
                self.kills,
                self.upgrade_failures,
            ) = (true, 0, 0, 0);
            if killed || exit.upgrade || ready_for >= EARLY {
                self.early_crashes = 0;
                return Verdict::Restart(Duration::ZERO);
            }
            self.early_crashes += 1;
            let beyond = self.early_crashes.saturating_sub(EARLY_CRASHES);
            return Verdict::Restart(pause(beyond, chance));
        }
        if let (true, false, End::Code(code)) = (first, self.was_ready, exit.end) {
            return Verdict::GiveUp(code);
        }
        self.upgrade_failures = self.upgrade_failures.saturating_add(1);
        if killed && exit.out_of_memory != Some(true) && self.kills < KILLS_BEFORE_READY {
            self.kills += 1;
            return Verdict::Restart(Duration::ZERO);
        }
        self.failures = self.failures.saturating_add(1);
        Verdict::Restart(pause(self.failures, chance))
    }

    /// Whether the upgraded binary has failed often enough to go back to our own.
    pub(super) fn upgrade_failed(&self) -> bool {
        self.upgrade_failures >= UPGRADE_ATTEMPTS
    }
}

/// Zero for zero failures, then doubling from [`FIRST_PAUSE`] to [`LONGEST_PAUSE`], of which a random half is taken off.
fn pause(failures: u32, chance: u64) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let doublings = (failures - 1).min(16);
    let whole = FIRST_PAUSE
        .saturating_mul(1 << doublings)
        .min(LONGEST_PAUSE);
    let half = whole / 2;
    let span = u64::try_from(half.as_millis()).unwrap_or(0).max(1);
    half + Duration::from_millis(chance % span)
}

/// Signals that a process does not bring upon itself.
fn from_outside(signal: i32) -> bool {
    !matches!(
        signal,
        libc::SIGSEGV
            | libc::SIGBUS
            | libc::SIGILL
            | libc::SIGFPE
            | libc::SIGABRT
            | libc::SIGTRAP
            | libc::SIGSYS
            | libc::SIGPIPE
    )
}

/// The reason in [`FromKeeper::Hello`](crate::wire::FromKeeper::Hello), for people.
pub(super) fn reason(exit: Exit) -> String {
    match (exit.end, exit.out_of_memory) {
        (End::Code(_), _) if exit.upgrade => "upgrade".to_owned(),
        (End::Code(code), _) => format!("exit code {code}"),
        (End::Signal(libc::SIGKILL), Some(true)) => "killed: out of memory".to_owned(),
        (End::Signal(libc::SIGKILL), None) => "killed (possibly out of memory)".to_owned(),
        (End::Signal(signal), _) => format!("killed by signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(end: End, ready_for: Option<u64>) -> Exit {
        Exit {
            end,
            ready_for: ready_for.map(Duration::from_millis),
            upgrade: false,
            out_of_memory: Some(false),
        }
    }

    fn at_once(policy: &mut Policy, exit: Exit) -> bool {
        policy.judge(exit, 7) == Verdict::Restart(Duration::ZERO)
    }

    #[test]
    fn a_kill_from_outside_is_answered_at_once_every_time() {
        let mut policy = Policy::default();
        for ready_for in [Some(5), Some(0), Some(5000)]
            .into_iter()
            .cycle()
            .take(1000)
        {
            assert!(at_once(
                &mut policy,
                exit(End::Signal(libc::SIGKILL), ready_for)
            ));
        }
        for _ in 0..100 {
            assert!(at_once(&mut policy, exit(End::Signal(libc::SIGKILL), None)));
        }
    }

    #[test]
    fn crashes_right_after_ready_are_answered_at_once_ten_times() {
        let mut policy = Policy::default();
        for _ in 0..EARLY_CRASHES {
            assert!(at_once(
                &mut policy,
                exit(End::Signal(libc::SIGSEGV), Some(10))
            ));
        }
        assert!(!at_once(&mut policy, exit(End::Code(70), Some(10))));
        assert!(
            at_once(&mut policy, exit(End::Code(70), Some(1000))),
            "it ran for long: not a loop"
        );
        assert!(
            at_once(&mut policy, exit(End::Code(70), Some(10))),
            "the count starts again"
        );
    }

    #[test]
    fn one_that_never_becomes_ready_is_given_growing_pauses_within_bounds() {
        let mut policy = Policy::default();
        policy.judge(exit(End::Signal(libc::SIGKILL), Some(1)), 0);
        let mut last = Duration::ZERO;
        for round in 0..40_u32 {
            let Verdict::Restart(pause) =
                policy.judge(exit(End::Code(1), None), u64::from(round) * 7919)
            else {
                panic!("gave up");
            };
            assert!(pause >= FIRST_PAUSE / 2 && pause <= LONGEST_PAUSE);
            assert!(pause >= last / 3, "{pause:?} after {last:?}");
            last = pause;
        }
        assert!(last >= LONGEST_PAUSE / 2);
        assert!(policy.upgrade_failed());
    }

    #[test]
    fn only_the_very_first_may_end_the_container() {
        let mut policy = Policy::default();
        assert_eq!(
            policy.judge(exit(End::Code(64), None), 0),
            Verdict::GiveUp(64)
        );
        let mut policy = Policy::default();
        policy.judge(exit(End::Signal(libc::SIGSEGV), None), 0);
        assert!(matches!(
            policy.judge(exit(End::Code(64), None), 0),
            Verdict::Restart(_)
        ));
    }

    #[test]
    fn the_out_of_memory_killer_before_ready_is_no_reason_to_hurry() {
        let mut policy = Policy::default();
        let oom = Exit {
            out_of_memory: Some(true),
            ..exit(End::Signal(libc::SIGKILL), None)
        };
        assert!(!at_once(&mut policy, oom));
        assert_eq!(reason(oom), "killed: out of memory");
        assert_eq!(
            reason(Exit {
                out_of_memory: None,
                ..oom
            }),
            "killed (possibly out of memory)"
        );
        assert_eq!(
            reason(Exit {
                out_of_memory: Some(false),
                ..oom
            }),
            "killed by signal 9"
        );
        assert_eq!(
            reason(Exit {
                upgrade: true,
                ..exit(End::Code(0), Some(1))
            }),
            "upgrade"
        );
    }
}
