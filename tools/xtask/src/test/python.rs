//! The Python tests, in virtual environments under target/, with every requirement pinned.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::machine::needs;
use crate::command::Command;
use crate::repo;
use crate::steps::Steps;

pub(super) fn add_steps(steps: &mut Steps) {
    steps.run("python: sdk", || {
        needs("python3", "python3")?;
        let python = environment("venv", "sdk-python/requirements-test.txt")?;
        Command::new(python).args(["-m", "pytest", "-q"]).folder(repo::root().join("sdk-python")).run()
    });
}

/// Makes a virtual environment with these requirements, unless it is there already, and gives its interpreter.
fn environment(name: &str, requirements: &str) -> Result<PathBuf> {
    let folder = repo::target().join(name);
    let python = folder.join("bin/python");
    let wanted = repo::read(requirements)?;
    let note = folder.join("requirements-installed.txt");
    if fs::read_to_string(&note).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    Command::new("python3")
        .args(["-m", "venv"])
        .args([&folder])
        .run()
        .context("make a virtual environment")?;
    Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements])
        .run()?;
    fs::write(note, wanted)?;
    Ok(python)
}
