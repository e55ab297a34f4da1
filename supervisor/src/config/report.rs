//! `whim spec check`, `whim spec schema` and `whim spec explain`: what they print, without printing it.
//!
//! A report is a value that shows itself as text for people (`Display`) or as JSON for programs (`Serialize`). Values
//! whose names look like a secret's are masked, URLs are redacted, control characters escaped.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};
use whim_wire::spec::{LayerName, McpServer};

use super::document;
use super::environment;
use super::layers::{self, Configuration};
use super::mistake::{EXIT_SPEC, Mistake};
use super::names;
use super::redact::printable;
use super::resolve::Given;

/// How a masked value is shown.
const MASK: &str = "***";

/// The outcome of `whim spec check`.
#[derive(Debug)]
pub struct Check {
    pub mistakes: Vec<Mistake>,
    pub warnings: Vec<Mistake>,
}

/// Checks a spec: everything that can be told without flags, variables and a machine. What it leaves to them (a custom
/// agent's command, a prompt) is a warning.
pub fn check(text: &[u8]) -> Check {
    let (mistakes, warnings) = Given::of_spec(text);
    Check { mistakes, warnings }
}

impl Check {
    /// 0 or 65.
    pub fn exit_code(&self) -> u8 {
        if self.mistakes.is_empty() {
            0
        } else {
            EXIT_SPEC
        }
    }

