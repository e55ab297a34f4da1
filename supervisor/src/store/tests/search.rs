//! What is found, in which order, and what a query may be.

use super::*;
use proptest::prelude::*;

#[tokio::test]
async fn words_phrases_beginnings_and_accents_are_found() {
    let place = Place::new();
    let documents = vec![
        turn(
            0,
            AT,
            "The Café opens src/main.rs and says: naïve AND clever",
        ),
        turn(1, AT, "nothing of interest here"),
    ];
    place
        .store
        .append(batch("main", None, "1", documents))
        .await
        .unwrap();
    for (q, hits) in [
        ("cafe", 1),
        ("CAFÉ opens", 1),
        ("opens café", 1),
        ("\"opens café\"", 0),
        ("\"café opens\"", 1),
        ("src/main.rs", 1),
        ("main/src.rs", 0),
        ("naïv*", 1),
        ("naiv", 0),
        ("\"says naïv\"*", 1),
        ("and", 1),
        ("clever OR interest", 0),
        ("interest -clever", 0),
        ("here", 1),
        ("cafe interest", 0),
    ] {
        assert_eq!(place.found(q).await.len(), hits, "{q}");
    }
    let hit = place.found("clever").await.remove(0);
    assert_eq!(
        (
            hit.session.as_str(),
            hit.agent.as_deref(),
            hit.agent_session_id.as_deref()
        ),
        ("main", Some("claude"), Some("id-main"))
    );
    assert_eq!((hit.role.as_deref(), hit.exit), (Some("user"), None));
    assert_eq!(hit.at.unwrap().to_string(), AT);
    let shown: Vec<char> = hit.snippet.chars().collect();
    let [begin, end] = hit.highlights[0].map(|place| place as usize);
    assert_eq!(shown[begin..end].iter().collect::<String>(), "clever");
    assert!(hit.score > 0.0);
}

#[tokio::test]
async fn a_long_text_is_shown_at_the_place_that_fits() {
    let place = Place::new();
    let long = format!("{} needle {}", "before ".repeat(500), "after ".repeat(500));
    place
        .store
        .append(batch("main", None, "1", vec![turn(0, AT, &long)]))
        .await
        .unwrap();
    let hit = place.found("needle").await.remove(0);
    assert!(
        hit.snippet.starts_with("… before") && hit.snippet.ends_with("after …"),
        "{}",
        hit.snippet
    );
    let shown: Vec<char> = hit.snippet.chars().collect();
    let [begin, end] = hit.highlights[0].map(|place| place as usize);
    assert_eq!(shown[begin..end].iter().collect::<String>(), "needle");
}

#[tokio::test]
async fn filters_narrow_and_the_total_counts_all() {
    let place = Place::new();
    let many = (0..30).map(|n| turn(n, AT, "common word")).collect();
    place
        .store
        .append(batch("main", None, "1", many))
        .await
        .unwrap();
    let mut other = batch(
        "s2",
        None,
        "1",
        vec![turn(0, "2026-11-20T00:00:00.000Z", "common word")],
    );
    other.origin.agent = Some("codex".into());
    place.store.append(other).await.unwrap();
    let shell = Batch {
        origin: Origin {
            kind: Kind::Shell,
            agent: None,
            agent_session_id: None,
            ..origin("shell-1")
        },
        documents: vec![Document {
            what: What::Command {
                directory: "/app/repo".into(),
                exit: 3,
                duration_ms: Some(1500),
            },
            ..turn(0, AT, "echo common word")
        }],
        ..batch("", None, "1", Vec::new())
    };
    place.store.append(shell).await.unwrap();
    let found = async |ask: Asked<'static>| {
        place
            .store
            .search(asked(&Asked {
                q: Some("common"),
                ..ask
            }))
            .await
            .unwrap()
    };
    let all = found(Asked::default()).await;
    assert_eq!((all.total, all.results.len()), (32, query::DEFAULT));
    let of = async |ask| found(ask).await.total;
    let ask = Asked::default;
    assert_eq!(
        of(Asked {
            kind: Some("shell"),
            ..ask()
        })
        .await,
        1
    );
    assert_eq!(
        of(Asked {
            session: Some("s2"),
            ..ask()
        })
        .await,
        1
    );
    assert_eq!(
        of(Asked {
            agent: Some("claude"),
            ..ask()
        })
        .await,
        30
    );
    assert_eq!(
        of(Asked {
            since: Some("1d"),
            ..ask()
        })
        .await,
        31
    );
    assert_eq!(
        of(Asked {
            until: Some("1d"),
            ..ask()
        })
        .await,
        1
    );
    assert_eq!(
        of(Asked {
            agent: Some("copilot"),
            ..ask()
        })
        .await,
        0
    );
    let shell = found(Asked {
        kind: Some("shell"),
        ..ask()
    })
    .await
    .results
    .remove(0);
    assert_eq!(
        (shell.exit, shell.directory.as_deref(), shell.duration_ms),
        (Some(3), Some("/app/repo"), Some(1500))
    );
    assert_eq!((shell.agent, shell.role), (None, None));
}

#[tokio::test]
async fn better_ones_come_first_and_of_equal_ones_the_newest() {
    let place = Place::new();
    let documents = vec![
        turn(0, "2026-11-22T10:00:00.000Z", "rare once"),
        turn(1, "2026-11-22T11:00:00.000Z", "rare once"),
        turn(2, "2026-11-21T10:00:00.000Z", "rare rare"),
        turn(3, "2026-11-20T10:00:00.000Z", "rare once"),
    ];
    place
        .store
        .append(batch("main", None, "1", documents))
        .await
        .unwrap();
    let turns: Vec<String> = place
        .found("rare")
        .await
        .into_iter()
        .map(|hit| hit.turn.unwrap())
        .collect();
    assert_eq!(turns, ["2", "1", "0", "3"]);
}

