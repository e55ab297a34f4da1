//! Calls from the command line to the running supervisor: HTTP over its unix socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// Largest answer that a command reads whole.
const LIMIT: usize = 64 * 1024 * 1024;

/// Why a command got no answer it can use.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no whim runs here: {path}: {source}", path = path.display())]
    NotRunning { path: PathBuf, source: io::Error },
    #[error("{detail}")]
    Refused { status: StatusCode, detail: String },
    #[error("the supervisor's answer broke off: {0}")]
    Http(#[from] hyper::Error),
    #[error("the supervisor's answer is not understood: {0}")]
    Json(#[from] serde_json::Error),
    #[error("no answer within {} s", .0.as_secs())]
    Deadline(Duration),
}

/// Where the supervisor listens, and the control token if the caller has one.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    token: Option<String>,
}

impl Client {
    #[must_use]
    pub fn new(socket: &Path, token: Option<String>) -> Self {
        Self {
            socket: socket.to_owned(),
            token,
        }
    }

    /// Sends a request and returns the answer's head, with its body still to be read.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] when nobody listens; any status is an answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<Response<Incoming>, ClientError> {
        self.request(method, path, "application/json", body).await
    }

    /// `GET` of something that is read as it comes.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] when nobody listens; any status is an answer.
    pub async fn stream(
        &self,
        path: &str,
        accept: &str,
    ) -> Result<Response<Incoming>, ClientError> {
        self.request(Method::GET, path, accept, None).await
    }

    /// `GET` of text that may never end: `take` gets whole lines as they come, any number at once. An error of `take`'s
    /// (a reader that left, `| head`) ends it and is no failure.
    ///
    /// # Errors
    /// As [`Client::stream`], and [`ClientError::Refused`].
    pub async fn lines(
        &self,
        path: &str,
        accept: &str,
        mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), ClientError> {
        let response = self.stream(path, accept).await?;
        let status = response.status();
        let mut body = response.into_body();
        let mut pending = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            pending.extend_from_slice(&data);
            if !status.is_success() {
                continue;
            }
            let whole = memchr::memrchr(b'\n', &pending).map_or(0, |at| at + 1);
            let lines: Vec<u8> = pending.drain(..whole).collect();
            if take(&lines).is_err() {
                return Ok(());
            }
        }
        if !status.is_success() {
            return Err(refused(status, &pending));
        }
        // Nobody is told of an end that nobody reads.
        drop(take(&pending));
        Ok(())
    }

    /// Changes the connection to another protocol.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when the supervisor does not.
    pub async fn upgrade(
        &self,
        path: &str,
        protocol: &'static str,
    ) -> Result<TokioIo<hyper::upgrade::Upgraded>, ClientError> {
        let response = self
            .exchange(Method::GET, path, "*/*", Some(protocol), None)
            .await?;
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refused(status, &read(response).await?));
        }
        Ok(TokioIo::new(hyper::upgrade::on(response).await?))
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<Response<Incoming>, ClientError> {
        self.exchange(method, path, accept, None, body).await
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        upgrade: Option<&'static str>,
        body: Option<&serde_json::Value>,
    ) -> Result<Response<Incoming>, ClientError> {
        let not_running = |source| ClientError::NotRunning {
            path: self.socket.clone(),
            source,
        };
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(not_running)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the connection; upgrades are awaited through the response.
        drop(tokio::spawn(connection.with_upgrades()));
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "whim")
            .header(header::ACCEPT, accept);
        if let Some(protocol) = upgrade {
            request = request
                .header(header::UPGRADE, protocol)
                .header(header::CONNECTION, "upgrade");
        }
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match body {
            Some(value) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(serde_json::to_vec(value)?)
            }
            None => Bytes::new(),
        };
        let request = request
            .body(Full::new(body))
            .map_err(|error| ClientError::Refused {
                status: StatusCode::BAD_REQUEST,
                detail: error.to_string(),
            })?;
        Ok(sender.send_request(request).await?)
    }

    /// Sends a request and reads the answer as JSON; an error status becomes [`ClientError::Refused`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<T, ClientError> {
        let response = self.send(method, path, body).await?;
        let status = response.status();
        let body = read(response).await?;
        if !status.is_success() {
            return Err(refused(status, &body));
        }
        let body: &[u8] = if body.is_empty() { b"null" } else { &body };
        Ok(serde_json::from_slice(body)?)
    }

    /// `GET` as JSON.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, None).await
    }
}

/// The error of an answer that is not a success.
#[must_use]
pub fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let detail = problem.get("detail").and_then(serde_json::Value::as_str);
    let text = || format!("{status}: {}", String::from_utf8_lossy(body));
    ClientError::Refused {
        status,
        detail: detail.map_or_else(text, str::to_owned),
    }
}

pub async fn read(response: Response<Incoming>) -> Result<Vec<u8>, ClientError> {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > LIMIT {
            break;
        }
    }
    Ok(bytes)
}
