//! What a restore will do: which file goes where, and what the session begins with. Pure.
//!
//! A manifest comes from a store that others write to, so it decides nothing about where something is written: a file has
//! to be of a kind that is restored and to lie where files of that kind lie, or it is left out and told. What configures a
//! program (settings, hooks, start files) is never restored.
//!
//! Claude Code keeps a conversation below a name made of its working directory; that name is made anew for the checkout
//! here. Codex and Copilot name theirs by date and id. A fork of Copilot's, whose CLI cannot fork, is a copy under a new id.

use std::path::{Component, Path, PathBuf};

use whim_wire::spec::{AgentKind, RestoreMode};

use crate::agents;
use crate::agents::observe::transcript::{claude_project, is_rollout_of};
use crate::backup::collect::{HOME, is_ledger};
use crate::backup::manifest::{File, Kind, Manifest, Place, Session};
use crate::conversation::place::is_plain;
use crate::sessions::check_id;

use super::rewrite::Rewrite;

/// Where Claude Code keeps its conversations, below the home.
const PROJECTS: &str = ".claude/projects";
/// Copilot's.
const STATES: &str = ".copilot/session-state";

/// What is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    pub mode: RestoreMode,
    /// Another agent than the one that was saved.
    pub agent: Option<AgentKind>,
    /// A new session that is told of the one before, instead of that one.
    pub summary: bool,
}

/// Places of this root.
#[derive(Clone, Debug)]
pub struct Target {
    pub home: PathBuf,
    pub checkout: PathBuf,
    pub state: PathBuf,
}

/// A file of the manifest and its place here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Index into [`Manifest::files`].
    pub file: usize,
    pub to: PathBuf,
    pub place: Place,
    /// What it says about where its session lives, said anew.
    pub rewrite: Option<Rewrite>,
}

/// What a session begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    pub agent: AgentKind,
    /// Whose conversation it was.
    pub before: AgentKind,
    /// Its own, that goes on; none: the CLI gives a new one.
    pub agent_session_id: Option<String>,
    /// The agent's session that its CLI forks.
    pub fork_of: Option<String>,
    /// A new session, told of the one before.
    pub told: bool,
    /// The conversation before: index into [`Manifest::files`].
    pub transcript: usize,
}

/// See the module's header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub placed: Vec<Placed>,
    /// None: no conversation was saved, `main` begins anew.
    pub begin: Option<Begin>,
    /// What the others go on from, once somebody asks for a session of their name.
    pub beside: Vec<(String, Begin)>,
    /// What a person should know, a sentence each.
    pub notes: Vec<String>,
}

/// A manifest that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("the backup names {0:?}, which leads outside of its place: it is not restored")]
    Path(String),
    #[error("the backup names {0:?} as an agent's session: it is not restored")]
    Session(String),
    #[error("two files of the backup would become {path}", path = .0.display())]
    Twice(PathBuf),
}

/// Makes the plan. `fresh`: a new id, for a copied session.
///
/// # Errors
/// [`PlanError`]: nothing of such a manifest is restored.
pub fn plan(
    manifest: &Manifest,
    target: &Target,
    wish: &Wish,
    fresh: &str,
) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    let main = manifest
        .sessions
        .iter()
        .find(|session| session.id == "main")
        .or_else(|| manifest.sessions.first());
    plan.begin = match main {
        Some(session) => begin(manifest, session, wish, fresh, &mut plan.notes)?,
        None => None,
    };
    let copied = plan.begin.as_ref().and_then(|begin| {
        let copies = begin.agent == AgentKind::Copilot && wish.mode == RestoreMode::Fork;
        let from = main?.agent_session_id.clone()?;
        (copies && !begin.told).then(|| (from, fresh.to_owned()))
    });
    let moved = projects(manifest, target);
    let mut skipped = 0_usize;
    for (index, file) in manifest.files.iter().enumerate() {
        let path = relative(&file.path)?;
        let found = match file.place {
            Place::Home => at_home(file, path, target, &moved, copied.as_ref()),
            Place::State => in_state(file, path, target, wish.mode),
            Place::Code => continue,
        };
        match found {
            Some(to) => plan.placed.push(Placed {
                file: index,
                rewrite: rewrite(path, manifest, target, copied.as_ref()),
                to,
                place: file.place,
            }),
            None if file.kind == Kind::Ledger || file.kind == Kind::Journal => {}
            None => skipped += 1,
        }
    }
    if skipped > 0 {
        plan.notes.push(format!(
            "{skipped} files of the backup are none that are restored, and stay there"
        ));
    }
    for session in &manifest.sessions {
        if main.is_none_or(|main| main.id == session.id) {
            continue;
        }
        plan.notes.push(match beside(manifest, session, wish)? {
            Some(begin) => {
                plan.beside.push((session.id.clone(), begin));
                format!(
                    "session {0} is not started by itself: POST /v1/sessions with {{\"id\":\"{0}\"}} goes on with it",
                    session.id
                )
            }
            None => format!(
                "session {} is there to be looked at, and cannot be gone on with",
                session.id
            ),
        });
    }
    unique(&plan.placed)?;
    Ok(plan)
}

