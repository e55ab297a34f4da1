//! The supervisor killed again and again while an agent streams and a terminal prints: nobody else notices.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use whim_kit::model::script::{Pace, Reply, Rule, Script};
use whim_kit::{Client, Root, Upstream, Whim, proc, reachable, wait};

use crate::support::{PATIENCE, bypassing, ready, repository, root, start_in, state, whim};

/// How often it is killed. Each time a stream of its own is under way.
const KILLS: usize = 10;

/// A turn of as many rounds: text that streams for a while, then a tool that leaves one line.
fn long_turn() -> Script {
    let slowly = Pace {
        between_ms: 40,
        split: None,
        ..Pace::default()
    };
    let round = |number: usize| {
        let mut reply = Reply::shell(format!("echo round {number} >> rounds"));
        reply.text = Some("one word after the other ".repeat(20));
        reply.pace(slowly)
    };
    let rounds = (1..=KILLS).map(round);
    let replies = rounds.chain([Reply::say("all rounds are done")]);
    Script::of([Rule::prompt("work for long", replies)])
}

/// What a viewer sees that joins now: all that the terminal holds, until `last` has come or the limit is over.
fn seen(whim: &Whim, terminal: &str, last: &str, limit: Duration) -> String {
    let address = reachable(whim.ready(PATIENCE).unwrap().ui);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut text = String::new();
    let view = async {
        let url = format!("ws://{address}/t/{terminal}/ws");
        let mut request = url.into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", "tty".parse().unwrap());
        let bearer = format!("Bearer {}", whim.token());
        headers.insert("authorization", bearer.parse().unwrap());
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut socket, _) = tokio_tungstenite::client_async(request, stream)
            .await
            .unwrap();
        let hello = json!({"AuthToken": "", "columns": 120, "rows": 40}).to_string();
        let hello = Message::binary(hello.into_bytes());
        socket.send(hello).await.unwrap();
        while !text.contains(last) {
            let message = socket.next().await.unwrap().unwrap();
            if let Message::Binary(bytes) = message
                && let Some(output) = bytes.strip_prefix(b"0")
            {
                text.push_str(&String::from_utf8_lossy(output));
            }
        }
    };
    let _over = runtime.block_on(async { tokio::time::timeout(limit, view).await });
    text
}

/// What there is to say when something did not come about.
fn story(client: &Client, whim: &Whim) -> String {
    let state = client.json("/v1/state");
    let screen = seen(whim, "main", "\0", Duration::from_secs(2));
    format!("{state:?}\n{screen}\n{}", whim.output())
}

/// The numbers of lines `number N.`, in the order they are seen.
fn numbers(text: &str) -> Vec<usize> {
    let after = text.split("number ").skip(1);
    let number = |rest: &str| {
        rest.split_once('.')
            .and_then(|(digits, _)| digits.parse().ok())
    };
    after.filter_map(number).collect()
}

fn main_session(state: &Value) -> &Value {
    &state["sessions"][0]
}

/// The generation proxy answers.
fn proxy_answers(whim: &Whim) {
    let generation = whim.ready(PATIENCE).unwrap().generation;
    let client = Client::tcp(generation).unwrap().limit(PATIENCE);
    assert_eq!(client.get("/").unwrap().status, 200);
}

