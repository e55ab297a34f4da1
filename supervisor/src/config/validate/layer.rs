//! One configuration layer: texts, variables, skills, servers, plugins.

use std::collections::{BTreeMap, BTreeSet};

use whim_wire::spec::{InitUser, Layer, McpServer, Skill};

use super::{Check, MAX_SKILL_BYTES, MAX_SKILL_FILES, MAX_TEXT};
use crate::config::document::pointer;
use crate::config::layers::may_run_as_root;
use crate::config::{env_file, names, values};

impl Check {
    pub(super) fn layer(&mut self, at: &str, layer: &Layer) {
        for (name, text) in [
            ("instructions", &layer.instructions),
            ("init_script", &layer.init_script),
            ("bashrc", &layer.bashrc),
        ] {
            if let Some(text) = text {
                self.text(&pointer(at, name), text);
            }
        }
        if layer.init_user == Some(InitUser::Root) && !may_run_as_root(layer.layer) {
            let remedy = "the script runs as the agents' user; only platform, team and workspace may ask for root";
            self.warn(
                &pointer(at, "init_user"),
                format!("is not honoured in the layer {}", layer.layer),
                remedy,
            );
        }
        self.environment(&pointer(at, "env"), layer);
        self.env_files(&pointer(at, "env_files"), layer);
        self.skills(&pointer(at, "skills"), &layer.skills);
        self.mcp_servers(&pointer(at, "mcp_servers"), layer);
        self.plugins(&pointer(at, "plugins"), layer);
        for name in layer
            .settings
            .get("env")
            .and_then(|env| env.as_object())
            .into_iter()
            .flat_map(|env| env.keys())
        {
            // Claude Code puts these into its own environment, over what it was started with.
            let here = pointer(&pointer(&pointer(at, "settings"), "env"), name);
            self.refused(&here, name);
        }
    }

    fn text(&mut self, at: &str, text: &str) {
        if text.len() > MAX_TEXT {
            self.add(
                at,
                format!("has {} bytes, more than 1 MiB", text.len()),
                "shorten it",
            );
        }
        if text.contains('\0') {
            self.add(at, "contains a zero byte", "remove it");
        }
    }

    fn environment(&mut self, at: &str, layer: &Layer) {
        for (name, value) in &layer.env {
            let here = pointer(at, name);
            self.variable(&here, name);
            if let Err(problem) = names::variable_value(name, value.expose()) {
                self.add(&here, problem, "put long values into a file");
            }
        }
    }

    fn variable(&mut self, at: &str, name: &str) {
        match names::variable(name) {
            Err(problem) => self.add(at, problem, "rename it"),
            Ok(()) => self.refused(at, name),
        }
    }

    fn refused(&mut self, at: &str, name: &str) {
        if let Some(why) = names::refused_in_layers(name) {
            self.add(
                at,
                format!("sets {name}, which {why}"),
                "remove it; layers may not set this variable",
            );
        }
    }

    fn env_files(&mut self, at: &str, layer: &Layer) {
        for (file, text) in &layer.env_files {
            let here = pointer(at, file);
            self.that(
                &here,
                file,
                names::file_name(file),
                "use `.env` or `.env.<suffix>`",
            );
            self.text(&here, text.expose());
            let (assignments, mistakes) = env_file::parse(text.expose());
            for mistake in mistakes {
                self.add(
                    &here,
                    format!("line {} {}", mistake.line, mistake.problem),
                    mistake.remedy,
                );
            }
            for assignment in assignments {
                if let Some(why) = names::refused_in_layers(&assignment.name) {
                    let problem = format!(
                        "line {} sets {}, which {why}",
                        assignment.line, assignment.name
                    );
                    self.add(
                        &here,
                        problem,
                        "remove it; layers may not set this variable",
                    );
                }
            }
        }
    }

