//! Every Rust file opens with `//!`, and none grows beyond what a person can hold in mind. Knows lines, not meaning.

use anyhow::Result;

use super::Finding;
use super::lexer::code_only;
use super::ratchet::{self, Rule};
use crate::repo;

/// Lines of one file without its tests. Half of it would tear machines apart; the well-kept Rust networking trees have nine
/// of ten files below 600 to 1,600.
pub(crate) const FILE_LINES_MAX: usize = 600;

/// Looks at all Rust files that a person wrote.
pub(crate) fn check(files: &[String]) -> Result<Vec<Finding>> {
    let allowed = ratchet::load()?;
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| is_ours(file)) {
        let source = repo::read(file)?;
        findings.extend(missing_header(file, &source));
        if is_test(file) {
            continue;
        }
        let lines = lines_without_tests(&source);
        if lines > FILE_LINES_MAX.max(allowed.allowed(Rule::LongFiles, file)) {
            let what =
                format!("{lines} lines without tests, limit {FILE_LINES_MAX}: split it by responsibility");
            findings.push(Finding::new(file, what));
        }
    }
    Ok(findings)
}

/// Rust that a person wrote: generated code has its own rules.
pub(crate) fn is_ours(file: &str) -> bool {
    file.ends_with(".rs") && !file.contains("/src/pb/")
}

/// Files that hold tests only.
fn is_test(file: &str) -> bool {
    file.split('/').any(|part| part == "tests" || part == "tests.rs" || part == "test_support.rs")
}

fn missing_header(file: &str, source: &str) -> Option<Finding> {
    let has_header =
        source.lines().next().is_some_and(|line| line.starts_with("//! ") && line.len() > "//! ".len());
    (!has_header)
        .then(|| Finding::new(file, "opens without `//!`: say what it owns and what it refuses to know"))
}

/// Counts lines, leaving out inline modules under `#[cfg(test)]`.
pub(crate) fn lines_without_tests(source: &str) -> usize {
    let code = code_only(source);
    let lines: Vec<&str> = code.lines().collect();
    let (mut count, mut at) = (0, 0);
    while at < lines.len() {
        if lines[at].trim_start().starts_with("#[cfg(test)]") && opens_module(&lines[at..]) {
            at += item_lines(&lines[at..]);
        } else {
            count += 1;
            at += 1;
        }
    }
    count
}

fn opens_module(lines: &[&str]) -> bool {
    let item =
        lines.iter().skip(1).map(|line| line.trim()).find(|line| !line.is_empty() && !line.starts_with("#["));
    item.is_some_and(|line| line.starts_with("mod ") || line.contains(" mod "))
}

/// Lines up to the end of the first item, found by its braces; an item without a body ends at its semicolon.
fn item_lines(lines: &[&str]) -> usize {
    let mut depth = 0_usize;
    for (index, line) in lines.iter().enumerate() {
        for character in line.chars() {
            match character {
                '{' => depth += 1,
                '}' if depth == 1 => return index + 1,
                '}' => depth = depth.saturating_sub(1),
                ';' if depth == 0 => return index + 1,
                _ => {}
            }
        }
    }
    lines.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_header_is_found() {
        assert!(missing_header("a.rs", "use std::io;\n").is_some());
        assert!(missing_header("a.rs", "\n//! late\n").is_some());
        assert!(missing_header("a.rs", "//! \n").is_some());
        assert!(missing_header("a.rs", "").is_some());
        assert!(missing_header("a.rs", "//! Owns a thing.\n").is_none());
    }

    #[test]
    fn tests_do_not_count_wherever_they_stand() {
        let source = "//! Head.\nfn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { \"}\"; }\n}\nfn c() {}\n";
        assert_eq!(lines_without_tests(source), 3);
    }

    #[test]
    fn a_test_module_in_another_file_hides_nothing_of_this_one() {
        assert_eq!(lines_without_tests("//! Head.\n#[cfg(test)]\nmod tests;\nfn a() {\n}\n"), 3);
    }

    #[test]
    fn a_helper_for_tests_outside_a_module_still_counts() {
        assert_eq!(lines_without_tests("//! Head.\n#[cfg(test)]\nfn helper() {\n}\n"), 4);
    }

    #[test]
    fn generated_code_is_not_ours() {
        assert!(!is_ours("plugin-protocol/src/pb/plugin_v1.rs"));
        assert!(is_ours("plugin-protocol/src/lib.rs"));
        assert!(is_test("p2pos-daemon/tests/disconnects.rs"));
    }
}
