//! `whim search`: what was said and done, best first.

use std::fmt::Write as _;
use std::io::IsTerminal;

use clap::Args;
use clap::builder::PossibleValuesParser;
use whim_wire::search::{Answer, Hit, Kind, Rebuilt};

use super::Outcome;
use super::client::{Client, ClientError};
use super::text::escape;

/// Bold, as far as a terminal has it; and back.
const BOLD: [&str; 2] = ["\u{1b}[1m", "\u{1b}[0m"];

/// What is looked for. Times are RFC 3339, a date, or how long ago.
#[derive(Debug, Args)]
pub(super) struct Wanted {
    /// Words that must all be there, a "phrase" in quotes, the beginning of a word as begin*.
    #[arg(required_unless_present = "rebuild")]
    query: Vec<String>,
    /// Only turns of conversations, or only commands of shells.
    #[arg(long, value_parser = PossibleValuesParser::new(["conversation", "shell"]))]
    kind: Option<String>,
    /// Only this session, or the terminal of a shell.
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Only sessions of this agent.
    #[arg(long)]
    agent: Option<String>,
    /// Not before this time: 2026-11-22T03:04:05Z, 2026-11-22, 90m, 2h, 3d, 1w.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Results at most: 20 if not given, no more than 200.
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
    /// In the other tasks' histories of the backups' store, too; a result of one begins with its task.
    #[arg(long)]
    everywhere: bool,
    /// Print the answer of the API.
    #[arg(long)]
    json: bool,
    /// First forget the index and fill it again from transcripts and shell histories.
    #[arg(long)]
    rebuild: bool,
}

pub(super) async fn run(client: &Client, wanted: &Wanted) -> Result<Outcome, ClientError> {
    let mut text = String::new();
    if wanted.rebuild {
        let rebuilt: Rebuilt = client
            .call(http::Method::POST, "/v1/search/rebuild", None)
            .await?;
        if wanted.query.is_empty() {
            let json = serde_json::to_string(&rebuilt)?;
            return Ok(Outcome::text(if wanted.json {
                json + "\n"
            } else {
                describe(rebuilt)
            }));
        }
    }
    let answer: Answer = client.get(&path(wanted)).await?;
    if wanted.json {
        text.push_str(&serde_json::to_string(&answer)?);
        text.push('\n');
    } else {
        text.push_str(&show(&answer, std::io::stdout().is_terminal()));
    }
    Ok(Outcome {
        // As grep's: a script can ask whether there is anything.
        code: u8::from(answer.total == 0),
        text,
        error: None,
    })
}

fn path(wanted: &Wanted) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("q", &wanted.query.join(" "));
    let limit = wanted.limit.map(|limit| limit.to_string());
    for (name, value) in [
        ("kind", &wanted.kind),
        ("session", &wanted.session),
        ("agent", &wanted.agent),
        ("since", &wanted.since),
        ("until", &wanted.until),
        ("limit", &limit),
    ] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    if wanted.everywhere {
        query.append_pair("everywhere", "true");
    }
    format!("/v1/search?{}", query.finish())
}

fn describe(rebuilt: Rebuilt) -> String {
    let number = rebuilt.documents;
    if rebuilt.complete {
        format!("{number} turns and commands in the index\n")
    } else {
        format!("{number} turns and commands in the index so far; it is still being filled\n")
    }
}

/// Two lines a hit: where and when, and the place that fits.
fn show(answer: &Answer, colours: bool) -> String {
    let heads: Vec<[String; 3]> = answer.results.iter().map(head).collect();
    let width = |column: usize| {
        let cells = heads.iter().filter_map(|head| head.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let (first, second) = (width(0), width(1));
    let mut text = String::new();
    for (hit, [at, place, what]) in answer.results.iter().zip(&heads) {
        let line = format!("{at:first$}  {place:second$}  {what}");
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{}", line.trim_end());
        let _ = writeln!(text, "    {}", marked(hit, colours));
    }
    let shown = answer.results.len() as u64;
    if answer.total > shown {
        let _ = writeln!(
            text,
            "{shown} of {}; --limit shows more, other words or --since fewer",
            answer.total
        );
    } else if answer.total == 0 {
        text.push_str("nothing found\n");
    }
    if !answer.complete {
        text.push_str("the index is still being filled: ask again for the rest\n");
    }
    text
}

fn head(hit: &Hit) -> [String; 3] {
    let at = hit.at.map(|at| at.to_string()).unwrap_or_default();
    let mut place = hit.session.clone();
    if let Some(task) = &hit.task {
        place = format!("{task}/{place}");
    }
    let what = match hit.kind {
        Kind::Conversation => {
            let words = [&hit.agent, &hit.role, &hit.subagent];
            let words: Vec<&str> = words.into_iter().flatten().map(String::as_str).collect();
            words.join(" ")
        }
        Kind::Shell => {
            let exit = hit.exit.map(|exit| format!("exit {exit}"));
            let words = [exit, hit.directory.clone()];
            let words: Vec<String> = words.into_iter().flatten().collect();
            words.join("  ")
        }
    };
    [at, escape(&place), escape(&what)]
}

/// The snippet, with what was found in it in bold.
fn marked(hit: &Hit, colours: bool) -> String {
    let mut text = String::new();
    let mut characters = hit.snippet.chars();
    let mut place = 0;
    for [begin, end] in &hit.highlights {
        let mut take = |until: u32| -> String {
            let count = until.saturating_sub(place) as usize;
            place = place.max(until);
            escape(&characters.by_ref().take(count).collect::<String>())
        };
        text.push_str(&take(*begin));
        let found = take(*end);
        if colours {
            let [on, off] = BOLD;
            let _ = write!(text, "{on}{found}{off}");
        } else {
            text.push_str(&found);
        }
    }
    text.push_str(&escape(characters.as_str()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer() -> Answer {
        serde_json::from_value(json!({"total": 3, "complete": true, "results": [
            {"kind": "conversation", "session": "main", "agent_session_id": "u", "agent": "claude",
             "at": "2026-11-22T03:04:05.678Z", "role": "user", "snippet": "… ä needle\u{1b}[2J here", "highlights": [[4, 10]],
             "score": 1.0, "exit": null},
            {"kind": "shell", "session": "shell-12", "agent_session_id": null, "agent": null, "at": null, "role": null,
             "snippet": "needle needle", "highlights": [[0, 6], [7, 13]], "score": 0.5, "exit": 7, "directory": "/a\u{202e}b"},
        ]}))
        .unwrap()
    }

    #[test]
    fn hits_are_aligned_and_cannot_steer_a_terminal() {
        assert_eq!(
            show(&answer(), false),
            "2026-11-22T03:04:05.678Z  main      claude user\n    … ä needle\\u{1b}[2J here\n                          shell-12  exit 7  /a\\u{202e}b\n    needle needle\n2 of 3; --limit shows more, other words or --since fewer\n"
        );
    }

    #[test]
    fn what_was_found_is_bold_on_a_terminal() {
        let text = show(&answer(), true);
        assert!(
            text.contains("… ä \u{1b}[1mneedle\u{1b}[0m\\u{1b}[2J here"),
            "{text}"
        );
        assert!(text.contains("\u{1b}[1mneedle\u{1b}[0m \u{1b}[1mneedle\u{1b}[0m\n"));
    }

    #[test]
    fn nothing_and_not_yet_are_said() {
        assert_eq!(
            show(
                &Answer {
                    complete: true,
                    ..Answer::default()
                },
                false
            ),
            "nothing found\n"
        );
        assert!(show(&Answer::default(), false).contains("still being filled"));
    }
}
