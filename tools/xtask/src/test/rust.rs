//! The Rust tests, in the order in which they tell most: what a unit promises, then whole programs (golden vectors, command line,
//! disconnects, the rogue plugin, replayed fuzz corpora), then the examples in the docs.

use anyhow::Result;

use crate::command::Command;
use crate::repo;

/// Builds everything that the tests start, so that no test waits for the compiler.
pub(super) fn build() -> Result<()> {
    Command::cargo(&["build", "--workspace", "--locked"]).run()?;
    Command::cargo(&["test", "--workspace", "--locked", "--no-run"]).run()
}

/// The generator stands outside the workspace, so that only who needs it pays for it; its judgement of changes is tested here.
pub(super) fn generator() -> Result<()> {
    Command::cargo(&[
        "test",
        "--locked",
        "--quiet",
        "--manifest-path",
        "tools/gen/Cargo.toml",
        "--target-dir",
    ])
    .args([repo::target().join("gen")])
    .run()
}

pub(super) fn units() -> Result<()> {
    test(&["--lib", "--bins"])
}

pub(super) fn whole_programs() -> Result<()> {
    test(&["--test", "*"])
}

pub(super) fn doc_examples() -> Result<()> {
    test(&["--doc"])
}

fn test(which: &[&str]) -> Result<()> {
    Command::cargo(&["test", "--workspace", "--locked", "--no-fail-fast", "--quiet"])
        .args(which)
        .env("RUST_BACKTRACE", "1")
        .run()
}
