//! The requirements of protocol version 1 are frozen: `requirements-1.txt` has a line for each case that decides, with a digest of what it
//! demands. A case that is changed, weakened or gone fails here; a later one decides nothing (`is_unscored`) until there is a version 2.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::collections::BTreeSet;
use std::fmt::Write as _;

use p2pos_conformance::case::{self, Case};
use sha2::{Digest as _, Sha256};

const FROZEN: &str = include_str!("../requirements-1.txt");
/// Bytes of the digest that are kept: nobody makes a second case by chance.
const DIGEST_BYTES: usize = 8;

/// Who is judged, the level, the id, and the digest of the demands. How a case is told, and its comments, may change.
fn line(case: &Case) -> String {
    let steps = case.steps.lines().map(|step| step.split(" #").next().unwrap_or_default().trim());
    let steps: Vec<&str> = steps.filter(|step| !step.is_empty() && !step.starts_with('#')).collect();
    let demands = [&case.rules, &case.states, &case.ends].map(|list| list.join("\n"));
    let digest = Sha256::digest(format!("{}\n{}\n{}", case.section, demands.join("\n\n"), steps.join("\n")));
    let mut hex = String::new();
    for byte in digest.iter().take(DIGEST_BYTES) {
        write!(hex, "{byte:02x}").unwrap();
    }
    format!("{} {} {} {hex}", case.judges, case.level, case.id)
}

#[test]
fn what_version_1_demands_is_what_it_demanded() {
    let frozen: BTreeSet<&str> =
        FROZEN.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let cases = case::all().unwrap();
    let present: BTreeSet<String> = cases.iter().map(line).collect();
    let gone: Vec<&&str> = frozen.iter().filter(|line| !present.contains(**line)).collect();
    assert!(gone.is_empty(), "cases of version 1 that are gone or demand something else now:\n{gone:#?}");
    let later = cases.iter().filter(|case| !case.is_unscored && !frozen.contains(line(case).as_str()));
    let later: Vec<String> = later.map(line).collect();
    assert!(
        later.is_empty(),
        "cases that are later than version 1 and decide all the same; mark them is_unscored = true:\n{}",
        later.join("\n")
    );
}

#[test]
fn a_line_of_steps_that_is_gone_is_noticed() {
    let case = case::all().unwrap().remove(0);
    let mut weaker = case.clone();
    weaker.steps = weaker.steps.trim_end().rsplit_once('\n').unwrap().0.to_owned();
    assert_ne!(line(&case), line(&weaker));
    let mut told_otherwise = case.clone();
    told_otherwise.about = "the same in other words".to_owned();
    told_otherwise.steps = format!("# why\n{}", told_otherwise.steps);
    assert_eq!(line(&case), line(&told_otherwise));
}
