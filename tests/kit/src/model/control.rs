//! The control port of the `scripted-model` program: what tests in other processes and people use.
//!
//! | call | does |
//! |---|---|
//! | `GET /requests?after=N` | `{"requests":[…],"dropped":N}`, oldest first |
//! | `DELETE /requests` | forgets them |
//! | `GET /script` · `PUT /script` | the script · replaces it, 422 with the reason if it is none |
//! | `PUT /gates/NAME` · `DELETE /gates/NAME` | opens · closes a gate |
//! | `GET /active` | `{"active":N}`: answers under way |

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::play::Cut;
use super::serve::json_response;
use super::shared::Shared;

/// A script may carry long texts, but not more than this.
const MAX_SCRIPT: usize = 4 << 20;

/// Serves until the task is dropped.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        // An error here is of the one connection, not of the listener.
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| {
            let shared = Arc::clone(&shared);
            async move {
                let (status, value) = answer(request, &shared).await;
                Ok::<_, Cut>(json_response(status, &value))
            }
        });
        drop(tokio::spawn(async move {
            // How a caller's connection ends is the caller's affair.
            drop(
                hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(30))
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        }));
    }
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> (u16, Value) {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    match (&head.method, path) {
        (&Method::GET, "/requests") => {
            let after = head
                .uri
                .query()
                .and_then(|query| query.strip_prefix("after="))
                .unwrap_or("0");
            let Ok(after) = after.parse::<u64>() else {
                return (422, json!({"error": "after is no number"}));
            };
            shared.requests_json(after)
        }
        (&Method::DELETE, "/requests") => {
            shared.forget();
            (200, json!({}))
        }
        (&Method::GET, "/script") => shared.script_json(),
        (&Method::PUT, "/script") => {
            let Ok(body) = Limited::new(body, MAX_SCRIPT).collect().await else {
                return (413, json!({"error": "the script is too long"}));
            };
            match serde_json::from_slice(&body.to_bytes()) {
                Ok(script) => {
                    shared.set_script(script);
                    (200, json!({}))
                }
                Err(error) => (422, json!({"error": error.to_string()})),
            }
        }
        (&Method::GET, "/active") => (200, json!({"active": shared.active()})),
        (method, path) => match (method, path.strip_prefix("/gates/")) {
            (&Method::PUT, Some(gate)) => {
                shared.set_gate(gate, true);
                (200, json!({}))
            }
            (&Method::DELETE, Some(gate)) => {
                shared.set_gate(gate, false);
                (200, json!({}))
            }
            _ => (404, json!({"error": "no such path"})),
        },
    }
}
