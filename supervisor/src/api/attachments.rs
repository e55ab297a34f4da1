//! Attachments: list them, fetch links, take a file.

use axum::Json;
use axum::extract::{Query, Request, State};
use http::StatusCode;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use whim_wire::attachment::{Attachment, Origin};
use whim_wire::spec;

use super::Shared;
use super::access::Owner;
use super::problem::Problem;
use crate::attachments::{self, MOST, fetch};
use crate::sessions::MAIN;

/// Largest list of links: ten of them, signed.
const LINKS: usize = 256 * 1024;
/// How long a body may take to come: 25 MB over a slow line.
const SENDING: std::time::Duration = std::time::Duration::from_secs(300);

/// Links to be fetched.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct NewAttachments {
    /// At most 10.
    attachments: Vec<spec::Attachment>,
}

/// What came of them, or what there is.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Attached {
    attachments: Vec<Attachment>,
    /// The prompt that tells the session of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_id: Option<String>,
    /// Why the session is not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_told: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct How {
    /// Name of the one file that the body is.
    name: Option<String>,
    /// Whom to tell; left out: `main`.
    session: Option<String>,
    /// Left out: yes.
    tell: Option<bool>,
}

pub(super) async fn list(_: Owner, State(api): Shared) -> Json<Attached> {
    Json(Attached {
        attachments: api.attachments.list().await,
        prompt_id: None,
        not_told: None,
    })
}

/// Attaches files while the task runs.
pub(super) async fn add(
    _: Owner,
    State(api): Shared,
    Query(how): Query<How>,
    request: Request,
) -> Result<(StatusCode, Json<Attached>), Problem> {
    // Before the body is read: it is what takes the memory.
    let _turn = api.attachments.turn().ok_or_else(|| {
        Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "full",
            "other files are being attached; try again when they are there",
        )
    })?;
    let all = match &how.name {
        Some(name) => {
            let bytes = body(request, fetch::MOST_BYTES).await?;
            vec![api.attachments.send(name, bytes).await]
        }
        None => {
            let bytes = body(request, LINKS).await?;
            let new: NewAttachments = serde_json::from_slice(&bytes).map_err(|error| {
                // Its words hold kind and place, and a value only where that is no string.
                Problem::invalid(format!(
                    "send {{\"attachments\":[{{\"name\":…,\"url\":…}}]}}, or one file as the body with ?name=: line {}, column {}",
                    error.line(),
                    error.column()
                ))
            })?;
            if new.attachments.is_empty() || new.attachments.len() > MOST {
                return Err(Problem::invalid(format!(
                    "attachments: {} entries; give 1 to {MOST}",
                    new.attachments.len()
                )));
            }
            api.attachments.fetch(&new.attachments, Origin::Api).await
        }
    };
    let good = all.iter().all(|attachment| attachment.error.is_none());
    let mut answer = Attached {
        attachments: all,
        prompt_id: None,
        not_told: None,
    };
    if how.tell.unwrap_or(true)
        && let Some(text) = attachments::paragraph(&answer.attachments)
    {
        let session = how.session.as_deref().unwrap_or(MAIN);
        match api.sessions.prompt(session, text).await {
            Ok(prompt) => answer.prompt_id = Some(prompt.id),
            Err(error) => answer.not_told = Some(error.to_string()),
        }
    }
    let status = if good {
        StatusCode::CREATED
    } else {
        StatusCode::MULTI_STATUS
    };
    Ok((status, Json(answer)))
}

/// The body, whole; one that is too long is refused where it passes the limit.
async fn body(request: Request, limit: usize) -> Result<Vec<u8>, Problem> {
    let too_large = || {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            format!("the body is larger than {limit} bytes"),
        )
    };
    let collected = Limited::new(request.into_body(), limit).collect();
    match tokio::time::timeout(SENDING, collected).await {
        Ok(Ok(body)) => Ok(body.to_bytes().into()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Problem::invalid(format!("the body broke off: {error}"))),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "late",
            format!("the body did not come within {} s", SENDING.as_secs()),
        )),
    }
}
