//! How to start whim: as whom, as which process, with what.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::root::{AGENTS_USER, Root};
use crate::whim::{Whim, WhimError};

/// The 14 capabilities of a container that was started with Docker's defaults
/// (<https://docs.docker.com/engine/containers/run/#runtime-privilege-and-linux-capabilities>).
const DOCKER_CAPABILITIES: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,\
    +net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap";

/// Marks everything that a run started, as long as it keeps its environment.
pub(crate) const MARK: &str = "WHIMKIT_MARK";

/// How to start it.
#[derive(Clone, Debug)]
pub struct Run {
    binary: PathBuf,
    command: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
    ordinary: bool,
    namespace: bool,
    docker_capabilities: bool,
    read_only: bool,
}

impl Run {
    /// `whim run` of this binary (tests of the package have its path in `CARGO_BIN_EXE_whim`).
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let path =
            std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        let mut environment = BTreeMap::new();
        environment.insert("PATH".into(), path);
        environment.insert("LANG".into(), "C.UTF-8".into());
        environment.insert("TERM".into(), "xterm-256color".into());
        Self {
            binary: binary.into(),
            command: vec!["run".into()],
            environment,
            ordinary: false,
            namespace: false,
            docker_capabilities: false,
            read_only: false,
        }
    }

    /// Another command of the binary in place of `run`, such as `init`.
    #[must_use]
    pub fn command(mut self, command: impl Into<OsString>) -> Self {
        self.command = vec![command.into()];
        self
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.command.push(argument.into());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// A variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Puts a directory at the front of `PATH`, such as that of [`crate::agents::installed`].
    #[must_use]
    pub fn path(mut self, directory: &Path) -> Self {
        let mut path = directory.as_os_str().to_owned();
        if let Some(rest) = self.environment.get(OsStr::new("PATH")) {
            path.push(":");
            path.push(rest);
        }
        self.environment.insert("PATH".into(), path);
        self
    }

    /// As [`AGENTS_USER`] in place of root; wants [`Root::ordinary`].
    #[must_use]
    pub fn ordinary(mut self) -> Self {
        self.ordinary = true;
        self
    }

    /// Whether it runs as [`AGENTS_USER`] in place of root.
    #[must_use]
    pub fn is_ordinary(&self) -> bool {
        self.ordinary
    }

    /// As PID 1 of a pid namespace of its own. Needs root.
    #[must_use]
    pub fn as_pid_1(mut self) -> Self {
        self.namespace = true;
        self
    }

    /// With the capabilities that Docker gives by default and no others.
    #[must_use]
    pub fn with_docker_capabilities(mut self) -> Self {
        self.docker_capabilities = true;
        self
    }

    /// Where the file system of `/` cannot be written; what is mounted elsewhere can. Needs root.
    #[must_use]
    pub fn on_read_only_root(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// The whole command line.
    fn line(&self) -> Vec<OsString> {
        let mut line: Vec<OsString> = Vec::new();
        let mut add = |words: &[&str]| line.extend(words.iter().map(OsString::from));
        if self.read_only {
            let remount = "mount -o remount,bind,ro / && exec \"$@\"";
            add(&[
                &tool("unshare"),
                "--mount",
                "--",
                "/bin/sh",
                "-c",
                remount,
                "sh",
            ]);
        }
        if self.namespace {
            add(&[
                &tool("unshare"),
                "--pid",
                "--fork",
                "--mount-proc",
                "--kill-child",
                "--",
            ]);
        }
        if self.ordinary || self.docker_capabilities {
            add(&[&tool("setpriv")]);
            if self.docker_capabilities {
                add(&["--inh-caps=-all", "--bounding-set", DOCKER_CAPABILITIES]);
            }
            if self.ordinary {
                let user = format!("--reuid={AGENTS_USER}");
                let group = format!("--regid={AGENTS_USER}");
                add(&[&user, &group, "--init-groups"]);
            }
            add(&["--"]);
        }
        line.push(self.binary.clone().into());
        line.extend(self.command.iter().cloned());
        line
    }

    /// Starts it in `root`, with free ports and a control token.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, root: Root) -> Result<Whim, WhimError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = format!(
            "{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let token = format!("control-{mark}");
        let mut run = self.clone();
        let own = [
            ("WHIM_ROOT", root.path().as_os_str().to_owned()),
            ("WHIM_CONTROL_TOKEN", OsString::from(&token)),
            ("WHIM_GENERATION_PORT", "0".into()),
            ("WHIM_LOCAL_PORT", "0".into()),
            ("WHIM_BACKUP_PORT", "0".into()),
            ("WHIM_UI_PORT", "0".into()),
            (
                "HOME",
                root.at(if self.ordinary { "/home/node" } else { "/root" })
                    .into(),
            ),
        ];
        for (name, value) in own {
            run.environment.entry(name.into()).or_insert(value);
        }
        run.environment.insert(MARK.into(), mark.clone().into());
        // Of an earlier life in this root; whoever waits for this one must not take it for its own.
        let ready = root.at("/run/whim/ready.json");
        match std::fs::remove_file(&ready) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(WhimError::File {
                    path: ready,
                    source,
                });
            }
        }
        // Beside the root, so that nothing in it is whim's own output by accident.
        let logs = tempfile::tempdir().map_err(|source| WhimError::File {
            path: std::env::temp_dir(),
            source,
        })?;
        let child = run.spawn(logs.path())?;
        Ok(Whim::started(
            child,
            self.namespace,
            root,
            logs,
            mark,
            token,
        ))
    }

    fn spawn(&self, logs: &Path) -> Result<Child, WhimError> {
        let file = |name: &str| {
            let path = logs.join(name);
            File::create(&path).map_err(|source| WhimError::File { path, source })
        };
        let line = self.line();
        let (program, arguments) = line.split_first().ok_or(WhimError::NoProcess("named"))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null());
        command.stdout(file("stdout")?).stderr(file("stderr")?);
        command.spawn().map_err(|source| WhimError::Start {
            program: program.to_string_lossy().into_owned(),
            source,
        })
    }
}

/// A program of the machine's, by the test's own `PATH`: the program under test may be given another.
fn tool(name: &str) -> String {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file());
    found.map_or_else(
        || name.to_owned(),
        |file| file.to_string_lossy().into_owned(),
    )
}
