//! The browser terminals beside ttyd and a bare reader of a PTY, in one run.
//!
//! `bench-terminal WHIM [ROUNDS]`: whim as in a container, keeper and supervisor counted together, with the recording
//! that it makes of each terminal; ttyd, if it is installed; both with `bash --norc` and in turns. Medians of five
//! rounds, if not given, each beside its target; none leaves out what is compared. Needs root.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::panic,
    reason = "a measurement that cannot go on ends by panicking, and prints what it found"
)]

mod crowd;
mod server;
mod speed;
mod viewer;

use std::path::PathBuf;

use server::{Ours, Server, Ttyd};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let binary = PathBuf::from(arguments.next().unwrap());
    let rounds: usize = arguments.next().map_or(5, |rounds| rounds.parse().unwrap());
    let ours = Ours::start(&binary);
    let ttyd = Ttyd::start();
    if ttyd.is_none() {
        println!("ttyd is not installed: left out");
    }
    let mut servers: Vec<&dyn Server> = vec![&ours];
    servers.extend(ttyd.iter().map(|ttyd| ttyd as &dyn Server));
    if rounds > 0 {
        compared(&servers, rounds);
    }
    alone(&ours);
}

/// Smaller is better, or larger is.
enum Wanted {
    AtMost(f64),
    AtLeast(f64),
}

fn say(what: &str, figures: &str, ratio: f64, wanted: &Wanted) {
    let (word, target, met) = match wanted {
        Wanted::AtMost(target) => ("at most", *target, ratio <= *target),
        Wanted::AtLeast(target) => ("at least", *target, ratio >= *target),
    };
    let met = if met || ratio.is_nan() {
        ""
    } else {
        "  MISSED"
    };
    println!("{what:52}{ratio:9.2}  {word} {target}{met}   ({figures})");
}

/// What ttyd does as well, as ratios to it.
fn compared(servers: &[&dyn Server], rounds: usize) {
    let file = speed::text();
    let mut bare = Vec::new();
    let mut rows: Vec<Vec<[f64; 4]>> = vec![Vec::new(); servers.len()];
    let mut beside = Vec::new();
    for _ in 0..rounds {
        bare.push(speed::bare(file.path()));
        for (server, rows) in servers.iter().zip(&mut rows) {
            let through = speed::throughput(*server, file.path());
            let (p50, p99) = speed::echo(*server);
            println!(
                "{}: {:.0} MB/s, {:.0} MB received, {:.1} ms of processor time each MB, echo {p50:.0} and {p99:.0} µs",
                server.name(),
                through.megabytes,
                through.received,
                through.processor
            );
            rows.push([through.megabytes, through.processor, p50, p99]);
        }
        beside.push(speed::echo_beside_neighbours(servers[0]).1);
    }
    let of = |server: usize, what: usize| {
        rows.get(server)
            .map_or(f64::NAN, |rows| median(rows.iter().map(|row| row[what])))
    };
    let (bare, beside) = (median(bare.into_iter()), median(beside.into_iter()));
    println!("\nratios to ttyd, and to a bare reader");
    // To ttyd's own: which of the figures, in what, and how they may stand to each other.
    let to_ttyd = [
        (
            "throughput of cat, to ttyd's",
            0,
            "MB/s",
            Wanted::AtLeast(1.15),
        ),
        ("processor time each MB", 1, "ms", Wanted::AtMost(0.7)),
        ("echo p50", 2, "µs", Wanted::AtMost(1.1)),
        ("echo p99", 3, "µs", Wanted::AtMost(1.2)),
    ];
    for (what, figure, unit, wanted) in &to_ttyd {
        let (ours, theirs) = (of(0, *figure), of(1, *figure));
        let figures = format!("{ours:.1} beside {theirs:.1} {unit}");
        say(what, &figures, ours / theirs, wanted);
    }
    say(
        "throughput of cat, to a bare reader's",
        &format!("bare {bare:.0} MB/s"),
        of(0, 0) / bare,
        &Wanted::AtLeast(0.9),
    );
    say(
        "echo p99 beside a flood and a stall, to idle ttyd's",
        &format!("{beside:.0} µs"),
        beside / of(1, 3),
        &Wanted::AtMost(1.2),
    );
    println!();
    for server in servers {
        let late = speed::late_after_pause(*server, file.path());
        println!(
            "{}: {late} messages later than 20 ms after PAUSE",
            server.name()
        );
        let (unwatched, stalled) = speed::program(*server, file.path());
        println!(
            "{}: a program that nobody watches {unwatched:.2} s, that a stalled viewer watches {stalled:.2} s",
            server.name()
        );
        if server.name() == "whim" {
            say(
                "speed beside a stalled viewer",
                "",
                unwatched / stalled,
                &Wanted::AtLeast(0.95),
            );
        }
    }
}

/// What only we promise.
fn alone(ours: &Ours) {
    println!();
    let (idle, threads) = crowd::idle_viewers(ours);
    let back = crowd::come_back(ours, 21);
    let (wrong, screens) = crowd::cuts(ours, 1000);
    let (descriptors, left) = crowd::connects(ours, 10_000);
    let threads = format!("{threads:.2} threads");
    let screens = format!("{screens} times a screen in place of bytes");
    let rows = [
        ("kB for each idle viewer", idle, 32.0, threads.as_str()),
        (
            "ms to the right screen with 10,000 lines",
            back.milliseconds,
            50.0,
            "",
        ),
        ("kB of it", back.kilobytes, 300.0, ""),
        (
            "lost or repeated over 1,000 cuts",
            wrong as f64,
            0.0,
            &screens,
        ),
        (
            "descriptors left by 10,000 connects",
            descriptors as f64,
            0.0,
            "",
        ),
        // An allocator's pages move by this much without a leak.
        ("kB left by 10,000 connects", left as f64, 512.0, ""),
    ];
    for (what, figure, most, figures) in rows {
        say(what, figures, figure, &Wanted::AtMost(most));
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
