//! The scripted model's WebSocket: as `POST /v1/responses`, in messages.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use whim_kit::Upstream;
use whim_kit::model::script::{Fault, Reply, Rule, Script};

use super::LIMIT;

struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    async fn open(upstream: &Upstream) -> Self {
        let stream = TcpStream::connect(upstream.address()).await.unwrap();
        let url = format!("ws://{}/v1/responses", upstream.address());
        let (socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        Self(socket)
    }

    async fn send(&mut self, message: Value) {
        let message = Message::text(message.to_string());
        self.0.send(message).await.unwrap();
    }

    /// The events up to the one that ends a response, or to the connection's end.
    async fn response(&mut self) -> Vec<Value> {
        let reading = async {
            let mut events = Vec::new();
            while let Some(Ok(Message::Text(text))) = self.0.next().await {
                let event: Value = serde_json::from_str(&text).unwrap();
                let kind = event["type"].as_str().unwrap().to_owned();
                events.push(event);
                if matches!(
                    kind.as_str(),
                    "response.completed" | "response.failed" | "error"
                ) {
                    break;
                }
            }
            events
        };
        tokio::time::timeout(LIMIT, reading).await.unwrap()
    }
}

fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work);
}

fn script(rules: impl IntoIterator<Item = Rule>) -> Script {
    Script {
        websocket: true,
        ..Script::of(rules)
    }
}

fn create(prompt: &str) -> Value {
    let tools = json!([{"type": "function", "name": "exec_command"}]);
    json!({"type": "response.create", "model": "m", "tools": tools, "input": prompt})
}

#[test]
fn a_conversation_goes_on_from_the_response_before() {
    let upstream = Upstream::start(script([Rule::prompt(
        "x",
        [Reply::shell("ls"), Reply::say("done")],
    )]))
    .unwrap();
    run(async {
        let mut socket = Socket::open(&upstream).await;
        let mut warm_up = create("");
        warm_up["generate"] = false.into();
        socket.send(warm_up).await;
        let nothing = socket.response().await;
        assert_eq!(nothing[1]["response"]["output"], json!([]));
        let mut first = create("x");
        first["stream_id"] = "main".into();
        socket.send(first).await;
        let events = socket.response().await;
        assert!(events.iter().all(|event| event["stream_id"] == "main"));
        let last = &events[events.len() - 1]["response"];
        let call = &last["output"][0];
        assert_eq!(call["name"], "exec_command", "{last}");
        let output =
            json!({"type": "function_call_output", "call_id": call["call_id"], "output": "a"});
        socket
            .send(json!({"type": "response.create", "model": "m", "previous_response_id": last["id"], "input": [output]}))
            .await;
        let events = socket.response().await;
        let last = &events[events.len() - 1]["response"];
        assert_eq!(last["output"][0]["content"][0]["text"], "done", "{last}");
        socket
            .send(json!({"type": "response.create", "previous_response_id": "resp_no"}))
            .await;
        let error = socket.response().await;
        assert_eq!(error[0]["error"]["code"], "previous_response_not_found");
    });
    let turns = upstream.turns();
    assert_eq!(
        turns.iter().map(|turn| turn.round).collect::<Vec<_>>(),
        [0, 1]
    );
    assert_eq!(
        upstream.requests().len(),
        3,
        "the warm-up is one, and no turn"
    );
}

#[test]
fn faults_are_those_of_the_script() {
    let upstream = Upstream::start(script([
        Rule::prompt("busy", [Reply::status(503)]),
        Rule::prompt("cut", [Reply::fault(Fault::Cut { after: 2 })]),
    ]))
    .unwrap();
    run(async {
        let mut socket = Socket::open(&upstream).await;
        socket.send(create("busy")).await;
        let error = socket.response().await;
        assert_eq!(
            (&error[0]["type"], &error[0]["status"]),
            (&json!("error"), &json!(503))
        );
        socket.send(create("cut")).await;
        let events = socket.response().await;
        let kinds: Vec<&Value> = events.iter().map(|event| &event["type"]).collect();
        assert_eq!(kinds, ["response.created", "response.in_progress"]);
    });
}
