//! A proxy, servers that say exactly what a test wants, and clients that send exactly what it wants.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use super::super::{
    Access, Config, Later, Limits, Lookup, Ports, Proxy, Secret, Server, Settings, serve,
};

pub(super) const SECRET: &str = "router-secret";
/// Longer than anything here takes; a test that waits for it fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A port table that a test writes.
#[derive(Debug)]
pub(super) struct Table {
    servers: Mutex<HashMap<u16, Arc<Server>>>,
    own: Mutex<HashSet<u16>>,
    version: watch::Sender<u64>,
    pub(super) default: Mutex<Option<u16>>,
    pub(super) observed: Mutex<Vec<(u16, bool)>>,
    pub(super) traffic: AtomicUsize,
}

impl Table {
    pub(super) fn set(&self, port: u16, server: Server) {
        self.servers.lock().unwrap().insert(port, Arc::new(server));
        self.version.send_modify(|version| *version += 1);
    }

    pub(super) fn up(&self, port: u16) {
        self.set(
            port,
            Server {
                port,
                addresses: vec![SocketAddr::from(([127, 0, 0, 1], port))],
                program: 7,
                http: None,
            },
        );
    }

    pub(super) fn down(&self, port: u16) {
        self.set(
            port,
            Server {
                port,
                addresses: Vec::new(),
                program: 7,
                http: None,
            },
        );
    }
}

impl Ports for Table {
    fn lookup(&self, port: u16) -> Lookup {
        if self.own.lock().unwrap().contains(&port) {
            return Lookup::Own;
        }
        match self.servers.lock().unwrap().get(&port) {
            Some(server) => Lookup::Known(Arc::clone(server)),
            None => Lookup::Unknown,
        }
    }

    fn default_port(&self) -> Option<u16> {
        *self.default.lock().unwrap()
    }

    fn changed(&self) -> Later {
        let mut version = self.version.subscribe();
        Box::pin(async move {
            version.changed().await.ok();
        })
    }

    fn rescan(&self) -> Later {
        Box::pin(std::future::ready(()))
    }

    fn observed(&self, port: u16, http: bool) {
        self.observed.lock().unwrap().push((port, http));
    }

    fn traffic(&self, _: u16) {
        self.traffic.fetch_add(1, Ordering::SeqCst);
    }
}

pub(super) struct Kit {
    pub(super) address: SocketAddr,
    pub(super) table: Arc<Table>,
    pub(super) proxy: Arc<Proxy>,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
}

impl Kit {
    pub(super) async fn new() -> Self {
        Self::with(Limits::default(), None).await
    }

    pub(super) async fn with(limits: Limits, preview_url: Option<&str>) -> Self {
        let table = Arc::new(Table {
            servers: Mutex::default(),
            own: Mutex::default(),
            version: watch::Sender::new(0),
            default: Mutex::default(),
            observed: Mutex::default(),
            traffic: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        table.own.lock().unwrap().insert(address.port());
        let config = Config {
            limits,
            access: Access::new(&Secret::new(SECRET), Vec::new()),
            preview_url: preview_url.map(str::to_owned),
            port: address.port(),
            settings: Settings::default(),
        };
        let ports: Arc<dyn Ports> = Arc::clone(&table) as _;
        let proxy = Arc::new(Proxy::new(config, ports).unwrap());
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(serve(vec![listener], Arc::clone(&proxy), async {
            stopped.await.ok();
        }));
        Self {
            address,
            table,
            proxy,
            stop: Some(stop),
            served,
        }
    }

    /// Sends a request by header form with the router's secret: the lines of its head, then its body.
    pub(super) async fn open(&self, port: u16, lines: &str, body: &[u8]) -> Client {
        let mut client = Client::connect(self.address).await;
        client.send(&head(port, lines)).await;
        client.send(body).await;
        client
    }

    /// A whole request on a connection of its own, and all that comes back.
    pub(super) async fn ask(&self, port: u16, lines: &str, body: &[u8]) -> String {
        let lines = format!("{lines}\nConnection: close");
        self.open(port, &lines, body).await.rest().await
    }

    /// As it stands, and all that comes back.
    pub(super) async fn raw(&self, text: &str) -> String {
        let mut client = Client::connect(self.address).await;
        client.send(text.replace('\n', "\r\n").as_bytes()).await;
        client.rest().await
    }

    /// Ends the proxy and waits for it.
    pub(super) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.served)
            .await
            .unwrap()
            .unwrap();
    }
}

/// A head in header form with the secret.
pub(super) fn head(port: u16, lines: &str) -> Vec<u8> {
    let (first, rest) = lines.split_once('\n').unwrap_or((lines, ""));
    let rest = if rest.is_empty() {
        String::new()
    } else {
        format!("{rest}\n")
    };
    let host = if rest.contains("Host: ") {
        ""
    } else {
        "Host: app.example\n"
    };
    format!("{first}\n{host}X-Whim-Token: {SECRET}\nX-Whim-Port: {port}\n{rest}\n")
        .replace('\n', "\r\n")
        .into_bytes()
}

pub(super) struct Client {
    pub(super) stream: TcpStream,
    pub(super) read: Vec<u8>,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            read: Vec::new(),
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Everything until the other side closes in an orderly way.
    pub(super) async fn rest(mut self) -> String {
        self.read_to_end().await.unwrap();
        String::from_utf8_lossy(&self.read).into_owned()
    }

    /// The same, or how it broke.
    pub(super) async fn read_to_end(&mut self) -> std::io::Result<()> {
        tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut self.read))
            .await
            .expect("the connection is still open")
            .map(|_| ())
    }

    /// Reads until what came since the last call ends so; returns it.
    pub(super) async fn until(&mut self, end: &str) -> String {
        let wait = async {
            loop {
                if let Some(at) = self
                    .read
                    .windows(end.len())
                    .position(|window| window == end.as_bytes())
                {
                    let taken: Vec<u8> = self.read.drain(..at + end.len()).collect();
                    return String::from_utf8_lossy(&taken).into_owned();
                }
                let size = self.stream.read_buf(&mut self.read).await.unwrap();
                assert!(
                    size > 0,
                    "closed before {end:?}: {}",
                    String::from_utf8_lossy(&self.read)
                );
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap()
    }
}

/// A server whose every connection runs `work`; its port, and how many connections came.
pub(super) async fn server<F, R>(work: F) -> (u16, Arc<AtomicUsize>)
where
    F: Fn(Client) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (port, run_server(listener, work))
}

pub(super) fn run_server<F, R>(listener: TcpListener, work: F) -> Arc<AtomicUsize>
where
    F: Fn(Client) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(work(Client {
                stream,
                read: Vec::new(),
            }));
        }
    });
    count
}

/// A server that answers every request's head with `answer(head)` and keeps the connection.
pub(super) async fn answering(
    answer: impl Fn(&str) -> String + Send + Sync + 'static,
) -> (u16, Arc<AtomicUsize>) {
    let answer = Arc::new(answer);
    server(move |mut client| {
        let answer = Arc::clone(&answer);
        async move {
            loop {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match client.stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let text = answer(&String::from_utf8_lossy(&head));
                if client.stream.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// A 200 with a body.
pub(super) fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Waits until `is_so`; the condition is what is waited for, the interval only how often it is looked at.
pub(super) async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

impl Kit {
    /// [`Self::raw`] for a text that nobody else keeps.
    pub(super) async fn raw_owned(&self, text: String) -> String {
        self.raw(&text).await
    }
}
