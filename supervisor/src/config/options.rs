//! The command line of `whim run`.
//!
//! Flags stay text here: they are checked together with variables and spec, so that all mistakes come out in one run.
//! For the same reason a mistake in the line itself (an unknown flag, a missing value) does not end the reading.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, FromArgMatches as _, Parser};

use super::mistake::{Mistake, Place};
use super::variables;

/// Host an agent: prepare the container, run the agent, stand between it and everything outside.
#[derive(Clone, Default, Parser)]
#[command(name = "whim run", bin_name = "whim run", after_help = variables::help(), disable_version_flag = true)]
pub struct RunOptions {
    /// Prefix of every path of the layout; lets an ordinary user run everything under one directory [env: WHIM_ROOT] [default: /]
    #[arg(long, value_name = "DIR")]
    pub root: Option<String>,
    /// The task: a file, `-` for standard input, or the JSON itself [env: WHIM_SPEC]
    #[arg(long, value_name = "FILE|-|JSON")]
    pub spec: Option<String>,
    /// Warm container: start all services, take the task once from PUT /v1/spec [env: WHIM_WAIT_FOR_SPEC=1]
    #[arg(long)]
    pub wait_for_spec: bool,
    /// Id of the task: in the store, in the platform's API, in the branch [env: WHIM_TASK_ID]
    #[arg(long, value_name = "ID")]
    pub task_id: Option<String>,
    /// URL or local path to clone; none: work in the directory that is there [env: WHIM_REPO_URL]
    #[arg(long, value_name = "URL")]
    pub repo: Option<String>,
    /// Where the work starts [env: WHIM_SOURCE_BRANCH] [default: the remote's default branch]
    #[arg(long, value_name = "BRANCH")]
    pub source_branch: Option<String>,
    /// New branch [env: WHIM_BRANCH] [default: whim-<task id>]
    #[arg(long, value_name = "BRANCH")]
    pub branch: Option<String>,
    /// claude, codex, ccr, copilot or custom [env: WHIM_AGENT] [default: claude]
    #[arg(long, value_name = "KIND")]
    pub agent: Option<String>,
    /// argv of a custom agent, as a JSON array [env: WHIM_AGENT_COMMAND]
    #[arg(long, value_name = "JSON")]
    pub agent_command: Option<String>,
    /// interactive (terminal), oneshot (one prompt, then the container ends with the agent's result) or sticky (one
    /// prompt, the container stays) [env: WHIM_MODE] [default: interactive]
    #[arg(long, value_name = "MODE")]
    pub mode: Option<String>,
    /// Model, in the agent's own words [env: WHIM_MODEL] [default: the agent's own]
    #[arg(long)]
    pub model: Option<String>,
    /// default, accept-edits, plan or bypass [env: WHIM_PERMISSION_MODE] [default: the agent's own]
    #[arg(long, value_name = "MODE")]
    pub permission_mode: Option<String>,
    /// Reasoning effort, in the agent's own words [env: WHIM_EFFORT] [default: the agent's own]
    #[arg(long)]
    pub effort: Option<String>,
    /// anthropic, openai, openrouter or compatible [env: WHIM_PROVIDER] [default: by agent]
    #[arg(long, value_name = "KIND")]
    pub provider: Option<String>,
    /// Base URL of the provider, without /v1 [env: WHIM_UPSTREAM_URL] [default: by provider]
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,
    /// Hard cap of the task in US dollars [env: WHIM_BUDGET_USD] [default: none]
    #[arg(long, value_name = "USD")]
    pub budget_usd: Option<String>,
    /// Tokens of the task after which model calls are refused [env: WHIM_CAP_TOKENS] [default: none]
    #[arg(long, value_name = "TOKENS")]
    pub cap_tokens: Option<String>,
    /// Model calls within a minute, further ones are answered with 429 [env: WHIM_CAP_RPM] [default: none]
    #[arg(long, value_name = "CALLS")]
    pub cap_requests_per_minute: Option<String>,
    /// Minutes after the first model call from which on they are refused [env: WHIM_CAP_MINUTES] [default: none]
    #[arg(long, value_name = "MINUTES")]
    pub cap_minutes: Option<String>,
    /// Under a cap, a model without a price: refuse it, or count it at the dearest known rate [env: WHIM_UNKNOWN_MODEL]
    /// [default: refuse]
    #[arg(long, value_name = "refuse|dearest")]
    pub unknown_model: Option<String>,
    /// Price overrides in LiteLLM's schema [env: WHIM_PRICES] [default: /whim/prices.json]
    #[arg(long, value_name = "FILE")]
    pub prices: Option<String>,
    /// Seconds without work until the container counts as idle; 0: never [env: WHIM_IDLE_AFTER_S] [default: 900]
    #[arg(long, value_name = "SECONDS")]
    pub idle_after: Option<String>,
    /// report, exit or exec:/path [env: WHIM_IDLE_ACTION] [default: report]
    #[arg(long, value_name = "ACTION")]
    pub idle_action: Option<String>,
    /// Store of the history: file://, s3://, gs://, az:// or the backend's https:// [env: WHIM_BACKUP_URL]
    /// [default: file:// under the state directory]
    #[arg(long, value_name = "URL")]
    pub backup: Option<String>,
    /// The platform's API; needs WHIM_INTERNAL_API_TOKEN [env: WHIM_BACKEND_URL] [default: none]
    #[arg(long, value_name = "URL")]
    pub backend: Option<String>,
    /// Seconds an ordered end may take in all; less than the platform waits before it kills [env: WHIM_GRACE_S]
    /// [default: 8]
    #[arg(long, value_name = "SECONDS")]
    pub grace: Option<String>,
    /// Generation proxy, loopback only; 0: any free port [env: WHIM_GENERATION_PORT] [default: 3001]
    #[arg(long, value_name = "PORT")]
    pub generation_port: Option<String>,
    /// Proxy to dev servers [env: WHIM_LOCAL_PORT] [default: 8080]
    #[arg(long, value_name = "PORT")]
    pub local_port: Option<String>,
    /// Backup agent and heartbeat [env: WHIM_BACKUP_PORT] [default: 8081]
    #[arg(long, value_name = "PORT")]
    pub backup_port: Option<String>,
    /// Page, terminals and API [env: WHIM_UI_PORT] [default: 7681]
    #[arg(long, value_name = "PORT")]
    pub ui_port: Option<String>,
    /// Address of all ports but the generation proxy's [env: WHIM_BIND] [default: [::], dual stack; 0.0.0.0 where IPv6 is off]
    #[arg(long, value_name = "ADDRESS")]
    pub bind: Option<String>,
    /// Address of previews, as https://{port}-ww-12.preview.example/ [env: WHIM_PREVIEW_URL] [default: the local path form]
    #[arg(long, value_name = "TEMPLATE")]
    pub preview_url: Option<String>,
    /// Limits of previews that differ from the default, as connections=500,idle=30s [env: WHIM_PREVIEW_LIMITS]
    #[arg(long, value_name = "NAME=VALUE,…")]
    pub preview_limits: Option<String>,
    /// Log filter: error, warn, info, debug, or by module [env: WHIM_LOG] [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// First prompt [env: WHIM_PROMPT]
    #[arg(value_name = "PROMPT")]
    pub prompt: Option<String>,
}

