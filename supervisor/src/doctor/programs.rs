//! git and the agent CLIs.

use std::path::Path;

use whim_wire::spec::AgentKind;

use super::run::{Answer, RunError, find, run, shown};
use super::{DEADLINE, Finding, Level, Subject};

/// An agent CLI: its program, how it tells its version, and the version that this build was tried with.
struct Cli {
    kind: AgentKind,
    program: &'static str,
    version: &'static [&'static str],
    tried: &'static str,
}

const CLIS: &[Cli] = &[
    Cli {
        kind: AgentKind::Claude,
        program: "claude",
        version: &["--version"],
        tried: "2.1.197",
    },
    Cli {
        kind: AgentKind::Codex,
        program: "codex",
        version: &["--version"],
        tried: "0.169.0",
    },
    // It knows no `--version`.
    Cli {
        kind: AgentKind::Ccr,
        program: "ccr",
        version: &["version"],
        tried: "2.0.0",
    },
    Cli {
        kind: AgentKind::Copilot,
        program: "copilot",
        version: &["--version"],
        tried: "1.0.102",
    },
];

/// The first git that obeys `GIT_CONFIG_COUNT` (2.31, 2021). Older ones ignore it, and with it everything by which the
/// boot overrides a hostile repository's configuration.
const GIT_MIN: (u32, u32) = (2, 31);

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    // Side by side, because node programs take a second each to start.
    std::thread::scope(|scope| {
        let git = scope.spawn(|| git(subject));
        let agents: Vec<_> = CLIS
            .iter()
            .map(|cli| (cli, scope.spawn(move || agent(subject, cli))))
            .collect();
        let died = |check: &str| Finding::new(Level::Fail, check, "the check itself failed");
        let mut findings = vec![git.join().unwrap_or_else(|_| died("git"))];
        let agents: Vec<_> = agents
            .into_iter()
            .map(|(cli, check)| (cli.kind, check.join().unwrap_or_else(|_| died(cli.program))))
            .collect();
        findings.extend(needed(subject, agents));
        findings
    })
}

fn git(subject: &Subject) -> Finding {
    let remedy = "install git 2.31 or newer";
    let Some(program) = find(&subject.path, "git") else {
        let text = format!("not found in {}", shown(&subject.path));
        return Finding::new(Level::Fail, "git", text).remedy(remedy);
    };
    match told(run(subject, &program, &["--version"], DEADLINE)) {
        Ok(version) if numbers(&version).is_some_and(|found| found >= GIT_MIN) => {
            Finding::ok("git", format!("{version} at {}", program.display()))
        }
        Ok(version) => {
            Finding::new(Level::Fail, "git", format!("{version} is too old")).remedy(remedy)
        }
        Err(problem) => Finding::new(Level::Fail, "git", problem).remedy(remedy),
    }
}

fn agent(subject: &Subject, cli: &Cli) -> Finding {
    let check = format!("agent {}", cli.kind);
    let Some(program) = find(&subject.path, cli.program) else {
        return Finding::new(Level::Note, check, "not found").remedy(format!(
            "install it if it is to be hosted (tried with {})",
            cli.tried
        ));
    };
    match told(run(subject, &program, cli.version, DEADLINE)) {
        Ok(version) => {
            let mut text = format!("{version} at {}", program.display());
            if version != cli.tried {
                text.push_str(&format!(" (tried with {})", cli.tried));
            }
            Finding::ok(check, text)
        }
        Err(problem) => Finding::new(Level::Fail, check, problem)
            .remedy("make it run for the agents' user, or remove it"),
    }
}

/// Raises what is missing to a failure where it is needed: the chosen agent, or any at all.
fn needed(subject: &Subject, mut agents: Vec<(AgentKind, Finding)>) -> Vec<Finding> {
    let wanted: &[AgentKind] = match subject.agent {
        // The router only forwards; Claude Code works in front of it.
        Some(AgentKind::Ccr) => &[AgentKind::Ccr, AgentKind::Claude],
        Some(AgentKind::Claude) => &[AgentKind::Claude],
        Some(AgentKind::Codex) => &[AgentKind::Codex],
        Some(AgentKind::Copilot) => &[AgentKind::Copilot],
        Some(AgentKind::Custom) | None => &[],
    };
    for (kind, finding) in &mut agents {
        if wanted.contains(kind) && finding.level == Level::Note {
            finding.level = Level::Fail;
            finding.remedy = Some("install it, or choose another agent with WHIM_AGENT".to_owned());
        }
    }
    let none = agents.iter().all(|(_, finding)| finding.level != Level::Ok);
    let mut findings: Vec<Finding> = agents.into_iter().map(|(_, finding)| finding).collect();
    if subject.agent.is_none() && none {
        let text = format!(
            "none of claude, codex, ccr, copilot in {}",
            shown(&subject.path)
        );
        findings.push(
            Finding::new(Level::Fail, "agents", text)
                .remedy("install one, or set WHIM_AGENT=custom"),
        );
    }
    findings
}

/// The version in an answer: the first word that looks like one.
fn told(answer: Result<Answer, RunError>) -> Result<String, String> {
    let answer = answer.map_err(|error| error.to_string())?;
    if !answer.status.success() {
        return Err(format!(
            "asked for its version, it ended with {}",
            answer.status
        ));
    }
    let words = answer.stdout.split_whitespace();
    let trimmed = words.map(|word| word.trim_start_matches('v').trim_end_matches(['.', ',']));
    trimmed
        .into_iter()
        .find(|word| numbers(word).is_some())
        .map(str::to_owned)
        .ok_or_else(|| "asked for its version, it named none".to_owned())
}

/// Major and minor number.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether the program would run for this user: used for shells.
pub(super) fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
