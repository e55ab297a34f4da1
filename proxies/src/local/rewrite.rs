//! Heads put right on their way: ours taken out, the server's view of its address made to fit, and back. Pure.
//!
//! Everything else passes in its order and spelling. The application's own `Authorization` and cookies are untouched.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::addresses::{address, as_localhost, refresh};
use super::cookies::{set_cookie, without_cookie, without_parameter};
use super::head::{Field, RequestHead, ResponseHead, Version, is_hop_by_hop};
use super::target::Form;

/// What a person's browser calls the preview.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Public {
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// Host and, where not the scheme's own, port.
    pub(crate) authority: Bytes,
}

impl Public {
    pub(crate) fn origin(&self) -> Vec<u8> {
        let mut origin = format!("{}://", self.scheme).into_bytes();
        origin.extend_from_slice(&self.authority);
        origin
    }

    /// Host without port, in lower case.
    pub(crate) fn host(&self) -> Vec<u8> {
        host_of(&self.authority).to_ascii_lowercase()
    }
}

/// How the server hears of its own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guise {
    /// As the browser calls it.
    Public,
    /// As `localhost`, with nothing said about another name: frameworks compare `Origin` with `X-Forwarded-Host` too.
    Localhost,
}

/// One request's facts that the rewriting depends on.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) port: u16,
    pub(crate) form: Form,
    pub(crate) public: Public,
    /// The client is the platform's router: what it says about others is passed on.
    pub(crate) is_trusted: bool,
    pub(crate) peer: SocketAddr,
    /// Preview address of every port, `{port}` standing for the number.
    pub(crate) preview_url: Option<std::sync::Arc<str>>,
    /// Marks requests that went through here.
    pub(crate) via: std::sync::Arc<str>,
}

impl Route {
    /// The path form's prefix, without a slash at its end.
    pub(super) fn prefix(&self) -> Option<String> {
        match self.form {
            Form::Stripped(_) => Some(format!("/proxy/{}", self.port)),
            Form::Kept(_) => Some(format!("/absproxy/{}", self.port)),
            Form::Header | Form::Host | Form::Default => None,
        }
    }

    /// Address of another port's preview, without a path; none where that cannot be said.
    pub(super) fn sibling(&self, port: u16) -> Option<String> {
        if let Some(template) = &self.preview_url {
            let address = template.replace("{port}", &port.to_string());
            return Some(address.trim_end_matches('/').to_owned());
        }
        let authority = std::str::from_utf8(&self.public.authority).ok()?;
        match self.form {
            Form::Stripped(_) => Some(format!("{}://{authority}/proxy/{port}", self.public.scheme)),
            Form::Kept(_) => Some(format!(
                "{}://{authority}/absproxy/{port}",
                self.public.scheme
            )),
            Form::Host => {
                let rest = authority.trim_start_matches(|c: char| c.is_ascii_digit());
                Some(format!("{}://{port}{rest}", self.public.scheme))
            }
            Form::Header | Form::Default => None,
        }
    }
}

/// What a server is asked for: the target as it should see it.
pub(crate) fn target(head: &RequestHead, form: Form) -> Vec<u8> {
    let bare = without_parameter(&head.target);
    let skip = match form {
        Form::Stripped(length) => length,
        Form::Header | Form::Kept(_) | Form::Host | Form::Default => 0,
    };
    let rest = bare.get(skip..).unwrap_or_default();
    if rest.first() == Some(&b'/') || rest == b"*" {
        rest.to_vec()
    } else {
        [b"/", rest].concat()
    }
}

/// The request line and fields for an HTTP/1.1 server.
pub(crate) fn request(head: &RequestHead, route: &Route, guise: Guise, out: &mut Vec<u8>) {
    out.extend_from_slice(&head.method);
    out.push(b' ');
    out.extend_from_slice(&target(head, route.form));
    out.extend_from_slice(b" HTTP/1.1\r\n");
    request_fields(head, route, guise, |name, value| {
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    });
    out.extend_from_slice(b"\r\n");
}

/// The fields for the server, `Host` first.
pub(crate) fn request_fields(
    head: &RequestHead,
    route: &Route,
    guise: Guise,
    mut put: impl FnMut(&[u8], &[u8]),
) {
    let localhost = format!("localhost:{}", route.port);
    match guise {
        Guise::Public => put(b"Host", &head.authority),
        Guise::Localhost => put(b"Host", localhost.as_bytes()),
    }
    let upgrade = head.upgrade();
    let connection = named_by_connection(head.fields.iter());
    let mut forwarded_for = None;
    for field in head.fields.iter() {
        if field.is("host")
            || field.has_prefix("x-whim-")
            || is_hop_by_hop(field)
            || connection
                .iter()
                .any(|name| field.name.eq_ignore_ascii_case(name))
                && !(field.is("upgrade") || is_framing(field))
        {
            continue;
        }
        if field.is("upgrade") {
            if upgrade.is_some() {
                put(&field.name, &field.value);
            }
        } else if field.is("x-forwarded-for") {
            if route.is_trusted {
                forwarded_for = Some(field.value.clone());
            }
        } else if field.has_prefix("x-forwarded-") || field.is("forwarded") || field.is("x-real-ip")
        {
            if route.is_trusted && guise == Guise::Public {
                put(&field.name, &field.value);
            }
        } else if field.is("cookie") {
            if let Some(cookies) = without_cookie(&field.value) {
                put(&field.name, &cookies);
            }
        } else if field.is("origin") || field.is("referer") {
            let value = without_parameter(&field.value);
            match guise {
                Guise::Localhost => put(&field.name, &as_localhost(&value, route)),
                Guise::Public => put(&field.name, &value),
            }
        } else {
            put(&field.name, &field.value);
        }
    }
    if upgrade.is_some() {
        put(b"Connection", b"Upgrade");
    } else if head.fields.has_token("te", "trailers") {
        put(b"Connection", b"TE");
        put(b"TE", b"trailers");
    }
    forwarded(head, route, guise, forwarded_for.as_deref(), &mut put);
    put(b"Via", route.via.as_bytes());
}

