//! What real agents did, as their sources told it, and what remains true when sources are missing.
//!
//! The traces were recorded on a busy machine from the real CLIs before a scripted model: times are real, names and
//! commands shortened, processes that lived for less than 200 ms left out.

use whim_wire::state::AgentState::{self, Idle, NeedsInput, Working};

use crate::state::fusion::Fusion;
use crate::state::observation::{Observation, Profile, Title};

use super::script::{Step, case, parse, play};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Word,
    Hooks,
    Wire,
    Tree,
    Terminal,
    /// Titles that tell of rest (Codex only drops its mark of work).
    Rest,
}

fn source(observation: &Observation) -> Option<Source> {
    match observation {
        Observation::Word(_) | Observation::WordGone => Some(Source::Word),
        Observation::Hook(_) => Some(Source::Hooks),
        Observation::Generation { .. } | Observation::Calls { .. } => Some(Source::Wire),
        Observation::Tree(_) => Some(Source::Tree),
        Observation::Title(Title::Resting) => Some(Source::Rest),
        Observation::Osc(_)
        | Observation::Title(Title::Spinning)
        | Observation::Output { .. }
        | Observation::Key(_) => Some(Source::Terminal),
        _ => None,
    }
}

/// The recorder noted changes of the title's mark only; a source may tell of every frame, ten a second.
fn with_every_frame(steps: Vec<(u64, Step)>) -> Vec<(u64, Step)> {
    let frame = || Step::See(Observation::Title(Title::Spinning));
    let mut all: Vec<(u64, Step)> = Vec::new();
    let mut spinning: Option<u64> = None;
    for (at, step) in steps {
        if let Step::See(Observation::Title(title)) = &step {
            let frames = spinning
                .take()
                .into_iter()
                .flat_map(|from| (from..at).step_by(100));
            all.extend(frames.map(|at| (at, frame())));
            spinning = (*title == Title::Spinning).then_some(at);
        }
        all.push((at, step));
    }
    all.sort_by_key(|(at, _)| *at);
    all
}

/// Plays `trace` without `missing` and says where the state is not the expected one.
fn wrong(trace: &str, missing: &[Source], points: &[(u64, AgentState)]) -> Vec<String> {
    let kept = |step: &Step| match step {
        Step::See(observation) => source(observation).is_none_or(|it| !missing.contains(&it)),
        Step::Suspend { .. } | Step::Look => true,
    };
    let steps: Vec<_> = with_every_frame(parse(trace))
        .into_iter()
        .filter(|(_, step)| kept(step))
        .collect();
    let end = points.last().unwrap().0;
    let changes = play(&mut Fusion::new(Profile::INTERACTIVE), &steps, end);
    let told: Vec<String> = (changes.iter())
        .map(|change| format!("{} {}", change.at, change.verdict.state))
        .collect();
    let state = |at: u64| {
        let change = changes.iter().rfind(|change| change.at <= at);
        change.map(|change| change.verdict.state)
    };
    points
        .iter()
        .filter(|(at, expected)| state(*at) != Some(*expected))
        .map(|(at, expected)| {
            format!("without {missing:?} not {expected} at {at}; published {told:?}")
        })
        .collect()
}

