//! What manifests are taken, and how wrong ones are told. No file system.

use super::*;

const WHOLE: &str = r#"
manifest = 1
id = "org.example.chess"
name = "Chess"
version = "1.2.0"
description = "plays chess"
license = "MIT"
homepage = "https://example.org"
socket = "tcp"
protocol = { min = 1, max = 1 }
[run]
exec = ["python3", "main.py"]
autostart = false
restart = "always"
activation = "eager"
start_timeout = "10s"
stop_timeout = "500ms"
[[provides]]
protocol = "/chess/1"
kind = "stream"
trust = "contacts"
[[serve]]
protocol = "/chess-pgn/1"
exec = ["sh", "pgn.sh"]
max = 3
trust = "anyone"
[permissions]
net.open = ["/chess/1"]
net.accept = ["/chess/1"]
contacts.read = true
peers.any = true
[limits]
memory = "256MiB"
files = 128
streams = 64
"#;

fn read(text: &str) -> (Option<Manifest>, Vec<String>, Vec<String>) {
    let mut findings = Findings::new(MANIFEST_FILE, text);
    let manifest = parse(text, &mut findings);
    let texts = |problems: &[Problem]| problems.iter().map(ToString::to_string).collect();
    assert_eq!(manifest.is_some(), findings.errors.is_empty(), "a manifest or errors, never both");
    (manifest, texts(&findings.errors), texts(&findings.warnings))
}

#[test]
fn a_whole_manifest_is_read_without_a_warning() {
    let (manifest, errors, warnings) = read(WHOLE);
    assert_eq!((errors, warnings), (vec![], vec![]));
    let manifest = manifest.unwrap();
    assert_eq!(manifest.id.as_str(), "org.example.chess");
    assert_eq!(manifest.socket, SocketKind::Tcp);
    let run = manifest.run.unwrap();
    assert_eq!((run.autostart, run.restart), (false, Restart::Always));
    assert_eq!((run.start_timeout.as_secs(), run.stop_timeout.as_millis()), (10, 500));
    assert_eq!(manifest.serve[0].copies_max, 3);
    assert_eq!(manifest.limits, Limits { memory_bytes: Some(256 << 20), files: 128, streams: 64 });
    assert_eq!(
        manifest.permissions.to_texts(),
        ["net.open:/chess/1", "net.accept:/chess/1", "net.accept:/chess-pgn/1", "contacts.read", "peers.any"]
            .map(String::from)
            .into_iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect::<Permissions>()
            .to_texts()
    );
}

impl FromIterator<String> for Permissions {
    fn from_iter<I: IntoIterator<Item = String>>(texts: I) -> Self {
        texts.into_iter().map(|text| Permission::parse(&text).unwrap()).collect()
    }
}

#[test]
fn three_lines_are_a_plugin() {
    let (manifest, _, warnings) = read("manifest = 1\nid = \"a\"\nrun = { exec = [\"./a\"] }\n");
    let manifest = manifest.unwrap();
    assert!(warnings.is_empty());
    assert_eq!((manifest.name.as_str(), manifest.socket), ("a", SocketKind::Unix));
    assert!(manifest.is_autostarted());
    assert_eq!(manifest.run.unwrap().start_timeout, START_TIMEOUT_DEFAULT);
}

#[test]
fn wrong_types_are_told_with_line_and_column() {
    let (_, errors, _) = read("manifest = 1\nid = 7\n[run]\nexec = \"sh\"\n[limits]\n  files = \"many\"\n");
    assert_eq!(errors[0], "plugin.toml:2:6: `id` must be a string, found integer");
    assert!(errors[1].starts_with("plugin.toml:4:8: `run.exec` must be a list of strings"), "{errors:?}");
    assert!(errors.iter().any(|e| e.starts_with("plugin.toml:6:11: `limits.files` must be")), "{errors:?}");
}

#[test]
fn unknown_keys_warn_and_name_the_nearest() {
    let text = "manifest = 1\nid = \"a\"\ncolour = 1\n[run]\nexec = [\"sh\"]\nautostrat = true\n";
    let (manifest, _, warnings) = read(text);
    assert!(manifest.is_some());
    assert_eq!(
        warnings,
        [
            "plugin.toml:6:1: unknown key `run.autostrat`; did you mean `run.autostart`?",
            "plugin.toml:3:1: unknown key `colour`"
        ]
    );
}

