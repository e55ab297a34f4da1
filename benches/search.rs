//! What a search takes among hundreds of thousands of turns, beside looking through all of them.
//!
//! `bench-search [TURNS] [ROUNDS]`: 300,000 turns and 20 rounds if not given. The words are drawn as those of languages are
//! (the n-th most frequent stands at every n-th place of the first), 5 to 400 a turn, the same ones in each run. The peers
//! find the rarest word only: SQLite's LIKE over the same texts, and grep over the same texts in a file. Everything is read
//! once before it is measured.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a measurement that cannot go on ends by panicking, and prints what it found"
)]

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use whim::store::query::Asked;
use whim::store::{Batch, Document, Origin, Query, Store, What};
use whim_wire::search::Kind;
use words::{Language, Random, WORDS};

mod words;

/// Turns of a batch, as the feed has them.
const BATCH: usize = 200;
/// Sessions that the turns are of.
const SESSIONS: usize = 50;
/// When the first turn was said; one a second from then on.
const BEGIN: i64 = 1_790_000_000_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let number = |n, default| {
        let given = std::env::args().nth(n);
        given.map_or(default, |given| given.parse::<usize>().unwrap())
    };
    let (turns, rounds) = (number(1, 300_000), number(2, 20));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let plain = directory.path().join("texts");
    let mut random = Random(0x5EED);
    let language = Language::new(&mut random);
    let store = Store::new(&path).unwrap();
    let filled = fill(&store, &plain, turns, &language, &mut random).await;
    let size = std::fs::metadata(&plain).unwrap().len() as f64 / 1e6;
    let stored = std::fs::metadata(&path).unwrap().len() as f64 / 1e6;
    println!("{turns} turns, {size:.0} MB of text; the store has {stored:.0} MB");
    println!(
        "taken in: {:.1} MB/s, {:.0} turns/s\n",
        size / filled.as_secs_f64(),
        turns as f64 / filled.as_secs_f64()
    );
    let word = |n: usize| language.words[n].clone();
    let rare = word(WORDS - 1);
    let cases = [
        ("rarest word", rare.clone(), Asked::default()),
        ("a word of every 500th place", word(500), Asked::default()),
        ("a word of every 50th place", word(50), Asked::default()),
        ("most frequent word", word(0), Asked::default()),
        (
            "two words",
            format!("{} {}", word(0), word(5000)),
            Asked::default(),
        ),
        (
            "phrase of frequent words",
            format!("\"{} {}\"", word(1), word(2)),
            Asked::default(),
        ),
        (
            "beginning of two letters",
            format!("{}*", word(50).get(..2).unwrap()),
            Asked::default(),
        ),
        (
            "beginning of three letters",
            format!("{}*", word(0).get(..3).unwrap()),
            Asked::default(),
        ),
        (
            "frequent word since a moment",
            word(5),
            Asked {
                since: Some("2026-09-22T07:00:00Z"),
                ..Asked::default()
            },
        ),
        (
            "frequent word of one session",
            word(5),
            Asked {
                session: Some("s7"),
                ..Asked::default()
            },
        ),
        (
            "frequent word of one day",
            word(5),
            Asked {
                since: Some("2026-09-22"),
                until: Some("2026-09-23"),
                ..Asked::default()
            },
        ),
    ];
    println!(
        "{:32}{:>10}{:>10}{:>10}{:>10}",
        "ms", "found", "p50", "worst", "CPU"
    );
    let mut least = f64::NAN;
    for (name, q, asked) in cases {
        let asked = Asked {
            q: Some(&q),
            ..asked
        };
        let query = Query::parse(&asked, jiff::Timestamp::now()).unwrap();
        let total = store.search(query.clone()).await.unwrap().total;
        let mut taken = Vec::new();
        let spent = cpu();
        for _ in 0..rounds {
            let begun = Instant::now();
            store.search(query.clone()).await.unwrap();
            taken.push(begun.elapsed());
        }
        let spent = (cpu() - spent) / rounds as f64;
        let (median, worst) = figures(taken);
        println!("{name:32}{total:>10}{median:>10.2}{worst:>10.2}{spent:>10.2}");
        if name == "rarest word" {
            least = median;
        }
    }
    println!();
    for (name, median) in [
        ("SQLite LIKE", like(&path, &rare, rounds)),
        ("grep -ciw", grep(&plain, &rare, rounds)),
    ] {
        match median {
            Some(median) => println!("{name:32}{median:>20.2}  {:.0} × ours", median / least),
            None => println!("{name} is not installed: left out"),
        }
    }
}

