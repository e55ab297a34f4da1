//! Dialogs, and turns that a person interrupts.

use super::*;

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
