//! Whether the provider is there and takes the key, asked before an agent stumbles over it.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use whim_proxies::generation::probe::Probe;
use whim_proxies::generation::provider::Upstream;
use whim_wire::spec::ProviderKind;

use super::Spending;
use crate::board::Board;

/// For the answer to a probe; longer than a connection may take to come about, so that the two can be told apart.
const PATIENCE: Duration = Duration::from_secs(15);
/// A boot waits no longer for the answer of a provider that takes connections.
const SLOW: Duration = Duration::from_secs(2);
/// For how long a boot tries to reach a provider that is not there, and the pause between two tries. A proxy beside the
/// container may come up a moment later than it.
const REACH: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(500);
/// Between two probes while something is wrong: at first, and doubled up to the last.
const FIRST: Duration = Duration::from_secs(5);
const LAST: Duration = Duration::from_secs(300);
/// Longest cause in a sentence for people, in bytes.
const MAX_ERROR: usize = 300;

/// What a probe found.
#[derive(Debug)]
pub struct Found {
    /// In a sentence; `None`: there is nobody to ask.
    told: Option<Result<(), String>>,
    reached: bool,
}

impl Spending {
    /// Waits until the provider answers anything at all, and tells the board what it found; `None`: it takes
    /// connections and is slow to answer.
    ///
    /// # Errors
    /// It cannot be reached, with the reason, after [`REACH`].
    pub async fn reach(&self, kind: ProviderKind, board: &Board) -> Result<Option<Found>, String> {
        let begun = Instant::now();
        let mut known = None;
        loop {
            let mut look = std::pin::pin!(self.look(kind, false));
            let found = match timeout(SLOW, &mut look).await {
                Ok(found) => found,
                Err(_) if self.connects(kind).await => return Ok(None),
                Err(_) => look.await,
            };
            if known != found.told {
                tell(&found, board);
                known.clone_from(&found.told);
            }
            match found {
                Found {
                    told: Some(Err(error)),
                    reached: false,
                } => {
                    if begun.elapsed() >= REACH {
                        return Err(error);
                    }
                }
                found => return Ok(Some(found)),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Tells the board whether the provider is there and takes the key: now (`found`: what was just found), after each
    /// change of a key, and as long as something is wrong. `silent`: nobody needs a provider (a `custom` agent), so no
    /// key is no error. Never returns; the agent is never held up by it.
    pub async fn watch(
        &self,
        kind: ProviderKind,
        silent: bool,
        mut found: Option<Found>,
        board: &Board,
    ) {
        let mut pause = FIRST;
        loop {
            let now = match found.take() {
                Some(found) => found,
                None => {
                    let found = self.look(kind, silent).await;
                    tell(&found, board);
                    found
                }
            };
            if matches!(now.told, Some(Ok(())) | None) {
                self.rekeyed.notified().await;
                pause = FIRST;
                continue;
            }
            tokio::select! {
                () = self.rekeyed.notified() => pause = FIRST,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LAST),
            }
        }
    }

    async fn connects(&self, kind: ProviderKind) -> bool {
        match self.upstream(kind) {
            Ok(upstream) => self.proxy.connects(&upstream).await,
            Err(_) => false,
        }
    }

    async fn look(&self, kind: ProviderKind, silent: bool) -> Found {
        let upstream = match self.upstream(kind) {
            Ok(upstream) => upstream,
            Err(error) => {
                return Found {
                    told: (!silent).then(|| Err(error.to_string())),
                    reached: true,
                };
            }
        };
        let probe = self.proxy.probe(&upstream, PATIENCE).await;
        Found {
            told: told(&probe, kind, &upstream, silent),
            reached: !matches!(probe, Probe::Unreachable(_)),
        }
    }
}

fn tell(found: &Found, board: &Board) {
    let Some(told) = &found.told else { return };
    if let Err(error) = told {
        tracing::warn!(error, "model calls will fail");
    }
    board.provider(told.clone());
}

/// A probe's outcome in a sentence for people, with the remedy.
fn told(
    found: &Probe,
    kind: ProviderKind,
    upstream: &Upstream,
    silent: bool,
) -> Option<Result<(), String>> {
    let at = &upstream.target;
    Some(match found {
        Probe::Good => Ok(()),
        Probe::NoKey if silent => return None,
        Probe::NoKey => Err(format!(
            "model calls fail: there is no key for {kind}; set one with PUT /v1/credentials"
        )),
        Probe::Refused => Err(format!(
            "model calls fail: {kind} at {at} does not take the key; set another with PUT /v1/credentials"
        )),
        Probe::Trouble(status) => Err(format!(
            "model calls may fail: {kind} at {at} answers {status}"
        )),
        Probe::Silent(patience) => Err(format!(
            "model calls may fail: {kind} at {at} did not answer within {} s",
            patience.as_secs()
        )),
        Probe::Unreachable(why) => Err(format!(
            "model calls fail: {kind} cannot be reached: {}",
            crate::state::observation::clean(why, MAX_ERROR)
        )),
    })
}

#[cfg(test)]
mod tests {
    use whim_proxies::generation::provider::Provider;

    use super::*;

    #[test]
    fn what_is_wrong_with_the_provider_is_said_with_its_remedy() {
        let upstream = Upstream::new(Provider::Anthropic, None).unwrap();
        let said = |found| told(&found, ProviderKind::Anthropic, &upstream, false);
        assert_eq!(said(Probe::Good), Some(Ok(())));
        let refused = said(Probe::Refused).unwrap().unwrap_err();
        assert!(
            refused.contains("anthropic at api.anthropic.com:443"),
            "{refused}"
        );
        assert!(refused.contains("PUT /v1/credentials"), "{refused}");
        let gone = said(Probe::Unreachable("line one\nline two\u{1b}".into()));
        let gone = gone.unwrap().unwrap_err();
        assert!(gone.contains("line one line two"), "{gone}");
        let nobody = told(&Probe::NoKey, ProviderKind::Anthropic, &upstream, true);
        assert_eq!(nobody, None);
        assert!(said(Probe::NoKey).unwrap().is_err());
    }
}