#[test]
fn kills_in_the_middle_of_streams_lose_nothing() {
    let upstream = Upstream::start(long_turn()).unwrap();
    let repository = repository();
    let root = root(&whim());
    let run = bypassing("claude", &upstream, repository.path(), "work for long");
    let (mut whim, client) = start_in(&run, &root);
    let pid = main_session(&ready(&client, &whim))["pid"].clone();
    let printer = "i=0; while ! [ -e stop ]; do i=$((i+1)); echo \"number $i.\"; sleep 0.05; done; \
                   echo \"number $((i+1)). printed last\"; exec sleep 100000";
    let opened = client
        .post(
            "/v1/terminals",
            &json!({"command": ["/bin/sh", "-c", printer]}),
        )
        .unwrap();
    assert_eq!(opened.status, 201, "{}", opened.text());

    for kill in 1..=KILLS {
        // In the middle of this round's stream, which no other kill has cut.
        upstream
            .wait_for("the next stream", PATIENCE, |asked| {
                let of_round = |turn: &&&whim_kit::model::record::Recorded| {
                    turn.is_turn() && turn.round + 1 == kill && turn.json()["stream"] == true
                };
                let streams = asked.iter().filter(of_round).count();
                (streams > 0).then_some(())
            })
            .unwrap_or_else(|error| panic!("kill {kill}: {error}\n{}", story(&client, &whim)));
        wait::until("an answer under way", PATIENCE, || {
            (upstream.active() > 0).then_some(())
        })
        .unwrap();
        let supervisor = whim.supervisor().unwrap();
        let supervisor = nix::unistd::Pid::from_raw(supervisor);
        nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGKILL).unwrap();
        proxy_answers(&whim);
        let after = state(&client, &whim, "the next supervisor", |state| {
            state["supervisor"]["restarts"] == kill && state["phase"] == "ready"
        });
        assert_eq!(
            main_session(&after)["pid"],
            pid,
            "kill {kill}: {after}\n{}",
            whim.output()
        );
        assert_ne!(after["state"], "starting", "{after}");
    }
    // The turn comes to its end, each round done once.
    let idle = state(&client, &whim, "the turn's end", |state| {
        state["state"] == "idle" && upstream.active() == 0 && rounds(&root).len() >= KILLS
    });
    assert_eq!(main_session(&idle)["pid"], pid);
    let wanted: Vec<String> = (1..=KILLS).map(|round| format!("round {round}")).collect();
    assert_eq!(rounds(&root), wanted, "{}", whim.output());
    let prompts = client.json("/v1/events?limit=10000").unwrap();
    let ended = prompts["events"]
        .as_array()
        .unwrap()
        .iter()
        .any(|event| event["type"] == "prompt.changed" && event["state"] == "done");
    assert!(ended, "the first prompt is reported as done\n{prompts}");

    // From the first kill on nobody who watches took it for done before it was.
    let words: Vec<&str> = prompts["events"]
        .as_array()
        .unwrap()
        .iter()
        .skip_while(|event| event["type"] != "supervisor.started" || event["restarts"] == 0)
        .filter(|event| event["type"] == "state.changed" && event["session"] == "main")
        .filter_map(|event| event["state"].as_str())
        .collect();
    let idle = words.iter().filter(|word| **word == "idle").count();
    assert_eq!((idle, words.last()), (1, Some(&"idle")), "{words:?}");

    // What the agent saw of it: its stream broke off, and it asked once more by itself.
    let mut calls: BTreeMap<usize, Vec<bool>> = BTreeMap::new();
    for turn in upstream.turns() {
        let streamed = turn.json()["stream"] == true;
        calls.entry(turn.round).or_default().push(streamed);
    }
    for round in 0..KILLS {
        let asked = &calls[&round];
        assert!(
            asked.len() > 1,
            "round {round} was not asked again: {calls:?}"
        );
    }

    // No line of the terminal is missing, none is there twice.
    std::fs::write(root.at("/app/repo/stop"), "").unwrap();
    let text = seen(&whim, "shell-1", "printed last", PATIENCE);
    let printed = numbers(&text);
    let wanted: Vec<usize> = (1..=printed.len()).collect();
    assert!(printed.len() > KILLS, "{printed:?}");
    assert_eq!(printed, wanted);
    assert!(proc::alive(i32::try_from(pid.as_i64().unwrap()).unwrap()));
    whim.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = whim.ended(PATIENCE + Duration::from_secs(10)).unwrap();
    assert_eq!(ended, 0, "{}", whim.output());
}

fn rounds(root: &Root) -> Vec<String> {
    let text = std::fs::read_to_string(root.at("/app/repo/rounds")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