/// A path of plain components below its place.
fn relative(path: &str) -> Result<&Path, PlanError> {
    let bad = || PlanError::Path(path.to_owned());
    let parsed = Path::new(path);
    let plain = parsed
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let clean = !path.is_empty() && !path.contains('\0') && !path.split('/').any(is_dots);
    (plain && clean).then_some(parsed).ok_or_else(bad)
}

fn is_dots(part: &str) -> bool {
    matches!(part, "" | "." | "..")
}

fn unique(placed: &[Placed]) -> Result<(), PlanError> {
    let mut seen = std::collections::HashSet::new();
    for file in placed {
        if !seen.insert(&file.to) {
            return Err(PlanError::Twice(file.to.clone()));
        }
    }
    Ok(())
}

/// Claude Code's names of working directories before, and here.
fn projects(manifest: &Manifest, target: &Target) -> Vec<(String, String)> {
    let old = Path::new(&manifest.places.checkout);
    let here = |cwd: &Path| {
        if let Ok(rest) = cwd.strip_prefix(old) {
            return Some(if rest == Path::new("") {
                target.checkout.clone()
            } else {
                target.checkout.join(rest)
            });
        }
        // Worktrees lie beside the checkout.
        let rest = cwd.strip_prefix(old.parent()?).ok()?;
        Some(target.checkout.parent()?.join(rest))
    };
    let sessions = manifest
        .sessions
        .iter()
        .map(|session| Path::new(&session.cwd));
    sessions
        .chain([old])
        .filter(|cwd| cwd.is_absolute())
        .filter_map(|cwd| Some((claude_project(cwd), claude_project(&here(cwd)?))))
        .collect()
}

fn at_home(
    file: &File,
    path: &Path,
    target: &Target,
    moved: &[(String, String)],
    copied: Option<&(String, String)>,
) -> Option<PathBuf> {
    let (place, ..) = HOME.iter().find(|(place, kind, _)| {
        let rest = path.strip_prefix(place);
        *kind == file.kind && rest.is_ok_and(|rest| rest != Path::new(""))
    })?;
    let rest = path.strip_prefix(place).ok()?;
    let mut parts = rest.components();
    let first = parts.next()?.as_os_str().to_str()?;
    let below = parts.as_path();
    let base = target.home.join(place);
    let under = |name: &str| {
        if below == Path::new("") {
            base.join(name)
        } else {
            base.join(name).join(below)
        }
    };
    if *place == PROJECTS
        && let Some((_, new)) = moved.iter().find(|(old, _)| old == first)
    {
        return Some(under(new));
    }
    if *place == STATES
        && let Some((old, new)) = copied
        && first == old
    {
        return Some(under(new));
    }
    Some(base.join(rest))
}

/// Codex's and Copilot's records of where a session lives, where that changed.
fn rewrite(
    path: &Path,
    manifest: &Manifest,
    target: &Target,
    copied: Option<&(String, String)>,
) -> Option<Rewrite> {
    let copilot = path.strip_prefix(STATES).ok();
    let codex = path.starts_with(".codex/sessions") || path.starts_with(".codex/archived_sessions");
    let extension = path.extension().and_then(|extension| extension.to_str());
    let lines = extension == Some("jsonl");
    if copilot.is_none() && !(codex && lines) {
        return None;
    }
    let (old, new) = (manifest.places.checkout.as_str(), target.checkout.to_str()?);
    let mut pairs = Vec::new();
    if old != new && Path::new(old).components().count() > 1 {
        // The path and what lies below it, and none that only begins alike.
        for end in ["\"", "/"] {
            pairs.push((format!("\"{old}{end}"), format!("\"{new}{end}")));
        }
        if !lines {
            for end in ["\n", "/"] {
                pairs.push((format!(": {old}{end}"), format!(": {new}{end}")));
            }
        }
    }
    let own = |(id, _): &&(String, String)| copilot.is_some_and(|rest| rest.starts_with(id));
    if let Some((id, fresh)) = copied.filter(own) {
        pairs.push((id.clone(), fresh.clone()));
    }
    let only: &'static [&'static str] = match (lines, codex) {
        (false, _) => &[],
        (true, true) => &[
            "\"type\":\"session_meta\"",
            "\"type\":\"turn_context\"",
            "\"type\":\"world_state\"",
            "\"type\":\"thread_settings_applied\"",
        ],
        (true, false) => &["\"type\":\"session."],
    };
    let text = lines || matches!(extension, Some("yaml" | "yml" | "json"));
    (text && !pairs.is_empty()).then_some(Rewrite { pairs, only })
}

