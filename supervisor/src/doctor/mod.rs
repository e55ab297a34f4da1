//! `whim doctor`: can this image or machine host an agent, and what weakens the separation of agent and host?
//!
//! Every check looks at the real thing (binds the port, opens the terminal, runs `--version`) and changes nothing that
//! stays. A check that cannot be made says so instead of passing. Programs of the agents are run as the agents' user,
//! each with a deadline of [`DEADLINE`] and at most 64 KiB of output; everything they leave in their process group is
//! killed.
//!
//! [`weaknesses`] is the part that `whim status` shows too; it runs no program but `sudo -n true`.

mod kernel;
mod places;
mod programs;
mod run;
mod trust;

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use whim_wire::spec::AgentKind;

use crate::config::environment;
use crate::config::settings::{Ports, Root};
use crate::config::users::{self, User};
use crate::config::{Given, Variables, printable};

/// How long a program may take to tell its version. Copilot takes 1.1 s on two idle cores.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Ok,
    /// Good to know; nothing stops working.
    Note,
    /// Weakens what keeps the agent away from the host's keys and files.
    Weak,
    /// `whim run` would not work.
    Fail,
}

impl Level {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Weak => "weak",
            Self::Fail => "fail",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    /// What was looked at: `git`, `agent claude`, `port 3001`.
    pub check: String,
    /// What was found. Fit to be printed.
    pub text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn new(level: Level, check: impl Into<String>, text: impl AsRef<str>) -> Self {
        Self {
            level,
            check: check.into(),
            text: printable(text.as_ref()),
            remedy: None,
        }
    }

    fn ok(check: impl Into<String>, text: impl AsRef<str>) -> Self {
        Self::new(Level::Ok, check, text)
    }

    /// For a list of findings of one level.
    #[must_use]
    pub fn short(&self) -> String {
        format!("{}: {}", self.check, self.text)
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl fmt::Display for Finding {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<4}  {:<20}  {}",
            self.level.as_str(),
            self.check,
            self.text
        )?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// All findings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub findings: Vec<Finding>,
}

impl Report {
    /// 0, or 1 when something fails.
    pub fn exit_code(&self) -> u8 {
        u8::from(
            self.findings
                .iter()
                .any(|finding| finding.level == Level::Fail),
        )
    }
}

impl fmt::Display for Report {
    /// One line per finding.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.findings
            .iter()
            .try_for_each(|finding| writeln!(f, "{finding}"))
    }
}

/// What is examined.
#[derive(Clone, Debug)]
pub struct Subject {
    pub root: Root,
    /// Where `passwd`, `group` and `nsswitch.conf` are.
    pub etc: PathBuf,
    pub proc: PathBuf,
    /// The cgroup file system.
    pub cgroup: PathBuf,
    /// The agents' user, or why there is none.
    pub user: Result<User, String>,
    /// Effective uid of this process.
    pub uid: u32,
    /// The agent that must be there; `None`: any one will do.
    pub agent: Option<AgentKind>,
    pub ports: Ports,
    pub bind: IpAddr,
    /// Where programs are looked for.
    pub path: OsString,
    /// Files that hold credentials.
    pub credentials: Vec<PathBuf>,
    /// Directories where platforms put credentials.
    pub mounted_secrets: Vec<PathBuf>,
    /// Sockets of container engines.
    pub engine_sockets: Vec<PathBuf>,
    /// Agents cannot gain privileges by setuid programs.
    pub no_new_privs: bool,
}

impl Subject {
    /// The machine as `whim run` would find it with these arguments and variables, and the mistakes in them.
    pub fn new(given: &Given, variables: &Variables) -> (Self, Vec<Finding>) {
        let (settings, mistakes) = given.without_task();
        let mistakes = mistakes
            .iter()
            .map(|mistake| {
                let name = mistake.place.to_string();
                Finding::new(
                    Level::Fail,
                    "configuration",
                    format!("{name} {}", mistake.problem),
                )
                .remedy(&mistake.remedy)
            })
            .collect();
        let uid = nix::unistd::geteuid().as_raw();
        let etc = PathBuf::from("/etc");
        let credentials = variables
            .iter()
            .filter(|(name, _)| {
                name.to_str().is_some_and(|name| {
                    name.ends_with("_FILE") && crate::config::variables::is_known(name)
                })
            })
            .map(|(_, path)| PathBuf::from(path))
            .chain([settings.root.path("/run/whim/control-token")])
            .collect();
        let named = variables.get("WHIM_AGENT").is_some();
        let subject = Self {
            user: users::of_agents(&etc, &settings.user, variables)
                .map(|user| user.at_home(&settings.root))
                .map_err(|error| error.to_string()),
            root: settings.root,
            etc,
            proc: PathBuf::from("/proc"),
            cgroup: PathBuf::from("/sys/fs/cgroup"),
            uid,
            agent: named.then_some(settings.agent.kind),
            ports: settings.ports,
            bind: settings.bind,
            path: variables
                .get("PATH")
                .filter(|path| !path.is_empty())
                .cloned()
                .unwrap_or_else(|| environment::PATH.into()),
            credentials,
            mounted_secrets: trust::MOUNTED_SECRETS.iter().map(PathBuf::from).collect(),
            engine_sockets: trust::ENGINE_SOCKETS.iter().map(PathBuf::from).collect(),
            no_new_privs: settings.no_new_privs,
        };
        (subject, mistakes)
    }

    /// Whether agents run as somebody else than this process.
    fn separate(&self) -> bool {
        self.user.as_ref().is_ok_and(|user| user.uid != self.uid)
    }
}

/// All checks.
pub fn examine(subject: &Subject) -> Report {
    let mut findings = places::user(subject);
    findings.extend(programs::check(subject));
    findings.extend(kernel::check(subject));
    findings.extend(places::directories(subject));
    findings.extend(places::disk(subject));
    findings.extend(places::ports(subject));
    findings.extend(weaknesses(subject));
    Report { findings }
}

/// What weakens the separation of agent and host, in words for people; only findings of [`Level::Weak`].
pub fn weaknesses(subject: &Subject) -> Vec<Finding> {
    trust::check(subject)
        .into_iter()
        .filter(|finding| finding.level == Level::Weak)
        .collect()
}

#[cfg(test)]
mod tests;
