//! Prompts on their way, at a clock of the test's own.

mod stories;

use std::collections::BTreeMap;

use whim_wire::spec::AgentKind;

use super::super::super::of;
use super::phases::same_prompt;
use super::*;
use crate::agents::hook::MAX_TEXT;

/// A queue with a clock and all that it wrote and reported.
struct Bench {
    queue: Queue,
    now: Moment,
    written: Vec<u8>,
    unanswered: bool,
    /// Of which prompt something may stand in the input box, as the record on disk says.
    typing: Option<String>,
    reports: Vec<(String, Status, Option<String>)>,
}

impl Bench {
    fn new(kind: AgentKind) -> Self {
        Self {
            queue: Queue::new(of(kind).prompt_rules()),
            now: Duration::from_secs(100),
            written: Vec::new(),
            unanswered: false,
            typing: None,
            reports: Vec::new(),
        }
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Typing { id } => self.typing = Some(id),
                Effect::Untyped { .. } => self.typing = None,
                Effect::Write(bytes) => {
                    self.written.extend(bytes);
                    self.unanswered = true;
                }
                Effect::Report { id, status, reason } => {
                    self.typing.take_if(|typing| *typing == id);
                    self.reports.push((id, status, reason));
                }
            }
        }
    }

    fn push(&mut self, id: &str, text: &str) {
        let effects = self.queue.push(id.into(), text.into(), self.now).unwrap();
        self.take(effects);
    }

    fn on(&mut self, event: &Event<'_>) {
        let effects = self.queue.on(event, self.now);
        self.take(effects);
    }

    fn view(&mut self, activity: Activity) {
        self.on(&Event::View(View {
            activity,
            bracketed_paste: true,
        }));
    }

    /// The terminal takes everything.
    fn drain(&mut self) {
        while std::mem::take(&mut self.unanswered) {
            self.on(&Event::Written);
        }
    }

    fn after(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
        self.on(&Event::Tick);
    }

    fn statuses(&self, id: &str) -> Vec<Status> {
        self.reports
            .iter()
            .filter(|(other, ..)| other == id)
            .map(|(_, status, _)| *status)
            .collect()
    }

    fn last_reason(&self) -> &str {
        self.reports.last().unwrap().2.as_deref().unwrap_or("")
    }

    /// An idle agent that was given prompt `p` and has it typed, Enter included.
    fn entered(kind: AgentKind, text: &str) -> Self {
        let mut bench = Self::new(kind);
        bench.view(Activity::Idle);
        bench.push("p", text);
        bench.drain();
        bench.on(&Event::Output);
        bench.drain();
        bench.written.clear();
        bench
    }
}

use Status::{Delivered, Done, Failed, Interrupted, Queued, Working};

#[test]
fn a_prompt_is_typed_entered_worked_on_and_done() {
    let mut bench = Bench::new(AgentKind::Claude);
    bench.push("p", "one\ntwo");
    assert!(bench.written.is_empty(), "not before the agent is idle");
    bench.view(Activity::Idle);
    assert_eq!(bench.written, b"\x1b[200~one\rtwo\x1b[201~");
    bench.drain();
    assert_eq!(bench.statuses("p"), [Queued], "no Enter before a reaction");
    bench.on(&Event::Output);
    assert!(bench.written.ends_with(b"\x1b[201~\r"));
    assert_eq!(bench.statuses("p"), [Queued, Delivered]);
    bench.on(&Event::Submitted("one\ntwo"));
    bench.view(Activity::Working);
    assert_eq!(bench.statuses("p"), [Queued, Delivered, Working]);
    bench.on(&Event::TurnEnded { failed: false });
    assert_eq!(bench.statuses("p"), [Queued, Delivered, Working, Done]);
}

#[test]
fn the_next_prompt_waits_for_the_turns_end() {
    let mut bench = Bench::entered(AgentKind::Codex, "first");
    bench.push("q", "second");
    bench.on(&Event::Submitted("first"));
    bench.view(Activity::Working);
    assert!(bench.written.is_empty());
    bench.on(&Event::TurnEnded { failed: false });
    assert!(bench.written.is_empty(), "the agent is not idle yet");
    bench.view(Activity::Idle);
    assert_eq!(bench.written, b"\x1b[200~second\x1b[201~");
}

