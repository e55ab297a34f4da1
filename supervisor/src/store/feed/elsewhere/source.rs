//! What a file of another task's snapshot is: of which session, and how it is read. Pure.

use whim_wire::search::Kind;
use whim_wire::spec::AgentKind;

use super::super::super::{Origin, commands};
use crate::backup::manifest::{self, File, Manifest, Place};
use crate::conversation::place::is_plain;

/// A file that can be searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) origin: Origin,
    pub(super) reads: Reads,
}

/// What its lines are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    Turns {
        kind: AgentKind,
        /// Whose transcript it is; none: the session's own.
        subagent: Option<String>,
    },
    Commands,
}

/// `None`: there is nothing in it for a search, or nobody can say whose it is.
pub(super) fn of(manifest: &Manifest, file: &File) -> Option<Source> {
    if file.place != Place::Home || file.damaged_copy_of.is_some() {
        return None;
    }
    match file.kind {
        manifest::Kind::Shell => shell(manifest, file),
        manifest::Kind::Conversation => conversation(manifest, file),
        _ => None,
    }
}

fn shell(manifest: &Manifest, file: &File) -> Option<Source> {
    let (_, name) = file.path.rsplit_once('/')?;
    Some(Source {
        origin: Origin {
            task: Some(manifest.task.clone()),
            kind: Kind::Shell,
            session: commands::terminal(name)?.to_owned(),
            agent: None,
            agent_session_id: None,
            name: name.to_owned(),
        },
        reads: Reads::Commands,
    })
}

fn conversation(manifest: &Manifest, file: &File) -> Option<Source> {
    let stem = file.path.strip_suffix(".jsonl")?;
    // Claude Code's: `<transcript>/subagents/agent-<id>.jsonl`.
    let (main, subagent) = match stem.split_once("/subagents/") {
        Some((main, name)) => (main, Some(name.strip_prefix("agent-")?)),
        None => (stem, None),
    };
    let transcript = format!("{main}.jsonl");
    let mut sessions = manifest.sessions.iter();
    let session = sessions.find(|session| session.transcript.as_deref() == Some(&*transcript));
    // Claude Code writes it for the router, too.
    let agent = match session {
        Some(session) => session.agent.clone(),
        None => file.agent.clone()?,
    };
    let kind = kind(&agent).or_else(|| kind(file.agent.as_deref()?))?;
    let known = session.and_then(|session| session.agent_session_id.as_deref());
    let id = known.or_else(|| named(kind, main))?;
    if !is_plain(id) || !subagent.is_none_or(is_plain) {
        return None;
    }
    let name = match subagent {
        Some(subagent) => format!("{id}/{subagent}"),
        None => id.to_owned(),
    };
    Some(Source {
        origin: Origin {
            task: Some(manifest.task.clone()),
            kind: Kind::Conversation,
            // A conversation that its session left, or that was never one of the host's, goes by the agent's name for it.
            session: session.map_or(id, |session| &session.id).to_owned(),
            agent: Some(agent),
            agent_session_id: Some(id.to_owned()),
            name,
        },
        reads: Reads::Turns {
            kind,
            subagent: subagent.map(str::to_owned),
        },
    })
}

/// The agents whose transcripts can be read.
fn kind(agent: &str) -> Option<AgentKind> {
    let kind = serde_json::from_value(agent.into()).ok()?;
    (kind != AgentKind::Custom).then_some(kind)
}

/// What the agent calls the session of a transcript at this path, its ending left out.
fn named(kind: AgentKind, path: &str) -> Option<&str> {
    let (directory, name) = path.rsplit_once('/')?;
    match kind {
        AgentKind::Claude | AgentKind::Ccr => Some(name),
        // `rollout-<time>-<UUID>`
        AgentKind::Codex => name.get(name.len().checked_sub(36)?..),
        // `<id>/events`
        AgentKind::Copilot if name == "events" => directory.rsplit('/').next(),
        AgentKind::Copilot | AgentKind::Custom => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const UUID: &str = "11111111-1111-4111-8111-111111111111";

    fn found(path: &str, kind: &str, agent: Option<&str>) -> Option<Source> {
        let file = json!({"place": "home", "path": path, "kind": kind, "agent": agent, "mode": 384, "bytes": 0,
            "sha256": "0".repeat(64), "pieces": []});
        let session = json!({"id": "main", "agent": "ccr", "agent_session_id": UUID, "cwd": "/app/repo",
            "transcript": format!(".claude/projects/-app-repo/{UUID}.jsonl")});
        let manifest: Manifest = serde_json::from_value(json!({"version": 1, "task": "ww-2",
            "id": "20261122T030405.678Z-0123abcd", "taken_at": "2026-11-22T03:04:05.678Z", "reason": "now", "whim": "0",
            "places": {"home": "", "checkout": "", "state": ""}, "sessions": [session], "segments": [], "files": [file]}))
        .unwrap();
        of(&manifest, &manifest.files[0])
    }

    #[test]
    fn a_file_is_of_its_session() {
        let other = "22222222-2222-4222-8222-222222222222";
        let project = ".claude/projects/-app-repo";
        let cases = [
            (
                format!("{project}/{UUID}.jsonl"),
                "claude",
                "main",
                "ccr",
                UUID.to_owned(),
                AgentKind::Ccr,
            ),
            (
                format!("{project}/{UUID}/subagents/agent-a1.jsonl"),
                "claude",
                "main",
                "ccr",
                format!("{UUID}/a1"),
                AgentKind::Ccr,
            ),
            (
                format!("{project}/{other}.jsonl"),
                "claude",
                other,
                "claude",
                other.to_owned(),
                AgentKind::Claude,
            ),
            (
                format!(".codex/sessions/2026/11/22/rollout-2026-11-22T03-04-05-{other}.jsonl"),
                "codex",
                other,
                "codex",
                other.to_owned(),
                AgentKind::Codex,
            ),
            (
                format!(".copilot/session-state/{other}/events.jsonl"),
                "copilot",
                other,
                "copilot",
                other.to_owned(),
                AgentKind::Copilot,
            ),
        ];
        for (path, of, session, agent, name, kind) in cases {
            let Source { origin, reads } = found(&path, "conversation", Some(of)).unwrap();
            assert_eq!(
                (&*origin.session, origin.agent.as_deref(), &*origin.name),
                (session, Some(agent), &*name),
                "{path}"
            );
            assert_eq!(origin.task.as_deref(), Some("ww-2"));
            assert!(
                matches!(reads, Reads::Turns { kind: read, .. } if read == kind),
                "{path}"
            );
        }
        let path = ".local/state/whim/history/shell-1.commands";
        let shell = found(path, "shell", None).unwrap();
        assert_eq!(
            (&*shell.origin.session, shell.reads),
            ("shell-1", Reads::Commands)
        );
    }

    #[test]
    fn what_is_no_transcript_is_passed_over() {
        for (path, kind, agent) in [
            (".claude/todos/a.json", "conversation", Some("claude")),
            (
                ".claude/projects/-app-repo/a b.jsonl",
                "conversation",
                Some("claude"),
            ),
            (
                ".copilot/session-state/x/other.jsonl",
                "conversation",
                Some("copilot"),
            ),
            (".codex/sessions/short.jsonl", "conversation", Some("codex")),
            (".claude/projects/-app-repo/a.jsonl", "conversation", None),
            (".local/state/whim/history/notes.txt", "shell", None),
            ("generations.jsonl", "ledger", None),
        ] {
            assert_eq!(found(path, kind, agent), None, "{path}");
        }
    }
}
