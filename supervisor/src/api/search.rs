//! `GET /v1/search`: turns and commands, best first.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{RawQuery, State};
use http::StatusCode;
use serde_json::{Value, json};
use whim_wire::search::{Answer, Rebuilt};

use super::Shared;
use super::access::Owner;
use super::problem::Problem;
use crate::store::feed::elsewhere::ElsewhereError;
use crate::store::query::{Asked, Mistake};
use crate::store::{Query, StoreError};

/// How long a search waits for what is being written; what comes later is not in its answer.
const CATCH_UP: Duration = Duration::from_secs(2);
/// How long a search waits for what other tasks have saved: a store far away answers for each of them.
const ELSEWHERE: Duration = Duration::from_secs(15);
/// How long a rebuild is waited for.
const REBUILD: Duration = Duration::from_secs(60);

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TooLong => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "search-too-long",
                error.to_string(),
            ),
            other => Self::internal(&other),
        }
    }
}

impl From<ElsewhereError> for Problem {
    fn from(error: ElsewhereError) -> Self {
        match error {
            ElsewhereError::Store(error) => error.into(),
            other => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "search-elsewhere",
                other.to_string(),
            ),
        }
    }
}

impl From<Vec<Mistake>> for Problem {
    fn from(mistakes: Vec<Mistake>) -> Self {
        let described: Vec<Value> = mistakes
            .iter()
            .map(|mistake| {
                json!({"field": mistake.field, "value": mistake.given, "problem": mistake.problem, "remedy": mistake.remedy})
            })
            .collect();
        let detail: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        Self::invalid(detail.join("; ")).with_errors(described.into())
    }
}

pub(super) async fn get(
    _: Owner,
    State(api): Shared,
    RawQuery(query): RawQuery,
) -> Result<Json<Answer>, Problem> {
    let query = parse(query.as_deref().unwrap_or_default())?;
    let mut complete = api.feed.catch_up(CATCH_UP).await;
    if query.everywhere {
        complete &= api.elsewhere.catch_up(ELSEWHERE).await?;
    }
    let begun = api.store.begun();
    let mut answer = api.store.search(query.clone()).await;
    // Taken away or damaged: one more time, with what could be read again.
    if api.store.begun() != begun {
        complete = api.feed.catch_up(CATCH_UP).await;
        if query.everywhere {
            complete &= api.elsewhere.catch_up(ELSEWHERE).await?;
        }
        answer = api.store.search(query).await;
    }
    Ok(Json(Answer {
        complete,
        ..answer?
    }))
}

pub(super) async fn rebuild(_: Owner, State(api): Shared) -> Result<Json<Rebuilt>, Problem> {
    let complete = api.feed.rebuild(REBUILD).await?;
    let documents = api.store.count().await?;
    Ok(Json(Rebuilt {
        documents,
        complete,
    }))
}

/// Parameters that are not known are passed over, as everywhere.
fn parse(query: &str) -> Result<Query, Problem> {
    let given: BTreeMap<Cow<'_, str>, Cow<'_, str>> =
        url::form_urlencoded::parse(query.as_bytes()).collect();
    // `kind=` is what a form sends for nothing chosen.
    let of = |name: &str| given.get(name).map(AsRef::as_ref);
    let chosen = |name: &str| of(name).filter(|value: &&str| !value.is_empty());
    let asked = Asked {
        q: of("q"),
        kind: chosen("kind"),
        session: chosen("session"),
        agent: chosen("agent"),
        since: chosen("since"),
        until: chosen("until"),
        limit: chosen("limit"),
        everywhere: chosen("everywhere"),
    };
    Ok(Query::parse(&asked, jiff::Timestamp::now())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn mistakes_name_field_value_and_remedy() {
        let problem = parse("q=&kind=mail&limit=none&since=").unwrap_err();
        let response = problem.into_response();
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let fields: Vec<&Value> = body["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| &error["field"])
            .collect();
        assert_eq!(fields, ["q", "kind", "limit"]);
        assert_eq!(body["errors"][1]["value"], "mail");
        assert_eq!(body["errors"][1]["remedy"], "give conversation or shell");
        assert!(body["detail"].as_str().unwrap().contains("mail"));
    }

    #[test]
    fn parameters_are_decoded_and_unknown_ones_passed_over() {
        let query = parse("q=%22a+b%22%20c*&limit=5&x=1&session=main").unwrap();
        assert_eq!(query.expression(), "\"a b\" AND \"c\"*");
        assert_eq!((query.limit, query.session.as_deref()), (5, Some("main")));
    }
}
