//! Finding an agent's program, and the native binary behind npm's wrapper.
//!
//! The CLIs come as npm packages whose command is a small script that starts the real binary of a platform package.
//! The wrapper costs 44 MB and a start of node, and a signal to it is not one to the agent (Codex's wrapper exits in its
//! own way), so the native binary is started where it can be found; otherwise the wrapper serves.
//!
//! The search itself does no I/O: [`FileSystem`] answers for the agents' user, because that user runs the result.

use std::path::{Path, PathBuf};

/// What a search asks about paths.
pub trait FileSystem {
    /// A regular file that the agents' user may execute.
    fn executable(&self, path: &Path) -> bool;
    /// The path with all links resolved; `None` when it does not exist.
    fn canonical(&self, path: &Path) -> Option<PathBuf>;
}

/// Where an agent's program may be.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    /// Name on `PATH`.
    pub name: &'static str,
    /// Further places, relative to the home.
    pub home: &'static [&'static str],
    /// Platform packages' binaries, relative to a `node_modules` directory, for this machine's architecture.
    pub native: &'static [&'static str],
    /// How to get it, for the error.
    pub remedy: &'static str,
}

/// A program that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    pub path: PathBuf,
    /// The native binary; false: a wrapper, or a program of its own.
    pub native: bool,
}

/// No such program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` not found (looked in {looked}); {remedy}")]
pub struct NotFound {
    pub name: String,
    pub looked: String,
    pub remedy: &'static str,
}

impl Program {
    /// Finds the program on `path` (the agents' user's), then below its `home`.
    ///
    /// # Errors
    /// [`NotFound`] with every directory that was looked in.
    pub fn locate(
        &self,
        path: &[PathBuf],
        home: &Path,
        files: &dyn FileSystem,
    ) -> Result<Located, NotFound> {
        let candidates = path
            .iter()
            // A relative entry would mean another program in every directory, and the agent's is a writable one.
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(self.name))
            .chain(self.home.iter().map(|place| home.join(place)));
        for candidate in candidates {
            if !files.executable(&candidate) {
                continue;
            }
            return Ok(self.native_of(&candidate, files).map_or(
                Located {
                    path: candidate,
                    native: false,
                },
                |path| Located { path, native: true },
            ));
        }
        let mut looked: Vec<String> = path
            .iter()
            .map(|directory| directory.display().to_string())
            .collect();
        looked.extend(
            self.home
                .iter()
                .map(|place| home.join(place).display().to_string()),
        );
        Err(NotFound {
            name: self.name.to_owned(),
            looked: looked.join(", "),
            remedy: self.remedy,
        })
    }

    /// npm puts a platform package into the wrapper package's own `node_modules` (global installation) or beside it
    /// (local installation, pnpm).
    fn native_of(&self, found: &Path, files: &dyn FileSystem) -> Option<PathBuf> {
        let wrapper = files.canonical(found)?;
        wrapper
            .ancestors()
            .skip(1)
            .flat_map(|directory| {
                let own = directory.join("node_modules");
                let beside = directory
                    .file_name()
                    .is_some_and(|name| name == "node_modules")
                    .then(|| directory.to_owned());
                [Some(own), beside]
            })
            .flatten()
            .flat_map(|modules| self.native.iter().map(move |path| modules.join(path)))
            .find(|path| files.executable(path))
    }
}

/// The real file system, seen by the process that asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFiles;

impl FileSystem for RealFiles {
    fn executable(&self, path: &Path) -> bool {
        use std::os::unix::fs::PermissionsExt as _;
        path.metadata()
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    }

    fn canonical(&self, path: &Path) -> Option<PathBuf> {
        path.canonicalize().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::{AgentKind, of};
    use super::*;

    #[derive(Default)]
    struct Fake {
        executables: BTreeSet<PathBuf>,
        links: BTreeMap<PathBuf, PathBuf>,
    }

    impl Fake {
        fn with(executables: &[&str], links: &[(&str, &str)]) -> Self {
            Self {
                executables: executables
                    .iter()
                    .map(PathBuf::from)
                    .chain(links.iter().map(|(from, _)| PathBuf::from(from)))
                    .collect(),
                links: links
                    .iter()
                    .map(|(from, to)| (from.into(), to.into()))
                    .collect(),
            }
        }
    }

    impl FileSystem for Fake {
        fn executable(&self, path: &Path) -> bool {
            self.executables.contains(path)
        }
        fn canonical(&self, path: &Path) -> Option<PathBuf> {
            Some(self.links.get(path).cloned().unwrap_or_else(|| path.into()))
        }
    }

    fn locate(kind: AgentKind, files: &Fake) -> Result<Located, NotFound> {
        of(kind).program().unwrap().locate(
            &["/usr/local/bin".into(), "/usr/bin".into(), "bin".into()],
            Path::new("/home/node"),
            files,
        )
    }

    fn first_native(kind: AgentKind) -> &'static str {
        of(kind).program().unwrap().native[0]
    }

    #[test]
    fn native_binaries_are_found_behind_global_and_local_installations() {
        for (kind, link, wrapper) in [
            (AgentKind::Codex, "codex", "@openai/codex/bin/codex.js"),
            (
                AgentKind::Claude,
                "claude",
                "@anthropic-ai/claude-code/bin/claude.exe",
            ),
            (
                AgentKind::Copilot,
                "copilot",
                "@github/copilot/npm-loader.js",
            ),
        ] {
            let package: PathBuf = wrapper.split('/').take(2).collect();
            for modules in [
                "/usr/lib/node_modules".to_owned(),
                format!("/usr/lib/node_modules/{}/node_modules", package.display()),
            ] {
                let native = format!("{modules}/{}", first_native(kind));
                let files = Fake::with(
                    &[&native],
                    &[(
                        &format!("/usr/local/bin/{link}"),
                        &format!("/usr/lib/node_modules/{wrapper}"),
                    )],
                );
                let found = locate(kind, &files).unwrap();
                assert_eq!((found.path, found.native), (native.into(), true));
            }
        }
    }

    #[test]
    fn without_a_native_binary_the_wrapper_serves() {
        let files = Fake::with(&[], &[("/usr/bin/codex", "/opt/x/codex.js")]);
        let found = locate(AgentKind::Codex, &files).unwrap();
        assert_eq!(found.path, Path::new("/usr/bin/codex"));
        assert!(!found.native);
    }

    #[test]
    fn the_first_directory_wins_and_the_home_comes_last() {
        let files = Fake::with(
            &[
                "/usr/bin/claude",
                "/home/node/.local/bin/claude",
                "bin/claude",
            ],
            &[],
        );
        assert_eq!(
            locate(AgentKind::Claude, &files).unwrap().path,
            Path::new("/usr/bin/claude")
        );
        let files = Fake::with(&["/home/node/.local/bin/claude"], &[]);
        assert_eq!(
            locate(AgentKind::Claude, &files).unwrap().path,
            Path::new("/home/node/.local/bin/claude")
        );
    }

    #[test]
    fn a_relative_directory_is_not_searched() {
        let error = locate(AgentKind::Claude, &Fake::with(&["bin/claude"], &[])).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("/usr/bin") && text.contains("npm install"),
            "{text}"
        );
    }
}
