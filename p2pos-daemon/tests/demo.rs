//! `p2pos demo` as a newcomer runs it, only smaller: it verifies every byte, and leaves no process and no file behind,
//! however it ends.

#![expect(clippy::unwrap_used, reason = "a test helper that fails should fail the test")]

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Long enough for a loaded machine; nothing waits for it when all is well.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn two_daemons_carry_every_byte_and_nothing_stays() {
    let place = tempfile::tempdir().unwrap();
    let output = demo(place.path(), &["--bytes", "8MiB", "--json"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said, "", "words where a program reads");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["schema"], "p2pos.demo/1");
    assert_eq!(report["is_verified"], true);
    let transfers = report["transfers"].as_array().unwrap();
    let moved: u64 = transfers.iter().map(|moved| moved["bytes"].as_u64().unwrap()).sum();
    assert_eq!((transfers.len(), moved), (2, 8 << 20));
    assert!(
        report["chat"].as_array().unwrap().len() == 2 || !report["skipped"].as_array().unwrap().is_empty()
    );
    nothing_stays(place.path());
}

#[test]
fn three_daemons_do_as_well() {
    let place = tempfile::tempdir().unwrap();
    let output = demo(place.path(), &["--bytes", "1MiB", "--peers", "3"]).output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(report.contains("every byte was verified, 3 daemons"), "{report}");
    nothing_stays(place.path());
}

#[test]
fn an_interrupted_demo_takes_everything_with_it() {
    for signal in ["-INT", "-TERM"] {
        let place = tempfile::tempdir().unwrap();
        let mut child = demo(place.path(), &["--bytes", "100GiB"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Something was said: the daemons run.
        let mut said = [0; 1];
        child.stderr.as_mut().unwrap().read_exact(&mut said).unwrap();
        assert!(Command::new("kill").arg(signal).arg(child.id().to_string()).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(1));
        nothing_stays(place.path());
    }
}

#[test]
fn a_killed_demo_leaves_no_process() {
    let place = tempfile::tempdir().unwrap();
    let mut child = demo(place.path(), &["--bytes", "100GiB"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 1];
    child.stderr.as_mut().unwrap().read_exact(&mut said).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let begun = Instant::now();
    while !processes_in(place.path()).is_empty() {
        assert!(begun.elapsed() < SOON, "{:?}", processes_in(place.path()));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn without_its_plugins_it_says_where_they_should_be() {
    let place = tempfile::tempdir().unwrap();
    let output = demo(place.path(), &[]).env("P2POS_BUNDLED_PLUGINS", place.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).contains("P2POS_BUNDLED_PLUGINS=DIR"));
    nothing_stays(place.path());
}

fn demo(place: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_p2pos"));
    command.arg("demo").args(words).env("TMPDIR", place).stdin(Stdio::null());
    command.env("P2POS_BUNDLED_PLUGINS", concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins"));
    command
}

fn nothing_stays(place: &Path) {
    let left: Vec<_> = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(processes_in(place), Vec::<String>::new());
}

/// Processes whose command line or environment names the folder: daemons by the one, plugins by the other.
fn processes_in(place: &Path) -> Vec<String> {
    let place = place.to_str().unwrap();
    let told = |file: &Path| String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).replace('\0', " ");
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .map(|process| (told(&process.join("cmdline")), told(&process.join("environ"))))
        .filter(|(line, environment)| line.contains(place) || environment.contains(place))
        .map(|(line, _)| line)
        .collect()
}
