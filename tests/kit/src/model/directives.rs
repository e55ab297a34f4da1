//! Directives: a prompt that says itself what the model will do.
//!
//! A test with a real agent is easiest to read when the prompt carries its script: `[[sh make test]] [[say Fixed.]]`.
//! Every tool directive is a round of its own, in order; after the last one the model says its text. A fault happens
//! once, before the round it stands at, so that an agent's retry finds the answer. Brackets with any other word inside
//! are the person's own.
//!
//! | directive | the model |
//! |---|---|
//! | `[[sh COMMAND]]` `[[read PATH]]` `[[write PATH TEXT]]` `[[tool NAME JSON]]` | calls the tool |
//! | `[[think TEXT]]` `[[say TEXT]]` | reasons before the next reply · ends the turn with this text |
//! | `[[wait MS]]` `[[slow MS]]` `[[gate NAME]]` | next reply: first event later · pause between writes · held until opened |
//! | `[[status CODE]]` `[[error KIND]]` `[[cut N]]` `[[reset N]]` `[[stall N]]` `[[hang]]` | fails once here ([`Fault`]) |

use super::script::{Fault, Reply, ToolCall};

/// What a prompt's directives ask for at one round.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Round {
    /// One each for the first requests of the round.
    pub(super) faults: Vec<Fault>,
    /// For the request after those.
    pub(super) reply: Reply,
}

/// The rounds that a prompt asks for; nothing when it holds no directive.
pub(super) fn compile(prompt: &str) -> Option<Vec<Round>> {
    let mut rounds = Vec::new();
    let mut open = Round::default();
    let mut said: Option<String> = None;
    let mut found = false;
    for (verb, rest) in directives(prompt) {
        let number = rest.parse::<u64>().unwrap_or(0);
        let count = usize::try_from(number).unwrap_or(usize::MAX);
        match verb {
            "sh" => close(&mut rounds, &mut open, ToolCall::Shell(rest.to_owned())),
            "read" => close(&mut rounds, &mut open, ToolCall::Read(rest.to_owned())),
            "write" => {
                let (path, content) = rest.split_once(' ').unwrap_or((rest, ""));
                let call = ToolCall::Write {
                    path: path.to_owned(),
                    content: content.to_owned(),
                };
                close(&mut rounds, &mut open, call);
            }
            "tool" => {
                let (name, input) = rest.split_once(' ').unwrap_or((rest, "{}"));
                let input = serde_json::from_str(input).unwrap_or_else(|_| input.into());
                close(
                    &mut rounds,
                    &mut open,
                    ToolCall::Named {
                        name: name.to_owned(),
                        input,
                    },
                );
            }
            "think" => open.reply.thinking = Some(rest.to_owned()),
            "say" => said = Some(rest.to_owned()),
            "wait" => open.reply.pace.first_event_ms = number,
            "slow" => open.reply.pace.between_ms = number,
            "gate" => open.reply.gate = Some(rest.to_owned()),
            "status" => open.faults.push(Fault::Status {
                code: u16::try_from(number).unwrap_or(500),
                body: None,
                retry_after: None,
            }),
            "error" => open.faults.push(Fault::Error {
                after: 1,
                kind: rest.to_owned(),
                message: "The scripted model was told to fail here.".to_owned(),
            }),
            "cut" => open.faults.push(Fault::Cut { after: count }),
            "reset" => open.faults.push(Fault::Reset { after: count }),
            "stall" => open.faults.push(Fault::Stall { after: count }),
            "hang" => open.faults.push(Fault::Hang),
            _ => continue,
        }
        found = true;
    }
    open.reply.text = Some(said.unwrap_or_else(|| "All done.".to_owned()));
    rounds.push(open);
    found.then_some(rounds)
}

fn close(rounds: &mut Vec<Round>, open: &mut Round, call: ToolCall) {
    open.reply.tools.push(call);
    rounds.push(std::mem::take(open));
}

/// Verb and rest of everything in double brackets.
fn directives(prompt: &str) -> impl Iterator<Item = (&str, &str)> {
    prompt.split("[[").skip(1).filter_map(|part| {
        let (inside, _) = part.split_once("]]")?;
        let inside = inside.trim();
        Some(
            inside
                .split_once(char::is_whitespace)
                .map_or((inside, ""), |(verb, rest)| (verb, rest.trim())),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_rounds_and_faults_stand_before_them() {
        let rounds = compile(
            "please [[sh make]] [[status 529]] [[think hm]] [[read a.txt]] [[say Fixed it.]]",
        )
        .unwrap();
        assert_eq!(rounds.len(), 3);
        assert_eq!(rounds[0].reply.tools, [ToolCall::Shell("make".into())]);
        assert_eq!(
            rounds[1].faults,
            [Fault::Status {
                code: 529,
                body: None,
                retry_after: None
            }]
        );
        assert_eq!(rounds[1].reply.thinking.as_deref(), Some("hm"));
        assert_eq!(rounds[2].reply.text.as_deref(), Some("Fixed it."));
    }

    #[test]
    fn other_brackets_are_the_persons_own() {
        assert_eq!(compile("if [[ -f x ]]; then …"), None);
        assert_eq!(compile("[[open"), None);
    }
}
