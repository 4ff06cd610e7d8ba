//! Changelog fragments: one small file per change that somebody outside can notice, so that two branches never fight over one
//! line of CHANGELOG.md. The rules stand in docs/changes/README.md; this check holds the files to them.

use anyhow::Result;

use super::Finding;
use crate::repo;

const FOLDER: &str = "docs/changes/";
const READERS: &[&str] = &["users", "authors", "operators"];
/// A reader of a changelog wants one or two sentences; more belongs into a paper that the fragment links.
const FRAGMENT_BYTES_MAX: usize = 500;

/// Looks at every fragment.
pub(crate) fn check(files: &[String]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.starts_with(FOLDER) && !file.ends_with("/README.md")) {
        findings.extend(wrong_name(file));
        findings.extend(wrong_text(file, &repo::read(file)?));
    }
    Ok(findings)
}

fn wrong_name(file: &str) -> Option<Finding> {
    let parts: Vec<&str> = file.trim_start_matches(FOLDER).split('.').collect();
    let is_good = matches!(parts[..], [slug, reader, "md"] if !slug.is_empty() && READERS.contains(&reader));
    (!is_good)
        .then(|| Finding::new(file, format!("name it WHAT.READER.md, READER one of {}", READERS.join(", "))))
}

fn wrong_text(file: &str, text: &str) -> Option<Finding> {
    let body = text.trim();
    let is_sentence =
        body.ends_with(['.', ')']) && !body.starts_with(['#', '-', '*']) && !body.contains("\n\n");
    if is_sentence && body.len() <= FRAGMENT_BYTES_MAX {
        return None;
    }
    let what = format!(
        "must be one paragraph of whole sentences, {FRAGMENT_BYTES_MAX} bytes at most, it has {}",
        body.len()
    );
    Some(Finding::new(file, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_names_its_reader() {
        assert!(wrong_name("docs/changes/demo.users.md").is_none());
        assert!(wrong_name("docs/changes/demo.md").is_some());
        assert!(wrong_name("docs/changes/demo.everyone.md").is_some());
        assert!(wrong_name("docs/changes/.users.md").is_some());
    }

    #[test]
    fn a_fragment_is_one_short_paragraph() {
        assert!(wrong_text("a", "`p2pos demo` shows two daemons at work.\n").is_none());
        assert!(wrong_text("a", "").is_some());
        assert!(wrong_text("a", "# Heading.").is_some());
        assert!(wrong_text("a", "One.\n\nTwo.").is_some());
        assert!(wrong_text("a", &"long ".repeat(FRAGMENT_BYTES_MAX)).is_some());
    }
}
