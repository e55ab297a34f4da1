//! The environment of agents, shells, init script and hooks. Pure.
//!
//! In rising priority:
//! 1. the container's own variables, without what whim uses itself (see [`withheld`]) unless `WHIM_PASS_ENV` names it;
//! 2. the layers' `env`;
//! 3. the layers' environment files, `.env` first, then by name; in a file that several layers have, low to high;
//! 4. who the user is: `HOME`, `USER`, `LOGNAME`, `SHELL`.
//!
//! `PATH` and `LANG` get a default when nothing sets them. Where a proxy is set, loopback is added to its exceptions,
//! because agents reach their model on 127.0.0.1. What an agent needs beyond that (base URL, session token) is added by
//! its own code, over all of this.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use whim_wire::spec::{LayerName, Sensitive};

use super::env_file;
use super::layers::Configuration;
use super::names;
use super::settings::Variables;
use super::users::User;
use super::values::StoreKind;

/// As Debian's login sets it for root; ordinary users need the `sbin`s too in images that were made for root.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A locale that every image has and that lets programs print UTF-8.
pub const LANG: &str = "C.UTF-8";
/// What xterm.js and every terminal of the last decades understands.
pub const TERM: &str = "xterm-256color";
const LOOPBACK: &str = "localhost,127.0.0.1,::1";

/// A whole environment. `Debug` shows names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<OsString, OsString>);

/// What the layers add, evaluated.
#[derive(Debug, Default)]
pub struct Built {
    pub environment: Environment,
    /// Values by environment file, in the order in which they are read; for `/whim/env-files/`.
    pub files: Vec<(String, FileValues)>,
    /// What evaluating the files brought up (reading them has been checked before).
    pub mistakes: Vec<Late>,
}

/// Something wrong that only the values show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    /// Layer and environment file; `None`: all layers together.
    pub from: Option<(LayerName, String)>,
    /// Completes "it …".
    pub problem: String,
    pub remedy: &'static str,
}

impl std::fmt::Display for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.from {
            Some((layer, file)) => write!(f, "{} of the layer {layer}", super::printable(file))?,
            None => f.write_str("layers")?,
        }
        write!(f, ": {}; {}", self.problem, self.remedy)
    }
}

/// Values of one environment file. `Debug` shows names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FileValues(BTreeMap<String, String>);

/// Builds the environment for this user.
pub fn build(
    container: &Variables,
    store: StoreKind,
    pass: &BTreeSet<String>,
    layers: &Configuration,
    user: &User,
) -> Built {
    let mut environment = Environment::default();
    for (name, value) in container.iter() {
        let plain = name.to_str();
        if plain.is_some_and(|name| withheld(store, name).is_some() && !pass.contains(name)) {
            continue;
        }
        environment.0.insert(name.clone(), value.clone());
    }
    // Of whoever started the container, not of the agents' user.
    for name in ["MAIL", "OLDPWD", "PWD", "SHLVL", "_"] {
        environment.0.remove(OsStr::new(name));
    }
    environment.identify(user);
    for (name, variable) in &layers.env {
        environment.set(name, variable.value.expose());
    }
    let mut built = Built {
        environment,
        ..Built::default()
    };
    let mut names: Vec<&String> = layers.env_files.keys().collect();
    env_file::sort_names(&mut names);
    for name in names {
        built.file(name, layers);
    }
    built.check_size(layers);
    built.environment.identify(user);
    built.environment.complete();
    built
}

/// A variable as the layers alone set it.
#[derive(Debug)]
pub struct LayerVariable {
    pub value: Sensitive,
    pub layer: LayerName,
    /// The environment file that sets it; `None`: the layer's `env`.
    pub file: Option<String>,
}

/// The variables that the layers set, as they come out. Interpolation knows only what the layers set: for what is said
/// about them, not for a process.
pub fn of_layers(layers: &Configuration) -> BTreeMap<String, LayerVariable> {
    let mut known: BTreeMap<String, LayerVariable> = BTreeMap::new();
    for (name, variable) in &layers.env {
        let variable = LayerVariable {
            value: variable.value.clone(),
            layer: variable.layer,
            file: None,
        };
        known.insert(name.clone(), variable);
    }
    let mut files: Vec<&String> = layers.env_files.keys().collect();
    env_file::sort_names(&mut files);
    for file in files {
        for (layer, text) in layers.env_files.get(file).into_iter().flatten() {
            let (assignments, _) = env_file::parse(text.expose());
            let (values, _) = env_file::evaluate(&assignments, |name| {
                known
                    .get(name)
                    .map(|variable| variable.value.expose().to_owned())
            });
            known.extend(values.into_iter().map(|(name, value)| {
                let variable = LayerVariable {
                    value: value.into(),
                    layer: *layer,
                    file: Some(file.clone()),
                };
                (name, variable)
            }));
        }
    }
    known
}

