//! A .proto file gives shapes, its paper gives meaning: one must not change without a look at the other. The paper carries a copy of the
//! .proto file, and a mark with the hash of the one it was last held against; `cargo xtask tidy --bless` renews both, and by that a person
//! says "I have looked". That what is new is spoken of, too, is seen by [`super::releases`].

use anyhow::{Context as _, Result};

use super::Finding;
use crate::{repo, say};

/// Each .proto file and the paper that says what its messages mean.
const PAPERS: &[(&str, &str)] = &[("plugin-protocol/proto/plugin.proto", "plugin-protocol/SPEC.md")];

/// How the copy begins.
const COPY: &str = "```proto\n";

/// Compares each paper's mark with its .proto file.
pub(crate) fn check() -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (proto, paper) in PAPERS {
        if !repo::root().join(paper).is_file() {
            findings.push(Finding::new(*paper, format!("is missing: {proto} has no meaning without it")));
            continue;
        }
        findings.extend(compare(proto, &repo::read(proto)?, paper, &repo::read(paper)?));
    }
    Ok(findings)
}

/// Writes the mark of every paper anew.
pub(crate) fn bless() -> Result<()> {
    for (proto, paper) in PAPERS {
        let text = repo::read(paper)?;
        let shapes = repo::read(proto)?;
        let marked = with_mark(&with_copy(&text, &shapes), &mark(proto, &shapes));
        if marked != text {
            std::fs::write(repo::root().join(paper), marked).with_context(|| format!("write {paper}"))?;
            say::line(format!("wrote the copy and the mark of {proto} into {paper}"));
        }
    }
    Ok(())
}

fn compare(proto: &str, proto_text: &str, paper: &str, paper_text: &str) -> Option<Finding> {
    let is_current = paper_text.lines().any(|line| line == mark(proto, proto_text));
    let what = format!(
        "was not held against {proto} since that changed: bring it up to date, then `cargo xtask tidy --bless`"
    );
    let is_copied = with_copy(paper_text, proto_text) == paper_text;
    (!(is_current && is_copied)).then(|| Finding::new(paper, what))
}

/// The paper with the .proto file in its block of shapes, if it has one.
fn with_copy(paper: &str, proto_text: &str) -> String {
    let block = paper.split_once(COPY).and_then(|(before, rest)| {
        let (_, after) = rest.split_once("```\n")?;
        Some(format!("{before}{COPY}{proto_text}```\n{after}"))
    });
    block.unwrap_or_else(|| paper.to_owned())
}

/// The mark is an HTML comment: invisible to readers, and at the end, out of the way of writers.
fn mark(proto: &str, proto_text: &str) -> String {
    format!("{}{:016x} -->", mark_start(proto), fnv1a_64(proto_text.as_bytes()))
}

fn mark_start(proto: &str) -> String {
    format!("<!-- {} was ", proto.rsplit('/').next().unwrap_or(proto))
}

fn with_mark(paper: &str, mark: &str) -> String {
    let start = mark.split_inclusive(" was ").next().unwrap_or(mark);
    let mut lines: Vec<&str> = paper.lines().filter(|line| !line.starts_with(start)).collect();
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    lines.extend(["", mark]);
    lines.join("\n") + "\n"
}

/// FNV-1a, 64 bit: enough to notice a change; nobody attacks it, for whoever can change the file can change the mark.
fn fnv1a_64(bytes: &[u8]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    bytes.iter().fold(BASIS, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(fnv1a_64(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a_64(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_changed_proto_is_found_until_the_paper_is_marked_anew() {
        let paper = with_mark("# Spec\n", &mark("a/x.proto", "old"));
        assert!(compare("a/x.proto", "old", "SPEC.md", &paper).is_none());
        assert!(compare("a/x.proto", "new", "SPEC.md", &paper).is_some());
        let renewed = with_mark(&paper, &mark("a/x.proto", "new"));
        assert!(compare("a/x.proto", "new", "SPEC.md", &renewed).is_none());
        assert_eq!(renewed.matches("x.proto was").count(), 1);
    }

    #[test]
    fn a_copy_that_is_behind_is_found_and_renewed_even_under_a_good_mark() {
        let paper = with_mark("# Spec\n\n```proto\nold\n```\n", &mark("x.proto", "new\n"));
        assert!(compare("x.proto", "new\n", "SPEC.md", &paper).is_some());
        assert!(compare("x.proto", "new\n", "SPEC.md", &with_copy(&paper, "new\n")).is_none());
    }

    #[test]
    fn marking_twice_changes_nothing() {
        let once = with_mark("# Spec\n\ntext\n\n", &mark("x.proto", "a"));
        assert_eq!(with_mark(&once, &mark("x.proto", "a")), once);
    }
}
