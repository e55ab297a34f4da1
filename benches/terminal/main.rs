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
    let pair =
        |what: usize, unit: &str| format!("{:.1} beside {:.1} {unit}", of(0, what), of(1, what));
    println!("\nratios to ttyd, and to a bare reader");
    say(
        "throughput of cat, to ttyd's",
        &pair(0, "MB/s"),
        of(0, 0) / of(1, 0),
        &Wanted::AtLeast(1.15),
    );
    say(
        "throughput of cat, to a bare reader's",
        &format!("bare {bare:.0} MB/s"),
        of(0, 0) / bare,
        &Wanted::AtLeast(0.9),
    );
    say(
        "processor time each MB",
        &pair(1, "ms"),
        of(0, 1) / of(1, 1),
        &Wanted::AtMost(0.7),
    );
    say(
        "echo p50",
        &pair(2, "µs"),
        of(0, 2) / of(1, 2),
        &Wanted::AtMost(1.1),
    );
    say(
        "echo p99",
        &pair(3, "µs"),
        of(0, 3) / of(1, 3),
        &Wanted::AtMost(1.2),
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
    let (kilobytes, threads) = crowd::idle_viewers(ours);
    say(
        "kB for each idle viewer",
        &format!("{threads:.2} threads"),
        kilobytes,
        &Wanted::AtMost(32.0),
    );
    let back = crowd::come_back(ours, 21);
    say(
        "ms to the right screen with 10,000 lines",
        "",
        back.milliseconds,
        &Wanted::AtMost(50.0),
    );
    say("kB of it", "", back.kilobytes, &Wanted::AtMost(300.0));
    let (wrong, screens) = crowd::cuts(ours, 1000);
    say(
        "lost or repeated over 1,000 cuts",
        &format!("{screens} times a screen in place of bytes"),
        wrong as f64,
        &Wanted::AtMost(0.0),
    );
    let (descriptors, kilobytes) = crowd::connects(ours, 10_000);
    say(
        "descriptors left by 10,000 connects",
        "",
        descriptors as f64,
        &Wanted::AtMost(0.0),
    );
    // An allocator's pages move by this much without a leak.
    say(
        "kB left by 10,000 connects",
        "",
        kilobytes as f64,
        &Wanted::AtMost(512.0),
    );
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
