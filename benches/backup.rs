//! What a backup costs while a long history grows, and what the end of a container owes.
//!
//! `bench-backup WHIM [MEGABYTES] [ROUNDS]`: 1,000 MB of transcripts, of which one grows by 1 MB twenty times, if not
//! given. `WHIM` is run as it is in a container, with an agent that does nothing; its own timer is out of the way. Bytes
//! read are the kernel's count for the helper, which is who reads the agents' files (`rchar` of proc(5)); bytes written
//! are what the store and the index have more or anew; processor time is that of supervisor and helper together.
//!
//! Each figure stands beside its target. Needs root, and `python3` for the S3 of the last part.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a measurement that cannot go on ends by panicking, and prints what it found"
)]

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use transcript::Writer;
use whim_kit::{Client, Root, Run, S3, Whim, proc, wait};
use words::Random;

mod transcript;
mod words;

const MB: usize = 1_000_000;
/// Bytes of a transcript: a long day's.
const TRANSCRIPT: usize = 16 * MB;
/// What is written between two backups.
const GROWTH: usize = MB;
/// What is owed at the end.
const OWED: usize = 10 * MB;
/// How long nothing is done.
const QUIET: Duration = Duration::from_secs(20);
/// For things that are not measured.
const PATIENCE: Duration = Duration::from_secs(600);

fn main() {
    let binary = PathBuf::from(std::env::args().nth(1).unwrap());
    let number = |n, default| {
        let given = std::env::args().nth(n);
        given.map_or(default, |given| given.parse::<usize>().unwrap())
    };
    let (megabytes, rounds) = (number(2, 1000), number(3, 20));
    let mut writer = Writer::new(Random(0x5EED));
    println!("{:44}{:>12}{:>10}", "", "measured", "target");
    growing(&binary, &mut writer, megabytes, rounds.max(1));
    ending(&binary, &mut writer);
}

/// A history of many megabytes that grows by one, again and again; then nothing.
fn growing(binary: &Path, writer: &mut Writer, megabytes: usize, rounds: usize) {
    let spec = json!({"version": 1, "task": {"id": "bench"}, "backup": {"interval_s": 3600}});
    let host = Host::start(binary, &spec, &[]);
    let files = (megabytes * MB).div_ceil(TRANSCRIPT).max(1);
    for n in 0..files {
        let bytes = (megabytes * MB - n * TRANSCRIPT).min(TRANSCRIPT);
        host.append(n, &writer.lines(bytes));
    }
    let begun = Instant::now();
    let first = host.backup();
    let taken = begun.elapsed().as_secs_f64();
    let bytes = first["new_bytes"].as_f64().unwrap();
    let speed = bytes / MB as f64 / taken;
    row(
        &format!("first backup of {:.0} MB, MB/s", bytes / MB as f64),
        speed,
        Some(Target::AtLeast(200.0)),
    );
    let put = first["put_bytes"].as_f64().unwrap();
    row("  stored of it, MB", put / MB as f64, None);

    let mut read = Vec::new();
    let mut own = Vec::new();
    let mut written = Vec::new();
    let mut took = Vec::new();
    let mut spent = 0;
    let mut grown = 0;
    for _ in 0..rounds {
        let more = writer.lines(GROWTH);
        grown += more.len();
        host.append(files - 1, &more);
        let before = host.look();
        let begun = Instant::now();
        host.backup();
        took.push(begun.elapsed().as_secs_f64() * 1000.0);
        let after = host.look();
        read.push((after.read - before.read) as f64 / MB as f64);
        own.push((after.own - before.own) as f64 / MB as f64);
        written.push((after.stored - before.stored + after.index) as f64 / MB as f64);
        spent += after.ticks - before.ticks;
    }
    let grown = grown as f64 / rounds as f64 / MB as f64;
    println!("{rounds} times {grown:.2} MB more, each:");
    row(
        "  read, MB (worst)",
        worst(&read),
        Some(Target::AtMost(1.2)),
    );
    row("  read by the supervisor, MB (worst)", worst(&own), None);
    row(
        "  written, MB (worst)",
        worst(&written),
        Some(Target::AtMost(0.5)),
    );
    let ms = spent as f64 * 1000.0 / ticks_per_second() / rounds as f64;
    row("  CPU, ms (mean)", ms, Some(Target::AtMost(50.0)));
    row("  from asking to stored, ms (worst)", worst(&took), None);

    let (before, told) = (host.look(), host.finished());
    std::thread::sleep(QUIET);
    let after = host.look();
    println!("{} s in which nothing is written:", QUIET.as_secs());
    for (what, figure) in [
        ("  backups", (host.finished() - told) as u64),
        ("  bytes read by the helper", after.read - before.read),
        ("  bytes stored", after.stored.abs_diff(before.stored)),
        (
            "  ticks of the helper",
            after.helper_ticks - before.helper_ticks,
        ),
    ] {
        row(what, figure as f64, Some(Target::AtMost(0.0)));
    }
    let share = (after.ticks - before.ticks) as f64 / ticks_per_second() / QUIET.as_secs_f64();
    row("  the whole supervisor, % of a core", share * 100.0, None);
}

