//! The disconnect table at this level: who goes away how, and what the other side sees.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use p2pos_node::{Admission, AttemptOutcome, EndCode, Lost, OpenError, PeerState, StreamEnd};

use support::{daemon, daemon_with, pair, peer_id, request, round_trip, serve_echo, soon, stream, until};

#[tokio::test]
async fn an_orderly_shutdown_tells_every_peer_and_ends_its_streams() {
    let (a, b) = pair();
    let (mut here, there) = soon(stream(&a, &b)).await;
    soon(b.node.shutdown()).await;
    let end = soon(here.recv.read_chunk()).await.unwrap_err();
    assert_eq!(end, StreamEnd::Lost(Lost::Closed(EndCode::SHUTTING_DOWN)));
    assert_eq!(end.code(), EndCode::PATH_LOST);
    drop(there);
    assert!(soon(b.node.accept()).await.is_none());
    assert_eq!(b.node.open(request(a.node.peer_id())).await.unwrap_err(), OpenError::ShuttingDown);
    until(|| a.node.peers().iter().all(|peer| peer.state != PeerState::Connected)).await;
}

#[tokio::test]
async fn an_open_that_waits_is_told_of_the_shutdown() {
    let a = daemon(1);
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    a.knows_at(peer_id(2), &[silent.local_addr().unwrap()]);
    let node = a.node.clone();
    let waiting = tokio::spawn(async move { node.open(request(peer_id(2))).await });
    until(|| a.node.peers().iter().any(|peer| peer.state == PeerState::Dialing)).await;
    soon(a.node.shutdown()).await;
    assert_eq!(soon(waiting).await.unwrap().unwrap_err(), OpenError::ShuttingDown);
}

