//! The messages of both subprotocols. Pure.
//!
//! `tty` is ttyd's (its `src/protocol.c` and page): the first byte of a message is the command, the rest its payload.
//! `tty.v2` keeps that form and the client's commands, and says more:
//!
//! | to the client | payload |
//! |---|---|
//! | `0` output | offset of the first byte (u64, big-endian), bytes |
//! | `1` title | UTF-8 |
//! | `2` size | `{"columns","rows","own"}`: `own` tells whether it is this viewer's |
//! | `3` snapshot | offset behind it (u64), skipped bytes (u64), 0 plain or 1 raw deflate (u8), bytes for a reset terminal |
//! | `4` exit | `{"exit":{"code":N}}` or `{"exit":{"signal":N}}`; Close 1000 follows |
//! | `5` hello | `{"terminal","kind","read_only","offset","live_from","version"}`: queries before `live_from` are a replay |
//!
//! | to the server | payload |
//! |---|---|
//! | `{` hello | as in `tty`, also `resume` (offset), `lines` (of scrollback), `deflate` (bool) |
//! | `0` input · `1` resize · `2` pause · `3` resume | as in `tty` |
//! | `4` take over | none: makes this viewer's size the terminal's |

use std::io::Write as _;

use serde_json::{Value, json};

use crate::terminals::size::Size;
use crate::terminals::{Exit, Kind, TerminalId};

/// The first message of a client.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Hello {
    /// `None` when it is missing; a value that is not a string makes the whole message bad.
    pub(super) token: Option<String>,
    pub(super) columns: Option<f64>,
    pub(super) rows: Option<f64>,
    pub(super) resume: Option<u64>,
    pub(super) lines: Option<usize>,
    pub(super) deflate: bool,
}

/// The first message is not a valid hello.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadHello;

pub(super) fn hello(message: &[u8]) -> Result<Hello, BadHello> {
    let value: Value = serde_json::from_slice(message).map_err(|_| BadHello)?;
    let object = value.as_object().ok_or(BadHello)?;
    let token = match object.get("AuthToken") {
        None => None,
        Some(Value::String(token)) => Some(token.clone()),
        Some(_) => return Err(BadHello),
    };
    Ok(Hello {
        token,
        columns: object.get("columns").and_then(Value::as_f64),
        rows: object.get("rows").and_then(Value::as_f64),
        resume: object.get("resume").and_then(Value::as_u64),
        lines: object
            .get("lines")
            .and_then(Value::as_u64)
            .map(|lines| usize::try_from(lines).unwrap_or(usize::MAX)),
        deflate: object
            .get("deflate")
            .and_then(Value::as_bool)
            .unwrap_or(false),
    })
}

/// What a client asks after its hello.
#[derive(Debug, PartialEq)]
pub(super) enum Request<'a> {
    Input(&'a [u8]),
    Resize {
        columns: Option<f64>,
        rows: Option<f64>,
    },
    Pause,
    Resume,
    TakeOver,
    /// Not a command: ignored, as ttyd does.
    Unknown,
}

pub(super) fn request(message: &[u8]) -> Request<'_> {
    match message.split_first() {
        Some((b'0', input)) => Request::Input(input),
        Some((b'1', size)) => match serde_json::from_slice::<Value>(size) {
            Ok(size) => Request::Resize {
                columns: size.get("columns").and_then(Value::as_f64),
                rows: size.get("rows").and_then(Value::as_f64),
            },
            Err(_) => Request::Unknown,
        },
        Some((b'2', _)) => Request::Pause,
        Some((b'3', _)) => Request::Resume,
        Some((b'4', _)) => Request::TakeOver,
        _ => Request::Unknown,
    }
}

/// `command`, then `payload`.
pub(super) fn message(command: u8, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(1 + payload.len());
    message.push(command);
    message.extend_from_slice(payload);
    message
}

pub(super) fn output_v2(offset: u64, bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(9 + bytes.len());
    message.push(b'0');
    message.extend_from_slice(&offset.to_be_bytes());
    message.extend_from_slice(bytes);
    message
}

