//! Starts other programs at the root of the checkout and waits for them, never for ever.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::{repo, say};

/// No single program of ours takes longer on a small machine that builds from nothing; half of it has been seen with two cores
/// in heavy use, and twice as long only makes a hung test more expensive.
const RUN_MAX: Duration = Duration::from_secs(45 * 60);
/// How often we look whether the program has ended: short beside any build, long beside the cost of looking.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A program to start: what to call, with what, and for how long at most.
#[derive(Debug)]
pub(crate) struct Command {
    program: OsString,
    inner: std::process::Command,
    deadline: Duration,
}

impl Command {
    /// Starts from the environment of this process, without what `cargo run` added to it for us.
    pub(crate) fn new(program: impl Into<OsString>) -> Self {
        let program = program.into();
        let mut inner = std::process::Command::new(&program);
        inner.current_dir(repo::root()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if is_of_cargo_run(&name) {
                inner.env_remove(name);
            }
        }
        Self { program, inner, deadline: RUN_MAX }
    }

    /// The cargo that runs us, so that a chosen toolchain stays chosen.
    pub(crate) fn cargo(arguments: &[&str]) -> Self {
        Self::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())).args(arguments)
    }

    pub(crate) fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.inner.args(arguments);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(name, value);
        self
    }

    pub(crate) fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.inner.current_dir(folder.into());
        self
    }

    /// Replaces the general limit on how long the program may run.
    pub(crate) fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Shows the command, runs it with our own output, and fails unless it ends well.
    pub(crate) fn run(mut self) -> Result<()> {
        say::line(format!("$ {self}"));
        let mut child = self.inner.spawn().with_context(|| format!("start {}", self.program.display()))?;
        let status = wait(&mut child, self.deadline)?;
        if !status.success() {
            bail!("{} ended with {status}", self.name());
        }
        Ok(())
    }

    /// Runs it silently and gives back whether it ended well; one that cannot be started did not.
    pub(crate) fn succeeds(mut self) -> bool {
        self.inner.stdout(Stdio::null()).stderr(Stdio::null());
        self.inner
            .spawn()
            .ok()
            .and_then(|mut child| wait(&mut child, self.deadline).ok())
            .is_some_and(|s| s.success())
    }

    /// Runs it and gives back what it printed to stdout.
    pub(crate) fn read(mut self) -> Result<String> {
        self.inner.stdout(Stdio::piped());
        let output = self.inner.output().with_context(|| format!("start {}", self.program.display()))?;
        if !output.status.success() {
            bail!("{} ended with {}", self.name(), output.status);
        }
        String::from_utf8(output.stdout)
            .with_context(|| format!("{} printed bytes that are no text", self.name()))
    }

    fn name(&self) -> String {
        PathBuf::from(&self.program).file_name().unwrap_or(&self.program).to_string_lossy().into_owned()
    }
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.name())?;
        self.inner.get_args().try_for_each(|argument| write!(f, " {}", argument.display()))
    }
}

/// The platform that this machine builds for.
pub(crate) fn host_triple() -> Result<String> {
    let verbose = Command::new("rustc").args(["-vV"]).read()?;
    verbose
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("rustc names its host")
}

/// Waits, and kills the child at the deadline. What the child itself had started ends with its pipes and its own deadlines.
fn wait(child: &mut Child, deadline: Duration) -> Result<ExitStatus> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if started.elapsed() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("killed after {} s without an end", deadline.as_secs());
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Whether `cargo run` set this variable for xtask alone. Handed on, some of them make build scripts (ring's, for one) believe
/// that their world has changed, and every `cargo xtask test` would build half the tree again.
fn is_of_cargo_run(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("CARGO_PKG_")
        || matches!(
            &*name,
            "CARGO_MANIFEST_DIR" | "CARGO_MANIFEST_PATH" | "CARGO_CRATE_NAME" | "CARGO_BIN_NAME"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_never_ends_is_killed_at_the_deadline() {
        let started = Instant::now();
        let error =
            Command::new("sleep").args(["60"]).deadline(Duration::from_millis(100)).run().unwrap_err();
        assert!(error.to_string().contains("killed after"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn what_cargo_run_set_for_us_is_not_handed_on() {
        assert!(is_of_cargo_run(OsStr::new("CARGO_MANIFEST_DIR")));
        assert!(is_of_cargo_run(OsStr::new("CARGO_PKG_VERSION")));
        assert!(!is_of_cargo_run(OsStr::new("CARGO_TARGET_DIR")));
        assert!(!is_of_cargo_run(OsStr::new("CARGO_HOME")));
    }

    #[test]
    fn a_program_that_is_not_there_does_not_succeed() {
        assert!(!Command::new("no-such-program-anywhere").succeeds());
    }
}
