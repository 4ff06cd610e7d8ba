//! Streams between two and three real nodes: negotiation, early data, endings, refusals, ping.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use p2pos_node::{
    Admission, EndCode, Event, Kind, Lost, OpenError, OpenRequest, PathKind, PeerState, PeerStream, Refusal,
    RefusalCode, SendEnd, StreamEnd,
};

use support::{
    accept, daemon, daemon_with, name, pair, peer_id, read_all, request, round_trip, serve_echo, soon,
    stream, take, until,
};

#[tokio::test]
async fn a_stream_is_opened_by_name_at_a_peer_and_answered() {
    let (a, b) = pair();
    serve_echo(&b);
    let opened = soon(a.node.open(request(b.node.peer_id()))).await.unwrap();
    assert_eq!(opened.protocol, name(support::ECHO));
    assert_eq!(opened.path.unwrap().kind, PathKind::Loopback);
    let stream = opened.channel.into_stream().unwrap();
    assert_eq!(soon(round_trip(stream, "hello")).await.unwrap(), b"hello");
}

#[tokio::test]
async fn the_accepter_sees_who_asks_for_what_and_chooses() {
    let (a, b) = pair();
    let names = vec![name("/chat/2"), name("/chat/1")];
    let request = OpenRequest::new(b.node.peer_id(), names.clone());
    let (opened, _accepted) = soon(async {
        tokio::join!(a.node.open(request), async {
            let incoming = b.node.accept().await.unwrap();
            assert_eq!(incoming.peer(), a.node.peer_id());
            assert_eq!(incoming.protocols(), names);
            assert_eq!(incoming.kind(), Kind::Stream);
            incoming.accept(name("/chat/1")).await.unwrap()
        })
    })
    .await;
    assert_eq!(opened.unwrap().protocol, name("/chat/1"));
}

#[tokio::test]
async fn all_streams_of_a_pair_share_one_connection_whoever_opens() {
    let (a, b) = pair();
    b.knows(&a);
    let (_one, _two) = soon(stream(&a, &b)).await;
    let (_three, _four) = soon(stream(&b, &a)).await;
    for side in [&a, &b] {
        let peers = side.node.peers();
        assert_eq!(peers.len(), 1);
        assert_eq!(peers[0].state, PeerState::Connected);
        assert_eq!(peers[0].streams, 2);
    }
}

#[tokio::test]
async fn data_written_before_the_answer_is_there_when_it_comes() {
    let (a, b) = pair();
    // The first open waits for its answer; later ones need not.
    let (_first, _theirs) = soon(stream(&a, &b)).await;
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    let (_second, _theirs) = soon(stream(&a, &b)).await;
    let mut opening = soon(a.node.begin(request(b.node.peer_id()))).await.unwrap();
    opening.send.write(Bytes::from_static(b"early")).await.unwrap();
    opening.send.finish();
    let mut at_b = soon(accept(&b)).await.into_stream().unwrap();
    assert_eq!(soon(read_all(&mut at_b.recv)).await.unwrap(), b"early");
    at_b.send.write(Bytes::from_static(b"late")).await.unwrap();
    at_b.send.finish();
    let mut answered = soon(opening.answer.wait()).await.unwrap();
    assert_eq!(soon(read_all(&mut answered.recv)).await.unwrap(), b"late");
}

#[tokio::test]
async fn early_data_is_of_no_harm_when_the_peer_refuses() {
    let (a, b) = pair();
    let (_first, _theirs) = soon(stream(&a, &b)).await;
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    let (_second, _theirs) = soon(stream(&a, &b)).await;
    let mut opening = soon(a.node.begin(request(b.node.peer_id()))).await.unwrap();
    opening.send.write(Bytes::from_static(b"early")).await.unwrap();
    soon(b.node.accept()).await.unwrap().refuse(Refusal::new(RefusalCode::REFUSED));
    let error = soon(opening.answer.wait()).await.unwrap_err();
    assert_eq!(error, OpenError::Refused { code: 305 });
    assert_eq!(soon(opening.send.stopped()).await, SendEnd::Stopped(EndCode::REFUSED));
}

