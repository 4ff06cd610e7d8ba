//! Released states of the plugin protocol: nobody edits them, and the present one takes nothing away that one of them has.
//!
//! The comparison of shapes is made by tools/gen, which can read `.proto` files; this only asks it, and looks at the digests.

use std::collections::BTreeMap;

use anyhow::Result;

use super::Finding;
use crate::release::{self, SUMS};
use crate::{gen_code, repo};

/// Looks at every release, and at the present `.proto` file.
pub(crate) fn check() -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for name in release::all()? {
        let place = format!("{}/{name}", release::FOLDER);
        let noted = repo::read(&format!("{place}/{SUMS}")).unwrap_or_default();
        let found = release::sums(&release::folder(&name))?;
        findings.extend(compare(&place, &noted, &found));
    }
    let broken = gen_code::against_releases()?;
    findings.extend(broken.into_iter().map(|(place, what)| Finding::new(place, what)));
    Ok(findings)
}

/// Files whose digest is not the noted one, that are missing, or that were not there.
fn compare(place: &str, noted: &str, found: &str) -> Vec<Finding> {
    let (noted, found) = (digests(noted), digests(found));
    let edited = found.iter().filter_map(|(file, digest)| match noted.get(file) {
        Some(old) if old == digest => None,
        Some(_) => Some((file, "was edited")),
        None => Some((file, "was not part of the release")),
    });
    let missing = noted.keys().filter(|file| !found.contains_key(*file)).map(|file| (file, "is missing"));
    edited
        .chain(missing)
        .map(|(file, what)| {
            let next = "others have built upon a release, it stays as it is: undo this";
            Finding::new(format!("{place}/{file}"), format!("{what}; {next}"))
        })
        .collect()
}

/// Digest by file.
fn digests(sums: &str) -> BTreeMap<&str, &str> {
    sums.lines().filter_map(|line| line.split_once("  ")).map(|(digest, file)| (file, digest)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_as_it_was_is_fine() {
        assert_eq!(compare("r/1", "aa  x\nbb  y\n", "aa  x\nbb  y\n"), []);
    }

    #[test]
    fn what_was_edited_added_or_lost_is_found() {
        let findings = compare("r/1", "aa  x\nbb  y\n", "ab  x\ncc  z\n");
        let told: Vec<String> = findings.iter().map(|finding| finding.to_string()).collect();
        assert_eq!(told.len(), 3);
        assert!(told[0].starts_with("r/1/x: was edited"));
        assert!(told[1].starts_with("r/1/z: was not part"));
        assert!(told[2].starts_with("r/1/y: is missing"));
    }

    #[test]
    fn a_release_without_its_digests_is_no_release() {
        assert_eq!(compare("r/1", "", "aa  x\n").len(), 1);
    }
}