    fn skills(&mut self, at: &str, skills: &[Skill]) {
        let mut seen = BTreeSet::new();
        for (index, skill) in skills.iter().enumerate() {
            let at = pointer(at, &index.to_string());
            self.that(
                &pointer(&at, "name"),
                &skill.name,
                names::identifier(&skill.name),
                "rename the skill",
            );
            if !seen.insert(&skill.name) {
                self.shown(
                    &pointer(&at, "name"),
                    &skill.name,
                    "is the name of another skill too",
                    "rename one of them",
                );
            }
            self.skill_files(&pointer(&at, "files"), &skill.files);
        }
    }

    fn skill_files(&mut self, at: &str, files: &BTreeMap<String, String>) {
        // A single file may have any name; it becomes the SKILL.md.
        if files.len() != 1 && !files.contains_key("SKILL.md") {
            self.add(
                at,
                "has no SKILL.md",
                "add it; it is what the agent reads first",
            );
        }
        if files.len() > MAX_SKILL_FILES {
            self.add(
                at,
                format!("has {} files, more than 50", files.len()),
                "leave some out",
            );
        }
        let bytes: usize = files.values().map(String::len).sum();
        if bytes > MAX_SKILL_BYTES {
            self.add(
                at,
                format!("has {bytes} bytes, more than 2 MB"),
                "leave some out",
            );
        }
        for path in files.keys() {
            self.that(
                &pointer(at, path),
                path,
                names::relative_path(path),
                "give a path beneath the skill's directory",
            );
            let mut parents = path
                .match_indices('/')
                .filter_map(|(end, _)| path.get(..end));
            if let Some(parent) = parents.find(|parent| files.contains_key(*parent)) {
                self.add(
                    &pointer(at, path),
                    format!("lies in {parent:?}, which is a file"),
                    "rename one of them",
                );
            }
        }
    }

    fn mcp_servers(&mut self, at: &str, layer: &Layer) {
        for (name, server) in &layer.mcp_servers {
            let at = pointer(at, name);
            self.that(
                &at,
                name,
                server_name(name),
                "use letters, digits, `_` and `-`",
            );
            match server {
                McpServer::Stdio { command, args, env } => {
                    if command.is_empty()
                        || command.contains('\0')
                        || args.iter().any(|arg| arg.expose().contains('\0'))
                    {
                        self.add(
                            &at,
                            "has an empty command or a zero byte in it",
                            "give the program and its arguments",
                        );
                    }
                    for (name, value) in env {
                        let here = pointer(&pointer(&at, "env"), name);
                        let checked = names::variable(name)
                            .and_then(|()| names::variable_value(name, value.expose()));
                        if let Err(problem) = checked {
                            self.add(&here, problem, "rename or shorten it");
                        }
                    }
                }
                McpServer::Http { url, headers } => {
                    self.that(
                        &pointer(&at, "url"),
                        url.expose(),
                        values::http_url(url.expose()),
                        "give an http(s) URL",
                    );
                    for (name, value) in headers {
                        let token =
                            |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
                        let bad_value = value
                            .expose()
                            .contains(|c: char| c.is_control() && c != '\t');
                        if name.is_empty() || !name.bytes().all(token) || bad_value {
                            self.add(
                                &pointer(&pointer(&at, "headers"), name),
                                "is no HTTP header",
                                "correct it",
                            );
                        }
                    }
                }
            }
        }
    }

    fn plugins(&mut self, at: &str, layer: &Layer) {
        for name in layer.plugins.enabled.keys() {
            let checked = match name.split_once('@') {
                Some((plugin, marketplace)) => {
                    names::identifier(plugin).and_then(|()| names::identifier(marketplace))
                }
                None => Err("names no marketplace"),
            };
            self.that(
                &pointer(&pointer(at, "enabled"), name),
                name,
                checked,
                "write plugin@marketplace",
            );
        }
        for name in layer.plugins.marketplaces.keys() {
            self.that(
                &pointer(&pointer(at, "marketplaces"), name),
                name,
                names::identifier(name),
                "rename it",
            );
        }
    }
}

/// Both agents build tool names `mcp__<server>__<tool>` from it, and TOML tables.
fn server_name(name: &str) -> Result<(), &'static str> {
    names::identifier(name)?;
    if name.contains('.') {
        Err("contains a dot")
    } else {
        Ok(())
    }
}