impl std::fmt::Debug for RunOptions {
    /// Nothing of the values: URLs may hold credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunOptions").finish_non_exhaustive()
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub enum CommandLine {
    /// `--help`: the text to print.
    Help(String),
    /// The options, and what was wrong with the line.
    Run(Box<RunOptions>, Vec<Mistake>),
}

/// Reads the arguments after `whim run`.
pub fn parse(arguments: &[OsString]) -> CommandLine {
    let mut line: Vec<OsString> = arguments.to_vec();
    let mut mistakes = Vec::new();
    // Each round removes at least one argument.
    loop {
        let with_name = std::iter::once(OsString::from("whim run")).chain(line.iter().cloned());
        let error = match RunOptions::command().try_get_matches_from(with_name) {
            Ok(matches) => {
                // All members are optional, so that what was matched can be taken over.
                let options = RunOptions::from_arg_matches(&matches).unwrap_or_default();
                return CommandLine::Run(Box::new(options), mistakes);
            }
            Err(error) => error,
        };
        if error.kind() == ErrorKind::DisplayHelp {
            return CommandLine::Help(error.render().to_string());
        }
        let argument = context(&error, ContextKind::InvalidArg);
        // Of `--branch <BRANCH>` or `--branch=x` the name.
        let name = argument
            .split([' ', '='])
            .next()
            .unwrap_or_default()
            .to_owned();
        mistakes.push(mistake(&error, &argument, &name));
        if !remove(&mut line, &name, error.kind()) {
            return CommandLine::Run(Box::default(), mistakes);
        }
    }
}

fn context(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    }
}

