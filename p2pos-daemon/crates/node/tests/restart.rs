//! A peer that is killed with `kill -9`: its restart on the same port is noticed and used within three seconds, and a peer
//! that stays away is given up.
//!
//! The peer is a process of its own, this test binary run again, so that the kill is a real one: no destructor, no close.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use p2pos_node::{Event, Kind, Lost, StreamEnd};

use support::{Daemon, daemon, daemon_with, peer_id, request, round_trip, serve_echo, soon, until};

const PORT: &str = "P2POS_TEST_PORT";
/// Where the child shall call a daemon: its seed and its port.
const CALL: &str = "P2POS_TEST_CALL";
const SEED: u8 = 2;

#[tokio::test]
#[ignore = "runs as the child process of the other tests"]
async fn child() {
    let port = std::env::var(PORT).ok().and_then(|port| port.parse().ok());
    let daemon = daemon_with(SEED, |config| config.port = port);
    serve_echo(&daemon);
    println!("PORT {}", daemon.address().port());
    let call = std::env::var(CALL).unwrap_or_default();
    let call = call.split_once(' ').map(|(seed, port)| (seed.parse().unwrap(), port.parse::<u16>().unwrap()));
    let mut kept = None;
    if let Some((seed, port)) = call {
        daemon.knows_at(peer_id(seed), &[([127, 0, 0, 1], port).into()]);
        kept = Some(soon(daemon.node.open(request(peer_id(seed)))).await.unwrap());
    }
    std::future::pending::<()>().await;
    drop(kept);
}

/// The peer's process; killed with the test at the latest.
struct Peer {
    child: Child,
    port: u16,
}

impl Peer {
    fn start(port: Option<u16>) -> Self {
        Self::start_with(port.map(|port| (PORT, port.to_string())))
    }

    /// Starts it on any port, and has it call a daemon.
    fn start_calling(seed: u8, port: u16) -> Self {
        Self::start_with(Some((CALL, format!("{seed} {port}"))))
    }

    fn start_with(variable: Option<(&str, String)>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--ignored", "--nocapture"]).stdout(Stdio::piped());
        command.envs(variable);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines
            .map(|line| line.unwrap())
            .find_map(|line| line.split_once("PORT ")?.1.trim().parse().ok())
            .expect("the child says its port");
        Self { child, port }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

async fn echo_once(a: &Daemon) {
    let opened = soon(a.node.open(request(peer_id(SEED)))).await.unwrap();
    assert_eq!(soon(round_trip(opened.channel.into_stream().unwrap(), "x")).await.unwrap(), b"x");
}

#[tokio::test]
async fn a_restarted_peer_is_used_again_within_three_seconds_and_the_open_never_notices() {
    let a = daemon(1);
    let mut peer = Peer::start(None);
    a.knows_at(peer_id(SEED), &[([127, 0, 0, 1], peer.port).into()]);
    let mut events = a.node.events();
    echo_once(&a).await;
    peer.kill();
    let _peer = Peer::start(Some(peer.port));
    let restarted = Instant::now();
    echo_once(&a).await;
    assert!(restarted.elapsed() < Duration::from_secs(3));
    let reasons: Vec<Event> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    let restart = Event::Disconnected { peer: peer_id(SEED), reason: Lost::Restarted };
    assert!(reasons.contains(&restart), "{reasons:?}");
}

#[tokio::test]
async fn streams_that_carried_data_learn_of_the_restart_within_three_seconds() {
    let a = daemon(1);
    let mut peer = Peer::start(None);
    a.knows_at(peer_id(SEED), &[([127, 0, 0, 1], peer.port).into()]);
    let opened = soon(a.node.open(request(peer_id(SEED)))).await.unwrap();
    let mut stream = opened.channel.into_stream().unwrap();
    stream.send.write(Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(soon(stream.recv.read_chunk()).await.unwrap().unwrap(), "x");
    peer.kill();
    stream.send.write(Bytes::from_static(b"into the void")).await.unwrap();
    let _peer = Peer::start(Some(peer.port));
    let restarted = Instant::now();
    assert_eq!(soon(stream.recv.read_chunk()).await, Err(StreamEnd::Lost(Lost::Restarted)));
    assert!(restarted.elapsed() < Duration::from_secs(3));
    echo_once(&a).await;
}

#[tokio::test]
async fn a_peer_that_stays_away_is_given_up_after_the_idle_timeout() {
    let a = daemon(1);
    let mut peer = Peer::start(None);
    a.knows_at(peer_id(SEED), &[([127, 0, 0, 1], peer.port).into()]);
    let opened = soon(a.node.open(request(peer_id(SEED)))).await.unwrap();
    let mut stream = opened.channel.into_stream().unwrap();
    peer.kill();
    tokio::time::pause();
    assert_eq!(stream.recv.read_chunk().await, Err(StreamEnd::Lost(Lost::TimedOut)));
}

#[tokio::test]
async fn an_open_at_a_killed_peer_is_unreachable_for_streams_and_flows_alike() {
    let a = daemon(1);
    let mut peer = Peer::start(None);
    a.knows_at(peer_id(SEED), &[([127, 0, 0, 1], peer.port).into()]);
    echo_once(&a).await;
    peer.kill();
    tokio::time::pause();
    for kind in [Kind::Stream, Kind::Datagram] {
        // Too short a time to condemn the connection: both ask on the one that nobody answers any more.
        let request = request(peer_id(SEED)).kind(kind).timeout(Duration::from_secs(1));
        let error = a.node.open(request).await.unwrap_err();
        assert_eq!((error.code(), error.attempts().len()), (302, 1), "{kind:?}: {error}");
    }
}

#[tokio::test]
async fn an_open_that_meets_silence_condemns_the_connection_for_the_next_one() {
    let a = daemon(1);
    let mut peer = Peer::start(None);
    let port = peer.port;
    a.knows_at(peer_id(SEED), &[([127, 0, 0, 1], port).into()]);
    echo_once(&a).await;
    peer.kill();
    tokio::time::pause();
    let request = request(peer_id(SEED)).timeout(Duration::from_secs(5));
    let error = a.node.open(request).await.unwrap_err();
    tokio::time::resume();
    assert_eq!(error.code(), 302);
    let _peer = Peer::start(Some(port));
    echo_once(&a).await;
}

#[tokio::test]
async fn a_peer_that_calls_from_another_port_after_its_restart_replaces_the_dead_connection() {
    // Of simultaneous dials that of the smaller PeerId stays: the case in which the dead connection would have won.
    let seed = (3..=u8::MAX).find(|seed| peer_id(*seed) < peer_id(SEED)).unwrap();
    let a = daemon(seed);
    serve_echo(&a);
    let mut peer = Peer::start(None);
    a.knows_at(peer_id(SEED), &[([127, 0, 0, 1], peer.port).into()]);
    let opened = soon(a.node.open(request(peer_id(SEED)))).await.unwrap();
    let mut dead = opened.channel.into_stream().unwrap();
    peer.kill();

    let _peer = Peer::start_calling(seed, a.address().port());
    until(|| a.node.peers().iter().any(|peer| peer.connections == 2)).await;
    echo_once(&a).await;
    assert_eq!(soon(dead.recv.read_chunk()).await, Err(StreamEnd::Lost(Lost::Local)));
    assert_eq!(a.node.peers()[0].connections, 1);
    echo_once(&a).await;
}
