//! What is installed from the registries, once, for all tests.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{Flock, FlockArg};

/// Why something is not there.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file or directory of the installation.
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    /// The installing program is not there.
    #[error("cannot run {program}: {source}")]
    Program { program: String, source: io::Error },
    /// It failed.
    #[error("{command} in {path}: {message}")]
    Failed {
        command: String,
        path: PathBuf,
        message: String,
    },
}

/// A directory of packages.
pub(crate) struct Installation {
    /// Its name under `target/`
    pub name: &'static str,
    /// Where it is instead, if this variable of the environment is set
    pub variable: &'static str,
    /// The files that say what belongs into it: name and content. The last pins everything
    pub files: &'static [(&'static str, &'static str)],
    /// The commands that install it, and where under the directory they run
    pub commands: &'static [(&'static str, &'static [&'static str])],
}

impl Installation {
    /// The directory, with everything in it. Several processes may call at the same time: one installs, the others wait
    /// for it.
    ///
    /// # Errors
    /// When it is not installed and cannot be.
    pub(crate) fn directory(&self) -> Result<PathBuf, InstallError> {
        let directory = std::env::var_os(self.variable).map_or_else(
            || {
                Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("../../target")
                    .join(self.name)
            },
            PathBuf::from,
        );
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| InstallError::File { path, source }
        };
        fs::create_dir_all(&directory).map_err(failed(&directory))?;
        let directory = directory.canonicalize().map_err(failed(&directory))?;
        let path = directory.join(".lock");
        let lock = File::create(&path).map_err(failed(&path))?;
        // Ends with the process that holds it, so nobody waits for a dead one.
        let held = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, error)| failed(&path)(error.into()))?;
        let wanted: String = self.files.iter().map(|(_, content)| *content).collect();
        // Written last, so a half-done installation is done again.
        let done = directory.join("installed");
        if fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
            return Ok(directory);
        }
        for (name, content) in self.files {
            let path = directory.join(name);
            fs::write(&path, content).map_err(failed(&path))?;
        }
        for (under, command) in self.commands {
            run(command, &directory.join(under))?;
        }
        fs::write(&done, wanted).map_err(failed(&done))?;
        drop(held);
        Ok(directory)
    }
}

fn run(command: &[&str], directory: &Path) -> Result<(), InstallError> {
    let (program, arguments) = command.split_first().unwrap_or((&"true", &[]));
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| InstallError::Program {
            program: (*program).to_owned(),
            source,
        })?;
    if output.status.success() {
        return Ok(());
    }
    Err(InstallError::Failed {
        command: command.join(" "),
        path: directory.to_owned(),
        message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
