//! Does an answer say "I do not serve that host"? Frameworks check `Host` and `Origin` against DNS rebinding, each with
//! words of its own. Pure.

use super::head::{RequestHead, ResponseHead, contains};

/// How much of a body is looked at.
pub(crate) const PREFIX: usize = 16 * 1024;

/// Words that only such a refusal contains.
const WORDS: [&[u8]; 11] = [
    // Vite, and Astro and Angular on it
    b"Blocked request. This host",
    b"This host is not allowed",
    // webpack-dev-server 4 and 5, Create React App
    b"Invalid Host header",
    b"Invalid Host/Origin header",
    // Rails 6 and later
    b"Blocked hosts:",
    b"Blocked host:",
    // Django, in the page that DEBUG shows
    b"DisallowedHost",
    b"Invalid HTTP_HOST header",
    // Starlette
    b"Invalid host header",
    // Jupyter
    b"non-local 'Host'",
    // ASP.NET Core
    b"Invalid Hostname",
];

/// May an answer with this head be a refusal, so that its body is worth a look?
pub(crate) fn may_be(head: &ResponseHead) -> bool {
    match head.status {
        400 | 403 => true,
        // Old webpack-dev-servers say it with 200 and one short line.
        200 => head
            .fields
            .text("content-length")
            .is_some_and(|length| length == "19" || length == "26"),
        _ => false,
    }
}

/// Is it one, by the beginning of its body?
pub(crate) fn is(request: &RequestHead, head: &ResponseHead, body: &[u8]) -> bool {
    if WORDS.iter().any(|words| contains(body, words)) {
        return true;
    }
    // Next.js 16: its development resources, and no word about the reason.
    head.status == 403 && is_development_resource(request) && contains(body, b"Unauthorized")
}

/// Next.js checks requests for these, and for its socket, against its own host, and pages not at all.
pub(crate) fn is_development_resource(request: &RequestHead) -> bool {
    contains(request.path(), b"/_next/")
}

#[cfg(test)]
mod tests {
    use super::super::head::request;
    use super::super::wire::response;
    use super::*;
    use bytes::BytesMut;

    #[test]
    fn only_refusals_of_the_host_are_taken_for_one() {
        for (path, status, body, expected) in [
            (
                "/",
                403,
                "<p>Blocked request. This host (\"x\") is not allowed.",
                true,
            ),
            ("/", 403, "<h1>Blocked hosts: x</h1>", true),
            ("/", 400, "DisallowedHost at /", true),
            ("/", 200, "Invalid Host header", true),
            ("/_next/static/x.js", 403, "Unauthorized", true),
            ("/api", 403, "Unauthorized", false),
            ("/", 403, "CSRF verification failed", false),
            ("/", 200, "How to fix the Invalid Host header error", false),
            ("/", 404, "Blocked request. This host", false),
        ] {
            let text = format!(
                "HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let (head, _) = response(
                &mut BytesMut::from(text.as_str()),
                &super::super::Limits::default(),
                false,
            )
            .unwrap()
            .unwrap();
            let request = request(&format!("GET {path} HTTP/1.1\nHost: x"));
            assert_eq!(
                may_be(&head) && is(&request, &head, body.as_bytes()),
                expected,
                "{status} {body}"
            );
        }
    }
}
