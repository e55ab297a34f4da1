//! Credentials of the repository, kept in the supervisor's memory and given to git call by call.

use std::sync::{Mutex, MutexGuard, PoisonError};

use percent_encoding::percent_decode_str;

use crate::config::Secret;

/// A remote, as git names it when it asks for credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    pub protocol: String,
    /// With the port if there is one.
    pub host: String,
    /// Without a leading slash.
    pub path: String,
}

impl Remote {
    /// Splits an `https://` or `http://` URL into the remote and its user name and password. Other forms (ssh, local
    /// paths) have no credentials that git would ask for.
    #[must_use]
    pub fn parse(url: &str) -> Option<(Self, Option<(String, String)>)> {
        let (protocol, rest) = url.split_once("://")?;
        if !matches!(protocol, "https" | "http") {
            return None;
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (userinfo, host) = match authority.rsplit_once('@') {
            Some((userinfo, host)) => (Some(userinfo), host),
            None => (None, authority),
        };
        let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let login = userinfo.map(|userinfo| {
            let (name, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
            (decoded(name), decoded(password))
        });
        let remote = Self {
            protocol: protocol.to_owned(),
            host: host.to_owned(),
            path: path.to_owned(),
        };
        Some((remote, login))
    }

    /// Whether git means this remote. A `.git` at the end of the path makes no difference, as it makes none to the
    /// servers.
    #[must_use]
    pub fn is(&self, protocol: &str, host: &str, path: &str) -> bool {
        let bare = |path: &str| {
            let path = path.trim_matches('/');
            path.strip_suffix(".git").unwrap_or(path).to_owned()
        };
        self.protocol == protocol
            && self.host.eq_ignore_ascii_case(host)
            && bare(&self.path) == bare(path)
    }

    /// The URL without credentials.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}/{}", self.protocol, self.host, self.path)
    }
}

/// The URL without credentials, whatever its form.
#[must_use]
pub fn without_login(url: &str) -> String {
    match Remote::parse(url) {
        Some((remote, Some(_))) => remote.url(),
        Some((_, None)) | None => url.to_owned(),
    }
}

/// A login, and the only remote that it is given for.
#[derive(Clone, Debug)]
struct Login {
    remote: Remote,
    username: String,
    password: String,
}

/// Holds the login of the task's repository, and while it is fetched that of its mirror. Once closed, no login any more.
#[derive(Debug, Default)]
pub struct GitCredentials {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    repository: Option<Login>,
    mirror: Option<Login>,
    closed: bool,
}

impl GitCredentials {
    /// From now on, this login is given for this remote; nothing happens once they are closed.
    pub fn set(&self, remote: Remote, username: String, password: String) {
        let mut held = self.lock();
        if !held.closed {
            held.repository = Some(Login {
                remote,
                username,
                password,
            });
        }
    }

    /// A login for the mirror, until [`GitCredentials::forget_mirror`]: only the boot fetches from it.
    pub fn set_mirror(&self, remote: Remote, username: String, password: String) {
        let mut held = self.lock();
        if !held.closed {
            held.mirror = Some(Login {
                remote,
                username,
                password,
            });
        }
    }

    /// The mirror's login is given no more.
    pub fn forget_mirror(&self) {
        self.lock().mirror = None;
    }

    /// From now on nothing is given, whatever is [`GitCredentials::set`].
    pub fn close(&self) {
        *self.lock() = Held {
            closed: true,
            ..Held::default()
        };
    }

    /// Whether nothing will be given.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// User name and password, for exactly the remote that they belong to.
    pub fn answer(&self, protocol: &str, host: &str, path: &str) -> Option<(String, String)> {
        let held = self.lock();
        let found = [&held.repository, &held.mirror]
            .into_iter()
            .flatten()
            .find(|login| login.remote.is(protocol, host, path))?;
        Some((found.username.clone(), found.password.clone()))
    }

    /// The passwords that are held, to be kept out of what leaves the container.
    #[must_use]
    pub fn secrets(&self) -> Vec<Secret> {
        let held = self.lock();
        let logins = [&held.repository, &held.mirror].into_iter().flatten();
        logins
            .map(|login| Secret::new(login.password.clone()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split_from_their_login() {
        let (remote, login) =
            Remote::parse("https://x-token:p%40ss%2Fw@git.example:8443/a/b.git").unwrap();
        assert_eq!(remote.url(), "https://git.example:8443/a/b.git");
        assert_eq!(login, Some(("x-token".into(), "p@ss/w".into())));
        assert_eq!(without_login("https://tok@h/a"), "https://h/a");
        assert_eq!(without_login("git@h:a/b"), "git@h:a/b");
        assert_eq!(without_login("/srv/a@b"), "/srv/a@b");
        assert_eq!(Remote::parse("ssh://git@h/a"), None);
    }

    #[test]
    fn only_the_exact_remote_gets_an_answer() {
        let credentials = GitCredentials::default();
        assert_eq!(credentials.answer("https", "h", "a/b.git"), None);
        let (remote, login) = Remote::parse("https://u:p@h/a/b.git").unwrap();
        let (username, password) = login.unwrap();
        credentials.set(remote, username, password);
        let yes = Some(("u".to_owned(), "p".to_owned()));
        assert_eq!(credentials.answer("https", "h", "a/b.git"), yes);
        assert_eq!(credentials.answer("https", "H", "a/b"), yes);
        for (protocol, host, path) in [
            ("http", "h", "a/b.git"),
            ("https", "evil", "a/b.git"),
            ("https", "h", "a/c.git"),
            ("https", "h:444", "a/b"),
            ("https", "h", ""),
        ] {
            assert_eq!(
                credentials.answer(protocol, host, path),
                None,
                "{protocol} {host} {path}"
            );
        }
        let (remote, _) = Remote::parse("https://m/a").unwrap();
        credentials.set_mirror(remote, "m".into(), "m".into());
        assert!(credentials.answer("https", "m", "a").is_some());
        assert_eq!(credentials.answer("https", "h", "a/b"), yes);
        credentials.forget_mirror();
        assert_eq!(credentials.answer("https", "m", "a"), None);
        assert_eq!(credentials.answer("https", "h", "a/b"), yes);
    }

    #[test]
    fn once_closed_nothing_is_taken_or_given() {
        let credentials = GitCredentials::default();
        let (remote, _) = Remote::parse("https://h/a").unwrap();
        credentials.set(remote.clone(), "u".into(), "p".into());
        credentials.close();
        assert_eq!(credentials.answer("https", "h", "a"), None);
        credentials.set(remote, "u".into(), "p".into());
        assert_eq!(credentials.answer("https", "h", "a"), None);
        assert!(credentials.is_closed());
    }
}
