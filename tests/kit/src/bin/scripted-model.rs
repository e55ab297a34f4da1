//! `scripted-model`: a model provider that follows a script, as a program. See [`whim_kit::model`].

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use whim_kit::Upstream;
use whim_kit::model::demo;
use whim_kit::model::script::Script;

/// Serves the APIs of Anthropic, OpenAI and OpenRouter on loopback, following a script instead of thinking.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Where it serves the providers' APIs; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:9901")]
    listen: SocketAddr,
    /// Where it serves its control port (requests seen, script, gates); none if left out
    #[arg(long)]
    control: Option<SocketAddr>,
    /// A script (JSON); without one it fixes the sample repository and looks around in any other
    #[arg(long)]
    script: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("cannot read the script {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the script {path} is not one: {source}")]
    Parse {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
    #[error("cannot print: {0}")]
    Print(io::Error),
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            // Where standard error is gone nobody is left to tell.
            drop(writeln!(io::stderr(), "scripted-model: {failed}"));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failed> {
    let script = options
        .script
        .as_ref()
        .map_or_else(|| Ok(demo::script()), load)?;
    let listening = |address| move |source| Failed::Listen { address, source };
    let upstream = Upstream::start_at(options.listen, script).map_err(listening(options.listen))?;
    let control = options
        .control
        .map(|address| upstream.control_at(address).map_err(listening(address)))
        .transpose()?
        .map(|address| format!("http://{address}"));
    let line = serde_json::json!({"url": upstream.url(), "control": control});
    writeln!(io::stdout(), "{line}").map_err(Failed::Print)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failed::Signals)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(Failed::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Failed::Signals)?;
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        Ok(())
    })
}

fn load(path: &PathBuf) -> Result<Script, Failed> {
    let text = fs::read_to_string(path).map_err(|source| Failed::Read {
        path: path.clone(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|source| Failed::Parse {
        path: path.clone(),
        source,
    })
}
