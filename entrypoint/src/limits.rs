//! Resource limits: ours are set at the start, children get back those that we were started with.

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// The limits that the keeper changes for itself, as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    core: (rlim_t, rlim_t),
    descriptors: (rlim_t, rlim_t),
}

impl Limits {
    pub(crate) fn current() -> nix::Result<Self> {
        Ok(Self {
            core: getrlimit(Resource::RLIMIT_CORE)?,
            descriptors: getrlimit(Resource::RLIMIT_NOFILE)?,
        })
    }

    /// For ourselves: no core file (it would hold secrets), as many descriptors as allowed (six a terminal). The hard
    /// limit of core files stays, so that children can have theirs back without privilege.
    pub(crate) fn harden(self) -> nix::Result<()> {
        setrlimit(Resource::RLIMIT_CORE, 0, self.core.1)?;
        setrlimit(
            Resource::RLIMIT_NOFILE,
            self.descriptors.1,
            self.descriptors.1,
        )
    }

    /// In a child.
    pub(crate) fn apply(&self) -> nix::Result<()> {
        setrlimit(Resource::RLIMIT_CORE, self.core.0, self.core.1)?;
        setrlimit(
            Resource::RLIMIT_NOFILE,
            self.descriptors.0,
            self.descriptors.1,
        )
    }
}
