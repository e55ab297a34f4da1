//! Who we are, and as whom the agents run.

use std::path::{Path, PathBuf};

use whim_entrypoint::wire::Credentials;

use crate::config::Settings;
use crate::config::users::{User, Who, look_up};
use crate::supervise::Failure;

/// See the module's header.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The agents' user.
    pub user: User,
    /// Our own uid.
    pub own: u32,
    /// Our own binary, as others can start it.
    pub binary: PathBuf,
}

impl Identity {
    /// As root: the user of `--user`. As an ordinary user: ourselves, whatever was asked for.
    ///
    /// # Errors
    /// 78 when, as root, that user does not exist or is root.
    pub fn find(settings: &Settings) -> Result<Self, Failure> {
        let own = nix::unistd::geteuid().as_raw();
        let etc = Path::new("/etc");
        let binary = std::env::current_exe()
            .map_err(|error| Failure::new(70, format!("own binary: {error}")))?;
        let user = if own == 0 {
            look_up(etc, Who::Name(&settings.user)).map_err(|error| {
                Failure::new(
                    78,
                    format!(
                        "WHIM_USER: {error}; create it (useradd -m {}) or name another",
                        settings.user
                    ),
                )
            })?
        } else {
            look_up(etc, Who::Uid(own)).unwrap_or_else(|_| nameless(own, settings))
        };
        if own == 0 && user.uid == 0 {
            let message = format!(
                "WHIM_USER: {:?} is root; agents refuse to work as root: name an ordinary user",
                settings.user
            );
            return Err(Failure::new(78, message));
        }
        let user = if own != 0 && !settings.root.is_default() {
            // Under a root of its own an ordinary user gets the container's layout, not its own home.
            User {
                home: PathBuf::from("/home/node"),
                ..user
            }
        } else {
            user
        };
        Ok(Self { user, own, binary })
    }

    /// Uid of the agents.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.user.uid
    }

    /// Agents run as somebody else than we do.
    #[must_use]
    pub fn is_split(&self) -> bool {
        self.own != self.user.uid
    }

    /// For processes of the agents; `None` where all run as one user.
    #[must_use]
    pub fn credentials(&self) -> Option<Credentials> {
        self.is_split().then(|| Credentials {
            uid: self.user.uid,
            gid: self.user.gid,
            groups: self.user.groups.clone(),
        })
    }
}

/// A uid without a line in passwd (`runAsUser: 12345`).
fn nameless(uid: u32, settings: &Settings) -> User {
    let gid = nix::unistd::getegid().as_raw();
    User {
        name: settings.user.clone(),
        uid,
        gid,
        groups: vec![gid],
        home: PathBuf::from("/home/node"),
        shell: PathBuf::from("/bin/sh"),
    }
}
