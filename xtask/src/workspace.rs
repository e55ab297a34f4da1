//! Where things are in the checkout.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Failed;

/// The top of the checkout.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// A path in the checkout.
pub(crate) fn at(path: &str) -> PathBuf {
    root().join(path)
}

/// A path in cargo's target directory.
pub(crate) fn target(path: &str) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| at("target"), PathBuf::from)
        .join(path)
}

/// An empty directory at this path; what was there is removed.
pub(crate) fn fresh(path: &Path) -> Result<(), Failed> {
    let failed = |source| Failed::File {
        path: path.to_owned(),
        source,
    };
    if path.exists() {
        fs::remove_dir_all(path).map_err(failed)?;
    }
    fs::create_dir_all(path).map_err(failed)
}
