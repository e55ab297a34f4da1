//! A viewer: a client of ttyd's `tty` subprotocol, or of `tty.v2`.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use memchr::memmem;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, client};

/// Nothing that is waited for takes longer, whatever the machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// What is kept of the output, for markers that a read cuts in two.
const TAIL: usize = 256;

/// Where a terminal is watched.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    pub(crate) bearer: Option<String>,
}

pub(crate) struct Viewer {
    socket: WebSocket<TcpStream>,
    tail: Vec<u8>,
    /// Bytes of output so far.
    pub(crate) received: u64,
    /// Bytes of messages so far, of any kind.
    pub(crate) weight: u64,
}

/// A message of the server.
pub(crate) enum Said {
    Output(Vec<u8>),
    /// Command and payload.
    Other(u8, Vec<u8>),
}

impl Viewer {
    /// A stock ttyd client.
    pub(crate) fn plain(place: &Place) -> Self {
        let mut viewer = Self::connect(place, "tty");
        viewer.hello(&json!({"AuthToken": "", "columns": 80, "rows": 24}));
        viewer
    }

    /// As the page does: `resume` is the offset of the first byte that it lacks.
    pub(crate) fn page(place: &Place, resume: Option<u64>) -> Self {
        let mut viewer = Self::connect(place, "tty.v2");
        let mut hello =
            json!({"AuthToken": "", "columns": 200, "rows": 50, "lines": 10_000, "deflate": true});
        if let Some(offset) = resume {
            hello["resume"] = json!(offset);
        }
        viewer.hello(&hello);
        viewer
    }

    fn connect(place: &Place, protocol: &str) -> Self {
        let mut request = format!("ws://{}{}", place.address, place.path)
            .into_client_request()
            .unwrap();
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", protocol.parse().unwrap());
        if let Some(bearer) = &place.bearer {
            headers.insert("authorization", format!("Bearer {bearer}").parse().unwrap());
        }
        let stream = TcpStream::connect(place.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = client(request, stream).unwrap();
        Self {
            socket,
            tail: Vec::new(),
            received: 0,
            weight: 0,
        }
    }

    fn hello(&mut self, hello: &Value) {
        let text = hello.to_string();
        self.socket
            .send(Message::binary(text.into_bytes()))
            .unwrap();
    }

    pub(crate) fn command(&mut self, command: u8) {
        self.socket.send(Message::binary(vec![command])).unwrap();
    }

    pub(crate) fn type_text(&mut self, text: &str) {
        self.tail.clear();
        let message = format!("0{text}").into_bytes();
        self.socket.send(Message::binary(message)).unwrap();
    }

    /// The next message; `None` when none came until then.
    pub(crate) fn next(&mut self, until: Option<Instant>) -> Option<Said> {
        loop {
            if let Some(until) = until {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return None;
                }
                self.socket.get_ref().set_read_timeout(Some(left)).unwrap();
            }
            let read = self.socket.read();
            if until.is_some() {
                self.socket
                    .get_ref()
                    .set_read_timeout(Some(PATIENCE))
                    .unwrap();
            }
            match read {
                Ok(Message::Binary(message)) => {
                    self.weight += message.len() as u64;
                    let (command, payload) = message.split_first().unwrap();
                    if *command != b'0' {
                        return Some(Said::Other(*command, payload.to_vec()));
                    }
                    self.received += payload.len() as u64;
                    return Some(Said::Output(payload.to_vec()));
                }
                Ok(Message::Close(frame)) => panic!("closed: {frame:?}"),
                Ok(_) => {}
                Err(Error::Io(error))
                    if until.is_some()
                        && matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return None;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Reads until the terminal printed this.
    pub(crate) fn until(&mut self, wanted: &str) {
        loop {
            // A viewer that was too slow gets a new screen, with the marker in it.
            let (Said::Output(bytes) | Said::Other(b'3', bytes)) = self.next(None).unwrap() else {
                continue;
            };
            let from = bytes.len().saturating_sub(TAIL);
            self.tail.extend_from_slice(&bytes[from..]);
            if memmem::find(&self.tail, wanted.as_bytes()).is_some() {
                return;
            }
            let kept = self.tail.len().saturating_sub(TAIL);
            self.tail.drain(..kept);
        }
    }

    /// Reads for that long, and says how many messages of output came.
    pub(crate) fn listen(&mut self, time: Duration) -> usize {
        let until = Instant::now() + time;
        let mut count = 0;
        while let Some(said) = self.next(Some(until)) {
            count += usize::from(matches!(said, Said::Output(_)));
        }
        count
    }

    /// Waits for the shell: what is typed while it starts is printed twice.
    pub(crate) fn prompt(&mut self) {
        self.type_text("PS1=; echo rea''dy\r");
        self.until("ready\r\n");
    }
}
