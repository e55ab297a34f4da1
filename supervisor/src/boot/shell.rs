//! What shells read at their start: the bashrc addition of the layers, and our integration with terminals.
//!
//! The integration marks prompts and commands with OSC 133, the sequences that FinalTerm began and terminals such as
//! VS Code, kitty and WezTerm understand, keeps histories apart, and notes each command with its time, directory and exit
//! status for the search (`store::commands` reads that). It is ours alone to change: the agents' user reads it.

use std::io;
use std::path::{Path, PathBuf};

use crate::agents::FileEdit;
use crate::agents::edit::{Block, Comment, Edit, Position};
use crate::paths::Paths;

/// Each shell, its start file in the home, and its integration.
const SHELLS: [(&str, &str, &str); 2] = [
    ("bash", ".bashrc", include_str!("shell/integration.bash")),
    ("zsh", ".zshrc", include_str!("shell/integration.zsh")),
];

/// Writes the integrations.
///
/// # Errors
/// The file that cannot be written.
pub(super) fn write(paths: &Paths) -> Result<(), (PathBuf, io::Error)> {
    for (shell, _, text) in SHELLS {
        let path = paths.shell_integration(shell);
        let directory = path.parent().unwrap_or(&path);
        std::fs::create_dir_all(directory).map_err(|error| (directory.to_owned(), error))?;
        crate::files::write(&path, 0o644, text.as_bytes())
            .map_err(|error| (path.clone(), error))?;
    }
    Ok(())
}

/// The lines in the shells' start files that read ours. `there` says whether a shell is installed: nobody needs a start
/// file of one that is not.
pub(super) fn start_files(paths: &Paths, there: impl Fn(&str) -> bool) -> Vec<FileEdit> {
    let reads = |path: &Path| {
        let path = path.to_string_lossy().replace('\'', r"'\''");
        format!("[ -r '{path}' ] && . '{path}'\n")
    };
    let edit = |(shell, file, _): (&str, &str, &str)| {
        let mut text = String::new();
        if shell == "bash" {
            text.push_str(&reads(&paths.bashrc()));
        }
        // After it, because it looks at the prompt.
        text.push_str(&reads(&paths.shell_integration(shell)));
        FileEdit {
            path: paths.home().join(file),
            mode: 0o644,
            edit: Edit::Block(Block {
                text: Some(text),
                comment: Comment::Hash,
                position: Position::End,
            }),
        }
    };
    SHELLS
        .into_iter()
        .filter(|(shell, ..)| *shell == "bash" || there(shell))
        .map(edit)
        .collect()
}

/// Whether a shell is in one of the places that `/etc/shells` names.
pub(super) fn is_installed(shell: &str) -> bool {
    ["/bin", "/usr/bin", "/usr/local/bin"]
        .iter()
        .any(|directory| Path::new(directory).join(shell).is_file())
}
