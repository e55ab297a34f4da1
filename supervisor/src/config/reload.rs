//! What changes when the layers change under a running container. Pure.
//!
//! Files can be rewritten at any time; a running process cannot be given another environment, and no agent promises to
//! read its configuration again while it works. So each change says when it takes effect, and the caller says so to
//! people instead of pretending.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use whim_wire::spec::{LayerName, Sensitive};

use super::layers::{Configuration, Sourced};

/// When a change takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// In shells that are opened from now on.
    NewShells,
    /// When the agent is restarted (by resuming its session); new shells have it at once.
    AgentRestart,
    /// When a container boots with it: the init script ran already.
    NextBoot,
}

/// What happened to an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Added,
    Removed,
    Changed,
}

/// One difference. Holds no values: they may be secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// As in [`super::report::Entry::item`]; `env_file` for a file as a whole.
    pub item: &'static str,
    /// Empty for what has no name.
    pub name: String,
    pub kind: Kind,
    pub effect: Effect,
}

/// What of the layers a running agent was started with: a salted fingerprint by JSON pointer, so that it can be told at any
/// time what it does not know yet. Kept on disk, hence no values.
pub type Loaded = BTreeMap<String, String>;

impl Change {
    /// Where the item stands in the merged configuration, which has the members of a layer.
    pub fn pointer(&self) -> String {
        pointer(self.item, &self.name)
    }
}

fn pointer(item: &str, name: &str) -> String {
    let base = match item {
        "env_file" => "/env_files",
        "skill" => "/skills",
        "mcp_server" => "/mcp_servers",
        "plugin" => "/plugins/enabled",
        "marketplace" => "/plugins/marketplaces",
        "setting" => "/settings",
        // `env`, and what has no names.
        other => return with_name(&format!("/{other}"), name),
    };
    with_name(base, name)
}

fn with_name(base: &str, name: &str) -> String {
    if name.is_empty() {
        base.to_owned()
    } else {
        super::document::pointer(base, name)
    }
}