/// Ledger and journal belong to the task: a fork is a new one, and begins its own.
fn in_state(file: &File, path: &Path, target: &Target, mode: RestoreMode) -> Option<PathBuf> {
    let name = path.to_str()?;
    let fits = match file.kind {
        Kind::Ledger => is_ledger(name),
        Kind::Journal => path.starts_with("journal"),
        Kind::Recording => path.starts_with("terminals"),
        Kind::Conversation | Kind::Shell | Kind::Code => false,
    };
    let own = mode == RestoreMode::Resume || file.kind == Kind::Recording;
    (fits && own).then(|| target.state.join(path))
}

fn begin(
    manifest: &Manifest,
    session: &Session,
    wish: &Wish,
    fresh: &str,
    notes: &mut Vec<String>,
) -> Result<Option<Begin>, PlanError> {
    let Some(before) = kind(&session.agent) else {
        notes.push(format!(
            "the conversation was held by an agent that is not known here: {:?}",
            session.agent
        ));
        return Ok(None);
    };
    let agent = wish.agent.unwrap_or(before);
    if agent == AgentKind::Custom {
        notes.push("a custom agent has no conversation that goes on: main begins anew".into());
        return Ok(None);
    }
    let Some(id) = &session.agent_session_id else {
        notes.push("no conversation was saved: main begins a new one".into());
        return Ok(None);
    };
    if !is_plain(id) {
        return Err(PlanError::Session(id.clone()));
    }
    let Some(transcript) = transcript(manifest, session, before, id) else {
        notes.push(format!(
            "the conversation {id} is not in the backup: main begins a new one"
        ));
        return Ok(None);
    };
    let told = wish.summary || !same_family(before, agent);
    let forks = wish.mode == RestoreMode::Fork;
    let by_cli = agents::of(agent).forks();
    let (own, fork_of) = match (told, forks, by_cli) {
        (true, ..) => (None, None),
        (false, false, _) => (Some(id.clone()), None),
        (false, true, true) => (None, Some(id.clone())),
        (false, true, false) => (Some(fresh.to_owned()), None),
    };
    Ok(Some(Begin {
        agent,
        before,
        agent_session_id: own,
        fork_of,
        told,
        transcript,
    }))
}

/// Its own agent goes on, or forks; a copied session has one new id only, which is `main`'s.
fn beside(manifest: &Manifest, session: &Session, wish: &Wish) -> Result<Option<Begin>, PlanError> {
    if check_id(&session.id).is_err() {
        return Ok(None);
    }
    let own = Wish {
        mode: wish.mode,
        ..Wish::default()
    };
    let begin = begin(manifest, session, &own, "", &mut Vec::new())?;
    Ok(begin.filter(|begin| begin.agent_session_id.as_deref() != Some("")))
}

fn kind(name: &str) -> Option<AgentKind> {
    let kind: AgentKind = name.parse().ok()?;
    (kind != AgentKind::Custom).then_some(kind)
}

/// The router's agent is Claude Code.
fn same_family(one: AgentKind, other: AgentKind) -> bool {
    let family = |kind| match kind {
        AgentKind::Ccr => AgentKind::Claude,
        kind => kind,
    };
    family(one) == family(other)
}

/// The good file of the conversation, wherever the manifest says it is.
fn transcript(manifest: &Manifest, session: &Session, kind: AgentKind, id: &str) -> Option<usize> {
    let is_it = |file: &File| {
        if file.kind != Kind::Conversation || file.place != Place::Home {
            return false;
        }
        if file.damaged_copy_of.is_some() {
            return false;
        }
        if session.transcript.as_deref() == Some(file.path.as_str()) {
            return true;
        }
        let path = Path::new(&file.path);
        let name = path.file_name().and_then(|name| name.to_str());
        match kind {
            AgentKind::Claude | AgentKind::Ccr => {
                path.starts_with(PROJECTS)
                    && path.components().count() == 4
                    && name.and_then(|name| name.strip_suffix(".jsonl")) == Some(id)
            }
            AgentKind::Codex => {
                path.starts_with(".codex/sessions")
                    && name.is_some_and(|name| is_rollout_of(name, id))
            }
            AgentKind::Copilot => path == Path::new(STATES).join(id).join("events.jsonl"),
            AgentKind::Custom => false,
        }
    };
    manifest.files.iter().position(is_it)
}

#[cfg(test)]
mod tests;
