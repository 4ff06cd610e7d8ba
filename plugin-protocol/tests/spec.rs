//! SPEC.md against the code: the tables that both have must say the same.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{fs, path::Path};

use p2pos_plugin_protocol::{
    code::Code,
    limits,
    streams::table::{ENDS, STATES, StreamState},
};

#[test]
fn the_error_codes_are_those_of_the_registry() {
    let printed = table("code");
    let ours: Vec<Vec<String>> = Code::ALL
        .iter()
        .map(|code| vec![code.number().to_string(), code.name().to_owned(), code.hint().to_owned()])
        .collect();
    assert_eq!(printed, ours);
}

#[test]
fn the_stream_states_are_those_of_the_machine() {
    let printed = table("state");
    assert_eq!(printed.len(), STATES.len());
    for (row, ours) in printed.iter().zip(&STATES) {
        let state = row[0].split(" (").next().unwrap();
        assert_eq!(state, ours.state.to_string());
        let is_closed = ours.state == StreamState::Closed;
        let come = if is_closed { "whatever crossed: ignored".to_owned() } else { join(ours.may_come, ", ") };
        assert_eq!(row[1], come, "what may come in {state}");
        let sent = if ours.may_send.is_empty() { "nothing".to_owned() } else { join(ours.may_send, ", ") };
        assert_eq!(row[2], sent, "what may be sent in {state}");
        // The specification leaves out what its text says elsewhere; what it does say leads where the machine goes.
        for (trigger, next) in row[3].split("; ").filter_map(|way| way.split_once(" → ")) {
            let is_a_state = STATES.iter().any(|row| row.state.to_string() == next);
            let is_ours =
                ours.leaves.iter().any(|(by, to)| by.to_string() == trigger && to.to_string() == next);
            assert!(is_ours || !is_a_state, "{trigger} → {next} in {state}");
        }
    }
}

#[test]
fn the_ends_are_those_of_the_table() {
    let ours: Vec<Vec<String>> =
        ENDS.iter().map(|row| [row.event, row.here, row.there].map(str::to_owned).to_vec()).collect();
    assert_eq!(table("event"), ours);
}

#[test]
fn whoever_has_only_the_specification_has_every_field_number() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let spec = fs::read_to_string(folder.join("SPEC.md")).unwrap();
    let proto = fs::read_to_string(folder.join("proto/plugin.proto")).unwrap();
    let (_, printed) = spec.split_once("```proto\n").unwrap();
    assert_eq!(
        printed.split_once("```\n").unwrap().0,
        proto,
        "SPEC.md, \"Every field\", is not plugin.proto"
    );
}

#[test]
fn the_limits_are_those_of_the_code() {
    let printed = table("limit");
    let value = |name: &str| {
        let row = printed.iter().find(|row| row[0].starts_with(name));
        row.unwrap_or_else(|| panic!("no limit is called {name}"))[1].clone()
    };
    let grouped = |n: u32| match (n / 1000, n % 1000) {
        (0, n) => n.to_string(),
        (thousands, rest) => format!("{thousands},{rest:03}"),
    };
    let kib = |n: u64| format!("{} KiB", n / 1024);
    let mib = |n: u64| format!("{} MiB", n / 1024 / 1024);
    let seconds = |time: std::time::Duration| format!("{} s", time.as_secs());
    let both =
        |one: std::time::Duration, two: std::time::Duration| format!("{}; {}", seconds(one), seconds(two));
    let cases = [
        ("frame before", format!("{} bytes", grouped(limits::HELLO_BYTES_MAX))),
        ("Data payload", kib(limits::DATA_BYTES_MAX.into())),
        ("window of a stream", format!("{} by default", kib(limits::STREAM_WINDOW_BYTES.into()))),
        ("credit of a stream", mib(limits::CREDIT_BYTES_MAX.into())),
        ("streams, flows", limits::STREAMS_MAX.to_string()),
        ("registered protocols", limits::PROTOCOLS_MAX.to_string()),
        ("open requests", grouped(limits::REQUESTS_MAX)),
        ("protocols in one Open", limits::OPEN_PROTOCOLS_MAX.to_string()),
        ("datagrams that wait", kib(limits::DATAGRAM_QUEUE_BYTES_MAX as u64)),
        ("control frames that wait", mib(limits::CONTROL_QUEUE_BYTES_MAX as u64)),
        ("Hello, after", seconds(limits::HELLO_TIMEOUT)),
        ("answer to Incoming", seconds(limits::ANSWER_TIMEOUT)),
        ("ticket", seconds(limits::TICKET_TTL)),
        ("Ping after silence", both(limits::PING_AFTER, limits::DEAD_AFTER)),
    ];
    for (name, ours) in cases {
        assert_eq!(value(name), ours, "{name}");
    }
    assert!(value("log line").starts_with(&kib(limits::LOG_LINE_BYTES_MAX.into())));
    assert!(value("frame").starts_with("4,096") || value("frame").contains("1 MiB"));
}

fn join<T: ToString>(items: &[T], between: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}

/// The rows of the table of SPEC.md whose first column is called `first`.
fn table(first: &str) -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("SPEC.md");
    let text = fs::read_to_string(path).unwrap();
    let head = format!("| {first} |");
    let rows = text.lines().skip_while(|line| !line.starts_with(&head)).skip(2);
    let rows: Vec<Vec<String>> = rows.take_while(|line| line.starts_with('|')).map(cells).collect();
    assert!(!rows.is_empty(), "SPEC.md has no table of each {first}");
    rows
}

fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|')
        .split(" | ")
        .map(|cell| cell.trim().trim_end_matches('|').trim().to_owned())
        .collect()
}
