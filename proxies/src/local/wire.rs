//! HTTP/1 heads off the wire, with the framing of what follows. Strict where a lenient reading would let two readers
//! disagree about where a message ends (RFC 9112 §6.3, §11.2); such a message is refused, not repaired.

use bytes::{Buf, Bytes, BytesMut};

use super::Limits;
use super::head::{Field, Fields, RequestHead, ResponseHead, Version};

/// Fields that are parsed without a larger space.
const FEW: usize = 48;

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(u64),
    Chunked,
    /// Ends with the connection (answers only).
    Close,
}

/// Why a request cannot be taken, as the status that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {reason}")]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
}

const fn refuse<T>(status: u16, reason: &'static str) -> Result<T, Refusal> {
    Err(Refusal { status, reason })
}

/// Why an answer cannot be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadAnswer {
    #[error("the answer is no HTTP")]
    NotHttp,
    #[error("the answer's head is too large")]
    TooLarge,
    #[error("the answer has contradictory lengths")]
    Framing,
}

/// Takes a request's head off the buffer; none while it is incomplete.
pub(crate) fn request(
    buffer: &mut BytesMut,
    limits: &Limits,
) -> Result<Option<(RequestHead, Framing)>, Refusal> {
    // Nearly every head fits into the small space; clearing the large one for each would cost more than parsing.
    let mut few = [httparse::EMPTY_HEADER; FEW];
    let mut many = Vec::new();
    let mut parsed = httparse::Request::new(&mut few);
    let mut outcome = parsed.parse(buffer);
    if outcome == Err(httparse::Error::TooManyHeaders) {
        many.resize(limits.fields + 1, httparse::EMPTY_HEADER);
        parsed = httparse::Request::new(&mut many);
        outcome = parsed.parse(buffer);
    }
    let length = match outcome {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => {
            if first_line_exceeds(buffer, limits.url + 32) {
                return refuse(414, "the URL is too long");
            }
            if buffer.len() > limits.head {
                return refuse(431, "the header is too large");
            }
            return Ok(None);
        }
        Err(httparse::Error::TooManyHeaders) => return refuse(431, "too many header fields"),
        Err(httparse::Error::Version) => return refuse(505, "only HTTP/1.0, HTTP/1.1 and HTTP/2"),
        Err(_) => return refuse(400, "the request is malformed"),
    };
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version)
    else {
        return refuse(400, "the request is malformed");
    };
    if target.len() > limits.url {
        return refuse(414, "the URL is too long");
    }
    if length > limits.head {
        return refuse(431, "the header is too large");
    }
    let count = parsed.headers.len();
    if count > limits.fields {
        return refuse(431, "too many header fields");
    }
    // Offsets instead of slices, so that the bytes can leave the buffer without a copy.
    let base = buffer.as_ptr() as usize;
    let range = |part: &[u8]| {
        let start = part.as_ptr() as usize - base;
        start..start + part.len()
    };
    let method = range(method.as_bytes());
    let target = range(target.as_bytes());
    let lines: Vec<_> = parsed
        .headers
        .iter()
        .map(|field| (range(field.name.as_bytes()), range(field.value)))
        .collect();
    let bytes = buffer.split_to(length).freeze();
    let fields = Fields(
        lines
            .into_iter()
            .map(|(name, value)| Field {
                name: bytes.slice(name),
                value: bytes.slice(value),
            })
            .collect(),
    );
    let version = if version == 0 {
        Version::Http10
    } else {
        Version::Http11
    };
    let (target, authority) = authority(bytes.slice(target), &fields, version)?;
    let head = RequestHead {
        method: bytes.slice(method),
        target,
        authority,
        version,
        fields,
    };
    if head.method.as_ref() == b"CONNECT" {
        return refuse(405, "no tunnels to elsewhere");
    }
    let framing = request_framing(&head)?;
    Ok(Some((head, framing)))
}

