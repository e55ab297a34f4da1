//! Decides the reply to a request: rules, then directives, then rules for the rest, then the fallback.
//!
//! Owns what has been used up. Bounded: the faults that were taken are remembered for [`MAX_PLACES`] places of
//! conversations; beyond that all are forgotten, and a prompt seen long ago could fail again.

use std::collections::HashMap;

use super::conversation::Conversation;
use super::directives;
use super::script::{Reply, Rule, Script};

const MAX_PLACES: usize = 4096;

/// A script and how much of it is used up.
#[derive(Debug, Default)]
pub(super) struct Chooser {
    script: Script,
    /// By index of the rule.
    used: HashMap<usize, u32>,
    /// Faults taken by prompt and round.
    taken: HashMap<(String, usize), usize>,
}

impl Chooser {
    pub(super) fn new(script: Script) -> Self {
        Self {
            script,
            ..Self::default()
        }
    }

    pub(super) fn script(&self) -> &Script {
        &self.script
    }

    /// The reply and the name of what gave it.
    pub(super) fn choose(&mut self, conversation: &Conversation, path: &str) -> (String, Reply) {
        self.by_rule(conversation, path, false)
            .or_else(|| {
                conversation
                    .title
                    .then(|| ("title".into(), title(conversation)))
            })
            .or_else(|| self.by_directive(conversation))
            .or_else(|| self.by_rule(conversation, path, true))
            .unwrap_or_else(|| ("fallback".into(), self.script.fallback.clone()))
    }

    fn by_rule(
        &mut self,
        conversation: &Conversation,
        path: &str,
        late: bool,
    ) -> Option<(String, Reply)> {
        let used = &mut self.used;
        let left = |at: usize, rule: &Rule, used: &HashMap<usize, u32>| {
            rule.times
                .is_none_or(|times| used.get(&at).copied().unwrap_or(0) < times)
        };
        let rules = self
            .script
            .rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| rule.after_directives == late);
        let (at, rule, reply) =
            rules
                .filter(|&(at, rule)| left(at, rule, used))
                .find_map(|(at, rule)| {
                    rule.reply(conversation, path)
                        .map(|reply| (at, rule, reply))
                })?;
        *used.entry(at).or_insert(0) += 1;
        Some((rule.name.clone(), reply.clone()))
    }

    fn by_directive(&mut self, conversation: &Conversation) -> Option<(String, Reply)> {
        if !self.script.directives {
            return None;
        }
        let mut rounds = directives::compile(&conversation.prompt)?;
        let at = conversation.round.min(rounds.len().saturating_sub(1));
        let mut round = rounds.swap_remove(at);
        if self.taken.len() >= MAX_PLACES {
            self.taken.clear();
        }
        let taken = self
            .taken
            .entry((conversation.prompt.clone(), at))
            .or_insert(0);
        if *taken < round.faults.len() {
            round.reply.fault = Some(round.faults.swap_remove(*taken));
            *taken += 1;
        }
        Some(("directives".into(), round.reply))
    }
}

/// As long as Codex's schema allows (36 characters); Claude Code wants 3 to 7 words.
fn title(conversation: &Conversation) -> Reply {
    let words = conversation
        .prompt
        .split(|char: char| !char.is_alphanumeric());
    let mut title = "Scripted".to_owned();
    for word in words.filter(|word| !word.is_empty()).take(5) {
        if title.chars().count() + 1 + word.chars().count() <= 36 {
            title.push(' ');
            title.push_str(word);
        }
    }
    Reply::say(serde_json::json!({"title": title}).to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::conversation::{Agent, Dialect};
    use super::super::script::Fault;
    use super::*;

    fn asking(prompt: &str) -> Conversation {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": prompt}], "tools": [{"name": "Bash"}]});
        Conversation::read(Dialect::Anthropic, Agent::Other, &body)
    }

    #[test]
    fn a_rule_is_used_up_and_the_next_takes_over() {
        let mut chooser = Chooser::new(Script::of([
            Rule::prompt("x", [Reply::status(529)]).times(2),
            Rule::prompt("x", [Reply::say("now")]),
        ]));
        let mut ask = || chooser.choose(&asking("x"), "/v1/messages").1;
        assert!(ask().fault.is_some());
        assert!(ask().fault.is_some());
        assert_eq!(ask(), Reply::say("now"));
    }

    #[test]
    fn a_directive_fault_happens_once() {
        let mut chooser = Chooser::default();
        let mut ask = || {
            chooser
                .choose(&asking("[[status 500]] [[cut 2]] [[say ok]]"), "/")
                .1
        };
        assert!(matches!(ask().fault, Some(Fault::Status { code: 500, .. })));
        assert!(matches!(ask().fault, Some(Fault::Cut { after: 2 })));
        assert_eq!(ask().fault, None);
        assert_eq!(ask().fault, None);
    }

    #[test]
    fn past_its_last_round_a_rule_no_longer_answers() {
        let mut chooser = Chooser::new(Script::of([Rule::prompt("x", [Reply::shell("ls")])]));
        let mut conversation = asking("x");
        assert_eq!(chooser.choose(&conversation, "/").0, "x");
        conversation.round = 1;
        assert_eq!(chooser.choose(&conversation, "/").0, "fallback");
    }

    #[test]
    fn titles_are_answered_with_titles_only() {
        let mut chooser = Chooser::new(Script::of([Rule::always(Reply::say("no title"))]));
        let mut conversation = asking("fix the slug test please now");
        conversation.title = true;
        let (_, reply) = chooser.choose(&conversation, "/");
        assert_eq!(
            reply.text.as_deref(),
            Some(r#"{"title":"Scripted fix the slug test please"}"#)
        );
    }
}
