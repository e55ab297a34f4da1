//! A Docker daemon of one's own, ended when dropped.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use whim_kit::wait;

use crate::Failed;
use crate::command::{CommandError, output, program, say};

/// The daemon.
#[derive(Debug)]
pub(super) struct Daemon {
    child: Child,
    /// Sockets have short paths (108 bytes), so not under the checkout.
    sockets: tempfile::TempDir,
}

impl Daemon {
    /// Starts it with its data in this directory.
    pub(super) fn start(data: &Path) -> Result<Self, Failed> {
        fs::create_dir_all(data).map_err(|source| Failed::File {
            path: data.to_owned(),
            source,
        })?;
        let sockets = tempfile::tempdir().map_err(|source| Failed::File {
            path: std::env::temp_dir(),
            source,
        })?;
        let log = data.join("daemon.log");
        let output = File::create(&log).map_err(|source| Failed::File {
            path: log.clone(),
            source,
        })?;
        let errors = output.try_clone().map_err(|source| Failed::File {
            path: log.clone(),
            source,
        })?;
        let mut command = program(
            "dockerd",
            ["--iptables=false", "--ip6tables=false", "--bridge=none"],
        );
        command
            .arg("--data-root")
            .arg(data.join("data"))
            .arg("--exec-root")
            .arg(sockets.path().join("exec"));
        command
            .arg("--pidfile")
            .arg(sockets.path().join("pid"))
            .arg("--host")
            .arg(host(sockets.path()));
        say("starting a Docker daemon");
        let child = command
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(CommandError::start(&command))?;
        let daemon = Self { child, sockets };
        let up = wait::until_ok("the Docker daemon", Duration::from_secs(60), || {
            self::output(&mut daemon.docker(["version", "--format", "{{.Server.Version}}"]))
        });
        let log = || fs::read_to_string(&log).unwrap_or_else(|error| error.to_string());
        let version = up.map_err(|error| Failed::Wait(format!("{error}\n{}", log())))?;
        say(&format!("Docker {version}"));
        Ok(daemon)
    }

    /// Its socket, as `DOCKER_HOST`.
    pub(super) fn address(&self) -> String {
        host(self.sockets.path())
    }

    /// The client, for this daemon.
    pub(super) fn docker<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new("docker");
        command
            .arg("--host")
            .arg(self.address())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }
}

fn host(sockets: &Path) -> String {
    let socket: PathBuf = sockets.join("docker.sock");
    format!("unix://{}", socket.display())
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX));
        // TERM lets it end its containers and unmount; one that has ended already needs none.
        let _ended = kill(pid, Signal::SIGTERM);
        let child = &mut self.child;
        let ended = wait::until("the Docker daemon's end", Duration::from_secs(30), || {
            child.try_wait().ok().flatten()
        });
        if let Err(error) = ended {
            say(&error.to_string());
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}
