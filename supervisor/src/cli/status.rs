//! `whim status`: the state and its reason, sessions, spend, ports, backup, for people or as JSON.

use std::fmt::Write;
use std::time::Duration;

use whim_wire::state::{AgentState, Phase, StateObject};

use super::Outcome;
use super::client::{Client, ClientError};
use super::text::{escape, table};
use crate::clock;

/// How long one long poll asks the supervisor to wait; the whole wait is made of as many as it takes.
const POLL: Duration = Duration::from_secs(25);
/// While the supervisor restarts its socket queues us; without a keeper nobody answers.
const RETRY: Duration = Duration::from_millis(200);

/// Exit codes of `--wait` (contract §1).
const TIMED_OUT: u8 = 3;
const NOT_RUNNING: u8 = 4;

/// Prints the state once, or waits for one of `states` first.
pub(super) async fn run(
    client: &Client,
    json: bool,
    states: &[AgentState],
    timeout: Option<Duration>,
) -> Result<Outcome, ClientError> {
    let object = if states.is_empty() {
        client.get("/v1/state").await
    } else {
        wait(client, states, timeout).await
    };
    let object: StateObject = match object {
        Ok(object) => object,
        Err(error @ ClientError::NotRunning { .. }) => {
            return Ok(Outcome::failure(NOT_RUNNING, error.to_string()));
        }
        Err(ClientError::Deadline(after)) => {
            let words: Vec<&str> = states.iter().map(|state| state.word()).collect();
            let message = format!(
                "{} not reached within {} s",
                words.join(" or "),
                after.as_secs_f64()
            );
            return Ok(Outcome::failure(TIMED_OUT, message));
        }
        Err(other) => return Err(other),
    };
    let text = if json {
        serde_json::to_string(&object)? + "\n"
    } else {
        describe(&object)
    };
    Ok(Outcome::text(text))
}

async fn wait(
    client: &Client,
    states: &[AgentState],
    timeout: Option<Duration>,
) -> Result<StateObject, ClientError> {
    let start = tokio::time::Instant::now();
    let words: Vec<&str> = states.iter().map(|state| state.word()).collect();
    loop {
        let left = timeout.map_or(POLL, |timeout| {
            timeout.saturating_sub(start.elapsed()).min(POLL)
        });
        let path = format!(
            "/v1/state?wait={}&timeout_s={}",
            words.join(","),
            left.as_secs_f64()
        );
        match client.get::<StateObject>(&path).await {
            Ok(object) if states.contains(&object.state) => return Ok(object),
            Ok(_) => {}
            Err(error @ (ClientError::NotRunning { .. } | ClientError::Refused { .. })) => {
                return Err(error);
            }
            // The supervisor restarted under the call; the next call waits in the listener's queue.
            Err(error) => {
                tracing::debug!(%error, "asking again");
                tokio::time::sleep(RETRY).await;
            }
        }
        if let Some(timeout) = timeout.filter(|timeout| start.elapsed() >= *timeout) {
            return Err(ClientError::Deadline(timeout));
        }
    }
}

fn describe(object: &StateObject) -> String {
    let mut text = String::new();
    let now = clock::now();
    let age = duration(clock::seconds_between(object.since, now));
    let stalled = if object.stalled { " (stalled)" } else { "" };
    let mut line = |name: &str, value: &str| {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{name:<9} {value}");
    };
    line(
        "state",
        &format!(
            "{}{stalled} for {age}: {}",
            object.state,
            escape(&object.reason)
        ),
    );
    line("phase", &phase(&object.phase));
    if let Some(error) = &object.provider_error {
        line("provider", &escape(error));
    }
    if let Some(dialog) = &object.dialog {
        line("asks", &escape(&dialog.text));
        for (index, option) in dialog.options.iter().enumerate() {
            line("", &format!("{index}: {}", escape(option)));
        }
    }
    for reason in &object.keep_awake {
        line("awake", &escape(reason));
    }
    if !object.ports.is_empty() {
        let ports: Vec<String> = object.ports.iter().map(u16::to_string).collect();
        line("ports", &ports.join(" "));
    }
    let backup = match (&object.backup.error, object.backup.last_ok) {
        (Some(error), _) => format!(
            "failing: {} ({} bytes owed)",
            escape(error),
            object.backup.pending_bytes
        ),
        (None, Some(at)) => format!(
            "last good {} ago",
            duration(clock::seconds_between(at, now))
        ),
        (None, None) => "none yet".into(),
    };
    line("backup", &backup);
    if let Some(backend) = &object.backend {
        let mut platform = match &backend.error {
            None => "reached".to_owned(),
            Some(error) => format!(
                "away for {}: {}",
                duration(clock::seconds_between(backend.since, now)),
                escape(error)
            ),
        };
        if backend.error.is_some() {
            let _ = write!(platform, " ({} events owed)", backend.owed_events);
        }
        if backend.lost_events > 0 {
            let _ = write!(platform, " ({} events lost)", backend.lost_events);
        }
        line("platform", &platform);
    }
    for weakness in &object.weaknesses {
        line("weak", &escape(weakness));
    }
    let supervisor = &object.supervisor;
    line(
        "whim",
        &format!(
            "{}, supervisor pid {}, {} restarts",
            supervisor.version, supervisor.pid, supervisor.restarts
        ),
    );
    if !object.sessions.is_empty() {
        let rows: Vec<Vec<String>> = object
            .sessions
            .iter()
            .map(|session| {
                let budget = session
                    .spend
                    .budget_usd
                    .map(|cap| format!(" of {cap}"))
                    .unwrap_or_default();
                vec![
                    session.id.clone(),
                    format!("{} {}", session.agent, session.mode),
                    session.state.word().into(),
                    session.pid.map(|pid| pid.to_string()).unwrap_or_default(),
                    session.queued_prompts.to_string(),
                    format!("{}{budget}", session.spend.usd),
                    session.reason.clone(),
                ]
            })
            .collect();
        text.push('\n');
        text.push_str(&table(
            &[
                "SESSION", "AGENT", "STATE", "PID", "QUEUED", "USD", "REASON",
            ],
            &rows,
        ));
    }
    text
}

fn phase(phase: &Phase) -> String {
    match phase {
        Phase::Booting { step } => format!("booting: {}", escape(step)),
        Phase::WaitingForSpec => "waiting for a spec".into(),
        Phase::Ready => "ready".into(),
        Phase::Stopping => "stopping".into(),
        Phase::Failed { step, error } => format!("failed at {}: {}", escape(step), escape(error)),
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}
