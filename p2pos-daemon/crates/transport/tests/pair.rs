//! Two endpoints over real loopback sockets: connecting, streams and their endings, datagrams, dialling.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "helpers of tests fail like tests")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use p2pos_identity::SecretKey;
use p2pos_peer_protocol::EndCode;
use p2pos_transport::{AttemptOutcome, Lost, PathKind, SendDatagramError, SendEnd, StreamEnd};

use support::{connect, dial, endpoint, pair, read_all, soon, v4_of, v6_of};

#[tokio::test]
async fn both_sides_prove_who_they_are_in_both_address_families() {
    let (a, b) = (endpoint(1), endpoint(2));
    assert_eq!(v4_of(&a).port(), v6_of(&a).port(), "one port serves both families");
    for address in [v4_of(&b), v6_of(&b)] {
        let addresses = [address];
        let both = async { tokio::join!(dial(&a, b.peer_id(), &addresses), b.accept()) };
        let ((dialed, _), accepted) = soon(both).await;
        let (dialed, accepted) = (dialed.unwrap(), accepted.unwrap());
        assert_eq!((dialed.peer(), accepted.peer()), (b.peer_id(), a.peer_id()));
        assert_eq!((dialed.is_initiator(), accepted.is_initiator()), (true, false));
        let path = dialed.path().unwrap();
        assert_eq!((path.kind, path.remote), (PathKind::Loopback, address));
    }
}

#[tokio::test]
async fn a_stream_carries_bytes_both_ways_and_ends_by_halves() {
    let (_a, dialed, _b, accepted) = soon(pair()).await;
    let (mut send, mut recv) = dialed.open().await.unwrap();
    send.write_chunks(&mut [Bytes::from_static(b"hello "), Bytes::from_static(b"there")]).await.unwrap();
    send.finish();
    let (mut back, mut theirs) = soon(accepted.accept_stream()).await.unwrap();
    assert_eq!(soon(read_all(&mut theirs)).await.unwrap(), b"hello there");
    back.write_chunks(&mut [Bytes::from_static(b"and back")]).await.unwrap();
    back.finish();
    assert_eq!(soon(read_all(&mut recv)).await.unwrap(), b"and back");
    assert_eq!(soon(send.stopped()).await, SendEnd::Delivered);
    assert_eq!(send.write_chunks(&mut [Bytes::from_static(b"more")]).await, Err(StreamEnd::Closed));
}

#[tokio::test]
async fn bytes_given_back_are_read_first() {
    let (_a, dialed, _b, accepted) = soon(pair()).await;
    let (mut send, _recv) = dialed.open().await.unwrap();
    send.write_chunks(&mut [Bytes::from_static(b"world")]).await.unwrap();
    send.finish();
    let (_back, mut theirs) = soon(accepted.accept_stream()).await.unwrap();
    theirs.push_front(Bytes::from_static(b"hello "));
    assert_eq!(soon(read_all(&mut theirs)).await.unwrap(), b"hello world");
}

#[tokio::test]
async fn reset_and_stop_carry_their_codes() {
    let (_a, dialed, _b, accepted) = soon(pair()).await;
    let code = EndCode::app(77);
    let (mut send, mut recv) = dialed.open().await.unwrap();
    send.write_chunks(&mut [Bytes::from_static(b"x")]).await.unwrap();
    let (mut back, mut theirs) = soon(accepted.accept_stream()).await.unwrap();
    assert_eq!(soon(theirs.read_chunk()).await.unwrap().unwrap(), "x");
    send.reset(code);
    assert_eq!(soon(theirs.read_chunk()).await, Err(StreamEnd::Reset(code)));
    recv.stop(EndCode::app(78));
    assert_eq!(soon(back.stopped()).await, SendEnd::Stopped(EndCode::app(78)));
    let late = back.write_chunks(&mut [Bytes::from_static(b"late")]).await;
    assert_eq!(late, Err(StreamEnd::Stopped(EndCode::app(78))));
}