#[tokio::test]
async fn a_peer_without_addresses_is_unknown() {
    let a = daemon(1);
    assert_eq!(soon(a.node.open(request(peer_id(2)))).await.unwrap_err(), OpenError::UnknownPeer);
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_peer_is_tried_until_the_deadline_and_the_timeline_tells_it() {
    let a = daemon(1);
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    a.knows_at(peer_id(2), &[address]);
    let request = request(peer_id(2)).timeout(Duration::from_secs(9));
    let started = tokio::time::Instant::now();
    let error = a.node.open(request).await.unwrap_err();
    assert_eq!(error.code(), 302);
    assert_eq!(started.elapsed().as_secs(), 9);
    assert_eq!(error.attempts()[0].address, address);
    assert!(matches!(error.attempts()[0].outcome, AttemptOutcome::NoAnswer | AttemptOutcome::Running));
    assert!(error.attempts().len() <= 2);
}

#[tokio::test]
async fn a_machine_without_a_route_says_so_at_once() {
    let a = daemon(1);
    // Of our two families only loopback is bound, and the other one is not at all.
    let b = daemon_with(3, |config| config.ipv6 = None);
    b.knows_at(peer_id(2), &["[::1]:9".parse().unwrap()]);
    let error = soon(b.node.open(request(peer_id(2)))).await.unwrap_err();
    assert_eq!(error.code(), 308, "{error:?}");
    drop(a);
}

#[tokio::test]
async fn a_peer_that_comes_up_while_it_is_dialled_is_reached() {
    let a = daemon(1);
    let port = {
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    a.knows_at(peer_id(2), &[([127, 0, 0, 1], port).into()]);
    let node = a.node.clone();
    let opening = tokio::spawn(async move { node.open(request(peer_id(2))).await });
    tokio::time::sleep(Duration::from_millis(150)).await;
    let b = daemon_with(2, |config| config.port = Some(port));
    serve_echo(&b);
    soon(opening).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_peer_that_calls_us_fulfils_our_wish_for_it() {
    let (a, b) = (daemon(1), daemon(2));
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    a.knows_at(b.node.peer_id(), &[silent.local_addr().unwrap()]);
    b.knows(&a);
    serve_echo(&b);
    let node = a.node.clone();
    let opening = tokio::spawn(async move { node.open(request(peer_id(2))).await });
    until(|| a.node.peers().iter().any(|peer| peer.state == PeerState::Dialing)).await;
    soon(b.node.ping(a.node.peer_id(), 1, Duration::ZERO)).await.unwrap();
    soon(opening).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stranger_too_many_is_turned_away_and_contacts_still_come_in() {
    const STRANGERS_MAX: u8 = 32;
    let contact = peer_id(200);
    let b = daemon_with(2, |config| {
        config.policy = Arc::new(
            move |peer: &p2pos_identity::PeerId| {
                if *peer == contact { Admission::Contact } else { Admission::Stranger }
            },
        );
    });
    let mut strangers = Vec::new();
    for seed in 100..100 + STRANGERS_MAX {
        let stranger = daemon(seed);
        stranger.knows(&b);
        soon(stranger.node.ping(b.node.peer_id(), 1, Duration::ZERO)).await.unwrap();
        strangers.push(stranger);
    }
    let late = daemon(250);
    late.knows(&b);
    let error = soon(late.node.ping(b.node.peer_id(), 1, Duration::ZERO)).await.unwrap_err();
    assert_eq!(error.code(), 305);
    let friend = daemon(200);
    friend.knows(&b);
    soon(friend.node.ping(b.node.peer_id(), 1, Duration::ZERO)).await.unwrap();
    // A stranger that leaves makes room.
    soon(strangers.pop().unwrap().node.shutdown()).await;
    until(|| b.node.peers().iter().filter(|peer| peer.state == PeerState::Connected).count() == 32).await;
    let next = daemon(251);
    next.knows(&b);
    soon(next.node.ping(b.node.peer_id(), 1, Duration::ZERO)).await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_hung_up_and_dialled_again_when_needed() {
    let (a, b) = pair();
    serve_echo(&b);
    soon(a.node.ping(b.node.peer_id(), 1, Duration::ZERO)).await.unwrap();
    until(|| a.node.peers()[0].streams == 0 && b.node.peers()[0].streams == 0).await;
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(59)).await;
    tokio::time::resume();
    assert_eq!(a.node.peers()[0].state, PeerState::Connected);
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(5)).await;
    tokio::time::resume();
    assert_eq!(a.node.peers()[0].state, PeerState::Idle);
    let opened = soon(a.node.open(request(b.node.peer_id()))).await.unwrap();
    assert_eq!(soon(round_trip(opened.channel.into_stream().unwrap(), "x")).await.unwrap(), b"x");
}

#[tokio::test]
async fn a_quiet_stream_keeps_its_connection() {
    let (a, b) = pair();
    let (mut here, mut there) = soon(stream(&a, &b)).await;
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(300)).await;
    tokio::time::resume();
    here.send.write(Bytes::from_static(b"still here")).await.unwrap();
    assert_eq!(soon(there.recv.read_chunk()).await.unwrap().unwrap(), "still here");
}

#[tokio::test]
async fn a_task_without_work_is_forgotten() {
    let (a, b) = pair();
    soon(a.node.ping(b.node.peer_id(), 1, Duration::ZERO)).await.unwrap();
    until(|| a.node.peers()[0].streams == 0).await;
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(200)).await;
    tokio::time::resume();
    assert!(a.node.peers().is_empty() && b.node.peers().is_empty());
}

#[tokio::test]
async fn a_peer_that_speaks_no_hello_is_reset_and_others_are_served() {
    let (a, b) = pair();
    serve_echo(&b);
    // A raw endpoint with an identity of its own, which opens streams and breaks every rule.
    let mut config = p2pos_transport::Config::new(support::key(9));
    config.ipv4 = Some(std::net::Ipv4Addr::LOCALHOST);
    config.ipv6 = None;
    let rogue = p2pos_transport::Endpoint::bind(&config).unwrap();
    let candidate =
        p2pos_traversal::Candidate { addr: b.address(), kind: p2pos_traversal::CandidateKind::Manual };
    let timeline = p2pos_transport::Timeline::default();
    let connection = soon(rogue.dial(b.node.peer_id(), &[candidate], &timeline)).await.unwrap();
    let nonsense: [&[u8]; 3] = [b"\xff\xff too long", b"\x00\x04\xff\xff\xff\xff", b"\x00\x00"];
    for bytes in nonsense {
        let (mut send, mut recv) = connection.open().await.unwrap();
        send.write_chunks(&mut [Bytes::from_static(bytes)]).await.unwrap();
        assert_eq!(soon(recv.read_chunk()).await, Err(StreamEnd::Reset(EndCode::PROTOCOL)));
    }
    // Streams without a hello fill their places, and the next one is turned away; the connection lives.
    let mut silent = Vec::new();
    let limit = loop {
        let (mut send, mut recv) = connection.open().await.unwrap();
        send.write_chunks(&mut [Bytes::from_static(b"\x00")]).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(20), recv.read_chunk()).await;
        if let Ok(end) = early {
            break end;
        }
        silent.push((send, recv));
        assert!(silent.len() <= 64);
    };
    assert_eq!(limit, Err(StreamEnd::Reset(EndCode::STREAM_LIMIT)));
    let opened = soon(a.node.open(request(b.node.peer_id()))).await.unwrap();
    assert_eq!(soon(round_trip(opened.channel.into_stream().unwrap(), "x")).await.unwrap(), b"x");
}

