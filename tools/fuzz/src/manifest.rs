//! plugin.toml as anybody may write it. Promises: a manifest is either named by its id or has at least one error; and every problem is
//! told in one line that a terminal can show.

pub(crate) fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let report = p2pos_host::check_manifest(&text);
    assert!(report.id.is_some() || !report.errors.is_empty(), "no id and no word why");
    for problem in report.errors.iter().chain(&report.warnings) {
        let shown = problem.to_string();
        assert!(!shown.contains(|character: char| character.is_control()), "{shown:?}");
    }
}