/// What is not saved yet when the container ends, into an S3 beside it.
fn ending(binary: &Path, writer: &mut Writer) {
    let s3 = match S3::start() {
        Ok(s3) => s3,
        Err(error) => {
            println!("no S3 here, so the end of a container is left out: {error}");
            return;
        }
    };
    let backup = json!({"interval_s": 3600, "url": "s3://history/bench"});
    let spec = json!({"version": 1, "task": {"id": "bench"}, "backup": backup});
    let mut host = Host::start(binary, &spec, &s3.environment());
    host.append(0, &writer.lines(MB));
    host.backup();
    let owed = writer.lines(OWED);
    host.append(0, &owed);
    let begun = Instant::now();
    host.whim.signal(Signal::SIGTERM).unwrap();
    assert_eq!(
        host.whim.ended(PATIENCE).unwrap(),
        0,
        "{}",
        host.whim.output()
    );
    let taken = begun.elapsed().as_secs_f64();
    let last = host.last_words();
    assert_eq!(
        (
            &last["reason"],
            last["new_bytes"].as_f64() >= Some(owed.len() as f64)
        ),
        (&json!("stop"), true),
        "{last}\n{}",
        host.whim.output()
    );
    let ms = last["ms"].as_f64().unwrap();
    println!(
        "the container ends, {:.1} MB are not saved:",
        owed.len() as f64 / MB as f64
    );
    row(
        "  until they are in the S3, s",
        ms / 1000.0,
        Some(Target::AtMost(2.0)),
    );
    row("  until the container has ended, s", taken, None);
}

/// A whim at work, as root.
struct Host {
    whim: Whim,
    client: Client,
}

/// What was used up so far, and what there is.
struct Look {
    /// Bytes that the helper read.
    read: u64,
    /// Bytes that the supervisor read.
    own: u64,
    /// Bytes of all objects in the store.
    stored: u64,
    /// Bytes of the index, which is written anew each time.
    index: u64,
    /// Of supervisor and helper.
    ticks: u64,
    helper_ticks: u64,
}

impl Host {
    fn start(binary: &Path, spec: &Value, environment: &[(&str, String)]) -> Self {
        let command = json!(["/bin/sh", "-c", "exec sleep 100000"]).to_string();
        let mut run = Run::new(binary).args(["--agent", "custom", "--agent-command", &command]);
        for (name, value) in environment {
            run = run.env(name, value);
        }
        let run = run.args(["--spec", &spec.to_string()]);
        let whim = run.start(Root::new().unwrap()).unwrap();
        let client = whim.client(PATIENCE).unwrap().limit(PATIENCE);
        let state = |wanted: &dyn Fn(&Value) -> bool| {
            wait::until("whim", PATIENCE, || {
                client.json("/v1/state").ok().filter(wanted)
            })
            .unwrap_or_else(|error| panic!("{error}\n{}", whim.output()))
        };
        state(&|state| state["phase"] == "ready" && state["state"] == "idle");
        state(&|state| state["backup"]["last_ok"].is_string());
        // The agent's first idleness asks for a backup of its own, at most two seconds after the one of the start.
        std::thread::sleep(Duration::from_secs(3));
        Self { whim, client }
    }

