//! An agent that says what it likes.

use std::collections::HashMap;
use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::reading::{fill, fill_until};
use super::*;

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
