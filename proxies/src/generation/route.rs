//! Which request is which: paths to operations, and each operation's wire format.
//!
//! Tolerant where agents are sloppy (`/api/v1`, `/v1/v1`, doubled slashes), strict where a path could mean another one
//! upstream (dot segments, escapes): those are no route.

use http::Method;

/// Wire format of a request, its answer and its errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Anthropic Messages.
    Anthropic,
    /// OpenAI Responses.
    Responses,
    /// OpenAI Chat Completions.
    Chat,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A model call: it costs money and means work.
    Generate(Format),
    /// Compaction of a conversation by the provider's model (Codex): a model call that is never streamed.
    Compact,
    /// `POST /v1/messages/count_tokens`.
    CountTokens,
    /// `GET /v1/models` and below.
    Models,
    /// Upgrade on `/v1/responses`.
    ResponsesSocket,
    /// `HEAD /` and `GET /`: are you there?
    Probe,
}

/// A request's destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What it asks for.
    pub operation: Operation,
    /// Path upstream below the base URL, beginning with `/v1/`.
    pub path: String,
}

/// Why a request has no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// No such path.
    NotFound,
    /// The path is known, the method is not among these.
    Method(&'static str),
}

/// Finds the operation of a request.
///
/// # Errors
/// [`NoRoute`], to be told in [`format_of`] the path.
pub fn route(method: &Method, path: &str, upgrade: bool) -> Result<Route, NoRoute> {
    let Some(segments) = normal(path) else {
        return Err(NoRoute::NotFound);
    };
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let post = |operation| match *method {
        Method::POST => Ok(operation),
        _ => Err(NoRoute::Method("POST")),
    };
    let operation = match parts.as_slice() {
        [] => match *method {
            Method::GET | Method::HEAD => Ok(Operation::Probe),
            _ => Err(NoRoute::Method("GET, HEAD")),
        },
        ["messages"] => post(Operation::Generate(Format::Anthropic)),
        ["messages", "count_tokens"] => post(Operation::CountTokens),
        ["responses"] if upgrade && *method == Method::GET => Ok(Operation::ResponsesSocket),
        ["responses"] => post(Operation::Generate(Format::Responses)),
        ["responses", "compact"] => post(Operation::Compact),
        ["chat", "completions"] => post(Operation::Generate(Format::Chat)),
        ["models", ..] if parts.len() <= 4 => match *method {
            Method::GET | Method::HEAD => Ok(Operation::Models),
            _ => Err(NoRoute::Method("GET, HEAD")),
        },
        _ => Err(NoRoute::NotFound),
    }?;
    let path = format!("/v1/{}", parts.join("/"));
    Ok(Route { operation, path })
}

/// The wire format in which errors about a path are told.
#[must_use]
pub fn format_of(path: &str) -> Format {
    if path.contains("/messages") {
        Format::Anthropic
    } else if path.contains("/responses") {
        Format::Responses
    } else {
        Format::Chat
    }
}

impl Operation {
    /// The format of the operation's errors.
    #[must_use]
    pub const fn format(self) -> Format {
        match self {
            Self::Generate(format) => format,
            Self::Compact | Self::ResponsesSocket => Format::Responses,
            Self::CountTokens => Format::Anthropic,
            Self::Models | Self::Probe => Format::Chat,
        }
    }
}

/// The segments below `/v1`, or none for a path that must not be forwarded.
fn normal(path: &str) -> Option<Vec<String>> {
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '~' | '@');
    let mut segments = Vec::new();
    for segment in path.split('/').filter(|s| !s.is_empty()) {
        if segment == "." || segment == ".." || !segment.chars().all(plain) || segments.len() > 8 {
            return None;
        }
        segments.push(segment.to_owned());
    }
    if segments.is_empty() {
        return Some(segments);
    }
    let api = usize::from(segments.first().is_some_and(|s| s == "api"));
    let versions = segments.iter().skip(api).take_while(|s| *s == "v1").count();
    if versions == 0 {
        return None;
    }
    let rest = segments.split_off(api + versions);
    (!rest.is_empty()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(method: Method, path: &str) -> Result<(Operation, String), NoRoute> {
        route(&method, path, false).map(|r| (r.operation, r.path))
    }

    #[test]
    fn known_paths() {
        let messages = Ok((
            Operation::Generate(Format::Anthropic),
            "/v1/messages".to_owned(),
        ));
        for path in [
            "/v1/messages",
            "/api/v1/messages",
            "/v1/v1/messages",
            "//v1/messages",
            "/v1//messages/",
            "/api/v1/v1/messages",
        ] {
            assert_eq!(to(Method::POST, path), messages, "{path}");
        }
        let cases = [
            ("/v1/responses", Operation::Generate(Format::Responses)),
            ("/v1/responses/compact", Operation::Compact),
            (
                "/api/v1/chat/completions",
                Operation::Generate(Format::Chat),
            ),
            ("/v1/messages/count_tokens", Operation::CountTokens),
        ];
        for (path, operation) in cases {
            assert_eq!(to(Method::POST, path).unwrap().0, operation, "{path}");
        }
        assert_eq!(
            to(Method::GET, "/v1/models/anthropic/claude-opus-4.8")
                .unwrap()
                .0,
            Operation::Models
        );
        assert_eq!(to(Method::HEAD, "/").unwrap().0, Operation::Probe);
        assert_eq!(
            route(&Method::GET, "/v1/responses", true)
                .unwrap()
                .operation,
            Operation::ResponsesSocket
        );
    }

    #[test]
    fn no_other_path_passes() {
        for path in [
            "/v1",
            "/messages",
            "/v1/messages/../files",
            "/v1/./messages",
            "/v1/%2e%2e/messages",
            "/v1/messages%2f",
            "/v2/messages",
            "/api/messages",
            "/v1/files",
            "/v1/messages/batches",
            "/v1\\messages",
            "/v1/models/a/b/c/d",
        ] {
            assert_eq!(to(Method::POST, path), Err(NoRoute::NotFound), "{path}");
        }
        assert_eq!(
            to(Method::GET, "/v1/messages"),
            Err(NoRoute::Method("POST"))
        );
        assert_eq!(to(Method::PUT, "/"), Err(NoRoute::Method("GET, HEAD")));
    }
}
