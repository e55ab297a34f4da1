//! One session: the task that owns its agent, its evidence, its prompts and its record.
//!
//! Everything about a session happens in this task, one thing after the other, so nothing here is locked. It waits for
//! questions, evidence, the end of the agent's process, and the fusion's next deadline; after each it judges the state,
//! tells the board, and moves the present prompt on.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot as answer};
use tokio::time::Instant;
use whim_wire::event::kind;
use whim_wire::spec::{AgentKind, Mode};
use whim_wire::state::{AgentState, SessionState};

use super::delivery::Delivery;
use super::evidence::Evidence;
use super::launch::{self, Ground, Launched, Plan, StartError};
use super::prompts::{Progress, Prompt, PromptError};
use super::record::Record;
use super::running::{Event, Running};
use super::SessionError;
use crate::agents::restart::{Decision, RestartPolicy};
use crate::agents::setup::Setup;
use crate::clock;
use crate::keeper::{Exit, Process};
use crate::state::clock as boot_clock;
use crate::state::fusion::{Fusion, Remembered, Verdict};
use crate::state::observation::{self, Hook, Key, Observation, Profile};

/// Between TERM and KILL for what a stopped session left.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// What a session is asked, or told.
#[derive(Debug)]
pub enum Input {
    Prompt { text: String, answer: answer::Sender<Result<Prompt, SessionError>> },
    PromptStatus { prompt: String, answer: answer::Sender<Option<Prompt>> },
    Interrupt { answer: answer::Sender<Result<(), SessionError>> },
    Stop { answer: answer::Sender<Result<(), SessionError>> },
    Answer { dialog: String, option: Value, answer: answer::Sender<Result<(), SessionError>> },
    Evidence(Evidence),
}

/// How a session ended for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    verdict: Option<Verdict>,
    running: Option<Running>,
    delivery: Option<Delivery>,
    restarts: RestartPolicy,
    /// When the agent is to be started again after a crash.
    restart_at: Option<Instant>,
    /// Interrupted by the person or the API since the present prompt was delivered.
    interrupted: bool,
}

impl Actor {
    pub(super) fn new(ground: Arc<Ground>, plan: Plan, inbox: mpsc::Receiver<Input>) -> Self {
        let Plan { record, setup, prompt } = plan;
        let fusion = Fusion::new(profile(&record, &setup));
        let restarts = RestartPolicy::default();
        Self {
            ground,
            inbox,
            record,
            setup,
            prompt,
            fusion,
            verdict: None,
            running: None,
            delivery: None,
            restarts,
            restart_at: None,
            interrupted: false,
        }
    }

