//! The page: `web/dist`, built by Vite and embedded in the binary.
//!
//! A binary built without the page says how to build it. Every answer carries a policy that lets the page load and reach
//! nothing but this server. Files below `assets/` have their content's hash in their name and may be kept for ever.

use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};
use rust_embed::RustEmbed;

use super::problem::Problem;

#[derive(RustEmbed)]
#[folder = "../web/dist"]
#[allow_missing = true]
struct Dist;

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

/// The page itself.
pub(super) fn index() -> Response {
    let html = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    let response = match Dist::get("index.html") {
        Some(file) => (html, file.data).into_response(),
        None => (html, NOT_BUILT).into_response(),
    };
    with_policy(response, "no-cache")
}

/// A file that the page loads; `path` is below `assets/`.
pub(super) fn asset(path: &str) -> Response {
    let Some(file) = Dist::get(&format!("assets/{path}")) else {
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
    let response = ([(header::CONTENT_TYPE, kind)], file.data).into_response();
    with_policy(response, "public, max-age=31536000, immutable")
}
