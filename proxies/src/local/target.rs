//! Which port a request is for. Pure.
//!
//! Header `X-Whim-Port`, else path `/proxy/N/…` or `/absproxy/N/…`, else a host label `N-…`, else the default port.

use super::head::RequestHead;

/// How the port was named; it decides what the server sees as path, and what its redirects and cookies are put right to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Header,
    /// `/proxy/N`: the prefix of this many bytes is not shown to the server.
    Stripped(usize),
    /// `/absproxy/N`: the server sees it.
    Kept(usize),
    Host,
    Default,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Port(u16, Form),
    /// A port was meant, but that is no number of one.
    NoSuchPort,
    /// Nothing names a port: the default.
    Unnamed,
}

/// Chooses by what the request says.
pub(crate) fn choose(head: &RequestHead) -> Choice {
    let mut named = head.fields.all("x-whim-port");
    if let Some(value) = named.next() {
        // Two different answers to the same question are none.
        return match number(value) {
            Some(port) if named.all(|other| other == value) => Choice::Port(port, Form::Header),
            _ => Choice::NoSuchPort,
        };
    }
    let host = label(&head.authority);
    for (prefix, is_stripped) in [(&b"/proxy/"[..], true), (b"/absproxy/", false)] {
        let Some(rest) = head.path().strip_prefix(prefix) else {
            continue;
        };
        let segment = rest.split(|byte| *byte == b'/').next().unwrap_or_default();
        // Behind a host label, `/proxy/users` is the application's own path.
        if segment.first().is_some_and(u8::is_ascii_alphabetic) && host != Choice::Unnamed {
            continue;
        }
        let length = prefix.len() + segment.len();
        return match number(segment) {
            Some(port) if is_stripped => Choice::Port(port, Form::Stripped(length)),
            Some(port) => Choice::Port(port, Form::Kept(length)),
            None => Choice::NoSuchPort,
        };
    }
    host
}

/// `3000-x.example` and `3000--x.example`. A label that starts otherwise is a name, not a number.
fn label(authority: &[u8]) -> Choice {
    let label = authority
        .split(|byte| matches!(byte, b'.' | b':'))
        .next()
        .unwrap_or_default();
    let digits = label
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    match label.get(digits) {
        Some(b'-') if digits > 0 => match label.get(..digits).and_then(number) {
            Some(port) => Choice::Port(port, Form::Host),
            None => Choice::NoSuchPort,
        },
        _ => Choice::Unnamed,
    }
}

/// `[1-9][0-9]{0,4}`, at most 65535.
pub(crate) fn number(digits: &[u8]) -> Option<u16> {
    if digits.len() > 5 || digits.first() == Some(&b'0') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::head::request;
    use super::*;

    #[test]
    fn header_before_path_before_host_before_default() {
        use Choice::{NoSuchPort, Port, Unnamed};
        for (target, host, header, expected) in [
            ("/", "x.example", "", Unnamed),
            (
                "/",
                "x.example",
                "X-Whim-Port: 3000",
                Port(3000, Form::Header),
            ),
            (
                "/proxy/4000/a",
                "5000-x.example",
                "X-Whim-Port: 3000",
                Port(3000, Form::Header),
            ),
            (
                "/proxy/4000/a",
                "5000-x.example",
                "",
                Port(4000, Form::Stripped(11)),
            ),
            ("/proxy/4000", "x", "", Port(4000, Form::Stripped(11))),
            ("/proxy/4000?a=/", "x", "", Port(4000, Form::Stripped(11))),
            ("/absproxy/4000/a", "x", "", Port(4000, Form::Kept(14))),
            (
                "/a/proxy/4000/",
                "5000-x.example",
                "",
                Port(5000, Form::Host),
            ),
            ("/", "5000--x.example:8080", "", Port(5000, Form::Host)),
            ("/", "5000-x", "", Port(5000, Form::Host)),
            ("/", "5000.example", "", Unnamed),
            ("/", "127.0.0.1:8080", "", Unnamed),
            ("/", "[::1]:8080", "", Unnamed),
            ("/", "05000-x.example", "", NoSuchPort),
            ("/", "0-x.example", "", NoSuchPort),
            ("/", "65536-x.example", "", NoSuchPort),
            ("/", "123456-x.example", "", NoSuchPort),
            ("/proxy/0/", "x", "", NoSuchPort),
            ("/proxy/03000/", "x", "", NoSuchPort),
            ("/proxy/65536/", "x", "", NoSuchPort),
            ("/proxy/+300/", "x", "", NoSuchPort),
            ("/proxy/%33000/", "x", "", NoSuchPort),
            ("/proxy//", "x", "", NoSuchPort),
            ("/proxy/users/", "x", "", NoSuchPort),
            (
                "/proxy/users/",
                "3000-x.example",
                "",
                Port(3000, Form::Host),
            ),
            ("/proxy/3000x/", "3000-x.example", "", NoSuchPort),
            ("/", "3000-x", "X-Whim-Port: 0", NoSuchPort),
            (
                "/",
                "3000-x",
                "X-Whim-Port: 3000\nX-Whim-Port: 3001",
                NoSuchPort,
            ),
        ] {
            let separator = if header.is_empty() { "" } else { "\n" };
            let head = request(&format!(
                "GET {target} HTTP/1.1\nHost: {host}{separator}{header}"
            ));
            assert_eq!(choose(&head), expected, "{target} {host} {header}");
        }
    }
}
