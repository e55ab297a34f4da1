//! The turns of a session's transcripts: the present one, those before it, and those of its sub-agents.

use std::path::Path;

use whim_wire::conversation::{Conversation, Part, Turn};
use whim_wire::search::Kind;

use super::super::text::of_turn;
use super::super::{Batch, Document, Origin, What};
use super::{FeedError, Feeder};
use crate::conversation::cursor::Cursor;
use crate::conversation::place;
use crate::conversation::reader::{Asked, Known};

/// Turns of one page: what a search may have to wait for.
pub(super) const TURNS: usize = 200;

impl Feeder {
    /// Reads what a session's transcripts have more of.
    pub(super) async fn session(&mut self, session: &str) -> Result<(), FeedError> {
        let conversations = self.setup.conversations.clone();
        let Some(known) = conversations.known(session).await? else {
            return Ok(());
        };
        let Some(present) = known.agent_session_id().map(str::to_owned) else {
            return Ok(());
        };
        if self.read.get(session) != Some(&present) {
            // A conversation that was cleared may have ended with words that were not read yet.
            let all = origin(session, &known, "");
            let sources = self.setup.store.sources(&all).await?;
            let before = sources
                .iter()
                .filter(|name| !name.contains('/') && **name != present);
            for transcript in before {
                self.conversation(session, &known.with_conversation(transcript))
                    .await?;
            }
            self.read.insert(session.to_owned(), present);
        }
        self.conversation(session, &known).await
    }

    /// Reads what one conversation of a session has more of, and its sub-agents.
    async fn conversation(&mut self, session: &str, known: &Known) -> Result<(), FeedError> {
        let conversations = self.setup.conversations.clone();
        let Some(path) = conversations.transcript(session, known, None).await? else {
            return Ok(());
        };
        if let Some(directory) = path.parent() {
            self.watch(directory, session).await;
        }
        self.transcript(session, known, None, &path).await?;
        for subagent in self.subagents(session, known, &path).await? {
            let own = conversations
                .transcript(session, known, Some(&subagent))
                .await?;
            // Without one its turns are among those of the session.
            if let Some(path) = own {
                self.transcript(session, known, Some(&subagent), &path)
                    .await?;
            }
        }
        Ok(())
    }

    /// Sub-agents that have a file, or that a turn named.
    async fn subagents(
        &mut self,
        session: &str,
        known: &Known,
        main: &Path,
    ) -> Result<Vec<String>, FeedError> {
        let helper = &self.setup.helper;
        let files = place::subagent_files(helper, known.agent, main).await?;
        let mut subagents: Vec<String> = files.into_iter().map(|(id, _)| id).collect();
        if !subagents.is_empty()
            && let Some(directory) = place::subagents_of(known.agent, main)
        {
            self.watch(&directory, session).await;
        }
        let sources = self
            .setup
            .store
            .sources(&origin(session, known, ""))
            .await?;
        let prefix = format!("{}/", known.agent_session_id().unwrap_or_default());
        let named = sources.iter().filter_map(|name| name.strip_prefix(&prefix));
        for name in named {
            if !subagents.iter().any(|subagent| subagent == name) {
                subagents.push(name.to_owned());
            }
        }
        Ok(subagents)
    }

    async fn transcript(
        &mut self,
        session: &str,
        known: &Known,
        subagent: Option<&str>,
        path: &Path,
    ) -> Result<(), FeedError> {
        let stamp = match self.setup.helper.stat(path).await {
            Ok(entry) => entry.stamp,
            // Gone since it was found: what it said stays.
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if self.is_seen(path, &stamp) {
            return Ok(());
        }
        let id = known.agent_session_id().unwrap_or_default();
        let name = match subagent {
            Some(subagent) => format!("{id}/{subagent}"),
            None => id.to_owned(),
        };
        let origin = origin(session, known, &name);
        let mut after = self.setup.store.cursor(&origin).await?;
        loop {
            let asked = Asked {
                // One that cannot be read is as good as none: the page says that it begins anew.
                after: after
                    .as_deref()
                    .and_then(|cursor| cursor.parse::<Cursor>().ok()),
                limit: TURNS,
                all: false,
                recent: false,
                subagent: subagent.map(str::to_owned),
            };
            let begins = asked.after.is_none();
            let reached = self
                .setup
                .conversations
                .page(session, known, &asked)
                .await?;
            let page = reached.page;
            let Some(next) = page.next.clone() else {
                return Ok(());
            };
            let anew = page.reset || begins;
            if Some(&next) != after.as_ref() || anew {
                let more = page.more;
                let batch = self.batch(origin.clone(), page, after, anew).await?;
                self.setup.store.append(batch).await?;
                after = Some(next);
                if more {
                    continue;
                }
            }
            self.see(path, stamp);
            return Ok(());
        }
    }

    /// The rows of a page, without secrets.
    async fn batch(
        &self,
        origin: Origin,
        page: Conversation,
        after: Option<String>,
        anew: bool,
    ) -> Result<Batch, FeedError> {
        let secrets = self.setup.secrets.clone();
        let id = origin.agent_session_id.clone().unwrap_or_default();
        let made = tokio::task::spawn_blocking(move || {
            let mask = secrets.mask();
            let mut names = Vec::new();
            let mut documents = Vec::new();
            for turn in &page.turns {
                for name in named(turn) {
                    let name = format!("{id}/{name}");
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
                let text = mask.hide(of_turn(turn));
                if !text.trim().is_empty() {
                    documents.push(document(turn, text));
                }
            }
            (documents, names)
        });
        let (documents, names) = made.await.map_err(|_| FeedError::GivenUp)?;
        Ok(Batch {
            origin,
            after,
            anew,
            documents,
            cursor: page.next,
            names,
        })
    }
}

fn origin(session: &str, known: &Known, name: &str) -> Origin {
    Origin {
        task: None,
        kind: Kind::Conversation,
        session: session.to_owned(),
        agent: Some(known.agent.to_string()),
        agent_session_id: known.agent_session_id().map(str::to_owned),
        name: name.to_owned(),
    }
}

pub(super) fn document(turn: &Turn, text: String) -> Document {
    // As in the JSON of a conversation.
    let role = serde_json::to_value(turn.role).ok();
    let role = role.as_ref().and_then(serde_json::Value::as_str);
    Document {
        place: turn.offset,
        at: turn.at,
        text,
        what: What::Turn {
            id: turn.id.clone(),
            role: role.unwrap_or_default().to_owned(),
            subagent: turn.subagent.clone(),
        },
    }
}

/// Sub-agents that a turn names and that may have a transcript of their own.
fn named(turn: &Turn) -> impl Iterator<Item = &str> {
    let parts = turn.parts.iter();
    parts
        .filter_map(|part| match part {
            Part::ToolResult { subagent, .. } => subagent.as_deref(),
            Part::Subagent { id, .. } => Some(id.as_str()),
            _ => None,
        })
        .filter(|id| place::is_plain(id))
}
