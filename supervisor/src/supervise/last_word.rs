//! The state as it was last written: kept by the keeper for the time after us, read from the time before us.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use whim_entrypoint::wire::FINAL_STATE_DIRECTORY;
use whim_wire::state::StateObject;

use super::failure::{Failure, at};
use crate::keeper::Keeper;
use crate::paths::Paths;

/// The keeper writes the last word when we cannot any more.
pub(super) async fn hold_final_state(keeper: &Keeper, paths: &Paths) -> Result<(), Failure> {
    let directory = std::fs::File::open(paths.tmp()).map_err(|error| at(&paths.tmp(), error))?;
    Ok(keeper
        .hold(FINAL_STATE_DIRECTORY, directory.as_fd())
        .await?)
}

/// The state object that the supervisor before wrote last.
pub(super) fn last_word(paths: &Paths) -> Option<StateObject> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(paths.tmp().join("claude_state.json"))
        .ok()?;
    let metadata = file.metadata().ok()?;
    // Ours, and not something that the agent put there.
    let own = metadata.is_file() && metadata.uid() == nix::unistd::geteuid().as_raw();
    own.then(|| serde_json::from_reader(std::io::BufReader::new(file)).ok())?
}