/// Why a variable of the container does not reach agents, or `None` if it does.
pub fn withheld(store: StoreKind, name: &str) -> Option<&'static str> {
    if name.starts_with("WHIM_") {
        Some("belongs to whim")
    } else if names::is_provider_access(name) {
        Some("is an address or credential of a model provider")
    } else if is_store_variable(store, name) {
        Some("is a credential of the backup's store")
    } else if matches!(
        name,
        "NOTIFY_SOCKET"
            | "LISTEN_FDS"
            | "LISTEN_PID"
            | "LISTEN_FDNAMES"
            | "WATCHDOG_USEC"
            | "WATCHDOG_PID"
    ) {
        Some("is addressed to the container's main process")
    } else {
        None
    }
}

/// Whether the store of this kind takes the variable for its client (the names that `object_store` reads).
pub fn is_store_variable(store: StoreKind, name: &str) -> bool {
    let prefixes: &[&str] = match store {
        StoreKind::S3 => &["AWS_"],
        StoreKind::Gcs => &["GOOGLE_", "GCS_", "GCP_"],
        StoreKind::Azure => &["AZURE_"],
        StoreKind::File | StoreKind::Backend => &[],
    };
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}

impl Built {
    fn file(&mut self, name: &str, layers: &Configuration) {
        let texts = layers.env_files.get(name).into_iter().flatten();
        // Lines of the higher layer come later, see what the lower ones set, and win.
        let mut values = BTreeMap::new();
        for (layer, text) in texts {
            let (assignments, _) = env_file::parse(text.expose());
            let (new, mistakes) = env_file::evaluate(&assignments, |wanted| {
                let known = self
                    .environment
                    .0
                    .get(OsStr::new(wanted))
                    .and_then(|value| value.to_str());
                values
                    .get(wanted)
                    .cloned()
                    .or_else(|| known.map(str::to_owned))
            });
            values.extend(new);
            for mistake in mistakes {
                self.mistakes.push(Late {
                    from: Some((*layer, name.to_owned())),
                    problem: format!("line {} {}", mistake.line, mistake.problem),
                    remedy: mistake.remedy,
                });
            }
        }
        for (name, value) in &values {
            self.environment.set(name, value);
        }
        self.files.push((name.to_owned(), FileValues(values)));
    }
}

impl Built {
    /// The kernel would refuse every exec: arguments and environment have 2 MiB together.
    fn check_size(&mut self, layers: &Configuration) {
        let from_files = self
            .files
            .iter()
            .flat_map(|(_, values)| values.0.keys().map(String::as_str));
        let names: BTreeSet<&str> = layers
            .env
            .keys()
            .map(String::as_str)
            .chain(from_files)
            .collect();
        let sizes = names
            .iter()
            .filter_map(|name| Some(name.len() + self.environment.get(name)?.len() + 2));
        let total: usize = sizes.sum();
        if total > env_file::MAX_TOTAL {
            let problem = format!("brings the environment to {total} bytes, more than 1 MiB");
            self.mistakes.push(Late {
                from: None,
                problem,
                remedy: "put long values into files",
            });
        }
    }
}

impl Environment {
    /// Sets a variable over whatever was there.
    pub fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        self.0.insert(name.into(), value.into());
    }

    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// The environment of a process in a terminal: what its emulator understands.
    #[must_use]
    pub fn for_terminal(mut self) -> Self {
        self.set("TERM", TERM);
        self.set("COLORTERM", "truecolor");
        self
    }

    /// In the form in which a process is started.
    pub fn into_pairs(self) -> Vec<(OsString, OsString)> {
        self.0.into_iter().collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    fn identify(&mut self, user: &User) {
        self.set("HOME", user.home.as_os_str());
        self.set("USER", &user.name);
        self.set("LOGNAME", &user.name);
        self.set("SHELL", user.shell.as_os_str());
    }

    fn complete(&mut self) {
        if self.get("PATH").is_none_or(OsStr::is_empty) {
            self.set("PATH", PATH);
        }
        let has = |name| self.get(name).is_some_and(|value| !value.is_empty());
        if !["LC_ALL", "LC_CTYPE", "LANG"].into_iter().any(has) {
            self.set("LANG", LANG);
        }
        let proxies = [
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "http_proxy",
            "https_proxy",
            "all_proxy",
        ];
        if proxies
            .into_iter()
            .any(|name| self.get(name).is_some_and(|value| !value.is_empty()))
        {
            for name in ["NO_PROXY", "no_proxy"] {
                let mut exceptions = self.get(name).unwrap_or_default().to_owned();
                if exceptions == "*" {
                    continue;
                }
                if !exceptions.is_empty() {
                    exceptions.push(",");
                }
                exceptions.push(LOOPBACK);
                self.set(name, exceptions);
            }
        }
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl FileValues {
    /// Shell text that exports exactly these values and runs nothing.
    pub fn to_shell(&self) -> String {
        env_file::to_shell(
            self.0
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        )
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl std::fmt::Debug for FileValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests;
