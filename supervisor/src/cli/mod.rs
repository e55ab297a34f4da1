//! The command line: what people and scripts type.

mod attach;
mod backup;
mod cast;
pub mod client;
mod conversation;
mod git_credential;
pub mod hook;
mod listing;
mod prompt;
pub mod restore;
mod search;
mod share;
mod status;
pub mod text;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use whim_wire::state::AgentState;

use crate::paths::Paths;
use client::Client;

const EXAMPLES: &str = "\
Examples:
  whim run --repo https://github.com/acme/shop --agent claude \"Fix the failing test\"
  whim status --wait idle,stopped --timeout 600
  whim prompt --wait \"Now write the changelog\"
  whim attach
  whim events -f --json
  whim conversation --format markdown > conversation.md
  whim search '\"connection refused\"' --since 3d
  whim restore --task ww-12 s3://history/acme

Exit codes of `whim run`: 0 ended well, 64 wrong option, 65 wrong spec, 69 repository or provider unreachable, 70 internal
error, 71 init.sh failed, 73 port or directory cannot be had, 75 budget spent (oneshot), 78 agent or git not usable,
128+N ended by signal N; in oneshot mode the agent's own.";

const SEARCH: &str = "\
Examples:
  whim search retry timeout
  whim search '\"connection refused\"' --kind conversation --since 3d
  whim search 'migrat*' --agent codex --json
  whim search cargo test --kind shell --session shell-1
  whim search --rebuild

All words must be there; case and accents make no difference, and no word is an operator.";