#[test]
fn a_hundred_kilobytes_go_out_in_pieces_that_the_terminal_took() {
    let text = "0123456789\n".repeat(9500);
    let mut bench = Bench::new(AgentKind::Codex);
    bench.view(Activity::Idle);
    bench.push("p", &text);
    assert_eq!(bench.written.len(), CHUNK);
    let mut pieces = 1;
    while std::mem::take(&mut bench.unanswered) {
        let before = bench.written.len();
        bench.on(&Event::Written);
        assert!(bench.written.len() - before <= CHUNK);
        pieces += 1;
    }
    assert!(pieces > 50);
    assert_eq!(bench.written, paste::encode(&text, true));
}

#[test]
fn without_a_reaction_enter_comes_at_the_deadline() {
    let mut bench = Bench::new(AgentKind::Claude);
    bench.view(Activity::Idle);
    bench.push("p", "x");
    bench.drain();
    assert_eq!(bench.queue.next_deadline(), Some(bench.now + ECHO_DEADLINE));
    bench.after(1999);
    assert!(!bench.written.ends_with(b"\r"));
    bench.after(1);
    assert!(bench.written.ends_with(b"\r"));
}

#[test]
fn enter_is_never_pressed_into_a_dialog() {
    let mut bench = Bench::new(AgentKind::Claude);
    bench.view(Activity::Idle);
    bench.push("p", "x");
    bench.drain();
    bench.view(Activity::Dialog);
    bench.on(&Event::Output);
    bench.after(60_000);
    assert!(!bench.written.ends_with(b"\r"));
    bench.view(Activity::Idle);
    assert!(bench.written.ends_with(b"\r"));
}

#[test]
fn no_prompt_is_typed_into_a_dialog_or_a_program_that_is_not_ready() {
    for activity in [Activity::Dialog, Activity::Working, Activity::Starting] {
        let mut bench = Bench::new(AgentKind::Claude);
        bench.view(activity);
        bench.push("p", "x");
        bench.after(100_000);
        assert!(bench.written.is_empty(), "{activity:?}");
    }
    let mut bench = Bench::new(AgentKind::Claude);
    bench.on(&Event::View(View {
        activity: Activity::Idle,
        bracketed_paste: false,
    }));
    bench.push("p", "x");
    assert!(bench.written.is_empty(), "no input box yet");
}

#[test]
fn a_custom_program_gets_markers_only_if_it_asked_for_them() {
    let mut bench = Bench::new(AgentKind::Custom);
    bench.on(&Event::View(View {
        activity: Activity::Idle,
        bracketed_paste: false,
    }));
    bench.push("p", "ls");
    assert_eq!(bench.written, b"ls");
}

#[test]
fn a_swallowed_enter_is_pressed_again() {
    let mut bench = Bench::entered(AgentKind::Claude, "x");
    bench.after(999);
    assert!(bench.written.is_empty());
    bench.after(1);
    assert_eq!(bench.written, b"\r");
    bench.after(2000);
    assert_eq!(bench.written, b"\r\r");
    bench.after(3000);
    bench.after(1999);
    assert_eq!(bench.written, b"\r\r\r", "four times in all");
}

#[test]
fn what_an_input_box_forgot_is_typed_once_more_and_then_given_up() {
    let mut bench = Bench::entered(AgentKind::Claude, "x");
    for pause in [1000, 2000, 3000] {
        bench.after(pause);
    }
    bench.written.clear();
    assert_eq!(bench.typing, None);
    bench.after(2000);
    assert_eq!(bench.typing.as_deref(), Some("p"));
    let cleared = of(AgentKind::Claude).prompt_rules().clear_line.repeat(2);
    assert_eq!(bench.written, cleared, "what may be left of it goes first");
    bench.written.clear();
    bench.drain();
    bench.after(300);
    bench.drain();
    bench.on(&Event::Output);
    bench.drain();
    assert_eq!(bench.written, b"\x1b[200~x\x1b[201~\r");
    assert_eq!(bench.typing, None);
    assert_eq!(bench.statuses("p"), [Queued, Delivered], "told once");
    bench.after(15_000);
    assert_eq!(bench.statuses("p"), [Queued, Delivered, Failed]);
    assert!(bench.last_reason().contains("did not take"));
}

