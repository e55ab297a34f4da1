//! The script for people: what the model does when nobody wrote a script.
//!
//! On the sample repository ([`crate::repo::sample`]) it does the task as an agent would: reads, runs the test, edits,
//! runs the test again, commits, sums up. On any other repository it looks around and says who it is.

use super::script::{Pace, Reply, Rule, Script, ToolCall, When};

/// The script that `scripted-model` runs without `--script`.
#[must_use]
pub fn script() -> Script {
    let pace = Pace {
        first_event_ms: 300,
        between_ms: 30,
        ..Pace::default()
    };
    let say = |text: &str, reply: Reply| Reply {
        text: Some(text.to_owned()),
        pace,
        ..reply
    };
    let fix = vec![
        Reply {
            thinking: Some("The task names a failing test. First see what it expects.".into()),
            ..say(
                "I'll look at the function and run its test first.",
                Reply::shell("ls && cat slug.sh && sh test.sh"),
            )
        },
        say(
            "The test fails on repeated separators. Let me read the function.",
            Reply::call(ToolCall::Read("slug.sh".into())),
        ),
        say(
            "`tr` replaces every separator by a dash of its own; squeezing them into one fixes it.",
            Reply::call(ToolCall::Edit {
                path: "slug.sh".into(),
                old: crate::repo::SAMPLE_BUG.into(),
                new: crate::repo::SAMPLE_FIX.into(),
            }),
        ),
        say("Now the test again.", Reply::shell("sh test.sh")),
        say(
            "All pass. I'll commit this.",
            Reply::shell(
                "git add slug.sh && git commit -q -m 'Squeeze separators in slugs' && git log --oneline -1",
            ),
        ),
        say(
            "Fixed: `slug` now squeezes runs of separators into one dash. `sh test.sh` passes and the change is committed.",
            Reply::default(),
        ),
    ];
    let look = vec![
        say(
            "I'll look around first.",
            Reply::shell("pwd && ls && git log --oneline -3"),
        ),
        say(
            "I am a scripted stand-in for a model, so this is where my part ends. Give a provider key for a real one.",
            Reply::default(),
        ),
    ];
    let rule = |name: &str, prompt: Option<&str>, replies| Rule {
        name: name.to_owned(),
        when: When {
            prompt_contains: prompt.map(String::from),
            ..When::default()
        },
        after_directives: true,
        replies,
        ..Rule::default()
    };
    Script {
        fallback: say("Nothing more to do.", Reply::default()),
        rules: vec![rule("fix", Some("test"), fix), rule("look", None, look)],
        ..Script::default()
    }
}
