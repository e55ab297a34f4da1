//! `cargo xtask run`: from a fresh clone to an agent at work.
//!
//! Builds the page and the static binary, installs the agent's CLI, makes a small repository with a failing test in
//! `target/demo`, starts a scripted model where there is no provider's key, and runs whim on it until it is stopped.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use whim_kit::model::demo;
use whim_kit::{Upstream, agents, repo, wait};

use crate::command::{CommandError, program, say};
use crate::{Failed, binary, machine, web, workspace};

/// Options of `cargo xtask run`
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What the agent is to do
    #[arg(default_value = repo::SAMPLE_TASK)]
    prompt: String,
    /// claude, codex, ccr or copilot
    #[arg(long, default_value = "claude")]
    agent: String,
    /// A repository to work on in place of the sample
    #[arg(long)]
    repo: Option<String>,
    /// Use the scripted model although there is a key
    #[arg(long)]
    scripted: bool,
    /// Cargo profile of the binary
    #[arg(long, default_value = "ci")]
    profile: String,
    /// More options for `whim run`, after `--`
    #[arg(last = true)]
    whim: Vec<String>,
}

/// The variables that hold a provider's key.
const KEYS: [&str; 5] = [
    "ANTHROPIC_API_KEY",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "OPENAI_API_KEY",
    "OPENROUTER_API_KEY",
    "WHIM_PROVIDER_KEY",
];

pub(crate) fn run(options: &Options) -> Result<(), Failed> {
    let missing = machine::programs(&["git", "node", "npm"])?;
    if !missing.is_empty() {
        return Err(Failed::Check(format!(
            "please install {}",
            missing.join(", ")
        )));
    }
    if let Some(why) = machine::agents_user()? {
        say(&why);
    }
    web::build()?;
    let whim = binary::build(&options.profile)?;
    say("the agents' CLIs (a download of some 250 MB the first time) …");
    let clis = agents::installed()?;

    let demo = workspace::target("demo");
    workspace::fresh(&demo)?;
    let root = demo.join("root");
    fs::create_dir_all(&root).map_err(|source| Failed::File {
        path: root.clone(),
        source,
    })?;
    let sample = demo.join("sample");
    repo::sample(&sample)?;
    // Cloned by the agents' user, and git reads no repository of another user.
    whim_kit::give(&sample, whim_kit::agents_user()?)?;
    let repository = options
        .repo
        .clone()
        .unwrap_or_else(|| sample.display().to_string());

    let mut command = program(&whim, ["run", "--root"]);
    command.arg(&root).args([
        "--repo",
        &repository,
        "--agent",
        &options.agent,
        "--permission-mode",
        "bypass",
    ]);
    command
        .args(&options.whim)
        .arg(&options.prompt)
        .env("PATH", path_with(&clis));
    let free = [
        ("WHIM_GENERATION_PORT", 3001),
        ("WHIM_LOCAL_PORT", 8080),
        ("WHIM_BACKUP_PORT", 8081),
        ("WHIM_UI_PORT", 7681),
    ];
    for (name, port) in free {
        if std::env::var_os(name).is_none() && TcpListener::bind(("127.0.0.1", port)).is_err() {
            say(&format!("port {port} is taken; whim will use another"));
            command.env(name, "0");
        }
    }
    let token = std::env::var("WHIM_CONTROL_TOKEN").ok();
    let token = token.map_or_else(new_token, Ok)?;
    command.env("WHIM_CONTROL_TOKEN", &token);

    let key = KEYS
        .iter()
        .find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    // Serves until whim has ended.
    let model = match key {
        Some(name) if !options.scripted => {
            say(&format!(
                "model: the real one, with {name}; this costs money"
            ));
            None
        }
        _ => {
            let model = Upstream::start(demo::script()).map_err(Failed::Model)?;
            say(&format!(
                "model: no key in {}, so a scripted stand-in at {}",
                KEYS.join(", "),
                model.url()
            ));
            Some(model)
        }
    };
    if let Some(model) = &model {
        scripted(&mut command, model, &options.agent);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime =
        runtime.map_err(|error| Failed::Wait(format!("cannot wait for whim: {error}")))?;
    let ended = runtime.block_on(host(command.into(), &root, &whim, &token));
    // The wait for its readiness may still be under way when it ended before that.
    runtime.shutdown_background();
    ended
}

/// Points whim at the stand-in.
fn scripted(command: &mut Command, model: &Upstream, agent: &str) {
    for name in KEYS {
        command.env_remove(name);
    }
    let (url, key) = match agent {
        "ccr" => (model.router_url(), "OPENROUTER_API_KEY"),
        "codex" | "copilot" => (model.url(), "OPENAI_API_KEY"),
        _ => (model.url(), "ANTHROPIC_API_KEY"),
    };
    command.env("WHIM_UPSTREAM_URL", url).env(key, "scripted");
}

/// Runs whim until it ends. A terminal sends Ctrl-C to both, and whim ends in order; a TERM is passed on.
async fn host(
    mut command: tokio::process::Command,
    root: &Path,
    whim: &Path,
    token: &str,
) -> Result<(), Failed> {
    let listen = |kind| {
        signal(kind).map_err(|source| Failed::Wait(format!("cannot wait for signals: {source}")))
    };
    let (mut interrupt, mut terminate) = (
        listen(SignalKind::interrupt())?,
        listen(SignalKind::terminate())?,
    );
    let mut child = command
        .stdin(Stdio::inherit())
        .spawn()
        .map_err(CommandError::start(command.as_std()))?;
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .map(Pid::from_raw);
    let terminated = || {
        // It may have ended by itself, which the wait for it tells.
        let _gone = pid.map(|pid| kill(pid, Signal::SIGTERM));
    };
    let ready = root.join("run/whim/ready.json");
    let mut waiting = tokio::task::spawn_blocking(move || {
        wait::file(&ready, Duration::from_secs(30), |content| {
            serde_json::from_str::<serde_json::Value>(content).ok()
        })
    });
    let mut told = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.map_err(CommandError::start(command.as_std()))?,
            _ = interrupt.recv() => say("ending in order; once more kills"),
            _ = terminate.recv() => terminated(),
            found = &mut waiting, if !told => {
                told = true;
                match found {
                    Ok(Ok(ready)) => guide(&ready, root, whim, token),
                    Ok(Err(error)) => {
                        say(&format!("whim is not ready: {error}"));
                        terminated();
                    }
                    Err(error) => say(&format!("nobody waited for whim: {error}")),
                }
            }
        }
    };
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1);
    say(&format!("whim ended with {code}"));
    if status.success() {
        Ok(())
    } else {
        Err(Failed::Check(format!("whim run ended with {code}")))
    }
}

/// Says what a person can do now.
fn guide(ready: &serde_json::Value, root: &Path, whim: &Path, token: &str) {
    let port = ready
        .pointer("/ui")
        .and_then(|ui| ui.as_str()?.rsplit_once(':'))
        .map_or("7681", |(_, port)| port);
    say(&format!(
        "\n  open   http://127.0.0.1:{port}/#token={token}"
    ));
    say(&format!(
        "  status {} status --root {}",
        whim.display(),
        root.display()
    ));
    say("  stop   Ctrl-C\n");
}

fn path_with(directory: &Path) -> std::ffi::OsString {
    let mut path = directory.as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path
}

/// 16 random bytes in hex.
fn new_token() -> Result<String, Failed> {
    use std::io::Read;
    let path = Path::new("/dev/urandom");
    let mut bytes = [0_u8; 16];
    fs::File::open(path)
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(|source| Failed::File {
            path: path.to_owned(),
            source,
        })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
