//! One model call's account: what it may cost, what it did cost, and its end, exactly once.
//!
//! A call is admitted (money held, slot taken, activity told) before anything goes upstream. Whoever holds it settles
//! it; if it is dropped unsettled, the agent left before an answer, and that is settled.

mod estimate;

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use whim_wire::generation::{CostSource, LedgerLine, Outcome, Usage};
use whim_wire::money::NanoUsd;
use whim_wire::time::Time;

use super::activity::{InFlight, Purpose, What};
use super::budget::{ALLOWANCE_TOKENS, Denied, Hold};
use super::ledger::slots::{Record, Slot};
use super::price::ModelPrice;
use super::provider::Provider;
use super::proxy::{GenerationProxy, UnknownModel};
use super::refuse::Refusal;
use super::request::Request;
use super::route::Format;
use super::session::Session;
use super::tap::Answer;
use super::usage::Terms;
use estimate::{dearest, estimate, output_cost};

/// Output tokens between two looks at the budget while streaming.
const LOOK: u64 = 64;

/// What is known of a request before it is admitted.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) session: Arc<Session>,
    pub(super) provider: Provider,
    pub(super) format: Format,
    pub(super) path: String,
    pub(super) purpose: Purpose,
    pub(super) agent_session: Option<String>,
    pub(super) started: Instant,
    pub(super) at: Time,
}

/// A call that was admitted.
#[derive(Debug)]
pub(super) struct Call {
    proxy: Arc<GenerationProxy>,
    pub(super) asked: Asked,
    number: u64,
    id: String,
    session: Arc<str>,
    pub(super) request: Request,
    price: Option<Arc<ModelPrice>>,
    priced: Option<String>,
    /// The prompt as it was estimated, in the dearest of the ways it may be counted.
    prompt: Usage,
    hold: Option<Hold>,
    slot: Option<Slot>,
    next_look: u64,
    /// Money was capped when it began: its stream is asked for in an encoding that can be cut between two events.
    pub(super) capped: bool,
    /// The upstream was waited for in vain: what it has done by then, and does yet, is not known.
    pub(super) given_up: bool,
    pub(super) attempts: u32,
    pub(super) status: Option<StatusCode>,
    pub(super) first_byte: Option<Instant>,
    pub(super) generation_id: Option<String>,
    pub(super) upstream_request_id: Option<String>,
}

impl Call {
    /// Holds money and a slot for a call, and tells that it began.
    pub(super) fn admit(
        proxy: &Arc<GenerationProxy>,
        asked: Asked,
        request: Request,
    ) -> Result<Self, Refusal> {
        let refused = |refusal: Refusal| {
            refuse(proxy, &asked, &request, &refusal);
            refusal
        };
        let session = &asked.session;
        let capped = proxy.budget().is_capped();
        if capped && request.background && asked.format == Format::Responses {
            // It would be answered `queued`, without a count, and go on beyond anybody's sight.
            let message = "An answer in the background cannot be counted against the budget. Ask without \"background\".";
            return Err(refused(Refusal::budget(asked.format, message.to_owned())));
        }
        let price = match dearest(proxy, &request) {
            Some(price) => Some(price),
            None if capped && proxy.unknown_model == UnknownModel::Dearest => {
                proxy.prices.dearest()
            }
            None if capped => {
                let model = request.model.as_deref().unwrap_or("(none)");
                let model: String = model
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(100)
                    .collect();
                return Err(refused(Refusal::budget(
                    asked.format,
                    format!(
                        "No price is known for the model {model:?}, so it cannot be counted against the budget. Add it to \
                         the price file (--prices) or choose another model."
                    ),
                )));
            }
            None => None,
        };
        let (ask, prompt) = price.as_deref().map_or_else(Default::default, |price| {
            estimate(proxy, session, price, &request)
        });
        let hold = proxy.budget().admit(ask, asked.started);
        let hold = hold.map_err(|denied| {
            refused(match denied {
                Denied::Rate { retry_after, .. } => Refusal::rate(denied.message(), retry_after),
                _ => Refusal::budget(asked.format, denied.message()),
            })
        })?;
        let (number, id) = proxy.next_call();
        let mut call = Self {
            proxy: Arc::clone(proxy),
            number,
            id,
            session: Arc::from(session.id.as_str()),
            price,
            priced: request.model.clone(),
            prompt,
            hold: Some(hold),
            slot: None,
            next_look: 0,
            capped,
            given_up: false,
            attempts: 0,
            status: None,
            first_byte: None,
            generation_id: None,
            upstream_request_id: None,
            asked,
            request,
        };
        match proxy.ledger.reserve(&call.record()) {
            Ok(Some(slot)) => call.slot = Some(slot),
            taken => {
                if let Err(error) = taken {
                    tracing::error!(%error, "a reservation cannot be written");
                }
                call.release();
                return Err(Refusal::unavailable(
                    "too many model calls are in flight; try again".to_owned(),
                ));
            }
        }
        call.proxy.board.start(
            number,
            InFlight {
                session: Arc::clone(&call.session),
                purpose: call.asked.purpose,
                started: call.asked.started,
                first_byte: None,
                last_byte: None,
                last_progress: None,
            },
        );
        call.tell(What::Started {
            purpose: call.asked.purpose,
            model: call.request.model.clone(),
            agent_session: call.asked.agent_session.clone(),
        });
        Ok(call)
    }

