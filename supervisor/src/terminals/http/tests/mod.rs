//! Real HTTP and WebSocket clients against the router, with real programs behind it.

mod conformance;
mod entry;

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::*;
use crate::terminals::tests::Program;

struct NoShells;

impl Shells for NoShells {
    fn open(&self, _: OpenRequest) -> Pending<'_, Result<Terminal, ShellError>> {
        Box::pin(async { Err(ShellError::Unavailable("no shells here".into())) })
    }
    fn close(&self, _: Terminal) -> Pending<'_, Result<(), ShellError>> {
        Box::pin(async { Ok(()) })
    }
}

struct Server {
    address: SocketAddr,
    state: HttpState,
    program: Program,
}

const TOKEN: &str = "control-token";
const PATIENCE: Duration = Duration::from_secs(20);

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

impl Server {
    async fn start(script: &str) -> Self {
        let program = Program::start("main", Kind::Agent, script);
        let set = TerminalSet::default();
        set.add(program.terminal.clone()).unwrap();
        let verify = Arc::new(|token: &[u8]| access::same(token, TOKEN.as_bytes()));
        let state = HttpState {
            set,
            access: Access::new(verify),
            guard: Guard::new([]),
            shells: Arc::new(NoShells),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = router(state.clone());
        // As in production: what a connection brings with it is part of what is tested.
        tokio::spawn(crate::api::serve::tcp(
            listener,
            router,
            CancellationToken::new(),
        ));
        Self {
            address,
            state,
            program,
        }
    }

    /// Sends a raw request and returns status, headers and body.
    async fn http(&self, request: &str) -> (u16, String) {
        self.http_from("127.0.0.1", request).await
    }

    /// The same from another address of this machine.
    async fn http_from(&self, source: &str, request: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket
            .bind(SocketAddr::new(source.parse().unwrap(), 0))
            .unwrap();
        let mut stream = socket.connect(self.address).await.unwrap();
        let (line, rest) = request.split_once('\n').unwrap_or((request, ""));
        let host = if rest.to_ascii_lowercase().contains("host:") {
            ""
        } else {
            "host: localhost\r\n"
        };
        let rest: String = rest.lines().map(|line| format!("{line}\r\n")).collect();
        let text = format!("{line} HTTP/1.1\r\n{host}connection: close\r\n{rest}\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .unwrap()
            .unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    async fn token(&self) -> String {
        let (status, answer) = self
            .http(&format!("GET /t/main/token\nauthorization: Bearer {TOKEN}"))
            .await;
        assert_eq!(status, 200);
        answer
            .split("\"token\":\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap()
            .to_owned()
    }

    async fn connect(&self, path: &str, protocol: &str) -> Result<Client, Error> {
        self.connect_with(path, protocol, &[]).await
    }

    async fn connect_with(
        &self,
        path: &str,
        protocol: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Client, Error> {
        let url = format!("ws://{}{path}", self.address);
        let mut request = url.into_client_request().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol.parse().unwrap());
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        tokio_tungstenite::connect_async(request)
            .await
            .map(|(client, _)| client)
    }

    /// A `tty` client that has said hello with a valid token.
    async fn tty(&self) -> Client {
        let token = self.token().await;
        let mut client = self.connect("/t/main/ws", "tty").await.unwrap();
        say_hello(&mut client, &token).await;
        client
    }
}

async fn say_hello(client: &mut Client, token: &str) {
    let hello = format!(r#"{{"AuthToken":"{token}","columns":80,"rows":24}}"#);
    client
        .send(Message::Binary(hello.into_bytes().into()))
        .await
        .unwrap();
}

async fn next(client: &mut Client) -> Message {
    loop {
        let message = timeout(PATIENCE, client.next())
            .await
            .expect("20 s of silence")
            .unwrap()
            .unwrap();
        if !matches!(message, Message::Ping(_) | Message::Pong(_)) {
            return message;
        }
    }
}

async fn close_of(client: &mut Client) -> (u16, String) {
    loop {
        match timeout(PATIENCE, client.next())
            .await
            .expect("no Close within 20 s")
        {
            Some(Ok(Message::Close(Some(frame)))) => {
                return (frame.code.into(), frame.reason.to_string());
            }
            Some(Ok(_)) => {}
            other => panic!("ended without a Close: {other:?}"),
        }
    }
}

/// Reads output until it contains `wanted`; returns all of it.
async fn output_until(client: &mut Client, wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        match next(client).await {
            Message::Binary(bytes) if bytes.first() == Some(&b'0') => {
                text.push_str(&String::from_utf8_lossy(&bytes[1..]));
            }
            Message::Binary(_) => {}
            other => panic!("{other:?} instead of output; so far {text:?}"),
        }
    }
    text
}

#[tokio::test]
async fn a_ttyd_client_gets_title_preferences_screen_and_echo() {
    let server = Server::start("echo ready; cat").await;
    let mut client = server.tty().await;
    match next(&mut client).await {
        Message::Binary(title) => assert_eq!(title[0], b'1'),
        other => panic!("{other:?}"),
    }
    match next(&mut client).await {
        Message::Binary(preferences) => {
            assert_eq!(preferences[0], b'2');
            assert!(
                serde_json::from_slice::<serde_json::Value>(&preferences[1..])
                    .unwrap()
                    .is_object()
            );
        }
        other => panic!("{other:?}"),
    }
    output_until(&mut client, "ready").await;
    client
        .send(Message::Binary(b"0typed\r".to_vec().into()))
        .await
        .unwrap();
    output_until(&mut client, "typed").await;
    client
        .send(Message::text("1{\"columns\":111,\"rows\":33}"))
        .await
        .unwrap();
    let mut status = server.program.terminal.watch();
    timeout(
        PATIENCE,
        status.wait_for(|status| status.size.columns == 111),
    )
    .await
    .unwrap()
    .unwrap();
    assert_eq!(status.borrow().size.rows, 33);
}

#[tokio::test]
async fn readonly_in_the_query_is_honoured() {
    let server = Server::start("echo ready; while read x; do echo got $x; done").await;
    let token = server.token().await;
    let mut client = server
        .connect("/t/main/ws?readonly=1", "tty")
        .await
        .unwrap();
    say_hello(&mut client, &token).await;
    output_until(&mut client, "ready").await;
    client
        .send(Message::Binary(b"0evil\r".to_vec().into()))
        .await
        .unwrap();
    client
        .send(Message::text("1{\"columns\":55,\"rows\":55}"))
        .await
        .unwrap();
    server
        .program
        .terminal
        .type_bytes(b"good\r".to_vec())
        .await
        .unwrap();
    assert!(!output_until(&mut client, "got good").await.contains("evil"));
    assert_eq!(server.program.terminal.status().size.columns, 80);
}

#[tokio::test]
async fn a_client_that_closes_is_answered() {
    let server = Server::start("cat").await;
    let mut client = server.tty().await;
    client.close(None).await.unwrap();
    let answered = async {
        while let Some(message) = client.next().await {
            if matches!(message.unwrap(), Message::Close(None)) {
                return true;
            }
        }
        false
    };
    assert!(timeout(PATIENCE, answered).await.unwrap());
}

#[tokio::test]
async fn pause_is_honoured_and_nothing_is_lost() {
    let server = Server::start("stty -opost; echo ready; read go; seq 1 60000; echo end").await;
    let mut client = server.tty().await;
    output_until(&mut client, "ready").await;
    client
        .send(Message::Binary(b"2".to_vec().into()))
        .await
        .unwrap();
    client
        .send(Message::Binary(b"0\r".to_vec().into()))
        .await
        .unwrap();
    // The program runs to its end while the viewer pauses.
    let done = async {
        while !server
            .program
            .terminal
            .text()
            .await
            .unwrap()
            .text
            .contains("end")
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, done).await.unwrap();
    // A frame that was on its way when the pause came may arrive, no more.
    let quiet = timeout(Duration::from_millis(300), async {
        let mut late = 0;
        while let Some(Ok(message)) = client.next().await {
            late += usize::from(message.is_binary());
        }
        late
    });
    assert!(
        quiet.await.is_err(),
        "the connection ended during the pause"
    );
    client
        .send(Message::Binary(b"3".to_vec().into()))
        .await
        .unwrap();
    client
        .send(Message::Binary(b"3".to_vec().into()))
        .await
        .unwrap();
    let text = output_until(&mut client, "end").await;
    let expected: String = (1..=60_000).map(|number| format!("{number}\n")).collect();
    assert!(text.contains(&expected), "bytes are missing");
}

#[tokio::test]
async fn large_messages_get_1009_and_a_restart_1012() {
    let server = Server::start("echo ready; cat > /dev/null").await;
    let mut client = server.tty().await;
    output_until(&mut client, "ready").await;
    drop(
        client
            .send(Message::Binary(vec![b'0'; (1 << 20) + 1].into()))
            .await,
    );
    assert_eq!(close_of(&mut client).await.0, 1009);
    let mut client = server.tty().await;
    output_until(&mut client, "ready").await;
    server.state.set.restart();
    assert_eq!(close_of(&mut client).await.0, 1012);
}

#[tokio::test]
async fn the_end_is_told_with_its_reason() {
    let mut server = Server::start("echo ready; read x; exit 3").await;
    let mut client = server.tty().await;
    output_until(&mut client, "ready").await;
    client
        .send(Message::Binary(b"0\r".to_vec().into()))
        .await
        .unwrap();
    server.program.reap();
    assert_eq!(close_of(&mut client).await, (1000, "exit 3".to_owned()));
    let (status, list) = server
        .http(&format!("GET /v1/terminals\nauthorization: Bearer {TOKEN}"))
        .await;
    assert_eq!(status, 200);
    assert!(
        list.contains(r#""state":"exited","exit":{"code":3}"#),
        "{list}"
    );
    let delete = format!("DELETE /v1/terminals/main\nauthorization: Bearer {TOKEN}");
    assert_eq!(server.http(&delete).await.0, 204);
    assert_eq!(server.http(&delete).await.0, 404);
}

#[tokio::test]
async fn v2_resumes_at_an_offset() {
    let server = Server::start("echo ready; while read x; do echo got $x; done").await;
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str())];
    let mut client = server
        .connect_with("/t/main/ws", "tty, tty.v2", &headers)
        .await
        .unwrap();
    client
        .send(Message::text(
            r#"{"AuthToken":"","columns":80,"rows":24,"deflate":true}"#,
        ))
        .await
        .unwrap();
    let mut commands = Vec::new();
    let offset = loop {
        let Message::Binary(bytes) = next(&mut client).await else {
            panic!()
        };
        commands.push(bytes[0]);
        match bytes[0] {
            b'3' => break u64::from_be_bytes(bytes[1..9].try_into().unwrap()),
            b'5' => assert!(String::from_utf8_lossy(&bytes).contains("\"terminal\":\"main\"")),
            _ => {}
        }
    };
    assert_eq!(commands[0], b'5', "the hello comes first");
    drop(client);
    server
        .program
        .terminal
        .type_bytes(b"one\r".to_vec())
        .await
        .unwrap();
    let mut client = server
        .connect_with("/t/main/ws", "tty.v2", &headers)
        .await
        .unwrap();
    let hello = format!(r#"{{"AuthToken":"","columns":80,"rows":24,"resume":{offset}}}"#);
    client.send(Message::text(hello)).await.unwrap();
    let mut text = String::new();
    let mut at = offset;
    while !text.contains("got one") {
        let Message::Binary(bytes) = next(&mut client).await else {
            panic!()
        };
        assert_ne!(bytes[0], b'3', "a snapshot instead of a resume");
        if bytes[0] == b'0' {
            assert_eq!(u64::from_be_bytes(bytes[1..9].try_into().unwrap()), at);
            at += bytes.len() as u64 - 9;
            text.push_str(&String::from_utf8_lossy(&bytes[9..]));
        }
    }
}

#[tokio::test]
async fn pages_carry_the_policy() {
    let server = Server::start("read x").await;
    for path in ["/", "/t/main/"] {
        let (status, answer) = server.http(&format!("GET {path}")).await;
        let answer = answer.to_lowercase();
        assert_eq!(status, 200);
        for wanted in [
            "frame-ancestors 'none'",
            "script-src 'self';",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
        ] {
            assert!(answer.contains(wanted), "{wanted} is missing: {answer}");
        }
    }
    assert_eq!(server.http("GET /t/main").await.0, 308);
    assert_eq!(server.http("GET /assets/../Cargo.toml").await.0, 404);
}
