//! The program's own log, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::Settings;
use crate::config::settings::LogFormat;

/// Starts it as the settings say.
pub(crate) fn start_log(settings: &Settings) {
    let filter = settings
        .log
        .filter
        .parse()
        .unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let builder = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(std::io::stderr);
    // Set once in this process; a second setting would be a fault of ours and changes nothing.
    let set = match settings.log.format {
        LogFormat::Json => builder.json().finish().with(filter).try_init(),
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .finish()
            .with(filter)
            .try_init(),
    };
    drop(set);
}
