//! `whim hook AGENT EVENT`: what the agents' CLIs run at each step of a turn. Says nothing and never fails, because its
//! output and its exit would become part of the conversation.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::agents::hook::client as hook_client;
use crate::agents::hook::{SESSION_VARIABLE, SOCKET_VARIABLE};

/// The whole command; without its two variables, in a shell of a person's, it does nothing.
#[must_use]
pub fn main() -> ExitCode {
    let mut words = std::env::args().skip(2);
    let variable = |name: &str| std::env::var_os(name);
    if let (Some(agent), Some(event)) = (words.next(), words.next())
        && let (Some(session), Some(socket)) =
            (variable(SESSION_VARIABLE), variable(SOCKET_VARIABLE))
    {
        let session = session.to_string_lossy();
        // What cannot be sent is closed by the other sources.
        drop(hook_client::run(
            &agent,
            &event,
            &session,
            std::io::stdin(),
            &PathBuf::from(socket),
        ));
    }
    ExitCode::SUCCESS
}
