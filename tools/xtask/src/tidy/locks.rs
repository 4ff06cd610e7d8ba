//! The lock files of the tools that are workspaces of their own agree with the manifests. No build of ours looks at them, so a
//! change of a crate that such a tool uses would make its lock stale unseen, and `--locked` would fail for whoever runs the tool next.
//!
//! Reads texts only: nothing is resolved, so a machine that never fetched a tool's foreign crates can judge. What it compares is ours:
//! which of our crates the lock knows, at which version, and what each of them depends on under the features that are asked of it.
//! Refuses to know: what foreign crates depend on. A feature asked of a foreign crate that brings in another one is not seen.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::Finding;
use crate::command::Command;
use crate::repo;

/// The workspace's own lock: every build looks at it.
const ROOT: &str = "Cargo.lock";

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// One of our crates, as `cargo metadata --no-deps` describes it.
#[derive(Clone, Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    dependencies: Vec<Dependency>,
    features: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Dependency {
    name: String,
    rename: Option<String>,
    kind: Option<String>,
    req: String,
    optional: bool,
    uses_default_features: bool,
    features: Vec<String>,
    path: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Debug, Deserialize)]
struct Locked {
    name: String,
    version: String,
    /// Ours have none.
    source: Option<String>,
    #[serde(default)]
    dependencies: Vec<String>,
}

/// Compares every lock file but the root's with the manifests it stands for.
pub(crate) fn check(files: &[String]) -> Result<Vec<Finding>> {
    let house = metadata("Cargo.toml")?;
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.ends_with("/Cargo.lock") && *file != ROOT) {
        let folder = file.trim_end_matches("Cargo.lock");
        let tool = metadata(&format!("{folder}Cargo.toml"))?;
        let lock: Lock = toml::from_str(&repo::read(file)?).with_context(|| format!("read {file}"))?;
        let wrong = compare(&lock, &tool.packages, &house.packages);
        let next = format!("cargo update --workspace --manifest-path {folder}Cargo.toml");
        findings.extend(wrong.into_iter().map(|what| Finding::new(file, format!("{what}; run `{next}`"))));
    }
    Ok(findings)
}

fn metadata(manifest: &str) -> Result<Metadata> {
    let json = Command::cargo(&["metadata", "--format-version=1", "--no-deps", "--offline"])
        .args(["--manifest-path", manifest])
        .read()?;
    serde_json::from_str(&json).context("read cargo metadata")
}

/// What a lock says otherwise than the manifests of a tool (`members`) and of the crates it may use by path (`house`).
fn compare(lock: &Lock, members: &[Package], house: &[Package]) -> Vec<String> {
    let asked = Asked::by(members, house);
    let mut wrong = Vec::new();
    for (name, features) in &asked.0 {
        let is_member = members.iter().any(|member| member.name == *name);
        let Some(package) = members.iter().chain(house).find(|package| package.name == *name) else {
            wrong.push(format!("uses {name} by path, which is no crate of the workspace"));
            continue;
        };
        match lock.package.iter().find(|locked| locked.name == *name && locked.source.is_none()) {
            None => wrong.push(format!("does not know {name}")),
            Some(locked) => wrong.extend(compare_package(lock, locked, package, (features, is_member))),
        }
    }
    let left_over =
        lock.package.iter().filter(|locked| locked.source.is_none() && !asked.0.contains_key(&locked.name));
    wrong.extend(left_over.map(|locked| format!("still has {}, which nothing uses", locked.name)));
    wrong
}

fn compare_package(
    lock: &Lock,
    locked: &Locked,
    package: &Package,
    (features, is_member): (&BTreeSet<String>, bool),
) -> Vec<String> {
    let mut wrong = Vec::new();
    let name = &package.name;
    if locked.version != package.version {
        wrong.push(format!("has {name} {}, which is {} now", locked.version, package.version));
    }
    let wanted: Vec<&Dependency> =
        package.dependencies.iter().filter(|dependency| dependency.is_used(features, is_member)).collect();
    let have: BTreeSet<&str> = locked.dependencies.iter().map(|entry| first_word(entry)).collect();
    for dependency in &wanted {
        if !have.contains(dependency.name.as_str()) {
            wrong.push(format!("does not know that {name} uses {}", dependency.name));
            continue;
        }
        let entries = locked.dependencies.iter().filter(|entry| first_word(entry) == dependency.name);
        let versions: Vec<&str> = entries.filter_map(|entry| lock.version_of(entry)).collect();
        if !versions.iter().any(|version| fits(&dependency.req, version)) {
            let have = versions.join(", ");
            wrong.push(format!("has {} {have}, and {name} wants {}", dependency.name, dependency.req));
        }
    }
    let wanted: BTreeSet<&str> = wanted.iter().map(|dependency| dependency.name.as_str()).collect();
    let too_much = have.difference(&wanted);
    wrong.extend(too_much.map(|other| format!("says that {name} uses {other}, which it does not any more")));
    wrong
}

