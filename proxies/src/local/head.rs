//! Heads of messages as they stood on the wire: order and spelling of fields are kept.
//!
//! A head is a cheap view of the bytes it was read from. Names compare without case.

use bytes::Bytes;

/// One field line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: Bytes,
    pub(crate) value: Bytes,
}

impl Field {
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    pub(crate) fn has_prefix(&self, prefix: &str) -> bool {
        self.name
            .get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    }
}

/// The field lines of a head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(pub(crate) Vec<Field>);

impl Fields {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Field> {
        self.0.iter()
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.0
            .iter()
            .filter(move |field| field.is(name))
            .map(|field| field.value.as_ref())
    }

    /// The first value of `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.0
            .iter()
            .find(|field| field.is(name))
            .map(|field| field.value.as_ref())
    }

    /// The first value of `name`, if it is text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name)
            .and_then(|value| std::str::from_utf8(value).ok())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Does a comma-separated field contain `token`?
    pub(crate) fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }
}

/// A request without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestHead {
    pub(crate) method: Bytes,
    /// Path and query, or `*`.
    pub(crate) target: Bytes,
    /// The authority asked for: of the target if that was absolute, else of `Host`.
    pub(crate) authority: Bytes,
    pub(crate) version: Version,
    pub(crate) fields: Fields,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http10,
    Http11,
}

impl RequestHead {
    /// Safe to repeat by definition (RFC 9110 §9.2.1).
    pub(crate) fn is_safe(&self) -> bool {
        matches!(
            self.method.as_ref(),
            b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE"
        )
    }

    pub(crate) fn is_head(&self) -> bool {
        self.method.as_ref() == b"HEAD"
    }

    /// What it wants to upgrade to. HTTP/2 over cleartext and TLS are between two neighbours, not for a tunnel.
    pub(crate) fn upgrade(&self) -> Option<&[u8]> {
        let protocol = self.fields.get("upgrade")?;
        let neighbour = [
            &b"h2c"[..],
            b"h2",
            b"tls/1.0",
            b"tls/1.1",
            b"tls/1.2",
            b"tls/1.3",
        ]
        .iter()
        .any(|name| protocol.eq_ignore_ascii_case(name));
        (self.version == Version::Http11
            && !neighbour
            && self.fields.has_token("connection", "upgrade"))
        .then_some(protocol)
    }

    pub(crate) fn is_websocket(&self) -> bool {
        self.upgrade()
            .is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
    }

    /// A person's browser wants to show the answer as a page.
    pub(crate) fn is_navigation(&self) -> bool {
        if self.method.as_ref() != b"GET" || self.fields.has("upgrade") {
            return false;
        }
        match self.fields.get("sec-fetch-mode") {
            Some(mode) => mode == b"navigate",
            None => self
                .fields
                .all("accept")
                .any(|accept| contains(accept, b"text/html")),
        }
    }

    /// The target without its query.
    pub(crate) fn path(&self) -> &[u8] {
        self.target
            .split(|byte| *byte == b'?')
            .next()
            .unwrap_or_default()
    }
}

/// An answer without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResponseHead {
    pub(crate) version: Version,
    pub(crate) status: u16,
    pub(crate) reason: Bytes,
    pub(crate) fields: Fields,
}

impl ResponseHead {
    pub(crate) fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }
}

/// Does `text` contain `word`?
pub(crate) fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// Fields that are between two neighbours (RFC 9110 §7.6.1), the framing and `Upgrade` aside. Those that `Connection`
/// names come on top.
pub(crate) fn is_hop_by_hop(field: &Field) -> bool {
    [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
    ]
    .iter()
    .any(|name| field.is(name))
}

#[cfg(test)]
pub(crate) fn request(text: &str) -> RequestHead {
    let mut buffer = bytes::BytesMut::from(text.replace('\n', "\r\n").as_str());
    buffer.extend_from_slice(b"\r\n\r\n");
    super::wire::request(&mut buffer, &super::Limits::default())
        .unwrap()
        .unwrap()
        .0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_navigation_is_what_a_browser_shows_as_a_page() {
        for (text, expected) in [
            ("GET / HTTP/1.1\nHost: x\nSec-Fetch-Mode: navigate", true),
            ("GET / HTTP/1.1\nHost: x\nAccept: text/html,*/*", true),
            (
                "GET / HTTP/1.1\nHost: x\nAccept: text/html\nSec-Fetch-Mode: cors",
                false,
            ),
            ("GET / HTTP/1.1\nHost: x\nAccept: */*", false),
            ("POST / HTTP/1.1\nHost: x\nAccept: text/html", false),
        ] {
            assert_eq!(request(text).is_navigation(), expected, "{text}");
        }
    }

    #[test]
    fn upgrades_between_neighbours_are_none_of_the_tunnels() {
        for (protocol, expected) in [
            ("websocket", true),
            ("h2c", false),
            ("TLS/1.2", false),
            ("foo/2", true),
        ] {
            let head = request(&format!(
                "GET / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: {protocol}"
            ));
            assert_eq!(head.upgrade().is_some(), expected, "{protocol}");
        }
        assert!(
            request("GET / HTTP/1.1\nHost: x\nUpgrade: websocket")
                .upgrade()
                .is_none()
        );
    }
}