#[tokio::test]
async fn begin_dials_too() {
    let (a, b) = pair();
    serve_echo(&b);
    let opening = soon(a.node.begin(request(b.node.peer_id()))).await.unwrap();
    let answered = soon(opening.answer.wait()).await.unwrap();
    let stream = PeerStream { send: opening.send, recv: answered.recv };
    assert_eq!(soon(round_trip(stream, "hello")).await.unwrap(), b"hello");
}

#[tokio::test]
async fn refusals_arrive_with_their_reasons() {
    let (a, b) = pair();
    let offered = vec![name("/other/1")];
    let refusals = [
        (Refusal::new(RefusalCode::PROTOCOL_NOT_SUPPORTED).with_offered(offered.clone()), 304),
        (Refusal::new(RefusalCode::REFUSED), 305),
        (Refusal::new(RefusalCode::NOT_READY).with_retry_after_ms(250), 306),
        (Refusal::new(RefusalCode::STREAM_LIMIT), 401),
    ];
    for (refusal, code) in refusals {
        let (opened, ()) = soon(async {
            tokio::join!(a.node.open(request(b.node.peer_id())), async {
                b.node.accept().await.unwrap().refuse(refusal);
            })
        })
        .await;
        let error = opened.unwrap_err();
        assert_eq!(error.code(), code);
        if let OpenError::NotSupported { offered: told } = &error {
            assert_eq!(*told, offered);
        }
        if let OpenError::NotReady { retry_after } = &error {
            assert_eq!(*retry_after, Some(Duration::from_millis(250)));
        }
    }
}

#[tokio::test]
async fn an_accepter_that_vanishes_at_once_is_told_as_gone() {
    let (a, b) = pair();
    let taken = async { drop(accept(&b).await) };
    let (opened, ()) = soon(async { tokio::join!(a.node.open(request(b.node.peer_id())), taken) }).await;
    // The answer may or may not have been on its way.
    if let Err(error) = opened {
        assert_eq!(error, OpenError::Refused { code: 403 });
    }
}

#[tokio::test]
async fn a_stream_that_nobody_decides_about_is_refused_as_not_ready() {
    let (a, b) = pair();
    let nobody = async { drop(b.node.accept().await.unwrap()) };
    let (opened, ()) = soon(async { tokio::join!(a.node.open(request(b.node.peer_id())), nobody) }).await;
    assert!(matches!(opened, Err(OpenError::NotReady { .. })));
}

#[tokio::test]
async fn half_close_reset_and_stop_pass_from_end_to_end() {
    let (a, b) = pair();
    let (mut here, mut there) = soon(stream(&a, &b)).await;
    here.send.finish();
    assert_eq!(soon(there.recv.read_chunk()).await, Ok(None));
    there.send.write(Bytes::from_static(b"still open")).await.unwrap();
    assert_eq!(soon(here.recv.read_chunk()).await.unwrap().unwrap(), "still open");
    there.send.reset(EndCode::app(9));
    assert_eq!(soon(here.recv.read_chunk()).await, Err(StreamEnd::Reset(EndCode::app(9))));

    let (here, mut there) = soon(stream(&a, &b)).await;
    there.recv.stop(EndCode::app(3));
    assert_eq!(soon(here.send.stopped()).await, SendEnd::Stopped(EndCode::app(3)));
    drop(here);
    assert_eq!(soon(there.send.stopped()).await, SendEnd::Stopped(EndCode::PLUGIN_GONE));
}

#[tokio::test]
async fn what_was_finished_arrives_although_its_handle_is_dropped_at_once() {
    let (a, b) = pair();
    let (mut here, mut there) = soon(stream(&a, &b)).await;
    let total = 3 * 1024 * 1024;
    let writing = tokio::spawn(async move {
        here.send.write(Bytes::from(vec![5; total])).await.unwrap();
        here.send.finish();
    });
    assert_eq!(soon(read_all(&mut there.recv)).await.unwrap().len(), total);
    writing.await.unwrap();
}

