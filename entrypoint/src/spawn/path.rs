//! Where a program is looked for, as `execvp` does it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Searched when the environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Paths to try in turn: the name itself when it contains a slash, else in each directory of `search` (an empty one is
/// the working directory).
pub(super) fn candidates<'a>(
    program: &'a OsStr,
    search: Option<&'a OsStr>,
) -> impl Iterator<Item = Vec<u8>> + 'a {
    let name = program.as_bytes();
    let direct = name.contains(&b'/') || name.is_empty();
    let search = search.map_or(DEFAULT_PATH, OsStrExt::as_bytes);
    let found = search
        .split(|byte| *byte == b':')
        .filter(move |_| !direct)
        .map(move |directory| {
            let mut path = Vec::with_capacity(directory.len() + name.len() + 2);
            path.extend_from_slice(if directory.is_empty() {
                b"."
            } else {
                directory
            });
            path.push(b'/');
            path.extend_from_slice(name);
            path
        });
    direct.then(|| name.to_vec()).into_iter().chain(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(program: &str, search: Option<&str>) -> Vec<String> {
        let search = search.map(OsStr::new);
        candidates(OsStr::new(program), search)
            .map(|path| String::from_utf8(path).unwrap())
            .collect()
    }

    #[test]
    fn a_slash_means_no_search() {
        assert_eq!(list("./run", Some("/bin")), ["./run"]);
        assert_eq!(list("/bin/run", None), ["/bin/run"]);
    }

    #[test]
    fn directories_are_tried_in_order_and_an_empty_one_is_the_working_directory() {
        assert_eq!(list("run", Some("/a::/b")), ["/a/run", "./run", "/b/run"]);
        assert_eq!(list("run", None).last().unwrap(), "/bin/run");
    }
}
