//! From settings to what an agent is prepared with.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::fchown;
use std::path::Path;

use whim_wire::spec::{Plugins, ProviderKind, Trust};

use super::Grounds;
use super::git::Git;
use crate::agents::FileEdit;
use crate::agents::edit::{Block, Comment, Edit, Position};
use crate::agents::setup::{HookTransport, SessionToken, Setup, Skill};
use crate::config::Settings;
use crate::config::environment::Environment;
use crate::identity::Identity;
use crate::paths::Paths;
use crate::sessions::{MAIN, Record, StartError};
use crate::spending;

/// Variables that git and other helpers of the boot get of the container's environment: what makes the network work.
const PLAIN: [&str; 18] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "ALL_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "SSH_AUTH_SOCK",
];

pub(super) fn plain(environment: &Environment) -> Vec<(OsString, OsString)> {
    let known = |name: &std::ffi::OsStr| PLAIN.iter().any(|plain| name == *plain);
    environment
        .iter()
        .filter(|(name, _)| known(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The command that git runs to ask for credentials.
pub(super) fn credential_helper(binary: &Path, paths: &Paths) -> String {
    let quote = |path: &Path| format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"));
    format!(
        "!{} git-credential --root {}",
        quote(binary),
        quote(paths.root())
    )
}

/// A part of `~/.gitconfig` of ours: the credential helper, and who commits.
pub(super) fn git_configuration(paths: &Paths, settings: &Settings, git: &Git) -> FileEdit {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = String::new();
    let url = settings
        .repo
        .as_ref()
        .and_then(|repo| super::credentials::Remote::parse(repo.url.expose()));
    if let Some((remote, _)) = url {
        let url = remote.url();
        text.push_str(&format!("[credential {}]\n", quoted(&url)));
        text.push_str(&format!(
            "\thelper = {}\n\tuseHttpPath = true\n",
            quoted(&git.credential_helper)
        ));
    }
    // Before what the user wrote, whose later lines win.
    text.push_str("[user]\n\tname = whim agent\n\temail = agent@whim.invalid\n");
    FileEdit {
        path: paths.home().join(".gitconfig"),
        mode: 0o644,
        edit: Edit::Block(Block {
            text: Some(text),
            comment: Comment::Hash,
            position: Position::Start,
        }),
    }
}

/// A file for the agents to read and for nobody else.
pub(super) fn write_for_agents(path: &Path, content: &[u8], identity: &Identity) -> io::Result<()> {
    crate::files::write(path, 0o640, content)?;
    if identity.is_split() {
        let file = std::fs::File::open(path)?;
        fchown(&file, None, Some(identity.user.gid))?;
    }
    Ok(())
}

/// The record of `main`: as it was left, or new. `runs`: its agent still runs, on the port that was chosen for it.
pub(super) fn main_record(
    paths: &Paths,
    settings: &Settings,
    life: u64,
    runs: bool,
) -> Result<Record, StartError> {
    let directory = paths.session(MAIN);
    let known = Record::read(&directory).map_err(|source| StartError::Record {
        path: directory,
        source,
    })?;
    let agent = settings.agent.kind;
    if let Some(other) = known
        .as_ref()
        .filter(|record| record.awaits_start() && record.agent != agent)
    {
        tracing::warn!(
            restored = %other.agent, started = %agent,
            "the restored conversation is another agent's and does not go on; name that agent, or restore with --agent"
        );
    }
    let same = |record: &Record| record.agent == agent && record.mode == settings.agent.mode;
    let known = known
        .map(|mut record| {
            if record.awaits_start() {
                // A conversation has no mode: this run's is as good as that of the run before.
                record.mode = settings.agent.mode;
            }
            record
        })
        .filter(same)
        .map(|record| record.revived(life));
    let mut record = known.unwrap_or_else(|| {
        Record::new(
            MAIN,
            settings.agent.kind,
            settings.agent.mode,
            paths.checkout(),
            life,
        )
    });
    if !runs || record.router_port == 0 {
        record.router_port = crate::listeners::free_port();
    }
    Ok(record)
}

/// The provider of the task's agent.
pub(super) fn provider(settings: &Settings) -> ProviderKind {
    let natural = || spending::natural(settings.agent.kind);
    settings.provider.kind.unwrap_or_else(natural)
}

/// What `main` is prepared with.
pub(super) fn setup(grounds: &Grounds, settings: &Settings, record: &Record) -> Setup {
    let configuration = &settings.configuration;
    let agent = &settings.agent;
    Setup {
        home: grounds.paths.home().to_owned(),
        checkout: record.directory.clone(),
        app: grounds.paths.app(),
        session: record.id.clone(),
        proxy: format!("http://127.0.0.1:{}", grounds.generation.port()),
        token: SessionToken::new(record.token.clone()),
        provider: provider(settings),
        websockets: spending::websockets(&settings.provider),
        model: agent.model.clone(),
        permission: agent.permission_mode,
        effort: agent.effort.clone(),
        instructions: instructions(grounds, settings),
        mcp_servers: configuration
            .mcp_servers
            .iter()
            .map(|(name, server)| (name.clone(), server.value.clone()))
            .collect(),
        skills: configuration
            .skills
            .iter()
            .map(|(name, files)| Skill {
                name: name.clone(),
                files: files.value.clone(),
            })
            .collect(),
        plugins: Plugins {
            enabled: configuration
                .plugins
                .iter()
                .map(|(name, enabled)| (name.clone(), enabled.value))
                .collect(),
            marketplaces: configuration
                .marketplaces
                .iter()
                .map(|(name, value)| (name.clone(), value.value.clone()))
                .collect(),
        },
        settings: configuration.settings(),
        trusted: settings
            .repo
            .as_ref()
            .is_none_or(|repo| repo.trust == Trust::Full),
        root: grounds.identity.user.uid == 0,
        sandbox: has_user_namespaces(),
        hooks: Some(HookTransport {
            program: grounds.identity.binary.clone(),
            socket: grounds.paths.hooks(),
        }),
        router_port: record.router_port,
        custom: agent.command.clone(),
    }
}

/// The layers' instructions, and where attached files lie: for sessions that begin without a prompt.
fn instructions(grounds: &Grounds, settings: &Settings) -> Option<String> {
    let text = settings.configuration.instructions_text();
    if settings.attachments.is_empty() {
        return text;
    }
    let place = format!(
        "<!-- attachments -->\nFiles that were attached to this task are in {}.\n",
        grounds.paths.attachments().display()
    );
    Some(text.map_or_else(|| place.clone(), |text| format!("{text}\n{place}")))
}

/// Whether an unprivileged process may make a user namespace, which Codex's sandbox needs.
fn has_user_namespaces() -> bool {
    let limit = |path: &str| {
        std::fs::read_to_string(path)
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok())
    };
    let allowed = limit("/proc/sys/user/max_user_namespaces").is_none_or(|most| most > 0);
    let unprivileged = limit("/proc/sys/kernel/unprivileged_userns_clone").is_none_or(|on| on > 0);
    let confined =
        limit("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").is_some_and(|on| on > 0);
    // In a container a seccomp profile usually forbids it, whatever these say.
    let filtered = std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.contains("Seccomp:\t2"));
    allowed && unprivileged && !confined && !filtered
}