#[tokio::test]
async fn one_node_talks_to_two_others_at_once() {
    let (a, b, c) = (daemon(1), daemon(2), daemon(3));
    a.knows(&b);
    a.knows(&c);
    serve_echo(&b);
    serve_echo(&c);
    let (to_b, to_c) = soon(async {
        tokio::join!(a.node.open(request(b.node.peer_id())), a.node.open(request(c.node.peer_id())))
    })
    .await;
    let (to_b, to_c) = (to_b.unwrap().channel.into_stream(), to_c.unwrap().channel.into_stream());
    let (from_b, from_c) =
        soon(async { tokio::join!(round_trip(to_b.unwrap(), "b"), round_trip(to_c.unwrap(), "c")) }).await;
    assert_eq!((from_b.unwrap(), from_c.unwrap()), (b"b".to_vec(), b"c".to_vec()));
    assert_eq!(a.node.peers().len(), 2);
}

#[tokio::test]
async fn ping_needs_no_plugin() {
    let (a, b) = pair();
    let pings = soon(a.node.ping(b.node.peer_id(), 5, Duration::from_millis(1))).await.unwrap();
    assert_eq!(pings.path.unwrap().kind, PathKind::Loopback);
    assert_eq!(pings.rtts.len(), 5);
    assert!(pings.rtts.iter().all(Option::is_some));
    // The stream of the pings is not held open.
    until(|| a.node.peers()[0].streams == 0 && b.node.peers()[0].streams == 0).await;
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_here() {
    let (a, b) = pair();
    let nobody = a.node.open(OpenRequest::new(b.node.peer_id(), vec![])).await.unwrap_err();
    let ourselves = a.node.open(request(a.node.peer_id())).await.unwrap_err();
    let early_flow = a.node.begin(request(b.node.peer_id()).kind(Kind::Datagram)).await.unwrap_err();
    for error in [nobody, ourselves, early_flow] {
        assert_eq!(error.code(), 200, "{error}");
    }
    assert!(a.node.peers().is_empty());
}

#[tokio::test]
async fn the_policy_decides_who_comes_in() {
    let (contact, outcast) = (peer_id(1), peer_id(3));
    let b = daemon_with(2, |config| {
        config.policy = std::sync::Arc::new(move |peer: &p2pos_identity::PeerId| match *peer {
            peer if peer == contact => Admission::Contact,
            peer if peer == outcast => Admission::Refuse,
            _ => Admission::Stranger,
        });
    });
    for seed in [1, 4] {
        let a = daemon(seed);
        a.knows(&b);
        soon(stream(&a, &b)).await;
    }
    let c = daemon(3);
    c.knows(&b);
    let error = soon(c.node.open(request(b.node.peer_id()))).await.unwrap_err();
    assert_eq!(error, OpenError::Refused { code: 305 });
}

#[tokio::test]
async fn events_tell_of_peers_that_come_and_go() {
    let (a, b) = pair();
    let mut at_a = a.node.events();
    let mut at_b = b.node.events();
    let (_here, _there) = soon(stream(&a, &b)).await;
    let came = |event| matches!(event, Event::Connected { path: Some(_), .. });
    assert!(came(soon(at_a.recv()).await.unwrap()));
    assert!(came(soon(at_b.recv()).await.unwrap()));
    soon(b.node.shutdown()).await;
    let gone = Event::Disconnected { peer: b.node.peer_id(), reason: Lost::Closed(EndCode::SHUTTING_DOWN) };
    assert_eq!(soon(at_a.recv()).await.unwrap(), gone);
    let left = Event::Disconnected { peer: a.node.peer_id(), reason: Lost::Local };
    assert_eq!(soon(at_b.recv()).await.unwrap(), left);
    assert_eq!(soon(at_b.recv()).await, Err(tokio::sync::broadcast::error::RecvError::Closed));
    assert!(soon(b.node.events().recv()).await.is_err());
}

#[tokio::test]
async fn an_incoming_stream_cannot_be_accepted_as_something_else() {
    let (a, b) = pair();
    let (opened, accepted) = soon(async {
        tokio::join!(a.node.open(request(b.node.peer_id())), async {
            let incoming = b.node.accept().await.unwrap();
            incoming.accept(name("/other/1")).await
        })
    })
    .await;
    assert!(matches!(accepted, Err(StreamEnd::Closed)));
    assert!(opened.is_err());
    let taken = async { take(b.node.accept().await.unwrap()).await };
    let (opened, _taken) = soon(async { tokio::join!(a.node.open(request(b.node.peer_id())), taken) }).await;
    opened.unwrap();
}
