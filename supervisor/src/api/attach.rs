//! `GET /v1/attach` with `Upgrade: whim-attach`, on the unix socket: the stream of `whim attach`.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use hyper_util::rt::TokioIo;

use super::Shared;
use super::access::Owner;
use super::problem::Problem;

/// Name of the protocol behind the upgrade.
pub const PROTOCOL: &str = "whim-attach";

pub(super) async fn upgrade(_: Owner, State(api): Shared, mut request: Request) -> Response {
    if request.headers().get(header::UPGRADE) != Some(&HeaderValue::from_static(PROTOCOL)) {
        let detail = format!("send `Upgrade: {PROTOCOL}`");
        return Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade", detail).into_response();
    }
    let upgraded = hyper::upgrade::on(&mut request);
    let terminals = api.terminals.clone();
    drop(tokio::spawn(async move {
        match upgraded.await {
            Ok(stream) => {
                if let Err(error) =
                    crate::terminals::attach::serve(TokioIo::new(stream), &terminals, true).await
                {
                    tracing::debug!(%error, "attach ended");
                }
            }
            Err(error) => tracing::debug!(%error, "attach did not begin"),
        }
    }));
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    response
        .headers_mut()
        .insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response
}