#[tokio::test]
async fn a_stream_that_waits_too_long_for_its_answer_is_refused_for_whoever_forgot_it() {
    let (a, b) = pair();
    let node = a.node.clone();
    let request = request(b.node.peer_id()).timeout(Duration::from_secs(60));
    let opening = tokio::spawn(async move { node.open(request).await });
    let incoming = soon(b.node.accept()).await.unwrap();
    tokio::time::pause();
    let error = opening.await.unwrap().unwrap_err();
    assert_eq!(error.code(), 306);
    tokio::time::resume();
    let protocol = incoming.protocols()[0].clone();
    assert!(matches!(incoming.accept(protocol).await, Err(StreamEnd::Closed)));
}

#[tokio::test]
async fn a_peer_that_is_cut_off_loses_its_streams_and_stays_out_if_the_policy_says_so() {
    let is_contact = Arc::new(AtomicBool::new(true));
    let policy = is_contact.clone();
    let b = daemon_with(2, |config| {
        config.policy =
            Arc::new(
                move |_: &p2pos_identity::PeerId| {
                    if policy.load(Ordering::Relaxed) { Admission::Contact } else { Admission::Refuse }
                },
            );
    });
    let a = daemon(1);
    a.knows(&b);
    let (mut here, mut there) = soon(stream(&a, &b)).await;
    is_contact.store(false, Ordering::Relaxed);
    soon(b.node.disconnect(a.node.peer_id())).await;
    let end = soon(here.recv.read_chunk()).await.unwrap_err();
    assert_eq!(end, StreamEnd::Lost(Lost::Closed(EndCode::REFUSED)));
    assert_eq!(soon(there.recv.read_chunk()).await.unwrap_err(), StreamEnd::Lost(Lost::Local));
    until(|| b.node.peers().iter().all(|peer| peer.state != PeerState::Connected)).await;
    let error = soon(a.node.open(request(b.node.peer_id()))).await.unwrap_err();
    assert_eq!(error, OpenError::Refused { code: 305 });
    is_contact.store(true, Ordering::Relaxed);
    serve_echo(&b);
    soon(a.node.open(request(b.node.peer_id()))).await.unwrap();
}

#[tokio::test]
async fn opens_that_wait_for_a_peer_that_is_cut_off_are_refused() {
    let a = daemon(1);
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    a.knows_at(peer_id(2), &[silent.local_addr().unwrap()]);
    let node = a.node.clone();
    let waiting = tokio::spawn(async move { node.open(request(peer_id(2))).await });
    until(|| a.node.peers().iter().any(|peer| peer.state == PeerState::Dialing)).await;
    soon(a.node.disconnect(peer_id(2))).await;
    assert_eq!(soon(waiting).await.unwrap().unwrap_err(), OpenError::Refused { code: 305 });
    until(|| a.node.peers().iter().all(|peer| peer.state == PeerState::Idle)).await;
    soon(a.node.disconnect(peer_id(3))).await;
}

#[tokio::test]
async fn an_open_that_times_out_a_moment_after_the_look_at_its_answer_condemns_no_healthy_connection() {
    let (a, b) = pair();
    let (mut here, mut there) = soon(stream(&a, &b)).await;
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    let (_second, _theirs) = soon(stream(&a, &b)).await;
    let opening =
        soon(a.node.begin(request(b.node.peer_id()).timeout(Duration::from_secs(10)))).await.unwrap();
    let _unanswered = soon(b.node.accept()).await.unwrap();
    // The hello's acknowledgement arrives; then nobody says anything, nor has to.
    tokio::time::sleep(Duration::from_millis(200)).await;
    tokio::time::pause();
    tokio::time::sleep(Duration::from_millis(9_790)).await;
    let error = opening.answer.wait().await.unwrap_err();
    tokio::time::resume();
    assert_eq!(error.code(), OpenError::Timeout { after: Duration::ZERO }.code());
    here.send.write(Bytes::from_static(b"still here")).await.unwrap();
    assert_eq!(soon(there.recv.read_chunk()).await.unwrap().unwrap(), "still here");
}
