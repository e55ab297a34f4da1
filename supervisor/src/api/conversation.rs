//! `GET /v1/sessions/{id}/conversation`: what was said, as pages of turns, or whole as Markdown or lines of JSON.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use whim_wire::conversation::{Conversation, Part, Turn};

use super::access::Owner;
use super::problem::Problem;
use super::{Api, Shared};
use crate::conversation::cursor::NoCursor;
use crate::conversation::page::{DEFAULT, MOST};
use crate::conversation::reader::{Asked, Known, ReadError};
use crate::conversation::{markdown, order, place};
use crate::helper::HelperError;

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    /// `next` of an earlier answer.
    after: Option<String>,
    limit: Option<usize>,
    /// Bookkeeping too.
    #[serde(default)]
    all: bool,
    /// Where it begins anew: only its end.
    #[serde(default)]
    recent: bool,
    subagent: Option<String>,
    format: Option<Form>,
}

/// How a conversation is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Form {
    Json,
    Jsonl,
    Markdown,
}

impl Form {
    /// The query's word counts before the header's.
    fn of(wanted: Option<Self>, headers: &HeaderMap) -> Self {
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let accepts = |kinds: &[&str]| kinds.iter().any(|kind| accept.contains(kind));
        match wanted {
            Some(form) => form,
            None if accepts(&["application/x-ndjson", "application/jsonl"]) => Self::Jsonl,
            None if accepts(&["text/markdown"]) => Self::Markdown,
            None => Self::Json,
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NoSubagent { subagent, .. } => Self::not_found("sub-agent", &subagent),
            // What stands in the agent's directories is the agent's doing: a FIFO in a transcript's place is no fault of ours.
            ReadError::Helper(HelperError::Io { .. }) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "transcript",
                error.to_string(),
            ),
            other => Self::internal(&other),
        }
    }
}

impl From<NoCursor> for Problem {
    fn from(error: NoCursor) -> Self {
        Self::invalid(error.to_string())
    }
}

pub(super) async fn get(
    _: Owner,
    State(api): Shared,
    Path(id): Path<String>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let form = Form::of(wanted.format, &headers);
    let asked = Asked {
        after: wanted.after.as_deref().map(str::parse).transpose()?,
        limit: wanted.limit.unwrap_or(DEFAULT).clamp(1, MOST),
        all: wanted.all,
        recent: wanted.recent,
        subagent: wanted.subagent,
    };
    if let Some(subagent) = &asked.subagent
        && !place::is_plain(subagent)
    {
        return Err(Problem::not_found("sub-agent", subagent));
    }
    let Some(known) = api.conversations.known(&id).await? else {
        return nothing_yet(&api, &id, form);
    };
    if form == Form::Json {
        let reached = api.conversations.page(&id, &known, &asked).await?;
        return Ok(Json(reached.page).into_response());
    }
    let export = Export {
        whole: asked.after.is_none() && asked.subagent.is_none(),
        once: wanted.limit.is_some(),
        asked: Asked {
            limit: wanted.limit.map_or(MOST, |_| asked.limit),
            ..asked
        },
        api,
        id,
        known,
        form,
        until: None,
        open: true,
        subagents: VecDeque::new(),
        told: Vec::new(),
        begun: false,
    };
    export.stream().await
}

/// A session that has no record yet, because it starts; or none at all.
fn nothing_yet(api: &Api, id: &str, form: Form) -> Result<Response, Problem> {
    let session = api
        .board
        .sessions()
        .into_iter()
        .find(|known| known.id == id);
    let session = session.ok_or_else(|| Problem::not_found("session", id))?;
    Ok(match form {
        Form::Json => Json(Conversation {
            session: session.id,
            agent: session.agent,
            agent_session_id: session.agent_session_id,
            ..Conversation::default()
        })
        .into_response(),
        Form::Jsonl | Form::Markdown => answer(form, Body::empty()),
    })
}

