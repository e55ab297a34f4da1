//! One layer of the configuration.
//!
//! Maps are ordered by name, so that the order within a layer cannot matter.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Sensitive, UnknownWord, words};

words! {
    /// Whose configuration this is. The order of declaration is the rising priority.
    LayerName {
        Platform = "platform",
        Team = "team",
        Workspace = "workspace",
        User = "user",
        WorkspaceUser = "workspace_user",
        Task = "task",
    }
}

words! {
    /// Who runs the init script of a layer.
    InitUser {
        /// The agents' user.
        User = "user",
        /// root; honoured for `platform`, `team` and `workspace` only.
        Root = "root",
    }
}

/// One layer of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Layer {
    pub layer: LayerName,
    /// Markdown for the agent; concatenated over the layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// Environment of agents, shells, init script, hooks and MCP servers; merged by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Sensitive>,
    /// Files in `.env` syntax, by file name (`.env`, `.env.local`); `.env` first, then by name, the later file wins.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env_files: BTreeMap<String, Sensitive>,
    /// Shell script run before the agent starts; concatenated over the layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_script: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_user: Option<InitUser>,
    /// Added to the user's bashrc; concatenated over the layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bashrc: Option<String>,
    /// Merged by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skills: Vec<Skill>,
    /// Merged by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mcp_servers: BTreeMap<String, McpServer>,
    #[serde(default, skip_serializing_if = "Plugins::is_empty")]
    pub plugins: Plugins,
    /// Settings of the agent's own settings file; objects merge by key, anything else is replaced.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub settings: serde_json::Map<String, serde_json::Value>,
}

impl Layer {
    /// A layer that says nothing.
    pub fn empty(layer: LayerName) -> Self {
        Self {
            layer,
            instructions: None,
            env: BTreeMap::new(),
            env_files: BTreeMap::new(),
            init_script: None,
            init_user: None,
            bashrc: None,
            skills: Vec::new(),
            mcp_servers: BTreeMap::new(),
            plugins: Plugins::default(),
            settings: serde_json::Map::new(),
        }
    }
}

/// A skill: a directory with a `SKILL.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Skill {
    /// Name of its directory and of its command.
    pub name: String,
    /// Content by relative path; at most 50 files and 2 MB in all.
    pub files: BTreeMap<String, String>,
}

/// A server of the Model Context Protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum McpServer {
    /// A program that speaks over its standard streams.
    Stdio {
        command: String,
        #[serde(default)]
        args: Vec<Sensitive>,
        #[serde(default)]
        env: BTreeMap<String, Sensitive>,
    },
    /// Streamable HTTP.
    Http {
        url: Sensitive,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        headers: BTreeMap<String, Sensitive>,
    },
}

/// Plugins of the agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plugins {
    /// `plugin@marketplace`: on or off.
    #[serde(default)]
    pub enabled: BTreeMap<String, bool>,
    /// Marketplaces by name, as the agent's settings file describes them.
    #[serde(default)]
    pub marketplaces: BTreeMap<String, serde_json::Value>,
}

impl Plugins {
    pub fn is_empty(&self) -> bool {
        self.enabled.is_empty() && self.marketplaces.is_empty()
    }
}
