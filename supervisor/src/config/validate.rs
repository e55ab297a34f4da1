//! What the values of a spec may be: names, paths, limits, addresses. Pure; all mistakes at once, with JSON pointers.
//!
//! Everything that reaches a path, an argument vector, a shell file or a request is checked here once, so that the boot
//! can use it as it stands.

mod layer;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use whim_wire::spec::{Attachment, Spec};

use super::document::pointer;
use super::mistake::{Mistake, Place};
use super::{names, values};

/// Most attachments of a task.
pub const MAX_ATTACHMENTS: usize = 10;
/// Most files of one skill.
pub const MAX_SKILL_FILES: usize = 50;
/// Most bytes of one skill, all files together.
pub const MAX_SKILL_BYTES: usize = 2_000_000;
/// Longest instructions, init script, bashrc or prompt of one layer, in bytes: more than any model reads, little enough
/// to be held in memory several times.
pub const MAX_TEXT: usize = 1024 * 1024;
/// Longest title and other short text, in bytes.
const MAX_LINE: usize = 1024;

/// Checks what [`super::document::read`] has typed. Returns mistakes and warnings.
pub fn validate(spec: &Spec) -> (Vec<Mistake>, Vec<Mistake>) {
    let mut check = Check::default();
    check.task(spec);
    check.repo(spec);
    check.agent(spec);
    check.attachments(&spec.attachments);
    if let Some(upstream) = &spec.provider.upstream
        && let Err(problem) = values::upstream(upstream.expose())
    {
        check.shown(
            "/provider/upstream",
            upstream.expose(),
            problem,
            "give the base URL, as https://api.example.com",
        );
    }
    if let Some(url) = &spec.backup.url
        && let Err(problem) = values::store(url.expose())
    {
        check.shown("/backup/url", url.expose(), problem, values::STORE_REMEDY);
    }
    if let Some(restore) = &spec.restore {
        let from = restore.from.expose();
        if names::identifier(from).is_err()
            && let Err(problem) = values::store(from)
        {
            check.shown(
                "/restore/from",
                from,
                problem,
                "give the URL of a backup or the id of a task",
            );
        }
    }
    let mut seen = BTreeMap::new();
    for (index, layer) in spec.config.iter().enumerate() {
        let at = format!("/config/{index}");
        if let Some(first) = seen.insert(layer.layer, index) {
            let problem = format!("is the layer {} again, after /config/{first}", layer.layer);
            check.add(&pointer(&at, "layer"), problem, "put both into one entry");
        }
        check.layer(&at, layer);
    }
    (check.mistakes, check.warnings)
}

#[derive(Default)]
struct Check {
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
}

impl Check {
    fn add(&mut self, at: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        self.mistakes
            .push(Mistake::new(Place::Spec(at.to_owned()), problem, remedy));
    }

    fn shown(
        &mut self,
        at: &str,
        value: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.mistakes
            .push(Mistake::new(Place::Spec(at.to_owned()), problem, remedy).given(value));
    }

    fn warn(&mut self, at: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        self.warnings
            .push(Mistake::new(Place::Spec(at.to_owned()), problem, remedy));
    }

    /// Reports a failed check of a value that may be shown.
    fn that<E: Into<String>>(
        &mut self,
        at: &str,
        value: &str,
        checked: Result<(), E>,
        remedy: &str,
    ) {
        if let Err(problem) = checked {
            self.shown(at, value, problem, remedy);
        }
    }

    fn task(&mut self, spec: &Spec) {
        let remedy = "use letters, digits, `.`, `_` and `-`, at most 64";
        if let Some(id) = &spec.task.id {
            self.that("/task/id", id, names::identifier(id), remedy);
        }
        if let Some(parent) = &spec.task.parent {
            self.that("/task/parent", parent, names::identifier(parent), remedy);
        }
        for (at, text) in [
            ("/task/title", &spec.task.title),
            ("/task/workspace", &spec.task.workspace),
        ] {
            if text.as_ref().is_some_and(|text| text.len() > MAX_LINE) {
                self.add(at, "is longer than 1024 bytes", "shorten it");
            }
        }
    }

    fn repo(&mut self, spec: &Spec) {
        let Some(repo) = &spec.repo else { return };
        let remedy = "give an https, ssh, git or file URL, user@host:path, or a local path";
        for (at, url) in [("/repo/url", &repo.url), ("/repo/mirror", &repo.mirror)] {
            if let Some(url) = url {
                self.that(at, url.expose(), names::repository(url.expose()), remedy);
            }
        }
        if repo.mirror.is_some() && repo.url.is_none() {
            self.add(
                "/repo/mirror",
                "stands without a url",
                "add /repo/url, which is used when the mirror fails",
            );
        }
        for (at, branch) in [
            ("/repo/source_branch", &repo.source_branch),
            ("/repo/branch", &repo.branch),
        ] {
            if let Some(branch) = branch {
                self.that(
                    at,
                    branch,
                    names::branch(branch),
                    "give a name that `git check-ref-format --branch` accepts",
                );
            }
        }
    }

    fn agent(&mut self, spec: &Spec) {
        let agent = &spec.agent;
        for (at, word) in [
            ("/agent/model", &agent.model),
            ("/agent/effort", &agent.effort),
        ] {
            if let Some(word) = word {
                self.that(
                    at,
                    word,
                    values::agent_word(word),
                    "give the agent's own word for it",
                );
            }
        }
        if let Some(prompt) = &agent.prompt
            && let Err(problem) = values::prompt(prompt)
        {
            self.add("/agent/prompt", problem, values::PROMPT_REMEDY);
        }
        if let Some(command) = &agent.command
            && let Err(problem) = values::command(command)
        {
            self.add("/agent/command", problem, values::COMMAND_REMEDY);
        }
    }

    fn attachments(&mut self, attachments: &[Attachment]) {
        if attachments.len() > MAX_ATTACHMENTS {
            self.add(
                "/attachments",
                format!("has {} entries, more than 10", attachments.len()),
                "leave some out",
            );
        }
        let mut seen = BTreeSet::new();
        for (index, attachment) in attachments.iter().enumerate() {
            let name = format!("/attachments/{index}/name");
            self.that(
                &name,
                &attachment.name,
                names::file_name(&attachment.name),
                "give a plain file name",
            );
            if !seen.insert(&attachment.name) {
                self.shown(
                    &name,
                    &attachment.name,
                    "is the name of another attachment too",
                    "number them",
                );
            }
            let url = format!("/attachments/{index}/url");
            self.that(
                &url,
                attachment.url.expose(),
                attachment_url(attachment.url.expose()),
                "give a public https URL",
            );
        }
    }
}

/// https only, and no address inside the platform where that can be told from the text; the fetch checks again after
/// resolving and after every redirect.
fn attachment_url(text: &str) -> Result<(), &'static str> {
    let url = url::Url::parse(text).map_err(|_| "is no URL")?;
    if url.scheme() != "https" {
        return Err("is not https");
    }
    let address = match url.host() {
        Some(url::Host::Ipv4(v4)) => Some(IpAddr::V4(v4)),
        Some(url::Host::Ipv6(v6)) => Some(IpAddr::V6(v6)),
        Some(url::Host::Domain(name)) if is_local_name(name) => {
            return Err("leads to this machine");
        }
        Some(url::Host::Domain(_)) => None,
        None => return Err("has no host"),
    };
    match address {
        Some(address) if !names::is_public(address) => Err("leads to a private address"),
        _ => Ok(()),
    }
}

fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests;