#[tokio::test]
async fn a_dropped_half_tells_the_peer_that_its_owner_is_gone() {
    let (_a, dialed, _b, accepted) = soon(pair()).await;
    let (mut send, recv) = dialed.open().await.unwrap();
    send.write_chunks(&mut [Bytes::from_static(b"x")]).await.unwrap();
    let (back, mut theirs) = soon(accepted.accept_stream()).await.unwrap();
    assert_eq!(soon(theirs.read_chunk()).await.unwrap().unwrap(), "x");
    drop(recv);
    assert_eq!(soon(back.stopped()).await, SendEnd::Stopped(EndCode::PLUGIN_GONE));
    drop(send);
    assert_eq!(soon(theirs.read_chunk()).await, Err(StreamEnd::Reset(EndCode::PLUGIN_GONE)));
}

#[tokio::test]
async fn closing_tells_the_peer_the_code_and_ends_its_streams() {
    let (a, dialed, _b, accepted) = soon(pair()).await;
    let (mut send, _recv) = dialed.open().await.unwrap();
    send.write_chunks(&mut [Bytes::from_static(b"x")]).await.unwrap();
    let (_back, mut theirs) = soon(accepted.accept_stream()).await.unwrap();
    soon(a.close(EndCode::SHUTTING_DOWN)).await;
    let lost = Lost::Closed(EndCode::SHUTTING_DOWN);
    assert_eq!(soon(accepted.accept_stream()).await.unwrap_err(), lost);
    let end = loop {
        if let Err(end) = soon(theirs.read_chunk()).await {
            break end;
        }
    };
    assert_eq!(end, StreamEnd::Lost(lost));
    assert_eq!(end.code(), EndCode::PATH_LOST);
    assert_eq!(dialed.lost(), Some(Lost::Local));
    assert!(soon(a.accept()).await.is_none());
}

#[tokio::test]
async fn datagrams_arrive_and_too_big_ones_fail_here() {
    let (_a, dialed, _b, accepted) = soon(pair()).await;
    dialed.send_datagram(Bytes::from_static(b"ping")).unwrap();
    let mut datagrams = vec![Bytes::new(); 4];
    assert_eq!(soon(accepted.read_datagrams(&mut datagrams)).await, Ok(1));
    assert_eq!(datagrams[0], "ping");
    let size = dialed.datagram_bytes_max() + 40_000;
    let error = dialed.send_datagram(Bytes::from(vec![0; size])).unwrap_err();
    let SendDatagramError::TooBig { size: told, max } = error else { panic!("{error}") };
    assert_eq!(told, size);
    assert!(max >= 1_000 && max < size);
}

#[tokio::test]
async fn the_first_candidate_that_answers_wins_and_the_timeline_says_so() {
    let (a, b) = (endpoint(1), endpoint(2));
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let candidates = [silent.local_addr().unwrap(), v4_of(&b), v6_of(&b)];
    let (connection, attempts) = soon(dial(&a, b.peer_id(), &candidates)).await;
    let outcome = |address| {
        let attempt = attempts.iter().find(|attempt| attempt.address == address).unwrap();
        attempt.outcome.clone()
    };
    assert_eq!(outcome(candidates[0]), AttemptOutcome::Abandoned);
    let winner = connection.unwrap().path().unwrap().remote;
    assert_eq!(outcome(winner), AttemptOutcome::Connected);
    assert!(attempts.iter().all(|attempt| attempt.outcome != AttemptOutcome::Running));
}

#[tokio::test(start_paused = true)]
async fn a_peer_with_another_key_does_not_answer() {
    let (a, b) = (endpoint(1), endpoint(2));
    let stranger = SecretKey::from_seed([3; 32]).peer_id();
    let error = dial(&a, stranger, &[v4_of(&b)]).await.0.unwrap_err();
    assert_eq!(error.attempts.len(), 1);
    assert_eq!(error.attempts[0].outcome, AttemptOutcome::NoAnswer);
    assert!(!error.is_local());
}

