//! Asks OpenRouter afterwards what a call cost whose answer did not say.
//!
//! `GET /generation?id=` answers 404 for a while, longer after a cancelled stream, so it is asked again after 1, 2, 4 …
//! [`LAST`] seconds, [`TRIES`] times in all; then the estimate stands. The call keeps its slot in the ledger meanwhile,
//! and its line is written once, with the final cost. At most [`AT_ONCE`] calls are asked about at a time; for more the
//! estimate stands at once. <https://openrouter.ai/docs/api-reference/get-a-generation>

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::time::{sleep, timeout};
use whim_wire::generation::{CostSource, LedgerLine, Usage};
use whim_wire::money::NanoUsd;

use super::body::RequestBody;
use super::json::{Path, Reader, Scalar, Visit};
use super::ledger::slots::Slot;
use super::money::AttoUsd;
use super::provider::Upstream;
use super::proxy::GenerationProxy;
use super::route::Operation;

/// Calls that are asked about at a time.
pub(super) const AT_ONCE: usize = 64;
const TRIES: u32 = 9;
const LAST: Duration = Duration::from_secs(60);
/// Bytes of an answer that are read.
const ANSWER: usize = 256 << 10;
/// More than any one call costs.
const CREDIBLE: NanoUsd = NanoUsd(1_000_000_000_000);

#[derive(Debug, Default)]
struct Found {
    total: Option<NanoUsd>,
    upstream: NanoUsd,
    byok: bool,
    prompt: Option<u64>,
    output: Option<u64>,
    cached: u64,
    reasoning: u64,
}

impl Visit for Found {
    fn scalar(&mut self, path: &Path, value: Scalar<'_>) {
        if path.len() != 2 || path.key(0) != b"data" {
            return;
        }
        let money = |text| {
            AttoUsd::parse(text)
                .ok()
                .map(AttoUsd::ceil_nano)
                .filter(|usd| *usd <= CREDIBLE)
        };
        match (path.key(1), value) {
            (b"total_cost", Scalar::Number(text)) => self.total = money(text),
            (b"upstream_inference_cost", Scalar::Number(text)) => {
                self.upstream = money(text).unwrap_or_default()
            }
            (b"is_byok", Scalar::Bool(byok)) => self.byok = byok,
            (b"native_tokens_prompt", Scalar::Number(text)) => self.prompt = text.parse().ok(),
            (b"native_tokens_completion", Scalar::Number(text)) => self.output = text.parse().ok(),
            (b"native_tokens_cached", Scalar::Number(text)) => {
                self.cached = text.parse().unwrap_or(0)
            }
            (b"native_tokens_reasoning", Scalar::Number(text)) => {
                self.reasoning = text.parse().unwrap_or(0)
            }
            _ => {}
        }
    }
}

impl Found {
    fn cost(&self) -> Option<NanoUsd> {
        let own = if self.byok {
            self.upstream
        } else {
            NanoUsd::ZERO
        };
        self.total.map(|total| total.saturating_add(own))
    }

    fn usage(&self) -> Option<Usage> {
        let (prompt, output) = (self.prompt?, self.output?);
        Some(Usage {
            input_tokens: prompt.saturating_sub(self.cached),
            cache_read_tokens: self.cached,
            output_tokens: output,
            reasoning_tokens: self.reasoning,
            ..Usage::default()
        })
    }
}

/// Asks until there is an answer, then writes the call's line.
pub(super) async fn run(
    proxy: Arc<GenerationProxy>,
    upstream: Upstream,
    provisional: LedgerLine,
    slot: Option<Slot>,
) {
    let id = provisional.generation_id.clone().unwrap_or_default();
    let mut pause = proxy.limits.reconcile;
    let mut line = provisional.clone();
    for _ in 0..TRIES {
        sleep(pause).await;
        pause = (pause * 2).min(LAST);
        let Some(found) = ask(&proxy, &upstream, &id).await else {
            continue;
        };
        let Some(cost) = found.cost() else { continue };
        line.cost_usd = cost;
        line.cost_source = CostSource::Provider;
        line.usage = found.usage().unwrap_or(line.usage);
        let warning = proxy.budget().correct(provisional.cost_usd, cost);
        proxy.tell_warning(0, &Arc::from(line.session.as_str()), warning);
        break;
    }
    proxy.ledger.finish(&provisional, line, slot);
}

async fn ask(proxy: &GenerationProxy, upstream: &Upstream, id: &str) -> Option<Found> {
    let query: String = id
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        .collect();
    let mut request = Request::new(RequestBody::whole(&[]));
    *request.method_mut() = Method::GET;
    *request.uri_mut() = upstream
        .path("/v1/generation", Some(&format!("id={query}")))
        .parse()
        .ok()?;
    request
        .headers_mut()
        .insert(http::header::HOST, upstream.host().clone());
    if !proxy
        .credentials
        .apply(upstream.provider, Operation::Models, request.headers_mut())
    {
        return None;
    }
    let call = async {
        let answer = proxy
            .pool
            .call(&upstream.target, request, false)
            .await
            .ok()?;
        if answer.status() != StatusCode::OK {
            return None;
        }
        let body = http_body_util::Limited::new(answer.into_body(), ANSWER)
            .collect()
            .await
            .ok()?;
        let (mut reader, mut found) = (Reader::default(), Found::default());
        reader.feed(&body.to_bytes(), &mut found);
        Some(found)
    };
    timeout(Duration::from_secs(10), call).await.ok()?
}
