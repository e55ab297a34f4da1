mod file;
mod others;
mod rows;
mod search;

use super::query::Asked;
use super::*;
use whim_wire::search::{Hit, Kind};

fn origin(session: &str) -> Origin {
    Origin {
        task: None,
        kind: Kind::Conversation,
        session: session.into(),
        agent: Some("claude".into()),
        agent_session_id: Some(format!("id-{session}")),
        name: "transcript".into(),
    }
}

fn turn(place: u64, at: &str, text: &str) -> Document {
    Document {
        place,
        at: Some(at.parse().unwrap()),
        text: text.into(),
        what: What::Turn {
            id: place.to_string(),
            role: "user".into(),
            subagent: None,
        },
    }
}

fn batch(session: &str, after: Option<&str>, cursor: &str, documents: Vec<Document>) -> Batch {
    Batch {
        origin: origin(session),
        after: after.map(str::to_owned),
        anew: false,
        documents,
        cursor: Some(cursor.into()),
        names: Vec::new(),
    }
}

fn asked(asked: &Asked<'_>) -> Query {
    Query::parse(asked, "2026-11-22T12:00:00Z".parse().unwrap()).unwrap()
}

fn words(q: &str) -> Query {
    asked(&Asked {
        q: Some(q),
        ..Asked::default()
    })
}

struct Place {
    directory: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(&directory.path().join("store.db")).unwrap();
        Self { directory, store }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("store.db")
    }

    async fn found(&self, q: &str) -> Vec<Hit> {
        self.store.search(words(q)).await.unwrap().results
    }
}

const AT: &str = "2026-11-22T10:00:00.000Z";
