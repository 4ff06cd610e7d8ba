//! The real binary as a daemon, and commands that ask it: starting and ending, healing after a kill, two daemons that
//! reach each other, every exit code that needs one.

#![expect(clippy::unwrap_used, reason = "a test helper that fails should fail the test")]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

use support::{Daemon, Home};

#[test]
fn a_daemon_says_that_it_is_ready_answers_and_ends_in_order() {
    let home = Home::new();
    let mut daemon = Daemon::start(&home);
    let status = home.json(&["status"]);
    assert_eq!(status["schema"], "p2pos.status/1");
    assert_eq!(status["pid"], daemon.child.id());
    assert_eq!(status["peer_id"], *home.peer_id());
    assert!(status["udp_port"].as_u64().unwrap() > 0);
    daemon.signal("TERM");
    let (code, said) = daemon.ended();
    assert_eq!(code, 0, "{said}");
    assert!(!home.file("run/control.sock").exists());
    assert_eq!(home.run(&["status"]).code, 3);
}

#[test]
fn ctrl_c_and_a_closed_terminal_end_it_in_order_too() {
    for signal in ["INT", "HUP"] {
        let home = Home::new();
        let mut daemon = Daemon::start(&home);
        daemon.signal(signal);
        assert_eq!(daemon.ended().0, 0, "{signal}");
    }
}

#[test]
fn a_daemon_bound_to_its_starter_ends_with_it() {
    let home = Home::new();
    let mut command = home.command(&["up", "--until-stdin-closes"]);
    command.stdin(Stdio::piped());
    let mut daemon = Daemon::start_with(command);
    drop(daemon.child.stdin.take());
    assert_eq!(daemon.ended().0, 0);
}

#[test]
fn a_second_daemon_on_the_same_data_says_who_runs_and_leaves() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let ran = home.run(&["up"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("process {}", daemon.child.id())), "{}", ran.stderr);
    assert_eq!(home.json(&["status"])["pid"], daemon.child.id(), "the first one is unharmed");
}

#[test]
fn after_a_kill_9_the_next_daemon_starts_as_if_nothing_had_been() {
    let home = Home::new();
    let id = home.peer_id();
    home.run(&["contacts", "add", &Home::new().peer_id(), "bo"]);
    for _ in 0..3 {
        let mut daemon = Daemon::start(&home);
        daemon.child.kill().unwrap();
        daemon.child.wait().unwrap();
        assert!(home.file("run/control.sock").exists(), "the test kills it too late");
        assert_eq!(home.run(&["status"]).code, 3);
    }
    let _daemon = Daemon::start(&home);
    assert_eq!(home.json(&["status"])["peer_id"], *id);
    assert_eq!(home.json(&["contacts", "list"])["contacts"][0]["petname"], "bo");
}

#[test]
fn netcheck_calls_unknown_what_it_does_not_know() {
    let home = Home::new();
    assert_eq!(home.run(&["netcheck"]).code, 3);
    let _daemon = Daemon::start(&home);
    let check = home.json(&["netcheck"]);
    assert_eq!(check["schema"], "p2pos.netcheck/1");
    assert_eq!(check["udp"], "unknown", "nobody has said anything yet");
    assert_eq!(check["ipv4"]["nat"]["class"], "unknown");
    assert_eq!(check["ipv4"]["external"], serde_json::Value::Null);
    assert_eq!(check["asks_routers"], false, "tests ask no router");
    assert!(home.run(&["netcheck"]).stdout.contains("unknown"));
}