async fn fill(
    store: &Store,
    plain: &Path,
    turns: usize,
    language: &Language,
    random: &mut Random,
) -> Duration {
    let mut file = std::io::BufWriter::new(std::fs::File::create(plain).unwrap());
    let mut cursors: Vec<Option<String>> = vec![None; SESSIONS];
    let mut taken = Duration::ZERO;
    for batch in 0..turns.div_ceil(BATCH) {
        let session = batch % SESSIONS;
        let mut documents = Vec::new();
        for n in batch * BATCH..((batch + 1) * BATCH).min(turns) {
            let text = language.text(random);
            writeln!(file, "{text}").unwrap();
            let at = jiff::Timestamp::from_millisecond(BEGIN + i64::try_from(n).unwrap() * 1000);
            documents.push(Document {
                place: n as u64,
                at: Some(at.unwrap().into()),
                text,
                what: What::Turn {
                    id: n.to_string(),
                    role: "user".into(),
                    subagent: None,
                },
            });
        }
        let cursor = Some(batch.to_string());
        let origin = Origin {
            task: None,
            kind: Kind::Conversation,
            session: format!("s{session}"),
            agent: Some("claude".into()),
            agent_session_id: None,
            name: "transcript".into(),
        };
        let batch = Batch {
            origin,
            after: std::mem::replace(&mut cursors[session], cursor.clone()),
            anew: false,
            documents,
            cursor,
            names: Vec::new(),
        };
        let begun = Instant::now();
        store.append(batch).await.unwrap();
        taken += begun.elapsed();
    }
    file.flush().unwrap();
    taken
}

/// Processor time of this process in milliseconds: on a busy machine it says more than the clock.
fn cpu() -> f64 {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let times = [usage.user_time(), usage.system_time()];
    let ms = times.map(|time| time.tv_sec() as f64 * 1000.0 + time.tv_usec() as f64 / 1000.0);
    ms.iter().sum()
}

/// Median and worst in milliseconds.
fn figures(mut taken: Vec<Duration>) -> (f64, f64) {
    taken.sort();
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    (ms(taken[taken.len() / 2]), ms(taken[taken.len() - 1]))
}

/// Median of looking through all texts of the store.
fn like(path: &Path, word: &str, rounds: usize) -> Option<f64> {
    let connection = rusqlite::Connection::open(path).unwrap();
    let look = || -> i64 {
        let scan = "SELECT count(*) FROM texts WHERE text LIKE '%' || ?1 || '%'";
        connection
            .query_row(scan, [word], |row| row.get(0))
            .unwrap()
    };
    look();
    let taken = (0..rounds.min(5)).map(|_| {
        let begun = Instant::now();
        look();
        begun.elapsed()
    });
    Some(figures(taken.collect()).0)
}

/// Median of grep over the same texts; `None`: it is not installed.
fn grep(plain: &Path, word: &str, rounds: usize) -> Option<f64> {
    let look = || {
        let mut command = Command::new("grep");
        command.args(["-ciw", word]).arg(plain).env("LC_ALL", "C");
        command.output().ok()
    };
    look()?;
    let taken = (0..rounds.min(5)).map(|_| {
        let begun = Instant::now();
        look();
        begun.elapsed()
    });
    Some(figures(taken.collect()).0)
}
