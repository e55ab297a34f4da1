//! A provider that does what a script says, an agent that says what it likes, and a proxy between them.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use whim_proxies::generation::{
    Activity, Config, GenerationProxy, Provider, Secret, Session, Upstream, What, serve,
};
use whim_wire::generation::LedgerLine;
use whim_wire::money::NanoUsd;

pub(crate) const KEY: &str = "sk-real-provider-key-0123456789";
/// Long enough for anything on loopback; a test that needs it all has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// What the provider does with a request.
#[derive(Clone)]
pub(crate) enum Step {
    Send(Vec<u8>),
    /// Until the test says so.
    Wait(Arc<Notify>),
    /// Until the client is gone.
    Gone,
    /// FIN now; what follows in the script is dropped.
    Close,
    /// RST now.
    Reset,
}

pub(crate) fn send(bytes: impl Into<Vec<u8>>) -> Step {
    Step::Send(bytes.into())
}

#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) connection: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, v)| v.as_str());
        assert!(found.next().is_none(), "{name} came twice");
        value
    }
}

type Script = Arc<dyn Fn(&Seen, usize) -> Vec<Step> + Send + Sync>;

/// The scripted provider.
pub(crate) struct Mock {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    gone: watch::Receiver<Vec<Instant>>,
    open: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Mock {
    pub(crate) async fn new(
        script: impl Fn(&Seen, usize) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (gone_sender, gone) = watch::channel(Vec::new());
        let (open_sender, open) = watch::channel(0usize);
        let (gone_sender, open_sender) = (Arc::new(gone_sender), Arc::new(open_sender));
        let script: Script = Arc::new(script);
        let recorded = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (script, seen) = (Arc::clone(&script), Arc::clone(&recorded));
                let (gone, open) = (Arc::clone(&gone_sender), Arc::clone(&open_sender));
                connections.spawn(async move {
                    open.send_modify(|n| *n += 1);
                    converse(stream, connection, script, seen, gone).await;
                    open.send_modify(|n| *n -= 1);
                });
            }
        });
        Self {
            address,
            seen,
            gone,
            open,
            task,
        }
    }

    /// Answers every request with this.
    pub(crate) async fn always(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::new(move |_, _| vec![Step::Send(answer.clone())]).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// When the `n`th client left while a script waited for it.
    pub(crate) async fn gone(&self, n: usize) -> Instant {
        let mut gone = self.gone.clone();
        within("the upstream to see the client leave", async move {
            let found = gone.wait_for(|gone| gone.len() > n).await.unwrap();
            found[n]
        })
        .await
    }

    pub(crate) async fn closed(&self) {
        let mut open = self.open.clone();
        within("all upstream connections to close", async move {
            open.wait_for(|n| *n == 0).await.unwrap();
        })
        .await;
    }
}

async fn converse(
    mut stream: TcpStream,
    connection: usize,
    script: Script,
    seen: Arc<Mutex<Vec<Seen>>>,
    gone: Arc<watch::Sender<Vec<Instant>>>,
) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer, connection).await {
        let steps = {
            let mut seen = seen.lock().unwrap();
            seen.push(request.clone());
            script(&request, seen.len() - 1)
        };
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        gone.send_modify(|gone| gone.push(Instant::now()));
                        return;
                    }
                }
                Step::Wait(notify) => notify.notified().await,
                Step::Gone => {
                    let mut byte = [0];
                    let _ended = stream.read(&mut byte).await;
                    gone.send_modify(|gone| gone.push(Instant::now()));
                    return;
                }
                Step::Close => return,
                Step::Reset => {
                    nix::sys::socket::setsockopt(
                        &stream,
                        nix::sys::socket::sockopt::Linger,
                        &nix::libc::linger {
                            l_onoff: 1,
                            l_linger: 0,
                        },
                    )
                    .unwrap();
                    return;
                }
            }
        }
    }
}

async fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    connection: usize,
) -> Option<Seen> {
    let head_end = fill_until(stream, buffer, b"\r\n\r\n").await?;
    let head = String::from_utf8(buffer.drain(..head_end).collect()).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let line = lines.next().unwrap().to_owned();
    let headers: Vec<(String, String)> = lines
        .map(|l| {
            l.split_once(':')
                .map(|(n, v)| (n.to_owned(), v.trim().to_owned()))
                .unwrap()
        })
        .collect();
    let find = |name: &str| {
        headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.clone())
    };
    let body = if let Some(length) = find("content-length") {
        let length: usize = length.parse().unwrap();
        while buffer.len() < length {
            fill(stream, buffer).await?;
        }
        buffer.drain(..length).collect()
    } else if find("transfer-encoding").is_some() {
        let mut body = Vec::new();
        loop {
            let end = fill_until(stream, buffer, b"\r\n").await?;
            let size: Vec<u8> = buffer.drain(..end).collect();
            let size =
                usize::from_str_radix(std::str::from_utf8(&size).unwrap().trim(), 16).unwrap();
            while buffer.len() < size + 2 {
                fill(stream, buffer).await?;
            }
            body.extend(buffer.drain(..size));
            buffer.drain(..2);
            if size == 0 {
                break body;
            }
        }
    } else {
        Vec::new()
    };
    Some(Seen {
        line,
        headers,
        body,
        connection,
    })
}

async fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    match stream.read_buf(buffer).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(()),
    }
}

async fn fill_until(stream: &mut TcpStream, buffer: &mut Vec<u8>, mark: &[u8]) -> Option<usize> {
    loop {
        if let Some(at) = buffer.windows(mark.len()).position(|w| w == mark) {
            return Some(at + mark.len());
        }
        fill(stream, buffer).await?;
    }
}

/// A proxy on a port of its own.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) proxy: Arc<GenerationProxy>,
    pub(crate) token: String,
    pub(crate) activity: mpsc::Receiver<Activity>,
    pub(crate) directory: tempfile::TempDir,
    stop: Arc<Notify>,
    task: JoinHandle<std::io::Result<()>>,
}

pub(crate) struct Setup {
    pub(crate) provider: Provider,
    pub(crate) bases: Vec<String>,
    pub(crate) budget: Option<NanoUsd>,
    pub(crate) configure: fn(&mut Config),
}

pub(crate) fn to(provider: Provider, mock: &Mock) -> Setup {
    Setup {
        provider,
        bases: vec![mock.url()],
        budget: None,
        configure: |_| {},
    }
}

impl Setup {
    pub(crate) fn budget(mut self, usd: &str) -> Self {
        self.budget = Some(usd.parse().unwrap());
        self
    }

    pub(crate) fn with(mut self, configure: fn(&mut Config)) -> Self {
        self.configure = configure;
        self
    }

    pub(crate) fn then(mut self, mock: &Mock) -> Self {
        self.bases.push(mock.url());
        self
    }

    pub(crate) async fn start(self) -> Proxy {
        let directory = tempfile::tempdir().unwrap();
        self.start_in(directory).await
    }

    pub(crate) async fn start_in(self, directory: tempfile::TempDir) -> Proxy {
        let (sender, activity) = mpsc::channel(4096);
        let mut config = Config::new(directory.path().join("state"));
        config.activity = Some(sender);
        config.caps.usd = self.budget;
        (self.configure)(&mut config);
        let proxy = GenerationProxy::open(config).unwrap();
        proxy
            .credentials()
            .set(self.provider, Some(Secret::new(KEY.to_owned())));
        let upstream = |base: &String| Upstream::new(self.provider, Some(base)).unwrap();
        let session = Session {
            id: "main".to_owned(),
            agent: "claude".to_owned(),
            upstreams: self.bases.iter().map(upstream).collect(),
            cap: None,
        };
        let token = proxy.tokens().issue(session).unwrap().expose().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(serve(vec![listener], Arc::clone(&proxy), async move {
            stopped.notified().await;
        }));
        Proxy {
            address,
            proxy,
            token,
            activity,
            directory,
            stop,
            task,
        }
    }
}

impl Proxy {
    /// Ends serving and waits for it.
    pub(crate) async fn stop(self) -> tempfile::TempDir {
        self.stop.notify_one();
        within("the proxy to end", self.task)
            .await
            .unwrap()
            .unwrap();
        self.directory
    }

    pub(crate) fn request(&self, path: &str, body: &[u8]) -> Vec<u8> {
        self.request_with(path, &[], body)
    }

    pub(crate) fn request_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Vec<u8> {
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             anthropic-version: 2023-06-01\r\nContent-Length: {}\r\n",
            self.address,
            self.token,
            body.len()
        );
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        [head.as_bytes(), b"\r\n", body].concat()
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.address).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Reply {
        let request = self.request(path, body.as_ref());
        self.raw(&request).await
    }

    pub(crate) async fn raw(&self, request: &[u8]) -> Reply {
        let mut client = self.connect().await;
        client.send(request).await;
        client.reply().await
    }

    /// The next event that is of interest.
    pub(crate) async fn event<T>(&mut self, mut pick: impl FnMut(&Activity) -> Option<T>) -> T {
        within("an event", async {
            loop {
                let activity = self.activity.recv().await.unwrap();
                if let Some(found) = pick(&activity) {
                    return found;
                }
            }
        })
        .await
    }

    /// The end of a call, as the ledger has it.
    pub(crate) async fn finished(&mut self) -> LedgerLine {
        self.event(|activity| matches!(activity.what, What::Finished { .. }).then_some(()))
            .await;
        self.proxy.generations(None, 1).unwrap().remove(0)
    }

    pub(crate) fn line(&self) -> LedgerLine {
        self.proxy.generations(None, 1).unwrap().remove(0)
    }
}

