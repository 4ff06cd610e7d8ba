//! `cargo xtask mutants`: breaks our code on purpose, a little at a time, and sees that something notices.
//!
//! Two kinds. **Rules**: tools/conformance/mutants, each one rule of the protocol broken in one place of an SDK or the daemon, each caught by a
//! named case of the kit. **Crate**: every small change that cargo-mutants can think of in the pure code of the protocol crate
//! (`.cargo/mutants.toml` says which), caught by any of its tests; what nothing can notice stands in [`KNOWN`], with the reason.
//!
//! The second kind takes hours on two cores, so it goes in shards, as many as the time allows, and says which come next.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::command::Command;
use crate::steps::Steps;
use crate::{repo, say, test};

/// The version is fixed: another one thinks of other mutants.
const TOOL: (&str, &str) = ("cargo-mutants", "27.1.0");
const KNOWN: &str = "plugin-protocol/mutants-nobody-notices.toml";
const PACKAGE: &str = "p2pos-plugin-protocol";
/// How many parts the crate's mutants are run in: some thirty mutants each, which is a few minutes.
const SHARDS: u32 = 24;
/// Longest run of a part: a mutant that hangs costs a minute, and no part has more of those than this allows.
const SHARD_MAX: Duration = Duration::from_secs(30 * 60);

/// Mutants that no test can notice.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    #[serde(default)]
    mutant: Vec<Unnoticed>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unnoticed {
    /// As cargo-mutants names it, without line and column.
    name: String,
    /// Why nothing changes for anybody.
    reason: String,
    /// How many places of the function it fits.
    #[serde(default = "once")]
    times: usize,
}

const fn once() -> usize {
    1
}

/// What the caller asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) only: Option<String>,
    pub(crate) minutes: u32,
    pub(crate) from: u32,
}

/// Runs both kinds, or that whose name contains the text. False if something was not noticed, or was not tried.
pub(crate) fn run(asked: &Asked) -> Result<bool> {
    ensure!((0..SHARDS).contains(&asked.from), "parts are numbered from 0 to {}", SHARDS - 1);
    let until = Instant::now() + Duration::from_secs(u64::from(asked.minutes) * 60);
    let mut steps = Steps::new(asked.only.as_deref());
    steps.run("rules", || rules(asked.minutes));
    steps.run("crate", || whole_crate(asked.from, until));
    Ok(steps.finish())
}

fn rules(minutes: u32) -> Result<()> {
    test::machine::needs("python3", "python3")?;
    Command::cargo(&["build", "--locked", "-p", "p2pos-conformance", "-p", "p2pos", "--bins"]).run()?;
    Command::new("python3")
        .args(["-B", "tools/conformance/mutants/run.py", "--minutes", &minutes.to_string()])
        .run()
}

fn whole_crate(from: u32, until: Instant) -> Result<()> {
    let tool = installed()?;
    let known: Known = toml::from_str(&repo::read(KNOWN)?).with_context(|| format!("read {KNOWN}"))?;
    ensure!(
        known.mutant.iter().all(|mutant| !mutant.reason.trim().is_empty()),
        "every mutant in {KNOWN} has a reason"
    );
    let mut missed = Vec::new();
    for shard in from..SHARDS {
        if Instant::now() > until {
            judge(&known, &missed)?;
            bail!("no time for parts {shard} to {}: go on with --from {shard}", SHARDS - 1);
        }
        missed.extend(part(&tool, shard)?);
    }
    judge(&known, &missed)
}

