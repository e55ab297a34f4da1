//! A provider that does what a script says, an agent that says what it likes, and a proxy between them.

mod client;
mod mock;
mod reading;
mod socket;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use whim_proxies::generation::{
    Activity, Config, GenerationProxy, Provider, Secret, Session, Upstream, What, serve,
};
use whim_wire::generation::LedgerLine;
use whim_wire::money::NanoUsd;

pub(crate) use client::{Client, Reply};
pub(crate) use mock::{Mock, Step, send};
pub(crate) use socket::{Peer, Speaker, completed, create, created, delta, joined, on};

pub(crate) const KEY: &str = "sk-real-provider-key-0123456789";
/// Long enough for anything on loopback; a test that needs it all has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
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
    pub(crate) websocket: bool,
    pub(crate) configure: Box<dyn FnOnce(&mut Config)>,
}

pub(crate) fn to(provider: Provider, mock: &Mock) -> Setup {
    Setup {
        provider,
        bases: vec![mock.url()],
        budget: None,
        websocket: false,
        configure: Box::new(|_| {}),
    }
}

impl Setup {
    pub(crate) fn budget(mut self, usd: &str) -> Self {
        self.budget = Some(usd.parse().unwrap());
        self
    }

    pub(crate) fn with(mut self, configure: impl FnOnce(&mut Config) + 'static) -> Self {
        self.configure = Box::new(configure);
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
        let upstream = |base: &String| {
            let upstream = Upstream::new(self.provider, Some(base)).unwrap();
            upstream.with_websocket(self.websocket)
        };
        let session = Session {
            id: "main".to_owned(),
            agent: "claude".to_owned(),
            upstreams: self.bases.iter().map(upstream).collect(),
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
