//! The page: `web/dist`, built by Vite, compressed by `build.rs` and embedded in the binary.
//!
//! It goes out as it lies there; for a client that takes no gzip it is unpacked, a file at a time.
//! A binary built without the page says how to build it. Every answer carries a policy that lets the page load and reach
//! nothing but this server. Files below `assets/` have their content's hash in their name and may be kept for ever.

use std::io::Read as _;

use axum::response::{IntoResponse as _, Response};
use flate2::read::GzDecoder;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::problem::Problem;

// Paths below `web/dist`, and the files as gzip.
include!(concat!(env!("OUT_DIR"), "/page.rs"));

/// `style-src-attr`: xterm.js positions its rows with style attributes set from script, which this does not concern; its
/// `style` elements are constructed sheets or carry no content at load. No inline script, no other host, no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const NOT_BUILT: &str = "<!doctype html><meta charset=utf-8><title>whim</title>\
    <p>This binary was built without the page. Build it with <code>npm ci &amp;&amp; npm run build</code> in <code>web/</code>, \
    then build the binary again. The API and <code>whim attach</code> work without it.";

fn with_policy(mut response: Response, cache: &'static str) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, cache),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn packed(path: &str) -> Option<&'static [u8]> {
    let (_, content) = FILES.iter().find(|(name, _)| *name == path)?;
    Some(content)
}

/// Whether the client takes gzip (RFC 9110, 12.5.3); `*` is not counted, as nobody sends it alone.
fn takes_gzip(request: &HeaderMap) -> bool {
    request
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
            let refused = weight
                .trim()
                .strip_prefix("q=")
                .is_some_and(|weight| weight.parse() == Ok(0.0));
            name.trim().eq_ignore_ascii_case("gzip") && !refused
        })
}

/// A file in the coding that the client takes.
fn file(request: &HeaderMap, kind: &'static str, packed: &'static [u8]) -> Response {
    let mut response = if takes_gzip(request) {
        ([(header::CONTENT_ENCODING, "gzip")], packed).into_response()
    } else {
        let mut content = Vec::new();
        match GzDecoder::new(packed).read_to_end(&mut content) {
            Ok(_) => content.into_response(),
            Err(error) => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                return Problem::new(status, error.to_string()).into_response();
            }
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    response
}

/// The page itself.
pub(super) fn index(request: &HeaderMap) -> Response {
    let kind = "text/html; charset=utf-8";
    let response = match packed("index.html") {
        Some(packed) => file(request, kind, packed),
        None => ([(header::CONTENT_TYPE, kind)], NOT_BUILT).into_response(),
    };
    with_policy(response, "no-cache")
}

/// A file that the page loads; `path` is below `assets/`.
pub(super) fn asset(request: &HeaderMap, path: &str) -> Response {
    let Some(packed) = packed(&format!("assets/{path}")) else {
        return Problem::new(StatusCode::NOT_FOUND, "there is no such file").into_response();
    };
    let kind = match path.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("woff2") => "font/woff2",
        Some("json" | "webmanifest") => "application/json",
        _ => "application/octet-stream",
    };
    with_policy(
        file(request, kind, packed),
        "public, max-age=31536000, immutable",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write as _;

    fn asking(codings: &[&'static str]) -> HeaderMap {
        codings
            .iter()
            .map(|coding| (header::ACCEPT_ENCODING, HeaderValue::from_static(coding)))
            .collect()
    }

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        for taken in [&["gzip"][..], &["br, GZIP;q=0.5"], &["br", "deflate, gzip"]] {
            assert!(takes_gzip(&asking(taken)), "{taken:?}");
        }
        for refused in [
            &[][..],
            &["br"],
            &["gzip;q=0"],
            &["gzip; q=0.0, br"],
            &["xgzip"],
        ] {
            assert!(!takes_gzip(&asking(refused)), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn both_codings_are_the_same_file() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(b"let it = be;").unwrap();
        let packed: &'static [u8] = encoder.finish().unwrap().leak();
        let plain = file(&asking(&[]), "text/javascript", packed);
        assert_eq!(plain.headers().get(header::CONTENT_ENCODING), None);
        let body = axum::body::to_bytes(plain.into_body(), 100).await.unwrap();
        assert_eq!(&body[..], b"let it = be;");
        let coded = file(&asking(&["gzip"]), "text/javascript", packed);
        assert_eq!(coded.headers()[header::CONTENT_ENCODING], "gzip");
        assert_eq!(coded.headers()[header::CONTENT_TYPE], "text/javascript");
        let body = axum::body::to_bytes(coded.into_body(), 100).await.unwrap();
        assert_eq!(&body[..], packed);
    }
}
