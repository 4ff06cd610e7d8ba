//! Golden files: every document as people and as programs see it, compared with `tests/golden`.
//!
//! After a change that is meant: `P2POS_GOLDEN=write cargo test -p p2pos golden`, and read the difference.

use std::path::PathBuf;
use std::{env, fs};

use p2pos_control::{
    CheckReport, Contact, ContactList, DemoChat, DemoPath, DemoReport, DemoRoundTrip, DemoTransfer,
    DialAttempt, Document, Done, Exit, Explained, Failure, Family, Identity, Known, LogLine, NatSide,
    Netcheck, PeerStatus, PingReport, PingRound, PluginDetail, PluginList, PluginRow, Problem, RelayDetail,
    RelayDrop, RelayLease, RelayShare, RelayUser, RouterAnswer, Setting, Settings, Status, TimelineEntry,
};

use super::render::render;

const ME: &str = "p2p1qm4h247ypd2jq8060wru9tmcf3y32d0g4xg0sdjwhnku0estjfxnqzlekqw";
const BO: &str = "p2p1qlst7ra6k49pggyjy4f03k0c6d8knjn2f7jnh4vtwegn4z85zmz9s8ff25f";
/// What a plugin or a peer would write to take over a terminal.
const HOSTILE: &str = "\x1b]0;owned\x07\x1b[2Jhi\r\n\u{202e}evil";

