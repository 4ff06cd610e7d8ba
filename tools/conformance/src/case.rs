//! Cases are data: one file each under `cases/`, put into the binary when it is built, so that the requirements of protocol version 1 are
//! frozen with the kit that judges by them.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

include!(concat!(env!("OUT_DIR"), "/cases.rs"));

/// The version of the protocol whose requirements these are.
pub const PROTOCOL_VERSION: u32 = 1;

const SPEC: &str = include_str!("../../../plugin-protocol/SPEC.md");

/// How much an implementation promises.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Streams.
    Bronze,
    /// Flow control, half close, disconnects, detached streams.
    Silver,
    /// Datagrams, requests, events, the end in order, hostile bytes.
    Gold,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bronze => "bronze",
            Self::Silver => "silver",
            Self::Gold => "gold",
        })
    }
}

/// Who is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Judged {
    /// A plugin: the kit is the daemon.
    Plugin,
    /// A daemon: the kit is the plugins.
    Daemon,
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plugin => "plugin",
            Self::Daemon => "daemon",
        })
    }
}

/// One case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The name of its file.
    pub id: String,
    /// Who is judged.
    pub judges: Judged,
    /// What an implementation has to promise that this is asked of it.
    pub level: Level,
    /// The section of SPEC.md that it is mainly about.
    pub section: u32,
    /// The rules of SPEC.md that it shows.
    pub rules: Vec<String>,
    /// Rows of the table of stream states that it walks: `state: what makes it leave`.
    #[serde(default)]
    pub states: Vec<String>,
    /// Rows of the table of ends that it brings about.
    #[serde(default)]
    pub ends: Vec<String>,
    /// What it shows, in one sentence.
    pub about: String,
    /// It has to wait for one of the protocol's own deadlines.
    #[serde(default)]
    pub is_slow: bool,
    /// Later than the requirements of the version: it is run and told, and decides nothing.
    #[serde(default)]
    pub is_unscored: bool,
    /// What is done, line by line (README.md, "Steps").
    pub steps: String,
}

/// All cases, by their ids.
///
/// # Errors
/// If one of the files is no case.
pub fn all() -> Result<Vec<Case>> {
    let cases = FILES.iter().map(|(path, text)| parse(path, text)).collect::<Result<Vec<_>>>()?;
    let ids: BTreeSet<&str> = cases.iter().map(|case| case.id.as_str()).collect();
    ensure!(ids.len() == cases.len(), "two cases have the same id");
    Ok(cases)
}

/// Reads one case, and compares what it says of itself with where it lies.
///
/// # Errors
/// If it is none, or lies elsewhere.
pub fn parse(path: &str, text: &str) -> Result<Case> {
    let case: Case = toml::from_str(text).with_context(|| format!("read {path}"))?;
    let place = format!("{}/{}/{}.toml", case.judges, case.level, case.id);
    ensure!(path == place, "{path} should lie at {place}");
    Ok(case)
}

/// The names of the rules of SPEC.md, each with its text.
#[must_use]
pub fn rules() -> Vec<(String, String)> {
    let mut rules: Vec<(String, String)> = Vec::new();
    let mut is_inside = false;
    for line in SPEC.lines() {
        let name = line.strip_prefix("- [").and_then(|rest| rest.split_once("] "));
        match name {
            Some((name, text)) if name.starts_with("S-") => {
                rules.push((name.to_owned(), text.to_owned()));
                is_inside = true;
            }
            _ if is_inside && line.starts_with("  ") => {
                if let Some((_, text)) = rules.last_mut() {
                    text.push(' ');
                    text.push_str(line.trim_start());
                }
            }
            _ => is_inside = false,
        }
    }
    rules
}
