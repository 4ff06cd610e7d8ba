//! The specification's rules have names: each sentence with a MUST stands in a rule like `[S-FRAME-1]`, no name is given twice, and
//! whoever cites a rule (code, tests, papers) cites one that is there.

use std::collections::BTreeMap;

use anyhow::Result;

use super::Finding;
use crate::repo;

const SPEC: &str = "plugin-protocol/SPEC.md";
/// Files in which a rule may be cited. Generated code and data cite nothing.
const CITING: &[&str] = &[".rs", ".py", ".md", ".proto", ".tcl", ".go", ".mjs"];
/// How a rule's name begins; written in two halves, so that this file cites none.
const MARK: &str = concat!("[", "S-");

/// Looks at the specification, and at everybody who cites it.
pub(crate) fn check(files: &[String]) -> Result<Vec<Finding>> {
    if !repo::root().join(SPEC).is_file() {
        // That it is missing is said by the check of marks.
        return Ok(Vec::new());
    }
    let text = repo::read(SPEC)?;
    let (rules, mut findings) = rules(&text);
    findings.extend(nameless(&text));
    for file in files.iter().filter(|file| CITING.iter().any(|ending| file.ends_with(ending))) {
        findings.extend(unknown(file, &repo::read(file)?, &rules));
    }
    Ok(findings)
}

/// The names that rules are given, each with its line, and those given twice.
fn rules(text: &str) -> (BTreeMap<&str, usize>, Vec<Finding>) {
    let mut rules = BTreeMap::new();
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some(name) = line.strip_prefix("- ").and_then(leading_name) else { continue };
        if let Some(first) = rules.insert(name, index + 1) {
            let what = format!("rule {name} was given this name in line {first} already");
            findings.push(Finding::new(format!("{SPEC}:{}", index + 1), what));
        }
    }
    (rules, findings)
}

/// `S-FRAME-1` of a text that begins with `[S-FRAME-1]`.
fn leading_name(text: &str) -> Option<&str> {
    let name = text.strip_prefix('[')?.split(']').next()?;
    is_name(name).then_some(name)
}

fn is_name(name: &str) -> bool {
    let mut parts = name.split('-');
    let (first, last) = (parts.next(), parts.next_back());
    let middle = parts.all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_uppercase()));
    first == Some("S")
        && middle
        && last.is_some_and(|number| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
}

/// Paragraphs and list items that demand something and have no name. Code, tables and the paragraph that explains the word are spared.
fn nameless(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut is_code = false;
    let mut block: (usize, String) = (0, String::new());
    for (index, line) in text.lines().chain([""]).enumerate() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        let ends_block = line.is_empty() || line.starts_with(['-', '|', '#', '`']);
        if ends_block {
            let (at, words) = std::mem::take(&mut block);
            let demands = words.contains("MUST") && !words.contains("RFC 2119");
            if demands && !words.contains(MARK) {
                findings.push(Finding::new(format!("{SPEC}:{at}"), "a MUST without a rule's name"));
            }
        }
        if !is_code && !line.is_empty() && !line.starts_with(['|', '#', '`']) {
            if block.1.is_empty() {
                block.0 = index + 1;
            }
            block.1.push_str(line);
            block.1.push('\n');
        }
    }
    findings
}

/// Names that this file cites and the specification does not have.
fn unknown(file: &str, text: &str, rules: &BTreeMap<&str, usize>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for (at, _) in line.match_indices(MARK) {
            if let Some(name) = leading_name(&line[at..]).filter(|name| !rules.contains_key(name)) {
                let what = format!("cites rule {name}, which {SPEC} does not have");
                findings.push(Finding::new(format!("{file}:{}", index + 1), what));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demand_without_a_name_is_found_wherever_it_stands() {
        assert_eq!(nameless("A plugin MUST not.\n").len(), 1);
        assert_eq!(nameless("- first\n- a plugin\n  MUST not\n").len(), 1);
        assert!(nameless(&format!("- {MARK}A-1] A plugin\n  MUST not.\n")).is_empty());
        assert!(nameless("MUST is meant as in RFC 2119.\n\n```\nMUST\n```\n").is_empty());
    }

    #[test]
    fn a_name_is_given_once() {
        let twice = format!("- {MARK}A-1] one\n- {MARK}A-1] two\n- {MARK}A-2] three\n");
        let (rules, findings) = rules(&twice);
        assert_eq!((rules.len(), findings.len()), (2, 1));
    }

    #[test]
    fn citing_a_rule_that_is_not_there_is_found() {
        let rules = BTreeMap::from([("S-A-1", 1)]);
        assert!(unknown("a.rs", &format!("// {MARK}A-1]: yes"), &rules).is_empty());
        assert_eq!(unknown("a.rs", &format!("// {MARK}A-9]: no"), &rules).len(), 1);
        assert!(unknown("a.rs", &format!("// {MARK}..] is no name"), &rules).is_empty());
    }

    #[test]
    fn a_name_has_letters_and_then_a_number() {
        assert!(is_name("S-FRAME-1") && is_name("S-DATA-GRAM-12"));
        assert!(
            !is_name("S-frame-1") && !is_name("S-FRAME-") && !is_name("X-FRAME-1") && !is_name("S-FRAME")
        );
    }
}
