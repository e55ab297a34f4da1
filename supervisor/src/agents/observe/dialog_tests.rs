use proptest::prelude::*;
use serde_json::json;

use super::super::super::hook::{parse, record};
use super::*;

const CLAUDE: &str = "\
● Bash(curl -s http://x)
  ⎿  Waiting…
────────────────────────────────────────
 Bash command

   curl -s http://x
   fetch it

 This command requires approval

 Do you want to proceed?
 ❯ 1. Yes
   2. Yes, and don’t ask again for: curl *
   3. No

 Esc to cancel · Tab to amend
";

const QUESTION: &str = "\
❯ ask me
────────────────────────────────────────
 ☐ Color

Which color?

❯ 1. Red
     warm
  2. Blue
     cold
  3. Type something.
────────────────────────────────────────
  4. Chat about this

Enter to select · ↑/↓ to navigate · Esc to cancel
";

const CODEX: &str = "\
› do it
• Running touch /x
  Would you like to run the following command?

  Reason: lab
  $ touch /x

› 1. Yes, proceed (y)
  2. Yes, and don't ask again for commands that start with `touch /x` (p)
  3. No, and tell Codex what to do differently (esc)

  Press enter to confirm or esc to cancel
";

const COPILOT: &str = "\
 $ Shell fetch it
╭──────────────────────────────────────────╮
│ fetch it                                 │
│ ──────────────────────────────────────── │
│ Copilot is attempting to access this URL │
│ ╭──────────────────────────────────────╮ │
│ │ http://x                             │ │
│ ╰──────────────────────────────────────╯ │
│ Do you want to allow this access?        │
│                                          │
│ ❯ 1. Yes                                 │
│   2. Yes, and approve all URLs           │
│   3. No (Esc to stop)                    │
╰──────────────────────────────────────────╯
";

fn read(screen: &str) -> Option<ScreenDialog> {
    read_screen(&screen.lines().collect::<Vec<_>>())
}

fn told(dialogs: &mut Dialogs, agent: &str, event: &str, payload: &serde_json::Value) {
    let line = record(agent, event, "main", payload.to_string().as_bytes());
    dialogs.hook(&parse(&line).unwrap());
}

fn bash(detail: &str) -> serde_json::Value {
    json!({"tool_name": "Bash", "tool_input": {"command": detail}})
}

#[test]
fn the_dialogs_of_every_agent_are_read() {
    for (screen, text, options) in [
        (
            CLAUDE,
            &[
                "Bash command",
                "curl -s http://x",
                "Do you want to proceed?",
            ][..],
            &["Yes", "Yes, and don’t ask again for: curl *", "No"][..],
        ),
        (
            QUESTION,
            &["Which color?"],
            &["Red", "Blue", "Type something.", "Chat about this"],
        ),
        (
            CODEX,
            &["Would you like to run the following command?", "$ touch /x"],
            &[
                "Yes, proceed (y)",
                "Yes, and don't ask again for commands that start with `touch /x` (p)",
                "No, and tell Codex what to do differently (esc)",
            ],
        ),
        (
            COPILOT,
            &["http://x", "Do you want to allow this access?"],
            &["Yes", "Yes, and approve all URLs", "No (Esc to stop)"],
        ),
    ] {
        let dialog = read(screen).unwrap();
        for part in text {
            assert!(
                dialog.text.lines().any(|line| line == *part),
                "{part}: {:?}",
                dialog.text
            );
        }
        assert_eq!(dialog.options, options);
        assert!(!dialog.text.contains("Waiting") && !dialog.text.contains("do it"));
    }
}

#[test]
fn lists_without_a_mark_are_no_dialog() {
    assert_eq!(read("● Plan:\n 1. a\n 2. b\n❯ \n"), None);
    assert_eq!(read("❯ 1. only one\n"), None);
    assert_eq!(read(""), None);
}

