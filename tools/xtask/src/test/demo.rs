//! The README's first command, run as a newcomer would, and judged as a newcomer would not: its JSON report must say that every
//! byte was right, and afterwards neither a process nor a file of it may be left.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::command::Command;
use crate::{repo, say};

/// Whether the demo carries as much as the README's, or enough to show that it works.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DemoSize {
    /// 64 MiB: a person waits for it.
    Short,
    /// What the demo does by itself.
    Full,
}

/// The demo promises to end in 20 s; a machine that is also building something else gets three times as long before we call it
/// hung, and the promise itself is checked by hand and by the benchmarks.
const RUN_MAX: Duration = Duration::from_secs(60);

/// Builds exactly what the README's command builds.
pub(super) fn build() -> Result<()> {
    Command::cargo(&["build", "--release", "--locked", "--package", "p2pos", "--bin", "p2pos"]).run()
}

/// Runs it in an empty temporary folder and looks at what it says and leaves.
pub(super) fn run(size: DemoSize) -> Result<()> {
    let folder = fresh_folder()?;
    let arguments: &[&str] = match size {
        DemoSize::Short => &["demo", "--json", "--bytes", "64MiB"],
        DemoSize::Full => &["demo", "--json"],
    };
    let started = Instant::now();
    let command = Command::new(repo::target().join("release/p2pos")).args(arguments).env("TMPDIR", &folder);
    say::line(format!("$ {command}"));
    let report = command.deadline(RUN_MAX).read()?;
    say::line(report.trim_end());
    let report: serde_json::Value = serde_json::from_str(&report).context("read the demo's JSON")?;
    ensure!(report["is_verified"] == true, "the demo does not say that every byte was right");
    let skipped = report["skipped"].as_array().map_or(0, Vec::len);
    ensure!(skipped == 0, "the demo left out {skipped} parts: this machine lacks something that it needs");
    say::line(format!("the demo took {:.1} s", started.elapsed().as_secs_f64()));
    leaves_nothing(&folder)
}

/// A short path: the demo puts unix sockets under it, and their names have 108 bytes at most.
fn fresh_folder() -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("p2pos-x{}", std::process::id()));
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir(&folder)?;
    Ok(folder)
}

fn leaves_nothing(folder: &Path) -> Result<()> {
    let files: Vec<String> = fs::read_dir(folder)?
        .map(|entry| entry.map(|e| e.path().display().to_string()))
        .collect::<Result<_, _>>()?;
    fs::remove_dir_all(folder)?;
    ensure!(files.is_empty(), "the demo left files: {}", files.join(", "));
    let processes = processes_that_name(&folder.to_string_lossy())?;
    ensure!(processes.is_empty(), "the demo left processes: {}", processes.join(", "));
    Ok(())
}

/// Processes whose command line, environment or working folder names this text. Those that end while we look are gone, which is
/// what we want; those of other users cannot be read, and are not ours.
fn processes_that_name(text: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let process = entry?.path();
        let is_number = process.file_name().is_some_and(|name| name.to_string_lossy().parse::<u32>().is_ok());
        if !is_number || process.ends_with(std::process::id().to_string()) {
            continue;
        }
        let read = |name: &str| fs::read(process.join(name)).unwrap_or_default();
        let folder = fs::read_link(process.join("cwd")).unwrap_or_default();
        let all = [read("cmdline"), read("environ"), folder.into_os_string().into_encoded_bytes()].concat();
        if String::from_utf8_lossy(&all).contains(text) {
            found.push(format!(
                "{} ({})",
                process.display(),
                String::from_utf8_lossy(&read("comm")).trim_end()
            ));
        }
    }
    Ok(found)
}