/// The agent host: runs an AI coding agent on a repository, as PID 1 of its container.
#[derive(Debug, Parser)]
#[command(name = "whim", version, about, after_help = EXAMPLES, disable_help_subcommand = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Where the supervisor is found.
#[derive(Debug, Args)]
struct Place {
    /// Prefix of every path, as given to `whim run`.
    #[arg(
        long,
        env = "WHIM_ROOT",
        default_value = "/",
        global = true,
        value_name = "DIR"
    )]
    root: PathBuf,
    /// The control token, where the uid alone does not make an owner.
    #[arg(
        long,
        env = "WHIM_CONTROL_TOKEN",
        hide_env_values = true,
        global = true,
        value_name = "TOKEN"
    )]
    token: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The container's main process: prepares it, runs the agent, and ends it in order.
    Run(Box<crate::config::options::RunOptions>),
    Restore(Box<restore::RestoreOptions>),
    /// Run one command as a minimal init: forwards signals, reaps orphans, passes the exit code on (drop-in for tini).
    #[command(disable_help_flag = true)]
    Init {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// State, sessions, spend, ports and backup; with --wait blocks until a state is reached.
    Status {
        #[command(flatten)]
        place: Place,
        /// Print the state object.
        #[arg(long)]
        json: bool,
        /// Wait for one of these states: exit 0 when reached, 3 when timed out, 4 when no whim runs.
        #[arg(long, value_delimiter = ',', value_name = "STATE,…")]
        wait: Vec<AgentState>,
        /// Give up waiting after this many seconds.
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<f64>,
    },
    /// Join a terminal; leave with Ctrl-\ d.
    Attach {
        #[command(flatten)]
        place: Place,
        #[arg(default_value = "main")]
        terminal: String,
        /// Watch only.
        #[arg(long)]
        read_only: bool,
    },
    /// Give the agent a prompt (queued while it is busy) and print the prompt's id.
    Prompt {
        #[command(flatten)]
        place: Place,
        #[arg(long, default_value = "main", value_name = "ID")]
        session: String,
        /// Return when its turn ended: exit 0 done, 1 interrupted or failed.
        #[arg(long)]
        wait: bool,
        /// The text, or - for standard input.
        text: String,
    },
    /// What was said, as Markdown to read or as JSON to process; sub-agents at the end.
    Conversation {
        #[command(flatten)]
        place: Place,
        #[arg(long, default_value = "main", value_name = "ID")]
        session: String,
        #[arg(long, default_value = "markdown")]
        format: conversation::Format,
        /// The agent's bookkeeping too.
        #[arg(long)]
        all: bool,
    },
    /// Find what was said in conversations and typed in shells; exit 0 found, 1 nothing found.
    #[command(after_help = SEARCH)]
    Search {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        wanted: search::Wanted,
    },
    /// Interrupt the agent's turn.
    Interrupt {
        #[command(flatten)]
        place: Place,
        #[arg(long, default_value = "main", value_name = "ID")]
        session: String,
    },
    /// End a session and everything it left running.
    Stop {
        #[command(flatten)]
        place: Place,
        #[arg(long, default_value = "main", value_name = "ID")]
        session: String,
    },
    /// The journal.
    Events {
        #[command(flatten)]
        place: Place,
        /// Only events with a higher number.
        #[arg(long, value_name = "SEQ")]
        after: Option<u64>,
        /// Go on as events come.
        #[arg(short, long)]
        follow: bool,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Logs of services, the init script and agents; without a name, which there are.
    Logs {
        #[command(flatten)]
        place: Place,
        #[arg(short, long)]
        follow: bool,
        /// The recording of the terminal of this name, as an asciicast.
        #[arg(long, requires = "name", conflicts_with = "follow")]
        cast: bool,
        name: Option<String>,
    },
    /// What listens, with preview addresses.
    #[command(args_conflicts_with_subcommands = true)]
    Ports {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        json: bool,
        #[command(subcommand)]
        command: Option<PortsCommand>,
    },
    /// Cost by session and model.
    Spend {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        json: bool,
    },
    /// The history's backups: take one now, list them, prove one by reading it back.
    #[command(after_help = backup::EXAMPLES)]
    Backup {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: backup::Command,
    },
    /// Remove everything that is kept of the task's history: its snapshots in the store, and what waits for it here. The
    /// agents' own files stay, and are saved again when they change.
    Purge {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        from: backup::From,
        /// Really.
        #[arg(long)]
        yes: bool,
    },
    /// Can this image or machine host an agent? One line per finding; exit 0 or 1.
    Doctor {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        json: bool,
    },
    /// The task's specification: its schema, a check, an explanation.
    Spec {
        #[command(subcommand)]
        command: SpecCommand,
    },
    /// Git's credential helper inside the container.
    #[command(hide = true)]
    GitCredential {
        #[command(flatten)]
        place: Place,
        operation: String,
    },
}

#[derive(Debug, Subcommand)]
enum PortsCommand {
    /// Make a link that opens this port's preview without any other credential.
    Share {
        port: u16,
        /// How long it is good for: 30m, 2h, 7d.
        #[arg(long = "for", value_name = "TIME", default_value = "2h")]
        life: String,
    },
    /// Take a link back.
    Unshare { port: u16, id: String },
    /// Decide about a port; what is not named stays.
    Set {
        port: u16,
        /// Let everybody see what listens there now; --public=false takes it back.
        #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        public: Option<bool>,
        /// How its server is told its host: auto, preserve or localhost.
        #[arg(long, value_parser = ["auto", "preserve", "localhost"])]
        host: Option<String>,
        /// Mean this port where a request names none; --default=false takes it back.
        #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        default: Option<bool>,
        /// Let what listens there now have the links of what did before.
        #[arg(long)]
        confirm: bool,
    },
}

#[derive(Debug, Subcommand)]
enum SpecCommand {
    /// Print the JSON Schema of the spec.
    Schema,
    /// Report all mistakes of a spec at once.
    Check {
        file: PathBuf,
        /// Mistakes with their JSON pointers, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Each final value with the layer that it came from; secrets masked.
    Explain {
        file: PathBuf,
        #[arg(long)]
        json: bool,
    },
}

/// What a command prints and returns.
#[derive(Debug)]
struct Outcome {
    code: u8,
    text: String,
    error: Option<String>,
}

impl Outcome {
    fn text(text: String) -> Self {
        Self {
            code: 0,
            text,
            error: None,
        }
    }

    fn failure(code: u8, error: String) -> Self {
        Self {
            code,
            text: String::new(),
            error: Some(error),
        }
    }
}

/// Runs the command line; the binary's way in for everything but the keeper's family.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 64 } else { 0 };
            // Help and usage go where clap sends them; a closed terminal is nobody's error.
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return report(Outcome::failure(70, format!("cannot start: {error}"))),
    };
    match runtime.block_on(run(cli.command)) {
        Ok(outcome) => report(outcome),
        Err(error) => {
            let code = if matches!(
                error,
                CliError::Client(client::ClientError::NotRunning { .. })
            ) {
                4
            } else {
                1
            };
            report(Outcome::failure(code, error.to_string()))
        }
    }
}

