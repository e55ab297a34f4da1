//! `whim ports`, `whim spend`, `whim events`, `whim logs`: views for people, or JSON for programs.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::Outcome;
use super::client::{Client, ClientError};
use super::text::{escape, table};

/// How often a followed log is looked at: it is a plain file that another process appends to.
const FOLLOW: Duration = Duration::from_millis(250);

/// What listens.
pub(super) async fn ports(client: &Client, json: bool) -> Result<Outcome, ClientError> {
    let ports: Vec<Value> = client.get("/v1/ports").await?;
    if json {
        return Ok(Outcome::text(serde_json::to_string(&ports)? + "\n"));
    }
    let rows: Vec<Vec<String>> = ports
        .iter()
        .map(|port| {
            let text = |pointer: &str| match port.pointer(pointer) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            };
            vec![
                text("/port"),
                text("/address"),
                text("/process/name"),
                text("/process/pid"),
                text("/preview"),
            ]
        })
        .collect();
    Ok(Outcome::text(table(
        &["PORT", "ADDRESS", "PROCESS", "PID", "PREVIEW"],
        &rows,
    )))
}

/// Cost by session and by model.
pub(super) async fn spend(client: &Client, json: bool) -> Result<Outcome, ClientError> {
    let spend: Value = client.get("/v1/spend").await?;
    if json {
        return Ok(Outcome::text(serde_json::to_string(&spend)? + "\n"));
    }
    let text = |value: &Value, name: &str| match value.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    let budget = text(&spend, "budget_usd");
    let cap = if budget.is_empty() {
        "no cap".to_owned()
    } else {
        format!("of {budget}")
    };
    let mut output = format!(
        "total {} USD, {cap}, {} requests\n",
        text(&spend, "usd"),
        text(&spend, "requests")
    );
    for (list, name) in [
        ("by_session", "session"),
        ("by_model", "model"),
        ("by_day", "day"),
    ] {
        let Some(entries) = spend
            .get(list)
            .and_then(Value::as_array)
            .filter(|entries| !entries.is_empty())
        else {
            continue;
        };
        let rows: Vec<Vec<String>> = entries
            .iter()
            .map(|entry| {
                let columns = [
                    "usd",
                    "requests",
                    "input_tokens",
                    "cache_read_tokens",
                    "output_tokens",
                ];
                std::iter::once(text(entry, name))
                    .chain(columns.iter().map(|column| text(entry, column)))
                    .collect()
            })
            .collect();
        let head = name.to_uppercase();
        output.push('\n');
        output.push_str(&table(
            &[
                head.as_str(),
                "USD",
                "REQUESTS",
                "INPUT",
                "CACHED",
                "OUTPUT",
            ],
            &rows,
        ));
    }
    Ok(Outcome::text(output))
}

/// The journal, as it is or followed.
pub(super) async fn events(
    client: &Client,
    after: Option<u64>,
    follow: bool,
    json: bool,
) -> Result<Outcome, ClientError> {
    let query = after
        .map(|after| format!("&after={after}"))
        .unwrap_or_default();
    let path = format!("/v1/events?follow={follow}&limit=10000{query}");
    client
        .lines(&path, "application/x-ndjson", |lines| {
            let mut output = std::io::stdout().lock();
            // Empty ones are sent to keep the connection alive.
            for line in lines
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
            {
                if json {
                    output.write_all(line)?;
                    output.write_all(b"\n")?;
                } else {
                    writeln!(output, "{}", describe(line))?;
                }
            }
            output.flush()
        })
        .await?;
    Ok(Outcome::text(String::new()))
}

fn describe(line: &[u8]) -> String {
    let Ok(Value::Object(mut event)) = serde_json::from_slice::<Value>(line) else {
        return escape(String::from_utf8_lossy(line).trim_end());
    };
    let mut take = |name: &str| match event.remove(name) {
        Some(Value::String(text)) => text,
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    let (seq, at, kind) = (take("seq"), take("at"), take("type"));
    let fields: Vec<String> = event
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| match value {
            Value::String(text) => format!("{name}={text}"),
            other => format!("{name}={other}"),
        })
        .collect();
    escape(&format!("{seq:>6}  {at}  {kind:<20}  {}", fields.join(" ")))
}

/// A log, whole or followed; without a name, which there are.
pub(super) async fn logs(
    directory: &Path,
    name: Option<&str>,
    follow: bool,
) -> std::io::Result<Outcome> {
    let Some(name) = name else {
        let mut names: Vec<String> = std::fs::read_dir(directory)?
            .filter_map(|entry| {
                entry
                    .ok()?
                    .file_name()
                    .into_string()
                    .ok()?
                    .strip_suffix(".log")
                    .map(str::to_owned)
            })
            .collect();
        names.sort();
        return Ok(Outcome::text(
            names.into_iter().map(|name| name + "\n").collect(),
        ));
    };
    if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') {
        return Ok(Outcome::failure(
            2,
            format!("{name:?} is no name of a log; `whim logs` lists them"),
        ));
    }
    let path = directory.join(format!("{name}.log"));
    let mut file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Outcome::failure(
                2,
                format!("there is no log {name:?}; `whim logs` lists them"),
            ));
        }
        Err(error) => return Err(error),
    };
    loop {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut output = std::io::stdout().lock();
        if output
            .write_all(&bytes)
            .and_then(|()| output.flush())
            .is_err()
            || !follow
        {
            return Ok(Outcome::text(String::new()));
        }
        drop(output);
        tokio::time::sleep(FOLLOW).await;
        // A rotated log begins again under the same name.
        if std::fs::metadata(&path).is_ok_and(|now| {
            file.stream_position()
                .is_ok_and(|position| now.len() < position)
        }) {
            file = std::fs::File::open(&path)?;
            file.seek(SeekFrom::Start(0))?;
        }
    }
}
