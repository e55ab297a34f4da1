//! Cookies and the link's parameter: ours taken out both ways, the application's kept to its own preview. Pure.

use super::access::{COOKIE, PARAMETER};
use super::head::RequestHead;
use super::rewrite::Route;
use super::target::Form;

/// A cookie field without ours; none if nothing is left.
pub(crate) fn without_cookie(value: &[u8]) -> Option<Vec<u8>> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for pair in value.split(|byte| *byte == b';') {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        if name.trim_ascii() != COOKIE.as_bytes() {
            kept.push(pair);
        }
    }
    let joined = kept.join(&b';');
    let trimmed = joined.trim_ascii();
    (!trimmed.is_empty()).then(|| trimmed.to_vec())
}

/// Values of our cookie.
pub(crate) fn cookies(head: &RequestHead) -> impl Iterator<Item = &[u8]> {
    head.fields
        .all("cookie")
        .flat_map(|value| value.split(|byte| *byte == b';'))
        .filter_map(|pair| {
            let pair = pair.trim_ascii();
            pair.strip_prefix(COOKIE.as_bytes())?.strip_prefix(b"=")
        })
}

/// Value of our parameter, the first if there are several.
pub(crate) fn parameter(target: &[u8]) -> Option<&[u8]> {
    let at = target.iter().position(|byte| *byte == b'?')?;
    let query = target.get(at + 1..)?;
    query
        .split(|byte| *byte == b'&')
        .find_map(|pair| pair.strip_prefix(PARAMETER.as_bytes())?.strip_prefix(b"="))
}

/// A target or address without our parameter, everything else as it was.
pub(crate) fn without_parameter(address: &[u8]) -> Vec<u8> {
    let Some(at) = address.iter().position(|byte| *byte == b'?') else {
        return address.to_vec();
    };
    let (before, query) = address.split_at(at);
    let query = query.get(1..).unwrap_or_default();
    let (query, fragment) = match query.iter().position(|byte| *byte == b'#') {
        Some(at) => query.split_at(at),
        None => (query, &b""[..]),
    };
    let is_ours = |pair: &[u8]| {
        pair.strip_prefix(PARAMETER.as_bytes())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"="))
    };
    if !query.split(|byte| *byte == b'&').any(is_ours) {
        return address.to_vec();
    }
    let kept: Vec<&[u8]> = query
        .split(|byte| *byte == b'&')
        .filter(|pair| !is_ours(pair))
        .collect();
    let mut out = before.to_vec();
    if !kept.is_empty() {
        out.push(b'?');
        out.extend_from_slice(&kept.join(&b'&'));
    }
    out.extend_from_slice(fragment);
    out
}
/// A cookie as the browser may take it: never ours, never for the previews beside this one.
pub(super) fn set_cookie(value: &[u8], route: &Route) -> Option<Vec<u8>> {
    let mut parts = value.split(|byte| *byte == b';');
    let pair = parts.next().unwrap_or_default();
    let name = pair
        .split(|byte| *byte == b'=')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    if name == COOKIE.as_bytes() {
        return None;
    }
    let is_host_bound = name.starts_with(b"__Host-");
    let mut out = pair.to_vec();
    let (mut is_cross_site, mut is_secure) = (false, false);
    for part in parts {
        let attribute = part.trim_ascii();
        let (name, content) = match attribute.iter().position(|byte| *byte == b'=') {
            Some(at) => (
                attribute.get(..at).unwrap_or_default(),
                attribute.get(at + 1..).unwrap_or_default(),
            ),
            None => (attribute, &b""[..]),
        };
        let is = |wanted: &str| name.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes());
        is_cross_site |= is("samesite") && content.trim_ascii().eq_ignore_ascii_case(b"none");
        is_secure |= is("secure");
        if is("domain") {
            let domain = content.trim_ascii();
            let domain = domain.strip_prefix(b".").unwrap_or(domain);
            if !domain.eq_ignore_ascii_case(&route.public.host()) {
                continue;
            }
        }
        if is("path")
            && !is_host_bound
            && content.starts_with(b"/")
            && matches!(route.form, Form::Stripped(_))
        {
            let prefix = route.prefix().unwrap_or_default();
            out.extend_from_slice(b"; Path=");
            out.extend_from_slice(prefix.as_bytes());
            out.extend_from_slice(content);
            continue;
        }
        out.push(b';');
        out.extend_from_slice(part);
    }
    if is_cross_site && !is_secure && route.public.scheme == "https" {
        // Browsers drop SameSite=None without it; a server on plain localhost could not know.
        out.extend_from_slice(b"; Secure");
    }
    Some(out)
}
