//! Every crate of the workspace takes lints, edition and minimum Rust version from the root: said once, true everywhere.

use anyhow::{Context as _, Result};
use toml::{Table, Value};

use super::Finding;
use super::floors::{Package, packages};
use crate::repo;

const INHERITED: &[&str] = &["edition", "rust-version", "license", "version", "publish"];

/// Looks at the Cargo.toml of every member.
pub(crate) fn check() -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for Package { manifest, .. } in packages()? {
        let table: Table = repo::read(&manifest)?.parse().with_context(|| format!("read {manifest}"))?;
        findings.extend(not_inherited(&manifest, &table));
    }
    Ok(findings)
}

fn not_inherited(file: &str, manifest: &Table) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_inherited =
        |value: Option<&Value>| value.and_then(|v| v.get("workspace")).and_then(Value::as_bool) == Some(true);
    if manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool) != Some(true) {
        findings.push(Finding::new(file, "does not take the workspace's lints: [lints] workspace = true"));
    }
    let package = manifest.get("package");
    for key in INHERITED.iter().filter(|key| !is_inherited(package.and_then(|package| package.get(**key)))) {
        findings.push(Finding::new(file, format!("sets `{key}` itself: {key}.workspace = true")));
    }
    if package.and_then(|package| package.get("description")).is_none() {
        findings.push(Finding::new(file, "has no description: one sentence, what the crate is for"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_that_goes_its_own_way_is_found() {
        let own_way: Table = "[package]\nname = \"x\"\nedition = \"2021\"\n".parse().unwrap();
        assert_eq!(not_inherited("x/Cargo.toml", &own_way).len(), INHERITED.len() + 2);
    }

    #[test]
    fn a_crate_that_inherits_everything_is_fine() {
        let keys: String = INHERITED.iter().map(|key| format!("{key}.workspace = true\n")).collect();
        let good = format!("[package]\nname = \"x\"\ndescription = \"y\"\n{keys}[lints]\nworkspace = true\n");
        assert!(not_inherited("x/Cargo.toml", &good.parse().unwrap()).is_empty());
    }
}