fn first_line_exceeds(buffer: &[u8], limit: usize) -> bool {
    buffer.len() > limit && !buffer.iter().take(limit).any(|byte| *byte == b'\n')
}

/// Splits an absolute target (which outranks `Host`, RFC 9112 §3.2.2).
fn authority(target: Bytes, fields: &Fields, version: Version) -> Result<(Bytes, Bytes), Refusal> {
    let mut hosts = fields.iter().filter(|field| field.is("host"));
    let host = hosts.next().map(|field| field.value.clone());
    if hosts.next().is_some() {
        return refuse(400, "more than one Host");
    }
    if host.is_none() && version == Version::Http11 {
        return refuse(400, "no Host");
    }
    if target.first() == Some(&b'/') || target.as_ref() == b"*" {
        return Ok((target, host.unwrap_or_default()));
    }
    let rest = ["http://", "https://"].iter().find_map(|scheme| {
        let start = target.get(..scheme.len())?;
        start
            .eq_ignore_ascii_case(scheme.as_bytes())
            .then(|| target.slice(scheme.len()..))
    });
    let Some(rest) = rest else {
        return refuse(400, "the request's target is malformed");
    };
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    let path = match rest.get(end) {
        Some(b'/') => rest.slice(end..),
        Some(_) => {
            let mut path = BytesMut::from(&b"/"[..]);
            path.extend_from_slice(rest.get(end..).unwrap_or_default());
            path.freeze()
        }
        None => Bytes::from_static(b"/"),
    };
    Ok((path, rest.slice(..end)))
}

fn request_framing(head: &RequestHead) -> Result<Framing, Refusal> {
    let Ok(length) = content_length(&head.fields) else {
        return refuse(400, "Content-Length is malformed");
    };
    let mut codings = head.fields.all("transfer-encoding");
    match (codings.next(), length) {
        (None, None | Some(0)) => Ok(match length {
            None => Framing::None,
            Some(_) => Framing::Length(0),
        }),
        (None, Some(length)) => Ok(Framing::Length(length)),
        (Some(_), Some(_)) => refuse(400, "both Content-Length and Transfer-Encoding"),
        (Some(_), None) if head.version == Version::Http10 => {
            refuse(400, "Transfer-Encoding in HTTP/1.0")
        }
        (Some(coding), None) => {
            if codings.next().is_none() && coding.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                Ok(Framing::Chunked)
            } else {
                refuse(501, "only the transfer coding chunked")
            }
        }
    }
}

/// Digits only; several fields or list members must agree.
fn content_length(fields: &Fields) -> Result<Option<u64>, ()> {
    let mut length = None;
    for value in fields
        .all("content-length")
        .flat_map(|value| value.split(|byte| *byte == b','))
    {
        let digits = value.trim_ascii();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(());
        }
        let parsed: u64 = std::str::from_utf8(digits)
            .map_err(|_| ())?
            .parse()
            .map_err(|_| ())?;
        if length.is_some_and(|before| before != parsed) {
            return Err(());
        }
        length = Some(parsed);
    }
    Ok(length)
}

