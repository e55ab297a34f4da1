//! How long the rules wait, and why. Measured figures are of Claude Code 2.1.197 and Codex 0.169.0.

use std::time::Duration;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// From the end of all work to `idle`. A queued prompt starts about 80 ms after the turn before it; tools follow each
/// other within 20 ms; a person is promised `idle` within 1 s.
pub(super) const SETTLE: Duration = ms(300);
/// The status file and the hooks are written by different code paths; how far one may be behind the other.
pub(super) const SOURCES_APART: Duration = ms(700);
/// A hook that claims work against a newer "idle" of the status file must be confirmed within this.
pub(super) const CONFIRM: Duration = ms(1_500);
/// A permission that a rule answers by itself is no dialog.
pub(super) const DIALOG_SETTLE: Duration = ms(200);
/// From an interrupt key to `idle` when nothing works any more; promised within 3 s.
pub(super) const INTERRUPT: Duration = ms(1_500);
/// A delivered prompt shows effect (hook, status, model call) within this, or it was no prompt.
pub(super) const PROMPT_CREDIT: Duration = ms(5_000);
/// With only the wire to go by: from the model's end of turn to `idle`. A subagent's end is followed by the call of its
/// parent within milliseconds.
pub(super) const WIRE_END: Duration = ms(600);
/// The model ended its turn and a signal that should follow did not come.
pub(super) const SIGNAL_LOST: Duration = ms(3_000);
/// After the agent hung up on the model: a retry or a steered turn follows at once, or it was an interrupt.
pub(super) const HUNG_UP: Duration = ms(1_500);
/// With no signal of its own an agent in a retry pause is only known by its moving screen; longest pause without one.
pub(super) const RETRY_PAUSE: Duration = ms(5_000);
/// A model call against the word of the status file (Claude's prompt suggestions take 1–2 s; background agents longer).
pub(super) const SUGGESTION: Duration = ms(2_500);
/// Between two steps of a background agent.
pub(super) const BETWEEN_STEPS: Duration = ms(3_000);
/// A terminal state sequence without any other sign of work.
pub(super) const OSC_CREDIT: Duration = ms(10_000);
/// Agents that animate repaint several times a second while they work; a screen still for this long is at rest.
pub(super) const STILL: Duration = ms(2_500);
/// A restored "working" without any sign of life.
pub(super) const RESTORED: Duration = ms(5_000);
/// A start without any sign of readiness.
pub(super) const READY: Duration = ms(30_000);
/// A one-shot agent that said nothing yet counts as at work after this.
pub(super) const ONESHOT_START: Duration = ms(1_000);
/// A custom agent that neither prints nor computes.
pub(super) const CUSTOM_REST: Duration = ms(2_000);
/// CPU use (percent of one core) that counts as work of a custom agent; an idle TUI takes about 2.
pub(super) const CUSTOM_CPU: u32 = 5;
/// CPU use (percent of one core) of a tool that counts as progress.
pub(super) const PROGRESS_CPU: u32 = 1;
/// A look at the process tree says nothing after this.
pub(super) const TREE_AGE: Duration = ms(15_000);
/// Processes younger than this may be the agent's hooks.
pub(super) const SHORT_LIVED: Duration = ms(200);
/// `/proc` gives start times in ticks of 10 ms, rounded down.
pub(super) const START_SLACK: Duration = ms(50);
/// Without progress: stalled. A tool may rest longer than a model (`sleep`, a download) ...
pub(super) const STALL_TOOL: Duration = Duration::from_secs(600);
/// ... a model call longer than an agent between two steps: some think for minutes before the first byte ...
pub(super) const STALL_MODEL: Duration = Duration::from_secs(300);
pub(super) const STALL_OTHER: Duration = Duration::from_secs(180);
/// While anything is awaited the fusion is to be evaluated at least this often, so that lost time is noticed ...
pub(super) const BEAT: Duration = ms(5_000);
/// ... which is when an evaluation comes later than asked for by more than this: the machine or the supervisor was
/// suspended, and no agent could have made progress.
pub(super) const LATE: Duration = ms(1_000);
