//! Puts the case files into the binary: a table of path and text, in the order of the paths.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let folder = Path::new("cases");
    println!("cargo::rerun-if-changed=cases");
    let mut files = Vec::new();
    gather(folder, &mut files)?;
    files.sort();
    let mut table = String::from(
        "/// Every case file: its path under `cases/`, and its text.\npub const FILES: &[(&str, &str)] = &[\n",
    );
    for file in &files {
        let name = file.strip_prefix(folder).map_err(io::Error::other)?;
        // Named from the crate's own folder, so that a checkout that moves takes its target folder along.
        let from_crate = Path::new("/").join(file);
        writeln!(
            table,
            "    ({name:?}, include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {from_crate:?}))),"
        )
        .map_err(io::Error::other)?;
    }
    table.push_str("];\n");
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?;
    fs::write(Path::new(&out).join("cases.rs"), table)
}

fn gather(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            println!("cargo::rerun-if-changed={}", path.display());
            gather(&path, files)?;
        } else if path.extension().is_some_and(|ending| ending == "toml") {
            files.push(path);
        }
    }
    Ok(())
}
