//! `cargo xtask gen`: runs tools/gen, which has a workspace of its own, so that only this chore builds the protobuf compiler.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::command::Command;
use crate::repo;

/// Writes the generated code, or with `is_check` only says whether it is up to date.
pub(crate) fn run(is_check: bool) -> Result<bool> {
    let arguments: &[&str] = if is_check { &["--check"] } else { &[] };
    Ok(generator()?.args(arguments).run().is_ok())
}

/// Writes the shapes of the plugin protocol's messages, as a release keeps them.
pub(crate) fn descriptors(file: &Path) -> Result<()> {
    generator()?.args(["--descriptors"]).args([file]).run()
}

/// What the present plugin protocol takes away from a release, or adds without a word: places, and what is wrong there.
pub(crate) fn against_releases() -> Result<Vec<(String, String)>> {
    let told = generator()?.args(["--releases"]).read()?;
    let finding = |line: &str| line.split_once(": ").map(|(place, what)| (place.to_owned(), what.to_owned()));
    told.lines().map(|line| finding(line).with_context(|| format!("understand {line:?}"))).collect()
}

fn generator() -> Result<Command> {
    Command::cargo(&[
        "build",
        "--quiet",
        "--locked",
        "--manifest-path",
        "tools/gen/Cargo.toml",
        "--target-dir",
    ])
    .args([repo::target().join("gen")])
    .run()?;
    Ok(Command::new(repo::target().join("gen/debug/gen")))
}
