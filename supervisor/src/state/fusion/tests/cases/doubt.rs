//! Sources that are silent, late, lost or lie.

use super::*;

#[test]
fn a_lost_stop_hook() {
    case(
        CLAUDE,
        "0 start
         500 session
         2000 prompt
         2020 call 1
         4000 ends 1 turn",
        "0 starting
         2000 working
         4000..8000 idle",
    );
}

#[test]
fn late_and_doubled_hooks_do_not_reopen_a_turn() {
    let mut fusion = Fusion::new(CLAUDE);
    let steps = parse(
        "0 start
         500 session
         2000 prompt
         3010 pre a Bash ls
         3050 post a
         4000 stop",
    );
    play(&mut fusion, &steps, 10_000);
    for (at, step) in steps.iter().filter(|(at, _)| *at >= 2_000) {
        if let super::super::script::Step::See(observation) = step {
            fusion.observe(ms(*at), ms(10_000), observation.clone());
            assert_eq!(
                fusion.evaluate(ms(10_000)).state,
                AgentState::Idle,
                "{observation:?}"
            );
        }
    }
}

#[test]
fn forged_sequences_never_stand_against_wire_or_processes() {
    // A `cat` prints all states while the model answers, and while a tool runs.
    case(
        CLAUDE,
        "0 start
         1000 osc idle
         2000 osc working
         2050 call 1
         2500 osc done
         2600 osc blocked
         2700 osc clear
         4000 ends 1 tool
         4050..30000 child 50 cat evil
         5000 osc idle
         10000 osc blocked
         20000 osc clear
         30020 call 2
         32000 ends 2 turn
         32010 osc done",
        "0 starting
         1000..1500 idle
         2000 working
         32010..33000 idle",
    );
}

#[test]
fn a_forged_working_does_not_hold_the_machine() {
    case(
        CLAUDE,
        "0 start
         1000 osc idle
         2000 osc working
         2050 call 1
         4000 ends 1 turn
         4010 osc done
         10000 osc working",
        "0 starting
         1000..1500 idle
         2000 working
         4010..5000 idle
         10000 working
         10000..20500 idle",
    );
}

#[test]
fn no_own_word_and_a_still_screen_after_a_tool_request() {
    case(
        CLAUDE,
        "0 start
         100..1000 output
         5000 call 1
         5000..7000 output
         7000 ends 1 tool
         7100 echo",
        "0 starting
         1000..4000 idle
         5000 working
         7100..10000 needs_input",
    );
}

#[test]
fn no_own_word_and_a_tool_inside_the_agent() {
    case(
        CLAUDE,
        "0 start
         100..1000 output
         5000 call 1
         7000 ends 1 tool
         5000..67000 output
         67000 call 2
         69000 ends 2 turn",
        "0 starting
         1000..4000 idle
         5000 working
         69600..70000 idle",
    );
}

#[test]
fn the_file_vanishes_and_the_hooks_carry_on() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         1000 prompt
         1010 word busy
         1500 gone
         1600 call 1
         3000 ends 1 turn
         3010 stop",
        "0 starting
         500..1000 idle
         1000 working
         3200..4000 idle",
    );
}

#[test]
fn lost_ends_of_calls_are_reconciled() {
    case(
        CLAUDE,
        "0 start
         1000 call 1
         1100 call 2
         5000 ends 2 turn
         60000 calls",
        "0 starting
         1000 working
         60000..64000 idle",
    );
}

#[test]
fn lost_starts_of_calls_are_reconciled() {
    case(
        CLAUDE,
        "0 start
         1000 calls 7
         9000 ends 7 turn",
        "0 starting
         1000 working ~ model
         9500..10000 idle",
    );
}

#[test]
fn a_refused_call_never_started() {
    case(
        CLAUDE,
        "0 start
         500 session
         2000 prompt
         2010 ends 1 refused
         2600 stop",
        "0 starting
         2000 working
         2600..3600 idle ~ refused",
    );
}

#[test]
fn a_hook_against_the_status_file_must_be_confirmed() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         5000 prompt",
        "0 starting
         500..1000 idle
         5000 working
         6500..7000 idle",
    );
}

#[test]
fn a_background_agent_whose_end_was_lost_does_not_work_for_ever() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         2000 prompt
         2010 word busy
         2100 sub+ s1
         2200 call 2
         4010 stop
         4012 word idle
         9000 ends 2 turn",
        "0 starting
         500..1000 idle
         2000 working
         9300..13000 idle",
    );
}

#[test]
fn a_process_tree_that_is_no_longer_looked_at_says_nothing() {
    let mut fusion = Fusion::new(CLAUDE);
    let steps = parse(
        "0 start
         1000 osc idle
         2000 osc working
         2050 call 1
         4000 ends 1 tool
         4050..300000 child 50 make
         6000 osc idle",
    );
    // The looks end.
    let steps: Vec<_> = steps.into_iter().filter(|(at, _)| *at <= 6_000).collect();
    let changes = play(&mut fusion, &steps, 60_000);
    let last = changes.last().unwrap();
    assert_eq!(last.verdict.state, AgentState::Idle);
    assert!((15_000..22_000).contains(&last.at), "{}", last.at);
}

#[test]
fn a_tool_that_seems_to_start_before_it_was_asked_for() {
    // Start times are rounded down to ticks of 10 ms.
    let mut fusion = Fusion::new(CLAUDE);
    let steps = parse(
        "0 start
         500 session
         2000 prompt
         4019 pre a Bash make
         4010..60000 child 82 make",
    );
    let steps: Vec<_> = steps.into_iter().filter(|(at, _)| *at <= 14_000).collect();
    play(&mut fusion, &steps, 14_000);
    assert_eq!(
        fusion.evaluate(ms(14_019)).reason,
        "tool Bash running 10 s, 82 % CPU: make"
    );
}
