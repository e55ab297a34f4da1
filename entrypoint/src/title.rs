#![expect(
    unsafe_code,
    reason = "argv and environment are read and overwritten where the kernel put them"
)]
//! Our argv and environment, in place.
//!
//! The kernel shows the memory between `arg_start` and `arg_end` as `/proc/PID/cmdline` and that between `env_start` and
//! `env_end` as `/proc/PID/environ` (proc_pid_stat(5), fields 48 to 51). Reading it directly makes no copies that would
//! have to be wiped too.

use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;

use nix::libc;

use crate::procfs;
use crate::wire::{CodecError, encode_arguments};

/// Largest area believed: the kernel's own bound on argv and environment (a quarter of a 64 MiB stack limit, generous).
const MAX_AREA: usize = 16 * 1024 * 1024;

/// The two areas.
#[derive(Debug)]
pub(crate) struct Title {
    arguments: Range<usize>,
    environment: Range<usize>,
}

impl Title {
    /// `None` when `/proc` does not tell.
    ///
    /// # Safety
    /// At most one per process, made before anything else keeps references into argv or environment that are used after
    /// [`overwrite`](Self::overwrite).
    pub(crate) unsafe fn find() -> Option<Self> {
        let mut buffer = [0; 1280];
        let line = procfs::read_into(c"/proc/self/stat", &mut buffer)?;
        let close = line.iter().rposition(|byte| *byte == b')')?;
        let text = std::str::from_utf8(line.get(close + 1..)?).ok()?;
        // Field 3 is the first behind the name.
        let mut fields = text
            .split_ascii_whitespace()
            .skip(48 - 3)
            .map(|field| field.parse::<usize>().unwrap_or(0));
        let arguments = fields.next()?..fields.next()?;
        let environment = fields.next()?..fields.next()?;
        let plausible = |area: &Range<usize>| {
            area.start != 0 && area.end >= area.start && area.len() <= MAX_AREA
        };
        (plausible(&arguments) && plausible(&environment)).then_some(Self {
            arguments,
            environment,
        })
    }

    fn area(range: &Range<usize>) -> &[u8] {
        // SAFETY: the kernel mapped this part of the stack before the first instruction and it stays; nothing writes to
        // it while the borrow of `self` lasts (`overwrite` takes it by value).
        unsafe {
            std::slice::from_raw_parts(std::ptr::with_exposed_provenance(range.start), range.len())
        }
    }

    /// argv, with argv\[0].
    pub(crate) fn arguments(&self) -> impl Iterator<Item = &[u8]> + Clone {
        strings(Self::area(&self.arguments))
    }

    /// Encoded [`Arguments`](crate::wire::Arguments) without the first `skip` of argv.
    pub(crate) fn encode(&self, skip: usize) -> Result<Vec<u8>, CodecError> {
        let environment = strings(Self::area(&self.environment)).filter_map(|entry| {
            // A name may start with '=', as the shells of other systems make them, but is never empty.
            let split = entry.iter().skip(1).position(|byte| *byte == b'=')? + 1;
            Some((entry.get(..split)?, entry.get(split + 1..)?))
        });
        encode_arguments(self.arguments().skip(skip), environment)
    }

    /// Puts zeros over both, and `visible` at the start of argv as far as it fits.
    pub(crate) fn overwrite(self, visible: &[&OsStr]) {
        // SAFETY: one thread; empties the list of pointers into the area that is about to be zero.
        if unsafe { libc::clearenv() } != 0 {
            crate::log::line(format_args!("clearenv failed"));
        }
        for range in [&self.environment, &self.arguments] {
            let start = std::ptr::with_exposed_provenance_mut::<u8>(range.start);
            // SAFETY: as in `area`; no reference into it is alive.
            unsafe { std::ptr::write_bytes(start, 0, range.len()) };
        }
        let mut at = self.arguments.start;
        for word in visible {
            let word = word.as_bytes();
            if at + word.len() >= self.arguments.end {
                break;
            }
            let target = std::ptr::with_exposed_provenance_mut::<u8>(at);
            // SAFETY: within the area by the check above, and the word is not in it.
            unsafe { std::ptr::copy_nonoverlapping(word.as_ptr(), target, word.len()) };
            at += word.len() + 1;
        }
    }
}

fn strings(area: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    area.strip_suffix(&[0])
        .filter(|area| !area.is_empty())
        .into_iter()
        .flat_map(|area| area.split(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Arguments;

    #[test]
    fn our_own_arguments_and_environment_are_found() {
        // SAFETY: nothing is overwritten here.
        let title = unsafe { Title::find() }.unwrap();
        let arguments: Vec<_> = title.arguments().map(<[u8]>::to_vec).collect();
        let expected: Vec<_> = std::env::args_os()
            .map(|text| text.as_bytes().to_vec())
            .collect();
        assert_eq!(arguments, expected);
        let decoded = Arguments::decode(&title.encode(0).unwrap()).unwrap();
        let path = decoded
            .environment
            .iter()
            .find(|(name, _)| name == "PATH")
            .map(|(_, value)| value.clone());
        assert_eq!(path, std::env::var_os("PATH"));
    }

    #[test]
    fn empty_strings_are_kept() {
        assert_eq!(
            strings(b"a\0\0b\0").collect::<Vec<_>>(),
            [&b"a"[..], b"", b"b"]
        );
        assert_eq!(strings(b"").count(), 0);
    }
}