    /// Runs the session to its end, and goes on answering questions about it after that.
    pub(super) async fn run(mut self, adopted: Option<Process>, ready: answer::Sender<Result<(), StartError>>) {
        self.ground.spending.admit(&self.record, &self.setup);
        match adopted {
            Some(process) => self.take_up(process).await,
            None if self.record.ended => {}
            None => {
                if let Err(error) = self.start(true).await {
                    self.observe(Observation::Exited { exit: observation::Exit::Code(127), note: Some(error.to_string()) });
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
            self.advance().await;
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
        tokio::select! {
            input = self.inbox.recv() => match input {
                Some(input) => self.asked(input).await,
                // The registry lives as long as the supervisor; without it nobody can ask any more.
                None => std::future::pending().await,
            },
            event = running => self.happened(event).await,
            () = tokio::time::sleep_until(deadline) => self.due().await,
        }
    }

    fn next_deadline(&self) -> Instant {
        let now = Instant::now();
        let fusion = self.fusion.next_deadline().map(|due| now + (due - boot_clock::now()));
        let delivery = self.delivery.as_ref().and_then(Delivery::deadline);
        let far = now + Duration::from_secs(3600);
        [fusion, delivery, self.restart_at].into_iter().flatten().min().unwrap_or(far)
    }

    async fn due(&mut self) {
        if self.restart_at.is_some_and(|at| at <= Instant::now()) {
            self.restart_at = None;
            if let Err(error) = self.start(false).await {
                self.give_up(&format!("it could not be started again: {error}")).await;
            }
        }
    }

    /// Starts the agent: for the first time with its prompt, later by resuming its own session.
    async fn start(&mut self, first: bool) -> Result<(), StartError> {
        let first = first && !self.record.prompted;
        let prompt = if first { self.prompt.clone() } else { None };
        if first && self.record.agent_session_id.is_none() && crate::agents::of(self.record.agent).chooses_id() {
            self.record.agent_session_id = Some(super::record::fresh_id());
        }
        let launched = launch::launch(&self.ground, &self.setup, &self.record, prompt.as_deref(), first).await?;
        self.note(kind::SESSION_STARTED, json!({"pid": launched.process.pid(), "resumed": !first}));
        if let Some(text) = prompt {
            self.first_prompt(&text, &launched);
        }
        self.record.prompted |= first;
        self.record.exit = None;
        self.save();
        self.watch(launched.process, launched.companions, launched.surface).await;
        Ok(())
    }

    fn first_prompt(&mut self, text: &str, launched: &Launched) {
        use crate::agents::command::PromptRoute;
        match self.record.prompts.add(text, clock::now()) {
            Ok(_) if launched.prompt == PromptRoute::Given => {
                self.record.prompts.begin();
                self.progress(Progress::Delivered, None);
                self.observe(Observation::PromptDelivered);
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "the first prompt is not one"),
        }
        self.prompt = None;
    }

    /// An agent that an earlier supervisor started.
    async fn take_up(&mut self, process: Process) {
        let now = boot_clock::now();
        if let Some(last) = &self.record.verdict {
            self.fusion = Fusion::resume(profile(&self.record, &self.setup), last.clone(), now, now);
        }
        let surface = if self.record.mode == Mode::Oneshot {
            crate::agents::setup::Surface::Pipes
        } else {
            crate::agents::setup::Surface::Terminal
        };
        // A paste that was under way is closed and its prompt not sent again: half of it may have been read.
        let cut = self.record.prompts.current().is_some_and(|prompt| prompt.state == Progress::Queued);
        self.watch(process, Vec::new(), surface).await;
        if cut {
            if let Some(running) = &self.running {
                running.close_paste().await;
            }
            self.progress(Progress::Failed, Some("the supervisor restarted while it was typed".into()));
        }
    }

    async fn watch(&mut self, process: Process, companions: Vec<Process>, surface: crate::agents::setup::Surface) {
        let pid = u32::try_from(process.pid()).unwrap_or_default();
        self.observe(Observation::Started { pid });
        self.running = Some(Running::new(&self.ground, &self.record, &self.setup, process, companions, surface).await);
    }

    async fn asked(&mut self, input: Input) {
        match input {
            Input::Prompt { text, answer } => drop(answer.send(self.queue(&text))),
            Input::PromptStatus { prompt, answer } => drop(answer.send(self.record.prompts.find(&prompt).cloned())),
            Input::Interrupt { answer } => {
                let result = self.interrupt().await;
                drop(answer.send(result));
            }
            Input::Stop { answer } => {
                let result = self.stop().await;
                drop(answer.send(result));
            }
            Input::Answer { dialog, option, answer } => {
                let result = self.answer(&dialog, &option).await;
                drop(answer.send(result));
            }
            Input::Evidence(evidence) => self.evidence(evidence),
        }
    }

    fn queue(&mut self, text: &str) -> Result<Prompt, SessionError> {
        if self.record.ended {
            return Err(PromptError::Stopped.into());
        }
        let prompt = self.record.prompts.add(text, clock::now())?;
        self.tell(&prompt);
        self.save();
        Ok(prompt)
    }

    async fn interrupt(&mut self) -> Result<(), SessionError> {
        let running = self.running.as_ref().ok_or_else(|| SessionError::NotRunning(self.record.id.clone()))?;
        running.interrupt().await.map_err(|error| SessionError::Start(error.to_string()))?;
        self.interrupted = true;
        self.observe(Observation::Key(Key::Interrupt));
        Ok(())
    }

    async fn answer(&mut self, dialog: &str, option: &Value) -> Result<(), SessionError> {
        let gone = || SessionError::NoDialog(self.record.id.clone());
        let asked = self.verdict.as_ref().and_then(|verdict| verdict.dialog.as_ref()).ok_or_else(gone)?;
        if asked.id != dialog {
            return Err(gone());
        }
        let choice = match option {
            Value::String(text) => asked.options.iter().position(|known| known == text),
            Value::Number(number) => number.as_u64().and_then(|number| usize::try_from(number).ok()),
            _ => None,
        };
        let choice = choice.filter(|choice| *choice < asked.options.len()).ok_or_else(|| {
            SessionError::Invalid(format!("option: {option} is none of {}", asked.options.join(", ")))
        })?;
        let running = self.running.as_ref().ok_or_else(|| SessionError::NotRunning(self.record.id.clone()))?;
        running.choose(choice, &asked.options).await.map_err(|error| SessionError::Invalid(error.to_string()))?;
        self.observe(Observation::Key(Key::Submit));
        Ok(())
    }

    async fn stop(&mut self) -> Result<(), SessionError> {
        self.record.ended = true;
        self.restart_at = None;
        self.save();
        let Some(running) = &self.running else {
            self.finish(End::Well).await;
            return Ok(());
        };
        running.process().end(STOP_GRACE).await.map_err(|error| SessionError::Start(error.to_string()))
    }

    fn evidence(&mut self, evidence: Evidence) {
        let Evidence { at, observation, agent_session } = evidence;
        if let Some(id) = agent_session
            && self.record.agent_session_id.as_ref() != Some(&id)
        {
            self.record.agent_session_id = Some(id);
            self.save();
        }
        let Some(observation) = observation else { return };
        match &observation {
            Observation::Hook(Hook::PromptSubmitted) => self.progress(Progress::Working, None),
            Observation::Key(Key::Interrupt) => self.interrupted = true,
            _ => {}
        }
        self.fusion.observe(at, boot_clock::now(), observation);
    }

    async fn happened(&mut self, event: Event) {
        match event {
            Event::Evidence(evidence) => self.evidence(evidence),
            Event::Exited(exit) => self.exited(exit).await,
        }
    }

    async fn exited(&mut self, exit: Exit) {
        let Some(running) = self.running.take() else { return };
        let code = i32::from(exit.code());
        self.record.exit = Some(code);
        let result = running.close(exit).await;
        self.note(kind::SESSION_EXITED, json!({"exit": code, "how": exit.to_string()}));
        if self.record.ended {
            return self.ended(exit, "stopped", End::Well).await;
        }
        if self.record.mode == Mode::Oneshot {
            let end = if result.budget_spent { End::BudgetSpent } else { End::Exit(exit) };
            return self.ended(exit, "finished", end).await;
        }
        if exit.success() {
            return self.ended(exit, "ended by itself", End::Well).await;
        }
        match self.restarts.crashed(clock::now().timestamp()) {
            Decision::Restart { after, attempt } => {
                let note = format!("crashed ({exit}); restart {attempt} follows");
                self.observe(Observation::Exited { exit: observed(exit), note: Some(note) });
                self.note(kind::SESSION_RESTARTED, json!({"how": exit.to_string(), "attempt": attempt}));
                self.fail_prompt("the agent crashed on it");
                self.restart_at = Some(Instant::now() + after);
                self.save();
            }
            Decision::GiveUp { reason } => self.give_up(&reason).await,
        }
    }

    async fn give_up(&mut self, reason: &str) {
        let exit = self.record.exit.unwrap_or(127);
        let exit = observation::Exit::Code(u8::try_from(exit).unwrap_or(u8::MAX));
        self.observe(Observation::Exited { exit, note: Some(reason.to_owned()) });
        self.finish(End::GaveUp).await;
    }

    async fn ended(&mut self, exit: Exit, note: &str, end: End) {
        self.observe(Observation::Exited { exit: observed(exit), note: Some(note.to_owned()) });
        self.finish(end).await;
    }

    async fn finish(&mut self, end: End) {
        self.record.ended = true;
        let reason = "the session ended";
        let progress = if matches!(end, End::Well | End::Exit(Exit::Code(0))) { Progress::Done } else { Progress::Failed };
        self.progress(progress, (progress == Progress::Failed).then(|| reason.to_owned()));
        for prompt in self.record.prompts.fail_all(reason, clock::now()) {
            self.tell(&prompt);
        }
        self.delivery = None;
        self.save();
        self.judge();
        // Sent once a session; the receiver is gone only when the container ends anyway.
        drop(self.ground.ended.send((self.record.id.clone(), end)).await);
    }

    /// Moves the present prompt on: takes the next one up when the agent is at rest, and follows the one under way.
    async fn advance(&mut self) {
        let (Some(verdict), Some(running)) = (&self.verdict, &self.running) else { return };
        if let Some(delivery) = &mut self.delivery {
            match delivery.advance(running, verdict).await {
                super::delivery::Step::Going => {}
                super::delivery::Step::Delivered => {
                    self.delivery = None;
                    self.interrupted = false;
                    self.observe(Observation::PromptDelivered);
                    self.progress(Progress::Delivered, None);
                }
                super::delivery::Step::Failed(reason) => {
                    self.delivery = None;
                    self.progress(Progress::Failed, Some(reason));
                }
            }
            return;
        }
        match (self.record.prompts.current().map(|prompt| prompt.state), verdict.state) {
            (None, AgentState::Idle) => {
                if let Some(prompt) = self.record.prompts.begin() {
                    let text = prompt.text.clone().unwrap_or_default();
                    self.delivery = Some(Delivery::new(self.record.agent, &text));
                    self.save();
                }
            }
            (Some(Progress::Delivered), AgentState::Working | AgentState::NeedsInput) => self.progress(Progress::Working, None),
            (Some(Progress::Working), AgentState::Idle) => {
                let progress = if self.interrupted { Progress::Interrupted } else { Progress::Done };
                self.progress(progress, None);
            }
            _ => {}
        }
    }

    fn observe(&mut self, observation: Observation) {
        let now = boot_clock::now();
        self.fusion.observe(now, now, observation);
    }

    /// Judges the state and tells the board.
    fn judge(&mut self) {
        let verdict = self.fusion.evaluate(boot_clock::now());
        let news = self.verdict.as_ref().is_none_or(|before| verdict.differs(before));
        if let Some(running) = &mut self.running {
            running.pace(verdict.state);
        }
        if news {
            self.record.verdict = Some(verdict.remember());
            self.save();
        }
        self.ground.board.session(self.view(&verdict), news);
        self.ground.board.generations(&self.record.id, verdict.generations);
        self.ground.board.keep_awake(&self.record.id, verdict.background.clone());
        self.verdict = Some(verdict);
    }

    fn view(&self, verdict: &Verdict) -> SessionState {
        SessionState {
            id: self.record.id.clone(),
            agent: self.record.agent.to_string(),
            mode: self.record.mode.to_string(),
            state: verdict.state,
            reason: verdict.reason.clone(),
            since: boot_clock::wall(verdict.since),
            stalled: verdict.stalled,
            agent_session_id: self.record.agent_session_id.clone(),
            pid: self.running.as_ref().and_then(|running| u32::try_from(running.process().pid()).ok()),
            terminal: self.running.as_ref().and_then(Running::terminal_id),
            queued_prompts: u32::try_from(self.record.prompts.queued()).unwrap_or(u32::MAX),
            exit: self.record.exit,
            dialog: verdict.dialog.clone(),
            spend: self.ground.spending.session(&self.record.id),
        }
    }

    fn progress(&mut self, progress: Progress, reason: Option<String>) {
        if let Some(prompt) = self.record.prompts.advance(progress, reason, clock::now()) {
            self.tell(&prompt);
            self.save();
        }
    }

    fn fail_prompt(&mut self, reason: &str) {
        self.delivery = None;
        self.progress(Progress::Failed, Some(reason.to_owned()));
    }

    fn tell(&self, prompt: &Prompt) {
        let event = json!({"prompt_id": prompt.id, "state": prompt.state, "reason": prompt.reason});
        self.note(kind::PROMPT_CHANGED, event);
    }

    fn note(&self, kind: &'static str, mut event: Value) {
        if let Some(fields) = event.as_object_mut() {
            fields.insert("session".into(), json!(self.record.id));
        }
        self.ground.board.note(kind, event);
    }

    fn save(&self) {
        let directory = self.ground.paths.session(&self.record.id);
        if let Err(error) = self.record.write(&directory) {
            tracing::error!(session = self.record.id, %error, "the session's record is not saved");
        }
    }
}

/// What can be expected of the agent's sources.
fn profile(record: &Record, setup: &Setup) -> Profile {
    use whim_wire::spec::PermissionMode;
    let profile = match (record.mode, record.agent) {
        (_, AgentKind::Custom) => Profile::CUSTOM,
        (Mode::Oneshot, _) => Profile::ONESHOT,
        (Mode::Interactive | Mode::Sticky, _) => Profile::INTERACTIVE,
    };
    Profile { asks: profile.asks && setup.permission != Some(PermissionMode::Bypass), ..profile }
}

fn observed(exit: Exit) -> observation::Exit {
    match exit {
        Exit::Code(code) => observation::Exit::Code(u8::try_from(code).unwrap_or(u8::MAX)),
        Exit::Signal(signal) => observation::Exit::Signal(signal),
    }
}
