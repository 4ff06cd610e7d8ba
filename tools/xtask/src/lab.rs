//! `cargo xtask lab`: hands over to tools/natlab, with a fresh program to try; and the lab's steps among the tests.

use std::time::Duration;

use anyhow::Result;

use crate::command::Command;
use crate::repo;
use crate::steps::{Missing, Steps};

/// The matrix promises to end in 8 min, a scenario in a minute; a loaded machine gets its time, and a hung lab is killed.
const RUN_MAX: Duration = Duration::from_secs(20 * 60);

/// Builds what is tried and the lab, and runs the lab with these arguments.
pub(crate) fn run(arguments: &[String]) -> Result<bool> {
    build()?;
    lab(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).run().map(|()| true)
}

/// The lab among the tests: it proves its own NATs first, for nothing that comes after is worth more than they are.
pub(crate) fn add_steps(steps: &mut Steps) {
    steps.run("lab: build", build);
    steps.run("lab: prove", || step(&["prove"]));
    steps.run("lab: matrix", || step(&["matrix"]));
    steps.run("lab: guess", || step(&["guess"]));
    steps.run("lab: scenarios", || step(&["scenario", "all"]));
}

/// Two commands, because both at once would build their common crates with the features of both.
fn build() -> Result<()> {
    Command::cargo(&["build", "--release", "--locked", "--package", "p2pos", "--bin", "p2pos"]).run()?;
    Command::cargo(&["build", "--release", "--locked", "--package", "p2pos-natlab"]).run()
}

/// Runs a part of the lab, or names what this machine lacks for it.
fn step(arguments: &[&str]) -> Result<()> {
    let missing = lab(&["check"]).read()?;
    if !missing.trim().is_empty() {
        return Err(Missing(missing.trim().to_owned()).into());
    }
    lab(arguments).deadline(RUN_MAX).run()
}

fn lab(arguments: &[&str]) -> Command {
    Command::new(repo::target().join("release/p2pos-natlab")).args(arguments)
}