/// Takes an answer's head off the buffer; none while it is incomplete. `to_head`: the request was a HEAD.
pub(crate) fn response(
    buffer: &mut BytesMut,
    limits: &Limits,
    to_head: bool,
) -> Result<Option<(ResponseHead, Framing)>, BadAnswer> {
    let mut few = [httparse::EMPTY_HEADER; FEW];
    let mut many = Vec::new();
    let mut parsed = httparse::Response::new(&mut few);
    let mut outcome = parsed.parse(buffer);
    if outcome == Err(httparse::Error::TooManyHeaders) {
        many.resize(limits.answer_fields, httparse::EMPTY_HEADER);
        parsed = httparse::Response::new(&mut many);
        outcome = parsed.parse(buffer);
    }
    let length = match outcome {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if buffer.len() > limits.answer_head => {
            return Err(BadAnswer::TooLarge);
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(BadAnswer::TooLarge),
        Err(_) => return Err(BadAnswer::NotHttp),
    };
    let (Some(status), Some(version)) = (parsed.code, parsed.version) else {
        return Err(BadAnswer::NotHttp);
    };
    let reason = Bytes::copy_from_slice(parsed.reason.unwrap_or_default().as_bytes());
    let base = buffer.as_ptr() as usize;
    let range = |part: &[u8]| {
        let start = part.as_ptr() as usize - base;
        start..start + part.len()
    };
    let lines: Vec<_> = parsed
        .headers
        .iter()
        .map(|field| (range(field.name.as_bytes()), range(field.value)))
        .collect();
    let bytes = buffer.copy_to_bytes(length);
    let fields = Fields(
        lines
            .into_iter()
            .map(|(name, value)| Field {
                name: bytes.slice(name),
                value: bytes.slice(value),
            })
            .collect(),
    );
    let head = ResponseHead {
        version: if version == 0 {
            Version::Http10
        } else {
            Version::Http11
        },
        status,
        reason,
        fields,
    };
    let framing = response_framing(&head, to_head)?;
    Ok(Some((head, framing)))
}

fn response_framing(head: &ResponseHead, to_head: bool) -> Result<Framing, BadAnswer> {
    if to_head || head.status < 200 || head.status == 204 || head.status == 304 {
        return Ok(Framing::None);
    }
    let mut codings = head
        .fields
        .all("transfer-encoding")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .peekable();
    if codings.peek().is_some() {
        let last = codings.last().unwrap_or_default();
        return Ok(if last.eq_ignore_ascii_case(b"chunked") {
            Framing::Chunked
        } else {
            Framing::Close
        });
    }
    match content_length(&head.fields) {
        Ok(Some(length)) => Ok(Framing::Length(length)),
        Ok(None) => Ok(Framing::Close),
        Err(()) => Err(BadAnswer::Framing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Option<(RequestHead, Framing)>, Refusal> {
        request(&mut BytesMut::from(text), &Limits::default())
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for (fields, status) in [
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Content-Length: 1\r\nContent-Length: 2\r\n", 400),
            ("Content-Length: 1, 2\r\n", 400),
            ("Content-Length: +1\r\n", 400),
            ("Content-Length: 0x1\r\n", 400),
            ("Content-Length: \r\n", 400),
            ("Content-Length: 99999999999999999999\r\n", 400),
            ("Transfer-Encoding: gzip, chunked\r\n", 501),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                501,
            ),
            ("Transfer-Encoding: xchunked\r\n", 501),
            ("Transfer-Encoding : chunked\r\n", 400),
            ("X: a\r\n folded\r\n", 400),
            ("Host: y\r\n", 400),
        ] {
            let text = format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
            assert_eq!(read(&text).unwrap_err().status, status, "{fields:?}");
        }
        assert_eq!(read("GET / HTTP/1.1\r\n\r\n").unwrap_err().status, 400);
        assert_eq!(
            read("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n")
                .unwrap_err()
                .status,
            400
        );
        assert_eq!(
            read("CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n")
                .unwrap_err()
                .status,
            400
        );
        assert_eq!(
            read("GET x HTTP/1.1\r\nHost: x\r\n\r\n")
                .unwrap_err()
                .status,
            400
        );
        assert_eq!(
            read("GET / HTTP/3.0\r\nHost: x\r\n\r\n")
                .unwrap_err()
                .status,
            505
        );
    }

    #[test]
    fn an_absolute_target_outranks_host() {
        for (target, path, authority) in [
            ("http://a:1/p?q", "/p?q", "a:1"),
            ("HTTP://a", "/", "a"),
            ("https://a?q", "/?q", "a"),
            ("/p", "/p", "x"),
            ("*", "*", "x"),
        ] {
            let (head, _) = read(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
                .unwrap()
                .unwrap();
            assert_eq!(
                (head.target.as_ref(), head.authority.as_ref()),
                (path.as_bytes(), authority.as_bytes())
            );
        }
    }

    #[test]
    fn what_always_passes_passes_and_what_is_beyond_has_its_status() {
        let limits = Limits::default();
        let many = |count: usize| "X: y\r\n".repeat(count);
        let url = |length: usize| "a".repeat(length);
        let always = format!(
            "GET /{} HTTP/1.1\r\nHost: x\r\nCookie: {}\r\n{}\r\n",
            url(8191),
            url(16 * 1024),
            many(98)
        );
        assert!(read(&always).unwrap().is_some());
        let too_many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", many(limits.fields));
        assert_eq!(read(&too_many).unwrap_err().status, 431);
        let too_many = format!(
            "GET / HTTP/1.1\r\nHost: x\r\n{}\r\n",
            many(limits.fields + 50)
        );
        assert_eq!(read(&too_many).unwrap_err().status, 431);
        let too_long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", url(limits.url));
        assert_eq!(read(&too_long).unwrap_err().status, 414);
        assert_eq!(
            read(&format!("GET /{}", url(limits.url + 100)))
                .unwrap_err()
                .status,
            414
        );
        let too_large = format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {}", url(limits.head));
        assert_eq!(read(&too_large).unwrap_err().status, 431);
        assert_eq!(
            read(&format!("{too_large}\r\n\r\n")).unwrap_err().status,
            431
        );
    }

    #[test]
    fn an_answers_end_depends_on_request_and_status() {
        for (text, to_head, expected) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
                false,
                Framing::Length(3),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
                true,
                Framing::None,
            ),
            (
                "HTTP/1.1 304 x\r\nContent-Length: 3\r\n\r\n",
                false,
                Framing::None,
            ),
            ("HTTP/1.1 204 x\r\n\r\n", false, Framing::None),
            ("HTTP/1.1 103 x\r\n\r\n", false, Framing::None),
            (
                "HTTP/1.1 200\r\nTransfer-Encoding: gzip, chunked\r\nContent-Length: 3\r\n\r\n",
                false,
                Framing::Chunked,
            ),
            (
                "HTTP/1.1 200\r\nTransfer-Encoding: gzip\r\n\r\n",
                false,
                Framing::Close,
            ),
            ("HTTP/1.0 200 OK\r\n\r\n", false, Framing::Close),
        ] {
            let (_, framing) = response(&mut BytesMut::from(text), &Limits::default(), to_head)
                .unwrap()
                .unwrap();
            assert_eq!(framing, expected, "{text}");
        }
        for text in ["-ERR unknown command\r\n", "SSH-2.0-x\r\n", "\x15\x03\x01"] {
            assert_eq!(
                response(&mut BytesMut::from(text), &Limits::default(), false),
                Err(BadAnswer::NotHttp)
            );
        }
    }

    proptest! {
        #[test]
        fn a_head_cut_anywhere_is_the_same_head(at in 0usize..80) {
            let text = "POST /p?q=1 HTTP/1.1\r\nHost: example\r\nX-Case: Kept\r\nContent-Length: 5\r\n\r\nhello";
            let at = at.min(text.len());
            let mut buffer = BytesMut::from(&text.as_bytes()[..at]);
            let first = request(&mut buffer, &Limits::default()).unwrap();
            let (head, framing) = match first {
                Some(found) => found,
                None => {
                    buffer.extend_from_slice(&text.as_bytes()[at..]);
                    request(&mut buffer, &Limits::default()).unwrap().unwrap()
                }
            };
            prop_assert_eq!(framing, Framing::Length(5));
            prop_assert_eq!(head.fields.get("x-case"), Some(&b"Kept"[..]));
            prop_assert_eq!(head.fields.0[1].name.as_ref(), b"X-Case");
        }

        #[test]
        fn no_bytes_break_the_readers(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            request(&mut BytesMut::from(bytes.as_slice()), &Limits::default()).ok();
            response(&mut BytesMut::from(bytes.as_slice()), &Limits::default(), false).ok();
        }
    }
}
