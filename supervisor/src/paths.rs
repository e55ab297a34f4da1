//! Where things are: every absolute path of the contract (§4), under `--root`.

use std::path::{Path, PathBuf};

/// All paths under one root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    root: PathBuf,
    home: PathBuf,
}

impl Paths {
    /// `home`: the agents' home as it is in the system (`/home/node`); under a root other than `/` it moves below it.
    #[must_use]
    pub fn new(root: &Path, home: &Path) -> Self {
        Self {
            root: root.to_owned(),
            home: under(root, home),
        }
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The agents' home.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Holds the checkout and the instructions, so that the checkout stays clean.
    #[must_use]
    pub fn app(&self) -> PathBuf {
        self.root.join("app")
    }

    #[must_use]
    pub fn checkout(&self) -> PathBuf {
        self.root.join("app/repo")
    }

    /// Git worktrees of sessions beside `main`.
    #[must_use]
    pub fn worktrees(&self) -> PathBuf {
        self.root.join("app/worktrees")
    }

    #[must_use]
    pub fn whim(&self) -> PathBuf {
        self.root.join("whim")
    }

    #[must_use]
    pub fn env_files(&self) -> PathBuf {
        self.root.join("whim/env-files")
    }

    #[must_use]
    pub fn init_script(&self) -> PathBuf {
        self.root.join("whim/init.sh")
    }

    /// The parts that the init script runs in order, one a layer.
    #[must_use]
    pub fn init_parts(&self) -> PathBuf {
        self.root.join("whim/init.d")
    }

    /// What shells of this name read beside the bashrc addition.
    #[must_use]
    pub fn shell_integration(&self, shell: &str) -> PathBuf {
        self.root.join(format!("whim/shell/integration.{shell}"))
    }

    #[must_use]
    pub fn bashrc(&self) -> PathBuf {
        self.root.join("whim/bashrc")
    }

    /// Global configuration of the boot's git calls.
    #[must_use]
    pub fn git_configuration(&self) -> PathBuf {
        self.root.join("whim/gitconfig")
    }

    /// Everything durable, mode 0700.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join("whim/state")
    }

    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.state().join("logs")
    }

    /// Screens and recordings of terminals.
    #[must_use]
    pub fn terminals(&self) -> PathBuf {
        self.state().join("terminals")
    }

    /// The backup's index and spool, and the store where none was named.
    #[must_use]
    pub fn backup(&self) -> PathBuf {
        self.state().join("backup")
    }

    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.state().join("journal")
    }

    #[must_use]
    pub fn session(&self, id: &str) -> PathBuf {
        self.state().join("sessions").join(id)
    }

    #[must_use]
    pub fn sessions(&self) -> PathBuf {
        self.state().join("sessions")
    }

    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.root.join("run/whim")
    }

    /// The supervisor's socket for commands and the agents' hooks.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run().join("whim.sock")
    }

    /// The socket of the agents' hooks.
    #[must_use]
    pub fn hooks(&self) -> PathBuf {
        self.run().join("hooks.sock")
    }

    #[must_use]
    pub fn ready(&self) -> PathBuf {
        self.run().join("ready.json")
    }

    #[must_use]
    pub fn control_token(&self) -> PathBuf {
        self.run().join("control-token")
    }

    /// Directory of the two state files.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }
}

fn under(root: &Path, path: &Path) -> PathBuf {
    if root == Path::new("/") {
        return path.to_owned();
    }
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_moves_below_the_root() {
        let paths = Paths::new(Path::new("/srv/x"), Path::new("/home/node"));
        assert_eq!(paths.home(), Path::new("/srv/x/home/node"));
        assert_eq!(paths.checkout(), Path::new("/srv/x/app/repo"));
        assert_eq!(paths.socket(), Path::new("/srv/x/run/whim/whim.sock"));
        let paths = Paths::new(Path::new("/"), Path::new("/home/node"));
        assert_eq!(paths.home(), Path::new("/home/node"));
        assert_eq!(paths.checkout(), Path::new("/app/repo"));
    }
}
