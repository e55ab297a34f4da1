//! Plugins of Claude Code, installed before its first run.
//!
//! From `enabledPlugins` and `extraKnownMarketplaces` alone Claude Code (2.1.197) installs a plugin beside its first run,
//! which does not have the plugin's skills and commands yet. So its own program is called first: `plugin marketplace add`,
//! `plugin install`. What is installed already stands in a file of its own.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::setup::Setup;

/// A plugin that is to be there at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// `plugin@marketplace`.
    pub plugin: String,
    /// Arguments of the agent's program, call by call.
    pub calls: Vec<Vec<String>>,
}

/// Those that the layers enable.
pub(super) fn installations(setup: &Setup) -> Vec<Installation> {
    let enabled = setup.plugins.enabled.iter().filter(|(_, on)| **on);
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    enabled
        .map(|(plugin, _)| {
            let market = plugin.split_once('@').map(|(_, market)| market);
            let market = market.and_then(|market| setup.plugins.marketplaces.get(market));
            let source = market.and_then(|market| place(market.get("source")?));
            let add = source.map(|source| words(&["plugin", "marketplace", "add", "--", source]));
            let install = words(&["plugin", "install", "--scope", "user", "--", plugin]);
            Installation {
                plugin: plugin.clone(),
                calls: add.into_iter().chain([install]).collect(),
            }
        })
        .collect()
}

/// What `marketplace add` takes for a source of the settings; none for kinds that only the settings know.
fn place(source: &Value) -> Option<&str> {
    let field = match source.get("source")?.as_str()? {
        "github" => "repo",
        "git" | "url" => "url",
        "directory" | "file" => "path",
        _ => return None,
    };
    source.get(field)?.as_str()
}

/// Where Claude Code keeps what is installed.
#[must_use]
pub fn installed_file(home: &Path) -> PathBuf {
    home.join(".claude/plugins/installed_plugins.json")
}

/// Whether that file names the plugin: `{"version":2,"plugins":{"plugin@marketplace":[…]}}`.
#[must_use]
pub fn is_installed(file: &[u8], plugin: &str) -> bool {
    let file: Value = serde_json::from_slice(file).unwrap_or_default();
    let places = file.get("plugins").and_then(|plugins| plugins.get(plugin));
    places
        .and_then(Value::as_array)
        .is_some_and(|places| !places.is_empty())
}
