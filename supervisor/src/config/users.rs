//! Users and groups from `passwd` and `group` files.
//!
//! The files are read by ourselves: a static binary that calls `getpwnam` loads the NSS plug-ins of whatever image it
//! runs in. Hence users that exist only in a directory service are not found. Malformed lines and the `+`/`-` lines of
//! NIS are skipped, as the C library's `files` source does.
//!
//! An ordinary user's process needs no entry: platforms start containers under numbers that no file knows.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::settings::{Root, Variables};

/// Largest passwd or group file that is read, in bytes; a larger one is refused rather than read in part.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Who runs agents, shells, init.sh and hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, with `gid`, ascending, each once.
    pub groups: Vec<u32>,
    pub home: PathBuf,
    /// `/bin/sh` where the file leaves it empty.
    pub shell: PathBuf,
}

/// How a user is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who<'a> {
    /// By name; when no such name exists and it is a number, by uid.
    Name(&'a str),
    Uid(u32),
}

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "user {}", super::redact::printable(name)),
            Self::Uid(uid) => write!(f, "uid {uid}"),
        }
    }
}

/// Why there is no [`User`].
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("cannot read {path}: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} is larger than {MAX_FILE} bytes")]
    TooLarge { path: PathBuf },
    #[error("{who} is not in {path}")]
    Unknown { who: String, path: PathBuf },
}

/// Looks a user up in `etc/passwd` and its groups in `etc/group` (which may be missing).
///
/// # Errors
/// passwd unreadable or oversized, user unknown, group file oversized or unreadable for another reason than absence.
pub fn look_up(etc: &Path, who: Who<'_>) -> Result<User, UserError> {
    let path = etc.join("passwd");
    let passwd = read(&path)?;
    let group_path = etc.join("group");
    let group = match read(&group_path) {
        Err(UserError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            String::new()
        }
        other => other?,
    };
    find(&passwd, &group, who).ok_or_else(|| UserError::Unknown {
        who: who.to_string(),
        path,
    })
}

/// Whom agents, shells, init.sh and hooks run as: `name` when this process is root, else whoever runs this process.
///
/// # Errors
/// As [`look_up`]; without root never [`UserError::Unknown`].
pub fn of_agents(etc: &Path, name: &str, variables: &Variables) -> Result<User, UserError> {
    let uid = nix::unistd::geteuid();
    if uid.is_root() {
        return look_up(etc, Who::Name(name));
    }
    let gid = nix::unistd::getegid().as_raw();
    let mut user = match look_up(etc, Who::Uid(uid.as_raw())) {
        Err(UserError::Unknown { .. } | UserError::Read { .. }) => {
            let text = |name| {
                variables
                    .get(name)
                    .and_then(|value| value.to_str())
                    .filter(|value| !value.is_empty())
            };
            let home = text("HOME")
                .filter(|home| home.starts_with('/'))
                .unwrap_or("/");
            User {
                name: text("USER").map_or_else(|| uid.to_string(), str::to_owned),
                uid: uid.as_raw(),
                gid,
                groups: Vec::new(),
                home: PathBuf::from(home),
                shell: PathBuf::from("/bin/sh"),
            }
        }
        other => other?,
    };
    // What the process has counts, not what the file says it should have.
    user.gid = gid;
    user.groups = nix::unistd::getgroups()
        .unwrap_or_default()
        .into_iter()
        .map(nix::unistd::Gid::as_raw)
        .collect();
    user.groups.push(gid);
    user.groups.sort_unstable();
    user.groups.dedup();
    Ok(user)
}

impl User {
    /// With the home that the layout gives: under a root of its own always `/home/node` (so that two of them share
    /// nothing), else the one of the passwd entry.
    #[must_use]
    pub fn at_home(mut self, root: &Root) -> Self {
        if !root.is_default() {
            self.home = root.path("/home/node");
        }
        self
    }
}

fn read(path: &Path) -> Result<String, UserError> {
    let failed = |source| UserError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(UserError::TooLarge {
            path: path.to_owned(),
        });
    }
    // The comment field may be in any encoding.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The first entry that fits, as the C library chooses.
pub fn find(passwd: &str, group: &str, who: Who<'_>) -> Option<User> {
    let entries = || passwd.lines().filter_map(entry);
    let mut user = match who {
        Who::Name(name) => entries().find(|user| user.name == name).or_else(|| {
            let uid: u32 = name.parse().ok()?;
            entries().find(|user| user.uid == uid)
        }),
        Who::Uid(uid) => entries().find(|user| user.uid == uid),
    }?;
    user.groups = group
        .lines()
        .filter_map(|line| membership(line, &user.name))
        .collect();
    user.groups.push(user.gid);
    user.groups.sort_unstable();
    user.groups.dedup();
    Some(user)
}

/// Names of all groups by number; for messages (`docker`).
pub fn group_names(group: &str) -> impl Iterator<Item = (u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
        Some((gid.parse().ok()?, name))
    })
}

