//! [`Launch`] and [`Arguments`] as bytes for a sealed memfd.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::MAX_PATH;
use super::codec::{CodecError, Decoder, Encoder};
use super::message::{Arguments, Credentials, Io, Launch, Stdin};

/// Largest encoded [`Launch`] in bytes. The kernel takes at most a quarter of the stack limit for argv and
/// environment (2 MiB with the usual 8 MiB), so this admits whatever `execve` does.
pub const MAX_LAUNCH: usize = 4 * 1024 * 1024;
/// Largest encoded [`Arguments`] in bytes, for the same reason.
pub const MAX_ARGUMENTS: usize = 8 * 1024 * 1024;
/// The kernel's `NGROUPS_MAX`.
const MAX_GROUPS: usize = 65_536;
/// Highest target number of a further descriptor: keeps the child's closing loop short.
pub(crate) const MAX_TARGET: i32 = 63;

fn encode_strings<S: AsRef<OsStr>>(
    e: &mut Encoder,
    field: &'static str,
    list: &[S],
) -> Result<(), CodecError> {
    e.count(field, list.len())?;
    for item in list {
        e.bytes(field, item.as_ref().as_bytes(), MAX_LAUNCH)?;
    }
    Ok(())
}

fn os_string(bytes: &[u8]) -> OsString {
    OsStr::from_bytes(bytes).to_owned()
}

fn decode_strings(d: &mut Decoder<'_>, field: &'static str) -> Result<Vec<OsString>, CodecError> {
    let count = d.count(field, 4)?;
    (0..count)
        .map(|_| d.bytes(field, MAX_LAUNCH).map(os_string))
        .collect()
}

fn encode_environment(e: &mut Encoder, list: &[(OsString, OsString)]) -> Result<(), CodecError> {
    e.count("environment", list.len())?;
    for (name, value) in list {
        e.bytes("environment", name.as_bytes(), MAX_LAUNCH)?;
        e.bytes("environment", value.as_bytes(), MAX_LAUNCH)?;
    }
    Ok(())
}

fn decode_environment(d: &mut Decoder<'_>) -> Result<Vec<(OsString, OsString)>, CodecError> {
    let count = d.count("environment", 8)?;
    (0..count)
        .map(|_| {
            let name = os_string(d.bytes("environment", MAX_LAUNCH)?);
            Ok((name, os_string(d.bytes("environment", MAX_LAUNCH)?)))
        })
        .collect()
}

impl Launch {
    /// Bytes for [`memfd_sealed`](super::memfd_sealed).
    ///
    /// # Errors
    /// [`CodecError::TooLong`] beyond [`MAX_LAUNCH`].
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let mut e = Encoder::new();
        e.bytes("program", self.program.as_bytes(), MAX_PATH)?;
        encode_strings(&mut e, "arguments", &self.arguments)?;
        encode_environment(&mut e, &self.environment)?;
        e.bytes("directory", self.directory.as_os_str().as_bytes(), MAX_PATH)?;
        e.bool(self.user.is_some());
        if let Some(user) = &self.user {
            e.u32(user.uid);
            e.u32(user.gid);
            e.count("groups", user.groups.len())?;
            for group in &user.groups {
                e.u32(*group);
            }
        }
        match self.io {
            Io::Terminal { columns, rows } => {
                e.u8(0);
                e.u16(columns);
                e.u16(rows);
            }
            Io::Pipes { stdin: Stdin::Null } => e.u8(1),
            Io::Pipes { stdin: Stdin::Pipe } => e.u8(2),
            Io::Null => e.u8(3),
        }
        e.bool(self.holder);
        e.bool(self.end_with_leader);
        e.option_i32(self.oom_score_adj);
        e.bool(self.no_new_privs);
        e.count("descriptors", self.descriptors.len())?;
        for target in &self.descriptors {
            e.i32(*target);
        }
        let bytes = e.finish();
        if bytes.len() > MAX_LAUNCH {
            return Err(CodecError::TooLong {
                field: "launch",
                length: bytes.len(),
                bound: MAX_LAUNCH,
            });
        }
        Ok(bytes)
    }

    /// # Errors
    /// Any [`CodecError`]; target numbers outside 3..=63 or given twice are [`CodecError::Invalid`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut d = Decoder::new(bytes);
        let program = os_string(d.bytes("program", MAX_PATH)?);
        let arguments = decode_strings(&mut d, "arguments")?;
        let environment = decode_environment(&mut d)?;
        let directory = PathBuf::from(os_string(d.bytes("directory", MAX_PATH)?));
        let user = if d.bool("user")? {
            let uid = d.u32("uid")?;
            let gid = d.u32("gid")?;
            let count = d.count("groups", 4)?;
            if count > MAX_GROUPS {
                return Err(CodecError::TooLong {
                    field: "groups",
                    length: count,
                    bound: MAX_GROUPS,
                });
            }
            let groups = (0..count)
                .map(|_| d.u32("groups"))
                .collect::<Result<_, _>>()?;
            Some(Credentials { uid, gid, groups })
        } else {
            None
        };
        let io = match d.u8("io")? {
            0 => Io::Terminal {
                columns: d.u16("columns")?,
                rows: d.u16("rows")?,
            },
            1 => Io::Pipes { stdin: Stdin::Null },
            2 => Io::Pipes { stdin: Stdin::Pipe },
            3 => Io::Null,
            _ => return Err(CodecError::Invalid { field: "io" }),
        };
        let holder = d.bool("holder")?;
        let end_with_leader = d.bool("end_with_leader")?;
        let oom_score_adj = d.option_i32("oom_score_adj")?;
        let no_new_privs = d.bool("no_new_privs")?;
        let count = d.count("descriptors", 4)?;
        let mut descriptors = Vec::new();
        for _ in 0..count {
            let target = d.i32("descriptors")?;
            if !(3..=MAX_TARGET).contains(&target) || descriptors.contains(&target) {
                return Err(CodecError::Invalid {
                    field: "descriptors",
                });
            }
            descriptors.push(target);
        }
        d.finish()?;
        Ok(Self {
            program,
            arguments,
            environment,
            directory,
            user,
            io,
            holder,
            end_with_leader,
            oom_score_adj,
            no_new_privs,
            descriptors,
        })
    }

    /// Value of a variable of the launch's own environment; the first one counts, as in `getenv`.
    pub(crate) fn variable(&self, name: &str) -> Option<&OsStr> {
        self.environment
            .iter()
            .find(|(key, _)| key.as_os_str() == name)
            .map(|(_, value)| value.as_os_str())
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Arguments {
    /// # Errors
    /// [`CodecError::TooLong`] for more strings than a `u32` counts.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let arguments = self.arguments.iter().map(|item| item.as_bytes());
        let environment = self
            .environment
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        encode_arguments(arguments, environment)
    }

    /// # Errors
    /// Any [`CodecError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut d = Decoder::new(bytes);
        let arguments = decode_strings(&mut d, "arguments")?;
        let environment = decode_environment(&mut d)?;
        d.finish()?;
        Ok(Self {
            arguments,
            environment,
        })
    }
}

