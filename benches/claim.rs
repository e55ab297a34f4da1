//! How long a warm container needs from its claim to its agent, clone and init script aside.
//!
//! `bench-claim WHIM [ROUNDS]`: a container that waits, claimed by `PUT /v1/spec` with a repository and an init script;
//! ten rounds for each agent, if not given. The agent's start is the kernel's (`starttime` of proc(5), ticks of 10 ms)
//! and so is rounded down; clone and init are what the supervisor logs of these steps. Each figure stands beside its
//! target. Needs root and installs the agents' CLIs.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a measurement that cannot go on ends by panicking, and prints what it found"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use whim_kit::model::demo;
use whim_kit::{Root, Run, Upstream, Whim, agents, proc, repo, wait};

/// For things that are not measured.
const PATIENCE: Duration = Duration::from_secs(60);
/// Milliseconds from the claim to the agent, beside clone and init.
const TARGET: f64 = 150.0;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let binary = PathBuf::from(arguments.next().unwrap());
    let rounds: usize = arguments
        .next()
        .map_or(10, |rounds| rounds.parse().unwrap());
    let model = Upstream::start(demo::script()).unwrap();
    let idle = json!({"kind": "custom", "command": ["/bin/sleep", "100000"]});
    let claude = json!({"kind": "claude"});
    println!(
        "{:10}{:>12}{:>12}{:>12}{:>12}",
        "ms", "median", "worst", "in all", "target"
    );
    for (name, agent) in [("custom", idle), ("claude", claude)] {
        let mut beside = Vec::new();
        let mut whole = Vec::new();
        for _ in 0..rounds.max(1) {
            let claimed = claim(&binary, &agent, &model);
            beside.push(claimed.whole - claimed.aside);
            whole.push(claimed.whole);
        }
        let (median, worst) = median_and_worst(&mut beside);
        let met = if worst <= TARGET { "" } else { "  MISSED" };
        let (all, _) = median_and_worst(&mut whole);
        println!("{name:10}{median:>12.0}{worst:>12.0}{all:>12.0}{TARGET:>12.0}{met}");
    }
}

/// Milliseconds.
struct Claimed {
    /// From the claim to the agent.
    whole: f64,
    /// Of it, clone and init.
    aside: f64,
}

fn claim(binary: &Path, agent: &Value, model: &Upstream) -> Claimed {
    let root = Root::new().unwrap();
    let source = root.at("/source");
    std::fs::create_dir(&source).unwrap();
    repo::sample(&source).unwrap();
    let whim = Run::new(binary)
        .arg("--wait-for-spec")
        .path(&agents::installed().unwrap())
        .env("ANTHROPIC_API_KEY", "scripted")
        .env("WHIM_UPSTREAM_URL", model.url())
        .start(root)
        .unwrap();
    let client = whim.client(PATIENCE).unwrap().limit(PATIENCE);
    let state = |wanted: &dyn Fn(&Value) -> bool| {
        wait::until("whim", PATIENCE, || {
            client.json("/v1/state").ok().filter(wanted)
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", whim.output()))
    };
    state(&|state| state["phase"] == "waiting_for_spec");
    let spec = json!({
        "version": 1,
        "task": {"id": "bench"},
        "repo": {"url": format!("file://{}", source.display()), "branch": "bench"},
        "agent": agent,
        "config": [{"layer": "user", "instructions": "Be brief.", "init_script": "sleep 0.1"}],
    });
    let begun = since_boot();
    let answer = client.put("/v1/spec", &spec).unwrap();
    assert_eq!(answer.status, 202, "{}", answer.text());
    let ready = state(&|state| state["phase"] == "ready" && state["sessions"][0]["pid"].is_u64());
    let pid = ready["sessions"][0]["pid"].as_u64().unwrap();
    let agent = proc::process(i32::try_from(pid).unwrap()).unwrap();
    let started = agent.started as f64 * 1000.0 / ticks_per_second();
    Claimed {
        whole: started - begun,
        aside: logged(&whim, "repository") + logged(&whim, "init"),
    }
}

/// Milliseconds that the supervisor logged for a step.
fn logged(whim: &Whim, step: &str) -> f64 {
    let output = whim.output();
    let line = output
        .lines()
        .find(|line| line.contains(&format!("done step=\"{step}\"")));
    let ms = line.and_then(|line| line.rsplit("ms=").next());
    ms.unwrap_or_else(|| panic!("{step} is not logged:\n{output}"))
        .trim()
        .parse()
        .unwrap()
}

/// Milliseconds on the clock in which the kernel keeps a process's start.
fn since_boot() -> f64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap();
    Duration::from(now).as_secs_f64() * 1000.0
}

fn ticks_per_second() -> f64 {
    let found = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK);
    found.unwrap().unwrap() as f64
}

fn median_and_worst(figures: &mut [f64]) -> (f64, f64) {
    figures.sort_unstable_by(f64::total_cmp);
    let median = figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN);
    (median, figures.last().copied().unwrap_or(f64::NAN))
}
