//! Links between our papers lead somewhere, and the file names that papers mention are there. Links to the outside are not
//! followed: a check must not need the network, nor fail because of somebody else's server.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;

use super::Finding;
use crate::repo;

/// Endings by which a backticked word with a slash is taken for the name of a file of ours.
const FILE_ENDINGS: &[&str] =
    &[".rs", ".proto", ".md", ".py", ".toml", ".tcl", ".sh", ".go", ".mjs", ".json"];
/// Top-level folders in which such a file may stand; other first words (`src/...`) are somebody else's tree.
const OUR_FOLDERS: &[&str] =
    &["docs/", "p2pos-daemon/", "plugin-protocol/", "plugins/", "sdk-c/", "sdk-python/", "tools/"];

/// Looks at every Markdown file.
pub(crate) fn check(files: &[String]) -> Result<Vec<Finding>> {
    let known: BTreeSet<&str> = files.iter().map(String::as_str).collect();
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.ends_with(".md")) {
        let text = repo::read(file)?;
        for (line, target) in links(&text) {
            if let Some(what) = broken(file, &target, &known)? {
                findings.push(Finding::new(format!("{file}:{line}"), what));
            }
        }
        for (line, name) in mentioned_files(&text) {
            if !known.contains(name.as_str()) {
                findings.push(Finding::new(
                    format!("{file}:{line}"),
                    format!("names `{name}`, which is not there"),
                ));
            }
        }
    }
    Ok(findings)
}

/// Targets of inline links, with their line numbers; code is left out.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose_lines(text) {
        let line = without_code_spans(line);
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            if let Some(end) = rest.find(')') {
                found.push((number, rest[..end].split_whitespace().next().unwrap_or_default().to_owned()));
            }
        }
    }
    found
}

/// Backticked names of files in our folders, with their line numbers.
fn mentioned_files(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose_lines(text) {
        for word in line.split('`').skip(1).step_by(2) {
            let word = word.split(':').next().unwrap_or_default();
            let is_file = FILE_ENDINGS.iter().any(|ending| word.ends_with(ending));
            let is_plain = !word.contains(['*', '<', '{', ' ', '|']);
            if is_file && is_plain && OUR_FOLDERS.iter().any(|folder| word.starts_with(folder)) {
                found.push((number, word.to_owned()));
            }
        }
    }
    found
}

/// Lines outside fenced code, numbered from 1.
fn prose_lines(text: &str) -> Vec<(usize, &str)> {
    let mut is_code = false;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            lines.push((index + 1, line));
        }
    }
    lines
}

fn without_code_spans(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

/// Why the link leads nowhere.
fn broken(from: &str, target: &str, known: &BTreeSet<&str>) -> Result<Option<String>> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(None);
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = if path.is_empty() { from.to_owned() } else { beside(from, path) };
    let is_folder = known
        .iter()
        .any(|name| name.strip_prefix(file.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/')));
    if !known.contains(file.as_str()) && !is_folder {
        return Ok(Some(format!("link to `{target}` leads nowhere")));
    }
    if anchor.is_empty() || !file.ends_with(".md") {
        return Ok(None);
    }
    let has_anchor = headings(&repo::read(&file)?).iter().any(|slug| slug == anchor);
    Ok((!has_anchor).then(|| format!("`{file}` has no heading for `#{anchor}`")))
}

/// The target as a path from the root, when the link stands in the file `from`.
fn beside(from: &str, path: &str) -> String {
    let mut whole = PathBuf::new();
    for part in Path::new(from).with_file_name("").join(path).components() {
        match part {
            Component::ParentDir => {
                whole.pop();
            }
            Component::Normal(name) => whole.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    whole.to_string_lossy().into_owned()
}

/// The anchors that forges make of headings: lower case, punctuation dropped, spaces as hyphens.
fn headings(text: &str) -> Vec<String> {
    let titles = prose_lines(text).into_iter().filter(|(_, line)| line.starts_with('#'));
    titles.map(|(_, line)| slug(line.trim_start_matches('#').trim())).collect()
}

fn slug(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_in_prose_and_not_in_code() {
        let text = "See [a](b.md) and [c](d.md#e \"title\").\n```\n[no](no.md)\n```\nNor `[no](no.md)`.\n";
        assert_eq!(links(text), [(1, "b.md".to_owned()), (1, "d.md#e".to_owned())]);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let known = BTreeSet::from(["docs/a.md", "docs/deep/b.md", "README.md"]);
        assert_eq!(broken("docs/a.md", "../README.md", &known).unwrap(), None);
        assert_eq!(broken("docs/a.md", "deep/", &known).unwrap(), None);
        assert_eq!(broken("docs/a.md", "https://example.org/x", &known).unwrap(), None);
        assert!(broken("docs/a.md", "gone.md", &known).unwrap().is_some());
        assert!(broken("docs/a.md", "../../README.mdx", &known).unwrap().is_some());
    }

    #[test]
    fn a_heading_becomes_the_anchor_that_forges_make() {
        assert_eq!(
            headings("# Life of a frame (the hot path)\n```\n# no\n```\n"),
            ["life-of-a-frame-the-hot-path"]
        );
    }

    #[test]
    fn a_paper_may_name_only_files_that_are_there() {
        let names = mentioned_files(
            "`tools/xtask/src/main.rs:3`, `src/x.rs`, `plugins/*/plugin.toml` and `docs/x.md`\n",
        );
        assert_eq!(names, [(1, "tools/xtask/src/main.rs".to_owned()), (1, "docs/x.md".to_owned())]);
    }
}