    /// For `--json`.
    pub fn to_json(&self) -> Value {
        json!({"ok": self.mistakes.is_empty(), "mistakes": self.mistakes, "warnings": self.warnings})
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in &self.mistakes {
            writeln!(f, "error: {mistake}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        match (self.mistakes.len(), self.warnings.len()) {
            (0, 0) => writeln!(f, "ok"),
            (0, warnings) => writeln!(f, "ok, {}", count(warnings, "warning")),
            (mistakes, 0) => writeln!(f, "{}", count(mistakes, "error")),
            (mistakes, warnings) => writeln!(
                f,
                "{}, {}",
                count(mistakes, "error"),
                count(warnings, "warning")
            ),
        }
    }
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

/// The JSON Schema of the spec, as text with a final newline.
pub fn schema() -> String {
    format!("{:#}\n", document::schema())
}

/// One final value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What it is: `env`, `instructions`, `init_script`, `bashrc`, `skill`, `mcp_server`, `plugin`, `marketplace`,
    /// `setting`.
    pub item: &'static str,
    /// Its name; for settings a JSON pointer; empty for what has none.
    pub name: String,
    /// Masked, redacted and cut.
    pub value: String,
    pub layer: &'static str,
    /// The environment file, where the value came from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// The outcome of `whim spec explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub entries: Vec<Entry>,
}

/// Every final value of the merged configuration, with its layer.
///
/// # Errors
/// The spec's mistakes.
pub fn explain(text: &[u8]) -> Result<Explanation, Check> {
    let check = check(text);
    let spec = document::read(text).spec;
    match spec {
        Some(spec) if check.mistakes.is_empty() => Ok(explain_configuration(&layers::merge(
            &spec.config,
            spec.init_user,
        ))),
        _ => Err(check),
    }
}

/// As [`explain`], for a running container.
pub fn explain_configuration(configuration: &Configuration) -> Explanation {
    let mut entries = environment(configuration);
    let mut add = |item, name: &str, value: String, layer: LayerName| {
        entries.push(Entry {
            item,
            name: printable(name),
            value,
            layer: layer.as_str(),
            file: None,
        });
    };
    for (layer, text) in &configuration.instructions {
        add("instructions", "", size(text), *layer);
    }
    for (layer, script) in &configuration.init_scripts {
        add(
            "init_script",
            "",
            format!("{}, run by {}", size(&script.text), script.user),
            *layer,
        );
    }
    for (layer, text) in &configuration.bashrc {
        add("bashrc", "", size(text), *layer);
    }
    for (name, skill) in &configuration.skills {
        add("skill", name, count(skill.value.len(), "file"), skill.layer);
    }
    for (name, server) in &configuration.mcp_servers {
        let value = match &server.value {
            McpServer::Stdio { command, args, env } => {
                let mut value = printable(command);
                // Arguments and values may be keys; that there are some is enough.
                if !args.is_empty() {
                    value.push_str(&format!(", {}", count(args.len(), "argument")));
                }
                for name in env.keys() {
                    value.push_str(&format!(", {}={MASK}", printable(name)));
                }
                value
            }
            McpServer::Http { url, headers } => {
                let mut value = printable(url.expose());
                for name in headers.keys() {
                    value.push_str(&format!(", {}: {MASK}", printable(name)));
                }
                value
            }
        };
        add("mcp_server", name, value, server.layer);
    }
    for (name, enabled) in &configuration.plugins {
        add(
            "plugin",
            name,
            if enabled.value { "on" } else { "off" }.to_owned(),
            enabled.layer,
        );
    }
    for (name, marketplace) in &configuration.marketplaces {
        add(
            "marketplace",
            name,
            printable(&marketplace.value.to_string()),
            marketplace.layer,
        );
    }
    for (pointer, setting) in configuration.settings_sources() {
        let secret =
            pointer.split('/').any(names::is_likely_secret) || pointer.starts_with("/env/");
        let value = if secret {
            MASK.to_owned()
        } else {
            printable(&setting.value.to_string())
        };
        add("setting", &pointer, value, setting.layer);
    }
    Explanation { entries }
}

/// The variables that layers set.
fn environment(configuration: &Configuration) -> Vec<Entry> {
    environment::of_layers(configuration)
        .into_iter()
        .map(|(name, variable)| Entry {
            item: "env",
            value: if names::is_likely_secret(&name) {
                MASK.to_owned()
            } else {
                printable(variable.value.expose())
            },
            name,
            layer: variable.layer.as_str(),
            file: variable.file,
        })
        .collect()
}

fn size(text: &str) -> String {
    count(text.lines().count(), "line")
}

impl fmt::Display for Explanation {
    /// Aligned columns: item and name, layer, value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = |entry: &Entry| {
            format!("{} {}", entry.item, entry.name)
                .trim_end()
                .to_owned()
        };
        let source = |entry: &Entry| match &entry.file {
            Some(file) => format!("{} ({})", entry.layer, printable(file)),
            None => entry.layer.to_owned(),
        };
        let width = |of: &dyn Fn(&Entry) -> String| {
            self.entries
                .iter()
                .map(|entry| of(entry).chars().count())
                .max()
        };
        let (titles, sources) = (width(&title).unwrap_or(0), width(&source).unwrap_or(0));
        for entry in &self.entries {
            writeln!(
                f,
                "{:<titles$}  {:<sources$}  {}",
                title(entry),
                source(entry),
                entry.value
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_of_form_do_not_hide_those_of_meaning() {
        let bad = json!({
            "version": 1,
            "repo": {"url": "https://h/x", "branch": "a..b"},
            "agent": {"kind": "claud", "command": ["x"]},
            "budget": {"usd": "-1"},
            "config": [
                {"layer": "user", "env": {"LD_PRELOAD": "x"}, "mcp_servers": {"x": {"command": "a", "url": "http://b"}}},
                {"layer": "user", "skills": [{"name": "../x", "files": {"SKILL.md": "a"}}]},
                {"env": {"A": 1}},
            ],
        });
        let told = check(bad.to_string().as_bytes());
        let mut places: Vec<String> = told.mistakes.iter().map(|m| m.place.to_string()).collect();
        places.sort_unstable();
        assert_eq!(
            places,
            [
                "spec /agent/kind",
                "spec /budget/usd",
                "spec /config/0/env/LD_PRELOAD",
                "spec /config/0/mcp_servers/x",
                "spec /config/1/layer",
                "spec /config/1/skills/0/name",
                "spec /config/2",
                "spec /config/2/env/A",
                "spec /repo/branch",
            ],
            "{told}"
        );
        // A member that must be there takes what it belongs to along, and nothing else.
        let told = check(br#"{"version":1,"repo":{"url":7},"task":{"id":"/"}}"#);
        assert_eq!(told.mistakes.len(), 2, "{told}");
    }

    #[test]
    fn a_check_shows_all_and_has_an_exit_code() {
        let good = check(br#"{"version":1}"#);
        assert_eq!((good.exit_code(), good.to_string().as_str()), (0, "ok\n"));
        let bad = check(br#"{"version":1,"repo":{"url":"https://u:hunter2@h/x","branch":"a..b"},"agnt":{},"task":{"id":"/"}}"#);
        assert_eq!(bad.exit_code(), 65);
        let text = bad.to_string();
        assert!(
            text.contains("error: spec /repo/branch = \"a..b\": contains")
                && text.ends_with("2 errors, 1 warning\n"),
            "{text}"
        );
        assert!(!text.contains("hunter2"));
        let bomb = format!("A=0123456789abcdef\n{}", "A=$A$A\n".repeat(14));
        let late = check(
            json!({"version":1,"config":[{"layer":"user","env_files":{".env":bomb}}]})
                .to_string()
                .as_bytes(),
        );
        assert_eq!(late.mistakes.len(), 2, "{late}");
        let open = check(br#"{"version":1,"agent":{"kind":"custom"}}"#);
        assert_eq!((open.exit_code(), open.warnings.len()), (0, 1), "{open}");
        let json = bad.to_json();
        assert_eq!(
            (json["ok"].clone(), json["mistakes"][0]["pointer"].clone()),
            (json!(false), json!("/task/id"))
        );
    }

    #[test]
    fn the_schema_names_what_the_contract_names() {
        let schema: Value = serde_json::from_str(&schema()).unwrap();
        let members = schema["properties"].as_object().unwrap();
        for name in [
            "version",
            "task",
            "repo",
            "agent",
            "provider",
            "budget",
            "attachments",
            "config",
            "restore",
            "idle",
            "init_timeout_s",
            "backup",
        ] {
            assert!(members.contains_key(name), "{name}");
        }
        assert_eq!(schema["required"], json!(["version"]));
        let layer = &schema["$defs"]["Layer"]["properties"];
        for name in [
            "layer",
            "instructions",
            "env",
            "env_files",
            "init_script",
            "bashrc",
            "skills",
            "mcp_servers",
            "plugins",
            "settings",
        ] {
            assert!(!layer[name].is_null(), "{name}");
        }
    }

    #[test]
    fn each_final_value_is_explained_with_its_layer() {
        let text = br#"{"version":1,"config":[
            {"layer":"user","env":{"A":"user","API_KEY":"hunter2"},"env_files":{".env":"B=$A\nDSN=https://u:hunter2@h\nURL=https://u:hunter2@h"},
             "mcp_servers":{"x":{"command":"run","args":["hunter2"],"env":{"K":"hunter2"}},"y":{"url":"https://h/?k=hunter2","headers":{"Authorization":"hunter2"}}},
             "instructions":"a\nb","settings":{"env":{"X":"hunter2"},"apiToken":"hunter2","theme":"dark"}},
            {"layer":"platform","env":{"A":"platform","C":"3"},"init_script":"x","init_user":"root","plugins":{"enabled":{"p@m":true}}}]}"#;
        let explanation = explain(text).unwrap();
        let find = |item: &str, name: &str| {
            let entry = explanation
                .entries
                .iter()
                .find(|entry| entry.item == item && entry.name == name)
                .unwrap();
            (entry.value.as_str(), entry.layer, entry.file.as_deref())
        };
        assert_eq!(find("env", "A"), ("user", "user", None));
        assert_eq!(find("env", "C"), ("3", "platform", None));
        assert_eq!(find("env", "B"), ("user", "user", Some(".env")));
        assert_eq!(find("env", "API_KEY").0, "***");
        assert_eq!(find("env", "URL").0, "https://***@h");
        assert_eq!(find("instructions", ""), ("2 lines", "user", None));
        assert_eq!(
            find("init_script", ""),
            ("1 line, run by root", "platform", None)
        );
        assert_eq!(find("mcp_server", "x").0, "run, 1 argument, K=***");
        assert_eq!(find("plugin", "p@m"), ("on", "platform", None));
        assert_eq!(find("setting", "/theme"), ("\"dark\"", "user", None));
        let shown = format!(
            "{explanation}{}",
            serde_json::to_string(&explanation).unwrap()
        );
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(explain(b"{}").is_err());
    }
}
