//! Answers of each provider, whole and split at every byte.

use super::*;

const ANTHROPIC: &str = "event: message_start\n\
data: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"model\":\"claude-opus-4-8\",\
\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":34,\"cache_read_input_tokens\":1000,\
\"cache_creation_input_tokens\":200,\"cache_creation\":{\"ephemeral_5m_input_tokens\":150,\
\"ephemeral_1h_input_tokens\":50},\"output_tokens\":1,\"service_tier\":\"standard\"}}}\n\n\
event: ping\ndata: {\"type\": \"ping\"}\n\n\
event: content_block_start\n\
data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"id\":\"toolu_1\",\
\"name\":\"Bash\",\"input\":{}}}\n\n\
event: content_block_delta\n\
data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"input_json_delta\",\
\"partial_json\":\"{\\\"type\\\":\\\"é\\\"}\"}}\n\n\
event: message_delta\n\
data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\",\"stop_sequence\":null},\
\"usage\":{\"output_tokens\":57}}\n\n\
event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

const RESPONSES: &str = "event: response.created\r\n\
data: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"object\":\"response\",\
\"status\":\"in_progress\",\"model\":\"gpt-5-codex\",\"error\":null,\"usage\":null}}\r\n\r\n\
data: {\"type\":\"response.output_text.delta\",\"item_id\":\"msg_1\",\"delta\":\"hello\"}\r\n\r\n\
data: {\"type\":\"response.output_item.done\",\"item\":{\"id\":\"fc_1\",\"type\":\"function_call\",\
\"status\":\"completed\",\"name\":\"exec_command\"}}\r\n\r\n\
data: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\",\"status\":\"completed\",\
\"model\":\"gpt-5-codex\",\"error\":null,\"service_tier\":\"priority\",\"usage\":{\"input_tokens\":1234,\
\"input_tokens_details\":{\"cached_tokens\":1000},\"output_tokens\":57,\
\"output_tokens_details\":{\"reasoning_tokens\":7},\"total_tokens\":1291}}}\r\n\r\n";

const CHAT: &str = ": OPENROUTER PROCESSING\n\n\
data: {\"id\":\"gen-1\",\"object\":\"chat.completion.chunk\",\"model\":\"anthropic/claude-opus-4.8\",\
\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"hi\"},\"finish_reason\":null}]}\n\n\
data: {\"id\":\"gen-1\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\
\"function\":{\"name\":\"bash\",\"arguments\":\"{}\"}}]},\"finish_reason\":\"tool_calls\"}],\
\"usage\":{\"prompt_tokens\":1234,\"completion_tokens\":57,\"cost\":0.0123,\
\"prompt_tokens_details\":{\"cached_tokens\":1000,\"cache_write_tokens\":200}}}\n\n\
data: [DONE]\n\n";

fn tap(format: Format, chunks: &[&[u8]]) -> Answer {
    let mut tap = Tap::new(format);
    for chunk in chunks {
        tap.feed(chunk);
    }
    tap.answer().clone()
}

fn buckets(answer: &Answer, format: Format) -> [u64; 6] {
    let u = answer.usage(format, false).expect("usage");
    [
        u.input_tokens,
        u.cache_read_tokens,
        u.cache_write_5m_tokens,
        u.cache_write_1h_tokens,
        u.output_tokens,
        u.reasoning_tokens,
    ]
}

#[test]
fn anthropic_stream() {
    let answer = tap(Format::Anthropic, &[ANTHROPIC.as_bytes()]);
    assert_eq!(answer.id.as_deref(), Some("msg_1"));
    assert_eq!(answer.model.as_deref(), Some("claude-opus-4-8"));
    assert_eq!(answer.stop_reason.as_deref(), Some("tool_use"));
    assert!(answer.tool_use && answer.terminal);
    assert_eq!(answer.error, None);
    assert_eq!(
        buckets(&answer, Format::Anthropic),
        [34, 1000, 150, 50, 57, 0]
    );
    assert_eq!((answer.events, answer.progress), (6, 1));
}

