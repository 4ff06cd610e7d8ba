//! The ratchet: files that were over a limit when the limit came stay allowed, but only ever get smaller.
//!
//! `tools/xtask/ratchet.toml` lists each offender with its number. Above the number is a finding; below it is one too, so that
//! the number is lowered (`cargo xtask tidy --bless`) and the gain kept. Nothing here raises a number: that takes a person's edit
//! and a reviewer who sees it. Function length and parameters are clippy's to measure; we count who was excused from them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::Finding;
use super::lexer::code_only;
use super::sources::{FILE_LINES_MAX, is_ours, lines_without_tests};
use crate::{repo, say};

const FILE: &str = "tools/xtask/ratchet.toml";
const HEAD: &str = "\
# Who was over a limit when the limit came. Numbers may only go down: `cargo xtask tidy --bless` lowers them.
# long_files: lines without tests. long_functions, many_parameters: how many functions are excused from clippy's limits.
";

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    /// Lines of a file without its tests.
    LongFiles,
    /// Functions excused from `clippy::too_many_lines`.
    LongFunctions,
    /// Functions excused from `clippy::too_many_arguments`.
    ManyParameters,
}

const RULES: [Rule; 3] = [Rule::LongFiles, Rule::LongFunctions, Rule::ManyParameters];

/// The numbers as committed: file to what it may still have.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ratchet {
    long_files: BTreeMap<String, usize>,
    long_functions: BTreeMap<String, usize>,
    many_parameters: BTreeMap<String, usize>,
}

impl Ratchet {
    /// What this file may have under this rule; 0 if it is not listed.
    pub(crate) fn allowed(&self, rule: Rule, file: &str) -> usize {
        self.numbers(rule).get(file).copied().unwrap_or(0)
    }

    fn numbers(&self, rule: Rule) -> &BTreeMap<String, usize> {
        match rule {
            Rule::LongFiles => &self.long_files,
            Rule::LongFunctions => &self.long_functions,
            Rule::ManyParameters => &self.many_parameters,
        }
    }

    fn numbers_mut(&mut self, rule: Rule) -> &mut BTreeMap<String, usize> {
        match rule {
            Rule::LongFiles => &mut self.long_files,
            Rule::LongFunctions => &mut self.long_functions,
            Rule::ManyParameters => &mut self.many_parameters,
        }
    }
}

/// Reads the committed numbers.
pub(crate) fn load() -> Result<Ratchet> {
    toml::from_str(&repo::read(FILE)?).with_context(|| format!("read {FILE}"))
}

/// Compares what is with what may be.
pub(crate) fn check(files: &[String]) -> Result<Vec<Finding>> {
    Ok(compare(&load()?, &measure(files)?))
}

/// Lowers numbers that have become too large, and drops files that need none. Never raises, never adds.
pub(crate) fn bless(files: &[String]) -> Result<()> {
    let (mut ratchet, measured) = (load()?, measure(files)?);
    lower(&mut ratchet, &measured);
    std::fs::write(repo::root().join(FILE), format!("{HEAD}\n{}", toml::to_string(&ratchet)?))?;
    say::line(format!("wrote {FILE}"));
    Ok(())
}

fn measure(files: &[String]) -> Result<Ratchet> {
    let mut measured = Ratchet::default();
    for file in files.iter().filter(|file| is_ours(file)) {
        let source = repo::read(file)?;
        for rule in RULES {
            let number = number(rule, &source);
            if number > 0 {
                measured.numbers_mut(rule).insert(file.clone(), number);
            }
        }
    }
    Ok(measured)
}

/// 0 means that the file keeps the rule.
fn number(rule: Rule, source: &str) -> usize {
    let excused = |lint: &str| code_only(source).matches(lint).count();
    match rule {
        Rule::LongFiles => {
            Some(lines_without_tests(source)).filter(|&lines| lines > FILE_LINES_MAX).unwrap_or(0)
        }
        Rule::LongFunctions => excused("clippy::too_many_lines"),
        Rule::ManyParameters => excused("clippy::too_many_arguments"),
    }
}

fn compare(allowed: &Ratchet, measured: &Ratchet) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in RULES {
        for (file, &limit) in allowed.numbers(rule) {
            if measured.allowed(rule, file) < limit {
                let what = format!(
                    "better than {FILE} says ({limit}): keep the gain with `cargo xtask tidy --bless`"
                );
                findings.push(Finding::new(file, what));
            }
        }
        // Long files are told by the check of sources, which knows the limit.
        if matches!(rule, Rule::LongFiles) {
            continue;
        }
        for (file, &found) in measured.numbers(rule) {
            let limit = allowed.allowed(rule, file);
            if found > limit {
                let what = format!(
                    "{found} functions excused from a size limit ({rule:?}), {limit} allowed: split them"
                );
                findings.push(Finding::new(file, what));
            }
        }
    }
    findings
}

fn lower(ratchet: &mut Ratchet, measured: &Ratchet) {
    for rule in RULES {
        ratchet.numbers_mut(rule).retain(|file, limit| {
            *limit = (*limit).min(measured.allowed(rule, file));
            *limit > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_excuse_than_listed_is_found() {
        let source = "#[expect(clippy::too_many_lines, reason = \"a table\")]\nfn a() {}\n";
        assert_eq!(number(Rule::LongFunctions, source), 1);
        assert_eq!(compare(&Ratchet::default(), &functions("a.rs", 1)).len(), 1);
        assert!(compare(&functions("a.rs", 1), &functions("a.rs", 1)).is_empty());
    }

    #[test]
    fn an_improvement_must_be_kept() {
        assert_eq!(compare(&functions("a.rs", 2), &functions("a.rs", 1)).len(), 1);
        assert_eq!(compare(&functions("gone.rs", 1), &Ratchet::default()).len(), 1);
    }

    #[test]
    fn blessing_lowers_and_drops_but_never_raises_or_adds() {
        let mut ratchet = functions("a.rs", 3);
        lower(&mut ratchet, &functions("a.rs", 2));
        assert_eq!(ratchet, functions("a.rs", 2));
        lower(&mut ratchet, &functions("a.rs", 5));
        assert_eq!(ratchet, functions("a.rs", 2));
        lower(&mut ratchet, &functions("other.rs", 9));
        assert_eq!(ratchet, Ratchet::default());
    }

    #[test]
    fn a_long_file_has_a_number_and_a_short_one_has_none() {
        assert_eq!(number(Rule::LongFiles, &"//! x\n".repeat(FILE_LINES_MAX + 1)), FILE_LINES_MAX + 1);
        assert_eq!(number(Rule::LongFiles, &"//! x\n".repeat(FILE_LINES_MAX)), 0);
    }

    fn functions(file: &str, count: usize) -> Ratchet {
        Ratchet { long_functions: BTreeMap::from([(file.to_owned(), count)]), ..Ratchet::default() }
    }
}