/// The features asked of each of our crates, and so which of them are used at all.
struct Asked(BTreeMap<String, BTreeSet<String>>);

impl Asked {
    /// Follows the members' dependencies until nothing new is asked. A lock reckons with all features of its own members.
    fn by(members: &[Package], house: &[Package]) -> Self {
        let mut asked = Self(BTreeMap::new());
        for member in members {
            asked.0.insert(member.name.clone(), member.features.keys().cloned().collect());
        }
        while asked.grow(members, house) {}
        asked
    }

    fn grow(&mut self, members: &[Package], house: &[Package]) -> bool {
        let before = self.count();
        for package in members.iter().chain(house) {
            let Some(mut features) = self.0.get(&package.name).cloned() else { continue };
            close(&mut features, package);
            let is_member = members.iter().any(|member| member.name == package.name);
            for dependency in package
                .dependencies
                .iter()
                .filter(|dependency| dependency.path.is_some() && dependency.is_used(&features, is_member))
            {
                let of_it = self.0.entry(dependency.name.clone()).or_default();
                of_it.extend(dependency.features.iter().cloned());
                if dependency.uses_default_features {
                    of_it.insert("default".to_owned());
                }
                of_it.extend(features.iter().filter_map(|feature| dependency.passed_on(feature)));
            }
            self.0.insert(package.name.clone(), features);
        }
        self.count() > before
    }

    fn count(&self) -> usize {
        self.0.len() + self.0.values().map(BTreeSet::len).sum::<usize>()
    }
}

/// Adds what features stand for, until nothing is added.
fn close(features: &mut BTreeSet<String>, package: &Package) {
    loop {
        let more: BTreeSet<String> =
            features.iter().filter_map(|feature| package.features.get(feature)).flatten().cloned().collect();
        if more.is_subset(features) {
            return;
        }
        features.extend(more);
    }
}

impl Dependency {
    /// What it is called in the manifest.
    fn called(&self) -> &str {
        self.rename.as_deref().unwrap_or(&self.name)
    }

    fn is_used(&self, features: &BTreeSet<String>, is_member: bool) -> bool {
        let is_for_this = self.kind.as_deref() != Some("dev") || is_member;
        let asks = |feature: &String| {
            feature.strip_prefix("dep:") == Some(self.called())
                || feature.split_once('/').is_some_and(|(name, _)| name == self.called())
        };
        is_for_this && (!self.optional || features.iter().any(asks))
    }

    /// The feature of this dependency that a feature of its user (`name/feature`, `name?/feature`) asks for.
    fn passed_on(&self, feature: &str) -> Option<String> {
        let (name, of_it) = feature.split_once('/')?;
        (name.trim_end_matches('?') == self.called()).then(|| of_it.to_owned())
    }
}

impl Lock {
    /// The version that an entry of a package's list (`name`, or `name version` where there are several) stands for.
    fn version_of<'a>(&'a self, entry: &'a str) -> Option<&'a str> {
        match entry.split_once(' ') {
            Some((_, version)) => Some(first_word(version)),
            None => {
                self.package.iter().find(|locked| locked.name == entry).map(|locked| locked.version.as_str())
            }
        }
    }
}

fn first_word(text: &str) -> &str {
    text.split(' ').next().unwrap_or(text)
}

/// Whether a version satisfies a requirement. Knows the caret, which is all that our manifests use; any other is believed.
fn fits(requirement: &str, version: &str) -> bool {
    let Some(least) = requirement.strip_prefix('^') else { return true };
    let (Some(least), Some(version)) = (numbers(least), numbers(version)) else { return true };
    // The leftmost number that is not 0 must stay the same, as far as the requirement gives one.
    let fixed = least.iter().position(|number| *number != 0).unwrap_or(least.len() - 1) + 1;
    least[..fixed] == version[..fixed.min(version.len())] && version >= least
}

