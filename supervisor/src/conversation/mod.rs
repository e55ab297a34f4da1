//! Conversations: what an agent wrote into its transcript, told in one shape (`whim_wire::conversation`).
//!
//! - [`turn`]: one line of a transcript → one turn, with a reader per agent (`claude`, `codex`, `copilot`). Pure; any bytes
//!   make a turn.
//! - [`lines`], [`page`], [`cursor`]: cutting, collecting a page, and where to go on. Pure.
//! - [`order`], [`markdown`]: turns for people to read. Pure.
//! - [`place`], [`reader`]: which file it is, and reading it in pieces through the helper, as the agents' user.
//!
//! Bounds: a line of [`lines::MAX_LINE`], a page of [`page::BYTES`]; one page is read at a time in the whole supervisor.

mod claude;
mod codex;
mod copilot;
pub mod cursor;
mod draft;
pub mod lines;
pub mod markdown;
mod object;
pub mod order;
pub mod page;
pub mod place;
pub mod reader;
#[cfg(test)]
mod tests;

use whim_wire::conversation::{Role, Turn};
use whim_wire::spec::AgentKind;

use draft::Draft;
use lines::Line;
use object::Object;

/// What a line says. `subagent`: whose transcript it is of; none: the session's own.
#[must_use]
pub fn turn(kind: AgentKind, line: &Line, subagent: Option<&str>) -> Turn {
    let text = object::mended(line.content());
    let record = text.as_deref().and_then(Object::parse);
    let read = record.as_ref().and_then(|record| match kind {
        AgentKind::Claude | AgentKind::Ccr => claude::read(record),
        AgentKind::Codex => codex::read(record),
        AgentKind::Copilot => copilot::read(record),
        AgentKind::Custom => None,
    });
    let blank = line.content().trim_ascii().is_empty();
    let mut draft = read.unwrap_or_else(|| {
        let role = if blank { Role::Record } else { Role::Unknown };
        let name = record.as_ref().map(|record| record.word("type"));
        Draft::new(role, name.unwrap_or_default())
    });
    if matches!(draft.turn.role, Role::Record | Role::Unknown) {
        match &text {
            Some(text) => draft.raw(text),
            None => draft.raw(&String::from_utf8_lossy(line.content())),
        }
    }
    let mut turn = draft.done();
    turn.offset = line.offset;
    turn.bytes = line.bytes.len() as u64;
    turn.id = match subagent {
        Some(subagent) => format!("{subagent}:{}", line.offset),
        None => line.offset.to_string(),
    };
    if turn.subagent.is_none() {
        turn.subagent = subagent.map(str::to_owned);
    }
    turn
}
