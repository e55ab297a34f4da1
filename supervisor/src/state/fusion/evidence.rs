//! All that is known of one session's agent process: the newest word of each source.
//!
//! Bounded by the bounds of its parts. Observations may come late, twice or out of order: each source keeps what has
//! the newest date.

use crate::state::moment::Moment;
use crate::state::observation::{
    Child, ECHO, Exit, Key, Observation, Osc, Profile, Sample, Title, Word,
};

use super::hooks::Hooks;
use super::limits::{CUSTOM_CPU, INTERRUPT, PROGRESS_CPU, SHORT_LIVED, START_SLACK, TREE_AGE};
use super::timers::{Dated, Timers, advance, update};
use super::verdict::Remembered;
use super::wire::Wire;

/// Outputs up to this size right after a key are its echo, in bytes.
const ECHO_SIZE: usize = 512;

#[derive(Debug, Default)]
pub(super) enum Life {
    #[default]
    None,
    Running {
        since: Moment,
        /// Not known of a process that an earlier supervisor had started.
        pid: Option<u32>,
    },
    Exited {
        exit: Exit,
        note: Option<String>,
    },
}

#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) profile: Profile,
    pub(super) life: Life,
    pub(super) word: Option<Dated<Word>>,
    pub(super) hooks: Hooks,
    pub(super) osc: Option<Dated<Osc>>,
    pub(super) wire: Wire,
    pub(super) tree: Option<Dated<Sample>>,
    /// Newest look at the tree that saw enough CPU use to be a custom agent's work.
    pub(super) computed: Option<Moment>,
    /// Newest look at the tree that saw any CPU use beneath the agent.
    pub(super) advanced: Option<Moment>,
    /// Start of the newest process that was seen beneath the agent, hooks and other short ones left out.
    pub(super) spawned: Option<Moment>,
    /// Newest look at the tree that saw a tool's process.
    lived: Option<Moment>,
    pub(super) title: Option<Dated<Title>>,
    /// When the title last went from rest to work. It may be told again with every frame of its animation.
    pub(super) spun: Option<Moment>,
    pub(super) output: Option<Moment>,
    /// Newest output that no key explains.
    pub(super) printed: Option<Moment>,
    key: Option<Moment>,
    pub(super) interrupt: Option<Moment>,
    pub(super) submit: Option<Moment>,
    pub(super) prompt: Option<Moment>,
    /// What an earlier supervisor had made of it.
    pub(super) restored: Option<Dated<Remembered>>,
}

impl Evidence {
    pub(super) fn new(profile: Profile) -> Self {
        Self {
            profile,
            life: Life::None,
            word: None,
            hooks: Hooks::default(),
            osc: None,
            wire: Wire::default(),
            tree: None,
            computed: None,
            advanced: None,
            spawned: None,
            lived: None,
            title: None,
            spun: None,
            output: None,
            printed: None,
            key: None,
            interrupt: None,
            submit: None,
            prompt: None,
            restored: None,
        }
    }

    pub(super) fn observe(&mut self, at: Moment, observation: Observation) {
        match observation {
            Observation::Started { pid } => self.started(at, pid),
            Observation::Exited { exit, note } => self.life = Life::Exited { exit, note },
            Observation::Word(word) => update(&mut self.word, at, word),
            Observation::WordGone => self.word = None,
            Observation::Hook(hook) => self.hooks.observe(at, &hook),
            Observation::Osc(osc) => update(&mut self.osc, at, osc),
            Observation::Generation { call, event } => self.wire.observe(at, call, &event),
            Observation::Calls { in_flight } => self.wire.reconcile(at, &in_flight),
            Observation::Tree(sample) => self.look(at, sample),
            Observation::Title(title) => {
                let rested = |known: &Dated<Title>| known.value == Title::Resting && known.at <= at;
                if title == Title::Spinning && self.title.as_ref().is_some_and(rested) {
                    advance(&mut self.spun, at);
                }
                update(&mut self.title, at, title);
            }
            Observation::Output { bytes } => {
                advance(&mut self.output, at);
                let echo =
                    bytes <= ECHO_SIZE && self.key.is_some_and(|key| key <= at && at - key <= ECHO);
                if !echo {
                    advance(&mut self.printed, at);
                }
            }
            Observation::Key(key) => {
                advance(&mut self.key, at);
                match key {
                    Key::Interrupt => advance(&mut self.interrupt, at),
                    Key::Submit => advance(&mut self.submit, at),
                    Key::Other => {}
                }
            }
            Observation::PromptDelivered => advance(&mut self.prompt, at),
        }
    }

