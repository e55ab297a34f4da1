//! How an agent begins: with a new conversation, its own from before, or one that it forks; and with which first prompt.

use whim_wire::spec::Mode;

use super::launch::Ground;
use super::record::{Record, Restored, fresh_id};
use crate::agents::setup::Conversation;
use crate::conversation::place::{self, Whose};

/// The conversation of the next run. `first`: no run of this record was given its prompt yet.
pub(super) async fn conversation(ground: &Ground, record: &Record, first: bool) -> Conversation {
    let fork_of = record.restored.as_ref().and_then(|it| it.fork_of.as_ref());
    if let Some(from) = fork_of
        && (first || !is_written(ground, record).await)
    {
        return Conversation::Fork {
            from: from.clone(),
            id: record.agent_session_id.clone().unwrap_or_else(fresh_id),
        };
    }
    let goes_on = !first || record.restored.is_some();
    match record.agent_session_id.clone() {
        Some(id) if goes_on && !begins_anew(record, first) => Conversation::Resume { id },
        Some(id) => Conversation::New { id },
        None => Conversation::New { id: fresh_id() },
    }
}

/// A restored session that is told of the one before and is not it.
fn begins_anew(record: &Record, first: bool) -> bool {
    let told = |restored: &Restored| restored.brief.is_some();
    first && record.restored.as_ref().is_some_and(told)
}

/// Whether the fork has a transcript of its own: an agent that ended before it wrote one has to fork again.
async fn is_written(ground: &Ground, record: &Record) -> bool {
    let Some(id) = record.agent_session_id.clone() else {
        return false;
    };
    let whose = Whose {
        kind: record.agent,
        home: ground.paths.home().to_owned(),
        cwd: record.directory.clone(),
        id,
    };
    match place::find(&ground.helper, &whose).await {
        Ok(found) => found.is_some(),
        Err(error) => {
            // Resuming what is there comes before forking once more.
            tracing::warn!(%error, session = record.id, "its transcript cannot be looked for");
            true
        }
    }
}

/// The prompt of the first run.
pub(super) fn prompt(record: &Record, prompt: Option<&str>) -> Option<String> {
    let Some(restored) = &record.restored else {
        return prompt.map(str::to_owned);
    };
    // One run, one prompt: it asked for this one now.
    let asks_again = record.mode != Mode::Oneshot
        && restored.fork_of.is_none()
        && prompt.is_some_and(|prompt| restored.begun_with.as_deref() == Some(&digest(prompt)));
    let prompt = prompt.filter(|_| !asks_again);
    match (&restored.brief, prompt) {
        (Some(brief), Some(prompt)) => Some(format!("{brief}\n{prompt}")),
        (Some(brief), None) => Some(brief.clone()),
        (None, prompt) => prompt.map(str::to_owned),
    }
}

/// What [`Restored::begun_with`] keeps of a prompt.
#[must_use]
pub fn digest(prompt: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(prompt.trim())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use whim_wire::spec::AgentKind;

    use super::*;

    fn restored(mode: Mode, restored: Restored) -> Record {
        let mut record = Record::new("main", AgentKind::Claude, mode, "/app/repo".into(), 0);
        record.restored = Some(restored);
        record
    }

    #[test]
    fn a_prompt_that_the_conversation_holds_is_not_given_twice() {
        let known = Restored {
            begun_with: Some(digest("do it\n")),
            ..Restored::default()
        };
        let record = restored(Mode::Interactive, known.clone());
        assert_eq!(prompt(&record, Some("do it")), None);
        assert_eq!(
            prompt(&record, Some("and that")).as_deref(),
            Some("and that")
        );
        let oneshot = restored(Mode::Oneshot, known.clone());
        assert_eq!(prompt(&oneshot, Some("do it")).as_deref(), Some("do it"));
        let fork = Restored {
            fork_of: Some("x".into()),
            ..known
        };
        let fork = restored(Mode::Interactive, fork);
        assert_eq!(prompt(&fork, Some("do it")).as_deref(), Some("do it"));
    }

    #[test]
    fn a_brief_comes_before_the_prompt() {
        let brief = Restored {
            brief: Some("Before:\n".into()),
            ..Restored::default()
        };
        let record = restored(Mode::Interactive, brief);
        assert_eq!(
            prompt(&record, Some("go on")).as_deref(),
            Some("Before:\n\ngo on")
        );
        assert_eq!(prompt(&record, None).as_deref(), Some("Before:\n"));
    }
}
