//! Screens and recordings of shells that are over.
//!
//! Every shell has a name of its own, so without this their files would stay for ever. Bound: those of the newest [`KEPT`]
//! shells stay, and of all that are listed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::TerminalId;
use super::set::{MAX_ENDED, MAX_RUNNING, TerminalSet};

/// Shells whose files stay.
const KEPT: usize = MAX_RUNNING + MAX_ENDED;

/// Removes files of old shells. What cannot be removed stays: it is tried again with the next shell.
pub fn forget(directory: &Path, listed: &TerminalSet) {
    forget_but(directory, KEPT, |id| listed.get(id).is_some());
}

fn forget_but(directory: &Path, kept: usize, is_listed: impl Fn(&TerminalId) -> bool) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        // There is none yet.
        return;
    };
    let mut shells: HashMap<String, (SystemTime, Vec<PathBuf>)> = HashMap::new();
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let (id, _) = name.split_once('.').unwrap_or((&name, ""));
        let number = id.strip_prefix("shell-").unwrap_or_default();
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let written = entry.metadata().and_then(|metadata| metadata.modified());
        let written = written.unwrap_or(SystemTime::UNIX_EPOCH);
        let shell = shells
            .entry(id.to_owned())
            .or_insert((SystemTime::UNIX_EPOCH, Vec::new()));
        shell.0 = shell.0.max(written);
        shell.1.push(entry.path());
    }
    let mut shells: Vec<_> = shells.into_iter().collect();
    shells.sort_by_key(|(_, (written, _))| std::cmp::Reverse(*written));
    for (id, (_, paths)) in shells.into_iter().skip(kept) {
        if TerminalId::new(&id).is_ok_and(|id| is_listed(&id)) {
            continue;
        }
        for path in paths {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::debug!(path = %path.display(), %error, "an old file of a shell stays");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_shells_and_all_that_are_no_shells_stay() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, age: u64| {
            let file = std::fs::File::create(directory.path().join(name)).unwrap();
            let written = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000 - age);
            file.set_modified(written).unwrap();
        };
        for (name, age) in [
            ("main.screen", 900),
            ("shell-x.cast", 900),
            ("shell-1.screen", 500),
            ("shell-1.cast", 1),
            ("shell-2.screen", 400),
            ("shell-2.77.tail", 390),
            ("shell-2.1.cast", 380),
            ("shell-3.cast", 300),
            ("shell-4.cast", 350),
        ] {
            write(name, age);
        }
        forget_but(directory.path(), 2, |id| id.as_str() == "shell-4");
        let mut left: Vec<String> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let stay = [
            "main.screen",
            "shell-1.cast",
            "shell-1.screen",
            "shell-3.cast",
            "shell-4.cast",
            "shell-x.cast",
        ];
        assert_eq!(left, stay);
    }
}