fn answer(form: Form, body: Body) -> Response {
    let kind = match form {
        Form::Json => "application/json",
        Form::Jsonl => "application/x-ndjson",
        Form::Markdown => "text/markdown; charset=utf-8",
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A conversation on its way out, a page at a time: the session's, and then its sub-agents' unless a part was asked for.
struct Export {
    api: Arc<Api>,
    id: String,
    known: Known,
    asked: Asked,
    form: Form,
    /// With its sub-agents.
    whole: bool,
    /// One page only.
    once: bool,
    /// Length of the transcript at the begin: what is written meanwhile is not waited for.
    until: Option<u64>,
    open: bool,
    subagents: VecDeque<String>,
    /// Sub-agents that were or will be told.
    told: Vec<String>,
    begun: bool,
}

impl Export {
    async fn stream(mut self) -> Result<Response, Problem> {
        // What cannot be read at all is an answer of its own; what breaks off later breaks the body.
        let first = self.piece().await?.unwrap_or_default();
        let form = self.form;
        let rest = stream::unfold(Some(self), |export| async move {
            let mut export = export?;
            match export.piece().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(export))),
                Ok(None) => None,
                Err(error) => {
                    tracing::warn!(%error, session = export.id, "an export broke off");
                    Some((Err(error), None))
                }
            }
        });
        let first = stream::iter([Ok::<_, ReadError>(first)]);
        let body = Body::from_stream(futures_util::StreamExt::chain(first, rest));
        Ok(answer(form, body))
    }

    /// What comes next; `None` at the end.
    async fn piece(&mut self) -> Result<Option<Bytes>, ReadError> {
        let mut head = String::new();
        if !self.open {
            let Some(next) = self.subagents.pop_front() else {
                return Ok(None);
            };
            if self.form == Form::Markdown {
                head = markdown::subagent(&next);
            }
            self.asked.subagent = Some(next);
            self.asked.after = None;
            self.until = None;
            self.open = true;
        } else if !self.begun && self.form == Form::Markdown {
            head = markdown::head(&self.id, &self.known.agent.to_string());
        }
        self.begun = true;
        let reached = self
            .api
            .conversations
            .page(&self.id, &self.known, &self.asked)
            .await;
        let reached = match reached {
            // A sub-agent that left no transcript leaves none here.
            Err(ReadError::NoSubagent { .. }) if self.whole => {
                self.open = false;
                return Ok(Some(Bytes::new()));
            }
            other => other?,
        };
        let until = *self.until.get_or_insert(reached.size);
        let page = reached.page;
        self.open = page.more && !self.once && reached.end < until;
        self.asked.after = page.next.as_deref().and_then(|next| next.parse().ok());
        if self.whole && !self.once {
            self.note_subagents(&page);
        }
        let mut text = head;
        let turns = match self.form {
            Form::Markdown => order::as_said(page.turns),
            Form::Json | Form::Jsonl => page.turns,
        };
        for turn in &turns {
            match self.form {
                Form::Markdown => text.push_str(&markdown::turn(turn)),
                Form::Json | Form::Jsonl => {
                    let line = serde_json::to_string(turn).unwrap_or_else(|error| {
                        tracing::error!(%error, "a turn cannot be written");
                        String::new()
                    });
                    text.push_str(&line);
                    text.push('\n');
                }
            }
        }
        Ok(Some(text.into()))
    }

    fn note_subagents(&mut self, page: &Conversation) {
        let listed = page.subagents.iter().map(|subagent| subagent.id.clone());
        let named = page.turns.iter().flat_map(named);
        for id in listed.chain(named) {
            let room = self.told.len() < Conversation::SUBAGENTS_MAX;
            if room && !self.told.contains(&id) {
                self.told.push(id.clone());
                self.subagents.push_back(id);
            }
        }
    }
}

/// Sub-agents with transcripts of their own that a turn names.
fn named(turn: &Turn) -> Vec<String> {
    let parts = turn.parts.iter();
    parts
        .filter_map(|part| match part {
            Part::ToolResult { subagent, .. } => subagent.clone(),
            Part::Subagent { id, .. } => Some(id.clone()),
            _ => None,
        })
        .filter(|id| place::is_plain(id))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_asked_for_by_query_or_header() {
        let mut headers = HeaderMap::new();
        assert_eq!(Form::of(None, &headers), Form::Json);
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/markdown"));
        assert_eq!(Form::of(None, &headers), Form::Markdown);
        assert_eq!(Form::of(Some(Form::Jsonl), &headers), Form::Jsonl);
        headers.insert(
            header::ACCEPT,
            HeaderValue::from_static("application/x-ndjson"),
        );
        assert_eq!(Form::of(None, &headers), Form::Jsonl);
    }
}