/// Prints an outcome; a reader that left (`| head`) is no failure.
fn report(outcome: Outcome) -> ExitCode {
    drop(std::io::stdout().write_all(outcome.text.as_bytes()));
    if let Some(error) = outcome.error {
        drop(writeln!(
            std::io::stderr(),
            "whim: {}",
            text::escape(&error)
        ));
    }
    ExitCode::from(outcome.code)
}

#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Client(#[from] client::ClientError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Backup(String),
}

async fn run(command: Command) -> Result<Outcome, CliError> {
    Ok(match command {
        // Only `--help` and wrong use come this far: the keeper takes these names first.
        Command::Run(_) | Command::Restore(_) | Command::Init { .. } => {
            Outcome::failure(64, "this command must be the first argument".into())
        }
        Command::Status {
            place,
            json,
            wait,
            timeout,
        } => {
            let timeout = match timeout.map(Duration::try_from_secs_f64).transpose() {
                Ok(timeout) => timeout,
                Err(error) => return Ok(Outcome::failure(64, format!("--timeout: {error}"))),
            };
            status::run(&place.client(), json, &wait, timeout).await?
        }
        Command::Attach {
            place,
            terminal,
            read_only,
        } => attach(&place.client(), terminal, read_only).await?,
        Command::Prompt {
            place,
            session,
            wait,
            text,
        } => {
            let text = if text == "-" {
                std::io::read_to_string(std::io::stdin().lock())?
            } else {
                text
            };
            prompt::prompt(&place.client(), &session, &text, wait).await?
        }
        Command::Conversation {
            place,
            session,
            format,
            all,
        } => conversation::run(&place.client(), &session, format, all).await?,
        Command::Search { place, wanted } => search::run(&place.client(), &wanted).await?,
        Command::Interrupt { place, session } => {
            prompt::act(&place.client(), &session, "interrupt").await?
        }
        Command::Stop { place, session } => prompt::act(&place.client(), &session, "stop").await?,
        Command::Events {
            place,
            after,
            follow,
            json,
        } => listing::events(&place.client(), after, follow, json).await?,
        Command::Logs {
            place,
            follow,
            cast: false,
            name,
        } => listing::logs(&place.paths().logs(), name.as_deref(), follow).await?,
        Command::Logs { place, name, .. } => cast::print(
            &place.paths().terminals(),
            &name.unwrap_or_default(),
            &mut std::io::stdout().lock(),
        )?,
        Command::Ports {
            place,
            json,
            command,
        } => match command {
            None => listing::ports(&place.client(), json).await?,
            Some(PortsCommand::Share { port, life }) => {
                share::share(&place.client(), port, &life).await?
            }
            Some(PortsCommand::Unshare { port, id }) => {
                share::unshare(&place.client(), port, &id).await?
            }
            Some(PortsCommand::Set {
                port,
                public,
                host,
                default,
                confirm,
            }) => {
                let change = serde_json::json!({"public": public, "host": host, "default": default, "confirm": confirm});
                share::decide(&place.client(), port, &change).await?
            }
        },
        Command::Spend { place, json } => listing::spend(&place.client(), json).await?,
        Command::Backup { place, command } => backup::run(&place, command).await?,
        Command::Purge { place, from, yes } => backup::purge(&place, &from, yes).await?,
        Command::Doctor { place, json } => doctor(&place, json)?,
        Command::Spec { command } => spec(&command)?,
        Command::GitCredential { place, operation } => {
            git_credential::run(&place.client(), &operation).await?
        }
    })
}

