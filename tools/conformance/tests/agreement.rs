//! SPEC.md, the tables and the cases agree: each MUST has a case, no case names a rule that is not there, each row of the tables of stream
//! states and of ends is brought about by somebody, and the port guide is what the tables make of it.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::collections::BTreeSet;

use p2pos_conformance::case::{self, Case, Judged};
use p2pos_conformance::porting;
use p2pos_plugin_protocol::streams::table::{ENDS, STATES};

/// Rules that no case can show, each with its reason. A MUST stands here only if nobody can break it in version 1.
const NOT_FOR_CASES: &[(&str, &str)] = &[
    ("S-EVO-1", "about later versions"),
    ("S-EVO-2", "about plugin.proto: `cargo xtask tidy` ties it to SPEC.md, and fields are compared there"),
];

/// Ends that need more than one daemon under the kit's hand; p2pos-daemon/tests/daemons shows them with real ones.
const ENDS_ELSEWHERE: &[(&str, &str)] =
    &[("the other daemon dies", "kills.rs: a real daemon is killed, and its peer waits for its silence")];

/// What hostile or broken programs do, and the cases that do it to plugins and to daemons. Nothing stands where one side alone can be wronged.
const HOSTILE: &[(&str, &[&str], &[&str])] = &[
    ("leaves before the handshake", &["daemon-gone"], &["d-hello-in-time"]),
    ("another version", &["refused-at-the-door"], &["d-versions"]),
    ("says Hello and falls silent", &["daemon-gone"], &["d-not-answered"]),
    ("garbage on stdout", &[], &["d-garbage-on-stdout"]),
    ("one byte at a time", &["one-byte-at-a-time"], &["d-bytewise"]),
    ("frames in one piece", &["frames-in-one-piece"], &["d-pipelined"]),
    ("length 0", &["hostile-length-0"], &["d-length-0"]),
    ("a length beyond the limit", &["hostile-length-too-large"], &["d-length-too-large"]),
    ("an unknown body", &["unknown-notice", "unknown-request"], &["d-unknown"]),
    ("no protobuf", &["hostile-gibberish", "hostile-wire-type"], &["d-gibberish"]),
    ("Data after fin", &["hostile-data-after-fin"], &["d-data-after-fin"]),
    ("more credit than fits", &["hostile-credit-overflow"], &["d-credit-overflow"]),
    ("more bytes than credit", &["hostile-credit"], &["d-credit-exceeded"]),
    ("resets that cross", &["resets-that-cross"], &["d-crossed"]),
    ("a token used twice", &[], &["d-token-twice"]),
    ("a second handshake", &["hostile-second-welcome"], &["d-second-hello"]),
    ("HTTP", &[], &["d-stranger-http"]),
    ("TLS", &[], &["d-stranger-tls"]),
    ("reads nothing", &["slow-reader"], &["d-stalled-reader"]),
    ("killed in the middle of a call", &["daemon-gone"], &["d-plugin-gone"]),
    ("ten thousand streams", &["ten-thousand-streams"], &["d-ten-thousand-streams"]),
];

fn cases() -> Vec<Case> {
    case::all().unwrap()
}

#[test]
fn every_demand_of_the_specification_has_a_case() {
    let shown: BTreeSet<String> = cases().into_iter().flat_map(|case| case.rules).collect();
    let excused: BTreeSet<&str> = NOT_FOR_CASES.iter().map(|(rule, _)| *rule).collect();
    let missing: Vec<String> = case::rules()
        .into_iter()
        .filter(|(name, text)| {
            text.contains("MUST") && !shown.contains(name) && !excused.contains(name.as_str())
        })
        .map(|(name, text)| format!("{name}: {text}"))
        .collect();
    assert!(missing.is_empty(), "no case shows\n{}", missing.join("\n"));
}

#[test]
fn every_case_names_rules_that_there_are_and_a_section() {
    let rules: BTreeSet<String> = case::rules().into_iter().map(|(name, _)| name).collect();
    for case in cases() {
        assert!(!case.rules.is_empty(), "{} shows no rule", case.id);
        for rule in &case.rules {
            assert!(rules.contains(rule), "{} names {rule}, which SPEC.md does not have", case.id);
        }
        assert!((1..=14).contains(&case.section), "{}: section {}", case.id, case.section);
    }
}

#[test]
fn every_row_of_the_table_of_states_is_walked() {
    let walked: BTreeSet<String> = cases().into_iter().flat_map(|case| case.states).collect();
    let mut rows = BTreeSet::new();
    for row in &STATES {
        for (trigger, _) in row.leaves {
            rows.insert(format!("{}: {trigger}", row.state));
        }
    }
    let unknown: Vec<_> = walked.difference(&rows).collect();
    assert!(unknown.is_empty(), "cases walk rows that the table does not have: {unknown:?}");
    let missing: Vec<_> = rows.difference(&walked).collect();
    assert!(missing.is_empty(), "no case walks {missing:?}");
}

#[test]
fn every_row_of_the_table_of_ends_is_brought_about() {
    let shown: BTreeSet<String> = cases().into_iter().flat_map(|case| case.ends).collect();
    let rows: BTreeSet<String> = ENDS.iter().map(|row| row.event.to_owned()).collect();
    let elsewhere: BTreeSet<String> = ENDS_ELSEWHERE.iter().map(|(event, _)| (*event).to_owned()).collect();
    let unknown: Vec<_> = shown.difference(&rows).collect();
    assert!(unknown.is_empty(), "cases name ends that the table does not have: {unknown:?}");
    let missing: Vec<_> = rows.difference(&shown).filter(|row| !elsewhere.contains(*row)).collect();
    assert!(missing.is_empty(), "no case brings about {missing:?}");
}

#[test]
fn the_port_guide_is_what_the_tables_make_of_it() {
    let committed = include_str!("../../../plugin-protocol/PORTING.md");
    let made = porting::guide().unwrap();
    assert!(committed == made, "renew it: p2pos-conformance porting > plugin-protocol/PORTING.md");
}

#[test]
fn every_vector_reads_and_writes_as_it_stands() {
    let ran = p2pos_conformance::vectors::run().unwrap();
    assert!(ran.len() > 200, "only {} vectors were found", ran.len());
    let bad: Vec<_> =
        ran.iter().filter(|(_, outcome)| !outcome.is_good()).map(|(_, outcome)| outcome).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn every_hostile_deed_is_done_to_whom_it_can_wrong() {
    let cases = cases();
    for (deed, plugins, daemons) in HOSTILE {
        assert!(!plugins.is_empty() || !daemons.is_empty(), "{deed} is done to nobody");
        for (id, judged) in
            plugins.iter().map(|id| (id, Judged::Plugin)).chain(daemons.iter().map(|id| (id, Judged::Daemon)))
        {
            assert!(cases.iter().any(|case| case.id == *id && case.judges == judged), "{deed}: no case {id}");
        }
    }
}
