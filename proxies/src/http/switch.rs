//! Asks an upstream to switch protocols: a connection of its own, which is no longer HTTP's when it does.

use bytes::Bytes;
use http::response::Parts;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

use super::dial::{Dialer, Target};
use super::pool::{BodyError, CallError, Payload};

/// Bytes of an answer that refuses to switch; one that is longer is taken for a broken connection.
const REFUSAL: usize = 1 << 20;

/// What the upstream said.
#[derive(Debug)]
pub enum Switched {
    /// 101: the connection is the caller's.
    Yes(Parts, Upgraded),
    /// Anything else, whole.
    No(Parts, Bytes),
}

/// Why nothing was said.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// There is no connection, or it ended before an answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The upstream does not switch, and why not cannot be read.
    #[error("the answer to an upgrade cannot be read")]
    Answer(#[source] BodyError),
}

/// Opens a connection and asks. The request's head must say what to switch to. Dropping the future closes it.
///
/// # Errors
/// [`SwitchError`].
pub async fn switch<B: Payload>(
    dialer: &Dialer,
    target: &Target,
    request: Request<B>,
) -> Result<Switched, SwitchError> {
    let ended = |source| CallError::Ended {
        source,
        reused: false,
    };
    let stream = dialer.dial(target).await.map_err(CallError::from)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(256)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(ended)?;
    // Ends with the switch, or when the sender and the answer are gone.
    drop(tokio::spawn(connection.with_upgrades()));
    let mut answer = sender.send_request(request).await.map_err(ended)?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let upgraded = hyper::upgrade::on(&mut answer).await.map_err(ended)?;
        return Ok(Switched::Yes(answer.into_parts().0, upgraded));
    }
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, REFUSAL).collect().await;
    let body = body.map_err(SwitchError::Answer)?;
    Ok(Switched::No(head, body.to_bytes()))
}
