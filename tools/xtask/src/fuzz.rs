//! `cargo xtask fuzz`: runs the targets of tools/fuzz under libFuzzer with AddressSanitizer.
//!
//! The engine (tools/fuzz/engine) has a workspace of its own and is built here with the compiler flags that cargo-fuzz would give.
//! So nothing has to be installed, and a stable toolchain does: the sanitizer is unlocked for this build by `RUSTC_BOOTSTRAP=1`.
//! Newly found inputs go to target/fuzz; the small corpora in tools/fuzz/corpus change only on request (`--minimise`). The normal
//! tests replay them (tools/fuzz/tests).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::command::{Command, host_triple};
use crate::repo;
use crate::steps::Steps;
use crate::test::machine;

const ENGINE: &str = "tools/fuzz/engine/Cargo.toml";
const CORPUS: &str = "tools/fuzz/corpus";
/// Inputs of the corpus whose names begin like this broke a promise once.
const REGRESSION: &str = "regression-";
/// What libFuzzer needs of the compiler: counters on every edge, comparisons traced, and a sanitizer that sees what went wrong.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1 -Zsanitizer=address";
/// Longest input: several frames of every kind; longer ones only make the search slower.
const INPUT_BYTES_MAX: u32 = 4_096;
/// An input that takes longer than this is a finding of its own.
const INPUT_SECONDS_MAX: u32 = 10;
/// Memory beyond this is a finding too: nothing that a stranger sends may grow us.
const MEMORY_MIB_MAX: u32 = 1_024;
/// Inputs that are committed for each target, the smallest of them: a checkout is no archive, and a fuzzer soon finds the rest again.
const CORPUS_FILES_MAX: usize = 150;
/// How much longer than asked for a target may take, for loading the corpus and writing the last findings.
const SLACK: Duration = Duration::from_secs(120);

/// Builds the engine and runs every target, or one, for so many seconds.
pub(crate) fn run(seconds: u32, only: Option<&str>, is_minimising: bool) -> Result<bool> {
    let mut steps = Steps::new(None);
    steps.set_up("engine", build);
    let targets = targets(only)?;
    for target in targets {
        steps.run(target, || fuzz(target, seconds));
        if is_minimising {
            steps.run(target, || minimise(target));
        }
    }
    Ok(steps.finish())
}

fn build() -> Result<()> {
    machine::ensure("c++", "g++")?;
    Command::cargo(&[
        "build",
        "--release",
        "--locked",
        "--manifest-path",
        ENGINE,
        "--target",
        &host_triple()?,
        "--target-dir",
    ])
    .args([folder()])
    .env("RUSTC_BOOTSTRAP", "1")
    .env("RUSTFLAGS", FLAGS)
    .run()
}

/// The engine's own list: each target has a corpus folder of its name. The names live as long as the program.
fn targets(only: Option<&str>) -> Result<Vec<&'static str>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(repo::root().join(CORPUS)).with_context(|| format!("read {CORPUS}"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if only.is_none_or(|only| only == name) {
            names.push(&*name.leak());
        }
    }
    names.sort_unstable();
    ensure!(!names.is_empty(), "no target {} in {CORPUS}", only.unwrap_or("at all"));
    Ok(names)
}

fn fuzz(target: &str, seconds: u32) -> Result<()> {
    let found = folder().join("corpus").join(target);
    fs::create_dir_all(&found)?;
    engine(target)?
        .args([found, committed(target)])
        .args([
            format!("-max_total_time={seconds}"),
            format!("-artifact_prefix={}/{target}-", folder().display()),
        ])
        .args(["-print_final_stats=1", "-verbosity=1"])
        .deadline(Duration::from_secs(seconds.into()) + SLACK)
        .run()
        .with_context(|| format!("a finding: its input stands in {}", folder().display()))
}

/// Makes the committed corpus anew: the fewest and smallest inputs, old or found, that together have all the coverage. Inputs that
/// were kept for a reason (`regression-...`) stay.
fn minimise(target: &str) -> Result<()> {
    let fresh = folder().join("minimised").join(target);
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    fs::create_dir_all(&fresh)?;
    let committed = repo::root().join(committed(target));
    let found = folder().join("corpus").join(target);
    fs::create_dir_all(&found)?;
    // Without counters an input counts for the branches that it takes, not for how often: a few dozen files instead of a thousand.
    engine(target)?
        .args(["-set_cover_merge=1", "-use_counters=0"])
        .args([&fresh, &committed, &found])
        .run()?;
    for old in fs::read_dir(&committed)? {
        let old = old?;
        if !old.file_name().to_string_lossy().starts_with(REGRESSION) {
            fs::remove_file(old.path())?;
        }
    }
    let mut new: Vec<(u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(&fresh)? {
        let entry = entry?;
        new.push((entry.metadata()?.len(), entry.path()));
    }
    new.sort_unstable();
    for (_, path) in new.iter().take(CORPUS_FILES_MAX) {
        fs::copy(path, committed.join(path.file_name().context("an input is a file")?))?;
    }
    Ok(())
}

fn engine(target: &str) -> Result<Command> {
    let limits = [
        format!("-max_len={INPUT_BYTES_MAX}"),
        format!("-timeout={INPUT_SECONDS_MAX}"),
        format!("-rss_limit_mb={MEMORY_MIB_MAX}"),
    ];
    Ok(Command::new(folder().join(host_triple()?).join("release/engine"))
        .env("P2POS_FUZZ_TARGET", target)
        .args(limits))
}

fn committed(target: &str) -> PathBuf {
    Path::new(CORPUS).join(target)
}

fn folder() -> PathBuf {
    repo::target().join("fuzz")
}