    /// A process ends before the next one of its session starts. So while one runs, this is that one, told again or
    /// taken up from an earlier supervisor.
    fn started(&mut self, at: Moment, started: u32) {
        match &mut self.life {
            Life::Running { pid, .. } if pid.is_none_or(|known| known == started) => {
                *pid = Some(started);
            }
            _ => {
                *self = Self::new(self.profile);
                let pid = Some(started);
                self.life = Life::Running { since: at, pid };
            }
        }
    }

    fn look(&mut self, at: Moment, sample: Sample) {
        if sample.cpu_percent.is_some_and(|cpu| cpu >= CUSTOM_CPU) {
            advance(&mut self.computed, at);
        }
        if (sample.children.iter())
            .any(|child| child.cpu_percent.is_some_and(|cpu| cpu >= PROGRESS_CPU))
        {
            advance(&mut self.advanced, at);
        }
        let asked = self.tool_asked();
        for child in &sample.children {
            if at - child.started >= SHORT_LIVED {
                advance(&mut self.spawned, child.started);
            }
            if asked.is_some_and(|asked| child.started + START_SLACK >= asked) {
                advance(&mut self.lived, at);
            }
        }
        update(&mut self.tree, at, sample);
    }

    /// The process that is spoken of: when it started; none while none runs.
    pub(super) fn began(&self) -> Option<Moment> {
        match self.life {
            Life::Running { since, .. } => Some(since),
            Life::None | Life::Exited { .. } => None,
        }
    }

    /// When the tool that runs now was asked for, as hooks or wire tell: the earliest that is still open.
    pub(super) fn tool_asked(&self) -> Option<Moment> {
        let hooked = self.hooks.tools.values().map(|tool| tool.since).min();
        match (hooked, self.wire.tool_asked()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The busiest process that the agent started for a tool it was asked to run; helpers that live as long as the
    /// agent (MCP servers) and what earlier turns left (dev servers) are older than the request.
    pub(super) fn tool_child(&self, timers: &mut Timers<'_>) -> Option<&Child> {
        let asked = self.tool_asked()?;
        let tree = self.tree.as_ref()?;
        if timers.over(tree.at, TREE_AGE) {
            return None;
        }
        (tree.value.children.iter())
            .filter(|child| child.started + START_SLACK >= asked)
            .max_by_key(|child| (child.cpu_percent, std::cmp::Reverse(child.started)))
    }

    /// End of the newest step of work: a model call, a tool, a subagent.
    pub(super) fn step_ended(&self) -> Option<Moment> {
        let call = self.wire.last_end.as_ref().map(|end| end.at);
        call.max(self.hooks.step_ended)
    }

    /// The newest interrupt, unless work went on after it: then the key had another meaning (closed a menu).
    pub(super) fn interrupted(&self) -> Option<Moment> {
        let at = self.interrupt.max(self.hooks.interrupted)?;
        let survived = self.hooks.tool_done > Some(at)
            || self.wire.last_start > Some(at)
            || self.lived > Some(at + INTERRUPT);
        (!survived).then_some(at)
    }

    /// When the agent went to rest after an interrupt key, by its state sequence or title: even if what it had started
    /// lives on, as commands of Codex do. Neither the key nor the rest would do alone.
    pub(super) fn obeyed(&self) -> Option<Moment> {
        let key = self.interrupt?;
        let osc = self
            .osc
            .as_ref()
            .filter(|osc| osc.value.rests())
            .map(|osc| osc.at);
        let title = self
            .title
            .as_ref()
            .filter(|title| title.value == Title::Resting);
        let rest = osc
            .max(title.map(|title| title.at))
            .filter(|rest| *rest >= key)?;
        (self.wire.last_start <= Some(key)).then_some(rest)
    }

    /// The newest sign that work goes on, other than the wish to work.
    pub(super) fn progress(&self) -> Option<Moment> {
        let newest = self.wire.progress.max(self.hooks.last).max(self.advanced);
        // What an interactive agent prints is mostly its animation.
        if self.profile.animates {
            newest
        } else {
            newest.max(self.printed)
        }
    }
}
