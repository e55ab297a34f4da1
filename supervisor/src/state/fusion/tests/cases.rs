//! The table of cases. Times in milliseconds from the agent's start; the traces of the real CLIs are in their shapes.

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
fn permission_dialog_by_file_and_hooks() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         2000 prompt
         2010 word busy
         2020 call 1
         3000 ends 1 tool
         3010 pre a Bash curl x
         3050 ask d1 Bash curl x
         3060 word waiting
         9000 remind
         12000 word busy
         12010..72000 child 5 curl x
         72010 post a
         72020 call 2
         73000 ends 2 turn
         73010 stop
         73012 word idle",
        "0 starting
         500..1000 idle
         2000 working
         3050..4000 needs_input ~ asks: Bash: curl x
         12000 working
         73200..74000 idle",
    );
}

#[test]
fn permission_dialog_by_hooks_alone() {
    case(
        CLAUDE,
        "0 start
         500 session
         2000 prompt
         2020 call 1
         3000 ends 1 tool
         3010 pre a Bash curl x
         3050 ask d1 Bash curl x
         9000 remind
         12000..72000 child 5 curl x
         72010 post a
         72020 call 2
         73000 ends 2 turn
         73010 stop",
        "0 starting
         2000 working
         3050..4000 needs_input ~ asks: Bash: curl x
         12000..12600 working ~ tool Bash
         73200..74000 idle",
    );
}

#[test]
fn permission_dialog_by_file_alone() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         2010 word busy
         3060 word waiting
         12000 word busy
         73012 word idle",
        "0 starting
         500..1000 idle
         2010 working
         3060 needs_input ~ permission prompt
         12000 working
         73012..74000 idle",
    );
}

#[test]
fn a_dialog_stays_while_subagents_and_other_tools_go_on() {
    case(
        CLAUDE,
        "0 start
         500 session
         2000 prompt
         2020 call 1
         3000 ends 1 tool
         3005 pre t Agent
         3010 sub+ s1
         3020 call 2
         3050 pre a Bash curl x
         3060 pre b Read
         3070 ask d1 Bash curl x
         3100 post b
         5000 ends 2 tool
         5010 subpre s1 c Bash
         5500 post c
         5510 call 3
         9000 ends 3 turn
         20000 post a
         20010 sub- s1
         20020 post t
         20030 call 4
         21000 ends 4 turn
         21010 stop",
        "0 starting
         2000 working
         3270 needs_input
         20000 working
         21200..22000 idle",
    );
}

#[test]
fn a_dialog_of_an_unnamed_tool_is_that_of_the_newest() {
    case(
        CLAUDE,
        "0 start
         500 session
         2000 prompt
         3050 pre b Read
         3060 pre a Bash curl x
         3070 ask d1
         3500 post b
         9000 post a
         9100 stop",
        "0 starting
         2000 working
         3070..4070 needs_input
         9000 working
         9100..10100 idle",
    );
}

#[test]
fn a_permission_that_a_rule_answers_is_no_dialog() {
    case(
        CLAUDE,
        "0 start
         500 session
         2000 prompt
         3010 pre a Bash curl x
         3050 ask d1 Bash curl x
         3150 post a
         4000 stop",
        "0 starting
         2000 working
         4200..5000 idle",
    );
}

#[test]
fn denying_in_the_dialog_ends_the_turn() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         2000 prompt
         2010 word busy
         3010 pre a Bash curl x
         3050 ask d1 Bash curl x
         3060 word waiting
         8000 key esc
         8020 word idle",
        "0 starting
         500..1000 idle
         2000 working
         3050..4000 needs_input
         8020..9000 idle",
    );
}

#[test]
fn escape_in_a_dialog_without_the_file() {
    case(
        CLAUDE,
        "0 start
         500 session
         2000 prompt
         2100 call 1
         3000 ends 1 tool
         3010 pre a Bash curl x
         3050 ask d1 Bash curl x
         8000 key esc",
        "0 starting
         2000 working
         3050..4000 needs_input
         8000..11000 idle ~ interrupted",
    );
}

#[test]
fn escape_in_the_stream_with_the_file() {
    case(
        CLAUDE,
        "0 start
         500 word idle
         2000 prompt
         2010 word busy
         2020 call 1
         4000 key esc
         4010 ends 1 left
         4015 word idle",
        "0 starting
         500..1000 idle
         2000 working
         4015..7000 idle ~ interrupted",
    );
}

#[test]
fn escape_in_the_stream_with_hooks_only() {
    case(
        CLAUDE,
        "0 start
         500 session
         2000 prompt
         2020 call 1
         4000 key esc
         4010 ends 1 left",
        "0 starting
         2000 working
         4010..7000 idle ~ interrupted",
    );
}

#[test]
fn escape_in_a_tool_with_hooks_only() {
    case(
        CLAUDE,
        "0 start
         500 session
         2000 prompt
         2020 call 1
         3000 ends 1 tool
         3010 pre a Bash sleep 600
         3100..8050 child 0 sleep 600
         8000 key esc",
        "0 starting
         2000 working
         8000..11000 idle ~ interrupted",
    );
}

