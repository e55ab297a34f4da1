//! Dialogs that come up before an agent's first prompt although everything was prepared: a repository that is not
//! trusted, or one that brings hooks of its own.
//!
//! A fresh home raises none; this is the net under that. [`Startup`] is shown the screen until a prompt is on its way
//! (later the same words can be part of a conversation) and says what is due: keys, where the task's settings answer the
//! dialog; a question for the person, where nothing does or where the keys had no effect. It has no clock and does no I/O.

use std::time::Duration;

use super::super::StartupDialog;
use super::super::prompt::Moment;
use super::dialog::ANSWER_AFTER;

/// The keys may have come too early: they are typed again after this, [`TRIES`] times in all.
const AGAIN: Duration = Duration::from_secs(2);
const TRIES: u32 = 3;

/// What is due after a look at the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// Type this.
    Answer {
        keys: &'static [u8],
        why: &'static str,
    },
    /// It is the person's: to be shown as a dialog with this text.
    Ask(&'static str),
    /// The dialog that was asked about is gone.
    Gone,
}

/// The dialogs of one start.
#[derive(Debug)]
pub struct Startup {
    known: Vec<StartupDialog>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    dialog: StartupDialog,
    /// Seen first, or answered last.
    since: Moment,
    tries: u32,
    asked: bool,
}

impl Startup {
    #[must_use]
    pub fn new(known: Vec<StartupDialog>) -> Self {
        Self { known, open: None }
    }

    /// Nothing is to be looked for (any more).
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.known.is_empty() && self.open.is_none()
    }

    /// One of the dialogs is on the screen: nothing else may be typed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// A prompt is on its way: the agent is past its start.
    pub fn end(&mut self) -> Step {
        self.known.clear();
        self.close()
    }

    /// The screen as it is at `now`.
    pub fn look(&mut self, screen: &str, now: Moment) -> Step {
        // The lowest one is the newest.
        let shown = self
            .known
            .iter()
            .filter_map(|dialog| Some((screen.rfind(dialog.shows)?, *dialog)))
            .max_by_key(|(at, _)| *at)
            .map(|(_, dialog)| dialog);
        let Some(shown) = shown else {
            return self.close();
        };
        match &mut self.open {
            Some(open) if open.dialog == shown => open.due(now),
            Some(_) => {
                let step = self.close();
                self.open = Some(Open::new(shown, now));
                step
            }
            None => {
                let open = self.open.insert(Open::new(shown, now));
                open.due(now)
            }
        }
    }

    fn close(&mut self) -> Step {
        let Some(open) = self.open.take() else {
            return Step::Nothing;
        };
        if open.tries > 0 {
            // Answered: its words on the screen would be something else's.
            self.known.retain(|dialog| *dialog != open.dialog);
        }
        if open.asked {
            Step::Gone
        } else {
            Step::Nothing
        }
    }
}

impl Open {
    fn new(dialog: StartupDialog, now: Moment) -> Self {
        Self {
            dialog,
            since: now,
            tries: 0,
            asked: false,
        }
    }

    fn due(&mut self, now: Moment) -> Step {
        if self.asked {
            return Step::Nothing;
        }
        let wait = if self.tries == 0 { ANSWER_AFTER } else { AGAIN };
        match self.dialog.keys {
            Some(_) if now.saturating_sub(self.since) < wait => Step::Nothing,
            Some(keys) if self.tries < TRIES => {
                self.tries += 1;
                self.since = now;
                Step::Answer {
                    keys,
                    why: self.dialog.why,
                }
            }
            _ => {
                self.asked = true;
                Step::Ask(self.dialog.shows)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUST: StartupDialog = StartupDialog {
        shows: "Do you trust",
        keys: Some(b"1\r"),
        why: "it is trusted",
    };
    const HOOKS: StartupDialog = StartupDialog {
        shows: "Hooks need review",
        keys: Some(b"3\r"),
        why: "they are not",
    };
    const OTHER: StartupDialog = StartupDialog {
        shows: "Allow imports",
        keys: None,
        why: "",
    };

    fn ms(milliseconds: u64) -> Moment {
        Duration::from_millis(milliseconds)
    }

    fn answer(dialog: StartupDialog) -> Step {
        Step::Answer {
            keys: dialog.keys.unwrap(),
            why: dialog.why,
        }
    }

    #[test]
    fn each_is_answered_once_when_it_is_old_enough() {
        let mut startup = Startup::new(vec![TRUST, HOOKS]);
        assert_eq!(startup.look("loading", ms(0)), Step::Nothing);
        assert!(!startup.is_open());
        let screen = "loading\nDo you trust this?\n1. Yes";
        assert_eq!(startup.look(screen, ms(100)), Step::Nothing);
        assert!(startup.is_open(), "nothing else is typed meanwhile");
        assert_eq!(startup.look(screen, ms(349)), Step::Nothing);
        assert_eq!(startup.look(screen, ms(350)), answer(TRUST));
        assert_eq!(startup.look(screen, ms(600)), Step::Nothing);
        // The next one stands below what is left of the first.
        let both = "Do you trust this?\nHooks need review";
        assert_eq!(startup.look(both, ms(700)), Step::Nothing);
        assert_eq!(startup.look(both, ms(950)), answer(HOOKS));
        assert_eq!(startup.look("> ", ms(1_200)), Step::Nothing);
        assert!(startup.is_over());
        assert_eq!(startup.look(both, ms(9_000)), Step::Nothing);
    }

    #[test]
    fn keys_without_effect_are_repeated_then_the_person_is_asked() {
        let mut startup = Startup::new(vec![HOOKS]);
        let screen = "Hooks need review";
        let mut answers = 0;
        let mut asked = Vec::new();
        for look in 0..100 {
            match startup.look(screen, ms(250 * look)) {
                Step::Answer { .. } => answers += 1,
                Step::Ask(text) => asked.push(text),
                Step::Nothing => {}
                Step::Gone => panic!("it is there"),
            }
        }
        assert_eq!((answers, asked), (TRIES, vec!["Hooks need review"]));
        assert!(startup.is_open());
        assert_eq!(startup.look("> ", ms(60_000)), Step::Gone);
        assert!(startup.is_over());
    }

    #[test]
    fn what_no_setting_answers_is_the_persons_at_once() {
        let mut startup = Startup::new(vec![OTHER]);
        assert_eq!(
            startup.look("Allow imports?", ms(0)),
            Step::Ask("Allow imports")
        );
        assert_eq!(startup.look("Allow imports?", ms(9_000)), Step::Nothing);
        assert_eq!(startup.look("", ms(9_250)), Step::Gone);
    }

    #[test]
    fn a_prompt_on_its_way_ends_the_looking() {
        let mut startup = Startup::new(vec![TRUST, OTHER]);
        assert_eq!(startup.look("Do you trust", ms(0)), Step::Nothing);
        assert_eq!(startup.end(), Step::Nothing);
        assert!(startup.is_over());
        assert_eq!(startup.look("Do you trust", ms(5_000)), Step::Nothing);
        let mut startup = Startup::new(vec![OTHER]);
        startup.look("Allow imports", ms(0));
        assert_eq!(startup.end(), Step::Gone);
    }
}