#[test]
fn explaining_tells_strangers_untried_and_silent_peers_apart() {
    let (home, other) = (Home::new(), Home::new());
    assert_eq!(home.run(&["explain", "bo"]).code, 3);
    let _daemon = Daemon::start(&home);
    let unknown = home.run(&["explain", "bo"]);
    assert_eq!(unknown.code, 5, "{}", unknown.stderr);
    // A port where nobody answers, for as long as the socket lives.
    let silent = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let address = silent.local_addr().unwrap().to_string();
    home.run(&["contacts", "add", &other.peer_id(), "bo", "--addr", &address]);
    let untried = home.run(&["explain", "bo"]);
    assert_eq!(untried.code, 5, "{}", untried.stderr);
    assert!(untried.stderr.contains("p2pos ping bo"), "{}", untried.stderr);
    let mut asking =
        home.command(&["ping", "bo"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut explained = home.run(&["--json", "explain", "bo"]);
    while explained.code != 0 || !explained.stdout.contains(&address) {
        std::thread::sleep(std::time::Duration::from_millis(20));
        explained = home.run(&["--json", "explain", "bo"]);
    }
    let explained: serde_json::Value = serde_json::from_str(&explained.stdout).unwrap();
    assert_eq!(explained["schema"], "p2pos.explain/1");
    assert_eq!(explained["petname"], "bo");
    assert_eq!(explained["path"], serde_json::Value::Null);
    assert_eq!(explained["expected"], "unknown");
    asking.kill().unwrap();
    asking.wait().unwrap();
}

#[test]
fn the_service_manager_is_told_ready_and_stopping() {
    let home = Home::new();
    let socket = std::os::unix::net::UnixDatagram::bind(home.file("notify")).unwrap();
    socket.set_read_timeout(Some(support::SOON)).unwrap();
    let mut command = home.command(&["up"]);
    command.env("NOTIFY_SOCKET", home.file("notify"));
    let mut daemon = Daemon::start_with(command);
    let told = |expected: &str| {
        let mut bytes = [0; 512];
        let length = socket.recv(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        assert!(text.contains(expected), "{text}");
    };
    told("READY=1");
    daemon.signal("TERM");
    told("STOPPING=1");
    daemon.ended();
}

#[test]
fn a_relay_takes_its_settings_at_the_start_and_counts_its_month_over_restarts() {
    let home = Home::new();
    // As a daemon left it that was killed; a calendar that goes back takes nothing off.
    std::fs::write(home.file("relay-month"), "2099-12 5000\n").unwrap();
    let set = |key: &str, value: &str| {
        let ran = home.run(&["config", "set", key, value]);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.stderr
    };
    set("relay.tcp_ports", "0");
    let mut daemon = Daemon::start(&home);
    assert!(set("relay.mode", "community").contains("next start"), "what the daemon does not do is said");
    let detail = home.json(&["relay", "status"]);
    assert_eq!((&detail["schema"], &detail["mode"]), (&"p2pos.relay/1".into(), &"off".into()));
    daemon.signal("TERM");
    daemon.ended();

    set("relay.month_gib", "3");
    let mut daemon = Daemon::start(&home);
    let detail = home.json(&["relay", "status"]);
    assert_eq!((&detail["mode"], &detail["month_bytes"]), (&"community".into(), &5_000.into()));
    assert_eq!(detail["month_bytes_max"], 3_u64 << 30);
    let shown = home.run(&["relay", "status"]).stdout;
    assert!(shown.contains("for everybody") && shown.contains("4.8 KiB of 3.0 GiB"), "{shown}");
    daemon.signal("TERM");
    let (code, said) = daemon.ended();
    assert_eq!(code, 0, "{said}");
    let left = std::fs::read_to_string(home.file("relay-month")).unwrap();
    assert!(left.ends_with(" 5000\n") && !left.starts_with("2099"), "{left}");
    assert_eq!(home.run(&["relay", "status"]).code, 3);
}

#[test]
fn the_log_has_no_address_of_anybody_at_info() {
    let (ana, bo) = (Home::new(), Home::new());
    let (mut first, _second) = pair(&ana, &bo);
    assert_eq!(ana.run(&["ping", "bo", "-c", "1"]).code, 0);
    first.signal("TERM");
    let (_, said) = first.ended();
    assert!(!said.contains("127.0.0.1"), "{said}");
}

#[test]
fn contacts_go_through_the_daemon_that_holds_the_book() {
    let home = Home::new();
    let _daemon = Daemon::start(&home);
    let bo = Home::new().peer_id();
    assert_eq!(home.run(&["contacts", "add", &bo, "bo", "--addr", "192.0.2.7:4000"]).code, 0);
    assert_eq!(home.json(&["contacts", "show", "BO"])["peer_id"], *bo);
    assert_eq!(home.run(&["contacts", "add", &bo, "bo2"]).code, 1, "one person was added twice");
    assert_eq!(home.run(&["contacts", "remove", "bo"]).code, 0);
    assert_eq!(home.run(&["contacts", "show", "bo"]).code, 5);
}

#[test]
fn a_plugin_runs_only_after_the_user_has_agreed() {
    let home = Home::new();
    plant_hello(&home);
    let _daemon = Daemon::start(&home);
    assert_eq!(home.json(&["plugins", "list"])["plugins"][0]["state"], "disabled");
    let ran = home.run(&["plugins", "start", "hello"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (4, ""), "{}", ran.stderr);
    let ran = home.run(&["plugins", "enable", "hello"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (4, ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("p2pos plugins enable hello --yes"), "{}", ran.stderr);
    assert_eq!(home.run(&["plugins", "enable", "hello", "--yes"]).code, 0);
    assert_ne!(home.json(&["plugins", "info", "hello"])["state"], "disabled");
    assert_eq!(home.run(&["plugins", "disable", "hello"]).code, 0);
    assert_eq!(home.json(&["plugins", "info", "hello"])["state"], "disabled");
}

#[test]
fn an_unknown_plugin_is_not_found_and_the_nearest_is_named() {
    let home = Home::new();
    plant_hello(&home);
    let _daemon = Daemon::start(&home);
    for words in
        [&["plugins", "info", "helo"][..], &["plugins", "start", "helo"], &["plugins", "logs", "helo"]]
    {
        let ran = home.run(words);
        assert_eq!((ran.code, ran.stdout.as_str()), (5, ""), "{words:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("did you mean hello?"), "{}", ran.stderr);
    }
}

#[test]
fn a_manifest_can_be_checked_without_a_daemon() {
    let home = Home::new();
    let dir = plant_hello(&home);
    let ran = home.run(&["plugins", "check", dir.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    // The command is right and the manifest wrong: 1, not 2; and what is missing has a line, too.
    for (manifest, place) in
        [("manifest = 1\nid = 5\n", "plugin.toml:2:6"), ("manifest = 1\n\n", "plugin.toml:1:13")]
    {
        std::fs::write(dir.join("plugin.toml"), manifest).unwrap();
        let ran = home.run(&["plugins", "check", dir.to_str().unwrap()]);
        assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains(place), "{}", ran.stdout);
        assert!(!ran.stdout.contains(":0:0"), "{}", ran.stdout);
    }
}

#[test]
fn two_daemons_reach_each_other_and_a_shell_line_answers() {
    let (ana, bo) = (Home::new(), Home::new());
    plant_hello(&bo);
    let _daemons = pair(&ana, &bo);
    assert_eq!(bo.run(&["plugins", "enable", "hello", "--yes"]).code, 0);
    let ping = ana.run(&["ping", "bo", "--count", "2", "--interval", "1"]);
    assert_eq!(ping.code, 0, "{}", ping.stderr);
    assert!(ping.stdout.contains("loopback") && ping.stdout.contains("2 of 2"), "{}", ping.stdout);
    let dial = ana.run_with(&["dial", "bo", "/hello/1"], "world\n");
    assert_eq!(dial.code, 0, "{}", dial.stderr);
    assert_eq!(dial.stdout, "hello world\n");
    let peers = ana.json(&["status"])["peers"].clone();
    assert_eq!(peers[0]["petname"], "bo");
    assert_eq!(peers[0]["state"], "connected");
}

#[test]
fn the_exit_code_of_dial_tells_why_there_is_no_stream() {
    let (ana, bo) = (Home::new(), Home::new());
    let _daemons = pair(&ana, &bo);
    assert_eq!(ana.run(&["dial", "nobody", "/hello/1"]).code, 5);
    assert_eq!(ana.run(&["dial", "bo", "hello"]).code, 2);
    let ran = ana.run(&["dial", "bo", "/hello/1"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("/hello/1"), "{}", ran.stderr);
    // A socket that takes every packet and says nothing: the deadline is all there is.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let stranger = Home::new().peer_id();
    assert_eq!(ana.run(&["contacts", "add", &stranger, "silent", "--addr", &address]).code, 0);
    let ran = ana.run(&["dial", "silent", "/hello/1", "--timeout", "1"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (6, ""), "{}", ran.stderr);
}

#[test]
fn a_peer_that_has_just_fallen_silent_is_unreachable_and_not_merely_late() {
    let (ana, bo) = (Home::new(), Home::new());
    plant_cat(&bo);
    let (_here, mut there) = pair(&ana, &bo);
    assert_eq!(bo.run(&["plugins", "enable", "cat", "--yes"]).code, 0);
    assert_eq!(ana.run_with(&["dial", "bo", "/cat/1"], "x").stdout, "x");
    there.child.kill().unwrap();
    there.child.wait().unwrap();
    // Before the connection itself has noticed, which takes longer than this.
    let ran = ana.run(&["dial", "bo", "/cat/1", "--timeout", "2"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (6, ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("302 UNREACHABLE"), "{}", ran.stderr);
    assert!(ran.stderr.contains("address 1: no answer after 2"), "{}", ran.stderr);
}

#[test]
fn strangers_are_admitted_or_refused_as_the_user_set_it() {
    for (setting, is_answered) in [("admit", true), ("refuse", false)] {
        let (ana, bo) = (Home::new(), Home::new());
        bo.run(&["config", "set", "network.strangers", setting]);
        let _daemons = (Daemon::start(&ana), Daemon::start(&bo));
        let address = format!("127.0.0.1:{}", bo.json(&["status"])["udp_port"]);
        ana.run(&["contacts", "add", &bo.peer_id(), "bo", "--addr", &address]);
        let ran = ana.run(&["ping", "bo", "-c", "1"]);
        assert_eq!(ran.code == 0, is_answered, "{setting}: {}{}", ran.stdout, ran.stderr);
    }
}

#[test]
fn a_second_ctrl_c_ends_at_once_what_takes_its_time() {
    let home = Home::new();
    let dir = home.file("plugins/stubborn");
    std::fs::create_dir_all(&dir).unwrap();
    let manifest = "manifest = 1\nid = \"stubborn\"\nname = \"Stubborn\"\nversion = \"0.1.0\"\n[run]\n\
                    exec = [\"sh\", \"-c\", \"trap '' TERM; : > $P2POS_DATA_DIR/deaf; while :; do sleep 1; done\"]\n";
    std::fs::write(dir.join("plugin.toml"), manifest).unwrap();
    let mut daemon = Daemon::start(&home);
    let mut enabling = home.command(&["plugins", "enable", "stubborn", "--yes"]).spawn().unwrap();
    // Before its trap stands it is not stubborn yet.
    while !home.file("plugin-data/stubborn/deaf").exists() {}
    daemon.signal("INT");
    // The control socket is the first to go.
    while home.file("run/control.sock").exists() {}
    daemon.signal("INT");
    assert_eq!(daemon.ended().0, 130);
    enabling.wait().unwrap();
}

#[test]
fn garbage_on_the_control_socket_harms_nobody() {
    use std::io::Write as _;

    let home = Home::new();
    let _daemon = Daemon::start(&home);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 100_000], &[0, 0, 0, 1, b'{']] {
        let mut stream = UnixStream::connect(home.file("run/control.sock")).unwrap();
        // It may well be cut off half-way.
        drop(stream.write_all(garbage));
    }
    assert_eq!(home.run(&["status"]).code, 0);
}

#[test]
fn an_author_runs_a_plugin_in_the_own_terminal_and_the_daemon_forgets_it_afterwards() {
    let home = Home::new();
    let _daemon = Daemon::start(&home);
    let dir = home.file("mine");
    std::fs::create_dir(&dir).unwrap();
    let manifest =
        "manifest = 1\nid = \"mine\"\nname = \"Mine\"\nversion = \"0.1.0\"\n[run]\nexec = [\"true\"]\n";
    std::fs::write(dir.join("plugin.toml"), manifest).unwrap();
    let dir = dir.to_str().unwrap();
    assert_eq!(home.run(&["plugins", "run", dir]).code, 0);
    let script = "test -n \"$P2POS_TOKEN\" && test -n \"$P2POS_ENDPOINT\" && pwd && exit 3";
    let ran = home.run(&["plugins", "run", dir, "--", "sh", "-c", script]);
    assert_eq!((ran.code, ran.stdout.trim_end()), (1, std::fs::canonicalize(dir).unwrap().to_str().unwrap()));
    assert!(ran.stderr.contains("exit status: 3"), "{}", ran.stderr);
    let listed = || home.json(&["plugins", "list"])["plugins"].as_array().unwrap().len();
    let begun = std::time::Instant::now();
    while listed() > 0 {
        assert!(begun.elapsed() < support::SOON, "the daemon still knows the plugin");
    }
}

#[test]
fn an_author_reads_the_daemons_complaints_and_the_log_frames_in_the_own_terminal_and_later_by_logs() {
    let home = Home::new();
    let _daemon = Daemon::start(&home);
    let dir = home.file("wrong");
    std::fs::create_dir(&dir).unwrap();
    let manifest = r#"
manifest = 1
id = "wrong"
[run]
exec = ["python3", "main.py"]
"#;
    // Hello, a Log frame, and an empty Data frame for a stream that was never opened.
    let program = r"
import os, socket
s = socket.socket(socket.AF_UNIX)
s.connect(os.environ['P2POS_ENDPOINT'][5:])
hello = b'\x0a\x05p2pOS\x10\x01\x18\x01\x32\x40' + os.environ['P2POS_TOKEN'].encode()
s.sendall(bytes([0, 0, 0, len(hello) + 5, 8, 1, 0x82, 1, len(hello)]) + hello)
s.sendall(bytes.fromhex('0000000af201070802 1203') + b'yes')
s.sendall(bytes.fromhex('0000000412020805'))
while s.recv(999): pass
";
    std::fs::write(dir.join("main.py"), program).unwrap();
    std::fs::write(dir.join("plugin.toml"), manifest).unwrap();
    let ran = home.run(&["plugins", "run", dir.to_str().unwrap()]);
    assert!(ran.stderr.contains("[log info] yes"), "{}", ran.stderr);
    let complaint =
        "its session was ended: 100 PROTOCOL: a frame for a stream that was never opened [S-STREAM-9]";
    assert!(ran.stderr.contains(complaint), "{}", ran.stderr);
    let logs = home.run(&["plugins", "logs", "wrong"]);
    assert_eq!(logs.code, 0, "{}", logs.stderr);
    assert!(logs.stdout.contains(complaint) && logs.stdout.contains("yes"), "{}", logs.stdout);
}

#[test]
fn removing_a_contact_cuts_what_runs_with_them() {
    let (ana, bo) = (Home::new(), Home::new());
    plant_cat(&bo);
    let _daemons = pair(&ana, &bo);
    assert_eq!(bo.run(&["plugins", "enable", "cat", "--yes"]).code, 0);
    let mut dial = ana.command(&["dial", "bo", "/cat/1"]);
    dial.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut dial = dial.spawn().unwrap();
    // Held open: only the other side can end this.
    let mut stdin = dial.stdin.take().unwrap();
    stdin.write_all(b"are you there?\n").unwrap();
    let mut answer = String::new();
    BufReader::new(dial.stdout.as_mut().unwrap()).read_line(&mut answer).unwrap();
    assert_eq!(answer, "are you there?\n");
    assert_eq!(bo.json(&["status"])["peers"][0]["state"], "connected");
    let ran = bo.run(&["contacts", "remove", "ana"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let begun = std::time::Instant::now();
    let status = loop {
        if let Some(status) = dial.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < support::SOON, "the stream lives on");
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    assert!(!status.success(), "a stream that was cut is no good end");
    drop(stdin);
    // Who is no contact is a stranger, and what is served to contacts does not exist for strangers.
    let again = ana.run(&["dial", "bo", "/cat/1"]);
    assert_eq!((again.code, again.stdout.as_str()), (1, ""), "{}", again.stderr);
    assert!(again.stderr.contains("304 PROTOCOL_NOT_SUPPORTED"), "{}", again.stderr);
}

#[test]
fn the_first_five_minutes_read_as_agreed() {
    let (ana, bo) = (Home::new(), Home::new());
    plant_hello(&bo);
    let _daemons = pair(&ana, &bo);
    let mut transcript = String::new();
    let mut say = |home: &Home, words: &[&str]| {
        let ran = home.run(words);
        let code = if ran.code == 0 { String::new() } else { format!("[exit {}]\n", ran.code) };
        transcript += &format!("$ p2pos {}\n{}{}{code}\n", words.join(" "), ran.stdout, ran.stderr);
    };
    say(&bo, &["status"]);
    say(&bo, &["plugins", "list"]);
    say(&bo, &["plugins", "start", "hello"]);
    say(&bo, &["plugins", "enable", "hello"]);
    say(&bo, &["plugins", "enable", "hello", "--yes"]);
    say(&bo, &["plugins", "list"]);
    say(&ana, &["contacts", "list"]);
    say(&ana, &["contacts", "show", "ob"]);
    say(&ana, &["ping", "bo", "-c", "2", "-i", "1"]);
    say(&ana, &["dial", "bo", "/hello/1"]);
    say(&ana, &["dial", "bo", "/chess/1"]);
    // The refused stream is over for us before it is over for QUIC.
    let begun = std::time::Instant::now();
    while ana.json(&["status"])["peers"][0]["streams"] != 0 {
        assert!(begun.elapsed() < support::SOON, "a stream stays");
    }
    say(&ana, &["status"]);
    say(&ana, &["config", "get", "network.prot"]);
    let text = normalised(&transcript, &[(&ana, "ana"), (&bo, "bo")]);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/first-five-minutes.txt");
    if std::env::var_os("P2POS_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(path, &text).unwrap();
    }
    let agreed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(agreed == text, "not as agreed (P2POS_GOLDEN=write renews it):\n{text}");
}

/// Everything that differs from run to run becomes a word: ids, places, ports, process ids, times, and the space that
/// tables leave for them.
fn normalised(text: &str, homes: &[(&Home, &str)]) -> String {
    let mut text = text.to_owned();
    for (home, name) in homes {
        text = text.replace(&home.peer_id(), &format!("p2p1q..{name}"));
        text = text.replace(home.path().to_str().unwrap(), &format!("~{name}"));
    }
    let number = |word: &str| word.trim_end_matches(',').parse::<f64>().is_ok();
    let mut lines = String::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        for at in 0..words.len() {
            let is_time =
                matches!(words.get(at + 1).map(|unit| unit.trim_end_matches(',')), Some("us" | "ms" | "s"));
            let is_named = at > 0 && matches!(words[at - 1].as_str(), "port" | "process");
            if number(&words[at]) && (is_time || is_named) {
                words[at] = "N".to_owned();
                if is_time {
                    let tail = if words[at + 1].ends_with(',') { "," } else { "" };
                    words[at + 1] = format!("time{tail}");
                }
            } else if let Some((host, port)) = words[at].rsplit_once(':')
                && host == "127.0.0.1"
                && number(port)
            {
                words[at] = format!("{host}:N");
            }
        }
        lines.push_str(&" ".repeat(indent));
        lines.push_str(&words.join(" "));
        lines.push('\n');
    }
    lines
}

/// Two daemons that are each other's contact.
fn pair(ana: &Home, bo: &Home) -> (Daemon, Daemon) {
    let daemons = (Daemon::start(ana), Daemon::start(bo));
    for (here, there, name) in [(ana, bo, "bo"), (bo, ana, "ana")] {
        let address = format!("127.0.0.1:{}", there.json(&["status"])["udp_port"]);
        let ran = here.run(&["contacts", "add", &there.peer_id(), name, "--addr", &address]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }
    daemons
}

/// Puts a plugin into the plugins folder that says back what it hears.
fn plant_cat(home: &Home) {
    let dir = home.file("plugins/cat");
    std::fs::create_dir_all(&dir).unwrap();
    let manifest = "manifest = 1\nid = \"cat\"\n[[serve]]\nprotocol = \"/cat/1\"\nexec = [\"cat\"]\n";
    std::fs::write(dir.join("plugin.toml"), manifest).unwrap();
}

/// Puts a plugin of one shell line into the plugins folder.
fn plant_hello(home: &Home) -> std::path::PathBuf {
    let dir = home.file("plugins/hello");
    std::fs::create_dir_all(&dir).unwrap();
    let manifest = r#"manifest = 1
id = "hello"
name = "Hello"
version = "0.1.0"

[[serve]]
protocol = "/hello/1"
exec = ["sh", "-c", 'read -r name; echo "hello $name"']
"#;
    std::fs::write(Path::new(&dir).join("plugin.toml"), manifest).unwrap();
    dir
}
