//! `cargo xtask release-protocol NAME`: keeps for ever what others have built upon. Owns what a release of the plugin protocol consists of,
//! and how it is made; [`mod@crate::test`] lets each release meet the present, [`crate::tidy`] sees that none is edited.
//!
//! NAME is the protocol's version, with a second number for a later state of the same version: `1`, `1.1`. A release that is there is
//! never made again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::command::Command;
use crate::test::{python, sdk_c};
use crate::{gen_code, repo, say};

pub(crate) const FOLDER: &str = "plugin-protocol/releases";
/// The digests of all other files, as `sha256sum --check` reads them.
pub(crate) const SUMS: &str = "SHA256SUMS";
pub(crate) const DESCRIPTORS: &str = "descriptors.binpb";
pub(crate) const SYMBOLS: &str = "symbols.txt";
pub(crate) const SONAME: &str = "soname.txt";
/// Python programs that a release keeps beside its wheel, which they use: the kit's agents, and the exchange of two daemons.
const PROGRAMS: &[&str] = &["agent_aio.py", "agent_sync.py", "exchange.py", "orders.py"];
const VECTORS: &[&str] = &["frames.json", "handshake.json", "malformed.json"];
const HEADERS: &[&str] = &["error.h", "p2pos.h"];
/// The age of everything in the wheel, so that whoever builds it again gets the same bytes: 2020-02-02, which is hatchling's own choice.
const SOURCE_DATE_EPOCH: &str = "1580601600";

/// Makes the release, from the checkout as it is.
pub(crate) fn run(name: &str) -> Result<bool> {
    ensure!(is_name(name), "{name:?} is no name of a release: 1, or 1.1 for a later state of version 1");
    let place = folder(name);
    if place.exists() {
        bail!(
            "{FOLDER}/{name} is there, and a release is never changed: give the new state a name of its own"
        );
    }
    // Made aside and moved at the end: half a release is none.
    let made = repo::target().join("release-protocol");
    if made.exists() {
        fs::remove_dir_all(&made)?;
    }
    fs::create_dir_all(&made)?;
    shapes(&made, name)?;
    of_python(&made)?;
    of_c(&made)?;
    fs::write(made.join(SUMS), sums(&made)?)?;
    copy_all(&made, &place)?;
    say::line(format!("wrote {FOLDER}/{name}: commit it"));
    Ok(true)
}

/// The names of all releases, sorted.
pub(crate) fn all() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(repo::root().join(FOLDER)).with_context(|| format!("read {FOLDER}"))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort_unstable();
    ensure!(!names.is_empty(), "{FOLDER} holds no release");
    Ok(names)
}

pub(crate) fn folder(name: &str) -> PathBuf {
    repo::root().join(FOLDER).join(name)
}

/// The one wheel of a release.
pub(crate) fn wheel(place: &Path) -> Result<PathBuf> {
    let mut wheels = files(place)?.into_iter().filter(|file| file.ends_with(".whl"));
    let (Some(wheel), None) = (wheels.next(), wheels.next()) else {
        bail!("{} does not hold exactly one wheel", place.display())
    };
    Ok(place.join(wheel))
}

/// What `SHA256SUMS` of this folder has to say.
pub(crate) fn sums(place: &Path) -> Result<String> {
    let mut lines = String::new();
    for file in files(place)?.iter().filter(|file| *file != SUMS) {
        let bytes = fs::read(place.join(file)).with_context(|| format!("read {file}"))?;
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        lines += &format!("{digest}  {file}\n");
    }
    Ok(lines)
}

/// The names that a shared library defines for others.
pub(crate) fn exported(library: &Path) -> Result<BTreeSet<String>> {
    let told = Command::new("nm").args(["-D", "--defined-only"]).args([library]).read()?;
    Ok(told.lines().filter_map(|line| line.split(' ').nth(2)).map(str::to_owned).collect())
}

/// The name under which programs ask the loader for the library.
pub(crate) fn soname(library: &Path) -> Result<String> {
    let told = Command::new("readelf").args(["-d"]).args([library]).env("LC_ALL", "C").read()?;
    let line = told.lines().find(|line| line.contains("(SONAME)")).context("the library has no soname")?;
    let name = line.split(['[', ']']).nth(1).context("readelf puts the soname into brackets")?;
    Ok(name.to_owned())
}

fn is_name(name: &str) -> bool {
    let is_number =
        |part: &str| part.parse::<u32>().is_ok_and(|number| number > 0 && number.to_string() == part);
    let mut parts = name.split('.');
    parts.next().is_some_and(is_number) && parts.next().is_none_or(is_number) && parts.next().is_none()
}

/// The `.proto` file, its descriptors, the golden vectors.
fn shapes(made: &Path, name: &str) -> Result<()> {
    let version = name.split('.').next().unwrap_or(name);
    let proto = repo::read("plugin-protocol/proto/plugin.proto")?;
    let package = format!("package p2pos.plugin.v{version};");
    ensure!(proto.lines().any(|line| line == package), "plugin.proto does not say `{package}`");
    copy("plugin-protocol/proto", &["plugin.proto"], made)?;
    gen_code::descriptors(&made.join(DESCRIPTORS))?;
    copy("plugin-protocol/vectors", VECTORS, &made.join("vectors"))
}

/// The wheel as an installer gets it, and the programs that will use it.
fn of_python(made: &Path) -> Result<()> {
    let pip =
        ["-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"];
    Command::new(python::installer()?)
        .args(pip)
        .args(["--wheel-dir"])
        .args([made])
        .args(["./sdk-python"])
        .env("SOURCE_DATE_EPOCH", SOURCE_DATE_EPOCH)
        .run()?;
    copy("sdk-python/conformance", PROGRAMS, &made.join("agents"))
}

/// The header, what the library exports under which name, and the agent that is written against it.
fn of_c(made: &Path) -> Result<()> {
    let library = sdk_c::library()?;
    let names: Vec<String> = exported(&library)?.into_iter().collect();
    fs::write(made.join(SYMBOLS), names.join("\n") + "\n")?;
    fs::write(made.join(SONAME), soname(&library)? + "\n")?;
    copy("sdk-c/include/p2pos", HEADERS, &made.join("include/p2pos"))?;
    copy("sdk-c/conformance", &["agent.c"], &made.join("agents"))
}

fn copy(from: &str, files: &[&str], to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for file in files {
        fs::copy(repo::root().join(from).join(file), to.join(file))
            .with_context(|| format!("copy {from}/{file}"))?;
    }
    Ok(())
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    for file in files(from)? {
        let target = to.join(&file);
        fs::create_dir_all(target.parent().context("a file stands in a folder")?)?;
        fs::copy(from.join(&file), target).with_context(|| format!("copy {file}"))?;
    }
    Ok(())
}

/// All files below a folder, relative to it, sorted.
fn files(place: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(place.join(&folder)).with_context(|| format!("read {}", place.display()))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else {
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_named_by_one_number_or_two() {
        for good in ["1", "2", "1.1", "12.34"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "0", "1.", "1.0", "01", "1.1.1", "v1", "../1"] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_release_that_is_there_is_not_made_again() {
        let error = run(&all().unwrap()[0]).unwrap_err();
        assert!(error.to_string().contains("never changed"), "{error}");
    }
}