#[test]
fn what_a_later_version_honours_warns_now() {
    let text = "manifest = 1\nid = \"a\"\n[run]\nexec = [\"sh\"]\nactivation = \"on-incoming\"\n\
                [permissions]\ndiscovery.lan = true\n[settings.x]\ntype = \"int\"\n";
    let (manifest, _, warnings) = read(text);
    assert!(manifest.is_some());
    assert_eq!(warnings.len(), 3, "{warnings:?}");
}

#[test]
fn every_rule_has_its_error() {
    let head = "manifest = 1\nid = \"a\"\n";
    let run = "[run]\nexec = [\"sh\"]\n";
    for (text, wanted) in [
        (String::new(), "`manifest = 1` is missing"),
        ("manifest = 2\nid = \"a\"\n".to_owned() + run, "newer p2pOS"),
        ("manifest = 1\n".to_owned() + run, "`id` is missing"),
        ("manifest = 1\nid = \"../x\"\n".to_owned() + run, "a plugin id has only"),
        (head.to_owned(), "nothing to start"),
        (format!("{head}protocol = {{ min = 2 }}\n{run}"), "speaks protocol versions 2"),
        (format!("{head}socket = \"udp\"\n{run}"), "must be \"unix\" or \"tcp\""),
        (format!("{head}[run]\n"), "`exec` is missing"),
        (format!("{head}[run]\nexec = []\n"), "1 to 64 words"),
        (format!("{head}[run]\nexec = [\"a\\u0000\"]\n"), "NUL"),
        (format!("{head}{run}stop_timeout = \"1m\"\n"), "`run.stop_timeout`"),
        (format!("{head}{run}start_timeout = 5\n"), "must be a string"),
        (format!("{head}{run}[limits]\nmemory = \"1B\"\n"), "at least 16777216 bytes"),
        (format!("{head}{run}[limits]\nstreams = 257\n"), "from 1 to 256"),
        (format!("{head}{run}[permissions]\nnet.open = [\"chess\"]\n"), "plugin.toml:6:13"),
        (format!("{head}[[serve]]\nprotocol = \"/a/1\"\n"), "`exec` is missing"),
        (format!("{head}[[serve]]\nexec = [\"sh\"]\n"), "[[serve]] needs `protocol`"),
        (format!("{head}[serve]\nexec = [\"sh\"]\n"), "write [[serve]]"),
        (format!("{head}[[serve]]\nprotocol = \"/a/1\"\nexec = [\"sh\"]\ntrust = \"anyone\"\n"), "peers.any"),
        (format!("{head}name = \"a\\u001b[2J\"\n{run}"), "cannot show"),
    ] {
        let (_, errors, _) = read(&text);
        assert!(
            errors.iter().any(|error| error.contains(wanted)),
            "{wanted:?} not in {errors:?} for\n{text}"
        );
    }
}

#[test]
fn what_is_missing_is_told_with_a_line_where_it_would_stand() {
    for (text, wanted) in [
        ("", ["1:1: `manifest = 1` is missing", "1:1: `id` is missing"].as_slice()),
        ("manifest = 1\nname = \"x\"\n\n\n", &["2:11: `id` is missing"]),
        ("manifest = 1\nid = \"a\"\n", &["2:9: a plugin needs [run]"]),
        ("manifest = 1\nid = \"a\"\n\n[run]\nautostart = true\n", &["4:1: `exec` is missing"]),
        ("manifest = 1\nid = \"a\"\n[[serve]]\nprotocol = \"/a/1\"\n", &["3:1: `exec` is missing"]),
    ] {
        let (_, errors, _) = read(text);
        for wanted in wanted {
            let wanted = format!("plugin.toml:{wanted}");
            assert!(errors.iter().any(|error| error.starts_with(&wanted)), "{wanted} not in {errors:?}");
        }
    }
}

#[test]
fn truncations_and_gibberish_never_panic() {
    for end in 0..WHOLE.len() {
        if WHOLE.is_char_boundary(end) {
            read(&WHOLE[..end]);
        }
    }
    let deep = "a = ".to_owned() + &"[".repeat(100_000);
    for text in
        [deep.as_str(), "\u{feff}", "\0", "[[", "a.b.c.d = 1", "=\n=", "id = \"\u{202e}\"", "\r", "[a]\n[a]"]
    {
        read(text);
    }
}

proptest::proptest! {
    #[test]
    fn mutated_manifests_never_panic(at in 0..WHOLE.len(), with in "\\PC{0,6}", cut in 0usize..12) {
        let mut text = WHOLE.to_owned();
        let end = (at + cut).min(text.len());
        if text.is_char_boundary(at) && text.is_char_boundary(end) {
            text.replace_range(at..end, &with);
            read(&text);
        }
    }
}
