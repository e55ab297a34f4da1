//! Whatever stands in a transcript, and however it is cut when it is read: nothing panics, nothing is lost.

use proptest::prelude::*;
use whim_wire::conversation::{Part, Role};
use whim_wire::spec::AgentKind;

use super::super::cursor::{CHECKED, Cursor};
use super::super::lines::Lines;
use super::super::page::{Page, Wanted};

const KINDS: [AgentKind; 5] = [
    AgentKind::Claude,
    AgentKind::Ccr,
    AgentKind::Codex,
    AgentKind::Copilot,
    AgentKind::Custom,
];

fn wanted(kind: AgentKind, limit: usize) -> Wanted {
    Wanted {
        kind,
        transcript_of: None,
        only: None,
        all: true,
        limit,
    }
}

/// Lines like those of transcripts: right ones, ones with parts of other types, cut ones, and bytes.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "user",
        "assistant",
        "system",
        "attachment",
        "summary",
        "response_item",
        "event_msg",
        "compacted",
        "token_usage_record",
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "turn_aborted",
        "token_count",
        "user.message",
        "assistant.message",
        "tool.execution_complete",
        "session.usage_record",
        "tool_use",
        "tool_result",
        "text",
        "thinking",
        "image",
        "from the future",
    ]);
    let leaf = prop_oneof![
        words.clone().prop_map(|word| format!("{word:?}")),
        any::<i64>().prop_map(|number| number.to_string()),
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just(r#""cut \ud83d""#.to_owned()),
        "\\PC{0,12}".prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    let names = prop::sample::select(vec![
        "type",
        "payload",
        "data",
        "message",
        "content",
        "text",
        "role",
        "uuid",
        "id",
        "name",
        "input",
        "arguments",
        "output",
        "call_id",
        "usage",
        "toolRequests",
        "result",
        "isSidechain",
        "timestamp",
        "subtype",
        "info",
        "summary",
    ]);
    let json = leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5)
                .prop_map(|elements| format!("[{}]", elements.join(","))),
            prop::collection::vec((names.clone(), inner), 0..7).prop_map(|members| {
                let members: Vec<String> = members
                    .into_iter()
                    .map(|(name, value)| format!("{name:?}:{value}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    });
    let record = (words, json.clone(), json).prop_map(|(word, payload, message)| {
        format!(
            r#"{{"type":"{word}","payload":{payload},"data":{payload},"message":{message},"timestamp":"2026-11-22T03:00:00Z"}}"#
        )
        .into_bytes()
    });
    prop_oneof![
        4 => record.clone(),
        1 => (record, any::<prop::sample::Index>()).prop_map(|(mut line, at)| {
            line.truncate(at.index(line.len() + 1));
            line
        }),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    #[test]
    fn every_byte_is_of_exactly_one_turn(
        lines in prop::collection::vec(line(), 0..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        unfinished in any::<bool>(),
    ) {
        let mut transcript = lines.join(&b'\n');
        if !unfinished && !transcript.is_empty() {
            transcript.push(b'\n');
        }
        let whole = transcript.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(transcript.len() + 1)).collect();
        cuts.extend([0, transcript.len()]);
        cuts.sort_unstable();
        for kind in KINDS {
            let mut page = Page::new(wanted(kind, usize::MAX), 0, Vec::new());
            for piece in cuts.windows(2) {
                page.feed(&transcript[piece[0]..piece[1]]);
            }
            let mut at = 0;
            for turn in &page.turns {
                prop_assert_eq!(turn.offset, at);
                at += turn.bytes;
                // What is kept as it was written is there, whole: these lines are short.
                if matches!(turn.role, Role::Unknown | Role::Record) {
                    let from = usize::try_from(turn.offset).unwrap();
                    let line = &transcript[from..from + usize::try_from(turn.bytes).unwrap() - 1];
                    let line = line.strip_suffix(b"\r").unwrap_or(line);
                    let kept = turn.parts.iter().any(|part| matches!(part, Part::Raw { .. }));
                    prop_assert!(kept, "{:?} of {:?}", turn, String::from_utf8_lossy(line));
                }
                prop_assert!(serde_json::to_string(turn).is_ok());
            }
            prop_assert_eq!(at, whole as u64);
            prop_assert_eq!(page.next("t").offset, whole as u64);
        }
    }

    #[test]
    fn pages_put_together_are_the_whole(lines in prop::collection::vec(line(), 1..12), limit in 1_usize..4) {
        let mut transcript = lines.join(&b'\n');
        transcript.push(b'\n');
        let mut all = Page::new(wanted(AgentKind::Claude, usize::MAX), 0, Vec::new());
        all.feed(&transcript);
        let mut turns = Vec::new();
        let mut cursor = Cursor::new("t", 0, &[]);
        loop {
            let start = usize::try_from(cursor.offset).unwrap();
            let before = transcript[start.saturating_sub(CHECKED)..start].to_vec();
            // What the cursor remembers stands there.
            prop_assert!(cursor.fits(&before));
            let mut page = Page::new(wanted(AgentKind::Claude, limit), cursor.offset, before);
            page.feed(&transcript[start..]);
            prop_assert!(page.turns.len() <= limit);
            cursor = page.next("t").to_string().parse().unwrap();
            let more = page.left_over();
            turns.extend(page.turns);
            if !more {
                break;
            }
        }
        prop_assert_eq!(turns, all.turns);
    }

    #[test]
    fn lines_do_not_depend_on_the_reads(
        transcript in prop::collection::vec(prop_oneof![3 => any::<u8>(), 1 => Just(b'\n')], 0..200),
        size in 1_usize..50,
    ) {
        let mut once = Lines::new(7);
        once.feed(&transcript);
        let once: Vec<_> = once.collect();
        let mut often = Lines::new(7);
        let mut found = Vec::new();
        for piece in transcript.chunks(size) {
            often.feed(piece);
            found.extend(often.by_ref());
        }
        prop_assert_eq!(once, found);
        prop_assert_eq!(often.position(), 7 + transcript.len() as u64);
    }
}
