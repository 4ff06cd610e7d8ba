//! `cargo xtask tidy`: the house rules that no compiler knows. Owns the list of checks; each check is a file of its own, with a
//! pure heart that is tested on bad samples.
//!
//! A check gives findings, never stops at the first one, and names the place and the next step. What is wrong with the machine
//! rather than with the tree (a file that cannot be read, cargo missing) is an error.

mod changes;
mod clippy_keys;
mod decisions;
mod dependencies;
mod floors;
mod lexer;
mod links;
mod locks;
mod manifests;
mod marks;
mod proto_marks;
mod ratchet;
mod releases;
mod sources;
mod spec;

use std::fmt;

use anyhow::Result;

use crate::{gen_code, repo, say};

/// One thing that is not as the house wants it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    place: String,
    what: String,
}

impl Finding {
    pub(crate) fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Runs every check and prints what they find. With `is_blessing` first writes what may be written without a person's thought.
pub(crate) fn run(is_blessing: bool) -> Result<bool> {
    let files = repo::files()?;
    if is_blessing {
        proto_marks::bless()?;
        ratchet::bless(&files)?;
    }
    let mut findings = floors::check()?;
    findings.extend(manifests::check()?);
    findings.extend(clippy_keys::check()?);
    findings.extend(sources::check(&files)?);
    findings.extend(marks::check(&files)?);
    findings.extend(ratchet::check(&files)?);
    findings.extend(dependencies::check()?);
    findings.extend(proto_marks::check()?);
    findings.extend(releases::check()?);
    findings.extend(spec::check(&files)?);
    findings.extend(changes::check(&files)?);
    findings.extend(decisions::check(&files)?);
    findings.extend(links::check(&files)?);
    findings.extend(locks::check(&files)?);
    if !gen_code::run(true)? {
        findings.push(Finding::new("generated code", "is out of date, run `cargo xtask gen`"));
    }
    findings.sort();
    for finding in &findings {
        say::line(finding.to_string());
    }
    say::line(format!("tidy: {} files looked at, {} findings", files.len(), findings.len()));
    Ok(findings.is_empty())
}
