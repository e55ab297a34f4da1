//! `whim logs TERMINAL --cast`: a terminal's recording, as one asciicast for any player.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use super::Outcome;
use crate::terminals::TerminalId;
use crate::terminals::record;

/// Prints the recording. It is kept in two segments, of which each begins with its header and the screen of that moment;
/// times count from the event before, so without its header the newer one simply goes on where the older one ended.
pub(super) fn print(directory: &Path, name: &str, output: &mut impl Write) -> io::Result<Outcome> {
    let Ok(id) = TerminalId::new(name) else {
        return Ok(Outcome::failure(
            2,
            format!("{name:?} is no name of a terminal; `main` is the agent's"),
        ));
    };
    let mut begun = false;
    for path in record::files(directory, &id) {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mut file = BufReader::new(file);
        if begun {
            file.skip_until(b'\n')?;
        }
        begun = true;
        match io::copy(&mut file, output) {
            Ok(_) => {}
            // Whoever reads has seen enough (`| head`).
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => return Err(error),
        }
    }
    if begun {
        Ok(Outcome::text(String::new()))
    } else {
        Ok(Outcome::failure(
            2,
            format!("terminal {name:?} has no recording"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(directory: &Path, name: &str) -> (String, u8) {
        let mut output = Vec::new();
        let outcome = print(directory, name, &mut output).unwrap();
        (String::from_utf8(output).unwrap(), outcome.code)
    }

    #[test]
    fn two_segments_are_one_recording_with_one_header() {
        let directory = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write("main.cast", "{\"version\":3}\n[0.5, \"o\", \"new\"]\n");
        assert_eq!(
            printed(directory.path(), "main"),
            ("{\"version\":3}\n[0.5, \"o\", \"new\"]\n".to_owned(), 0)
        );
        write("main.1.cast", "{\"version\":3}\n[0.1, \"o\", \"old\"]\n");
        assert_eq!(
            printed(directory.path(), "main").0,
            "{\"version\":3}\n[0.1, \"o\", \"old\"]\n[0.5, \"o\", \"new\"]\n"
        );
    }

    #[test]
    fn what_is_not_there_or_no_name_is_said() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(printed(directory.path(), "main").1, 2);
        assert_eq!(printed(directory.path(), "../main").1, 2);
    }
}