/// The numbers of a version without a pre-release.
fn numbers(version: &str) -> Option<Vec<u64>> {
    let plain = version.split('+').next()?;
    plain.split('.').map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "
        [[package]]
        name = 'tool'
        version = '0.1.0'
        dependencies = ['ours', 'tokio']
        [[package]]
        name = 'ours'
        version = '0.1.0'
        dependencies = ['redb', 'tokio']
        [[package]]
        name = 'tokio'
        version = '1.54.1'
        source = 'registry'
        [[package]]
        name = 'redb'
        version = '4.6.0'
        source = 'registry'
        ";

    fn lock(text: &str) -> Lock {
        toml::from_str(text).unwrap()
    }

    fn dependency(name: &str, req: &str) -> Dependency {
        let (name, req) = (name.to_owned(), req.to_owned());
        let (rename, kind, path, features) = (None, None, None, Vec::new());
        Dependency { name, rename, kind, req, optional: false, uses_default_features: true, features, path }
    }

    fn package(name: &str, dependencies: Vec<Dependency>) -> Package {
        let (name, version) = (name.to_owned(), "0.1.0".to_owned());
        Package { name, version, dependencies, features: BTreeMap::new() }
    }

    /// A tool that asks a crate of ours for its store.
    fn tool() -> Package {
        let features = vec!["store".to_owned()];
        let ours = Dependency { features, path: Some("ours".to_owned()), ..dependency("ours", "*") };
        package("tool", vec![ours, dependency("tokio", "^1.54")])
    }

    fn ours() -> Package {
        let store = Dependency { optional: true, ..dependency("redb", "^4.6.0") };
        let tests = Dependency { kind: Some("dev".to_owned()), ..dependency("proptest", "^1") };
        let mut ours = package("ours", vec![store, tests, dependency("tokio", "^1")]);
        ours.features.insert("store".to_owned(), vec!["dep:redb".to_owned()]);
        ours
    }

    #[test]
    fn a_lock_that_fits_is_left_in_peace_and_nobody_asks_for_tests_of_others() {
        assert_eq!(compare(&lock(LOCK), &[tool()], &[ours()]), Vec::<String>::new());
    }

    #[test]
    fn a_dependency_that_came_is_missed_and_one_that_went_is_left_over() {
        let mut more = ours();
        more.dependencies.push(dependency("socket2", "^0.6"));
        assert_eq!(compare(&lock(LOCK), &[tool()], &[more]), ["does not know that ours uses socket2"]);
        let less = Package { dependencies: vec![dependency("tokio", "^1")], ..ours() };
        let wrong = compare(&lock(LOCK), &[tool()], &[less]);
        assert_eq!(wrong, ["says that ours uses redb, which it does not any more"]);
    }

    #[test]
    fn a_feature_that_is_asked_for_counts_with_what_it_brings() {
        let mut without = tool();
        without.dependencies[0].features.clear();
        let wrong = compare(&lock(LOCK), &[without], &[ours()]);
        assert_eq!(wrong, ["says that ours uses redb, which it does not any more"]);
    }

    #[test]
    fn versions_of_ours_and_of_others_are_compared() {
        let newer = Package { version: "0.2.0".to_owned(), ..ours() };
        assert_eq!(compare(&lock(LOCK), &[tool()], &[newer]), ["has ours 0.1.0, which is 0.2.0 now"]);
        let mut pickier = ours();
        pickier.dependencies[2].req = "^1.55".to_owned();
        let wrong = compare(&lock(LOCK), &[tool()], &[pickier]);
        assert_eq!(wrong, ["has tokio 1.54.1, and ours wants ^1.55"]);
    }

    #[test]
    fn a_crate_of_ours_that_the_lock_lacks_or_keeps_for_nothing_is_named() {
        let mut more = ours();
        more.dependencies.push(Dependency { path: Some("base".to_owned()), ..dependency("base", "*") });
        let wrong = compare(&lock(LOCK), &[tool()], &[more, package("base", vec![])]);
        assert_eq!(wrong, ["does not know base", "does not know that ours uses base"]);
        let alone = package("tool", vec![dependency("tokio", "^1.54")]);
        let wrong = compare(&lock(LOCK), &[alone], &[ours()]);
        assert_eq!(wrong[1], "still has ours, which nothing uses");
    }

    #[test]
    fn the_caret_keeps_the_leftmost_number_that_is_not_0() {
        for (requirement, version, does_fit) in [
            ("^1.2.3", "1.2.3", true),
            ("^1.2.3", "1.10.0", true),
            ("^1.2.3", "1.2.2", false),
            ("^1.2.3", "2.0.0", false),
            ("^0.14.4", "0.14.5", true),
            ("^0.14.4", "0.15.0", false),
            ("^0.0.3", "0.0.4", false),
            ("^1", "1.99.0", true),
            ("^0", "0.9.0", true),
            (">=1, <3", "7.0.0", true),
            ("^0.5.0-alpha", "0.5.0-alpha.2", true),
        ] {
            assert_eq!(fits(requirement, version), does_fit, "{requirement} {version}");
        }
    }
}