#[test]
fn an_escape_that_only_closed_a_menu_does_not_end_a_running_tool() {
    case(
        CLAUDE,
        "0 start
         500 session
         2000 prompt
         2020 call 1
         3000 ends 1 tool
         3010 pre a Bash sleep 60
         3100..63000 child 0 sleep 60
         8000 key esc
         63010 post a
         63020 call 2
         64000 ends 2 turn
         64010 stop",
        "0 starting
         2000 working
         64200..65000 idle",
    );
}

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
        if let super::script::Step::See(observation) = step {
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

#[test]
fn codex_turn_by_terminal_sequences_and_wire() {
    case(
        CLAUDE,
        "0 start
         1000 osc idle
         2000 osc working
         2050 call 1
         2055 call 2
         3000 ends 1 tool
         3010..3500 child 90 ls
         3600 call 3
         5000 ends 3 turn
         5010 osc done
         5012 osc idle
         9000 ends 2 turn",
        "0 starting
         1000..1500 idle
         2000 working
         5012..6000 idle",
    );
}

#[test]
fn codex_interrupt() {
    case(
        CLAUDE,
        "0 start
         1000 osc idle
         2000 osc working
         2050 call 1
         4000 key esc
         4010 osc idle
         4030 ends 1 left",
        "0 starting
         1000..1500 idle
         2000 working
         4010..5000 idle ~ interrupted",
    );
}

#[test]
fn codex_approval() {
    case(
        CLAUDE,
        "0 start
         1000 osc idle
         2000 prompt
         2002 osc working
         2050 call 1
         3000 ends 1 tool
         3010 pre a Bash touch /x
         3040 ask d1 Bash touch /x
         3045 osc blocked
         6000 osc working
         6010..6400 child 1 touch /x
         6410 post a
         6420 call 2
         7000 ends 2 turn
         7010 stop
         7012 osc done",
        "0 starting
         1000..1500 idle
         2000 working
         3040..4000 needs_input ~ touch /x
         6000 working
         7010..8000 idle",
    );
}

#[test]
fn codex_approval_without_hooks() {
    case(
        CLAUDE,
        "0 start
         1000 osc idle
         2002 osc working
         2050 call 1
         3000 ends 1 tool
         3045 osc blocked
         6000 osc working
         6010..6400 child 1 touch /x
         6420 call 2
         7000 ends 2 turn
         7012 osc done",
        "0 starting
         1000..1500 idle
         2002 working
         3045..4000 needs_input
         6000 working
         7012..8000 idle",
    );
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
fn the_transcript_tells_of_the_interrupt() {
    case(
        CLAUDE,
        "0 start
         500 session
         2000 prompt
         2020 call 1
         3000 ends 1 tool
         3010 pre a Bash sleep 60
         3100..8050 child 0 sleep 60
         8100 interrupted",
        "0 starting
         2000 working
         8100..9100 idle ~ interrupted",
    );
}

#[test]
fn a_dialog_gains_options_and_is_answered_by_record() {
    case(
        CLAUDE,
        "0 start
         500 session
         2000 prompt
         3010 pre a shell ls
         3050 ask d1 shell ls
         3400 ask d1 shell ls -la
         9000 answered d1
         9500 post a
         9600 stop",
        "0 starting
         2000 working
         3050..4000 needs_input ~ shell: ls
         9000 working
         9600..10600 idle",
    );
}

#[test]
fn an_interrupted_turn_is_no_stop_for_a_steered_one() {
    // Codex: Enter while busy steers; the call is cut and a new one carries both messages.
    case(
        CLAUDE,
        "0 start
         1000 osc idle
         2000 prompt
         2001 osc working
         2050 call 1
         4000 key enter
         4010 prompt
         4020 ends 1 left
         4050 call 2
         6000 ends 2 turn
         6010 stop
         6012 osc done",
        "0 starting
         1000..1500 idle
         2000 working
         6010..7000 idle ~ ended",
    );
}

#[test]
fn custom_agents_work_while_they_print_or_compute() {
    case(
        Profile::CUSTOM,
        "0 start
         0..30000 looks
         5000..8000 output
         20000..22000 child 60 make",
        "0 starting
         0..2000 idle
         5000 working ~ prints
         8000..10500 idle
         20000..20500 working ~ CPU
         22000..24500 idle",
    );
}

#[test]
fn typing_to_a_custom_agent_is_not_its_work() {
    case(
        Profile::CUSTOM,
        "0 start
         0..9000 looks
         5000 key x
         5010 echo
         5200 key x
         5210 echo
         6000 key enter
         6010 echo
         6300..7000 output",
        "0 starting
         0..2000 idle
         6300 working
         7000..9500 idle",
    );
}

#[test]
fn a_oneshot_works_until_it_ends() {
    let profile = Profile {
        manner: Manner::Oneshot,
        ..Profile::ONESHOT
    };
    case(
        profile,
        "0 start
         600 call 1
         2000 ends 1 turn
         60000 exit 0",
        "0 starting
         600 working
         60000 stopped ~ ended",
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
fn the_agent_hung_up_and_no_key_was_seen() {
    case(
        CLAUDE,
        "0 start
         500 session
         2000 prompt
         2020 call 1
         4010 ends 1 left",
        "0 starting
         2000 working
         5000..7000 idle ~ interrupted",
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
fn a_start_without_any_sign() {
    case(
        CLAUDE,
        "0 start
         40000 look",
        "0 starting
         30000..30500 idle ~ no sign",
    );
}

#[test]
fn a_oneshot_that_says_nothing_works() {
    case(
        Profile::ONESHOT,
        "0 start
         30000 exit 3",
        "0 starting
         1000..1500 working
         30000 stopped ~ exit code 3",
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

#[test]
fn a_hook_process_does_not_answer_a_dialog() {
    case(
        CLAUDE,
        "0 start
         500 session
         2000 prompt
         3010 pre a Bash ls
         3050 ask d1 Bash ls
         5000..5100 child 0 whim hook",
        "0 starting
         2000 working
         3050..4000 needs_input",
    );
}