#[test]
fn nothing_is_typed_once_more_while_the_agent_works_or_asks() {
    for activity in [Activity::Working, Activity::Dialog] {
        let mut bench = Bench::entered(AgentKind::Codex, "x");
        bench.view(activity);
        bench.written.clear();
        bench.after(9000);
        assert!(bench.written.is_empty(), "{activity:?}");
    }
}

#[test]
fn after_a_model_call_enter_is_not_pressed_again() {
    let mut bench = Bench::entered(AgentKind::Claude, "x");
    bench.on(&Event::GenerationStarted);
    bench.after(900);
    assert_eq!(bench.statuses("p"), [Queued, Delivered]);
    bench.after(100);
    assert_eq!(bench.statuses("p"), [Queued, Delivered, Working]);
    bench.after(10_000);
    assert!(bench.written.is_empty());
}

#[test]
fn another_persons_prompt_is_not_taken_for_ours() {
    let mut bench = Bench::entered(AgentKind::Claude, "ours alone");
    bench.on(&Event::Submitted("ours"));
    assert_eq!(bench.statuses("p"), [Queued, Delivered]);
    bench.on(&Event::Submitted(" ours\nalone "));
    assert_eq!(bench.statuses("p"), [Queued, Delivered, Working]);
}

#[test]
fn a_long_prompt_is_recognised_by_its_beginning() {
    let text = "word ".repeat(2000);
    assert!(same_prompt(&text, text.get(..MAX_TEXT).unwrap()));
    assert!(!same_prompt(&text, text.get(..100).unwrap()));
    assert!(same_prompt(&"é".repeat(4000), &"é".repeat(2048)));
}

#[test]
fn commands_of_the_agents_own_are_done_without_a_turn() {
    let mut bench = Bench::entered(AgentKind::Claude, "/status");
    bench.after(1999);
    assert_eq!(bench.statuses("p"), [Queued, Delivered]);
    bench.after(1);
    assert_eq!(bench.statuses("p"), [Queued, Delivered, Done]);
    // Also one that opens a menu.
    let mut bench = Bench::entered(AgentKind::Claude, "/status");
    bench.view(Activity::Dialog);
    bench.after(2000);
    assert_eq!(bench.statuses("p"), [Queued, Delivered, Done]);
    assert!(bench.last_reason().contains("menu"));
    // One that runs a turn is a prompt like others.
    let mut bench = Bench::entered(AgentKind::Claude, "/review it");
    bench.on(&Event::Submitted("/review it"));
    bench.view(Activity::Working);
    bench.after(10_000);
    assert_eq!(bench.statuses("p"), [Queued, Delivered, Working]);
}

#[test]
fn a_turn_whose_end_nobody_tells_ends_with_idle() {
    let mut bench = Bench::entered(AgentKind::Claude, "x");
    bench.on(&Event::Submitted("x"));
    bench.view(Activity::Idle);
    bench.after(5000);
    assert_eq!(
        bench.statuses("p").last(),
        Some(&Working),
        "an old idle says nothing"
    );
    bench.view(Activity::Working);
    bench.view(Activity::Idle);
    bench.after(999);
    assert_eq!(bench.statuses("p").last(), Some(&Working));
    bench.after(1);
    assert_eq!(
        bench.statuses("p").last(),
        Some(&Interrupted),
        "hooks work, and none told of an end"
    );

    let mut bench = Bench::entered(AgentKind::Claude, "x");
    bench.view(Activity::Working);
    bench.after(1000);
    bench.view(Activity::Idle);
    bench.after(1000);
    assert_eq!(
        bench.statuses("p").last(),
        Some(&Done),
        "without hooks idle is all there is"
    );
}

#[test]
fn interrupts_are_reported_and_their_keys_not_doubled() {
    for (kind, keys) in [
        (AgentKind::Claude, &b"\x1b"[..]),
        (AgentKind::Codex, b"\x1b"),
        (AgentKind::Copilot, b"\x03"),
    ] {
        let mut bench = Bench::entered(kind, "x");
        bench.on(&Event::Submitted("x"));
        bench.view(Activity::Working);
        for _ in 0..3 {
            let effects = bench.queue.interrupt(bench.now);
            bench.take(effects);
        }
        assert_eq!(bench.written, keys);
        bench.view(Activity::Idle);
        bench.after(1000);
        assert_eq!(bench.statuses("p").last(), Some(&Interrupted), "{kind}");
    }
    let mut bench = Bench::new(AgentKind::Copilot);
    bench.view(Activity::Idle);
    assert_eq!(
        bench.queue.interrupt(bench.now),
        [],
        "idle: it would end the program"
    );
}