#[tokio::test]
async fn an_address_without_a_route_is_told_from_a_silent_one() {
    let a = endpoint(1);
    let peer = SecretKey::from_seed([3; 32]).peer_id();
    let error = soon(dial(&a, peer, &["255.255.255.255:9".parse().unwrap()])).await.0.unwrap_err();
    assert!(error.is_local(), "{error:?}");
    let error = soon(dial(&a, peer, &[])).await.0.unwrap_err();
    assert!(error.attempts.is_empty() && !error.is_local());
}

#[tokio::test]
async fn a_change_of_the_network_keeps_the_connection() {
    let (a, dialed, _b, accepted) = soon(pair()).await;
    let (mut send, _recv) = dialed.open().await.unwrap();
    send.write_chunks(&mut [Bytes::from_static(b"before ")]).await.unwrap();
    a.network_changed().unwrap();
    send.write_chunks(&mut [Bytes::from_static(b"after")]).await.unwrap();
    send.finish();
    let (_back, mut theirs) = soon(accepted.accept_stream()).await.unwrap();
    assert_eq!(soon(read_all(&mut theirs)).await.unwrap(), b"before after");
}

#[tokio::test]
async fn one_endpoint_talks_to_several_peers_at_once() {
    let (a, b, c) = (endpoint(1), endpoint(2), endpoint(3));
    let ((to_b, at_b), (to_c, at_c)) = soon(async { tokio::join!(connect(&a, &b), connect(&a, &c)) }).await;
    for (here, there, text) in [(&to_b, &at_b, "for b"), (&to_c, &at_c, "for c")] {
        let (mut send, _recv) = here.open().await.unwrap();
        send.write_chunks(&mut [Bytes::from(text)]).await.unwrap();
        send.finish();
        let (_back, mut theirs) = soon(there.accept_stream()).await.unwrap();
        assert_eq!(soon(read_all(&mut theirs)).await.unwrap(), text.as_bytes());
    }
}

#[tokio::test]
async fn bulk_arrives_whole_through_packets_larger_than_an_ethernet_frame() {
    const TOTAL: usize = 24 * 1024 * 1024;
    let (_a, dialed, _b, accepted) = soon(pair()).await;
    let (mut send, _recv) = dialed.open().await.unwrap();
    let sending = tokio::spawn(async move {
        for start in (0..TOTAL).step_by(64 * 1024) {
            let chunk: Vec<u8> = (start..start + 64 * 1024).map(|at| (at / 1021) as u8).collect();
            send.write_chunks(&mut [Bytes::from(chunk)]).await.unwrap();
        }
        send.finish();
        soon(send.stopped()).await
    });
    let (_back, mut theirs) = soon(accepted.accept_stream()).await.unwrap();
    let received = soon(read_all(&mut theirs)).await.unwrap();
    assert_eq!(received.len(), TOTAL);
    assert!(received.iter().enumerate().all(|(at, byte)| *byte == (at / 1021) as u8));
    assert_eq!(sending.await.unwrap(), SendEnd::Delivered);
    let packets = accepted.traffic().packets_received;
    assert!(TOTAL as u64 / packets > 2_000, "packets grew beyond 1,500 bytes: {packets} of them");
}

#[tokio::test]
async fn a_taken_port_is_said_so() {
    let a = endpoint(1);
    let key = std::sync::Arc::new(SecretKey::from_seed([9; 32]));
    let mut config = p2pos_transport::Config::new(key);
    config.port = Some(v4_of(&a).port());
    config.ipv4 = Some(std::net::Ipv4Addr::LOCALHOST);
    config.ipv6 = None;
    let error = p2pos_transport::Endpoint::bind(&config).unwrap_err();
    assert!(matches!(error, p2pos_transport::BindError::PortTaken { .. }), "{error}");
}

#[tokio::test]
async fn an_idle_connection_stays() {
    let (_a, dialed, _b, accepted) = soon(pair()).await;
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(120)).await;
    tokio::time::resume();
    assert_eq!((dialed.lost(), accepted.lost()), (None, None));
}
