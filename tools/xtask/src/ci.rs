//! `cargo xtask ci`: what CI runs, cheapest first. The tests themselves are [`crate::test`]'s.

use anyhow::{Result, ensure};

use crate::command::Command;
use crate::repo;
use crate::steps::{Missing, Steps};
use crate::test::DemoSize;
use crate::{deny, test, tidy};

/// Workspaces beside the main one, whose code is ours all the same.
const OTHER_WORKSPACES: &[&str] = &["tools/bench", "tools/fuzz/engine", "tools/gen"];

/// Runs every check and every test, or those whose name contains `only`. False if one failed.
pub(crate) fn run(only: Option<&str>) -> Result<bool> {
    let mut steps = Steps::new(only);
    steps.set_up("machine", test::machine::prepare);
    steps.run("format", format);
    steps.run("tidy", || tidy::run(false).and_then(|is_tidy| ensure_true(is_tidy, "see the list above")));
    steps.run("dependencies", deny::run);
    steps.run("lints", lints);
    steps.run("docs", docs);
    test::add_steps(&mut steps, DemoSize::Full);
    Ok(steps.finish())
}

fn format() -> Result<()> {
    has_component("fmt")?;
    Command::cargo(&["fmt", "--all", "--", "--check"]).run()?;
    for folder in OTHER_WORKSPACES {
        let manifest = format!("{folder}/Cargo.toml");
        if repo::root().join(&manifest).is_file() {
            Command::cargo(&["fmt", "--manifest-path", &manifest, "--", "--check"]).run()?;
        }
    }
    Ok(())
}

fn lints() -> Result<()> {
    has_component("clippy")?;
    Command::cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]).run()
}

fn docs() -> Result<()> {
    Command::cargo(&["doc", "--workspace", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "-D warnings").run()
}

fn has_component(name: &str) -> Result<()> {
    if Command::cargo(&[name, "--version"]).succeeds() {
        return Ok(());
    }
    Err(Missing(format!(
        "cargo {name} (rustup component add {})",
        if name == "fmt" { "rustfmt" } else { name }
    ))
    .into())
}

fn ensure_true(is_true: bool, otherwise: &str) -> Result<()> {
    ensure!(is_true, "{otherwise}");
    Ok(())
}
