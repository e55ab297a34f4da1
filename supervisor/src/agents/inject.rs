//! What every agent gets in its own way: instructions, skills, MCP servers.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::edit::{Block, Edit, FileEdit, JsonEdit};
use super::setup::{McpServer, Setup};

/// Files that may name a secret (MCP servers' environment).
pub(super) const PRIVATE: u32 = 0o600;
pub(super) const PUBLIC: u32 = 0o644;

/// The merged instructions as a marked part of `path`. Without instructions the part of an earlier start is removed.
pub(super) fn instructions(setup: &Setup, path: PathBuf) -> FileEdit {
    FileEdit {
        path,
        mode: PUBLIC,
        edit: Edit::Block(Block::markdown(
            setup
                .instructions
                .clone()
                .filter(|text| !text.trim().is_empty()),
        )),
    }
}

/// Every file of every skill below `directory`.
pub(super) fn skills(setup: &Setup, directory: &Path) -> Vec<FileEdit> {
    setup
        .skills
        .iter()
        .flat_map(|skill| {
            let files = super::skill::files(&skill.name, &skill.files);
            files.into_iter().map(|(name, content)| FileEdit {
                path: directory.join(&skill.name).join(name),
                mode: PUBLIC,
                edit: Edit::Replace(content.into_bytes()),
            })
        })
        .collect()
}

/// `mcpServers` in the shape that Claude Code and Copilot share.
pub(super) fn mcp_servers(setup: &Setup, stdio_type: &str) -> Map<String, Value> {
    setup
        .mcp_servers
        .iter()
        .map(|(name, server)| {
            let value = match server {
                McpServer::Stdio { command, args, env } => {
                    json!({"type": stdio_type, "command": command, "args": args, "env": env})
                }
                McpServer::Http { url, headers } => {
                    json!({"type": "http", "url": url, "headers": headers})
                }
            };
            (name.clone(), value)
        })
        .collect()
}

/// A JSON file whose `mcpServers` hold ours beside those that are there.
pub(super) fn mcp_file(path: PathBuf, servers: &Map<String, Value>) -> FileEdit {
    let edit = servers
        .iter()
        .fold(JsonEdit::new(), |edit, (name, server)| {
            edit.set(&["mcpServers", name], server.clone())
        });
    FileEdit {
        path,
        mode: PRIVATE,
        edit: Edit::Json(edit),
    }
}