impl Place {
    fn paths(&self) -> Paths {
        Paths::new(&self.root, std::path::Path::new("/"))
    }

    fn client(&self) -> Client {
        let paths = self.paths();
        // Readable by root only, who needs no token; elsewhere it is not written or not readable, which is no error.
        let written = || {
            std::fs::read_to_string(paths.control_token())
                .ok()
                .map(|token| token.trim().to_owned())
        };
        Client::new(&paths.socket(), self.token.clone().or_else(written))
    }
}

fn doctor(place: &Place, json: bool) -> Result<Outcome, CliError> {
    let variables = crate::config::Variables::new(std::env::vars_os());
    let arguments = ["--root".into(), place.root.clone().into_os_string()];
    let given = match crate::config::Given::parse(&arguments, variables.clone()) {
        Ok(given) => given,
        Err(help) => return Ok(Outcome::text(help)),
    };
    let (subject, mistakes) = crate::doctor::Subject::new(&given, &variables);
    let mut report = crate::doctor::examine(&subject);
    report.findings.splice(0..0, mistakes);
    let text = if json {
        serde_json::to_string(&report).map_err(std::io::Error::from)? + "\n"
    } else {
        report.to_string()
    };
    Ok(Outcome {
        code: report.exit_code(),
        text,
        error: None,
    })
}

fn spec(command: &SpecCommand) -> Result<Outcome, CliError> {
    use crate::config::report;
    let read = |file: &std::path::Path| {
        if file == std::path::Path::new("-") {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes).map(|_| bytes)
        } else {
            std::fs::read(file).map_err(|error| {
                std::io::Error::new(error.kind(), format!("{}: {error}", file.display()))
            })
        }
    };
    Ok(match command {
        SpecCommand::Schema => Outcome::text(report::schema()),
        SpecCommand::Check { file, json } => {
            let check = report::check(&read(file)?);
            let text = if *json {
                format!("{}\n", check.to_json())
            } else {
                check.to_string()
            };
            Outcome {
                code: check.exit_code(),
                text,
                error: None,
            }
        }
        SpecCommand::Explain { file, json } => match report::explain(&read(file)?) {
            Ok(explanation) if *json => Outcome::text(
                serde_json::to_string(&explanation).map_err(std::io::Error::from)? + "\n",
            ),
            Ok(explanation) => Outcome::text(explanation.to_string()),
            Err(check) => Outcome {
                code: check.exit_code(),
                text: String::new(),
                error: Some(check.to_string()),
            },
        },
    })
}

async fn attach(client: &Client, terminal: String, read_only: bool) -> Result<Outcome, CliError> {
    let stream = client
        .upgrade("/v1/attach", crate::api::attach::PROTOCOL)
        .await?;
    let options = attach::AttachOptions {
        terminal,
        read_only,
    };
    let ended = attach::attach(stream, options)
        .await
        .map_err(std::io::Error::other)?;
    Ok(match ended {
        attach::Outcome::Detached => Outcome::text(String::new()),
        attach::Outcome::Ended(exit) => Outcome::text(format!("[{exit}]\n")),
        attach::Outcome::Interrupted => {
            Outcome::failure(1, "the supervisor restarts; attach again".into())
        }
        attach::Outcome::Refused(refusal) => Outcome::failure(2, refusal.to_string()),
    })
}
