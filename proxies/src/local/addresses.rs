//! The server's own addresses as the browser knows them, and the browser's as the server does. Pure.

use super::rewrite::{Route, host_of};
use super::target::Form;

/// `Origin` and `Referer` as `localhost`, only if they are exactly the preview's own: another site's stays what it is, so
/// that the framework's own protection against it keeps its meaning.
pub(super) fn as_localhost(value: &[u8], route: &Route) -> Vec<u8> {
    let origin = route.public.origin();
    let Some(start) = value.get(..origin.len()) else {
        return value.to_vec();
    };
    let rest = value.get(origin.len()..).unwrap_or_default();
    if !start.eq_ignore_ascii_case(&origin) || !(rest.is_empty() || rest.starts_with(b"/")) {
        return value.to_vec();
    }
    let mut out = format!("http://localhost:{}", route.port).into_bytes();
    match route
        .prefix()
        .and_then(|prefix| rest.strip_prefix(prefix.as_bytes()))
    {
        Some(path) if matches!(route.form, Form::Stripped(_)) && path.starts_with(b"/") => {
            out.extend_from_slice(path);
        }
        _ => out.extend_from_slice(rest),
    }
    out
}

/// A redirect as the browser must see it: the server's own names for itself become the preview's; other sites stay.
pub(super) fn address(value: &[u8], route: &Route) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(value) else {
        return value.to_vec();
    };
    mapped(text, route).unwrap_or_else(|| value.to_vec())
}

fn mapped(text: &str, route: &Route) -> Option<Vec<u8>> {
    let Form::Stripped(_) = route.form else {
        return absolute(text, route);
    };
    if text.starts_with('/') && !text.starts_with("//") {
        // The server does not know of the prefix, unless it was told and used it.
        let prefix = route.prefix()?;
        let rest = text.strip_prefix(prefix.as_str());
        return match rest {
            Some(rest) if rest.is_empty() || rest.starts_with(['/', '?', '#']) => None,
            _ => Some([prefix.as_bytes(), text.as_bytes()].concat()),
        };
    }
    absolute(text, route)
}

fn absolute(text: &str, route: &Route) -> Option<Vec<u8>> {
    let (scheme, rest) = match text.split_once("//") {
        Some(("", rest)) => (None, rest),
        Some((scheme @ ("http:" | "https:"), rest)) => (Some(scheme), rest),
        _ => return None,
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end)?;
    let host = host_of(authority.as_bytes());
    let is_own_machine = [
        &b"localhost"[..],
        b"127.0.0.1",
        b"[::1]",
        b"0.0.0.0",
        b"[::]",
    ]
    .iter()
    .any(|name| host.eq_ignore_ascii_case(name));
    if is_own_machine {
        let number = match authority.get(host.len()..)?.strip_prefix(':') {
            Some(digits) => digits.parse().ok()?,
            None if scheme == Some("https:") => 443,
            None => 80,
        };
        let base = if number == route.port {
            let origin = String::from_utf8(route.public.origin()).ok()?;
            match route.prefix() {
                Some(prefix) if matches!(route.form, Form::Stripped(_)) => {
                    format!("{origin}{prefix}")
                }
                _ => origin,
            }
        } else {
            route.sibling(number)?
        };
        return Some([base.as_bytes(), path.as_bytes()].concat());
    }
    // The preview's own name, from a server that was told it: the path form's prefix is still missing.
    if authority
        .as_bytes()
        .eq_ignore_ascii_case(&route.public.authority)
        && matches!(route.form, Form::Stripped(_))
    {
        let prefix = route.prefix()?;
        let rest = path.strip_prefix(prefix.as_str());
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            return None;
        }
        let mut out = route.public.origin();
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(path.as_bytes());
        return Some(out);
    }
    None
}

/// `5; url=…`
pub(super) fn refresh(value: &[u8], route: &Route) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(value) else {
        return value.to_vec();
    };
    let lower = text.to_ascii_lowercase();
    let Some(at) = lower.find("url=").map(|at| at + 4) else {
        return value.to_vec();
    };
    let (before, url) = text.split_at_checked(at).unwrap_or((text, ""));
    let quotes = ['"', '\''];
    let bare = url.trim_matches(quotes);
    match mapped(bare, route) {
        Some(url) => [before.as_bytes(), &url].concat(),
        None => value.to_vec(),
    }
}
