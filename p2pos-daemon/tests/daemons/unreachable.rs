//! What a plugin hears of a peer to whom no way leads: what was tried, relays too, and what to do about it.

use std::time::Duration;

use p2pos_identity::ProtocolName;
use p2pos_plugin_protocol::{
    client::{Error, OpenRequest},
    code::Code,
    message::{ErrorReply, RelayUse},
};

use crate::{
    daemon::User,
    gone::ghost,
    plugin::{PROTOCOL, Pair, Plugin, assert_echoes, soon},
};

/// Long enough for the relay's answer on this machine, short enough for a test.
const TRY_FOR: Duration = Duration::from_secs(3);

const TOKEN: &str = "00112233445566778899aabbccddeeff";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn error_302_tells_what_became_of_each_address_and_each_relay() {
    let (a, relay) = User::pair();
    let here = Plugin::at(&a, "here").await;
    let peer = ghost(&a);
    // It relays for nobody, and says so; the other one is not there at all.
    let through = format!("relay:{}@{}/{TOKEN}", relay.peer, relay.address());
    let nowhere = format!("relay:{}@192.0.2.2:9/{TOKEN}", User::up().peer);
    a.ok(&["contacts", "address", "ghost", "192.0.2.1:9", &through, &nowhere]);
    let reply = refused(&here, peer).await;
    assert_eq!(reply.code, Code::UNREACHABLE, "{reply:?}");
    let has = |start: &str| reply.details.iter().any(|line| line.starts_with(start));
    assert!(has("address 1: "), "{reply:?}");
    assert!(has("relay 1: refused after ") && has("relay 2: "), "{reply:?}");
    // And which steps that was, although no connection ever stood.
    for step in ["look up: worked", "dial by IPv4: ", "call relay: failed"] {
        assert!(has(step), "{step}: {reply:?}");
    }
    let all = format!("{reply:?}");
    assert!(!all.contains("192.0.2.") && !all.contains("127.0.0.1"), "no address passes to a plugin: {all}");

    // The user sees whom.
    let explained = a.json(&["explain", "ghost"]);
    let attempts = explained["attempts"].as_array().unwrap();
    let by_relay = attempts.iter().find(|attempt| attempt["relay"] == "b").unwrap();
    assert_eq!(by_relay["address"], relay.address().to_string());
    assert!(
        explained["timeline"].as_array().unwrap().iter().any(|line| line["step"] == "call relay"),
        "{explained}"
    );
    assert!(by_relay["outcome"].as_str().unwrap().contains("does not serve"), "{by_relay}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_relays_are_forbidden_the_error_is_303_with_the_way_out() {
    let (a, relay) = User::pair();
    let here = Plugin::at(&a, "here").await;
    let peer = ghost(&a);
    let through = format!("relay:{}@{}/{TOKEN}", relay.peer, relay.address());
    a.ok(&["contacts", "address", "ghost", &through]);
    assert!(a.ok(&["contacts", "relay", "ghost", "never"]).is_empty());
    assert_eq!(a.json(&["contacts", "show", "ghost"])["relay"], "never");
    let reply = refused(&here, peer).await;
    assert_eq!((reply.code, reply.details.len()), (Code::NEEDS_RELAY, 0), "{reply:?}");
    assert!(reply.hint.contains("p2pos contacts relay"), "{reply:?}");
    let ping = a.run(&["ping", "ghost", "-c", "1"]);
    let said = String::from_utf8_lossy(&ping.stderr).into_owned();
    assert!(said.contains("p2pos contacts relay ghost auto"), "{said}");

    // With an address of its own it is tried there until the time is over.
    a.ok(&["contacts", "address", "ghost", "192.0.2.1:9", &through]);
    let reply = refused(&here, peer).await;
    assert_eq!(reply.code, Code::NEEDS_RELAY, "{reply:?}");
    assert!(reply.details.iter().all(|line| !line.contains("relay")), "{reply:?}");

    a.ok(&["contacts", "relay", "ghost", "auto"]);
    let reply = refused(&here, peer).await;
    assert_eq!(reply.code, Code::UNREACHABLE, "{reply:?}");
    assert!(reply.details.iter().any(|line| line.starts_with("relay 1: ")), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_wants_no_relay_gets_its_stream_where_none_is_needed() {
    let pair = Pair::up().await;
    pair.b.run_echo();
    let name = ProtocolName::parse("/echo/1").unwrap();
    let request = OpenRequest { relay: RelayUse::Never, ..OpenRequest::new(pair.b.id(), name) };
    let mut stream = soon(pair.here.client.open_with(request)).await.unwrap();
    assert_echoes(&mut stream).await;
}

async fn refused(here: &Plugin, peer: p2pos_identity::PeerId) -> ErrorReply {
    let name = ProtocolName::parse(PROTOCOL).unwrap();
    let request = OpenRequest { timeout: Some(TRY_FOR), ..OpenRequest::new(peer, name) };
    match soon(here.client.open_with(request)).await {
        Err(Error::Refused(reply)) => *reply,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a stream to nowhere"),
    }
}
