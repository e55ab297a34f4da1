//! The generation proxy beside its peers, in one run.
//!
//! `bench-generation [--rounds N] [--seconds S] [--only NAME,…] [--whim PATH] [--calls N]` starts a scripted provider and
//! a client on core 0, and each proxy in turn on core 1; rounds are interleaved, medians reported, and everything said
//! as a ratio to nginx in the same run. Peers that are not installed are left out by name; `relay` and `http` are what
//! our own mechanism costs without an account (see `floor`). With `--whim` the memory of that program is looked at too,
//! under streams and under calls, a million if not given (see `whole`); with `--rounds 0` nothing else. Subcommands are
//! the roles of the run itself.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that cannot go on ends by panicking, and prints what it found"
)]

mod client;
mod floor;
mod peers;
mod report;
mod upstream;
mod whole;

use std::net::SocketAddr;
use std::time::Duration;

use report::Report;

/// A request's body: what Claude Code sends for its first turn in an empty directory.
pub(crate) const BODY: usize = 75_000;
pub(crate) const TOKEN_FILE: &str = "token";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["upstream", address] => runtime().block_on(upstream::run(address.parse().unwrap())),
        ["proxy", address, upstream, directory] => {
            peers::run_ours(address, upstream, directory.as_ref())
        }
        ["relay", address, upstream] => {
            let (address, upstream) = (address.parse().unwrap(), upstream.parse().unwrap());
            runtime().block_on(floor::relay(address, upstream));
        }
        ["http", address, upstream] => {
            let (address, upstream) = (address.parse().unwrap(), upstream.parse().unwrap());
            runtime().block_on(floor::http(address, upstream));
        }
        ["client", what, address, token, seconds] => {
            let address: SocketAddr = address.parse().unwrap();
            runtime().block_on(client::run(what, address, token, seconds.parse().unwrap()));
        }
        options => compare(options),
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn option<'a>(options: &[&'a str], name: &str) -> Option<&'a str> {
    options
        .windows(2)
        .find(|pair| pair[0] == name)
        .map(|pair| pair[1])
}

fn compare(options: &[&str]) {
    let rounds: usize = option(options, "--rounds").map_or(7, |n| n.parse().unwrap());
    let seconds: u64 = option(options, "--seconds").map_or(2, |n| n.parse().unwrap());
    let only = option(options, "--only").map(|names| names.split(',').collect::<Vec<_>>());
    if rounds > 0 {
        in_turns(rounds, seconds, only.as_deref());
    }
    if let Some(binary) = option(options, "--whim") {
        let calls = option(options, "--calls").map_or(1_000_000, |n| n.parse().unwrap());
        whole::run(binary.as_ref(), calls);
    }
}

fn in_turns(rounds: usize, seconds: u64, only: Option<&[&str]>) {
    let directory = tempfile::tempdir().unwrap();
    let upstream = peers::Upstream::start();
    let mut peers = peers::all(directory.path(), upstream.address);
    if let Some(only) = only {
        peers.retain(|peer| peer.name() == "direct" || only.contains(&peer.name()));
    }
    let mut report = Report::default();
    for round in 0..rounds {
        for peer in &mut peers {
            let name = peer.name();
            for what in client::CASES {
                if !peer.supports(what) {
                    continue;
                }
                let running = peer.start();
                // Connections and caches settle before anything is counted.
                let _warm: Vec<f64> = peers::client(what, &running, 1).collect();
                let figures = peers::client(what, &running, seconds);
                report.add(name, what, figures, running.memory());
                drop(running);
            }
            eprintln!("round {} of {rounds}: {name}", round + 1);
        }
    }
    println!("{}", report.table());
    println!(
        "rounds: {rounds}, {} s each; cores: provider and client on 0, proxy on 1",
        Duration::from_secs(seconds).as_secs()
    );
}
