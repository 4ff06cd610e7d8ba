//! `cargo xtask gen`: runs tools/gen, which has a workspace of its own, so that only this chore builds the protobuf compiler.

use anyhow::Result;

use crate::command::Command;
use crate::repo;

/// Writes the generated code, or with `is_check` only says whether it is up to date.
pub(crate) fn run(is_check: bool) -> Result<bool> {
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
    let arguments: &[&str] = if is_check { &["--check"] } else { &[] };
    Ok(Command::new(repo::target().join("gen/debug/gen")).args(arguments).run().is_ok())
}