#[test]
fn responses_stream() {
    let answer = tap(Format::Responses, &[RESPONSES.as_bytes()]);
    assert_eq!(answer.id.as_deref(), Some("resp_1"));
    assert_eq!(answer.stop_reason.as_deref(), Some("completed"));
    assert!(answer.tool_use && answer.terminal);
    assert_eq!(answer.error, None);
    assert_eq!(
        buckets(&answer, Format::Responses),
        [234, 1000, 0, 0, 57, 7]
    );
    assert_eq!(answer.reported.terms().tier, Some("priority"));
    assert_eq!(answer.generated_bytes, 5);
}

#[test]
fn chat_stream() {
    let mut tap = Tap::new(Format::Chat);
    tap.feed(CHAT.as_bytes());
    let answer = tap.answer();
    assert_eq!(answer.id.as_deref(), Some("gen-1"));
    assert_eq!(answer.stop_reason.as_deref(), Some("tool_calls"));
    assert!(answer.tool_use && answer.terminal);
    assert_eq!(buckets(answer, Format::Chat), [34, 1000, 200, 0, 57, 0]);
    assert_eq!(
        answer.reported.provider_cost().map(|c| c.0),
        Some(12_300_000)
    );
    assert_eq!(tap.comments(), 1);
}

#[test]
fn every_split_gives_the_same() {
    for (format, stream) in [
        (Format::Anthropic, ANTHROPIC),
        (Format::Responses, RESPONSES),
        (Format::Chat, CHAT),
    ] {
        let bytes = stream.as_bytes();
        let whole = tap(format, &[bytes]);
        for at in 0..=bytes.len() {
            let (a, b) = bytes.split_at(at);
            assert_eq!(tap(format, &[a, b]), whole, "{format:?} split at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(tap(format, &single), whole, "{format:?} byte by byte");
    }
}

#[test]
fn documents() {
    let message = r#"{"id":"msg_2","type":"message","model":"claude-haiku-4-5","content":[{"type":"text","text":"x"},
        {"type":"tool_use","input":{"type":"tool_result"}}],"stop_reason":"end_turn",
        "usage":{"input_tokens":3,"output_tokens":4}}"#;
    let answer = tap(Format::Anthropic, &[message.as_bytes()]);
    assert_eq!(answer.stop_reason.as_deref(), Some("end_turn"));
    assert!(answer.tool_use && answer.terminal);
    assert_eq!(buckets(&answer, Format::Anthropic), [3, 0, 0, 0, 4, 0]);

    let response = r#"{"id":"resp_2","object":"response","status":"incomplete","error":null,"model":"gpt-5",
        "output":[{"type":"reasoning"},{"type":"function_call"}],"usage":{"input_tokens":3,"output_tokens":4}}"#;
    let answer = tap(Format::Responses, &[b"  \n", response.as_bytes()]);
    assert_eq!(answer.stop_reason.as_deref(), Some("incomplete"));
    assert!(answer.tool_use && answer.terminal && answer.error.is_none());

    let completion = r#"{"id":"c_2","model":"gpt-4.1","choices":[{"message":{"content":null,
        "tool_calls":[{"function":{"name":"x"}}]},"finish_reason":"tool_calls"}],
        "usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
    let answer = tap(Format::Chat, &[completion.as_bytes()]);
    assert_eq!(answer.stop_reason.as_deref(), Some("tool_calls"));
    assert!(answer.tool_use && answer.terminal);
}

#[test]
fn errors_inside_a_200() {
    let cases = [
        (
            Format::Anthropic,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}\n\n",
            "overloaded_error",
        ),
        (
            Format::Responses,
            "data: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\",\
             \"error\":{\"code\":\"rate_limit_exceeded\",\"message\":\"m\"}}}\n\n",
            "rate_limit_exceeded",
        ),
        (
            Format::Responses,
            "data: {\"type\":\"error\",\"code\":\"server_error\",\"message\":\"m\"}\n\n",
            "server_error",
        ),
        (
            Format::Chat,
            "data: {\"id\":\"g\",\"error\":{\"code\":502,\"message\":\"m\"},\
             \"choices\":[{\"delta\":{\"content\":\"\"},\"finish_reason\":\"error\"}]}\n\n",
            "502",
        ),
        (
            Format::Chat,
            "{\"error\":{\"code\":429,\"message\":\"m\"}}",
            "429",
        ),
        (
            Format::Anthropic,
            "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}",
            "overloaded_error",
        ),
    ];
    for (format, body, kind) in cases {
        let error = tap(format, &[body.as_bytes()]).error.expect(body);
        assert_eq!(
            (error.kind.as_str(), error.message.as_str()),
            (kind, "m"),
            "{body}"
        );
    }
}