/// [`Arguments`] from borrowed parts, with a single allocation of the exact size: secrets pass through it, and a buffer
/// that grows leaves copies behind in freed memory.
pub(crate) fn encode_arguments<'a>(
    arguments: impl Iterator<Item = &'a [u8]> + Clone,
    environment: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
) -> Result<Vec<u8>, CodecError> {
    let size = 8
        + arguments.clone().map(|item| item.len() + 4).sum::<usize>()
        + environment
            .clone()
            .map(|(name, value)| name.len() + value.len() + 8)
            .sum::<usize>();
    let mut e = Encoder::with_capacity(size);
    e.count("arguments", arguments.clone().count())?;
    for item in arguments {
        e.bytes("arguments", item, MAX_LAUNCH)?;
    }
    e.count("environment", environment.clone().count())?;
    for (name, value) in environment {
        e.bytes("environment", name, MAX_LAUNCH)?;
        e.bytes("environment", value, MAX_LAUNCH)?;
    }
    Ok(e.finish())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = OsString> {
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| os_string(&bytes))
    }

    fn pairs() -> impl Strategy<Value = Vec<(OsString, OsString)>> {
        proptest::collection::vec((text(), text()), 0..8)
    }

    fn launch() -> impl Strategy<Value = Launch> {
        let user = proptest::option::of((
            any::<u32>(),
            any::<u32>(),
            proptest::collection::vec(any::<u32>(), 0..5),
        ));
        let io = prop_oneof![
            (any::<u16>(), any::<u16>()).prop_map(|(columns, rows)| Io::Terminal { columns, rows }),
            Just(Io::Pipes { stdin: Stdin::Null }),
            Just(Io::Pipes { stdin: Stdin::Pipe }),
            Just(Io::Null),
        ];
        let descriptors = proptest::collection::hash_set(3..=MAX_TARGET, 0..5);
        let flags = (
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
            any::<Option<i32>>(),
        );
        (
            text(),
            proptest::collection::vec(text(), 0..8),
            pairs(),
            text(),
            user,
            io,
            flags,
            descriptors,
        )
            .prop_map(
                |(program, arguments, environment, directory, user, io, flags, descriptors)| {
                    Launch {
                        program,
                        arguments,
                        environment,
                        directory: directory.into(),
                        user: user.map(|(uid, gid, groups)| Credentials { uid, gid, groups }),
                        io,
                        holder: flags.0,
                        end_with_leader: flags.1,
                        oom_score_adj: flags.3,
                        no_new_privs: flags.2,
                        descriptors: descriptors.into_iter().collect(),
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn launches_survive_the_wire(launch in launch()) {
            prop_assert_eq!(Launch::decode(&launch.encode().unwrap()).unwrap(), launch);
        }

        #[test]
        fn arguments_survive_the_wire(arguments in proptest::collection::vec(text(), 0..8), environment in pairs()) {
            let arguments = Arguments { arguments, environment };
            prop_assert_eq!(Arguments::decode(&arguments.encode().unwrap()).unwrap(), arguments);
        }

        #[test]
        fn garbage_is_no_launch_or_encodes_to_itself(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(launch) = Launch::decode(&bytes) {
                prop_assert_eq!(launch.encode().unwrap(), bytes.clone());
            }
            if let Ok(arguments) = Arguments::decode(&bytes) {
                prop_assert_eq!(arguments.encode().unwrap(), bytes);
            }
        }
    }

    #[test]
    fn a_count_that_the_bytes_cannot_hold_reserves_nothing() {
        assert_eq!(
            Arguments::decode(&u32::MAX.to_le_bytes()),
            Err(CodecError::Truncated { field: "arguments" })
        );
    }
}
