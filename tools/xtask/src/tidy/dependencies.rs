//! Every foreign crate that we name has a line in docs/dependencies.md, and nothing else has one. A crate that is declared and
//! used by nobody is found too: it would stay for years.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use toml::{Table, Value};

use super::Finding;
use super::floors::packages;
use crate::repo;

const ROOT: &str = "Cargo.toml";
const PAPER: &str = "docs/dependencies.md";

/// Compares the root manifest with the paper and with what the members use.
pub(crate) fn check() -> Result<Vec<Finding>> {
    let root: Table = repo::read(ROOT)?.parse().context("read the root Cargo.toml")?;
    let declared = foreign(&root);
    let mut findings = compare_with_paper(&declared, &documented(&repo::read(PAPER)?));
    let mut used = BTreeSet::new();
    for package in packages()? {
        let manifest: Table = repo::read(&package.manifest)?.parse()?;
        used.extend(names(&manifest));
    }
    for name in declared.difference(&used) {
        findings.push(Finding::new(ROOT, format!("`{name}` is declared and used by no crate: remove it")));
    }
    Ok(findings)
}

/// Names in [workspace.dependencies] that are not ours.
fn foreign(root: &Table) -> BTreeSet<String> {
    let table =
        root.get("workspace").and_then(|workspace| workspace.get("dependencies")).and_then(Value::as_table);
    let is_foreign = |value: &Value| value.get("path").is_none();
    table.into_iter().flatten().filter(|(_, value)| is_foreign(value)).map(|(name, _)| name.clone()).collect()
}

/// Names that one member's manifest uses, for whatever purpose.
fn names(manifest: &Table) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (key, value) in manifest {
        match (key.as_str(), value) {
            ("dependencies" | "dev-dependencies" | "build-dependencies", Value::Table(table)) => {
                names.extend(table.keys().cloned());
            }
            ("target", Value::Table(targets)) => {
                names.extend(targets.values().filter_map(Value::as_table).flat_map(self::names));
            }
            _ => {}
        }
    }
    names
}

/// Names in the first column of the paper's tables: rows that begin with a backticked word.
fn documented(paper: &str) -> BTreeSet<String> {
    let rows = paper.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split_once('`')).map(|(name, _)| name.to_owned()).collect()
}

fn compare_with_paper(declared: &BTreeSet<String>, documented: &BTreeSet<String>) -> Vec<Finding> {
    let missing = declared.difference(documented);
    let stale = documented.difference(declared);
    missing
        .map(|name| {
            Finding::new(PAPER, format!("no line for `{name}`: what for, who else, how we would leave it"))
        })
        .chain(
            stale.map(|name| {
                Finding::new(PAPER, format!("`{name}` is no longer a dependency: remove its line"))
            }),
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_without_a_line_and_a_line_without_a_crate_are_found() {
        let root: Table =
            "[workspace.dependencies]\nours = { path = \"x\" }\nknown = \"1\"\nnew = { version = \"2\" }\n"
                .parse()
                .unwrap();
        let paper = "| crate | what for |\n|---|---|\n| `known` | a thing |\n| `gone` | another |\n";
        let findings = compare_with_paper(&foreign(&root), &documented(paper));
        assert_eq!(findings.len(), 2);
        assert!(findings[0].what.contains("`new`"));
        assert!(findings[1].what.contains("`gone`"));
    }

    #[test]
    fn use_in_tests_and_on_one_platform_counts_as_use() {
        let manifest: Table =
            "[dev-dependencies]\na = \"1\"\n[target.'cfg(unix)'.dependencies]\nb.workspace = true\n"
                .parse()
                .unwrap();
        assert_eq!(names(&manifest), BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    }
}
