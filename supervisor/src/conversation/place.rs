//! Where a session's transcript is. What can be told from the id is told; the rest is looked for, newest first.

use std::path::{Path, PathBuf};

use whim_wire::conversation::{Conversation, Subagent};
use whim_wire::spec::AgentKind;

use crate::agents::observe::transcript::{is_rollout_of, path};
use crate::helper::{Entry, EntryKind, Helper, HelperError};

/// Directories that a search looks into: rollouts of years, or a thousand projects.
const SEARCHED: usize = 1000;
/// A sub-agent's `.meta.json` is a few hundred bytes.
const MAX_META: usize = 64 * 1024;

/// Whose transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    pub kind: AgentKind,
    /// Home of the agents' user.
    pub home: PathBuf,
    /// The agent's working directory.
    pub cwd: PathBuf,
    /// What the agent calls the session.
    pub id: String,
}

/// Whether a name of the agent's is one path component and nothing else.
#[must_use]
pub fn is_plain(id: &str) -> bool {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
    !id.is_empty() && id.len() <= 128 && id.chars().all(plain)
}

/// The transcript, if it is there.
///
/// # Errors
/// What the helper says; a directory that is not there is none.
pub async fn find(helper: &Helper, whose: &Whose) -> Result<Option<PathBuf>, HelperError> {
    if !is_plain(&whose.id) {
        return Ok(None);
    }
    if let Some(path) = path(whose.kind, &whose.home, &whose.cwd, &whose.id)
        && is_file(helper, &path).await?
    {
        return Ok(Some(path));
    }
    match whose.kind {
        AgentKind::Claude | AgentKind::Ccr => project(helper, &whose.home, &whose.id).await,
        AgentKind::Codex => rollout(helper, &whose.home, &whose.id).await,
        AgentKind::Copilot | AgentKind::Custom => Ok(None),
    }
}

/// Claude Code's, of a working directory whose name it shortened or resolved.
async fn project(helper: &Helper, home: &Path, id: &str) -> Result<Option<PathBuf>, HelperError> {
    let projects = home.join(".claude/projects");
    let mut directories = entries(helper, &projects).await?;
    directories.retain(|entry| entry.kind == EntryKind::Directory);
    directories.sort_by_key(|entry| std::cmp::Reverse(entry.stamp.modified));
    for directory in directories.into_iter().take(SEARCHED) {
        let path = projects.join(directory.name).join(format!("{id}.jsonl"));
        if is_file(helper, &path).await? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Codex's: `sessions/YYYY/MM/DD/rollout-<time>-<id>.jsonl`.
async fn rollout(helper: &Helper, home: &Path, id: &str) -> Result<Option<PathBuf>, HelperError> {
    let mut looked = 0;
    let sessions = home.join(".codex/sessions");
    for year in newest_first(helper, &sessions).await? {
        for month in newest_first(helper, &year).await? {
            for day in newest_first(helper, &month).await? {
                looked += 1;
                if looked > SEARCHED {
                    tracing::warn!(id, "a rollout was not looked for in older directories");
                    return Ok(None);
                }
                let files = entries(helper, &day).await?;
                if let Some(file) = files.iter().find(|file| is_rollout_of(&file.name, id)) {
                    return Ok(Some(day.join(&file.name)));
                }
            }
        }
    }
    Ok(None)
}

async fn newest_first(helper: &Helper, directory: &Path) -> Result<Vec<PathBuf>, HelperError> {
    let mut names: Vec<String> = entries(helper, directory)
        .await?
        .into_iter()
        .filter(|entry| entry.kind == EntryKind::Directory)
        .map(|entry| entry.name)
        .collect();
    names.sort_by(|a, b| b.cmp(a));
    Ok(names.into_iter().map(|name| directory.join(name)).collect())
}

/// The directory of a session's sub-agents, where its kind of agent keeps one.
#[must_use]
pub fn subagents_of(kind: AgentKind, transcript: &Path) -> Option<PathBuf> {
    matches!(kind, AgentKind::Claude | AgentKind::Ccr)
        .then(|| transcript.with_extension("").join("subagents"))
}

/// A sub-agent's own transcript, where its kind of agent keeps one.
///
/// # Errors
/// As [`find`].
pub async fn find_subagent(
    helper: &Helper,
    whose: &Whose,
    transcript: &Path,
    id: &str,
) -> Result<Option<PathBuf>, HelperError> {
    if !is_plain(id) {
        return Ok(None);
    }
    match whose.kind {
        AgentKind::Claude | AgentKind::Ccr => {
            let path = transcript.with_extension("").join("subagents");
            let path = path.join(format!("agent-{id}.jsonl"));
            Ok(is_file(helper, &path).await?.then_some(path))
        }
        AgentKind::Codex => rollout(helper, &whose.home, id).await,
        AgentKind::Copilot | AgentKind::Custom => Ok(None),
    }
}

/// Claude Code's sub-agents of a session, with what their `.meta.json` tells.
///
/// # Errors
/// As [`find`].
pub async fn subagents(
    helper: &Helper,
    kind: AgentKind,
    transcript: &Path,
) -> Result<Vec<Subagent>, HelperError> {
    let Some(directory) = subagents_of(kind, transcript) else {
        return Ok(Vec::new());
    };
    let files = subagent_files(helper, kind, transcript).await?;
    let skipped = files.len().saturating_sub(Conversation::SUBAGENTS_MAX);
    let mut found = Vec::new();
    for (id, entry) in files.into_iter().skip(skipped) {
        let meta = directory.join(format!("agent-{id}.meta.json"));
        let meta = match helper.read(&meta, MAX_META).await {
            Ok((content, _)) => serde_json::from_slice(&content).unwrap_or_default(),
            // Not written yet, or not at all: the id and the transcript do.
            Err(HelperError::Io { .. }) => serde_json::Value::Null,
            Err(error) => return Err(error),
        };
        let text = |name: &str| {
            let text: String = meta.get(name)?.as_str()?.chars().take(1000).collect();
            Some(text)
        };
        found.push(Subagent {
            id,
            kind: text("agentType"),
            description: text("description"),
            call_id: text("toolUseId"),
            bytes: entry.stamp.size,
        });
    }
    Ok(found)
}

/// Ids of a session's sub-agents and their transcripts, the one that wrote last at the end.
///
/// # Errors
/// As [`find`].
pub async fn subagent_files(
    helper: &Helper,
    kind: AgentKind,
    transcript: &Path,
) -> Result<Vec<(String, Entry)>, HelperError> {
    let Some(directory) = subagents_of(kind, transcript) else {
        return Ok(Vec::new());
    };
    let mut files: Vec<(String, Entry)> = entries(helper, &directory)
        .await?
        .into_iter()
        .filter_map(|entry| {
            let name = entry.name.strip_prefix("agent-")?.strip_suffix(".jsonl")?;
            is_plain(name).then(|| (name.to_owned(), entry.clone()))
        })
        .collect();
    files.sort_by_key(|(_, entry)| entry.stamp.modified);
    Ok(files)
}

async fn is_file(helper: &Helper, path: &Path) -> Result<bool, HelperError> {
    match helper.stat(path).await {
        Ok(entry) => Ok(entry.kind == EntryKind::File),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

async fn entries(helper: &Helper, directory: &Path) -> Result<Vec<Entry>, HelperError> {
    match helper.list(directory).await {
        Ok(entries) => Ok(entries),
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
