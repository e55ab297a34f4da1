//! How long each session's last prompt was, to estimate how much of the next one its provider's cache holds.
//!
//! Bounded: [`ENTRIES`] pairs of session and model; a new one beyond that takes the oldest's place. An entry is worth
//! nothing after [`LIFE`], the shortest life of a provider's cache.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use whim_wire::generation::Usage;

const ENTRIES: usize = 256;
const LIFE: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(super) struct Prompts(HashMap<(String, String), (Instant, u64)>);

impl Prompts {
    /// Tokens that are probably cached.
    pub(super) fn cached(&self, session: &str, model: Option<&str>) -> u64 {
        let key = (session.to_owned(), model.unwrap_or_default().to_owned());
        match self.0.get(&key) {
            Some((at, tokens)) if at.elapsed() < LIFE => *tokens,
            _ => 0,
        }
    }

    /// Remembers a call that used a cache.
    pub(super) fn remember(&mut self, session: &str, model: Option<&str>, usage: &Usage) {
        let cached = usage.prompt_tokens().saturating_sub(usage.input_tokens);
        if cached == 0 {
            return;
        }
        let key = (session.to_owned(), model.unwrap_or_default().to_owned());
        if self.0.len() >= ENTRIES
            && !self.0.contains_key(&key)
            && let Some(oldest) = self
                .0
                .iter()
                .min_by_key(|(_, (at, _))| *at)
                .map(|(key, _)| key.clone())
        {
            self.0.remove(&oldest);
        }
        self.0.insert(key, (Instant::now(), cached));
    }
}
