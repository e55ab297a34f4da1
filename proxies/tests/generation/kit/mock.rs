//! A provider that does what a script says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::reading::{fill, fill_until};
use super::*;

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
