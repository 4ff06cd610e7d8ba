//! Which foreign crates may be in the tree. deny.toml is cargo-deny's file, and cargo-deny reads it where it is installed;
//! elsewhere this module checks the bans, the sources and the licences against Cargo.lock, and says aloud what it cannot check.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::command::{Command, host_triple};
use crate::{repo, say};

#[derive(Deserialize)]
struct Rules {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

/// One crate that may have a licence which others may not.
#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: BTreeSet<String>,
}

impl Licenses {
    fn welcomes(&self, name: &str, license: &str) -> bool {
        let exceptions = self.exceptions.iter().filter(|exception| exception.name == name);
        is_allowed(license, &self.allow)
            || exceptions.into_iter().any(|exception| is_allowed(license, &exception.allow))
    }
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    spec: String,
    reason: String,
}

#[derive(Deserialize)]
struct Sources {
    #[serde(rename = "allow-registry")]
    allow_registry: Vec<String>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Licensed>,
}

#[derive(Deserialize)]
struct Licensed {
    name: String,
    license: Option<String>,
}

/// Checks the lock file, by cargo-deny if it is there.
pub(crate) fn run() -> Result<()> {
    if Command::cargo(&["deny", "--version"]).succeeds() {
        return Command::cargo(&["deny", "--locked", "check"]).run();
    }
    say::line("cargo-deny is not installed: bans, sources and licences are checked here, ADVISORIES ARE NOT");
    let rules: Rules = toml::from_str(&repo::read("deny.toml")?).context("read deny.toml")?;
    let lock: Lock = toml::from_str(&repo::read("Cargo.lock")?).context("read Cargo.lock")?;
    let mut findings: Vec<String> =
        lock.package.iter().flat_map(|locked| objections(locked, &rules)).collect();
    for Licensed { name, license } in licences()? {
        let license = license.unwrap_or_default();
        if !rules.licenses.welcomes(&name, &license) {
            findings.push(format!("{name} is licensed {license:?}, which deny.toml does not allow"));
        }
    }
    findings.iter().for_each(say::line);
    if !findings.is_empty() {
        bail!("{} crates are not welcome", findings.len());
    }
    say::line(format!("{} crates are welcome", lock.package.len()));
    Ok(())
}

/// Licences of what is built on this platform.
fn licences() -> Result<Vec<Licensed>> {
    let host = host_triple()?;
    let json =
        Command::cargo(&["metadata", "--format-version=1", "--locked", "--filter-platform", &host]).read()?;
    let metadata: Metadata = serde_json::from_str(&json).context("read cargo metadata")?;
    Ok(metadata.packages)
}

fn objections(locked: &Locked, rules: &Rules) -> Vec<String> {
    let Locked { name, version, source } = locked;
    let mut objections = Vec::new();
    for ban in rules.bans.deny.iter().filter(|ban| matches(&ban.spec, name, version)) {
        objections.push(format!("{name} {version} is banned: {}", ban.reason));
    }
    // Without a source it is a folder of this workspace.
    let registry = source.as_deref().map(|source| source.trim_start_matches("registry+"));
    if registry
        .is_some_and(|registry| !rules.sources.allow_registry.iter().any(|allowed| allowed == registry))
    {
        objections.push(format!("{name} {version} comes from {}", source.as_deref().unwrap_or_default()));
    }
    objections
}

/// Whether a ban's `name` or `name@<X.Y.Z` means this version. A form that we do not know bans everything of that name.
fn matches(spec: &str, name: &str, version: &str) -> bool {
    let (banned, below) = spec.split_once("@<").unwrap_or((spec, ""));
    if banned != name {
        return false;
    }
    match (numbers(below), numbers(version)) {
        (Some(below), Some(version)) => version < below,
        _ => true,
    }
}

fn numbers(version: &str) -> Option<Vec<u64>> {
    let plain = version.split(['-', '+']).next().unwrap_or_default();
    plain.split('.').map(|part| part.parse().ok()).collect()
}

/// Whether an SPDX expression can be met with allowed licences only. `/` is the old way to write OR.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest, allowed) && rest.is_empty()
}

fn any_of(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut is_met = all_of(rest, allowed);
    while let ["OR", tail @ ..] = *rest {
        *rest = tail;
        is_met |= all_of(rest, allowed);
    }
    is_met
}

fn all_of(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut is_met = one(rest, allowed);
    while let ["AND", tail @ ..] = *rest {
        *rest = tail;
        is_met &= one(rest, allowed);
    }
    is_met
}

fn one(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    match **rest {
        ["(", ref tail @ ..] => {
            *rest = tail;
            let is_met = any_of(rest, allowed);
            if let [")", tail @ ..] = *rest {
                *rest = tail;
            }
            is_met
        }
        [license, "WITH", exception, ref tail @ ..] => {
            *rest = tail;
            allowed.contains(&format!("{license} WITH {exception}"))
        }
        [license, ref tail @ ..] => {
            *rest = tail;
            allowed.contains(license)
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_below_a_version_spares_that_version() {
        assert!(matches("noq-proto@<1.4.0", "noq-proto", "1.3.9"));
        assert!(!matches("noq-proto@<1.4.0", "noq-proto", "1.4.0"));
        assert!(!matches("noq-proto@<1.4.0", "noq", "1.0.0"));
        assert!(matches("openssl", "openssl", "99.0.0"));
        assert!(!matches("toml@<1.2.1", "toml", "1.2.1+spec-1.1.0"));
    }

    #[test]
    fn a_licence_is_allowed_if_one_way_to_read_it_is() {
        let allowed = BTreeSet::from(
            ["MIT", "Apache-2.0", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned),
        );
        for good in [
            "MIT",
            "GPL-3.0 OR MIT",
            "MIT/Apache-2.0",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(is_allowed(good, &allowed), "{good}");
        }
        for bad in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR Apache-2.0) AND GPL-3.0",
            "MIT WITH Nothing",
            "MIT MIT",
        ] {
            assert!(!is_allowed(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn an_exception_is_for_one_crate_only() {
        let text = "allow = [\"MIT\"]\nexceptions = [{ crate = \"odd\", allow = [\"MPL-2.0\"] }]\n";
        let licenses: Licenses = toml::from_str(text).unwrap();
        assert!(licenses.welcomes("odd", "MPL-2.0"));
        assert!(!licenses.welcomes("even", "MPL-2.0"));
        assert!(licenses.welcomes("even", "MIT"));
    }

    #[test]
    fn git_and_strange_registries_are_found() {
        let rules: Rules = toml::from_str(
            "licenses.allow = []\nbans.deny = []\nsources.allow-registry = [\"https://good.example/index\"]\n",
        )
        .unwrap();
        assert_eq!(objections(&from(Some("git+https://good.example/index")), &rules).len(), 1);
        assert!(objections(&from(Some("registry+https://good.example/index")), &rules).is_empty());
        assert!(objections(&from(None), &rules).is_empty());
    }

    #[test]
    fn the_committed_rules_can_be_read() {
        let rules: Rules = toml::from_str(&repo::read("deny.toml").unwrap()).unwrap();
        assert!(!rules.bans.deny.is_empty());
    }

    fn from(source: Option<&str>) -> Locked {
        Locked { name: "x".to_owned(), version: "1.0.0".to_owned(), source: source.map(str::to_owned) }
    }
}
