//! One session: the task that owns its agent, its evidence, its prompts and its record.
//!
//! Everything about a session happens in this task, one thing after the other, so nothing here is locked. It waits for
//! questions, evidence, the end of the agent's process, and the fusion's next deadline; after each it judges the state,
//! tells the board, and moves the present prompt on.

mod ends;
mod keyboard;
mod prompting;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot as answer};
use tokio::time::Instant;
use whim_wire::event::kind;
use whim_wire::spec::{AgentKind, Mode};
use whim_wire::state::{AgentState, SessionState};

use super::SessionError;
use super::beginning;
use super::companions::Companions;
use super::evidence::{Evidence, Sources};
use super::launch::{self, Adopted, Ground, Launched, Plan, StartError};
use super::prompts::Prompt;
use super::record::Record;
use super::running::{Event, Running};
use crate::agents::hook::Signal;
use crate::agents::observe::transcript;
use crate::agents::prompt::{self, Queue};
use crate::agents::restart::RestartPolicy;
use crate::agents::setup::{Setup, Surface};
use crate::clock::{self, boot_now};
use crate::config::reload;
use crate::keeper::{Exit, Process};
use crate::state::fusion::{Fusion, Verdict};
use crate::state::moment::Moment;
use crate::state::observation::{self, Generation, Observation, Profile};
use crate::terminals::Typed;

/// The longest sleep: a bound without a meaning of its own.
const FAR: Duration = Duration::from_secs(3600);
/// Between TERM and KILL for what a stopped session left.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// What a session is asked, or told.
#[derive(Debug)]
pub enum Input {
    Prompt {
        text: String,
        answer: answer::Sender<Result<Prompt, SessionError>>,
    },
    PromptStatus {
        prompt: String,
        answer: answer::Sender<Option<Prompt>>,
    },
    Interrupt {
        answer: answer::Sender<Result<(), SessionError>>,
    },
    Stop {
        answer: answer::Sender<Result<(), SessionError>>,
    },
    /// Answered when the agent runs again.
    Restart {
        answer: answer::Sender<Result<(), SessionError>>,
    },
    Answer {
        dialog: String,
        option: Value,
        answer: answer::Sender<Result<(), SessionError>>,
    },
    Evidence(Evidence),
}

/// How a session ended for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// It was asked to stop, or the agent ended by itself and well.
    Well,
    /// The agent ended with this; in `oneshot` mode that is the task's result.
    Exit(Exit),
    /// `oneshot`: the budget was spent.
    BudgetSpent,
    /// It crashed too often; the session stays as `stopped`.
    GaveUp,
}

/// What the task owns.
#[derive(Debug)]
pub(super) struct Actor {
    ground: Arc<Ground>,
    inbox: mpsc::Receiver<Input>,
    record: Record,
    setup: Setup,
    /// The first prompt, until it is given.
    prompt: Option<String>,
    fusion: Fusion,
    sources: Sources,
    verdict: Option<Verdict>,
    running: Option<Running>,
    queue: Queue,
    /// Answers when the terminal took what the queue had written.
    writing: Option<answer::Receiver<bool>>,
    restarts: RestartPolicy,
    /// Whoever waits for the agent to run again.
    restarted: Vec<answer::Sender<Result<(), SessionError>>>,
    /// When the agent is to be started again after a crash.
    restart_at: Option<Instant>,
    /// When the present run of the agent began.
    began: Moment,
    /// What was typed into its terminal, as it was last looked at.
    typed: Typed,
    /// Where a draft began that was typed into a dialog: it stands in no input box.
    dialog_draft: Option<u64>,
    /// The record on disk is not the present one.
    unsaved: bool,
}

impl Actor {
    pub(super) fn new(ground: Arc<Ground>, plan: Plan, inbox: mpsc::Receiver<Input>) -> Self {
        let Plan {
            record,
            setup,
            prompt,
        } = plan;
        let fusion = Fusion::new(profile(&record, &setup));
        let queue = Queue::new(crate::agents::of(record.agent).prompt_rules());
        let restarts =
            RestartPolicy::restore(&record.restarts, boot_now().since_boot(), clock::now());
        Self {
            ground,
            inbox,
            record,
            setup,
            prompt,
            fusion,
            sources: Sources::new(),
            verdict: None,
            running: None,
            queue,
            writing: None,
            restarts,
            restarted: Vec::new(),
            restart_at: None,
            began: boot_now(),
            typed: Typed::default(),
            dialog_draft: None,
            unsaved: false,
        }
    }

