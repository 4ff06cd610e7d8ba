//! Replays the committed corpora through every target: what a fuzzer found once is tested for ever, without a fuzzer.

use std::fs;
use std::path::{Path, PathBuf};

use p2pos_fuzz::TARGETS;

/// A corpus is for tests that run on every change: a few seconds for all targets together.
const FILES_MAX: usize = 200;
const FILE_BYTES_MAX: u64 = 8 * 1024;

#[test]
fn every_input_of_the_corpora_keeps_every_promise() {
    for target in TARGETS {
        for file in inputs(target.name) {
            let bytes = fs::read(&file).unwrap();
            let outcome = std::panic::catch_unwind(|| (target.run)(&bytes));
            assert!(outcome.is_ok(), "target {} broke on {}", target.name, file.display());
        }
    }
}

#[test]
fn every_truncation_of_every_input_keeps_them_too() {
    for target in TARGETS {
        // The first few inputs of each are enough to cut into pieces: all of them would take minutes.
        for file in inputs(target.name).into_iter().take(8) {
            let bytes = fs::read(&file).unwrap();
            for length in 0..bytes.len().min(512) {
                (target.run)(&bytes[..length]);
            }
        }
    }
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target_and_they_are_small() {
    let mut folders: Vec<String> = fs::read_dir(corpora())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(folders, names, "TARGETS is sorted by name, like the folders");
    for name in names {
        let files = inputs(name);
        assert!((1..=FILES_MAX).contains(&files.len()), "{name} has {} inputs", files.len());
        assert!(
            files.iter().all(|file| file.metadata().unwrap().len() <= FILE_BYTES_MAX),
            "{name} has a large input"
        );
    }
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(corpora().join(target)).expect("every target has a corpus folder");
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.expect("the checkout is readable").path()).collect();
    files.sort();
    files
}

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}
