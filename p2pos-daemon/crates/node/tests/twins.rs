//! Two connections between one pair: both sides dial at once, and both sides agree on the one that stays.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use p2pos_node::PeerState;

use support::{Daemon, daemon, peer_id, request, round_trip, serve_echo, soon, until};

const ROUNDS: u8 = 100;

#[tokio::test]
async fn simultaneous_dials_end_with_one_connection_and_no_lost_stream_a_hundred_times() {
    let mut rounds = tokio::task::JoinSet::new();
    let mut crossed = 0;
    for round in 0..ROUNDS {
        rounds.spawn(simultaneous_dials(round));
        // A few at a time: the point is the order of events, not load.
        while rounds.len() >= 8 {
            crossed += u32::from(rounds.join_next().await.unwrap().unwrap());
        }
    }
    crossed += rounds.join_all().await.into_iter().map(u32::from).sum::<u32>();
    assert!(crossed > 20, "the dials crossed only {crossed} times, so this test shows little");
}

/// Both open at once, the second a little later in most rounds, so that every order of events occurs. Tells whether two
/// connections came of it.
async fn simultaneous_dials(round: u8) -> bool {
    let (a, b) = (daemon(2 * round), daemon(2 * round + 1));
    a.knows(&b);
    b.knows(&a);
    serve_echo(&a);
    serve_echo(&b);
    let from_a = a.node.open(request(b.node.peer_id()));
    let from_b = async {
        tokio::time::sleep(Duration::from_micros(u64::from(round % 16) * 150)).await;
        b.node.open(request(a.node.peer_id())).await
    };
    let (from_a, from_b) = soon(async { tokio::join!(from_a, from_b) }).await;
    let mut streams = vec![from_a.unwrap(), from_b.unwrap()];
    // Streams opened right after, while one connection may still be on its way out.
    for _ in 0..3 {
        streams.push(soon(a.node.open(request(b.node.peer_id()))).await.unwrap());
        streams.push(soon(b.node.open(request(a.node.peer_id()))).await.unwrap());
    }
    for opened in streams {
        let stream = opened.channel.into_stream().unwrap();
        assert_eq!(soon(round_trip(stream, "not lost")).await.unwrap(), b"not lost");
    }
    assert_eq!(a.node.peers()[0].state, PeerState::Connected);
    assert_eq!(b.node.peers()[0].state, PeerState::Connected);
    a.node.peers()[0].connections == 2
}

#[tokio::test]
async fn what_is_written_before_the_answer_survives_simultaneous_dials_a_hundred_times() {
    let mut rounds = tokio::task::JoinSet::new();
    let mut crossed = 0;
    for round in 0..ROUNDS {
        rounds.spawn(early_words(round));
        while rounds.len() >= 8 {
            crossed += u32::from(rounds.join_next().await.unwrap().unwrap());
        }
    }
    crossed += rounds.join_all().await.into_iter().map(u32::from).sum::<u32>();
    assert!(crossed > 20, "the dials crossed only {crossed} times, so this test shows little");
}

/// As `simultaneous_dials`, but nobody waits for an answer before writing, from the first stream on.
async fn early_words(round: u8) -> bool {
    let (a, b) = (daemon(2 * round), daemon(2 * round + 1));
    a.knows(&b);
    b.knows(&a);
    serve_echo(&a);
    serve_echo(&b);
    let speak = async |from: &Daemon, to: &Daemon| {
        let mut opening = from.node.begin(request(to.node.peer_id())).await.unwrap();
        opening.send.write(Bytes::from_static(b"not lost")).await.unwrap();
        opening.send.finish();
        let mut recv = opening.answer.wait().await.unwrap().recv;
        let mut heard = Vec::new();
        while let Some(chunk) = recv.read_chunk().await.unwrap() {
            heard.extend_from_slice(&chunk);
        }
        assert_eq!(heard, b"not lost");
    };
    let from_b = async {
        tokio::time::sleep(Duration::from_micros(u64::from(round % 16) * 150)).await;
        for _ in 0..4 {
            speak(&b, &a).await;
        }
    };
    let from_a = async {
        for _ in 0..4 {
            speak(&a, &b).await;
        }
    };
    soon(async { tokio::join!(from_a, from_b) }).await;
    a.node.peers()[0].connections == 2
}

#[tokio::test]
async fn both_sides_choose_the_smaller_peers_dial_and_close_the_other_when_it_is_empty() {
    let (smaller, greater) = if peer_id(1) < peer_id(2) { (1, 2) } else { (2, 1) };
    let (a, b) = (daemon(smaller), daemon(greater));
    a.knows(&b);
    b.knows(&a);
    serve_echo(&a);
    serve_echo(&b);
    let both = async {
        tokio::join!(a.node.open(request(b.node.peer_id())), b.node.open(request(a.node.peer_id())))
    };
    let (mut of_a, mut of_b) = soon(async {
        let (of_a, of_b) = both.await;
        (of_a.unwrap().channel.into_stream().unwrap(), of_b.unwrap().channel.into_stream().unwrap())
    })
    .await;
    assert_eq!((a.node.peers()[0].connections, b.node.peers()[0].connections), (2, 2), "the dials crossed");
    // Streams on the connection that lost live on.
    for _ in 0..3 {
        for stream in [&mut of_a, &mut of_b] {
            stream.send.write(Bytes::from_static(b"x")).await.unwrap();
            assert_eq!(soon(stream.recv.read_chunk()).await.unwrap().unwrap(), "x");
        }
        tokio::time::pause();
        tokio::time::sleep(Duration::from_secs(5)).await;
        tokio::time::resume();
    }
    drop((of_a, of_b));
    until(|| a.node.peers()[0].streams == 0 && b.node.peers()[0].streams == 0).await;
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(10)).await;
    tokio::time::resume();
    assert_eq!(a.node.peers()[0].connections, 1);
    assert_eq!(b.node.peers()[0].connections, 1);
    let stream = soon(b.node.open(request(a.node.peer_id()))).await.unwrap().channel.into_stream().unwrap();
    assert_eq!(soon(round_trip(stream, "y")).await.unwrap(), b"y");
}
