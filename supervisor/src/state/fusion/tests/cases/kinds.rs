//! Agents that are not Claude Code, and modes that have no turns.

use super::*;

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
