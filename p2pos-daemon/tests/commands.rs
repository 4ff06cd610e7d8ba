//! The real binary without a daemon: what works on files alone, exit codes, where words and data go.

#![expect(clippy::unwrap_used, reason = "a test helper that fails should fail the test")]

#[expect(dead_code, reason = "the daemon's half is for the other test program")]
mod support;

use support::Home;

#[test]
fn exit_0_is_for_what_was_done_and_data_goes_to_stdout_alone() {
    let home = Home::new();
    let ran = home.run(&["config", "path"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert_eq!(ran.stdout, format!("{}\n", home.file("config.toml").display()));
}

#[test]
fn exit_1_is_for_what_failed() {
    let home = Home::new();
    std::fs::write(home.file("identity.key"), "not a key\n").unwrap();
    let ran = home.run(&["id"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{}", ran.stderr);
    assert!(ran.stderr.starts_with("error: id: "), "{}", ran.stderr);
}

#[test]
fn exit_2_is_for_what_makes_no_sense() {
    let home = Home::new();
    std::fs::write(home.file("config.toml"), "[network]\nport = \"x\"\n").unwrap();
    for words in [&["no-such-command"][..], &["config", "check"], &["config", "set", "relay.mode", "on"]] {
        let ran = home.run(words);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{words:?}: {}", ran.stderr);
    }
}

#[test]
fn exit_3_is_for_a_daemon_that_does_not_run_and_names_the_command_that_starts_it() {
    let home = Home::new();
    for words in [&["status"][..], &["plugins", "list"], &["ping", "bo"], &["dial", "bo", "/echo/1"]] {
        let ran = home.run(words);
        assert_eq!((ran.code, ran.stdout.as_str()), (3, ""), "{words:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("\n  start it: p2pos up\n"), "{}", ran.stderr);
    }
}

#[test]
fn exit_4_is_for_what_the_user_has_to_agree_to() {
    let home = Home::new();
    home.peer_id();
    let ran = home.run(&["id", "backup"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (4, ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("--yes"));
}

#[test]
fn exit_5_is_for_what_is_not_there() {
    let home = Home::new();
    for words in
        [&["contacts", "show", "bo"][..], &["config", "get", "network.prot"], &["id", "backup", "--yes"]]
    {
        let ran = home.run(words);
        assert_eq!((ran.code, ran.stdout.as_str()), (5, ""), "{words:?}: {}", ran.stderr);
    }
}

#[test]
fn an_error_in_json_is_one_document_on_stderr() {
    let home = Home::new();
    let ran = home.run(&["status", "--json"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (3, ""));
    let error: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(error["schema"], "p2pos.error/1");
    assert_eq!(error["exit"], "not_running");
}

#[test]
fn nothing_is_coloured_without_a_terminal() {
    let home = Home::new();
    let ran = home.run(&["status"]);
    assert!(!ran.stderr.contains('\x1b'), "{:?}", ran.stderr);
}

#[test]
fn contacts_can_be_kept_without_a_daemon() {
    let home = Home::new();
    let bo = Home::new().peer_id();
    assert_eq!(home.run(&["contacts", "add", &bo, "bo", "--addr", "192.0.2.7:4000"]).code, 0);
    assert_eq!(home.json(&["contacts", "show", "bo"])["peer_id"], *bo);
    assert_eq!(home.run(&["contacts", "rename", "bo", "beatrice"]).code, 0);
    assert_eq!(home.run(&["contacts", "address", "beatrice", "home.example.org:1"]).code, 0);
    assert_eq!(home.json(&["contacts", "list"])["contacts"][0]["addresses"][0], "home.example.org:1");
    assert_eq!(home.run(&["contacts", "show", &bo]).code, 0);
    assert_eq!(home.run(&["contacts", "remove", "beatrice"]).code, 0);
    assert_eq!(home.json(&["contacts", "list"])["contacts"], serde_json::json!([]));
}

#[test]
fn a_slip_in_a_peer_id_is_named_as_such() {
    let home = Home::new();
    let mut bo = Home::new().peer_id();
    let slip = if bo.ends_with('q') { "p" } else { "q" };
    bo.replace_range(62..63, slip);
    let ran = home.run(&["contacts", "add", &bo, "bo"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
}

#[test]
fn the_24_words_carry_an_identity_to_another_place_and_never_over_one() {
    let old = Home::new();
    let id = old.peer_id();
    let words = old.run(&["id", "backup", "--yes"]).stdout;
    assert_eq!(words.split_whitespace().count(), 24);
    let new = Home::new();
    let ran = new.run_with(&["id", "restore"], &words);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(new.peer_id(), id);
    assert_eq!(new.run_with(&["id", "restore"], &words).code, 1, "an identity was overwritten");
    let ran = Home::new().run_with(&["id", "restore"], &words.replacen(' ', " wrongword ", 1));
    assert_eq!(ran.code, 2, "{}", ran.stderr);
}

#[test]
fn an_unknown_setting_warns_and_a_known_one_is_kept_with_its_comment() {
    let home = Home::new();
    std::fs::write(home.file("config.toml"), "[network]\nport = 1 # mine\nprot = 2\n").unwrap();
    let ran = home.run(&["config", "get", "network.port"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "1\n"));
    assert!(ran.stderr.contains("config.toml:3") && ran.stderr.contains("network.port"), "{}", ran.stderr);
    assert_eq!(home.run(&["config", "set", "network.port", "4000"]).code, 0);
    let text = std::fs::read_to_string(home.file("config.toml")).unwrap();
    assert!(text.contains("port = 4000 # mine\n"), "{text}");
}

#[test]
fn the_environment_wins_over_the_file() {
    let home = Home::new();
    home.run(&["config", "set", "log.level", "debug"]);
    let output =
        home.command(&["config", "get", "log.level"]).env("P2POS_LOG_LEVEL", "warn").output().unwrap();
    assert_eq!(output.stdout, b"warn\n");
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let home = Home::new();
    let mut command = home.command(&["completions", "bash"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_data_directory_too_deep_for_a_socket_is_named_as_such() {
    let home = Home::new();
    let deep = home.file(&"d".repeat(100));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_p2pos"));
    let output = command.arg("--data-dir").arg(deep).arg("status").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("shorter data directory"), "{said}");
}
