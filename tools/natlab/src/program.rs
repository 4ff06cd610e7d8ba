//! Programs that the lab calls (`ip`, `nft`, `conntrack`): fed, waited for, and quoted when they fail. For calls of milliseconds only: what
//! runs longer is started by its owner.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Lines of a refused input that an error shows: the one at fault is near the top of what these programs say, not of what they read.
const WORDS_SHOWN_MAX: usize = 600;

/// Runs a program to its end, with `input` on its stdin, and gives back its stdout.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S], input: &str) -> Result<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {program}"))?;
    let mut stdin = child.stdin.take().context("a child's stdin was asked for")?;
    // A program that refuses its arguments reads nothing; what it says on stderr is the better error.
    let fed = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().with_context(|| format!("wait for {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said: String = said.trim().chars().take(WORDS_SHOWN_MAX).collect();
        let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        bail!("{program} {}: {}: {said}", words.join(" "), output.status);
    }
    fed.with_context(|| format!("feed {program}"))?;
    String::from_utf8(output.stdout).with_context(|| format!("{program} printed bytes that are no text"))
}
