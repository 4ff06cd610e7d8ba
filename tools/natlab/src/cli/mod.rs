//! The commands, one file each: reading arguments, calling the library, printing what it found. Data to stdout, words to stderr.

pub(crate) mod guess;
pub(crate) mod keepalive;
pub(crate) mod matrix;
pub(crate) mod prove;
pub(crate) mod scenario;
pub(crate) mod stand;

use std::process::ExitCode;

use anyhow::Result;
use p2pos_natlab::capability::{self, BASE, COTURN, MINIUPNPD};
use p2pos_natlab::topology::Kind;

/// `lab check`: prints what is missing, and nothing if nothing is. That something is missing is an answer, not a failure.
pub(crate) fn check() -> Result<ExitCode> {
    let missing = capability::missing(&[BASE, COTURN, MINIUPNPD])?;
    if !missing.is_empty() {
        data(&missing.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

/// Names of kinds, with commas between.
#[derive(Clone, Debug)]
pub(crate) struct Kinds(pub(crate) Vec<Kind>);

impl std::str::FromStr for Kinds {
    type Err = anyhow::Error;

    fn from_str(names: &str) -> Result<Self> {
        names.split(',').map(str::parse).collect::<Result<_>>().map(Self)
    }
}

/// Those that were asked for, or all.
pub(crate) fn kinds_or_all(asked: Option<Kinds>) -> Vec<Kind> {
    asked.map_or_else(|| Kind::ALL.to_vec(), |Kinds(kinds)| kinds)
}

/// Prints data.
#[expect(clippy::print_stdout, reason = "a command line's data")]
pub(crate) fn data(text: &str) {
    println!("{text}");
}

/// Prints words.
#[expect(clippy::print_stderr, reason = "a command line's words")]
pub(crate) fn words(text: &str) {
    eprintln!("{text}");
}
