//! Words that must not reach the main branch: unfinished code, forgotten debugging, tests switched off without a reason.

use anyhow::Result;

use super::Finding;
use super::lexer::code_only;
use super::sources::is_ours;
use crate::repo;

/// What may not stand in Rust code, and what to do instead.
const FORBIDDEN_CODE: &[(&str, &str)] = &[
    ("todo!", "finish it, or leave it out"),
    ("unimplemented!", "finish it, or leave it out"),
    ("dbg!", "use tracing, or nothing"),
    ("#[ignore]", "say why: #[ignore = \"reason\"]"),
    ("#[allow(dead_code)]", "delete what nobody uses"),
];

/// What may not stand anywhere in a source file, comments included. Written in two halves, so that this file passes.
const FORBIDDEN_WORDS: &[(&str, &str)] = &[
    (concat!("TO", "DO"), "open an issue instead: a comment has no owner"),
    (concat!("FIX", "ME"), "fix it, or open an issue"),
    (concat!("XX", "X:"), "say what is meant"),
];

const SOURCE_ENDINGS: &[&str] = &[".rs", ".py", ".tcl", ".sh", ".go", ".mjs", ".proto", ".c", ".h"];

/// Looks at all source files, whatever their language.
pub(crate) fn check(files: &[String]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| SOURCE_ENDINGS.iter().any(|ending| file.ends_with(ending))) {
        let source = repo::read(file)?;
        findings.extend(found(file, &source, FORBIDDEN_WORDS));
        if is_ours(file) {
            findings.extend(found(file, &code_only(&source), FORBIDDEN_CODE));
        }
    }
    Ok(findings)
}

fn found(file: &str, text: &str, forbidden: &[(&str, &str)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for (word, instead) in forbidden {
            if has_word(line, word) {
                findings.push(Finding::new(format!("{file}:{}", index + 1), format!("`{word}`: {instead}")));
            }
        }
    }
    findings
}

/// Whether the word stands there on its own, not as the tail of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word).any(|(at, _)| {
        let is_free_before = !line[..at].ends_with(is_part);
        let is_free_after = word.ends_with(['!', ']', ':']) || !line[at + word.len()..].starts_with(is_part);
        is_free_before && is_free_after
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_code_is_found_with_its_line() {
        let findings = found("a.rs", "fn a() {\n    todo!()\n}\n", FORBIDDEN_CODE);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].place, "a.rs:2");
    }

    #[test]
    fn the_same_word_in_a_string_or_a_longer_word_is_fine() {
        assert!(found("a.rs", &code_only("let a = \"dbg!(1)\"; // todo!()"), FORBIDDEN_CODE).is_empty());
        assert!(found("a.rs", "my_todo!()", FORBIDDEN_CODE).is_empty());
        assert!(found("a.py", concat!("METHOTO", "DOLOGY"), FORBIDDEN_WORDS).is_empty());
    }

    #[test]
    fn a_test_may_be_switched_off_only_with_a_reason() {
        assert_eq!(found("a.rs", "#[ignore]\nfn a() {}", FORBIDDEN_CODE).len(), 1);
        assert!(found("a.rs", "#[ignore = \"needs a phone\"]\nfn a() {}", FORBIDDEN_CODE).is_empty());
    }

    #[test]
    fn a_note_to_oneself_is_found_in_every_language() {
        assert_eq!(found("a.py", concat!("# TO", "DO later"), FORBIDDEN_WORDS).len(), 1);
        assert_eq!(found("a.tcl", concat!("# FIX", "ME"), FORBIDDEN_WORDS).len(), 1);
    }
}
