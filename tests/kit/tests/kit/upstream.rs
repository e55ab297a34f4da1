//! The scripted model over the wire.

use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use whim_kit::Client;
use whim_kit::client::{Answer, EventReader};
use whim_kit::model::record::Outcome;
use whim_kit::model::script::{Fault, Pace, Raw, Reply, Rule, Script, ToolCall, Usage};

use super::{Guard, LIMIT, start};

const MODEL: &str = env!("CARGO_BIN_EXE_scripted-model");

fn saying(prompt: &str, stream: bool) -> Value {
    let tools = json!([{"name": "Bash"}]);
    json!({"model": "m", "stream": stream, "tools": tools, "messages": [{"role": "user", "content": prompt}]})
}

fn events(answer: &Answer) -> Vec<Value> {
    let mut reader = EventReader::default();
    reader
        .take(&answer.body)
        .iter()
        .map(whim_kit::client::Event::json)
        .collect()
}

/// The text of a messages stream.
fn said(answer: &Answer) -> String {
    events(answer)
        .iter()
        .filter_map(|event| event["delta"]["text"].as_str())
        .collect()
}

#[test]
fn a_messages_stream_is_whole_and_recorded_byte_for_byte() {
    let text = "A longer text, so that it comes in several portions – ä.";
    let reply = Reply {
        thinking: Some("hm".into()),
        tools: vec![ToolCall::Shell("ls".into())],
        ..Reply::say(text)
    };
    let (upstream, client) = start(Script::of([Rule::always(reply)]));
    let answer = client
        .post("/v1/messages?beta=true", &saying("hello", true))
        .unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.headers.contains_key("request-id"));
    let events = events(&answer);
    let kinds: Vec<&str> = events
        .iter()
        .filter_map(|event| event["type"].as_str())
        .collect();
    assert_eq!(
        (kinds[0], kinds[1], kinds.last().copied()),
        ("message_start", "ping", Some("message_stop"))
    );
    assert_eq!(said(&answer), text);
    let start = &events[0]["message"]["usage"];
    assert_eq!(
        (&start["input_tokens"], &start["output_tokens"]),
        (&json!(1234), &json!(1))
    );
    let end = events
        .iter()
        .find(|event| event["type"] == "message_delta")
        .unwrap();
    assert_eq!(
        (&end["usage"]["output_tokens"], &end["delta"]["stop_reason"]),
        (&json!(57), &json!("tool_use"))
    );
    let input: String = events
        .iter()
        .filter_map(|event| event["delta"]["partial_json"].as_str())
        .collect();
    assert_eq!(
        serde_json::from_str::<Value>(&input).unwrap()["command"],
        "ls"
    );
    let seen = upstream.wait_for("the end", LIMIT, |all| {
        all.iter()
            .find(|seen| seen.outcome == Outcome::Complete)
            .map(|&seen| seen.clone())
    });
    let seen = seen.unwrap();
    assert_eq!(seen.sent, answer.body);
    assert_eq!(
        (seen.prompt.as_str(), seen.path.as_str()),
        ("hello", "/v1/messages?beta=true")
    );
}

#[test]
fn responses_and_chat_count_as_their_providers_do() {
    let usage = Usage {
        input: 10,
        cache_read: 20,
        cache_write_5m: 3,
        output: 7,
        reasoning: 2,
        ..Usage::default()
    };
    let (_upstream, client) = start(Script::of([Rule::always(Reply::shell("ls").usage(usage))]));
    let ask = json!({"model": "m", "stream": true, "input": "hello", "tools": [{"type": "function", "name": "exec_command"}]});
    let answer = events(&client.post("/v1/responses", &ask).unwrap());
    let last = answer.last().unwrap();
    assert_eq!(last["type"], "response.completed");
    assert_eq!(last["response"]["usage"]["input_tokens"], 33);
    assert_eq!(
        last["response"]["usage"]["input_tokens_details"]["cached_tokens"],
        20
    );
    assert_eq!(
        last["response"]["output"][0]["arguments"],
        r#"{"cmd":"ls"}"#
    );

    let mut ask = saying("hello", true);
    let without = client.post("/v1/chat/completions", &ask).unwrap();
    assert!(!without.text().contains("usage") && without.text().ends_with("data: [DONE]\n\n"));
    ask["stream_options"] = json!({"include_usage": true});
    let with = events(&client.post("/v1/chat/completions", &ask).unwrap());
    let usage = with
        .iter()
        .find(|event| event["usage"].is_object())
        .unwrap();
    assert_eq!(
        (&usage["choices"], &usage["usage"]["prompt_tokens"]),
        (&json!([]), &json!(33))
    );
    let whole = client
        .post("/v1/chat/completions", &saying("hello", false))
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(
        whole["usage"]["completion_tokens_details"]["reasoning_tokens"],
        2
    );
}

