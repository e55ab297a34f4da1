//! Measurements by name: `benches/NAME/run`, any executable. It gets the path of the static release binary in `WHIM` and
//! prints what it measured.

use std::fs;

use crate::command::{program, run as show, say};
use crate::{Failed, binary, web, workspace};

/// Runs them, or lists all there are.
pub(crate) fn run(names: &[String]) -> Result<(), Failed> {
    let path = workspace::at("benches");
    if names.is_empty() {
        let entries = fs::read_dir(&path).map_err(|source| Failed::File { path, source })?;
        let mut found: Vec<String> = entries
            .flatten()
            .filter(|entry| entry.path().join("run").is_file())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        found.sort();
        say(&format!("measurements: {}", found.join(" ")));
        return Ok(());
    }
    let scripts: Vec<_> = names
        .iter()
        .map(|name| path.join(name).join("run"))
        .collect();
    if let Some(missing) = scripts.iter().find(|script| !script.is_file()) {
        return Err(Failed::Check(format!(
            "there is no measurement at {}",
            missing.display()
        )));
    }
    web::build()?;
    let whim = binary::build("release")?;
    for script in scripts {
        show(program(script, [""; 0]).env("WHIM", &whim))?;
    }
    Ok(())
}