/// Runs one part; which mutants nothing noticed.
fn part(tool: &PathBuf, shard: u32) -> Result<Vec<String>> {
    let output = repo::target().join("mutants-crate").join(shard.to_string());
    if output.exists() {
        fs::remove_dir_all(&output)?;
    }
    fs::create_dir_all(&output)?;
    // Its exit code tells of survivors, which are judged here; whether it ran at all is told by its files.
    let ran = Command::new(tool)
        .args(["mutants", "--no-times", "--colors", "never", "--package", PACKAGE])
        .args(["--shard", &format!("{shard}/{SHARDS}"), "--output"])
        .args([&output])
        // One for all parts: other people's crates are built once.
        .env("CARGO_TARGET_DIR", repo::target().join("mutants-crate/build"))
        .deadline(SHARD_MAX)
        .run();
    let file = output.join("mutants.out/missed.txt");
    let Ok(missed) = fs::read_to_string(&file) else {
        ran?;
        bail!("{} is not there", file.display())
    };
    let outcomes = output.join("mutants.out/outcomes.json");
    let told: serde_json::Value = serde_json::from_str(&fs::read_to_string(&outcomes)?)?;
    let tried = told["outcomes"].as_array().map_or(0, Vec::len);
    ensure!(told["end_time"].is_string(), "part {shard} was broken off");
    say::line(format!("part {shard} of {SHARDS}: {tried} runs, {} not noticed", missed.lines().count()));
    Ok(missed.lines().map(without_place).collect())
}

/// Every mutant that was not noticed has to be a known one.
fn judge(known: &Known, missed: &[String]) -> Result<()> {
    let unknown = unknown(known, missed);
    for name in &unknown {
        say::line(format!("not noticed: {name}"));
    }
    ensure!(
        unknown.is_empty(),
        "{} mutants are noticed by no test: write one that does, or say in {KNOWN} why nobody can",
        unknown.len()
    );
    Ok(())
}

fn unknown(known: &Known, missed: &[String]) -> Vec<String> {
    let mut left: BTreeMap<&str, usize> =
        known.mutant.iter().map(|mutant| (mutant.name.as_str(), mutant.times)).collect();
    let is_unknown = |name: &&String| match left.get_mut(name.as_str()) {
        Some(times) if *times > 0 => {
            *times -= 1;
            false
        }
        Some(_) | None => true,
    };
    missed.iter().filter(is_unknown).cloned().collect()
}

/// `src/a.rs:12:5: replace ...` without the numbers, which move with every edit above them.
fn without_place(name: &str) -> String {
    let mut parts = name.splitn(4, ':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(file), Some(_), Some(_), Some(what)) => format!("{file}:{what}"),
        _ => name.to_owned(),
    }
}

/// The tool, in a folder of its own under target/: nothing of the machine is touched.
fn installed() -> Result<PathBuf> {
    let root = repo::target().join("tools");
    let tool = root.join("bin").join(TOOL.0);
    let is_there = tool.is_file()
        && Command::new(&tool).args(["mutants", "--version"]).read().is_ok_and(|told| told.contains(TOOL.1));
    if !is_there {
        let install = ["install", TOOL.0, "--version", TOOL.1, "--locked", "--root"];
        Command::cargo(&install).args([&root]).run().context("install cargo-mutants: is there a network?")?;
    }
    Ok(tool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutant_is_known_by_what_it_does_and_not_by_where_it_stands() {
        let name = "plugin-protocol/src/a.rs:12:5: replace A::f -> bool with true";
        assert_eq!(without_place(name), "plugin-protocol/src/a.rs: replace A::f -> bool with true");
        assert_eq!(without_place("odd"), "odd");
    }

    #[test]
    fn a_known_one_is_excused_as_often_as_it_says() {
        let known: Known = toml::from_str(
            "[[mutant]]\nname = \"a\"\nreason = \"x\"\n[[mutant]]\nname = \"b\"\nreason = \"y\"\ntimes = 2\n",
        )
        .unwrap();
        let missed = ["a", "a", "b", "b", "c"].map(str::to_owned);
        assert_eq!(unknown(&known, &missed), ["a", "c"]);
    }

    #[test]
    fn the_known_ones_have_reasons() {
        let known: Known = toml::from_str(&repo::read(KNOWN).unwrap()).unwrap();
        assert!(known.mutant.iter().all(|mutant| mutant.reason.len() > 10));
    }
}
