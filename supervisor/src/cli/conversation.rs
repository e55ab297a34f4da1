//! `whim conversation`: what was said, written as it is read, however long it is.

use std::io::Write;

use clap::ValueEnum;

use super::Outcome;
use super::client::{Client, ClientError};
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
    client
        .lines(&path, accept, |lines| write(lines, format))
        .await?;
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