fn mistake(error: &clap::Error, argument: &str, name: &str) -> Mistake {
    let is_flag = name.starts_with('-');
    let (place, problem, remedy) = match error.kind() {
        ErrorKind::UnknownArgument if is_flag => {
            let likely = context(error, ContextKind::SuggestedArg);
            let remedy = match likely.as_str() {
                "" => "see `whim run --help`".to_owned(),
                _ => format!("did you mean {likely}?"),
            };
            (name, "is no option of whim run", remedy)
        }
        ErrorKind::UnknownArgument => {
            let remedy =
                "put the prompt in quotes; what it begins with `-` goes behind `--`".to_owned();
            return Mistake::new(
                Place::Flag("[PROMPT]".to_owned()),
                "is followed by another argument",
                remedy,
            )
            .given(argument);
        }
        ErrorKind::ArgumentConflict => (name, "is given twice", "give it once".to_owned()),
        ErrorKind::InvalidValue | ErrorKind::WrongNumberOfValues | ErrorKind::TooFewValues => {
            (name, "has no value", "add one".to_owned())
        }
        ErrorKind::TooManyValues => (name, "takes no value", "leave it out".to_owned()),
        ErrorKind::InvalidUtf8 => ("arguments", "are not UTF-8", "pass text".to_owned()),
        _ => (
            if name.is_empty() { "arguments" } else { name },
            "cannot be read",
            "see `whim run --help`".to_owned(),
        ),
    };
    Mistake::new(Place::Flag(place.to_owned()), problem, remedy)
}

/// Takes the offending argument out of the line. `false`: it was not found.
fn remove(line: &mut Vec<OsString>, name: &str, kind: ErrorKind) -> bool {
    if kind == ErrorKind::InvalidUtf8 {
        let before = line.len();
        line.retain(|argument| argument.to_str().is_some());
        return line.len() < before;
    }
    let is_it = |argument: &OsString| {
        let Some(text) = argument.to_str() else {
            return false;
        };
        text == name
            || text
                .strip_prefix(name)
                .is_some_and(|rest| name.starts_with("--") && rest.starts_with('='))
    };
    let Some(position) = line.iter().rposition(is_it).filter(|_| !name.is_empty()) else {
        return false;
    };
    let removed = line.remove(position);
    // The value of an unknown or repeated option goes with it, or it would be taken for the prompt.
    let had_value = matches!(
        kind,
        ErrorKind::UnknownArgument | ErrorKind::ArgumentConflict
    ) && name.starts_with('-');
    let next_is_value = line
        .get(position)
        .and_then(|next| next.to_str())
        .is_some_and(|next| !next.starts_with('-'));
    if had_value && next_is_value && removed == *name {
        line.remove(position);
    }
    true
}

#[cfg(test)]
mod tests;