    fn append(&self, n: usize, lines: &str) {
        let name = format!(
            "/home/node/.claude/projects/-app-repo/{n:08x}-1111-4111-8111-111111111111.jsonl"
        );
        let path = self.whim.root().at(&name);
        if !path.exists() {
            self.whim.root().write_as_agent(&name, "").unwrap();
        }
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(lines.as_bytes()).unwrap();
    }
    /// Asks for a backup and waits until it is durable.
    fn backup(&self) -> Value {
        let answer = self.client.post("/v1/backups", &json!({})).unwrap();
        let taken = answer.json().unwrap_or_default();
        assert_eq!(taken["taken"], true, "{}", answer.text());
        taken
    }

    fn look(&self) -> Look {
        let supervisor = self.whim.supervisor().unwrap();
        let helper = self.whim.helper().unwrap();
        let ticks = |pid| proc::process(pid).unwrap().cpu_ticks;
        Look {
            read: read_by(helper),
            own: read_by(supervisor),
            stored: size(&self.whim.root().at("/whim/state/backup/tasks")),
            index: size(&self.whim.root().at("/whim/state/backup/index.json.zst")),
            ticks: ticks(supervisor) + ticks(helper),
            helper_ticks: ticks(helper),
        }
    }

    /// How many backups there were.
    fn finished(&self) -> usize {
        let events = self.client.json("/v1/events?limit=10000").unwrap();
        let all = events["events"].as_array().unwrap().iter();
        all.filter(|event| event["type"] == "backup.finished")
            .count()
    }

    /// What the journal tells of the last backup, read once it is over.
    fn last_words(&self) -> Value {
        let journal = fs::read_dir(self.whim.root().at("/whim/state/journal")).unwrap();
        let mut files: Vec<PathBuf> = journal.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let texts = files.iter().map(|path| fs::read_to_string(path).unwrap());
        let text: String = texts.collect();
        let events = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let mut finished = events.filter(|event: &Value| event["type"] == "backup.finished");
        finished.next_back().unwrap_or_default()
    }
}

/// Bytes that a process read, from files and else (`rchar` of proc(5)).
fn read_by(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let field = text.lines().find_map(|line| line.strip_prefix("rchar: "));
    field.unwrap().parse().unwrap()
}

/// Bytes of a file, or of all files below a directory.
fn size(path: &Path) -> u64 {
    let metadata = fs::symlink_metadata(path).unwrap();
    if !metadata.is_dir() {
        return metadata.size();
    }
    let entries = fs::read_dir(path).unwrap();
    entries.map(|entry| size(&entry.unwrap().path())).sum()
}

fn ticks_per_second() -> f64 {
    let found = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK);
    found.unwrap().unwrap() as f64
}

#[derive(Clone, Copy)]
enum Target {
    AtLeast(f64),
    AtMost(f64),
}

fn row(what: &str, figure: f64, target: Option<Target>) {
    let (words, met) = match target {
        None => (String::new(), ""),
        Some(Target::AtLeast(least)) => (format!(">= {least}"), verdict(figure >= least)),
        Some(Target::AtMost(most)) => (format!("<= {most}"), verdict(figure <= most)),
    };
    println!("{what:44}{figure:>12.2}{words:>10}{met}");
}

fn verdict(met: bool) -> &'static str {
    if met { "" } else { "  MISSED" }
}

fn worst(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(0.0, f64::max)
}
