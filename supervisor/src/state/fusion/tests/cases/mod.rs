//! The table of cases. Times in milliseconds from the agent's start; the traces of the real CLIs are in their shapes.

mod dialogs;
mod doubt;
mod kinds;
mod restarts;

use whim_wire::state::{AgentState, Dialog, DialogKind};

use crate::state::fusion::{Fusion, Remembered};
use crate::state::observation::{Exit, Manner, Observation, Profile};

use super::script::{case, case_with, ms, parse, play};

const CLAUDE: Profile = Profile::INTERACTIVE;

#[test]
fn claude_turn_with_all_sources() {
    case(
        CLAUDE,
        "0 start
         100..6100 output
         500 session
         700 word idle
         2000 prompt
         2010 word busy
         2020 side 1
         2030 call 2
         2400 ends 1 turn
         3000 ends 2 tool
         3010 pre a Bash ls
         3040 post a
         3060 call 3
         5000 ends 3 turn
         5010 stop
         5020 word idle
         65000 idle-reminder",
        "0 starting
         700..1200 idle ~ ready
         2000 working
         5100..6000 idle ~ turn ended",
    );
}

#[test]
fn a_prompt_in_the_arguments_shows_no_idle_before_it() {
    case(
        CLAUDE,
        "0 start
         500 session
         560 word idle
         640 prompt
         650 word busy
         660 call 1
         1660 ends 1 turn
         1670 stop
         1675 word idle",
        "0 starting
         640 working
         1900..2600 idle",
    );
}

#[test]
fn the_gap_between_two_queued_prompts_is_not_seen() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         2000 prompt
         2001 word busy
         2010 call 1
         4000 ends 1 turn
         4010 stop
         4012 word idle
         4095 prompt
         4097 word busy
         4100 call 2
         6000 ends 2 turn
         6010 stop
         6012 word idle",
        "0 starting
         500..1000 idle
         2000 working
         6200..7000 idle",
    );
}

#[test]
fn five_minutes_of_tests_without_a_model_call() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         2000 prompt
         2010 word busy
         2020 call 1
         4000 ends 1 tool
         4010 pre a Bash cargo test
         4100..304000 child 82 bash -c eval 'cargo test'
         304010 post a
         304020 call 2
         306000 ends 2 turn
         306010 stop
         306012 word idle",
        "0 starting
         500..1000 idle
         2000 working
         306200..307000 idle",
    );
}

#[test]
fn the_reason_names_the_tool() {
    let script = "0 start
         500 word idle
         2000 prompt
         2010 word busy
         2020 call 1
         4000 ends 1 tool
         4010 pre a Bash cargo test
         4100..300000 child 82 bash -c eval 'cargo test'";
    let mut fusion = Fusion::new(CLAUDE);
    let steps: Vec<_> = parse(script)
        .into_iter()
        .filter(|(at, _)| *at <= 250_000)
        .collect();
    play(&mut fusion, &steps, 250_000);
    assert_eq!(
        fusion.evaluate(ms(250_000)).reason,
        "tool Bash running 4 min, 82 % CPU: cargo test"
    );
}

#[test]
fn the_same_with_the_wire_alone() {
    case(
        Profile {
            asks: false,
            ..CLAUDE
        },
        "0 start
         100..600 output
         2000 call 1
         4000 ends 1 tool
         4100..304000 child 82 cargo test
         304020 call 2
         306000 ends 2 turn",
        "0 starting
         2000 working
         306500..307000 idle",
    );
}

#[test]
fn side_calls_never_count() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         2000 side 1
         9000 ends 1 turn
         9500 side 2",
        "0 starting
         500..1000 idle",
    );
}

#[test]
fn a_prompt_suggestion_after_the_turn_does_not_flicker() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         2000 prompt
         2010 word busy
         2020 call 1
         4000 ends 1 turn
         4010 stop
         4012 word idle
         4050 call 2
         6000 ends 2 turn",
        "0 starting
         500..1000 idle
         2000 working
         4012..5000 idle",
    );
}

#[test]
fn a_background_agent_works_after_the_turn() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         2000 prompt
         2010 word busy
         2020 call 1
         3000 ends 1 tool
         3010 pre t Agent
         3020 sub+ s1
         3030 post t
         3040 call 2
         3050 call 3
         4000 ends 3 turn
         4010 stop
         4012 word idle
         9000 ends 2 tool
         9010 subpre s1 c Bash
         9100..20000 child 50 make
         20000 post c
         20020 call 4
         22000 ends 4 turn
         22010 sub- s1",
        "0 starting
         500..1000 idle
         2000 working
         22000..26000 idle",
    );
}

#[test]
fn a_stop_hook_of_the_repository_sends_the_agent_on() {
    case(
        CLAUDE,
        "0 start
         500 session
         2000 prompt
         2020 call 1
         4000 ends 1 turn
         4010 stop
         4060 call 2
         6000 ends 2 turn
         6010 stop",
        "0 starting
         2000 working
         6200..7000 idle",
    );
}

