//! One file from a signed link: https, public addresses only, bounded in size and time.
//!
//! A link comes from outside, and the container stands inside the platform's network: so every hop of a redirect is
//! checked like the first, by the address that is really dialled (see [`Dialer::only_to`]). Errors name the host, never
//! the link: its query is the permission to read the file. Links of object stores end with 403, 404 or 410.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio_util::task::AbortOnDropHandle;
use url::{Position, Url};
use whim_proxies::http::dial::{DialError, Dialer, Target};

use super::executable;

/// Largest file, in bytes: the platform's documented 25 MB, read generously.
pub const MOST_BYTES: usize = 25 * 1024 * 1024;
/// Redirects that are followed.
pub const REDIRECTS: usize = 5;
/// For one file, from the first look-up to its last byte.
const DEADLINE: Duration = Duration::from_secs(120);
/// Without any byte: the server is gone.
const SILENCE: Duration = Duration::from_secs(20);

/// Why a file is not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the link {0}")]
    Url(&'static str),
    #[error("the link leads to an address inside the platform or this machine")]
    Forbidden,
    #[error("the link redirects more than {REDIRECTS} times")]
    Redirects,
    #[error("the link redirects to a place that {0}")]
    Redirect(&'static str),
    #[error("the link has expired or was taken back (the server answered {0}); ask for a new one")]
    Expired(StatusCode),
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error("the file is larger than {} MB", MOST_BYTES >> 20)]
    TooLarge,
    #[error("the file is {0}; programs are not taken")]
    Executable(&'static str),
    #[error("the server sent it encoded as {0:?}, which was not asked for")]
    Encoded(String),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the connection to {host} broke: {source}")]
    Broken { host: String, source: hyper::Error },
    #[error("the file did not come within {0} s")]
    Late(u64),
}

/// Fetches one file whole.
///
/// # Errors
/// [`FetchError`]; nothing is kept of a file that does not come whole.
pub async fn fetch(dialer: &Dialer, link: &str) -> Result<Vec<u8>, FetchError> {
    let url = Url::parse(link).map_err(|_| FetchError::Url("is no URL"))?;
    check(&url).map_err(FetchError::Url)?;
    let late = |_| FetchError::Late(DEADLINE.as_secs());
    tokio::time::timeout(DEADLINE, follow(dialer, url))
        .await
        .map_err(late)?
}

async fn follow(dialer: &Dialer, mut url: Url) -> Result<Vec<u8>, FetchError> {
    for _ in 0..=REDIRECTS {
        match ask(dialer, &url).await? {
            Answer::File(bytes) => return Ok(bytes),
            Answer::Elsewhere(next) => {
                check(&next).map_err(FetchError::Redirect)?;
                url = next;
            }
        }
    }
    Err(FetchError::Redirects)
}

/// What can be told from the text of a link.
fn check(url: &Url) -> Result<(), &'static str> {
    if url.scheme() != "https" {
        return Err("is not https");
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("has no host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("contains a login");
    }
    Ok(())
}

enum Answer {
    File(Vec<u8>),
    Elsewhere(Url),
}

async fn ask(dialer: &Dialer, url: &Url) -> Result<Answer, FetchError> {
    let host = url.host().map(|host| match host {
        url::Host::Domain(name) => name.to_owned(),
        url::Host::Ipv4(address) => address.to_string(),
        url::Host::Ipv6(address) => address.to_string(),
    });
    let target = Target {
        tls: true,
        host: host.unwrap_or_default(),
        port: url.port_or_known_default().unwrap_or(443),
    };
    let stream = dialer.dial(&target).await.map_err(|error| match error {
        DialError::Forbidden { address, .. } => {
            tracing::warn!(%target, %address, "an attachment's link leads inside");
            FetchError::Forbidden
        }
        error => FetchError::Dial(error),
    })?;
    let broken = |source| FetchError::Broken {
        host: target.host.clone(),
        source,
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let _driven = AbortOnDropHandle::new(tokio::spawn(async move {
        // Its errors reach the sender and the body.
        drop(connection.await);
    }));
    let request = Request::get(&url[Position::BeforePath..Position::AfterQuery])
        .header(
            header::HOST,
            &url[Position::BeforeHost..Position::AfterPort],
        )
        .header(header::ACCEPT_ENCODING, "identity")
        .header(
            header::USER_AGENT,
            concat!("whim/", env!("CARGO_PKG_VERSION")),
        )
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::Url("cannot stand in a request"))?;
    let silent = |_| FetchError::Late(SILENCE.as_secs());
    let answer = tokio::time::timeout(SILENCE, sender.send_request(request))
        .await
        .map_err(silent)?
        .map_err(broken)?;
    let status = answer.status();
    if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
        let place = answer.headers().get(header::LOCATION);
        let place = place.and_then(|place| place.to_str().ok());
        let next = place.and_then(|place| url.join(place).ok());
        return next
            .map(Answer::Elsewhere)
            .ok_or(FetchError::Status(status));
    }
    match status {
        StatusCode::OK => {}
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE => {
            return Err(FetchError::Expired(status));
        }
        _ => return Err(FetchError::Status(status)),
    }
    if let Some(encoding) = answer.headers().get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        let shown = String::from_utf8_lossy(encoding.as_bytes());
        return Err(FetchError::Encoded(shown.chars().take(40).collect()));
    }
    receive(answer.into_body(), broken).await.map(Answer::File)
}

async fn receive(
    mut body: Incoming,
    broken: impl Fn(hyper::Error) -> FetchError,
) -> Result<Vec<u8>, FetchError> {
    use hyper::body::Body as _;
    let announced = body.size_hint().exact().unwrap_or(0);
    if announced > MOST_BYTES as u64 {
        return Err(FetchError::TooLarge);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(announced).unwrap_or(0));
    loop {
        let frame = tokio::time::timeout(SILENCE, body.frame()).await;
        let Some(frame) = frame.map_err(|_| FetchError::Late(SILENCE.as_secs()))? else {
            break;
        };
        let Ok(data) = frame.map_err(&broken)?.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > MOST_BYTES {
            return Err(FetchError::TooLarge);
        }
        let before = bytes.len();
        bytes.extend_from_slice(&data);
        if before < executable::ENOUGH
            && let Some(what) = executable::by_content(&bytes)
        {
            return Err(FetchError::Executable(what));
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
