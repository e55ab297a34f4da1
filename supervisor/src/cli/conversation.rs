//! `whim conversation`: what was said, written as it is read, however long it is.

use std::io::Write;

use clap::ValueEnum;
use http_body_util::BodyExt;

use super::Outcome;
use super::client::{Client, ClientError, refused};
use super::text::escape;

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Markdown,
    /// A turn a line, for programs.
    Jsonl,
}

pub(super) async fn run(
    client: &Client,
    session: &str,
    format: Format,
    all: bool,
) -> Result<Outcome, ClientError> {
    let (word, accept) = match format {
        Format::Markdown => ("markdown", "text/markdown"),
        Format::Jsonl => ("jsonl", "application/x-ndjson"),
    };
    let session: String = url::form_urlencoded::byte_serialize(session.as_bytes()).collect();
    let path = format!("/v1/sessions/{session}/conversation?format={word}&all={all}");
    let response = client.stream(&path, accept).await?;
    let status = response.status();
    let mut body = response.into_body();
    let mut pending = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        pending.extend_from_slice(&data);
        if !status.is_success() {
            continue;
        }
        let whole = memchr::memrchr(b'\n', &pending).map_or(0, |at| at + 1);
        let lines: Vec<u8> = pending.drain(..whole).collect();
        // A reader that left (`| head`) ends the command, which is no failure.
        if write(&lines, format).is_err() {
            return Ok(Outcome::text(String::new()));
        }
    }
    if !status.is_success() {
        return Err(refused(status, &pending));
    }
    drop(write(&pending, format));
    Ok(Outcome::text(String::new()))
}

/// What people read must not steer their terminal; JSON has its own escapes for most of it and is not for terminals.
fn write(lines: &[u8], format: Format) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    match format {
        Format::Jsonl => output.write_all(lines)?,
        Format::Markdown => {
            let text = String::from_utf8_lossy(lines);
            for line in text.split_inclusive('\n') {
                let (line, end) = match line.strip_suffix('\n') {
                    Some(line) => (line, "\n"),
                    None => (line, ""),
                };
                let clean: Vec<String> = line.split('\t').map(escape).collect();
                write!(output, "{}{end}", clean.join("\t"))?;
            }
        }
    }
    output.flush()
}