#[test]
fn the_agent_retries_after_errors() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         2000 prompt
         2010 word busy
         2020 call 1
         2100 ends 1 error
         32100 call 2
         34000 ends 2 turn
         34010 stop
         34012 word idle",
        "0 starting
         500..1000 idle
         2000 working
         34200..35000 idle",
    );
}

#[test]
fn a_refused_call_ends_the_turn_with_its_reason() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         2000 prompt
         2010 word busy
         2020 call 1
         2030 ends 1 refused
         2100 stop
         2102 word idle",
        "0 starting
         500..1000 idle
         2000 working
         2300..3100 idle ~ refused",
    );
}

#[test]
fn work_that_only_a_delivered_prompt_speaks_for_is_said_to_be_so() {
    let look = |trace: &str, at: u64| {
        let mut fusion = Fusion::new(CLAUDE);
        play(&mut fusion, &parse(trace), at);
        fusion.evaluate(ms(at)).credited
    };
    let delivered = "0 start
         500 word idle
         10000 deliver";
    assert!(look(delivered, 10_100));
    assert!(look(delivered, 14_900));
    assert!(!look(delivered, 17_000), "idle again");
    for sign in ["10050 prompt", "10050 word busy", "10050 call 1"] {
        assert!(!look(&format!("{delivered}\n{sign}"), 10_100), "{sign}");
    }
}

#[test]
fn a_delivered_prompt_is_work_at_once_but_not_for_ever() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         2000 deliver
         2300 prompt
         2310 word busy
         5000 stop
         5002 word idle
         10000 deliver",
        "0 starting
         500..1000 idle
         2000 working ~ prompt
         5200..6000 idle
         10000 working
         14000..16000 idle",
    );
}

#[test]
fn silence_of_the_model_becomes_stalled_not_idle() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         2000 prompt
         2010 word busy
         2020 call 1
         900000 bytes 1
         901000 ends 1 turn
         901010 stop
         901012 word idle",
        "0 starting
         500..1000 idle
         2000 working
         302000..308000 working stalled ~ no progress for
         900000 working
         901200..902000 idle",
    );
}

#[test]
fn a_hung_tool_becomes_stalled_not_idle() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         2000 prompt
         2010 word busy
         2020 call 1
         3000 ends 1 tool
         3010 pre a Bash nc -l 1
         3020..1000000 child 0 nc -l 1",
        "0 starting
         500..1000 idle
         2000 working
         603000..609000 working stalled ~ Bash",
    );
}

#[test]
fn a_suspended_machine_is_neither_stalled_nor_idle_afterwards() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         2000 prompt
         2010 word busy
         2020 call 1
         3000..803000 suspended
         803500 bytes 1
         805000 ends 1 turn
         805010 stop
         805012 word idle",
        "0 starting
         500..1000 idle
         2000 working
         805200..806000 idle",
    );
}

#[test]
fn a_turn_that_ended_around_the_suspension() {
    case(
        CLAUDE,
        "0 start
         500 session
         2000 prompt
         2020 call 1
         3000 ends 1 turn
         3100..63000 suspended
         63005 stop",
        "0 starting
         2000 working
         63000..65000 idle",
    );
}

#[test]
fn a_dev_server_left_behind_is_no_work() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         2000 prompt
         2010 word busy
         2020 call 1
         3000 ends 1 tool
         3010 pre a Bash npm run dev
         3020..100000 child 3 node vite
         3500 post a
         3520 call 2
         5000 ends 2 turn
         5010 stop
         5012 word idle",
        "0 starting
         500..1000 idle
         2000 working
         5200..6000 idle ~ still running: node vite",
    );
}

#[test]
fn an_mcp_server_is_no_tool() {
    let mut fusion = Fusion::new(CLAUDE);
    let steps = parse(
        "0 start
         300..100000 child 30 node mcp-server
         500 session
         2000 prompt
         2020 call 1
         3000 ends 1 tool
         3010 pre a mcp__x__y",
    );
    let steps: Vec<_> = steps.into_iter().filter(|(at, _)| *at <= 13_010).collect();
    play(&mut fusion, &steps, 13_010);
    assert_eq!(
        fusion.evaluate(ms(13_010)).reason,
        "tool mcp__x__y running 10 s"
    );
}

#[test]
fn a_retry_pause_shows_only_on_the_screen() {
    case(
        CLAUDE,
        "0 start
         100..600 output
         2000 call 1
         2000..30000 output
         2100 ends 1 error
         20000 call 2
         20100 ends 2 error",
        "0 starting
         2000 working
         30000..36000 idle ~ failed",
    );
    let quiet = Profile {
        animates: false,
        ..CLAUDE
    };
    case(
        quiet,
        "0 start
         2000 call 1
         2100 ends 1 error",
        "0 starting
         2000 working
         6000..8000 idle ~ failed",
    );
}

#[test]
fn a_long_call_after_the_turn_is_work_after_all() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         2000 call 1
         60000 ends 1 turn",
        "0 starting
         500..1000 idle
         4000..5000 working
         60000..61000 idle",
    );
}

#[test]
fn a_start_without_any_sign() {
    case(
        CLAUDE,
        "0 start
         40000 look",
        "0 starting
         30000..30500 idle ~ no sign",
    );
}