/// `X-Forwarded-*` and `Forwarded` as this proxy knows them; a trusted client's own words come first.
fn forwarded(
    head: &RequestHead,
    route: &Route,
    guise: Guise,
    client_said: Option<&[u8]>,
    put: &mut impl FnMut(&[u8], &[u8]),
) {
    let peer = route.peer.ip().to_canonical();
    let address = peer.to_string();
    let chain = match client_said {
        Some(before) => [before, b", ", address.as_bytes()].concat(),
        None => address.clone().into_bytes(),
    };
    put(b"X-Forwarded-For", &chain);
    if guise == Guise::Localhost {
        return;
    }
    let said = |name: &str| route.is_trusted && head.fields.has(name);
    if !said("x-forwarded-host") {
        put(b"X-Forwarded-Host", &route.public.authority);
    }
    if !said("x-forwarded-proto") {
        put(b"X-Forwarded-Proto", route.public.scheme.as_bytes());
    }
    if !said("x-forwarded-port") {
        let port = port_of(&route.public);
        put(b"X-Forwarded-Port", port.as_bytes());
    }
    if !said("x-real-ip") && !route.is_trusted {
        put(b"X-Real-IP", address.as_bytes());
    }
    if !said("forwarded") {
        let node = match peer {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("\"[{ip}]\""),
        };
        let host = String::from_utf8_lossy(&route.public.authority).replace(['"', '\\'], "");
        let value = format!("for={node};host=\"{host}\";proto={}", route.public.scheme);
        put(b"Forwarded", value.as_bytes());
    }
}

/// The fields for the client. `guise` is what the server was told.
pub(crate) fn response_fields(
    head: &ResponseHead,
    route: &Route,
    guise: Guise,
    keeps_upgrade: bool,
    mut put: impl FnMut(&[u8], &[u8]),
) {
    let connection = named_by_connection(head.fields.iter());
    for field in head.fields.iter() {
        let named = connection
            .iter()
            .any(|name| field.name.eq_ignore_ascii_case(name));
        if field.is("upgrade") {
            if keeps_upgrade {
                put(&field.name, &field.value);
            }
        } else if field.has_prefix("x-whim-")
            || field.is("service-worker-allowed")
            || field.is("clear-site-data")
            || is_hop_by_hop(field)
            || (named && !is_framing(field))
        {
        } else if field.is("set-cookie") {
            if let Some(cookie) = set_cookie(&field.value, route) {
                put(&field.name, &cookie);
            }
        } else if field.is("location") || field.is("content-location") {
            put(
                &field.name,
                &without_parameter(&address(&field.value, route)),
            );
        } else if field.is("refresh") {
            put(&field.name, &refresh(&field.value, route));
        } else if field.is("access-control-allow-origin") && guise == Guise::Localhost {
            let ours = format!("http://localhost:{}", route.port);
            if field.value == ours.as_bytes() {
                put(&field.name, &route.public.origin());
            } else {
                put(&field.name, &field.value);
            }
        } else {
            put(&field.name, &field.value);
        }
    }
    if keeps_upgrade {
        put(b"Connection", b"Upgrade");
    }
}

/// The status line and fields for an HTTP/1.1 client, the empty line left out.
pub(crate) fn response(
    head: &ResponseHead,
    route: &Route,
    guise: Guise,
    keeps_upgrade: bool,
    skip: &[&str],
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(&head.reason);
    out.extend_from_slice(b"\r\n");
    response_fields(head, route, guise, keeps_upgrade, |name, value| {
        if skip
            .iter()
            .any(|skipped| name.eq_ignore_ascii_case(skipped.as_bytes()))
        {
            return;
        }
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    });
}

fn is_framing(field: &Field) -> bool {
    field.is("content-length") || field.is("transfer-encoding")
}

fn named_by_connection<'a>(fields: impl Iterator<Item = &'a Field>) -> Vec<&'a [u8]> {
    fields
        .filter(|field| field.is("connection"))
        .flat_map(|field| field.value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
        .collect()
}

/// An authority without its port.
pub(crate) fn host_of(authority: &[u8]) -> &[u8] {
    let end = match authority.iter().position(|byte| *byte == b']') {
        Some(bracket) => bracket + 1,
        None => authority
            .iter()
            .position(|byte| *byte == b':')
            .unwrap_or(authority.len()),
    };
    authority.get(..end).unwrap_or(authority)
}

fn port_of(public: &Public) -> String {
    let host = host_of(&public.authority).len();
    let given = public.authority.get(host + 1..).unwrap_or_default();
    match std::str::from_utf8(given) {
        Ok(digits) if !digits.is_empty() => digits.to_owned(),
        _ if public.scheme == "https" => "443".to_owned(),
        _ => "80".to_owned(),
    }
}

/// Is this a name that no framework refuses?
pub(crate) fn is_local(authority: &[u8]) -> bool {
    let host = host_of(authority);
    let text = std::str::from_utf8(host).unwrap_or_default();
    text.eq_ignore_ascii_case("localhost")
        || text.to_ascii_lowercase().ends_with(".localhost")
        || text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

/// What a client speaks decides how an answer may end.
pub(crate) fn can_chunk(version: Version) -> bool {
    version == Version::Http11
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
