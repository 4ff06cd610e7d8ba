//! Pages of decisions: one number each, all five parts, and a line in the folder's README. A page that nobody finds decides nothing.

use std::collections::BTreeMap;

use anyhow::Result;

use super::Finding;
use crate::repo;

const FOLDER: &str = "docs/decisions/";
const INDEX: &str = "docs/decisions/README.md";
const PARTS: &[&str] =
    &["## Question", "## Options", "## Choice", "## Price", "## What would change our mind"];

/// Looks at every page.
pub(crate) fn check(files: &[String]) -> Result<Vec<Finding>> {
    let index = repo::read(INDEX)?;
    let pages: Vec<&str> = files
        .iter()
        .filter_map(|file| file.strip_prefix(FOLDER))
        .filter(|page| *page != "README.md")
        .collect();
    let mut findings = numbers(&pages);
    for page in pages {
        findings.extend(parts(page, &repo::read(&format!("{FOLDER}{page}"))?));
        if !index.contains(&format!("({page})")) {
            findings.push(Finding::new(INDEX, format!("has no line for {page}")));
        }
    }
    Ok(findings)
}

/// Pages whose names do not begin with a number of four digits, or with one that another page has.
fn numbers(pages: &[&str]) -> Vec<Finding> {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    let mut findings = Vec::new();
    for page in pages {
        let number = page.split('-').next().unwrap_or_default();
        if number.len() != 4 || number.parse::<u16>().is_err() {
            findings.push(Finding::new(format!("{FOLDER}{page}"), "name it NNNN-what-was-decided.md"));
        } else if let Some(other) = seen.insert(number, page) {
            findings.push(Finding::new(format!("{FOLDER}{page}"), format!("has the number of {other}")));
        }
    }
    findings
}

fn parts(page: &str, text: &str) -> Vec<Finding> {
    let is_missing = |part: &&&str| !text.lines().any(|line| line == **part);
    let missing = PARTS.iter().filter(is_missing);
    missing.map(|part| Finding::new(format!("{FOLDER}{page}"), format!("has no part `{part}`"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_belongs_to_one_page() {
        assert!(numbers(&["0001-a.md", "0002-b.md"]).is_empty());
        assert_eq!(numbers(&["0001-a.md", "0001-b.md"]).len(), 1);
        assert_eq!(numbers(&["notes.md", "12-b.md"]).len(), 2);
    }

    #[test]
    fn a_page_without_its_price_is_found() {
        let whole: String = PARTS.iter().map(|part| format!("{part}\ntext\n")).collect();
        assert!(parts("0001-a.md", &whole).is_empty());
        assert_eq!(parts("0001-a.md", &whole.replace("## Price", "## Cost")).len(), 1);
    }
}
