//! The manifest that SPEC.md shows is one that the host takes, down to the last key.

use std::{fs, path::Path};

use p2pos_host::check;

#[test]
fn the_manifest_of_the_specification_has_no_mistake_and_no_unknown_key() {
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../plugin-protocol/SPEC.md");
    let spec = fs::read_to_string(spec).unwrap();
    let (_, section) = spec.split_once("## 14 plugin.toml").unwrap();
    let manifest = section.split_once("```toml\n").unwrap().1.split_once("```\n").unwrap().0;
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("chess");
    fs::create_dir(&plugin).unwrap();
    fs::write(plugin.join("plugin.toml"), manifest).unwrap();
    fs::write(plugin.join("main.py"), "").unwrap();
    fs::write(plugin.join("pgn.sh"), "").unwrap();
    let report = check(&plugin);
    let told: Vec<String> = report.errors.iter().chain(&report.warnings).map(ToString::to_string).collect();
    assert_eq!(told, Vec::<String>::new());
}
