//! Packs the page, so that the binary carries it compressed: a quarter of what it is.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo names no directory")?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo names no output")?);
    let dist = Path::new(&manifest).join("../web/dist");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", dist.display());
    let mut files = Vec::new();
    // A binary may be built without the page; it says so when it is asked for it.
    if dist.is_dir() {
        list(&dist, &mut files)?;
    }
    files.sort();
    let mut table = String::from("static FILES: &[(&str, &[u8])] = &[\n");
    for (number, file) in files.iter().enumerate() {
        let packed = out.join(format!("page-{number}.gz"));
        pack(file, &packed)?;
        let name = file
            .strip_prefix(&dist)?
            .to_str()
            .ok_or("a name that is no text")?;
        let packed = packed.to_str().ok_or("a path that is no text")?;
        writeln!(table, "    ({name:?}, include_bytes!({packed:?})),")?;
    }
    table.push_str("];\n");
    fs::write(out.join("page.rs"), table)?;
    Ok(())
}

fn pack(file: &Path, into: &Path) -> Result<(), Box<dyn Error>> {
    let mut encoder = GzEncoder::new(fs::File::create(into)?, Compression::best());
    encoder.write_all(&fs::read(file)?)?;
    encoder.finish()?;
    Ok(())
}

fn list(directory: &Path, into: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(&entry.path(), into)?;
        } else {
            into.push(entry.path());
        }
    }
    Ok(())
}
