//! Merging what an agent needs into the files of its home, through the helper.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::agents::FileEdit;
use crate::agents::edit::{EditError, Left, MAX_FILE, Share};
use crate::clock;
use crate::helper::{Helper, HelperError};

use super::written::Written;

/// A CLI that rewrites its file all the time must not keep us for ever.
const ATTEMPTS: usize = 8;

/// Why a file could not be merged.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error(transparent)]
    Helper(#[from] HelperError),
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error("{path} changes faster than it can be merged", path = .0.display())]
    Busy(PathBuf),
}

/// Applies the edits in order. A file that cannot be understood (half-written by a crash) is set aside beside itself and
/// begun anew, because the agent could not use it either.
///
/// # Errors
/// [`HomeError`] for the first that fails.
pub async fn apply(helper: &Helper, edits: &[FileEdit]) -> Result<(), HomeError> {
    for edit in edits {
        merge(helper, edit, None).await?;
    }
    Ok(())
}

/// As [`apply`], and notes what the files did not hold before.
///
/// # Errors
/// As [`apply`].
pub async fn apply_noted(
    helper: &Helper,
    edits: &[FileEdit],
    written: &Written,
) -> Result<(), HomeError> {
    for edit in edits {
        merge(helper, edit, Some(written)).await?;
    }
    Ok(())
}

async fn merge(
    helper: &Helper,
    edit: &FileEdit,
    written: Option<&Written>,
) -> Result<(), HomeError> {
    for _ in 0..ATTEMPTS {
        let old = helper.read_optional(&edit.path, MAX_FILE).await?;
        let content = old.as_ref().map(|(content, _)| content.as_slice());
        let new = match edit.apply(content) {
            Ok(Some(new)) => new,
            Ok(None) => return Ok(()),
            Err(error) => {
                let aside = aside(&edit.path);
                tracing::warn!(%error, aside = %aside.display(), "set aside and begun anew");
                helper
                    .write(
                        &aside,
                        edit.mode,
                        None,
                        content.unwrap_or_default().to_vec(),
                    )
                    .await?;
                edit.apply(None)?.unwrap_or_default()
            }
        };
        if let Some(written) = written {
            // What was damaged is begun anew: all of it is ours.
            let missing = edit.share()?.missing_in(&edit.path, content);
            let missing = match missing {
                Ok(missing) => missing,
                Err(_) => edit.share()?.fingerprints().cloned().collect(),
            };
            written.note(&edit.path, missing);
        }
        let mode = match &old {
            Some(_) => helper.stat(&edit.path).await?.mode,
            None => edit.mode,
        };
        match helper
            .write(&edit.path, mode, Some(old.map(|(_, stamp)| stamp)), new)
            .await
        {
            Ok(()) => return Ok(()),
            Err(error) if error.is_stale() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(HomeError::Busy(edit.path.clone()))
}

/// Takes these out of a file, where they stand as they were written.
///
/// # Errors
/// [`HomeError`].
pub async fn take_out(
    helper: &Helper,
    path: &Path,
    prints: &BTreeSet<String>,
) -> Result<(), HomeError> {
    for _ in 0..ATTEMPTS {
        let Some((content, stamp)) = helper.read_optional(path, MAX_FILE).await? else {
            return Ok(());
        };
        let share = Share::among(path, &content, prints)?;
        match share.withdraw(path, &content, prints)? {
            Left::Same => return Ok(()),
            Left::Nothing => {
                helper.remove(path).await?;
                tidy(helper, path).await;
                return Ok(());
            }
            Left::Content(new) => {
                let mode = helper.stat(path).await?.mode;
                match helper.write(path, mode, Some(Some(stamp)), new).await {
                    Ok(()) => return Ok(()),
                    Err(error) if error.is_stale() => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Err(HomeError::Busy(path.to_owned()))
}

/// Removes directories of a skill that nothing is in any more, after its file `path` went.
pub async fn tidy(helper: &Helper, path: &Path) {
    let above: Vec<&Path> = path.ancestors().skip(1).collect();
    let Some(skills) = above
        .iter()
        .position(|directory| directory.file_name() == Some("skills".as_ref()))
    else {
        return;
    };
    for directory in above.iter().take(skills) {
        if helper.remove_directory(directory).await.is_err() {
            // Something is in it.
            return;
        }
    }
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".damaged-{}", clock::now().as_millisecond()));
    path.with_file_name(name)
}