#[test]
fn a_permission_is_asked_shown_and_answered() {
    let mut dialogs = Dialogs::new("d");
    told(&mut dialogs, "claude", "PermissionRequest", &bash("curl x"));
    let dialog = dialogs.current().unwrap().clone();
    assert_eq!(dialog.text, "Bash: curl x");
    assert_eq!(dialogs.answer(&dialog.id, 0), Ok(b"\r".to_vec()));
    assert_eq!(dialogs.answer(&dialog.id, 1), Ok(b"\x1b".to_vec()));

    dialogs.screen(&read(CLAUDE).unwrap());
    let shown = dialogs.current().unwrap();
    assert_eq!((&shown.id, shown.options.len()), (&dialog.id, 3));
    assert_eq!(dialogs.answer(&dialog.id, 2), Ok(b"3".to_vec()));
    assert_eq!(
        dialogs.answer(&dialog.id, 3),
        Err(AnswerError::NoSuchOption { given: 4, count: 3 })
    );
    assert!(matches!(
        dialogs.answer("old", 0),
        Err(AnswerError::Over { .. })
    ));

    told(&mut dialogs, "claude", "PostToolUse", &bash("ls"));
    assert!(dialogs.current().is_some(), "another tool ended");
    told(&mut dialogs, "claude", "PostToolUse", &bash("curl x"));
    assert!(dialogs.current().is_none());
    assert_eq!(dialogs.answer(&dialog.id, 0), Err(AnswerError::None));
}

#[test]
fn a_hook_that_comes_after_the_file_tells_of_the_same_dialog() {
    let waiting = Status::Waiting("permission prompt".into());
    for read_first in [false, true] {
        let mut dialogs = Dialogs::new("d");
        dialogs.status(&waiting);
        let id = dialogs.current().unwrap().id.clone();
        if read_first {
            dialogs.screen(&read(CLAUDE).unwrap());
        }
        told(&mut dialogs, "claude", "PermissionRequest", &bash("curl x"));
        let dialog = dialogs.current().unwrap();
        assert_eq!(dialog.id, id);
        assert_eq!(dialog.options.len(), if read_first { 3 } else { 2 });
        // It is known now whose it is; a second hook is another one's.
        told(&mut dialogs, "claude", "PostToolUse", &bash("ls"));
        assert!(dialogs.current().is_some(), "another tool ended");
        told(&mut dialogs, "claude", "PermissionRequest", &bash("ls"));
        assert_ne!(dialogs.current().unwrap().id, id);
    }

    let mut dialogs = Dialogs::new("d");
    dialogs.status(&waiting);
    let id = dialogs.current().unwrap().id.clone();
    let payload = json!({"tool_name": "AskUserQuestion", "tool_input": {"questions": [
        {"question": "Which color?", "options": [{"label": "Red"}, {"label": "Blue"}]}]}});
    told(&mut dialogs, "claude", "PreToolUse", &payload);
    let dialog = dialogs.current().unwrap();
    assert_eq!((&dialog.id, dialog.kind), (&id, DialogKind::Question));
    assert_eq!(dialog.options, ["Red", "Blue"]);
    dialogs.status(&Status::Busy);
    assert!(dialogs.current().is_none(), "the signal had told of it");
}

#[test]
fn a_question_told_twice_is_one() {
    let mut dialogs = Dialogs::new("d");
    let payload = json!({"tool_name": "AskUserQuestion", "tool_input": {"questions": [
        {"question": "Which color?", "options": [{"label": "Red"}, {"label": "Blue"}]}]}});
    told(&mut dialogs, "claude", "PreToolUse", &payload);
    let id = dialogs.current().unwrap().id.clone();
    told(&mut dialogs, "claude", "PermissionRequest", &payload);
    dialogs.screen(&read(QUESTION).unwrap());
    let dialog = dialogs.current().unwrap();
    assert_eq!(dialog.id, id);
    assert_eq!(dialog.kind, DialogKind::Question);
    assert_eq!(dialog.text, "Which color?");
    assert_eq!(dialogs.answer(&id, 1), Ok(b"2".to_vec()));
}

