//! What was released of the plugin protocol meets the present: the old wheel the present daemon, a program compiled against the old header
//! the present library. (The old vectors are replayed by the tests of each language.)
//!
//! A case that a later kit has added may show a fault that a released SDK had all along. Such a case is listed beside the release, in
//! `NAME.python.expected-failures` or `NAME.c.expected-failures`: the release itself is never changed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{conformance, machine::needs, python, sdk_c};
use crate::command::Command;
use crate::release::{self, SONAME, SYMBOLS};
use crate::repo;
use crate::steps::Steps;

/// A run of the kit without its slow cases takes 5 to 15 s, two daemons and a megabyte take 3.
const RUN_MAX: Duration = Duration::from_secs(120);

pub(super) fn add_steps(steps: &mut Steps) {
    steps.run("releases: old wheel, the kit", || each(old_wheel));
    steps.run("releases: old wheel, two daemons", || each(two_daemons));
    steps.run("releases: old header, new library", || each(old_header));
}

fn each(step: fn(&str, &Path) -> Result<()>) -> Result<()> {
    conformance::build()?;
    for name in release::all()? {
        step(&name, &release::folder(&name)).with_context(|| format!("release {name}"))?;
    }
    Ok(())
}

/// The released SDK still keeps the rules that the present kit knows.
fn old_wheel(name: &str, place: &Path) -> Result<()> {
    let agent = place.join("agents/agent_sync.py");
    judge(name, "python", |kit| {
        kit.args([environment(name, place)?]).args(["-E", "-s", "-B"]).args([agent]).run()
    })
}

/// The released SDK still works with the present daemon, on both sides.
fn two_daemons(name: &str, place: &Path) -> Result<()> {
    needs("python3", "python3")?;
    Command::new("python3")
        .args(["-B", "tools/conformance/released.py"])
        .args([environment(name, place)?, place.join("agents/exchange.py")])
        .deadline(RUN_MAX)
        .run()
}

/// A program that was written and compiled for the release still links with the present library, and runs.
fn old_header(name: &str, place: &Path) -> Result<()> {
    let library = sdk_c::library()?;
    let exported = release::exported(&library)?;
    for symbol in std::fs::read_to_string(place.join(SYMBOLS))?.lines() {
        ensure!(
            exported.contains(symbol),
            "{symbol} is gone from the library: programs that call it no longer start"
        );
    }
    let (was, is) = (std::fs::read_to_string(place.join(SONAME))?, release::soname(&library)?);
    ensure!(was.trim() == is, "the library is {is} now, programs of the release ask for {}", was.trim());
    let folder = library.parent().context("a library stands in a folder")?;
    let program = repo::target().join(format!("release-{name}-agent"));
    Command::new("cc")
        .args(["-std=c99", "-D_POSIX_C_SOURCE=200809L", "-I"])
        .args([place.join("include")])
        .args([place.join("agents/agent.c")])
        .args(["-o"])
        .args([&program])
        .args(["-L"])
        .args([folder])
        .args(["-lp2pos"])
        .args([format!("-Wl,-rpath,{}", folder.display())])
        .run()?;
    judge(name, "c", |kit| kit.args([program]).run())
}

/// Runs the kit at gold, without the cases that wait for deadlines; `run` adds the agent's command.
fn judge(name: &str, language: &str, run: impl FnOnce(Command) -> Result<()>) -> Result<()> {
    let known = repo::root().join(release::FOLDER).join(format!("{name}.{language}.expected-failures"));
    let mut kit = Command::new(repo::target().join("debug/p2pos-conformance"))
        .args(["plugin", "--level", "gold", "--quick"])
        .deadline(RUN_MAX);
    if known.is_file() {
        kit = kit.args(["--expected-failures"]).args([known]);
    }
    run(kit.args(["--"]))
}

/// The interpreter of an environment with the released wheel, and nothing else of ours.
fn environment(name: &str, place: &Path) -> Result<PathBuf> {
    python::with_wheel(&format!("venv-release-{name}"), &release::wheel(place)?)
}