/// Whatever of these sources are missing: the state in the middle of each phase is right.
#[track_caller]
fn right_without_any(missing: &[&[Source]], trace: &str, points: &[(u64, AgentState)]) {
    let wrong: Vec<String> = (missing.iter())
        .flat_map(|missing| wrong(trace, missing, points))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

const CLAUDE: [&[Source]; 11] = [
    &[],
    &[Source::Word],
    &[Source::Hooks],
    &[Source::Wire],
    &[Source::Tree],
    &[Source::Terminal, Source::Rest],
    &[Source::Word, Source::Hooks],
    &[Source::Word, Source::Wire],
    &[Source::Word, Source::Tree],
    &[Source::Hooks, Source::Wire],
    // The agent's status file and nothing else.
    &[
        Source::Hooks,
        Source::Wire,
        Source::Tree,
        Source::Terminal,
        Source::Rest,
    ],
];

/// Without its terminal nothing tells of an interrupt of Codex while a tool runs.
const CODEX: [&[Source]; 8] = [
    &[],
    &[Source::Hooks],
    &[Source::Wire],
    &[Source::Tree],
    &[Source::Hooks, Source::Wire],
    &[Source::Hooks, Source::Tree],
    &[Source::Rest],
    &[Source::Hooks, Source::Rest],
];

const PERMISSION: &str = include_str!("traces/claude_permission.txt");
const INTERRUPT: &str = include_str!("traces/claude_interrupt.txt");
const AGENTS: &str = include_str!("traces/claude_agents.txt");

#[test]
fn claude_permission() {
    case(
        Profile::INTERACTIVE,
        PERMISSION,
        "0 starting
         3074..4100 idle
         5021 working
         6698..7427 idle
         7970 working
         8850..9850 needs_input ~ asks: Bash: sleep 6; touch /home/node/x
         12017 working ~ Bash
         18778..19683 idle ~ ended
         22911 working
         23247..24247 needs_input ~ asks: Bash: touch /home/node/z
         28026..30882 idle",
    );
    right_without_any(
        &CLAUDE,
        PERMISSION,
        &[
            (7_450, Idle),
            (10_500, NeedsInput),
            (15_000, Working),
            (21_000, Idle),
            (26_000, NeedsInput),
            (31_500, Idle),
        ],
    );
}

#[test]
fn claude_interrupts() {
    case(
        Profile::INTERACTIVE,
        INTERRUPT,
        "0 starting
         1890..2900 idle
         3300 working
         4019..4876 idle ~ ended
         6285 working
         9364..12243 idle ~ interrupted
         14267 working
         18458..21245 idle ~ interrupted
         24355 working
         25135..25917 idle ~ ended",
    );
    right_without_any(
        &CLAUDE,
        INTERRUPT,
        &[
            (5_500, Idle),
            (8_500, Working),
            (12_500, Idle),
            (17_500, Working),
            (21_500, Idle),
            (27_000, Idle),
        ],
    );
}

#[test]
fn claude_background_command_and_question() {
    case(
        Profile::INTERACTIVE,
        AGENTS,
        "0 starting
         6418..7500 idle
         11267 working
         12610..13610 idle
         24127 working
         26334..27010 idle ~ a command runs in the background
         31219 working
         31736..32636 idle
         37119 working
         37537..38537 needs_input ~ AskUserQuestion
         40107..40200 working
         40528..41414 idle",
    );
    right_without_any(
        &CLAUDE,
        AGENTS,
        &[
            (14_500, Idle),
            (24_500, Working),
            (28_500, Idle),
            (34_000, Idle),
            (39_500, NeedsInput),
            (43_000, Idle),
        ],
    );
}

#[test]
fn codex_turns() {
    let trace = include_str!("traces/codex_turns.txt");
    case(
        Profile::INTERACTIVE,
        trace,
        "0 starting
         1322..2400 idle
         5017 working
         9193..10175 idle ~ ended
         13017 working
         16049..19014 idle ~ interrupted
         21020 working
         27299..28270 idle ~ ended
         32026 working
         36049..39018 idle ~ interrupted",
    );
    right_without_any(
        &CODEX,
        trace,
        &[
            (3_000, Idle),
            (7_000, Working),
            (11_000, Idle),
            (14_500, Working),
            (18_500, Idle),
            (24_000, Working),
            (29_500, Idle),
            (34_000, Working),
            (39_500, Idle),
        ],
    );
}

#[test]
fn codex_approvals() {
    let trace = include_str!("traces/codex_approval.txt");
    case(
        Profile::INTERACTIVE,
        trace,
        "0 starting
         1219..2200 idle
         5009 working
         5261..6261 needs_input ~ asks: Bash: sleep 5
         10009..10020 working
         15104..16104 idle ~ ended
         20026 working
         20124..21124 needs_input ~ asks: Bash: sleep 5
         25013..25040 working
         25037..28013 idle",
    );
    right_without_any(
        &CODEX,
        trace,
        &[
            (3_000, Idle),
            (7_500, NeedsInput),
            (12_500, Working),
            (17_500, Idle),
            (23_000, NeedsInput),
            (28_000, Idle),
        ],
    );
}