#[test]
fn several_choices_are_not_answered_with_one_key() {
    let mut dialogs = Dialogs::new("d");
    told(
        &mut dialogs,
        "claude",
        "PreToolUse",
        &json!({"tool_name": "AskUserQuestion", "tool_input": {"questions": [
        {"question": "Which?", "multiSelect": true, "options": [{"label": "A"}, {"label": "B"}]}]}}),
    );
    let id = dialogs.current().unwrap().id.clone();
    assert_eq!(dialogs.answer(&id, 0), Err(AnswerError::Several));
}

#[test]
fn the_session_file_opens_confirms_and_closes() {
    let mut dialogs = Dialogs::new("d");
    let waiting = Status::Waiting("permission prompt".into());
    dialogs.status(&waiting);
    assert!(
        dialogs
            .current()
            .unwrap()
            .text
            .contains("permission prompt")
    );
    dialogs.status(&Status::Busy);
    assert!(dialogs.current().is_none());

    // A `busy` written before the dialog and read after the hook closes nothing.
    told(&mut dialogs, "claude", "PermissionRequest", &bash("x"));
    dialogs.status(&Status::Busy);
    assert!(dialogs.current().is_some());
    dialogs.status(&waiting);
    dialogs.status(&Status::Idle);
    assert!(dialogs.current().is_none());

    dialogs.status(&Status::Waiting("dialog open".into()));
    assert!(dialogs.current().is_none(), "a menu of the person's own");
}

#[test]
fn codex_says_blocked_and_on() {
    let mut dialogs = Dialogs::new("d");
    dialogs.codex(CodexState::Working);
    told(
        &mut dialogs,
        "codex",
        "PermissionRequest",
        &bash("touch /x"),
    );
    dialogs.codex(CodexState::Blocked);
    dialogs.screen(&read(CODEX).unwrap());
    assert_eq!(dialogs.current().unwrap().options.len(), 3);
    dialogs.codex(CodexState::Working);
    assert!(dialogs.current().is_none());
}

#[test]
fn codexs_question_counts_once_it_blocks() {
    let mut dialogs = Dialogs::new("d");
    let question = json!({"tool_name": "request_user_input", "tool_input": {"questions": [
        {"question": "Which color?", "options": [{"label": "Red"}, {"label": "Blue"}]}]}});
    told(&mut dialogs, "codex", "PreToolUse", &question);
    assert!(dialogs.current().is_none(), "Codex may refuse the tool");
    dialogs.codex(CodexState::Blocked);
    let dialog = dialogs.current().unwrap();
    assert_eq!(dialog.text, "Which color?");
    assert_eq!(dialogs.answer(&dialog.id, 1), Ok(b"2".to_vec()));
    dialogs.codex(CodexState::Working);
    assert!(dialogs.current().is_none());
}

#[test]
fn copilots_question_is_answered_with_arrows() {
    let mut dialogs = Dialogs::new("d");
    told(
        &mut dialogs,
        "copilot",
        "preToolUse",
        &json!({"toolName": "ask_user", "toolArgs": {
        "message": "Which?", "requestedSchema": {"properties": {"c": {"enum": ["Red", "Blue"]}}}}}),
    );
    told(
        &mut dialogs,
        "copilot",
        "notification",
        &json!({"notification_type": "elicitation_dialog", "message": "x"}),
    );
    let dialog = dialogs.current().unwrap();
    assert_eq!(
        (dialog.kind, dialog.text.as_str()),
        (DialogKind::Question, "Which?")
    );
    assert_eq!(dialogs.answer(&dialog.id, 1), Ok(b"\x1b[B\r".to_vec()));
    told(
        &mut dialogs,
        "copilot",
        "postToolUse",
        &json!({"toolName": "bash"}),
    );
    assert!(dialogs.current().is_some(), "another tool ended");
    told(
        &mut dialogs,
        "copilot",
        "postToolUse",
        &json!({"toolName": "ask_user"}),
    );
    assert!(dialogs.current().is_none());
}