#[test]
fn documents_for_people_and_programs_are_as_agreed() {
    let write = env::var_os("P2POS_GOLDEN").is_some_and(|value| value == "write");
    let mut differing = Vec::new();
    for (name, document) in samples() {
        let json = serde_json::to_string_pretty(&document).unwrap() + "\n";
        for (file, text) in [(format!("{name}.txt"), render(&document)), (format!("{name}.json"), json)] {
            let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(&file);
            if write {
                fs::write(&path, &text).unwrap();
            } else if fs::read_to_string(&path).unwrap_or_default() != text {
                differing.push(format!("{file} should be\n{text}"));
            }
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn nothing_hostile_reaches_the_terminal() {
    for (name, document) in samples() {
        let text = render(&document);
        let strange =
            text.chars().find(|&letter| letter != '\n' && !p2pos_identity::Untrusted::is_harmless(letter));
        assert_eq!(strange, None, "{name}");
    }
}

fn samples() -> Vec<(&'static str, Document)> {
    vec![
        ("done", Document::Done(Done { what: "network.port is 4000".into() })),
        (
            "error",
            Document::Error(
                Failure::new(Exit::NotFound, "there is no contact \"ob\"").next("did you mean bo?"),
            ),
        ),
        ("status", Document::Status(status())),
        ("status-alone", Document::Status(Status { peers: Vec::new(), ..status() })),
        ("identity", Document::Identity(identity())),
        ("contacts", Document::Contacts(ContactList { contacts: vec![contact("bo"), contact(HOSTILE)] })),
        ("contacts-none", Document::Contacts(ContactList::default())),
        ("contact", Document::Contact(contact("bo"))),
        (
            "contact-no-relay",
            Document::Contact(Contact { relay: "never".into(), addresses: Vec::new(), ..contact("bo") }),
        ),
        ("plugins", Document::Plugins(PluginList { plugins: vec![chat(), echo()] })),
        ("plugin", Document::Plugin(Box::new(detail()))),
        ("plugin-log", Document::LogLine(log_line())),
        ("plugin-check", Document::Check(check())),
        ("ping-round", Document::PingRound(round(Some(1_250)))),
        ("ping-round-lost", Document::PingRound(round(None))),
        ("ping-round-relayed", Document::PingRound(relayed_round())),
        ("explain", Document::Explain(Box::new(explained()))),
        ("explain-unreached", Document::Explain(Box::new(unreached()))),
        ("netcheck", Document::Netcheck(Box::new(netcheck()))),
        ("netcheck-unknown", Document::Netcheck(Box::new(unchecked()))),
        ("relay", Document::Relay(Box::new(relay()))),
        ("relay-contacts", Document::Relay(Box::new(relay_for_contacts()))),
        ("relay-off", Document::Relay(Box::new(relay_off()))),
        ("ping", Document::Ping(ping(3))),
        ("ping-none", Document::Ping(ping(0))),
        ("config", Document::Config(settings())),
        ("demo", Document::Demo(Box::new(demo()))),
        ("demo-failed", Document::Demo(Box::new(demo_failed()))),
    ]
}

fn status() -> Status {
    Status {
        version: "0.1.0".into(),
        pid: 4_242,
        peer_id: ME.into(),
        uptime_s: 7_300,
        data_dir: "/home/ana/.local/share/p2pos".into(),
        udp_port: 41_733,
        plugins: 3,
        plugins_running: 2,
        contacts: 2,
        peers: vec![
            PeerStatus {
                peer_id: BO.into(),
                petname: Some("bo".into()),
                state: "connected".into(),
                path: Some("relayed".into()),
                relay: Some("mira".into()),
                rtt_us: Some(640),
                streams: 2,
                why: "both routers change ports".into(),
            },
            PeerStatus {
                peer_id: ME.into(),
                petname: None,
                state: "waiting".into(),
                path: None,
                relay: None,
                rtt_us: None,
                streams: 0,
                why: "no answer".into(),
            },
        ],
    }
}

fn identity() -> Identity {
    Identity {
        peer_id: ME.into(),
        words: ["buzz", "display", "deal", "flee"].map(str::to_owned).to_vec(),
        key_file: "/home/ana/.local/share/p2pos/identity.key".into(),
        is_new: false,
    }
}

fn contact(petname: &str) -> Contact {
    Contact {
        petname: petname.into(),
        peer_id: BO.into(),
        trust: "new".into(),
        addresses: vec!["192.0.2.7:41733".into(), "[2001:db8::7]:41733".into()],
        relay: "auto".into(),
        added_unix_s: 1_795_249_800,
    }
}

fn chat() -> PluginRow {
    PluginRow {
        id: "chat".into(),
        name: "Chat".into(),
        version: "1.2.0".into(),
        state: "running".into(),
        pid: Some(777),
        since_s: 12,
        streams: 1,
        status: HOSTILE.into(),
        ..PluginRow::default()
    }
}

fn echo() -> PluginRow {
    PluginRow {
        id: "org.example.echo".into(),
        version: "0.1.0".into(),
        state: "backoff".into(),
        reason: "left before Ready (exit code 1)".into(),
        since_s: 90,
        restarts: 3,
        ..PluginRow::default()
    }
}

fn detail() -> PluginDetail {
    PluginDetail {
        row: chat(),
        description: "Talks".into(),
        directory: "/home/ana/.local/share/p2pos/plugins/chat".into(),
        protocols: vec!["/chat/1".into()],
        asks: vec!["net.open /chat/1".into(), "contacts.read".into()],
        granted: vec!["net.open /chat/1".into()],
        approval: "sha256-0123: net.open /chat/1, contacts.read".into(),
        sandbox: vec!["rlimits".into()],
        warnings: vec!["plugin.toml:3:1: unknown key \"nmae\"".into()],
        errors: Vec::new(),
        last_exit: Some("exit code 1".into()),
        log_tail: vec!["listening".into(), HOSTILE.into()],
    }
}

fn log_line() -> LogLine {
    LogLine {
        unix_ms: 1_795_249_800_123,
        source: "stderr".into(),
        level: "info".into(),
        text: HOSTILE.into(),
    }
}

fn check() -> CheckReport {
    CheckReport {
        directory: "plugins/chat".into(),
        id: Some("chat".into()),
        problems: vec![
            Problem { is_error: true, place: "plugin.toml:3:1".into(), message: "id is missing".into() },
            Problem {
                is_error: false,
                place: "plugin.toml:9:1".into(),
                message: "unknown key \"nmae\"".into(),
            },
        ],
    }
}

fn round(rtt_us: Option<u64>) -> PingRound {
    let why = if rtt_us.is_none() { "no answer in time".into() } else { String::new() };
    PingRound { seq: 3, rtt_us, path: rtt_us.map(|_| "direct".into()), relay: None, why }
}

fn relayed_round() -> PingRound {
    let round = round(Some(48_000));
    PingRound { path: Some("relayed".into()), relay: Some("mira".into()), ..round }
}

fn home() -> NatSide {
    NatSide {
        class: "port-restricted".into(),
        words: "easy: one port, open to whom was called".into(),
        mapping: "endpoint-independent".into(),
        filtering: "unknown".into(),
        layers: Some(1),
        lifetime_s: Some(120),
        hairpin: Known::No,
        is_mapped: false,
    }
}

fn mapped() -> RouterAnswer {
    RouterAnswer {
        router: "192.168.1.1".into(),
        protocol: "PCP".into(),
        state: "mapped".into(),
        external: Some("203.0.113.9:41733".into()),
        is_verified: true,
        lease_s: Some(1_800),
        ..RouterAnswer::default()
    }
}

fn refused() -> RouterAnswer {
    RouterAnswer {
        router: "10.64.0.1".into(),
        protocol: "UPnP".into(),
        on_behalf_of: Some("10.64.0.7:41733".into()),
        state: "refused".into(),
        said: HOSTILE.into(),
        ..RouterAnswer::default()
    }
}

fn explained() -> Explained {
    let entry = |after_ms, step: &str, way: &str, outcome: &str| TimelineEntry {
        after_ms,
        step: step.into(),
        way: way.into(),
        outcome: outcome.into(),
    };
    Explained {
        peer_id: BO.into(),
        petname: Some("bo".into()),
        state: "connected".into(),
        path: Some("relayed".into()),
        relay: Some("mira".into()),
        rtt_us: Some(48_000),
        why: "both routers change ports".into(),
        doing: Some("connected".into()),
        ours: NatSide {
            class: "random".into(),
            words: "hard: another port for each peer, at random".into(),
            ..home()
        },
        theirs: NatSide {
            class: "port-block".into(),
            words: "hard: another port for each peer, within a block".into(),
            layers: Some(2),
            lifetime_s: None,
            ..home()
        },
        expected: "relayed".into(),
        advice: Some("let your router forward this computer's UDP port".into()),
        routers: vec![mapped(), refused()],
        attempts: Vec::new(),
        timeline: vec![
            entry(0, "connect", "relay", "worked"),
            entry(812, "punch", "IPv4", "failed"),
            entry(5_900, "punch", "", "again in 240 s"),
        ],
        left_out: 3,
    }
}

fn unreached() -> Explained {
    let attempt = |address: &str, outcome: &str| DialAttempt {
        address: address.into(),
        relay: None,
        after_ms: 250,
        took_ms: 9_750,
        outcome: outcome.into(),
    };
    Explained {
        peer_id: ME.into(),
        state: "waiting".into(),
        why: "no answer".into(),
        ours: NatSide { words: "not known yet".into(), ..NatSide::default() },
        theirs: NatSide { words: "not known yet".into(), ..NatSide::default() },
        expected: "unknown".into(),
        attempts: vec![
            attempt("192.0.2.7:41733", "no answer"),
            DialAttempt {
                relay: Some("mira".into()),
                ..attempt("203.0.113.9:443", "refused: the peer cannot be called through this relay")
            },
            DialAttempt { relay: Some(BO.into()), ..attempt("", "no answer") },
            attempt("[2001:db8::7]:41733", "no answer"),
        ],
        ..Explained::default()
    }
}

fn netcheck() -> Netcheck {
    Netcheck {
        udp: Known::Yes,
        ipv4: Family {
            addresses: vec!["192.168.1.7".into()],
            external: Some("203.0.113.9:41733".into()),
            is_translated: Known::Yes,
            preserves_port: Known::Yes,
            ports: "unknown".into(),
            nat: home(),
            confidence: "certain".into(),
            agreeing: 3,
            dissenting: 0,
        },
        ipv6: Family::default(),
        gateways: vec!["192.168.1.1".into()],
        asks_routers: true,
        routers: vec![mapped(), refused()],
        told: vec!["203.0.113.9:41733".into(), "192.168.1.7:41733".into()],
        keepalive_s: 96,
    }
}

/// Right after the start, before any peer has said anything.
fn unchecked() -> Netcheck {
    let unknown = || "unknown".to_owned();
    let family = || Family {
        addresses: vec!["192.168.1.7".into()],
        ports: unknown(),
        nat: NatSide {
            class: unknown(),
            words: "not known yet".into(),
            mapping: unknown(),
            filtering: unknown(),
            ..NatSide::default()
        },
        confidence: unknown(),
        ..Family::default()
    };
    let ipv6 = Family { addresses: Vec::new(), ..family() };
    Netcheck { ipv4: family(), ipv6, keepalive_s: 15, ..Netcheck::default() }
}

fn relay() -> RelayDetail {
    let user = |peer_id: &str, petname: Option<&str>, has_lease, flows, bytes| RelayUser {
        peer_id: peer_id.into(),
        petname: petname.map(str::to_owned),
        has_lease,
        flows,
        day_bytes: bytes / 2,
        bytes,
    };
    let lease = |petname: &str, flows, address: Option<String>| RelayLease {
        peer_id: BO.into(),
        petname: Some(petname.into()),
        flows,
        address,
    };
    RelayDetail {
        mode: "community".into(),
        contact_leases: 2,
        community_leases: 7,
        flows: 5,
        introductions: 1,
        day_bytes: 35_651_584,
        month_bytes: 53_687_091_200,
        month_bytes_max: Some(107_374_182_400),
        forwarded_bytes: 71_303_168,
        forwarded_packets: 61_022,
        community: RelayShare {
            source_bytes_per_s: 64_000,
            flow_bytes_per_s: 32_000,
            day_bytes_max: Some(67_108_864),
            leases_max: 32,
            flows_max: 16,
            source_flows_max: 4,
        },
        dropped: vec![
            RelayDrop { why: "flow rate".into(), packets: 120 },
            RelayDrop { why: "replayed".into(), packets: 2 },
        ],
        users: vec![
            user(BO, Some("bo"), true, 2, 35_651_584),
            user(ME, Some(HOSTILE), false, 1, 900),
            user(ME, None, true, 0, 0),
        ],
        users_left_out: 12,
        callable_at: vec![
            lease("mira", 1, Some(format!("relay:{BO}@203.0.113.9:443/00112233445566778899aabbccddeeff"))),
            lease("ada", 0, None),
        ],
        ..relay_for_contacts()
    }
}

/// Nobody has asked for anything yet.
fn relay_for_contacts() -> RelayDetail {
    RelayDetail {
        mode: "contacts".into(),
        total_bytes_per_s: 2_500_000,
        contacts: RelayShare {
            source_bytes_per_s: 250_000,
            flow_bytes_per_s: 250_000,
            day_bytes_max: None,
            leases_max: 128,
            flows_max: 128,
            source_flows_max: 16,
        },
        ..RelayDetail::default()
    }
}

fn relay_off() -> RelayDetail {
    RelayDetail { mode: "off".into(), ..relay_for_contacts() }
}

fn ping(received: u32) -> PingReport {
    let some = |us| (received > 0).then_some(us);
    PingReport {
        peer_id: BO.into(),
        petname: Some("bo".into()),
        sent: 4,
        received,
        min_us: some(590),
        median_us: some(640),
        max_us: some(12_000),
    }
}

fn settings() -> Settings {
    let setting = |key: &str, value: &str, origin: &str| Setting {
        key: key.into(),
        value: value.into(),
        origin: origin.into(),
        default: "0".into(),
        help: "what it does".into(),
    };
    Settings {
        file: "/home/ana/.config/p2pos/config.toml".into(),
        settings: vec![setting("network.port", "41733", "file"), setting("plugins.dir", "", "default")],
        problems: Vec::new(),
    }
}

fn demo() -> DemoReport {
    let transfer = |from: &str, to: &str, mib_per_s| DemoTransfer {
        from: from.into(),
        to: to.into(),
        bytes: 1 << 29,
        took_ms: 1_234,
        mib_per_s,
        is_verified: true,
    };
    DemoReport {
        is_verified: true,
        peers: 2,
        paths: vec![DemoPath { from: "a".into(), to: "b".into(), path: "loopback".into() }],
        chat: vec![DemoChat { from: "a".into(), to: "b".into(), text: "Hello b, here is a.".into() }],
        transfers: vec![transfer("a", "b", 414.94), transfer("b", "a", 401.5)],
        round_trip: DemoRoundTrip { rounds: 1_000, p50_us: 115, p99_us: 402 },
        datagrams_sent: 1_000,
        datagrams_received: 998,
        skipped: Vec::new(),
        took_ms: 4_321,
    }
}

fn demo_failed() -> DemoReport {
    let mut report = demo();
    report.is_verified = false;
    report.transfers[0].is_verified = false;
    report.chat.clear();
    report.skipped.push("chat: there is no python3 of version 3.11 or newer".into());
    report
}