/// An agent's end of a connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// Whether the body ended as its framing says.
    pub(crate) whole: bool,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.text()))
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // The other side may have answered and closed already.
        let _refused = self.stream.write_all(bytes).await;
    }

    pub(crate) async fn head(&mut self) -> (u16, HashMap<String, String>) {
        within("an answer's head", async {
            loop {
                let end = fill_until(&mut self.stream, &mut self.buffer, b"\r\n\r\n").await;
                let Some(end) = end else {
                    panic!("closed without an answer: {:?}", self.buffer)
                };
                let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
                let mut lines = head.trim_end().split("\r\n");
                let status: u16 = lines
                    .next()
                    .unwrap()
                    .split(' ')
                    .nth(1)
                    .unwrap()
                    .parse()
                    .unwrap();
                if status == 100 {
                    continue;
                }
                let header = |l: &str| {
                    l.split_once(':')
                        .map(|(n, v)| (n.to_lowercase(), v.trim().to_owned()))
                        .unwrap()
                };
                return (status, lines.map(header).collect());
            }
        })
        .await
    }

    pub(crate) async fn reply(&mut self) -> Reply {
        let (status, headers) = self.head().await;
        let mut body = Vec::new();
        let whole = within("an answer's body", self.body(&headers, &mut body)).await;
        Reply {
            status,
            headers,
            body,
            whole,
        }
    }

    /// Waits until this much of a chunked body has come.
    pub(crate) async fn chunked(&mut self, body: &mut Vec<u8>, until: &[u8]) {
        within("part of a body", async {
            while !body.windows(until.len()).any(|w| w == until) {
                self.chunk(body).await.expect("more of the body");
            }
        })
        .await;
    }

    /// Appends one chunk; its size.
    async fn chunk(&mut self, body: &mut Vec<u8>) -> Option<usize> {
        let end = fill_until(&mut self.stream, &mut self.buffer, b"\r\n").await?;
        let size: Vec<u8> = self.buffer.drain(..end).collect();
        let size = usize::from_str_radix(std::str::from_utf8(&size).unwrap().trim(), 16).unwrap();
        while self.buffer.len() < size + 2 {
            fill(&mut self.stream, &mut self.buffer).await?;
        }
        body.extend(self.buffer.drain(..size));
        self.buffer.drain(..2);
        Some(size)
    }

    pub(crate) async fn body(
        &mut self,
        headers: &HashMap<String, String>,
        body: &mut Vec<u8>,
    ) -> bool {
        if let Some(length) = headers.get("content-length") {
            let length: usize = length.parse().unwrap();
            while self.buffer.len() < length {
                if fill(&mut self.stream, &mut self.buffer).await.is_none() {
                    body.append(&mut self.buffer);
                    return false;
                }
            }
            body.extend(self.buffer.drain(..length));
            return true;
        }
        assert_eq!(
            headers.get("transfer-encoding").map(String::as_str),
            Some("chunked"),
            "{headers:?}"
        );
        loop {
            match self.chunk(body).await {
                Some(0) => return true,
                Some(_) => {}
                None => return false,
            }
        }
    }
}

/// A stream of Anthropic's with this many output tokens.
pub(crate) fn anthropic_stream(output: u64) -> String {
    format!(
        "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\"id\":\"msg_1\",\
         \"model\":\"claude-opus-4-8\",\"usage\":{{\"input_tokens\":100,\"output_tokens\":1}}}}}}\n\n\
         event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\
         \"delta\":{{\"type\":\"text_delta\",\"text\":\"héllo\"}}}}\n\n\
         event: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"end_turn\"}},\
         \"usage\":{{\"output_tokens\":{output}}}}}\n\n\
         event: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
    )
}

pub(crate) const SSE: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nrequest-id: req_1\r\nTransfer-Encoding: chunked\r\n\r\n";

pub(crate) fn chunk(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// A whole chunked answer.
pub(crate) fn sse(body: impl AsRef<[u8]>) -> Vec<u8> {
    [SSE.as_bytes(), &chunk(body), b"0\r\n\r\n"].concat()
}

/// An answer of stated length.
pub(crate) fn json(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

pub(crate) const TURN: &str = r#"{"model":"claude-opus-4-8","max_tokens":64000,"stream":true,"tools":[{"name":"Bash"}],"messages":[{"role":"user","content":"hi"}]}"#;