#[tokio::test]
async fn of_very_many_the_last_are_ranked_and_all_are_counted() {
    let place = Place::new();
    let many = find::CANDIDATES as u64 + 50;
    let documents = (0..many).map(|n| turn(n, AT, "everywhere")).collect();
    place
        .store
        .append(batch("main", None, "1", documents))
        .await
        .unwrap();
    let answer = place.store.search(words("everywhere")).await.unwrap();
    assert_eq!(answer.total, many);
    assert_eq!(
        answer.results[0].turn.as_deref(),
        Some((many - 1).to_string().as_str())
    );
    let filtered = Query {
        kind: Some(Kind::Conversation),
        ..words("everywhere")
    };
    assert_eq!(place.store.search(filtered).await.unwrap().total, many);
}

/// Beyond the facets' bound the same is found as within it.
#[tokio::test]
async fn many_sessions_and_many_days_are_narrowed_as_few_are() {
    let place = Place::new();
    let begin: jiff::Timestamp = "1969-12-20T10:00:00Z".parse().unwrap();
    let day = |n: u64| begin + jiff::SignedDuration::from_hours(24 * i64::try_from(n).unwrap());
    for n in 0..80 {
        let rows = vec![turn(n, &day(n).to_string(), "each day")];
        let mut batch = batch(&format!("s{n}"), None, "1", rows);
        batch.origin.agent = Some(if n == 7 { "codex" } else { "claude" }.to_owned());
        place.store.append(batch).await.unwrap();
    }
    let total = async |asked: Asked<'static>| {
        let q = Some("day");
        let query = Query::parse(&Asked { q, ..asked }, begin).unwrap();
        place.store.search(query).await.unwrap().total
    };
    for (agent, fits) in [("claude", 79), ("codex", 1), ("copilot", 0)] {
        let agent = Some(agent);
        let asked = Asked {
            agent,
            ..Asked::default()
        };
        assert_eq!(total(asked).await, fits, "{agent:?}");
    }
    for (since, until, fits) in [
        (Some("1969-12-21"), Some("1969-12-23"), 2),
        (
            Some("1969-12-21T10:00:00Z"),
            Some("1969-12-23T10:00:00Z"),
            2,
        ),
        (
            Some("1969-12-21T10:00:00.001Z"),
            Some("1969-12-23T10:00:00.001Z"),
            2,
        ),
        (Some("1969-12-31"), Some("1970-01-02"), 2),
        (Some("1969-12-21"), None, 79),
        (Some("1970-03-08"), None, 2),
        (None, Some("1969-12-22"), 2),
        (None, Some("1960-01-01"), 0),
        (Some("1980-01-01"), None, 0),
    ] {
        let asked = Asked {
            since,
            until,
            ..Asked::default()
        };
        assert_eq!(total(asked).await, fits, "{since:?} {until:?}");
    }
}

#[tokio::test]
async fn of_a_phrase_the_newest_come_first() {
    let place = Place::new();
    let documents = vec![
        turn(0, "2026-11-22T10:00:00.000Z", "side by side"),
        turn(
            1,
            "2026-11-21T10:00:00.000Z",
            "side by side by side by side",
        ),
        turn(2, "2026-11-22T11:00:00.000Z", "side by side and more words"),
    ];
    place
        .store
        .append(batch("main", None, "1", documents))
        .await
        .unwrap();
    let hits = place.found("\"side by side\"").await;
    let turns: Vec<&str> = hits.iter().filter_map(|hit| hit.turn.as_deref()).collect();
    assert_eq!(turns, ["2", "0", "1"]);
    assert!(hits.iter().all(|hit| hit.score == 1.0));
}

fn table() -> rusqlite::Connection {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    connection
        .execute_batch(
            "CREATE VIRTUAL TABLE found USING fts5 (text, tokenize = 'unicode61 remove_diacritics 2');
             INSERT INTO found VALUES ('some words here');",
        )
        .unwrap();
    connection
}

proptest! {
    /// Whatever is typed is a query that FTS5 understands, or a mistake with a name.
    #[test]
    fn any_text_is_a_query_or_a_clear_mistake(
        q in ".{0,60}|[a-c\"*():^{}+,. -]{0,40}|(AND|OR|NOT|NEAR|found|text|:|\"|\\*|\\(|\\)|-| |a){0,12}"
    ) {
        let parsed = Query::parse(&Asked { q: Some(&q), ..Asked::default() }, jiff::Timestamp::UNIX_EPOCH);
        match parsed {
            Ok(query) => {
                let matched = table().query_row(
                    "SELECT count(*) FROM found WHERE found MATCH ?1",
                    [query.expression()],
                    |row| row.get::<_, i64>(0),
                );
                prop_assert!(matched.is_ok(), "{q:?} -> {}: {matched:?}", query.expression());
            }
            Err(mistakes) => {
                prop_assert_eq!(mistakes.len(), 1);
                prop_assert_eq!(mistakes[0].field, "q");
                prop_assert!(!mistakes[0].problem.is_empty() && !mistakes[0].remedy.is_empty());
            }
        }
    }
}
