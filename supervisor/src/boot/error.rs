//! Why a boot fails: the step, and the exit code that a platform sees.

use std::path::PathBuf;

use super::git::GitError;
use super::home::HomeError;
use super::init_script::InitError;
use super::repository::CheckoutError;
use crate::keeper::KeeperError;
use crate::sessions::StartError;
use crate::spending::SpendingError;

/// Which step gave up, and why.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error(transparent)]
    Provider(#[from] SpendingError),
    /// With what to do about it: a boot ends here.
    #[error("{0}; check WHIM_UPSTREAM_URL, HTTPS_PROXY and the network")]
    Unreachable(String),
    #[error(transparent)]
    Repository(#[from] CheckoutError),
    #[error(transparent)]
    Restore(#[from] super::restored::RestoreError),
    #[error("git cannot be set up: {0}")]
    Credentials(HomeError),
    #[error("the environment cannot be written: {path}: {source}", path = path.display())]
    Environment {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the shell's start files cannot be prepared: {0}")]
    Shell(HomeError),
    #[error(transparent)]
    Init(#[from] InitError),
    #[error(transparent)]
    Agent(#[from] StartError),
    #[error("the directory {path} cannot be made: {source}", path = path.display())]
    Directory {
        path: PathBuf,
        source: crate::helper::HelperError,
    },
    #[error(transparent)]
    Keeper(#[from] KeeperError),
}

impl BootError {
    /// Name of the step, as in `phase`.
    #[must_use]
    pub fn step(&self) -> &'static str {
        match self {
            Self::Provider(_) | Self::Unreachable(_) => "provider",
            Self::Repository(_) | Self::Directory { .. } => "repository",
            Self::Restore(_) => "restore",
            Self::Credentials(_) => "credentials",
            Self::Environment { .. } | Self::Shell(_) => "environment",
            Self::Init(_) => "init",
            Self::Agent(_) | Self::Keeper(_) => "agent",
        }
    }

    /// Exit code, contract §8.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Provider(error) => error.code(),
            Self::Restore(error) => error.code(),
            Self::Repository(CheckoutError::Git(GitError::Missing { .. })) => 78,
            // What fails here and not at the remote: the directory, the disk.
            Self::Repository(
                CheckoutError::Git(GitError::Failed { .. })
                | CheckoutError::Directory(_)
                | CheckoutError::InTheWay { .. },
            ) => 73,
            Self::Unreachable(_) | Self::Repository(_) => 69,
            Self::Directory { .. }
            | Self::Environment { .. }
            | Self::Shell(_)
            | Self::Credentials(_) => 73,
            Self::Init(InitError::Failed { .. } | InitError::Deadline { .. }) => 71,
            Self::Init(InitError::Start(_)) => 78,
            Self::Init(InitError::Write { .. }) => 73,
            Self::Agent(StartError::Impossible(_)) => 64,
            Self::Agent(error) if error.is_unusable() => 78,
            Self::Agent(StartError::Record { .. } | StartError::Home(_)) => 73,
            Self::Init(InitError::Keeper(_)) | Self::Agent(_) | Self::Keeper(_) => 70,
        }
    }
}