#[test]
fn a_prompt_that_comes_back_into_the_input_box_is_deleted_before_the_next() {
    let mut bench = Bench::entered(AgentKind::Claude, "a\nb");
    bench.on(&Event::Submitted("a\nb"));
    bench.on(&Event::Interrupted);
    bench.push("q", "next");
    bench.view(Activity::Idle);
    assert_eq!(bench.written, b"\x15\x15\x15\x15");
    bench.drain();
    bench.after(299);
    assert_eq!(bench.written, b"\x15\x15\x15\x15", "not in one piece");
    bench.after(1);
    assert!(bench.written.ends_with(b"\x1b[200~next\x1b[201~"));
}

#[test]
fn an_interrupt_by_hand_is_reported_too() {
    let mut bench = Bench::entered(AgentKind::Codex, "x");
    bench.on(&Event::Submitted("x"));
    bench.on(&Event::Interrupted);
    assert_eq!(bench.statuses("p").last(), Some(&Interrupted));
}

#[test]
fn a_person_who_types_is_not_talked_over() {
    let mut bench = Bench::new(AgentKind::Claude);
    bench.view(Activity::Idle);
    bench.on(&Event::HumanKey {
        leaves_draft: false,
    });
    bench.push("p", "x");
    bench.after(1999);
    assert!(bench.written.is_empty());
    bench.after(1);
    assert_eq!(bench.written, b"\x1b[200~x\x1b[201~");

    let mut bench = Bench::new(AgentKind::Claude);
    bench.view(Activity::Idle);
    bench.on(&Event::HumanKey { leaves_draft: true });
    bench.push("p", "x");
    bench.after(59_999);
    assert!(bench.written.is_empty());
    bench.after(1);
    assert_eq!(bench.written, b"\x15\x15", "the draft is cleared first");
    bench.drain();
    bench.after(300);
    assert!(bench.written.ends_with(b"\x1b[200~x\x1b[201~"));
}

#[test]
fn what_a_person_enters_comes_first_and_is_a_turn() {
    let mut bench = Bench::new(AgentKind::Claude);
    bench.view(Activity::Idle);
    bench.on(&Event::HumanKey { leaves_draft: true });
    bench.push("p", "x");
    bench.on(&Event::HumanKey {
        leaves_draft: false,
    });
    bench.on(&Event::HumanSubmitted);
    bench.after(2_500);
    assert!(bench.written.is_empty(), "its turn may be about to begin");
    bench.view(Activity::Working);
    bench.after(60_000);
    assert!(bench.written.is_empty());
    bench.on(&Event::TurnEnded { failed: false });
    bench.view(Activity::Idle);
    assert_eq!(bench.written, b"\x1b[200~x\x1b[201~");
    assert_eq!(bench.statuses("p"), [Queued], "the turn was not its own");
    // A command of the agent's own begins no turn.
    let mut bench = Bench::new(AgentKind::Claude);
    bench.view(Activity::Idle);
    bench.on(&Event::HumanKey {
        leaves_draft: false,
    });
    bench.on(&Event::HumanSubmitted);
    bench.push("p", "x");
    bench.after(4_999);
    assert!(bench.written.is_empty());
    bench.after(1);
    assert_eq!(bench.written, b"\x1b[200~x\x1b[201~");
}

#[test]
fn a_person_who_comes_back_while_the_box_is_cleared_is_given_way() {
    let mut bench = Bench::new(AgentKind::Claude);
    bench.view(Activity::Idle);
    bench.on(&Event::HumanKey { leaves_draft: true });
    bench.push("p", "x");
    bench.after(60_000);
    assert_eq!(bench.written, b"\x15\x15");
    bench.drain();
    bench.on(&Event::HumanKey { leaves_draft: true });
    assert_eq!(bench.queue.waiting(), 1);
    bench.after(59_999);
    assert_eq!(
        bench.written, b"\x15\x15",
        "nothing is pasted into their line"
    );
    bench.after(1);
    bench.drain();
    bench.after(300);
    assert!(bench.written.ends_with(b"\x1b[200~x\x1b[201~"));
    assert_eq!(bench.statuses("p"), [Queued]);
}