#[test]
fn copilots_second_dialog_has_an_id_of_its_own() {
    let mut dialogs = Dialogs::new("d");
    let asked = |id: &str, text: &str| Record::Asked {
        id: id.into(),
        text: text.into(),
        options: vec![],
        question: false,
    };
    told(
        &mut dialogs,
        "copilot",
        "permissionRequest",
        &json!({"toolName": "bash", "toolInput": {"command": "curl x"}}),
    );
    dialogs.record(&asked("r1", "Fetch: http://x"));
    told(
        &mut dialogs,
        "copilot",
        "notification",
        &json!({"notification_type": "permission_prompt", "message": "Fetch URL"}),
    );
    let first = dialogs.current().unwrap().id.clone();
    dialogs.record(&Record::Answered { id: "r1".into() });
    assert!(dialogs.current().is_none());
    told(
        &mut dialogs,
        "copilot",
        "notification",
        &json!({"notification_type": "permission_prompt", "message": "Run command: curl x"}),
    );
    dialogs.record(&asked("r2", "Run: curl x"));
    let second = dialogs.current().unwrap();
    assert_ne!(second.id, first);
    assert_eq!(second.text, "Run command: curl x");
}

#[test]
fn another_list_on_the_screen_is_another_dialog() {
    let mut dialogs = Dialogs::new("d");
    told(&mut dialogs, "claude", "PermissionRequest", &bash("x"));
    dialogs.screen(&read(CLAUDE).unwrap());
    let first = dialogs.current().unwrap().id.clone();
    dialogs.screen(&read(CLAUDE).unwrap());
    assert_eq!(dialogs.current().unwrap().id, first);
    dialogs.screen(&read(COPILOT).unwrap());
    assert_ne!(dialogs.current().unwrap().id, first);
    assert!(matches!(
        dialogs.answer(&first, 0),
        Err(AnswerError::Over { .. })
    ));
}

#[test]
fn a_dialog_painted_in_pieces_is_one_dialog() {
    let whole = read(CLAUDE).unwrap();
    let mut dialogs = Dialogs::new("d");
    told(&mut dialogs, "claude", "PermissionRequest", &bash("x"));
    let id = dialogs.current().unwrap().id.clone();
    let mut pieces = 0;
    let mut painted = String::new();
    for next in CLAUDE.chars() {
        painted.push(next);
        let Some(piece) = read(&painted) else {
            continue;
        };
        pieces += 1;
        let last = piece.options.len() - 1;
        dialogs.screen(&piece);
        assert_eq!(dialogs.current().unwrap().id, id, "{piece:?}");
        assert!(dialogs.shown_by(&piece, last));
        assert!(!dialogs.shown_by(&piece, last + 1), "not painted yet");
    }
    assert!(pieces > 10);
    dialogs.screen(&whole);
    assert_eq!(dialogs.current().unwrap().options, whole.options);
    assert!(!dialogs.shown_by(&read(COPILOT).unwrap(), 0));
}

#[test]
fn long_lists_are_walked() {
    assert_eq!(keys(8, 12, Choice::Digit), Ok(b"9".to_vec()));
    assert_eq!(
        keys(10, 12, Choice::Digit).unwrap(),
        [&b"\x1b[B".repeat(10)[..], b"\r"].concat()
    );
}

proptest! {
    #[test]
    fn any_screen_is_read_without_panic(screen in "[ ❯›│╭─0-9.a-c\n]{0,200}") {
        if let Some(dialog) = read(&screen) {
            prop_assert!(dialog.options.len() >= 2);
        }
    }
}

#[test]
fn a_dialog_of_the_start_lives_as_long_as_the_screen_shows_it() {
    let mut dialogs = Dialogs::new("d");
    dialogs.startup(Some("Hooks need review"));
    let id = dialogs.current().unwrap().id.clone();
    dialogs.screen(&ScreenDialog {
        text: "Hooks need review".into(),
        options: vec!["Review".into(), "Trust all".into(), "Without them".into()],
    });
    assert_eq!(dialogs.current().unwrap().id, id, "read, not another one");
    assert_eq!(
        dialogs.answer(&id, 2).unwrap(),
        b"\x1b[B\x1b[B\r",
        "confirmed, too"
    );
    dialogs.startup(None);
    assert_eq!(dialogs.current(), None);
    // One that the agent told of is not the screen's to end.
    dialogs.codex(CodexState::Blocked);
    dialogs.startup(None);
    assert!(dialogs.current().is_some());
}