    pub(super) fn proxy(&self) -> &Arc<GenerationProxy> {
        &self.proxy
    }

    pub(super) fn tell(&self, what: What) {
        self.proxy
            .board
            .tell(self.number, &self.session, Instant::now(), what);
    }

    pub(super) fn update_board(&self, change: impl FnOnce(&mut InFlight)) {
        self.proxy.board.update(self.number, change);
    }

    fn record(&self) -> Record<'_> {
        Record {
            call: self.id.as_str().into(),
            at: self.asked.at,
            session: self.asked.session.id.as_str().into(),
            agent: self.asked.session.agent.as_str().into(),
            provider: self.asked.provider.name().into(),
            path: self.asked.path.as_str().into(),
            model: self.request.model.as_deref().map(Into::into),
            generation_id: self.generation_id.as_deref().map(Into::into),
            stream: self.request.stream,
            reserved_usd: self.hold.as_ref().map_or(NanoUsd::ZERO, Hold::amount),
            attempts: self.attempts,
            turn: 0,
        }
    }

    fn write_record(&mut self) {
        let Some(mut slot) = self.slot.take() else {
            return;
        };
        if let Err(error) = self.proxy.ledger.update(&mut slot, &self.record()) {
            tracing::error!(%error, "a reservation cannot be rewritten; the earlier one stands");
        }
        self.slot = Some(slot);
    }

    /// Gives the hold back without a trace: nothing was sent.
    fn release(&mut self) {
        if let Some(hold) = self.hold.take() {
            let warning = self.proxy.budget().settle(hold, NanoUsd::ZERO, 0);
            self.proxy.tell_warning(self.number, &self.session, warning);
        }
    }

    /// Looks at the budget while an answer streams. False: it would pass the cap, so it is to be cut.
    pub(super) fn look(&mut self, answer: &Answer) -> bool {
        let output = answer.estimated_output();
        if output < self.next_look || answer.terminal {
            return true;
        }
        self.next_look = output.saturating_add(LOOK);
        // A cap may have been set, or taken away, since the call began.
        if !self.proxy.budget().is_capped() {
            return true;
        }
        self.reprice(answer);
        let Some(price) = self.price.clone() else {
            return true;
        };
        let spent = self.estimated_cost(answer);
        let (prompt, terms) = (self.prompt(answer), self.terms(answer));
        let cost_of = |tokens| output_cost(&price, &prompt, terms, tokens);
        let (soon, more) = (cost_of(2 * LOOK), cost_of(ALLOWANCE_TOKENS / 2));
        let Some(hold) = &mut self.hold else {
            return true;
        };
        if spent.saturating_add(soon) <= hold.amount() {
            return true;
        }
        let wider = spent.saturating_add(more);
        let mut budget = self.proxy.budget();
        let held = budget.adjust(hold, wider).is_ok();
        let affordable = held || spent <= hold.amount() || budget.adjust(hold, spent).is_ok();
        drop(budget);
        if held {
            self.write_record();
        }
        affordable
    }

    /// The sentence of a cut.
    pub(super) fn cut_message(&self) -> String {
        let (cap, spent, held) = self.proxy.budget().state();
        let cap = cap.unwrap_or_default();
        Denied::Money { cap, spent, held }.message()
    }

    /// Prices the model that answers, should it be another than the one asked for.
    fn reprice(&mut self, answer: &Answer) {
        if answer.model.is_some() && answer.model != self.priced {
            self.priced.clone_from(&answer.model);
            if let Some(price) = answer
                .model
                .as_deref()
                .and_then(|model| self.proxy.prices.find(model))
            {
                self.price = Some(price);
            }
        }
    }

    fn one_hour(&self) -> bool {
        self.request.one_hour
    }

    /// The terms of an answer: those it reports; until then those that were asked for.
    fn terms<'a>(&'a self, answer: &'a Answer) -> Terms<'a> {
        let (told, asked) = (answer.reported.terms(), self.request.terms());
        let silent = answer.reported.is_empty();
        Terms {
            tier: told.tier.or(asked.tier),
            fast: told.fast || (silent && asked.fast),
            geo: told.geo.or_else(|| asked.geo.filter(|_| silent)),
            ..told
        }
    }

    /// The prompt of an answer: as it reports it; until then as it was estimated.
    fn prompt(&self, answer: &Answer) -> Usage {
        answer
            .usage(self.asked.format, self.one_hour())
            .filter(|usage| usage.prompt_tokens() > 0)
            .unwrap_or(self.prompt)
    }

    /// What an answer has cost so far, as far as it shows: reported prompt or estimated one, output shown so far.
    fn estimated_cost(&self, answer: &Answer) -> NanoUsd {
        let Some(price) = &self.price else {
            return NanoUsd::ZERO;
        };
        let usage = Usage {
            output_tokens: answer.estimated_output(),
            ..self.prompt(answer)
        };
        price.cost(&usage, self.terms(answer)).ceil_nano()
    }

    fn cost(
        &mut self,
        answer: &Answer,
        outcome: Outcome,
        held: NanoUsd,
    ) -> (Usage, NanoUsd, CostSource) {
        self.reprice(answer);
        let usage = answer.usage(self.asked.format, self.one_hour());
        let whole = answer.terminal && usage.is_some();
        let table = |usage: &Usage| {
            self.price
                .as_deref()
                .map(|price| price.cost(usage, self.terms(answer)).ceil_nano())
        };
        let reported = usage.unwrap_or_default();
        let provider = answer.reported.provider_cost();
        match (self.asked.provider, provider) {
            (Provider::OpenRouter, Some(cost)) => return (reported, cost, CostSource::Provider),
            (Provider::Compatible, Some(cost)) if whole => {
                let by_table = table(&reported).unwrap_or_default();
                return if cost > by_table {
                    (reported, cost, CostSource::Provider)
                } else {
                    (reported, by_table, CostSource::Table)
                };
            }
            _ => {}
        }
        if whole {
            return match table(&reported) {
                Some(cost) => (reported, cost, CostSource::Table),
                None => (reported, NanoUsd::ZERO, CostSource::None),
            };
        }
        let nothing = usage.is_none() && answer.progress == 0;
        if nothing && self.given_up && self.price.is_some() {
            // As a call that a crash left open.
            return (reported, held, CostSource::Estimate);
        }
        // Nothing came that is paid for: an error answered, or nobody did.
        let failed = matches!(outcome, Outcome::UpstreamError) || self.attempts == 0;
        let silent_cut = matches!(outcome, Outcome::UpstreamCut) && answer.events == 0;
        if self.price.is_none() || (nothing && (failed || silent_cut)) {
            return (reported, NanoUsd::ZERO, CostSource::None);
        }
        let shown = Usage {
            output_tokens: answer.estimated_output(),
            ..reported
        };
        let shown = if usage.is_some() {
            shown
        } else {
            Usage::default()
        };
        (shown, self.estimated_cost(answer), CostSource::Estimate)
    }

    /// Ends the call: money settled, line written, activity told.
    pub(super) fn settle(&mut self, outcome: Outcome, answer: &Answer) {
        let Some(hold) = self.hold.take() else { return };
        let (usage, cost, source) = self.cost(answer, outcome, hold.amount());
        self.proxy
            .prompts()
            .remember(&self.asked.session.id, self.priced.as_deref(), &usage);
        let warning = self.proxy.budget().settle(hold, cost, usage.total_tokens());
        let line = self.line(outcome, answer, usage, cost, source);
        self.write_line(line);
        self.proxy.board.end(self.number);
        self.tell(What::Finished {
            outcome,
            stop_reason: answer.stop_reason.clone(),
            tool_use: answer.tool_use,
            usage,
            cost,
            error: answer
                .error
                .as_ref()
                .map(|error| format!("{}: {}", error.kind, error.message)),
        });
        self.proxy.tell_warning(self.number, &self.session, warning);
    }

    /// Writes the line, at once or when the provider has said what the call cost.
    fn write_line(&mut self, line: LedgerLine) {
        let slot = self.slot.take();
        let provider = self.asked.provider;
        let upstream = self
            .asked
            .session
            .upstreams
            .iter()
            .find(|upstream| upstream.provider == provider);
        let knows = provider == Provider::OpenRouter && line.cost_source == CostSource::Estimate;
        let permit = Arc::clone(&self.proxy.asking).try_acquire_owned();
        let runtime = tokio::runtime::Handle::try_current();
        if let (true, Some(_), Some(upstream), Ok(permit), Ok(runtime)) = (
            knows,
            &line.generation_id,
            upstream.cloned(),
            permit,
            runtime,
        ) {
            let line = self.proxy.ledger.settle_provisionally(line);
            let proxy = Arc::clone(&self.proxy);
            runtime.spawn(async move {
                super::reconcile::run(proxy, upstream, line, slot).await;
                drop(permit);
            });
        } else {
            self.proxy.ledger.settle(line, slot);
        }
    }

    fn line(
        &self,
        outcome: Outcome,
        answer: &Answer,
        usage: Usage,
        cost: NanoUsd,
        source: CostSource,
    ) -> LedgerLine {
        let since_start = |at: Instant| millis(at.saturating_duration_since(self.asked.started));
        LedgerLine {
            at: self.asked.at,
            call: self.id.clone(),
            seq: 0,
            session: self.asked.session.id.clone(),
            agent: self.asked.session.agent.clone(),
            provider: self.asked.provider.name().to_owned(),
            path: self.asked.path.clone(),
            model: answer.model.clone().or_else(|| self.request.model.clone()),
            generation_id: self.generation_id.clone().or_else(|| answer.id.clone()),
            upstream_request_id: self.upstream_request_id.clone(),
            status: self.status.map(|status| status.as_u16()),
            stream: self.request.stream,
            ttfb_ms: self.first_byte.map(since_start),
            duration_ms: since_start(Instant::now()),
            stop_reason: answer.stop_reason.clone(),
            usage,
            cost_usd: cost,
            cost_source: source,
            attempts: self.attempts,
            outcome,
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.settle(Outcome::ClientLeft, &Answer::default());
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The line and the event of a call that a cap answered.
fn refuse(proxy: &GenerationProxy, asked: &Asked, request: &Request, refusal: &Refusal) {
    let (number, id) = proxy.next_call();
    let session: Arc<str> = Arc::from(asked.session.id.as_str());
    let line = LedgerLine {
        at: asked.at,
        call: id,
        seq: 0,
        session: asked.session.id.clone(),
        agent: asked.session.agent.clone(),
        provider: asked.provider.name().to_owned(),
        path: asked.path.clone(),
        model: request.model.clone(),
        generation_id: None,
        upstream_request_id: None,
        status: Some(refusal.status.as_u16()),
        stream: request.stream,
        ttfb_ms: None,
        duration_ms: millis(asked.started.elapsed()),
        stop_reason: None,
        usage: Usage::default(),
        cost_usd: NanoUsd::ZERO,
        cost_source: CostSource::None,
        attempts: 0,
        outcome: Outcome::Refused,
    };
    proxy.ledger.settle(line, None);
    let (again, message) = (refusal.is_for_now(), refusal.message.clone());
    proxy.board.tell(
        number,
        &session,
        Instant::now(),
        What::Refused { again, message },
    );
}
