//! Processes that end, and supervisors that come up in the middle.

use super::*;

#[test]
fn killed_agent_is_stopped_at_once() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         2000 prompt
         2010 word busy
         2020 call 1
         4000 kill 9",
        "0 starting
         500..1000 idle
         2000 working
         4000 stopped ~ SIGKILL",
    );
}

#[test]
fn a_restarted_agent_owes_nothing_to_the_one_before() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         2000 prompt
         2010 word busy
         2020 call 1
         3000 ask d1 Bash x
         4000 kill 9
         5000 start
         5600 word idle",
        "0 starting
         500..1000 idle
         2000 working
         3200 needs_input
         4000 stopped
         5000 starting
         5600..6100 idle",
    );
}

fn left(state: AgentState) -> Remembered {
    Remembered {
        state,
        reason: "as it was".into(),
        dialog: None,
    }
}

#[test]
fn after_a_restart_of_the_supervisor_the_last_word_stands() {
    for state in [
        AgentState::Working,
        AgentState::Idle,
        AgentState::NeedsInput,
    ] {
        let mut fusion = Fusion::resume(CLAUDE, left(state), ms(0), ms(100_000));
        let verdict = fusion.evaluate(ms(100_001));
        assert_eq!(verdict.state, state);
    }
}

#[test]
fn an_agent_that_is_taken_up_is_no_agent_that_starts() {
    for state in [
        AgentState::Working,
        AgentState::Idle,
        AgentState::NeedsInput,
    ] {
        let mut fusion = Fusion::resume(CLAUDE, left(state), ms(0), ms(100_000));
        let started = Observation::Started { pid: 31 };
        fusion.observe(ms(100_000), ms(100_000), started.clone());
        assert_eq!(fusion.evaluate(ms(100_001)).state, state);
        // Another one is.
        let exit = Exit::Code(1);
        let ended = Observation::Exited { exit, note: None };
        fusion.observe(ms(100_002), ms(100_002), ended);
        fusion.observe(ms(100_003), ms(100_003), started);
        assert_eq!(fusion.evaluate(ms(100_003)).state, AgentState::Starting);
    }
}

#[test]
fn the_start_of_a_process_may_be_told_twice() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         2000 prompt
         2010 word busy
         3000 start",
        "0 starting
         500..1000 idle
         2000 working",
    );
}

#[test]
fn a_restart_in_mid_turn_goes_on_working() {
    case_with(
        &mut Fusion::resume(CLAUDE, left(AgentState::Working), ms(0), ms(0)),
        "10 word busy
         500 call 1
         4000 ends 1 turn
         4010 stop
         4012 word idle",
        "0 working
         4200..5000 idle",
    );
}

#[test]
fn a_restart_that_missed_the_end_of_the_turn() {
    case_with(
        &mut Fusion::resume(CLAUDE, left(AgentState::Working), ms(0), ms(0)),
        "50 look",
        "0 working
         4000..6000 idle",
    );
}

#[test]
fn a_restart_with_an_open_dialog_keeps_it_until_it_is_answered() {
    let mut last = left(AgentState::NeedsInput);
    last.dialog = Some(Dialog {
        id: "d7".into(),
        kind: DialogKind::Permission,
        text: "Bash: rm".into(),
        options: vec![],
    });
    case_with(
        &mut Fusion::resume(CLAUDE, last, ms(0), ms(0)),
        "60000 post a
         60020 call 1
         62000 ends 1 turn
         62010 stop",
        "0 needs_input ~ rm
         60000..60020 working
         62200..63000 idle",
    );
}