/// name:password:uid:gid:comment:home:shell
fn entry(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, rest @ ..] = fields.as_slice() else {
        return None;
    };
    if name.is_empty() || name.starts_with(['+', '-', '#']) || rest.len() > 1 {
        return None;
    }
    let shell = rest
        .first()
        .copied()
        .filter(|shell| !shell.is_empty())
        .unwrap_or("/bin/sh");
    Some(User {
        name: (*name).to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        groups: Vec::new(),
        home: if home.is_empty() {
            PathBuf::from("/")
        } else {
            PathBuf::from(home)
        },
        shell: PathBuf::from(shell),
    })
}

/// The gid of a group line (name:password:gid:member,member) that lists `user`.
fn membership(line: &str, user: &str) -> Option<u32> {
    let mut fields = line.split(':');
    let (_, _, gid, members) = (
        fields.next()?,
        fields.next()?,
        fields.next()?,
        fields.next()?,
    );
    members
        .split(',')
        .any(|member| member.trim() == user)
        .then(|| gid.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        +nis::::::\n\
        broken:x:one:1::/:/bin/sh\n\
        short:x:1\n\
        node:x:1001:1001:Node,,,:/home/node:/bin/bash\n\
        node:x:7:7:second:/x:/bin/sh\n\
        bare:x:1002:1002:::\n\
        1001:x:9:9::/number:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nnode:x:1001:\ndocker:x:998:someone,node\nsudo:x:27:node\nbad:x:x:node\nshort:x:5\nagain:x:27:node\n";

    #[test]
    fn a_user_is_found_with_its_groups() {
        let node = find(PASSWD, GROUP, Who::Name("node")).unwrap();
        assert_eq!(
            node,
            User {
                name: "node".into(),
                uid: 1001,
                gid: 1001,
                groups: vec![27, 998, 1001],
                home: "/home/node".into(),
                shell: "/bin/bash".into(),
            }
        );
        assert_eq!(find(PASSWD, GROUP, Who::Uid(1001)), Some(node));
    }

    #[test]
    fn a_name_that_is_a_number_comes_before_the_uid() {
        assert_eq!(
            find(PASSWD, "", Who::Name("1001")).unwrap().home,
            Path::new("/number")
        );
        assert_eq!(find(PASSWD, "", Who::Name("1002")).unwrap().name, "bare");
    }

    #[test]
    fn empty_fields_have_the_defaults_of_login() {
        let bare = find(PASSWD, "", Who::Name("bare")).unwrap();
        assert_eq!(
            (bare.home.as_path(), bare.shell.as_path()),
            (Path::new("/"), Path::new("/bin/sh"))
        );
    }

    #[test]
    fn what_is_malformed_or_missing_is_not_found() {
        for name in ["broken", "short", "+nis", "nobody", "", "4294967296"] {
            assert_eq!(find(PASSWD, GROUP, Who::Name(name)), None, "{name}");
        }
    }

    #[test]
    fn files_are_read_and_a_missing_group_file_is_no_error() {
        let etc = tempfile::tempdir().unwrap();
        assert!(matches!(
            look_up(etc.path(), Who::Uid(0)),
            Err(UserError::Read { .. })
        ));
        std::fs::write(
            etc.path().join("passwd"),
            b"caf\xe9:x:5:5:\xff:/h:/s\nroot:x:0:0::/root:\n",
        )
        .unwrap();
        assert_eq!(look_up(etc.path(), Who::Name("root")).unwrap().groups, [0]);
        let error = look_up(etc.path(), Who::Name("node"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("user node is not in") && error.contains("passwd"),
            "{error}"
        );
    }

    #[test]
    fn an_ordinary_user_needs_no_entry() {
        let etc = tempfile::tempdir().unwrap();
        let variables = Variables::new([
            ("HOME".into(), "/somewhere".into()),
            ("USER".into(), "me".into()),
        ]);
        let found = of_agents(etc.path(), "node", &variables);
        if nix::unistd::geteuid().is_root() {
            assert!(matches!(found, Err(UserError::Read { .. })));
        } else {
            let user = found.unwrap();
            assert_eq!(
                (user.name.as_str(), user.home.as_path()),
                ("me", Path::new("/somewhere"))
            );
            assert!(user.groups.contains(&nix::unistd::getegid().as_raw()));
        }
    }

    #[test]
    fn a_root_of_its_own_has_a_home_of_its_own() {
        let node = find(PASSWD, GROUP, Who::Name("bare")).unwrap();
        assert_eq!(node.clone().at_home(&Root::new("/")).home, Path::new("/"));
        assert_eq!(
            node.at_home(&Root::new("/r")).home,
            Path::new("/r/home/node")
        );
    }

    proptest! {
        #[test]
        fn any_file_is_survived(passwd: String, group: String, name: String) {
            prop_assert!(find(&passwd, &group, Who::Name(&name)).is_none_or(|user| !user.groups.is_empty()));
        }
    }
}