#[test]
fn a_cut_stream_is_not_terminal() {
    for (format, stream, mark) in [
        (Format::Anthropic, ANTHROPIC, "event: message_stop"),
        (
            Format::Responses,
            RESPONSES,
            "data: {\"type\":\"response.completed\"",
        ),
        (Format::Chat, CHAT, "data: [DONE]"),
    ] {
        let at = stream.find(mark).expect("mark");
        assert!(!tap(format, &[&stream.as_bytes()[..at]]).terminal);
    }
}

#[test]
fn model_text_cannot_pose_as_an_event() {
    let stream = "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\
        \"text\":\"\\n\\ndata: {\\\"type\\\":\\\"message_stop\\\"}\\n\\n\"}}\n\n";
    let answer = tap(Format::Anthropic, &[stream.as_bytes()]);
    assert!(!answer.terminal);
    assert_eq!(answer.events, 1);
}

#[test]
fn what_follows_a_document_changes_nothing() {
    let document = b"{\"id\":\"c\",\"choices\":[]}";
    let whole = tap(Format::Chat, &[&document[..], b"garbage"]);
    assert!(whole.terminal);
    assert_eq!(
        tap(Format::Chat, &[&[&document[..], b"garbage"].concat()]),
        whole
    );
}

#[test]
fn ids_are_cut() {
    let stream = format!("{{\"id\":\"{}\",\"choices\":[]}}", "é".repeat(1000));
    let id = tap(Format::Chat, &[stream.as_bytes()]).id.expect("id");
    assert!(id.len() <= ID && id.chars().all(|c| c == 'é'));
}

#[test]
fn blanks_at_the_beginning_do_not_depend_on_splits() {
    let read = |chunks: &[&[u8]]| {
        let mut tap = Tap::new(Format::Anthropic);
        for chunk in chunks {
            tap.feed(chunk);
        }
        tap.answer().clone()
    };
    let whole = read(&[b"\t data: {\"type\":\"message_stop\"}\n\n"]);
    assert!(whole.terminal);
    let split = read(&[b"\t", b" ", b"data: {\"type\":\"message_stop\"}\n\n"]);
    assert_eq!(split, whole);
}

mod any_input {
    use proptest::prelude::*;

    use super::*;
    use crate::generation::request::RequestReader;

    /// Bytes that are likely to mean something to the readers.
    fn likely() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            Just("data:"),
            Just("data: "),
            Just("\n\n"),
            Just("\r\n"),
            Just("\r"),
            Just(": c\n"),
            Just("{"),
            Just("}"),
            Just("["),
            Just("]"),
            Just(","),
            Just(":"),
            Just("\"type\""),
            Just("\"usage\""),
            Just("\"message\""),
            Just("\"output_tokens\""),
            Just("\"cost\""),
            Just("18446744073709551616"),
            Just("-1"),
            Just("1e308"),
            Just("null"),
            Just("\"message_stop\""),
            Just("\"\\ud83d\\ude00\\u12\""),
            Just("\\"),
            Just("\""),
            Just("[DONE]"),
            Just("\u{feff}"),
            Just("\"error\""),
            Just("\"choices\""),
            Just("\"response\""),
        ];
        let piece = prop_oneof![
            word.prop_map(|text| text.as_bytes().to_vec()),
            prop::collection::vec(any::<u8>(), 0..4),
        ];
        prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    fn format() -> impl Strategy<Value = Format> {
        prop::sample::select(vec![Format::Anthropic, Format::Responses, Format::Chat])
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_input_panics_and_no_split_matters(bytes in likely(), format in format(), cuts: Vec<prop::sample::Index>) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts {
                chunks.push(&bytes[from..cut]);
                from = cut;
            }
            chunks.push(&bytes[from..]);
            prop_assert_eq!(tap(format, &chunks), tap(format, &[&bytes]));
            let (mut whole, mut split) = (RequestReader::default(), RequestReader::default());
            whole.feed(&bytes);
            for chunk in chunks {
                split.feed(chunk);
            }
            prop_assert_eq!(whole.request(), split.request());
        }
    }
}
