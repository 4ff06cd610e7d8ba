//! A peer that is killed and comes back on its port is noticed at once, by a stateless reset.
//!
//! The peer is a process of its own, this test binary run again, so that the kill is a real one: no destructor, no close.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "helpers of tests fail like tests")]

mod support;

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use p2pos_identity::SecretKey;
use p2pos_transport::Lost;

use support::{dial, endpoint, endpoint_on, soon, v4_of};

const PORT: &str = "P2POS_TEST_PORT";
const SEED: u8 = 2;

#[tokio::test]
#[ignore = "runs as the child process of the other test"]
async fn child() {
    let port = std::env::var(PORT).ok().and_then(|port| port.parse().ok());
    let endpoint = endpoint_on(SEED, port);
    println!("PORT {}", v4_of(&endpoint).port());
    let mut kept = Vec::new();
    while let Some(connection) = endpoint.accept().await {
        let mut stream = connection.open().await.unwrap();
        stream.0.write_chunks(&mut [Bytes::from_static(b"here")]).await.unwrap();
        kept.push((connection, stream));
    }
}

/// Starts the peer and waits until it listens.
fn start(port: Option<u16>) -> (Child, u16) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--ignored", "--nocapture"]).stdout(Stdio::piped());
    if let Some(port) = port {
        command.env(PORT, port.to_string());
    }
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let port = lines
        .map(|line| line.unwrap())
        .find_map(|line| line.split_once("PORT ")?.1.trim().parse().ok())
        .expect("the child says its port");
    (child, port)
}

#[tokio::test]
async fn a_peer_killed_and_restarted_on_its_port_is_noticed_by_a_reset() {
    let a = endpoint(1);
    let peer = SecretKey::from_seed([SEED; 32]).peer_id();
    let (mut first, port) = start(None);
    let address = ([127, 0, 0, 1], port).into();
    let connection = soon(dial(&a, peer, &[address])).await.0.unwrap();
    let (_back, mut greeting) = soon(connection.accept_stream()).await.unwrap();
    assert_eq!(soon(greeting.read_chunk()).await.unwrap().unwrap(), "here");
    first.kill().unwrap();
    first.wait().unwrap();

    let (mut second, _) = start(Some(port));
    let restarted = Instant::now();
    connection.nudge();
    assert_eq!(soon(connection.accept_stream()).await.unwrap_err(), Lost::Restarted);
    soon(dial(&a, peer, &[address])).await.0.unwrap();
    assert!(restarted.elapsed() < Duration::from_secs(3));
    second.kill().unwrap();
    second.wait().unwrap();
}
