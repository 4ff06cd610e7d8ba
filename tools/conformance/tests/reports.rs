//! The kit's program as its users run it: the three forms of a report say the same, and the exit code says whether all is well.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value as Json;
use xmltree::{Element, XMLNode};

const KIT: &str = env!("CARGO_BIN_EXE_p2pos-conformance");
/// Cases that take milliseconds.
const QUICK: &str = "reset-while";

/// The agent on the Rust SDK, which cargo builds with the tests.
fn agent() -> PathBuf {
    Path::new(KIT).with_file_name("examples").join("agent-rust")
}

/// How many there are in all, and how many are as they should not be.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    all: usize,
    bad: usize,
}

fn run(mode: &[&str], options: &[&str], command: &[&str]) -> Output {
    let mut kit = Command::new(KIT);
    kit.args(mode).args(options);
    if !command.is_empty() {
        kit.arg("--").args(command);
    }
    kit.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn from_json(output: &Output) -> (Counts, Json) {
    let report: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["schema"], &report["protocol_version"]), (&"p2pos.conformance/1".into(), &1.into()));
    let cases = report["cases"].as_array().unwrap();
    let is_bad = |case: &&Json| {
        let is_expected = case["is_expected_to_fail"].as_bool().unwrap();
        match case["verdict"].as_str().unwrap() {
            "passed" => is_expected,
            "not-applicable" => false,
            _ => !is_expected,
        }
    };
    assert!(cases.iter().all(|case| case["took_ms"].is_u64() && case["level"].is_string()));
    let counts = Counts { all: cases.len(), bad: cases.iter().filter(is_bad).count() };
    assert_eq!(report["is_good"], counts.bad == 0);
    (counts, report)
}

fn from_junit(output: &Output) -> Counts {
    let suite = Element::parse(output.stdout.as_slice()).unwrap();
    assert_eq!(suite.name, "testsuite");
    let cases: Vec<&Element> = suite.children.iter().filter_map(XMLNode::as_element).collect();
    for case in &cases {
        assert_eq!(case.name, "testcase");
        assert!(["bronze", "silver", "gold"].contains(&case.attributes["classname"].as_str()));
        assert!(case.attributes["time"].parse::<f64>().unwrap() >= 0.0);
    }
    let bad = cases.iter().filter(|case| case.get_child("failure").is_some()).count();
    let stated = |name: &str| suite.attributes[name].parse::<usize>().unwrap();
    assert_eq!((stated("tests"), stated("failures")), (cases.len(), bad));
    Counts { all: cases.len(), bad }
}

/// The counts of all three forms, which must agree; and the exit code, which must be the same.
fn agreed(mode: &[&str], options: &[&str], command: &[&str]) -> (Counts, Option<i32>) {
    let [human, json, junit] = ["human", "json", "junit"].map(|format| {
        let options: Vec<&str> = options.iter().copied().chain(["--format", format]).collect();
        run(mode, &options, command)
    });
    let (counts, _) = from_json(&json);
    assert_eq!(counts, from_junit(&junit));
    let told = text(&human);
    let lines = told.lines().filter(|line| line.contains(" ms  ")).count();
    assert_eq!(lines, counts.all, "{told}");
    assert_eq!([human.status.code(), json.status.code()], [junit.status.code(); 2]);
    (counts, human.status.code())
}

#[test]
fn a_good_agent_is_good_in_every_form() {
    let agent = agent();
    let (counts, code) = agreed(&["plugin"], &["--only", QUICK], &[agent.to_str().unwrap()]);
    assert!(counts.all >= 2, "{counts:?}");
    assert_eq!((counts.bad, code), (0, Some(0)));
}

#[test]
fn a_program_that_is_no_plugin_is_bad_in_every_form() {
    let (counts, code) = agreed(&["plugin"], &["--only", QUICK], &["false"]);
    assert_eq!((counts.bad, code), (counts.all, Some(1)));
}

#[test]
fn the_vectors_are_good_in_every_form() {
    let (counts, code) = agreed(&["wire"], &[], &[]);
    assert!(counts.all > 100, "{counts:?}");
    assert_eq!((counts.bad, code), (0, Some(0)));
}

#[test]
fn a_failure_that_is_expected_is_good_and_a_pass_that_is_not_is_bad() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("expected");
    std::fs::write(&list, "reset-while-reading # why\nreset-while-writing\n").unwrap();
    let options = ["--only", QUICK, "--expected-failures", list.to_str().unwrap()];
    let (counts, code) = agreed(&["plugin"], &options, &["false"]);
    assert_eq!((counts.bad, code), (0, Some(0)));
    let agent = agent();
    let (counts, code) = agreed(&["plugin"], &options, &[agent.to_str().unwrap()]);
    assert_eq!((counts.bad, code), (2, Some(1)));
}

#[test]
fn a_list_that_names_no_case_is_refused_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("expected");
    std::fs::write(&list, "no-such-case\n").unwrap();
    let refused = run(&["plugin"], &["--expected-failures", list.to_str().unwrap()], &["false"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no-such-case"), "{refused:?}");
}

#[test]
fn a_later_case_decides_only_for_those_who_are_strict() {
    let leaves_at_once = ["false"];
    let later = "ten-thousand-streams";
    let run = |options: &[&str]| run(&["plugin", "--only", later], options, &leaves_at_once).status.code();
    assert_eq!(run(&[]), Some(0), "it failed, and decides nothing");
    assert_eq!(run(&["--strict"]), Some(1));
}

#[test]
fn nothing_is_judged_at_a_level_that_tier_0_lacks() {
    for level in ["silver", "gold"] {
        let told = run(&["plugin", "--tier0", "--level", level], &[], &["cat"]);
        let words = String::from_utf8(told.stderr).unwrap();
        assert_eq!(told.status.code(), Some(2), "{words}");
        assert!(words.contains("bronze cases only") && words.contains(level), "{words}");
    }
}
