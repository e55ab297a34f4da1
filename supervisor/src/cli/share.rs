//! `whim ports share`, `unshare` and `set`: who may see a port's preview, and how it is shown.

use http::{Method, header};
use serde_json::{Value, json};

use super::Outcome;
use super::client::{Client, ClientError, read, refused};

/// Makes a link. Its address goes to standard output alone on the first line, for scripts.
pub(super) async fn share(client: &Client, port: u16, life: &str) -> Result<Outcome, ClientError> {
    let seconds = match life.parse::<jiff::SignedDuration>() {
        Ok(life) if life.as_secs() > 0 => life.as_secs(),
        Ok(_) => {
            return Ok(Outcome::failure(
                64,
                format!("--for {life}: must be at least a second"),
            ));
        }
        Err(error) => {
            return Ok(Outcome::failure(
                64,
                format!("--for {life}: {error}; write 30m, 2h or 7d"),
            ));
        }
    };
    let response = client
        .send(
            Method::POST,
            &format!("/v1/ports/{port}/links"),
            Some(&json!({"expires_s": seconds})),
        )
        .await?;
    let status = response.status();
    let id = response
        .headers()
        .get(header::LOCATION)
        .and_then(|location| {
            location
                .to_str()
                .ok()?
                .rsplit('/')
                .next()
                .map(str::to_owned)
        });
    let body = read(response).await?;
    if !status.is_success() {
        return Err(refused(status, &body));
    }
    let link: Value = serde_json::from_slice(&body)?;
    let text = |name: &str| link.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut output = format!("{}\n", text("url"));
    if !text("local_url").is_empty() {
        output.push_str(&format!("on this machine: {}\n", text("local_url")));
    }
    output.push_str(&format!("until {}", text("expires_at")));
    if let Some(id) = id {
        output.push_str(&format!("; take it back: whim ports unshare {port} {id}"));
    }
    output.push('\n');
    Ok(Outcome::text(output))
}

/// Takes a link back; it opens nothing from now on.
pub(super) async fn unshare(client: &Client, port: u16, id: &str) -> Result<Outcome, ClientError> {
    if id.is_empty()
        || !id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    {
        return Ok(Outcome::failure(64, format!("{id:?} is no id of a link")));
    }
    let path = format!("/v1/ports/{port}/links/{id}");
    client.call::<Value>(Method::DELETE, &path, None).await?;
    Ok(Outcome::text(String::new()))
}

/// Decides about a port, and says how it stands then.
pub(super) async fn decide(
    client: &Client,
    port: u16,
    change: &Value,
) -> Result<Outcome, ClientError> {
    let path = format!("/v1/ports/{port}");
    let decided: Value = client.call(Method::PATCH, &path, Some(change)).await?;
    let is = |name: &str| decided.get(name).and_then(Value::as_bool) == Some(true);
    let who = if is("public") { "public" } else { "private" };
    let host = decided.get("host").and_then(Value::as_str);
    let host = host.unwrap_or_default();
    let default = if is("default") { ", the default" } else { "" };
    Ok(Outcome::text(format!(
        "port {port}: {who}, host {host}{default}\n"
    )))
}