    /// Runs the session to its end, and goes on answering questions about it after that.
    pub(super) async fn run(
        mut self,
        adopted: Option<Adopted>,
        ready: answer::Sender<Result<(), StartError>>,
    ) {
        self.ground
            .spending
            .admit(&self.record, self.setup.provider);
        match adopted {
            Some(adopted) => self.take_up(adopted).await,
            None if self.record.ended => self.has_ended().await,
            None => {
                self.recall_prompts();
                self.deliver(&prompt::Event::Gone {
                    returns: true,
                    reason: "it is started again",
                });
                if let Err(error) = self.start(true).await {
                    self.record.ended = true;
                    self.ground.spending.dismiss(&self.record.id);
                    self.observe(Observation::Exited {
                        exit: observation::Exit::Code(127),
                        note: Some(error.to_string()),
                    });
                    self.judge();
                    drop(ready.send(Err(error)));
                    return;
                }
            }
        }
        self.judge();
        // Whoever asked may have given up waiting.
        drop(ready.send(Ok(())));
        loop {
            self.step().await;
            self.judge();
            self.look_at_input().await;
        }
    }

    /// Waits for the next thing that concerns the session and takes it in.
    async fn step(&mut self) {
        let deadline = self.next_deadline();
        let running = async {
            match &mut self.running {
                Some(running) => running.next().await,
                None => std::future::pending().await,
            }
        };
        let written = async {
            match &mut self.writing {
                Some(writing) => writing.await.unwrap_or(false),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            input = self.inbox.recv() => match input {
                Some(input) => self.asked(input).await,
                // The registry lives as long as the supervisor; without it nobody can ask any more.
                None => std::future::pending().await,
            },
            event = running => self.happened(event).await,
            taken = written => {
                self.writing = None;
                if taken {
                    self.deliver(&prompt::Event::Written);
                }
            }
            () = tokio::time::sleep_until(deadline) => self.due().await,
        }
    }

    fn next_deadline(&self) -> Instant {
        let now = boot_now();
        let fusion = self.fusion.next_deadline().map(|due| due - now);
        let queue = self
            .queue
            .next_deadline()
            .map(|due| due.saturating_sub(now.since_boot()));
        let wait = [fusion, queue]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(FAR)
            .min(FAR);
        let by_clock = Instant::now() + wait;
        self.restart_at.map_or(by_clock, |at| at.min(by_clock))
    }

    /// Starts the agent: for the first time with its prompt, later by resuming its own session.
    async fn start(&mut self, first: bool) -> Result<(), StartError> {
        let first = first && !self.record.prompted;
        let prompt = if first {
            beginning::prompt(&self.record, self.prompt.as_deref())
        } else {
            None
        };
        let task = self.ground.task();
        self.setup = self.record.setup(&task.setup);
        self.record.loaded = Some(reload::loaded(&task.configuration, &self.record.token));
        let anew = first || (self.record.restarting && !self.has_conversation().await);
        if first
            && self.record.agent_session_id.is_none()
            && crate::agents::of(self.record.agent).chooses_id()
        {
            self.record.agent_session_id = Some(super::record::fresh_id());
        }
        let goes_on = |restored: &super::record::Restored| restored.brief.is_none();
        let resumed = !anew || self.record.restored.as_ref().is_some_and(goes_on);
        // What the next supervisor needs to take up what is started now.
        self.save();
        let launched = launch::launch(
            &self.ground,
            &self.setup,
            &self.record,
            prompt.as_deref(),
            anew,
        )
        .await?;
        self.note(
            kind::SESSION_STARTED,
            json!({"pid": launched.process.pid(), "resumed": resumed}),
        );
        let Launched {
            process,
            companions,
            surface,
            prompt: route,
        } = launched;
        self.record.bracketed_paste = false;
        self.record.draft = false;
        self.typed = Typed::default();
        self.dialog_draft = None;
        self.observe(Observation::Started {
            pid: u32::try_from(process.pid()).unwrap_or_default(),
        });
        self.record.began = Some(clock::now());
        self.record.prompted |= first;
        self.record.restarting = false;
        self.record.exit = None;
        self.watch(process, companions, surface, false).await;
        if let Some(text) = prompt {
            self.first_prompt(&text, route);
        }
        self.save();
        Ok(())
    }

    /// An agent that an earlier supervisor started.
    async fn take_up(&mut self, adopted: Adopted) {
        let Adopted {
            process,
            companions,
        } = adopted;
        let now = boot_now();
        let wanted = crate::agents::of(self.record.agent).companions(&self.setup);
        let companions = Companions::take_up(&self.ground, wanted, &self.setup, companions).await;
        if let Some(last) = &self.record.verdict {
            let pid = u32::try_from(process.pid()).unwrap_or_default();
            let running = crate::state::tree::started(pid).unwrap_or(now);
            self.fusion = Fusion::resume(
                profile(&self.record, &self.setup),
                last.clone(),
                running,
                now,
            );
        }
        let surface = if self.record.mode == Mode::Oneshot {
            Surface::Pipes
        } else {
            Surface::Terminal
        };
        self.watch(process, companions, surface, true).await;
        self.recall_prompts();
        if !std::mem::replace(&mut self.record.prompted, true) {
            self.note_first_prompt().await;
        }
        if self.record.draft {
            // Somebody's line still stands there; when its last key came is not known any more.
            self.deliver(&prompt::Event::HumanKey { leaves_draft: true });
        }
    }

    async fn watch(
        &mut self,
        process: Process,
        companions: Companions,
        surface: Surface,
        adopted: bool,
    ) {
        let pid = u32::try_from(process.pid()).unwrap_or_default();
        let now = boot_now();
        // One that ended while no supervisor was there has no entry in /proc any more.
        let recorded = self.record.began.filter(|_| adopted).map(|began| {
            crate::state::clock::moment(began.timestamp(), now, jiff::Timestamp::now())
        });
        self.began = crate::state::tree::started(pid).or(recorded).unwrap_or(now);
        self.running = Some(
            Running::new(
                &self.ground,
                &self.record,
                &self.setup,
                process,
                companions,
                surface,
                adopted,
            )
            .await,
        );
    }

    async fn asked(&mut self, input: Input) {
        match input {
            Input::Prompt { text, answer } => {
                let result = self.enqueue(&text);
                drop(answer.send(result));
            }
            Input::PromptStatus { prompt, answer } => {
                drop(answer.send(self.record.prompts.find(&prompt).cloned()))
            }
            Input::Interrupt { answer } => {
                let result = self.interrupt().await;
                drop(answer.send(result));
            }
            Input::Stop { answer } => {
                let result = self.stop().await;
                drop(answer.send(result));
            }
            Input::Restart { answer } => self.restart(answer).await,
            Input::Answer {
                dialog,
                option,
                answer,
            } => {
                let result = self.answer(&dialog, &option).await;
                drop(answer.send(result));
            }
            Input::Evidence(evidence) => self.evidence(evidence),
        }
    }

    async fn stop(&mut self) -> Result<(), SessionError> {
        self.record.ended = true;
        self.restart_at = None;
        self.save();
        let Some(running) = &self.running else {
            self.finish(End::Well).await;
            return Ok(());
        };
        running
            .process()
            .end(STOP_GRACE)
            .await
            .map_err(|error| SessionError::Start(error.to_string()))
    }

    fn evidence(&mut self, evidence: Evidence) {
        if let Evidence::Typed(typed) = evidence {
            return self.typed(typed);
        }
        if self.is_of_the_run_before(&evidence) {
            return;
        }
        let told = match &evidence {
            Evidence::Hook { event, .. } if event.subagent.is_none() => Some(event.signal.clone()),
            // One that is read late may be about the turn before.
            Evidence::Record { at, record } if *record == transcript::Record::Interrupted => self
                .queue
                .current()
                .is_some_and(|id| self.record.prompts.concerned(id, wall(*at)))
                .then_some(Signal::Interrupted),
            _ => None,
        };
        let told_of = match &evidence {
            Evidence::Hook { event, .. } if event.subagent.is_none() => event.transcript.clone(),
            _ => None,
        };
        let reading = self.sources.read(evidence);
        let known = (
            self.record.agent_session_id.clone(),
            self.record.transcript.clone(),
        );
        if let Some(id) = reading.agent_session {
            self.record.agent_session_id = Some(id);
        }
        if let Some(path) = told_of {
            self.record.transcript = Some(path);
        }
        if known.0 != self.record.agent_session_id || known.1 != self.record.transcript {
            self.save();
            if let Some(running) = &mut self.running {
                running.follow(&self.record);
            }
        }
        let now = boot_now();
        for (at, observation) in reading.observations {
            let begun = matches!(
                &observation,
                Observation::Generation {
                    event: Generation::Started { side: false },
                    ..
                }
            );
            let printed = matches!(&observation, Observation::Output { .. });
            self.fusion.observe(at, now, observation);
            if begun {
                self.started_up();
                self.deliver(&prompt::Event::GenerationStarted);
            }
            if printed {
                self.deliver(&prompt::Event::Output);
            }
        }
        match told {
            Some(Signal::PromptSubmitted { text }) => {
                self.started_up();
                self.deliver(&prompt::Event::Submitted(&text))
            }
            Some(Signal::TurnEnded { failed }) => {
                self.deliver(&prompt::Event::TurnEnded { failed })
            }
            Some(Signal::Interrupted) => self.deliver(&prompt::Event::Interrupted),
            _ => {}
        }
    }

    async fn happened(&mut self, event: Event) {
        match event {
            Event::Evidence(evidence) => self.evidence(evidence),
            Event::Startup(step) => self.startup(step),
            Event::Exited(exit) => self.exited(exit).await,
        }
    }

    fn observe(&mut self, observation: Observation) {
        let now = boot_now();
        self.fusion.observe(now, now, observation);
    }

    /// Judges the state and tells the board.
    fn judge(&mut self) {
        let verdict = self.fusion.evaluate(boot_now());
        let news = self
            .verdict
            .as_ref()
            .is_none_or(|before| verdict.differs(before));
        if let Some(running) = &mut self.running {
            running.pace(verdict.state, self.sources.dialog().is_some());
        }
        if news {
            self.record.verdict = Some(verdict.remember());
        }
        if news || self.unsaved {
            self.save();
        }
        self.ground.board.session(self.view(&verdict), news);
        self.ground
            .board
            .generations(&self.record.id, verdict.generations);
        self.ground
            .board
            .keep_awake(&self.record.id, verdict.background.clone());
        self.verdict = Some(verdict);
    }

    /// What is asked, as well as any source knows it.
    fn dialog(&self, verdict: &Verdict) -> Option<whim_wire::state::Dialog> {
        if verdict.state != AgentState::NeedsInput {
            return None;
        }
        self.sources
            .dialog()
            .cloned()
            .or_else(|| verdict.dialog.clone())
    }

    fn view(&self, verdict: &Verdict) -> SessionState {
        SessionState {
            id: self.record.id.clone(),
            agent: self.record.agent.to_string(),
            mode: self.record.mode.to_string(),
            state: verdict.state,
            reason: verdict.reason.clone(),
            since: wall(verdict.since),
            stalled: verdict.stalled,
            agent_session_id: self.record.agent_session_id.clone(),
            pid: self
                .running
                .as_ref()
                .and_then(|running| u32::try_from(running.process().pid()).ok()),
            terminal: self.running.as_ref().and_then(Running::terminal_id),
            queued_prompts: u32::try_from(self.queue.waiting()).unwrap_or(u32::MAX),
            exit: self.record.exit,
            dialog: self.dialog(verdict),
            spend: self.ground.spending.session(&self.record.id),
        }
    }

    fn note(&self, kind: &'static str, mut event: Value) {
        if let Some(fields) = event.as_object_mut() {
            fields.insert("session".into(), json!(self.record.id));
        }
        self.ground.board.note(kind, event);
    }

    /// A full disk is told once and tried again at every turn.
    fn save(&mut self) {
        let directory = self.ground.paths.session(&self.record.id);
        match self.record.write(&directory) {
            Ok(()) => self.unsaved = false,
            Err(error) if !self.unsaved => {
                self.unsaved = true;
                tracing::error!(session = self.record.id, %error, "the session's record is not saved");
            }
            Err(_) => {}
        }
    }
}

fn wall(moment: Moment) -> whim_wire::time::Time {
    crate::state::clock::wall(moment, boot_now(), jiff::Timestamp::now())
}

/// What can be expected of the agent's sources.
fn profile(record: &Record, setup: &Setup) -> Profile {
    use whim_wire::spec::PermissionMode;
    let profile = match (record.mode, record.agent) {
        (_, AgentKind::Custom) => Profile::CUSTOM,
        (Mode::Oneshot, _) => Profile::ONESHOT,
        (Mode::Interactive | Mode::Sticky, _) => Profile::INTERACTIVE,
    };
    Profile {
        asks: profile.asks && setup.permission != Some(PermissionMode::Bypass),
        ..profile
    }
}
