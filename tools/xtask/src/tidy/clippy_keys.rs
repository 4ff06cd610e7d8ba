//! A crate's own clippy.toml replaces the root's instead of adding to it. So every crate that has one repeats the shared keys,
//! and this check keeps them equal; the pure floors must have one, for it is what forbids them the clock.

use anyhow::{Context as _, Result};
use toml::{Table, Value};

use super::Finding;
use super::floors::pure_crate_folders;
use crate::repo;

const SHARED: &str = "clippy.toml";
/// Each pure crate bans these beside the shared ones.
const CLOCKS: &[&str] = &["std::time::Instant::now", "std::time::SystemTime::now"];

/// Compares every pure crate's clippy.toml with the root's.
pub(crate) fn check() -> Result<Vec<Finding>> {
    let shared = table(SHARED, &repo::read(SHARED)?)?;
    let mut findings = Vec::new();
    for folder in pure_crate_folders()? {
        let file = format!("{folder}/{SHARED}");
        match repo::read(&file) {
            Ok(text) => findings.extend(compare(&file, &shared, &table(&file, &text)?)),
            Err(_) => {
                findings.push(Finding::new(file, "missing: a pure crate forbids itself the clock there"));
            }
        }
    }
    Ok(findings)
}

fn table(file: &str, text: &str) -> Result<Table> {
    text.parse().with_context(|| format!("read {file}"))
}

fn compare(file: &str, shared: &Table, own: &Table) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, value) in shared {
        let is_kept = match (value, own.get(key)) {
            (Value::Array(shared), Some(Value::Array(own))) => shared.iter().all(|entry| own.contains(entry)),
            (shared, own) => Some(shared) == own,
        };
        if !is_kept {
            findings.push(Finding::new(file, format!("key `{key}` differs from the root's {SHARED}")));
        }
    }
    for clock in CLOCKS.iter().filter(|clock| !bans(own, clock)) {
        findings.push(Finding::new(file, format!("does not ban `{clock}`")));
    }
    findings
}

fn bans(own: &Table, method: &str) -> bool {
    let banned = own.get("disallowed-methods").and_then(Value::as_array);
    banned.is_some_and(|list| {
        list.iter().any(|entry| entry.get("path").and_then(Value::as_str) == Some(method))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "too-many-lines-threshold = 70\ndisallowed-methods = [{ path = \"a::b\" }]\n";

    #[test]
    fn equal_keys_and_more_bans_are_fine() {
        let own = "too-many-lines-threshold = 70\ndisallowed-methods = [{ path = \"a::b\" }, \
                   { path = \"std::time::Instant::now\" }, { path = \"std::time::SystemTime::now\" }]\n";
        assert!(findings(own).is_empty());
    }

    #[test]
    fn a_lost_key_a_changed_key_and_a_lost_ban_are_found() {
        assert_eq!(findings("").len(), 2 + CLOCKS.len());
        assert!(findings("too-many-lines-threshold = 90").iter().any(|f| f.what.contains("too-many-lines")));
    }

    fn findings(own: &str) -> Vec<Finding> {
        compare("x/clippy.toml", &ROOT.parse().unwrap(), &own.parse().unwrap())
    }
}