#[test]
fn a_terminal_that_takes_nothing_fails_the_prompt_and_closes_the_paste() {
    let mut bench = Bench::new(AgentKind::Claude);
    bench.view(Activity::Idle);
    bench.push("p", &"x".repeat(10_000));
    bench.after(30_000);
    assert!(bench.written.ends_with(paste::END));
    assert_eq!(bench.statuses("p"), [Queued, Failed]);
}

#[test]
fn a_dead_agent_fails_what_it_had_and_keeps_what_waits_for_its_return() {
    let mut bench = Bench::entered(AgentKind::Claude, "x");
    bench.push("q", "y");
    bench.on(&Event::Gone {
        returns: true,
        reason: "signal 9",
    });
    assert_eq!(bench.statuses("p").last(), Some(&Failed));
    assert!(bench.last_reason().contains("signal 9"));
    assert_eq!(bench.statuses("q"), [Queued]);
    bench.on(&Event::Gone {
        returns: false,
        reason: "signal 9",
    });
    assert_eq!(bench.statuses("q"), [Queued, Failed]);
}

#[test]
fn a_new_supervisor_closes_a_cut_paste_and_goes_on_with_the_rest() {
    let saved = |id: &str, progress| Saved {
        id: id.into(),
        text: "a\nb".into(),
        progress,
    };
    let now = Duration::from_secs(1);
    let (queue, effects) = Queue::restore(
        of(AgentKind::Claude).prompt_rules(),
        vec![saved("t", Progress::Typing), saved("q", Progress::Queued)],
        now,
    );
    assert!(
        matches!(&effects[0], Effect::Write(keys) if keys.starts_with(paste::END) && keys.ends_with(b"\x15"))
    );
    assert!(matches!(&effects[1], Effect::Report { id, status: Failed, .. } if id == "t"));
    assert_eq!(queue.waiting(), 1);

    let (mut queue, effects) = Queue::restore(
        of(AgentKind::Claude).prompt_rules(),
        vec![saved("w", Progress::Working)],
        now,
    );
    assert_eq!(effects, []);
    assert_eq!(queue.current(), Some("w"));
    let effects = queue.on(&Event::TurnEnded { failed: false }, now);
    assert!(matches!(&effects[0], Effect::Report { status: Done, .. }));
}

#[test]
fn a_delivered_prompt_is_not_entered_twice_by_a_new_supervisor() {
    let saved = Saved {
        id: "d".into(),
        text: "x".into(),
        progress: Progress::Delivered,
    };
    let (queue, _) = Queue::restore(
        of(AgentKind::Claude).prompt_rules(),
        vec![saved],
        Duration::ZERO,
    );
    let mut bench = Bench {
        queue,
        ..Bench::new(AgentKind::Claude)
    };
    bench.view(Activity::Idle);
    bench.after(14_000);
    assert!(bench.written.is_empty());
}

#[test]
fn the_prompt_an_agent_starts_with_has_all_the_time_of_the_start() {
    let mut bench = Bench::new(AgentKind::Copilot);
    let effects = bench.queue.given("p".into(), "x".into(), bench.now);
    bench.take(effects);
    bench.view(Activity::Starting);
    bench.after(40_000);
    bench.view(Activity::Idle);
    bench.after(5000);
    assert_eq!(bench.statuses("p"), [Delivered]);
    bench.on(&Event::Submitted("x"));
    assert_eq!(bench.statuses("p"), [Delivered, Working]);
    assert!(bench.written.is_empty());
}

#[test]
fn a_full_queue_says_so() {
    let mut queue = Queue::new(of(AgentKind::Claude).prompt_rules());
    for n in 0..MAX_QUEUED {
        queue
            .push(n.to_string(), "x".into(), Duration::ZERO)
            .unwrap();
    }
    let full = queue
        .push("n".into(), "x".into(), Duration::ZERO)
        .unwrap_err();
    assert_eq!(full.waiting, MAX_QUEUED);
    let mut queue = Queue::new(of(AgentKind::Claude).prompt_rules());
    let eighth = "x".repeat(MAX_QUEUED_BYTES / 8);
    for n in 0..8 {
        let pushed = queue.push(n.to_string(), eighth.clone(), Duration::ZERO);
        assert!(pushed.is_ok(), "{n}");
    }
    assert!(queue.push("n".into(), "x".into(), Duration::ZERO).is_err());
}