pub(super) fn size_v2(size: Size, own: bool) -> Vec<u8> {
    let body = json!({"columns": size.columns, "rows": size.rows, "own": own});
    message(b'2', body.to_string().as_bytes())
}

pub(super) fn exit_v2(exit: Exit) -> Vec<u8> {
    message(b'4', json!({"exit": exit}).to_string().as_bytes())
}

pub(super) fn hello_v2(
    terminal: &TerminalId,
    kind: Kind,
    read_only: bool,
    offset: u64,
    live_from: u64,
) -> Vec<u8> {
    let body = json!({
        "terminal": terminal, "kind": kind, "read_only": read_only, "offset": offset, "live_from": live_from,
        "version": env!("CARGO_PKG_VERSION"),
    });
    message(b'5', body.to_string().as_bytes())
}

/// Below this many bytes compression saves nothing that matters.
const WORTH_DEFLATING: usize = 1024;

pub(super) fn snapshot_v2(offset: u64, skipped: u64, bytes: &[u8], deflate: bool) -> Vec<u8> {
    let mut message = Vec::with_capacity(18 + bytes.len());
    message.push(b'3');
    message.extend_from_slice(&offset.to_be_bytes());
    message.extend_from_slice(&skipped.to_be_bytes());
    if deflate && bytes.len() >= WORTH_DEFLATING {
        message.push(1);
        let mut encoder = flate2::write::DeflateEncoder::new(message, flate2::Compression::fast());
        // Writing into a Vec cannot fail.
        if encoder.write_all(bytes).is_ok()
            && let Ok(message) = encoder.finish()
        {
            return message;
        }
        return snapshot_v2(offset, skipped, bytes, false);
    }
    message.push(0);
    message.extend_from_slice(bytes);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hellos() {
        let good = hello(br#"{"AuthToken":"x","columns":80,"rows":24}"#).unwrap();
        assert_eq!(
            (good.token.as_deref(), good.columns, good.rows),
            (Some("x"), Some(80.0), Some(24.0))
        );
        assert_eq!(hello(b"{}").unwrap().token, None);
        assert_eq!(
            hello(br#"{"AuthToken":"a","AuthToken":"b","columns":"x"}"#)
                .unwrap()
                .token,
            Some("b".into())
        );
        for bad in [
            &br#"{"AuthToken":[]}"#[..],
            br#"{"AuthToken":null}"#,
            b"{",
            b"0ls",
            b"[]",
            b"",
        ] {
            assert_eq!(hello(bad), Err(BadHello), "{bad:?}");
        }
        let deep = [
            b"{\"a\":".repeat(100_000),
            b"1".to_vec(),
            b"}".repeat(100_000),
        ]
        .concat();
        assert_eq!(hello(&deep), Err(BadHello));
        assert_eq!(
            hello(br#"{"AuthToken":"x","columns":1e308}"#)
                .unwrap()
                .columns,
            Some(1e308)
        );
    }

    #[test]
    fn requests() {
        assert_eq!(request(b"0ls\r"), Request::Input(b"ls\r"));
        assert_eq!(
            request(b"1{\"columns\":9}"),
            Request::Resize {
                columns: Some(9.0),
                rows: None
            }
        );
        assert_eq!(request(b"1nonsense"), Request::Unknown);
        assert_eq!(request(b"2"), Request::Pause);
        assert_eq!(request(b"{}"), Request::Unknown);
        assert_eq!(request(b""), Request::Unknown);
    }

    #[test]
    fn snapshots_deflate() {
        use std::io::Read as _;
        let bytes = b"the same line again\r\n".repeat(1000);
        let message = snapshot_v2(7, 3, &bytes, true);
        assert!(message.len() < bytes.len() / 10);
        assert_eq!(
            (&message[1..9], &message[9..17], message[17]),
            (&7u64.to_be_bytes()[..], &3u64.to_be_bytes()[..], 1)
        );
        let mut plain = Vec::new();
        flate2::read::DeflateDecoder::new(&message[18..])
            .read_to_end(&mut plain)
            .unwrap();
        assert_eq!(plain, bytes);
    }
}
