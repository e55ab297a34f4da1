//! A git server over HTTP on loopback, with or without a login: git's own `http-backend` behind a small gateway.
//!
//! Serves the repositories in one directory by their names, for fetch and push. What was asked is recorded with the
//! login that came along.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::background::Background;

/// Largest push.
const MAX_BODY: usize = 64 << 20;

/// A request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// With its query.
    pub path: String,
    /// The `Authorization` header as it came.
    pub authorization: Option<String>,
    pub status: u16,
}

/// The server; dropping it ends it.
#[derive(Debug)]
pub struct GitServer {
    address: std::net::SocketAddr,
    shared: Arc<Shared>,
    _background: Background,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    /// The whole header that is wanted.
    authorization: Option<String>,
    asked: Mutex<Vec<Asked>>,
}

impl GitServer {
    /// Serves the repositories in `directory`; with a login, to those who show it.
    ///
    /// # Errors
    /// When there is no port or thread to be had.
    pub fn start(directory: &Path, login: Option<(&str, &str)>) -> io::Result<Self> {
        let background = Background::start("git-server")?;
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let basic = |(name, password): (&str, &str)| {
            format!("Basic {}", base64(format!("{name}:{password}").as_bytes()))
        };
        let shared = Arc::new(Shared {
            directory: directory.to_owned(),
            authorization: login.map(basic),
            asked: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        drop(background.handle().spawn(async move {
            // Registered with the runtime that runs this task.
            if let Ok(listener) = TcpListener::from_std(listener) {
                serve(listener, serving).await;
            }
        }));
        Ok(Self {
            address,
            shared,
            _background: background,
        })
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Address of a repository, without login.
    #[must_use]
    pub fn url(&self, repository: &str) -> String {
        format!("http://{}/{repository}", self.address)
    }

    /// Address of a repository with a login in it.
    #[must_use]
    pub fn url_with(&self, login: (&str, &str), repository: &str) -> String {
        let (name, password) = login;
        format!("http://{name}:{password}@{}/{repository}", self.address)
    }

    /// All requests so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.shared
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        // An error here is of the one connection, not of the listener.
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| {
            let shared = Arc::clone(&shared);
            async move { answer(request, &shared).await }
        });
        // How a client's connection ends is the client's affair.
        drop(tokio::spawn(async move {
            drop(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        }));
    }
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await;
    let body = body.map_err(io::Error::other)?.to_bytes();
    let header = |name: &str| {
        let value = head.headers.get(name).and_then(|value| value.to_str().ok());
        value.map(str::to_owned)
    };
    let authorization = header("authorization");
    let allowed = shared.authorization.is_none() || shared.authorization == authorization;
    let response = if allowed {
        run_backend(&head, &header, &body, shared).await?
    } else {
        let mut refused = Response::new(Full::default());
        *refused.status_mut() = StatusCode::UNAUTHORIZED;
        let challenge = http::HeaderValue::from_static("Basic realm=\"git\"");
        refused.headers_mut().insert("www-authenticate", challenge);
        refused
    };
    let path = head.uri.path_and_query();
    let asked = Asked {
        path: path.map_or_else(String::new, ToString::to_string),
        authorization,
        status: response.status().as_u16(),
    };
    let mut all = shared.asked.lock().unwrap_or_else(PoisonError::into_inner);
    all.push(asked);
    Ok(response)
}

/// One request by git-http-backend(1), which speaks CGI (RFC 3875).
async fn run_backend(
    head: &http::request::Parts,
    header: &(impl Fn(&str) -> Option<String> + Sync),
    body: &Bytes,
    shared: &Shared,
) -> io::Result<Response<Full<Bytes>>> {
    let mut command = tokio::process::Command::new("git");
    command
        .arg("http-backend")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("GIT_PROJECT_ROOT", &shared.directory)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", head.method.as_str())
        .env("PATH_INFO", head.uri.path())
        .env("QUERY_STRING", head.uri.query().unwrap_or_default())
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("REMOTE_ADDR", "127.0.0.1")
        // Pushes are for those who are somebody.
        .env("REMOTE_USER", "somebody");
    for (variable, name) in [
        ("CONTENT_TYPE", "content-type"),
        ("HTTP_CONTENT_ENCODING", "content-encoding"),
        ("GIT_PROTOCOL", "git-protocol"),
    ] {
        if let Some(value) = header(name) {
            command.env(variable, value);
        }
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A backend that refuses does not read to the end.
            drop(stdin.write_all(body).await);
        }
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    parse(&output?.stdout)
}

fn parse(output: &[u8]) -> io::Result<Response<Full<Bytes>>> {
    let end = output
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or_else(|| io::Error::other("no head from the backend"))?;
    let (head, body) = output.split_at(end + 4);
    let mut status = StatusCode::OK;
    let mut headers = HeaderMap::new();
    for line in String::from_utf8_lossy(head).lines() {
        let Some((name, value)) = line.split_once(": ") else {
            continue;
        };
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().unwrap_or_default();
            status = StatusCode::from_bytes(code.as_bytes()).map_err(io::Error::other)?;
            continue;
        }
        let name = http::HeaderName::from_bytes(name.as_bytes()).map_err(io::Error::other)?;
        headers.insert(name, value.parse().map_err(io::Error::other)?);
    }
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(body)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0_u8; 3];
        for (to, from) in group.iter_mut().zip(chunk) {
            *to = *from;
        }
        let [a, b, c] = group.map(u32::from);
        let bits = (a << 16) | (b << 8) | c;
        for index in 0..4 {
            let letter = (bits >> (18 - 6 * index)) & 0x3f;
            let letter = LETTERS.get(letter as usize).copied().unwrap_or(b'=');
            text.push(if index <= chunk.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn repositories_are_fetched_and_pushed_with_the_login_only() {
        let directory = tempfile::tempdir().unwrap();
        repo::with(&directory.path().join("app"), &[("a", "1\n")]).unwrap();
        let server = GitServer::start(directory.path(), Some(("me", "secret"))).unwrap();
        let clone = tempfile::tempdir().unwrap();
        let refused = repo::git(
            clone.path(),
            &["clone", "-q", &server.url("app"), "refused"],
        );
        assert!(refused.is_err());
        let url = server.url_with(("me", "secret"), "app");
        repo::git(clone.path(), &["clone", "-q", &url, "app"]).unwrap();
        let app = clone.path().join("app");
        repo::git(&app, &["push", "-q", "origin", "HEAD:refs/heads/other"]).unwrap();
        let known = repo::git(
            &directory.path().join("app"),
            &["branch", "--list", "other"],
        );
        assert_eq!(known.unwrap(), "other");
        assert!(server.asked().iter().any(|asked| asked.status == 401));
    }
}
