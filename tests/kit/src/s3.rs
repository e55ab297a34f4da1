//! An S3-compatible server (moto's) at pinned versions, in memory, on loopback.
//!
//! `tests/kit/s3/` pins it. It goes to `$WHIM_S3_DIR`, else to `target/s3`, once. Everything in it is gone when it ends.

use std::io::{self, BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::client::Client;
use crate::installed::{InstallError, Installation};

const SERVER: Installation = Installation {
    name: "s3",
    variable: "WHIM_S3_DIR",
    files: &[
        ("server.py", include_str!("../s3/server.py")),
        ("requirements.txt", include_str!("../s3/requirements.txt")),
    ],
    // With the interpreter itself, as the development servers are installed.
    commands: &[(
        "",
        &[
            "sh",
            "-c",
            "\"$(python3 -c 'import sys; print(sys.executable)')\" -m pip install --quiet --root-user-action ignore \
             --disable-pip-version-check --upgrade --target python -r requirements.txt",
        ],
    )],
};

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error("the server: {0}")]
    Io(#[from] io::Error),
    #[error("the server did not say where it is")]
    Silent,
    #[error("the bucket: {0}")]
    Bucket(String),
}

/// A server with one bucket, `history`.
#[derive(Debug)]
pub struct S3 {
    child: Child,
    port: u16,
}

impl S3 {
    /// Installs it if it is not, and starts it.
    ///
    /// # Errors
    /// [`S3Error`].
    pub fn start() -> Result<Self, S3Error> {
        let directory = SERVER.directory()?;
        let mut child = Command::new("python3")
            .arg(directory.join("server.py"))
            .env("PYTHONPATH", directory.join("python"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut said = String::new();
        let output = child.stdout.take().ok_or(S3Error::Silent)?;
        BufReader::new(output).read_line(&mut said)?;
        let port = said.trim().parse().map_err(|_| S3Error::Silent)?;
        let server = Self { child, port };
        let client = Client::tcp(([127, 0, 0, 1], port).into())
            .map_err(|error| S3Error::Bucket(error.to_string()))?
            .limit(Duration::from_secs(30));
        let bucket = http::Request::put("/history").body(bytes::Bytes::new());
        let bucket = bucket.map_err(io::Error::other)?;
        match client.send(bucket) {
            Ok(answer) if answer.status.is_success() => Ok(server),
            Ok(answer) => Err(S3Error::Bucket(answer.text())),
            Err(error) => Err(S3Error::Bucket(error.to_string())),
        }
    }

    /// What the program under test is given to reach it.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            (
                "AWS_ENDPOINT_URL",
                format!("http://127.0.0.1:{}", self.port),
            ),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", "whim".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "whim-secret-key".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
    }

    /// Stops it in the middle of whatever it does; it answers again after [`S3::go_on`].
    ///
    /// # Errors
    /// When it has ended.
    pub fn freeze(&self) -> io::Result<()> {
        self.signal(nix::sys::signal::Signal::SIGSTOP)
    }

    /// # Errors
    /// When it has ended.
    pub fn go_on(&self) -> io::Result<()> {
        self.signal(nix::sys::signal::Signal::SIGCONT)
    }

    fn signal(&self, signal: nix::sys::signal::Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        Ok(nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            signal,
        )?)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
