//! The heads of requests to an upstream, and of its answers.

use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap,
    HeaderName, HeaderValue,
};
use http::{Request, Response, StatusCode, Uri};

use super::super::body::RequestBody;
use super::super::call::Call;
use super::super::metered::AnswerBody;
use super::super::provider::{Provider, Upstream};
use super::super::refuse::Refusal;
use super::{Answered, Forward};
use crate::http::headers::strip_hop_by_hop;

/// The agent's credentials and what would tell the upstream about this machine: they never pass.
const PRIVATE: [HeaderName; 9] = [
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
    COOKIE,
    FORWARDED,
    HeaderName::from_static("x-real-ip"),
    HOST,
    EXPECT,
];
/// What an agent cannot remove by naming it in `Connection`.
const KEPT: [HeaderName; 5] = [
    HeaderName::from_static("anthropic-version"),
    HeaderName::from_static("anthropic-beta"),
    HeaderName::from_static("content-type"),
    HeaderName::from_static("content-encoding"),
    CONTENT_LENGTH,
];
/// Ids are cut to this many characters.
const ID: usize = 256;

impl Forward {
    /// The agent's own id of its session: Claude Code and Codex send one.
    pub(super) fn agent_session(&self) -> Option<String> {
        let names = ["x-claude-code-session-id", "session-id", "session_id"];
        let found = names
            .iter()
            .find_map(|name| self.parts.headers.get(*name))?;
        Some(found.to_str().ok()?.chars().take(ID).collect())
    }

    /// The head of the request to an upstream.
    pub(super) fn head(
        &self,
        upstream: &Upstream,
        body: RequestBody,
        identity: bool,
    ) -> Result<Request<RequestBody>, Refusal> {
        let mut headers = self.parts.headers.clone();
        strip_hop_by_hop(&mut headers, &KEPT);
        let forwarded: Vec<HeaderName> = headers
            .keys()
            .filter(|name| name.as_str().starts_with("x-forwarded-"))
            .cloned()
            .collect();
        for name in PRIVATE.iter().chain(&forwarded) {
            headers.remove(name);
        }
        // The length is stated anew from the body that is sent.
        headers.remove(CONTENT_LENGTH);
        headers.insert(HOST, upstream.host().clone());
        if identity {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if upstream.provider == Provider::OpenRouter {
            self.openrouter(&mut headers);
        }
        if !self
            .proxy
            .credentials
            .apply(upstream.provider, self.operation, &mut headers)
        {
            let message = format!(
                "no key for {} is set; give the container one, or set it with PUT /v1/credentials",
                upstream.provider
            );
            return Err(Refusal::unauthorized(message));
        }
        let target = upstream.path(&self.path, self.parts.uri.query());
        let uri: Uri = target.parse().map_err(|_| {
            Refusal::invalid(
                StatusCode::BAD_REQUEST,
                "the request's target cannot be forwarded".to_owned(),
            )
        })?;
        let mut request = Request::new(body);
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// A session's calls stay with one provider, whose cache then serves them; and the application is named.
    pub(super) fn openrouter(&self, headers: &mut HeaderMap) {
        let session = HeaderName::from_static("x-session-id");
        if !headers.contains_key(&session) {
            let id = self
                .agent_session()
                .unwrap_or_else(|| self.session.id.clone());
            if let Ok(value) = HeaderValue::from_str(&id) {
                headers.insert(session, value);
            }
        }
        if let Some((referer, title)) = &self.proxy.attribution {
            for (name, value) in [("http-referer", referer), ("x-openrouter-title", title)] {
                if let (false, Ok(value)) =
                    (headers.contains_key(name), HeaderValue::from_str(value))
                {
                    headers.insert(HeaderName::from_static(name), value);
                }
            }
        }
    }
}

/// Ids in an answer's head; OpenRouter's generation id is nowhere else for messages.
pub(super) fn take_ids(call: &mut Call, headers: &HeaderMap) {
    let text = |name: &str| {
        let value = headers.get(name)?.to_str().ok()?;
        Some(value.chars().take(ID).collect::<String>())
    };
    call.generation_id = text("x-generation-id");
    call.upstream_request_id = text("request-id").or_else(|| text("x-request-id"));
}

/// An answer as it came, less what was about its connection.
pub(super) fn answered(mut head: http::response::Parts, body: AnswerBody) -> Answered {
    strip_hop_by_hop(&mut head.headers, &[CONTENT_LENGTH]);
    head.version = http::Version::HTTP_11;
    Response::from_parts(head, body)
}
