//! Merging of the configuration layers. Pure.
//!
//! Priority rises as [`LayerName`] is declared. Environment, MCP servers, plugins and skills merge by name, the higher
//! layer wins; instructions, init script and bashrc are concatenated, low to high; settings merge by key into objects,
//! everything else in them is replaced, and an object does not show through a lower layer's plain value.
//!
//! A [`Configuration`] remembers for every item which layer it came from, so that merging is associative, commutative
//! and idempotent: neither the order of the layers in a spec nor merging in steps can change the result. (A spec with
//! the same layer twice is refused before it comes here.)

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use whim_wire::spec::{InitUser, Layer, LayerName, McpServer, Sensitive};

/// A value and the layer that it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    pub value: T,
    pub layer: LayerName,
}

/// A layer's init script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitScript {
    pub text: String,
    /// Already limited to what the layer may ask for.
    pub user: InitUser,
}

/// What all layers together say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Configuration {
    pub instructions: BTreeMap<LayerName, String>,
    pub init_scripts: BTreeMap<LayerName, InitScript>,
    pub bashrc: BTreeMap<LayerName, String>,
    pub env: BTreeMap<String, Sourced<Sensitive>>,
    /// By file name; a file that several layers have is read low to high.
    pub env_files: BTreeMap<String, BTreeMap<LayerName, Sensitive>>,
    /// Files by name of the skill.
    pub skills: BTreeMap<String, Sourced<BTreeMap<String, String>>>,
    pub mcp_servers: BTreeMap<String, Sourced<McpServer>>,
    pub plugins: BTreeMap<String, Sourced<bool>>,
    pub marketplaces: BTreeMap<String, Sourced<Value>>,
    settings: Node,
}

/// Merges all layers of a spec. `init_user`: who runs the init script of a layer that does not say so itself.
pub fn merge(layers: &[Layer], init_user: Option<InitUser>) -> Configuration {
    layers
        .iter()
        .map(|layer| Configuration::of(layer, init_user))
        .fold(Configuration::default(), Configuration::merged)
}

/// Whether this layer may have its init script run by root: only those that the platform and its administrators write.
pub fn may_run_as_root(layer: LayerName) -> bool {
    layer <= LayerName::Workspace
}

impl Configuration {
    /// What one layer says.
    pub fn of(from: &Layer, init_user: Option<InitUser>) -> Self {
        let layer = from.layer;
        let part = |text: &Option<String>| -> BTreeMap<LayerName, String> {
            let text = text.as_ref().filter(|text| !text.trim().is_empty());
            text.map(|text| (layer, text.clone())).into_iter().collect()
        };
        fn sourced<K: Ord + Clone, V: Clone>(
            layer: LayerName,
            map: &BTreeMap<K, V>,
        ) -> BTreeMap<K, Sourced<V>> {
            map.iter()
                .map(|(name, value)| {
                    (
                        name.clone(),
                        Sourced {
                            value: value.clone(),
                            layer,
                        },
                    )
                })
                .collect()
        }
        let user = match from.init_user.or(init_user) {
            Some(InitUser::Root) if may_run_as_root(layer) => InitUser::Root,
            _ => InitUser::User,
        };
        Self {
            instructions: part(&from.instructions),
            init_scripts: part(&from.init_script)
                .into_iter()
                .map(|(layer, text)| (layer, InitScript { text, user }))
                .collect(),
            bashrc: part(&from.bashrc),
            env: sourced(layer, &from.env),
            env_files: from
                .env_files
                .iter()
                .map(|(name, text)| (name.clone(), BTreeMap::from([(layer, text.clone())])))
                .collect(),
            skills: from
                .skills
                .iter()
                .map(|skill| {
                    (
                        skill.name.clone(),
                        Sourced {
                            value: skill.files.clone(),
                            layer,
                        },
                    )
                })
                .collect(),
            mcp_servers: sourced(layer, &from.mcp_servers),
            plugins: sourced(layer, &from.plugins.enabled),
            marketplaces: sourced(layer, &from.plugins.marketplaces),
            settings: Node::from_object(layer, &from.settings),
        }
    }

    /// Both together; which is given first does not matter.
    #[must_use]
    pub fn merged(mut self, other: Self) -> Self {
        self.instructions.extend(other.instructions);
        self.init_scripts.extend(other.init_scripts);
        self.bashrc.extend(other.bashrc);
        for (name, parts) in other.env_files {
            self.env_files.entry(name).or_default().extend(parts);
        }
        raise(&mut self.env, other.env);
        raise(&mut self.skills, other.skills);
        raise(&mut self.mcp_servers, other.mcp_servers);
        raise(&mut self.plugins, other.plugins);
        raise(&mut self.marketplaces, other.marketplaces);
        self.settings.merge(other.settings);
        self
    }

