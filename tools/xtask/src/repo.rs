//! Where the checkout is, and which files in it are ours. Knows git's list of files, and nothing of their contents.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::command::Command;

/// The root of the checkout. Every chore runs there.
pub(crate) fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).expect("tools/xtask stands two folders below the root")
}

/// The folder where builds and everything that chores make may go.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// All files that are committed or would be, relative to the root, sorted.
pub(crate) fn files() -> Result<Vec<String>> {
    let list = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .read()
        .context("list the checkout's files")?;
    let mut files: Vec<String> =
        list.split('\0').filter(|name| root().join(name).is_file()).map(str::to_owned).collect();
    files.sort_unstable();
    files.dedup();
    Ok(files)
}

/// The text of one of our files.
pub(crate) fn read(name: &str) -> Result<String> {
    std::fs::read_to_string(root().join(name)).with_context(|| format!("read {name}"))
}
