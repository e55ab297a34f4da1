//! `whim git-credential get`: git's credential helper (protocol of gitcredentials(7)): attributes on standard input,
//! user name and password on standard output. `erase` tells that a server refused a login, so that the platform is asked
//! for another; anything else is accepted and ignored: nothing is stored.

use std::collections::HashMap;
use std::io::Read;

use http::Method;
use serde_json::{Value, json};

use super::Outcome;
use super::client::{Client, ClientError};

/// Attributes of one question are a few lines.
const LIMIT: u64 = 64 * 1024;

/// Answers git, or stays silent when there is no credential for what it asks: git then goes on without.
pub(super) async fn run(client: &Client, operation: &str) -> Result<Outcome, ClientError> {
    if !matches!(operation, "get" | "erase") {
        return Ok(Outcome::text(String::new()));
    }
    let mut input = String::new();
    let read = std::io::stdin()
        .lock()
        .take(LIMIT)
        .read_to_string(&mut input);
    if let Err(error) = read {
        return Ok(Outcome::failure(
            1,
            format!("cannot read git's question: {error}"),
        ));
    }
    let attributes: HashMap<&str, &str> = input
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let attribute = |name: &str| attributes.get(name).copied().unwrap_or_default();
    let question = json!({"protocol": attribute("protocol"), "host": attribute("host"), "path": attribute("path")});
    if operation == "erase" {
        let refused = json!({
            "protocol": attribute("protocol"), "host": attribute("host"), "path": attribute("path"),
            "username": attribute("username"), "password": attribute("password"),
        });
        return match client
            .call::<Value>(Method::POST, "/v1/git-credential/refused", Some(&refused))
            .await
        {
            Ok(_) | Err(ClientError::Refused { .. }) => Ok(Outcome::text(String::new())),
            Err(error) => Err(error),
        };
    }
    match client
        .call::<Value>(Method::POST, "/v1/git-credential", Some(&question))
        .await
    {
        Ok(answer) => {
            let field = |name: &str| {
                answer
                    .get(name)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            Ok(Outcome::text(format!(
                "username={}\npassword={}\n",
                field("username"),
                field("password")
            )))
        }
        Err(ClientError::Refused { .. }) => Ok(Outcome::text(String::new())),
        Err(error) => Err(error),
    }
}
