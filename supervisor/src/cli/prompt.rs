//! `whim prompt`, `interrupt`, `stop`: steering a session.

use std::time::Duration;

use http::Method;
use serde_json::json;

use super::Outcome;
use super::client::{Client, ClientError};
use crate::sessions::{Progress, Prompt};

/// Pause between two looks at a prompt under way, when no event tells of it.
const LOOK: Duration = Duration::from_millis(500);
/// Exit code when the turn was interrupted or the prompt failed.
const NOT_DONE: u8 = 1;

/// Queues a prompt and prints its id; with `wait` returns when its turn ended.
pub(super) async fn prompt(
    client: &Client,
    session: &str,
    text: &str,
    wait: bool,
) -> Result<Outcome, ClientError> {
    let path = format!("/v1/sessions/{session}/prompts");
    let mut prompt: Prompt = client
        .call(Method::POST, &path, Some(&json!({ "text": text })))
        .await?;
    let id = prompt.id.clone();
    if !wait {
        return Ok(Outcome::text(format!("{id}\n")));
    }
    let path = format!("/v1/sessions/{session}/prompts/{id}");
    let mut seq = 0;
    while !prompt.state.is_final() {
        // Every step of a prompt is an event, so the long poll returns with it.
        let state: serde_json::Value = match client
            .get(&format!("/v1/state?after_seq={seq}&timeout_s=25"))
            .await
        {
            Ok(state) => state,
            Err(error @ ClientError::NotRunning { .. }) => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "asking again");
                tokio::time::sleep(LOOK).await;
                continue;
            }
        };
        seq = state
            .get("seq")
            .and_then(serde_json::Value::as_u64)
            .unwrap_or(0);
        prompt = client.get(&path).await?;
    }
    let text = format!("{id}\n");
    Ok(match prompt.state {
        Progress::Done => Outcome::text(text),
        _ => Outcome {
            code: NOT_DONE,
            text,
            error: Some(describe(&prompt)),
        },
    })
}

fn describe(prompt: &Prompt) -> String {
    let word = if prompt.state == Progress::Interrupted {
        "was interrupted"
    } else {
        "failed"
    };
    match &prompt.reason {
        Some(reason) => format!("prompt {} {word}: {reason}", prompt.id),
        None => format!("prompt {} {word}", prompt.id),
    }
}

/// `interrupt` or `stop` of a session.
pub(super) async fn act(
    client: &Client,
    session: &str,
    action: &str,
) -> Result<Outcome, ClientError> {
    client
        .call::<serde_json::Value>(
            Method::POST,
            &format!("/v1/sessions/{session}/{action}"),
            None,
        )
        .await?;
    Ok(Outcome::text(String::new()))
}