/// What an agent that starts now is started with. `salt`: a secret of the session, so that short values cannot be
/// guessed from their fingerprints.
pub fn loaded(configuration: &Configuration, salt: &str) -> Loaded {
    let fingerprint = |content: &str| {
        let mut hash = Sha256::new();
        hash.update(salt);
        hash.update([0]);
        hash.update(content);
        let hash = hash.finalize();
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let at_start = items(configuration)
        .into_iter()
        .filter(|(_, effect, _)| *effect == Effect::AgentRestart);
    let mut all = Loaded::new();
    for (item, _, contents) in at_start {
        for (name, content) in contents {
            all.insert(pointer(item, &name), fingerprint(&content));
        }
    }
    all
}

/// Pointers of what an agent does not know that was started with `then`, where `now` is what one is started with.
pub fn unknown(then: &Loaded, now: &Loaded) -> BTreeSet<String> {
    let differs = |at: &&String| then.get(*at) != now.get(*at);
    then.keys()
        .chain(now.keys())
        .filter(differs)
        .cloned()
        .collect()
}

/// Everything that differs in effect; an item that only moved to another layer does not.
pub fn changes(old: &Configuration, new: &Configuration) -> Vec<Change> {
    let mut found = Vec::new();
    for ((item, effect, old), (_, _, new)) in items(old).into_iter().zip(items(new)) {
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names {
            let kind = match (old.get(name), new.get(name)) {
                (None, _) => Kind::Added,
                (_, None) => Kind::Removed,
                (Some(old), Some(new)) if old != new => Kind::Changed,
                _ => continue,
            };
            found.push(Change {
                item,
                name: name.clone(),
                kind,
                effect,
            });
        }
    }
    found
}

/// Comparable contents by name.
type Contents = BTreeMap<String, String>;

/// All kinds of items, always in the same order.
fn items(of: &Configuration) -> Vec<(&'static str, Effect, Contents)> {
    let init = |script: &super::layers::InitScript| format!("{}:{}", script.user, script.text);
    vec![
        (
            "env",
            Effect::AgentRestart,
            named(&of.env, |value| value.expose().to_owned()),
        ),
        ("env_file", Effect::AgentRestart, env_files(of)),
        (
            "instructions",
            Effect::AgentRestart,
            parts(of.instructions.values().cloned()),
        ),
        (
            "bashrc",
            Effect::NewShells,
            parts(of.bashrc.values().cloned()),
        ),
        (
            "init_script",
            Effect::NextBoot,
            parts(of.init_scripts.values().map(init)),
        ),
        ("skill", Effect::AgentRestart, named(&of.skills, as_json)),
        (
            "mcp_server",
            Effect::AgentRestart,
            named(&of.mcp_servers, as_json),
        ),
        ("plugin", Effect::AgentRestart, named(&of.plugins, as_json)),
        (
            "marketplace",
            Effect::AgentRestart,
            named(&of.marketplaces, as_json),
        ),
        (
            "setting",
            Effect::AgentRestart,
            of.settings()
                .iter()
                .map(|(key, value)| (key.clone(), value.to_string()))
                .collect(),
        ),
    ]
}

fn named<T>(items: &BTreeMap<String, Sourced<T>>, content: impl Fn(&T) -> String) -> Contents {
    items
        .iter()
        .map(|(name, item)| (name.clone(), content(&item.value)))
        .collect()
}

fn as_json<T: Serialize>(value: &T) -> String {
    // These types are plain data; an unwritable one would compare as empty.
    serde_json::to_string(value).unwrap_or_default()
}

/// Concatenated texts count as one item.
fn parts(texts: impl Iterator<Item = String>) -> Contents {
    let texts: Vec<String> = texts.collect();
    if texts.is_empty() {
        Contents::new()
    } else {
        Contents::from([(String::new(), texts.join("\0"))])
    }
}

fn env_files(of: &Configuration) -> Contents {
    let text = |parts: &BTreeMap<LayerName, Sensitive>| {
        parts
            .values()
            .map(Sensitive::expose)
            .collect::<Vec<_>>()
            .join("\n")
    };
    of.env_files
        .iter()
        .map(|(name, parts)| (name.clone(), text(parts)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::layers::merge;
    use serde_json::{Value, json};

    fn configuration(layers: Value) -> Configuration {
        merge(&serde_json::from_value::<Vec<_>>(layers).unwrap(), None)
    }

    fn compared(old: Value, new: Value) -> Vec<(&'static str, String, Kind, Effect)> {
        let found = changes(&configuration(old), &configuration(new));
        found
            .into_iter()
            .map(|change| (change.item, change.name, change.kind, change.effect))
            .collect()
    }

    /// One layer with something of everything.
    fn full(layer: &str, text: &str) -> Value {
        json!([{"layer":layer,"instructions":text,"env":{"A":text},"env_files":{".env":format!("B={text}")},"init_script":text,
            "bashrc":text,"skills":[{"name":"s","files":{"SKILL.md":text}}],"mcp_servers":{"m":{"command":text}},
            "plugins":{"enabled":{"p@m":text == "x"},"marketplaces":{"k":text}},"settings":{"a":{"b":text}}}])
    }

    #[test]
    fn the_same_from_another_layer_is_no_change() {
        assert_eq!(compared(full("user", "x"), full("user", "x")), []);
        assert_eq!(compared(full("user", "x"), full("task", "x")), []);
    }

    #[test]
    fn every_kind_of_item_is_compared_and_has_its_effect() {
        let expect = |kind| {
            [
                ("env", "A", Effect::AgentRestart),
                ("env_file", ".env", Effect::AgentRestart),
                ("instructions", "", Effect::AgentRestart),
                ("bashrc", "", Effect::NewShells),
                ("init_script", "", Effect::NextBoot),
                ("skill", "s", Effect::AgentRestart),
                ("mcp_server", "m", Effect::AgentRestart),
                ("plugin", "p@m", Effect::AgentRestart),
                ("marketplace", "k", Effect::AgentRestart),
                ("setting", "a", Effect::AgentRestart),
            ]
            .map(|(item, name, effect)| (item, name.to_owned(), kind, effect))
        };
        assert_eq!(
            compared(full("user", "x"), full("user", "y")),
            expect(Kind::Changed)
        );
        assert_eq!(compared(json!([]), full("user", "x")), expect(Kind::Added));
        assert_eq!(
            compared(full("user", "x"), json!([])),
            expect(Kind::Removed)
        );
    }

    #[test]
    fn what_a_higher_layer_covers_does_not_change() {
        let with = |low: &str| json!([{"layer":"team","env":{"A":low},"instructions":low},{"layer":"user","env":{"A":"x"}}]);
        assert_eq!(
            compared(with("1"), with("2")),
            [(
                "instructions",
                String::new(),
                Kind::Changed,
                Effect::AgentRestart
            )]
        );
    }

    #[test]
    fn what_an_agent_does_not_know_yet_is_told_whatever_came_between() {
        let started = loaded(&configuration(full("user", "x")), "salt");
        let now = |text: &str| loaded(&configuration(full("task", text)), "salt");
        assert!(unknown(&started, &now("x")).is_empty());
        let pointers: Vec<String> = unknown(&started, &now("y")).into_iter().collect();
        assert_eq!(
            pointers,
            [
                "/env/A",
                "/env_files/.env",
                "/instructions",
                "/mcp_servers/m",
                "/plugins/enabled/p@m",
                "/plugins/marketplaces/k",
                "/settings/a",
                "/skills/s"
            ]
        );
        assert!(!format!("{:?}", now("hunter2")).contains("hunter2"));
        let other = loaded(&configuration(full("user", "x")), "another");
        assert_eq!(
            unknown(&started, &other).len(),
            8,
            "fingerprints are salted"
        );
        let found = changes(&configuration(json!([])), &configuration(full("user", "x")));
        let pointers: Vec<String> = found.iter().map(Change::pointer).collect();
        assert!(
            pointers.contains(&"/bashrc".to_owned()) && pointers.contains(&"/env/A".to_owned())
        );
    }

    #[test]
    fn values_do_not_show() {
        let found = changes(
            &configuration(json!([])),
            &configuration(full("user", "hunter2")),
        );
        assert!(
            !format!("{found:?}{}", serde_json::to_string(&found).unwrap()).contains("hunter2")
        );
    }
}