    /// The Markdown for the agent, each layer's part under a comment that names it. `None`: no layer has any.
    pub fn instructions_text(&self) -> Option<String> {
        joined(&self.instructions, |layer| {
            format!("<!-- instructions: {layer} -->")
        })
    }

    /// The bashrc addition, each layer's part under a comment that names it. `None`: no layer has any.
    pub fn bashrc_text(&self) -> Option<String> {
        joined(&self.bashrc, |layer| format!("# bashrc: {layer}"))
    }

    /// All init scripts as one text for people to read; run are the parts, so that a failure can be named.
    pub fn init_script_text(&self) -> Option<String> {
        let parts = self
            .init_scripts
            .iter()
            .map(|(layer, script)| (*layer, script.text.clone()))
            .collect();
        joined(&parts, |layer| format!("# init: {layer}"))
    }

    /// The merged settings.
    pub fn settings(&self) -> Map<String, Value> {
        match self.settings.resolve(None) {
            Some(Value::Object(map)) => map,
            _ => Map::new(),
        }
    }

    /// Every final plain value of the settings by JSON pointer, with its layer.
    pub fn settings_sources(&self) -> Vec<(String, Sourced<Value>)> {
        let mut out = Vec::new();
        self.settings.sources(None, "", &mut out);
        out
    }
}

fn joined(
    parts: &BTreeMap<LayerName, String>,
    header: impl Fn(LayerName) -> String,
) -> Option<String> {
    let texts: Vec<String> = parts
        .iter()
        .map(|(layer, text)| format!("{}\n{}\n", header(*layer), text.trim_end_matches('\n')))
        .collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

/// Takes each name from the higher layer.
fn raise<T>(into: &mut BTreeMap<String, Sourced<T>>, from: BTreeMap<String, Sourced<T>>) {
    use std::collections::btree_map::Entry;
    for (name, new) in from {
        match into.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(new);
            }
            Entry::Occupied(mut entry) if entry.get().layer <= new.layer => {
                entry.insert(new);
            }
            Entry::Occupied(_) => {}
        }
    }
}

/// What the layers say at one place of the settings. Nothing that could still matter is decided while merging: which of
/// plain value and object wins is settled when the result is read.
#[derive(Clone, Debug, Default, PartialEq)]
struct Node {
    /// The highest layer's plain value (anything but an object).
    plain: Option<Sourced<Value>>,
    /// The highest layer that has an object here.
    object: Option<LayerName>,
    /// Members of all objects here.
    members: BTreeMap<String, Self>,
}

impl Node {
    fn from_value(layer: LayerName, value: &Value) -> Self {
        match value {
            Value::Object(map) => Self::from_object(layer, map),
            _ => Self {
                plain: Some(Sourced {
                    value: value.clone(),
                    layer,
                }),
                ..Self::default()
            },
        }
    }

    fn from_object(layer: LayerName, map: &Map<String, Value>) -> Self {
        let members = map
            .iter()
            .map(|(key, value)| (key.clone(), Self::from_value(layer, value)))
            .collect();
        Self {
            plain: None,
            object: Some(layer),
            members,
        }
    }

    fn merge(&mut self, other: Self) {
        if let Some(new) = other.plain
            && self.plain.as_ref().is_none_or(|old| old.layer <= new.layer)
        {
            self.plain = Some(new);
        }
        self.object = self.object.max(other.object);
        for (key, node) in other.members {
            self.members.entry(key).or_default().merge(node);
        }
    }

    /// Whether the object wins over the plain value, and below which layer members do not count (`floor`: of the
    /// surrounding object).
    fn object_above(&self, floor: Option<LayerName>) -> Option<Option<LayerName>> {
        let floor = floor.max(self.plain.as_ref().map(|plain| plain.layer));
        (self.object > floor).then_some(floor)
    }

    fn resolve(&self, floor: Option<LayerName>) -> Option<Value> {
        if let Some(floor) = self.object_above(floor) {
            let members = self
                .members
                .iter()
                .filter_map(|(key, node)| Some((key.clone(), node.resolve(floor)?)));
            return Some(Value::Object(members.collect()));
        }
        self.plain_above(floor).map(|plain| plain.value.clone())
    }

    fn plain_above(&self, floor: Option<LayerName>) -> Option<&Sourced<Value>> {
        self.plain
            .as_ref()
            .filter(|plain| Some(plain.layer) > floor)
    }

    fn sources(
        &self,
        floor: Option<LayerName>,
        pointer: &str,
        out: &mut Vec<(String, Sourced<Value>)>,
    ) {
        if let Some(floor) = self.object_above(floor) {
            for (key, node) in &self.members {
                node.sources(floor, &super::document::pointer(pointer, key), out);
            }
        } else if let Some(plain) = self.plain_above(floor) {
            out.push((pointer.to_owned(), plain.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
