//! A full disk: a clear word, nothing half-written, and as good as before once there is room.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

/// Room for everything that a daemon needs, and little more: its contacts alone are 1.5 MiB of database.
const DISK_BYTES: &str = "size=6m";

/// A disk of its own, gone with the test.
struct Disk {
    dir: TempDir,
}

impl Disk {
    /// Nothing if we may not mount.
    fn mount() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let disk = Self { dir: tempfile::tempdir().unwrap() };
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", DISK_BYTES, "tmpfs"]).arg(disk.dir.path()).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then_some(disk)
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Fills it to the last byte.
    fn fill(&self) -> PathBuf {
        let path = self.dir.path().join("ballast");
        let mut file = fs::File::create(&path).unwrap();
        for size in [64 << 10, 4 << 10, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_p2pos"));
        command.arg("--data-dir").arg(self.data_dir()).args(args).env("NO_COLOR", "1").stdin(Stdio::null());
        command.output().unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(self.dir.path()).stderr(Stdio::null()).status());
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// It says what is wrong, as no bug and no panic would.
fn assert_tells(output: &Output) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.to_lowercase().contains("no space left"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn on_a_full_disk_no_identity_is_made_and_none_is_half_made() {
    let Some(disk) = Disk::mount() else { return eprintln!("a disk cannot be mounted here: not tested") };
    fs::create_dir(disk.data_dir()).unwrap();
    let ballast = disk.fill();
    assert_tells(&disk.run(&["id"]));
    assert_tells(&disk.run(&["up"]));
    fs::remove_file(ballast).unwrap();
    let made = disk.run(&["id", "--json"]);
    assert!(made.status.success(), "{}", said(&made));
    let peer = |output: &Output| {
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["peer_id"].clone()
    };
    assert_eq!(peer(&disk.run(&["id", "--json"])), peer(&made));
}

#[test]
fn a_contact_that_does_not_fit_is_refused_and_those_that_did_stay() {
    let Some(disk) = Disk::mount() else { return eprintln!("a disk cannot be mounted here: not tested") };
    let add = |number: usize| disk.run(&["contacts", "add", &peer(), &format!("c{number}")]);
    assert!(disk.run(&["id"]).status.success());
    for number in 0..3 {
        let added = add(number);
        assert!(added.status.success(), "{}", said(&added));
    }
    let ballast = disk.fill();
    let key = key_of(&disk.data_dir());
    let mut kept = 3;
    // The book may have room inside its file for some more.
    for number in 3..200 {
        let added = add(number);
        if added.status.success() {
            kept += 1;
            continue;
        }
        assert_eq!(added.status.code(), Some(1), "{}", said(&added));
        assert!(!said(&added).contains("panicked"), "{}", said(&added));
        break;
    }
    let asked = disk.run(&["contacts", "list", "--json"]);
    fs::remove_file(ballast).unwrap();
    let listed = if asked.status.success() { asked } else { disk.run(&["contacts", "list", "--json"]) };
    assert!(listed.status.success(), "{}", said(&listed));
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed["contacts"].as_array().unwrap().len(), kept);
    assert_eq!(key_of(&disk.data_dir()), key);
    assert!(add(1000).status.success());
}

fn peer() -> String {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_p2pos"));
    let output = command.arg("--data-dir").arg(home.path()).args(["id", "--json"]).output().unwrap();
    let id: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    id["peer_id"].as_str().unwrap().to_owned()
}

/// Whatever lies directly in the data directory and is small: the key is among it.
fn key_of(data_dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(data_dir)
        .unwrap()
        .flatten()
        .filter(|entry| entry.metadata().is_ok_and(|facts| facts.is_file() && facts.len() < 4096))
        .map(|entry| (entry.path(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}
