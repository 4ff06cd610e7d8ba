//! `cargo xtask bench`: hands over to tools/bench, the only place that builds the stacks we compare ourselves with.

use anyhow::Result;

use crate::command::Command;
use crate::{repo, say};

const MANIFEST: &str = "tools/bench/Cargo.toml";

/// Builds both sides in release mode and runs the comparison.
pub(crate) fn run(arguments: &[String]) -> Result<bool> {
    if !repo::root().join(MANIFEST).is_file() {
        say::line(format!("{MANIFEST} is not there: this checkout has no benchmarks"));
        return Ok(false);
    }
    Command::cargo(&["build", "--release", "--locked"]).run()?;
    Command::cargo(&["run", "--release", "--locked", "--manifest-path", MANIFEST, "--target-dir"])
        .args([repo::target().join("bench")])
        .args(["--", "run", "--p2pos"])
        .args([repo::target().join("release/p2pos")])
        .args(arguments)
        .run()
        .map(|()| true)
}
