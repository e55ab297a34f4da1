//! What an earlier supervisor left running, sorted by what becomes of it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::init_script;
use crate::keeper::Process;
use crate::sessions::{self, Adopted};

/// Processes of an earlier supervisor, by what becomes of them.
pub(super) struct Processes {
    /// By session.
    pub(super) sessions: BTreeMap<String, Process>,
    /// What runs beside the agents, by session.
    pub(super) companions: BTreeMap<String, Vec<Process>>,
    /// Init scripts, or what they left running, by name.
    pub(super) inits: BTreeMap<String, Process>,
    pub(super) shells: Vec<Process>,
    pub(super) others: Vec<Process>,
}

impl Processes {
    pub(super) fn sort(processes: Vec<Process>) -> Self {
        let mut left = Self {
            sessions: BTreeMap::new(),
            companions: BTreeMap::new(),
            inits: BTreeMap::new(),
            shells: Vec::new(),
            others: Vec::new(),
        };
        for process in processes {
            if let Some(id) = sessions::session_of_companion(process.name()).map(str::to_owned) {
                left.companions.entry(id).or_default().push(process);
                continue;
            }
            match sessions::session_of(process.name()) {
                Some(id) => drop(left.sessions.insert(id.to_owned(), process)),
                None if process.name().starts_with(init_script::PREFIX) => {
                    left.inits.insert(process.name().to_owned(), process);
                }
                None if process.name().starts_with("shell/") => left.shells.push(process),
                None => left.others.push(process),
            }
        }
        left
    }

    /// What runs for this session.
    pub(super) fn adopt(&mut self, session: &str) -> Option<Adopted> {
        let process = self.sessions.remove(session)?;
        let companions = self.companions.remove(session).unwrap_or_default();
        Some(Adopted {
            process,
            companions,
        })
    }

    /// A half-done git, a helper without its supervisor: the step that needs one starts its own.
    pub(super) async fn end_others(&mut self) {
        for process in self.others.drain(..) {
            let name = process.name().to_owned();
            let ended = async {
                process.end(Duration::from_secs(1)).await?;
                process.acknowledge().await
            };
            if let Err(error) = ended.await {
                tracing::warn!(name, %error, "a process of the supervisor before could not be ended");
            }
        }
    }
}