#[test]
fn the_routers_shape_has_comments_ids_and_costs() {
    let usage = Usage {
        cost: Some(json!(0.25)),
        ..Usage::default()
    };
    let script = Script {
        generation_misses: 1,
        ..Script::of([Rule::always(Reply::say("hi").usage(usage))])
    };
    let (_upstream, client) = start(script);
    let answer = client
        .post("/api/v1/chat/completions", &saying("hello", true))
        .unwrap();
    let id = answer.headers["x-generation-id"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(answer.text().starts_with(": OPENROUTER PROCESSING\n\n"));
    assert!(
        events(&answer)
            .iter()
            .filter(|event| event["id"].is_string())
            .all(|event| event["id"] == id.as_str())
    );
    assert!(answer.text().contains(r#""cost":0.25"#));
    let lookup = format!("/api/v1/generation?id={id}");
    assert_eq!(client.get(&lookup).unwrap().status, 404);
    assert_eq!(client.json(&lookup).unwrap()["data"]["total_cost"], 0.25);
}

#[test]
fn every_fault_is_what_it_says() {
    let stream = saying("x", true);
    let with = |fault| start(Script::of([Rule::always(Reply::fault(fault))]));
    let broken = |fault| {
        let (upstream, client) = with(fault);
        let error = client
            .post("/v1/messages", &stream)
            .unwrap_err()
            .to_string();
        let outcome = upstream.wait_for("the fault", LIMIT, |all| {
            Some(all.first()?.outcome).filter(|&end| end != Outcome::Open)
        });
        (error, outcome.unwrap(), upstream)
    };
    let (_, end, upstream) = broken(Fault::Cut { after: 3 });
    assert_eq!(end, Outcome::Fault);
    assert_eq!(
        upstream.requests()[0]
            .sent
            .windows(7)
            .filter(|window| window == b"event: ")
            .count(),
        3
    );
    let (error, end, _) = broken(Fault::Reset { after: 1 });
    assert!(
        error.contains("reset") || error.contains("connection"),
        "{error}"
    );
    assert_eq!(end, Outcome::Fault);

    let (_upstream, client) = with(Fault::Status {
        code: 529,
        body: None,
        retry_after: Some("soon".into()),
    });
    let answer = client.post("/v1/messages", &stream).unwrap();
    assert_eq!(
        (
            answer.status.as_u16(),
            answer.headers["retry-after"].to_str().unwrap()
        ),
        (529, "soon")
    );
    assert_eq!(answer.json().unwrap()["error"]["type"], "overloaded_error");

    let fault = || Fault::Error {
        after: 2,
        kind: "overloaded_error".into(),
        message: "later".into(),
    };
    let (_upstream, client) = with(fault());
    let answer = client.post("/v1/messages", &stream).unwrap();
    assert_eq!(
        (
            answer.status.as_u16(),
            events(&answer).last().unwrap()["type"].as_str()
        ),
        (200, Some("error"))
    );
    let answer = client.post("/v1/messages", &saying("x", false)).unwrap();
    assert_eq!(
        (answer.status.as_u16(), &answer.json().unwrap()["type"]),
        (200, &json!("error"))
    );
}

#[test]
fn a_reset_is_an_rst() {
    let (upstream, _) = start(Script::of([Rule::always(Reply::fault(Fault::Reset {
        after: 1,
    }))]));
    let mut stream = TcpStream::connect(upstream.address()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let body = saying("x", true).to_string();
    write!(
        stream,
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let error = std::io::copy(&mut stream, &mut std::io::sink()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_client_that_leaves_a_stall_or_a_hang_is_noticed() {
    for fault in [Fault::Stall { after: 2 }, Fault::Hang] {
        let (upstream, client) = start(Script::of([Rule::always(Reply::fault(fault.clone()))]));
        let client = client.limit(Duration::from_millis(300));
        assert!(client.post("/v1/messages", &saying("x", true)).is_err());
        upstream
            .wait_for("one under way", LIMIT, |all| all.first().map(drop))
            .unwrap();
        drop(client);
        let left = |all: &[&whim_kit::model::record::Recorded]| {
            (all[0].outcome == Outcome::ClientLeft).then_some(())
        };
        upstream
            .wait_for(&format!("{fault:?} to end"), LIMIT, left)
            .unwrap();
        assert_eq!(upstream.active(), 0);
    }
}

#[test]
fn a_gate_holds_the_answer_until_it_is_opened() {
    let (upstream, client) = start(Script::of([Rule::always(
        Reply::say("held back").gated("go"),
    )]));
    let asking =
        std::thread::spawn(move || client.post("/v1/messages", &saying("x", true)).unwrap());
    let begun = |all: &[&whim_kit::model::record::Recorded]| {
        all.first().filter(|seen| !seen.sent.is_empty()).map(drop)
    };
    upstream.wait_for("the first event", LIMIT, begun).unwrap();
    assert_eq!(upstream.active(), 1);
    assert!(!asking.is_finished());
    upstream.open("go");
    assert_eq!(said(&asking.join().unwrap()), "held back");
}

#[test]
fn raw_answers_and_small_writes_change_no_byte() {
    let raw = Raw {
        content_type: None,
        writes: vec!["data: a\n\n".into(), "junk".into()],
        ..Raw::default()
    };
    let pace = Pace {
        split: Some(1),
        ..Pace::default()
    };
    let reply = Reply {
        raw: Some(raw),
        ..Reply::default()
    }
    .pace(pace);
    let (_upstream, client) = start(Script::of([Rule::always(reply)]));
    let answer = client
        .post(
            "/v1/responses",
            &json!({"model": "m", "stream": true, "input": "x"}),
        )
        .unwrap();
    assert!(!answer.headers.contains_key("content-type"));
    assert_eq!(answer.text(), "data: a\n\njunk");
}

#[test]
fn a_wanted_key_is_wanted() {
    let (upstream, client) = start(Script {
        require_key: Some("real".into()),
        ..Script::default()
    });
    assert_eq!(
        client
            .post("/v1/messages", &saying("x", true))
            .unwrap()
            .status,
        401
    );
    let client = Client::tcp(upstream.address()).unwrap().bearer("real");
    assert_eq!(
        client
            .post("/v1/messages", &saying("x", true))
            .unwrap()
            .status,
        200
    );
    assert_eq!(upstream.requests()[1].key(), Some("real"));
    assert!(upstream.requests()[1].mentions("real") && !upstream.requests()[0].mentions("real"));
}

#[test]
fn other_paths_and_dropping() {
    let (upstream, client) = start(Script::default());
    assert_eq!(client.get("/").unwrap().status, 200);
    assert_eq!(client.get("/v1/responses").unwrap().status, 426);
    assert_eq!(client.get("/nowhere").unwrap().status, 404);
    assert!(
        !client.json("/v1/models").unwrap()["data"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert!(
        client
            .post("/v1/messages/count_tokens", &saying("x", true))
            .unwrap()
            .json()
            .unwrap()["input_tokens"]
            .is_u64()
    );
    drop(upstream);
    assert!(client.get("/").is_err());
}

#[test]
fn the_program_is_steered_over_its_control_port() {
    let mut child = Command::new(MODEL);
    child
        .args(["--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"])
        .stdout(Stdio::piped());
    let mut guard = Guard(child.spawn().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(guard.0.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    let addresses: Value = serde_json::from_str(&line).unwrap();
    let client = |field: &str| {
        let url = addresses[field].as_str().unwrap();
        Client::tcp(url.strip_prefix("http://").unwrap().parse().unwrap()).unwrap()
    };
    let (model, control) = (client("url"), client("control"));
    let script =
        json!({"rules": [{"replies": [{"text": "scripted", "gate": "g"}], "every_round": true}]});
    assert_eq!(control.put("/script", &script).unwrap().status, 200);
    assert_eq!(
        control
            .put("/script", &json!({"rulez": []}))
            .unwrap()
            .status,
        422
    );
    control.put("/gates/g", &json!({})).unwrap();
    assert_eq!(
        said(&model.post("/v1/messages", &saying("x", true)).unwrap()),
        "scripted"
    );
    let requests = control.json("/requests?after=0").unwrap();
    assert_eq!(requests["requests"][0]["prompt"], "x");
    control.delete("/requests").unwrap();
    assert_eq!(control.json("/requests").unwrap()["requests"], json!([]));
}
