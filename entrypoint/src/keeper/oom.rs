//! The out-of-memory killer's counter of our memory cgroup, where it can be read.

use std::ffi::CString;

use crate::procfs::read_into;

/// How often the killer struck in our cgroup, or any below it. `None`: no counter within reach.
pub(super) fn kills() -> Option<u64> {
    let mut buffer = [0; 4096];
    let own = std::str::from_utf8(read_into(c"/proc/self/cgroup", &mut buffer)?).ok()?;
    // In a container the hierarchy is mounted at our own cgroup, whatever path the file names; so try both.
    let v1 = own.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers
            .split(',')
            .any(|name| name == "memory")
            .then_some(path)
    });
    let v2 = own.lines().find_map(|line| line.strip_prefix("0::"));
    let v1 = v1.into_iter().flat_map(|path| {
        [
            format!("/sys/fs/cgroup/memory{path}/memory.oom_control"),
            "/sys/fs/cgroup/memory/memory.oom_control".to_owned(),
        ]
    });
    let v2 = v2.into_iter().flat_map(|path| {
        [
            format!("/sys/fs/cgroup{path}/memory.events"),
            "/sys/fs/cgroup/memory.events".to_owned(),
        ]
    });
    v2.chain(v1).find_map(|path| {
        let mut buffer = [0; 1024];
        counter(read_into(&CString::new(path).ok()?, &mut buffer)?)
    })
}

fn counter(file: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(file).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_the_file_are_read() {
        assert_eq!(
            counter(b"low 0\nhigh 0\nmax 4\noom 2\noom_kill 3\noom_group_kill 0\n"),
            Some(3)
        );
        assert_eq!(
            counter(b"oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
            Some(1)
        );
        assert_eq!(counter(b"low 0\n"), None);
    }
}
