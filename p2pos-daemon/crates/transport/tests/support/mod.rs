//! Endpoints on loopback for the tests of this folder.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "helpers of tests fail like tests")]

pub mod relay;

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use p2pos_identity::{PeerId, SecretKey};
use p2pos_transport::{
    Attempt, Config, Connection, DialError, Endpoint, FakeAddr, RecvStream, SendEnd, StreamEnd, Timeline,
};
use p2pos_traversal::{Candidate, CandidateKind};

/// An endpoint on 127.0.0.1 and ::1 with the identity of `seed`.
pub fn endpoint(seed: u8) -> Endpoint {
    endpoint_on(seed, None)
}

pub fn endpoint_on(seed: u8, port: Option<u16>) -> Endpoint {
    let mut config = Config::new(Arc::new(SecretKey::from_seed([seed; 32])));
    config.port = port;
    config.ipv4 = Some(Ipv4Addr::LOCALHOST);
    config.ipv6 = Some(Ipv6Addr::LOCALHOST);
    Endpoint::bind(&config).unwrap()
}

pub fn v4_of(endpoint: &Endpoint) -> SocketAddr {
    endpoint.local_addresses().into_iter().find(SocketAddr::is_ipv4).unwrap()
}

pub fn v6_of(endpoint: &Endpoint) -> SocketAddr {
    endpoint.local_addresses().into_iter().find(SocketAddr::is_ipv6).unwrap()
}

/// A connection between two fresh endpoints: (dialler, its connection, acceptor, its connection).
pub async fn pair() -> (Endpoint, Connection, Endpoint, Connection) {
    let (a, b) = (endpoint(1), endpoint(2));
    let (dialed, accepted) = connect(&a, &b).await;
    (a, dialed, b, accepted)
}

pub async fn connect(from: &Endpoint, to: &Endpoint) -> (Connection, Connection) {
    let addresses = [v4_of(to)];
    let (dialed, accepted) = tokio::join!(dial(from, to.peer_id(), &addresses), to.accept());
    (dialed.0.unwrap(), accepted.unwrap())
}

/// Dials the addresses as if the user had typed them, and tells what was tried.
pub async fn dial(
    from: &Endpoint,
    peer: PeerId,
    addresses: &[SocketAddr],
) -> (Result<Connection, DialError>, Vec<Attempt>) {
    let timeline = Timeline::default();
    let candidates: Vec<Candidate> =
        addresses.iter().map(|addr| Candidate { addr: *addr, kind: CandidateKind::Manual }).collect();
    let result = from.dial(peer, &candidates, &timeline).await;
    (result, timeline.attempts())
}

pub async fn read_all(recv: &mut RecvStream) -> Result<Vec<u8>, StreamEnd> {
    let mut all = Vec::new();
    let mut chunks = vec![Bytes::new(); 16];
    while let Some(count) = recv.read_chunks(&mut chunks).await? {
        for chunk in &chunks[..count] {
            all.extend_from_slice(chunk);
        }
    }
    Ok(all)
}

/// Far longer than anything here takes, so that a hang fails instead of hanging.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("this takes milliseconds")
}

/// Connects through a relay: (dialler's connection and its way, acceptor's connection and its way).
pub async fn connect_by(
    relay: &relay::Relay,
    from: &Endpoint,
    to: &Endpoint,
) -> ((Connection, FakeAddr), (Connection, FakeAddr)) {
    let there = from.add_relay_flow(relay.flow(0)).unwrap();
    let back = to.add_relay_flow(relay.flow(1)).unwrap();
    soon(async { tokio::join!(from.flow_bound(there), to.flow_bound(back)) }).await;
    let addresses = [there.socket_addr()];
    let both = async { tokio::join!(dial(from, to.peer_id(), &addresses), to.accept()) };
    let (dialed, accepted) = soon(both).await;
    ((dialed.0.unwrap(), there), (accepted.unwrap(), back))
}

/// The bytes of a test transfer, which differ from place to place.
pub fn pattern(range: std::ops::Range<usize>) -> Vec<u8> {
    range.map(|at| (at / 1_021) as u8).collect()
}

/// Sends `total` bytes of the [`pattern`].
pub async fn send_pattern(connection: Connection, total: usize) -> Connection {
    const CHUNK: usize = 64 * 1024;
    let (mut send, _recv) = connection.open().await.unwrap();
    for start in (0..total).step_by(CHUNK) {
        send.write_chunks(&mut [Bytes::from(pattern(start..total.min(start + CHUNK)))]).await.unwrap();
    }
    send.finish();
    assert_eq!(send.stopped().await, SendEnd::Delivered);
    connection
}

/// Reads a transfer to its end, checks every byte, and says what the longest wait between two pieces was. `progress` holds
/// the bytes read so far.
pub async fn read_pattern(connection: Connection, total: usize, progress: Arc<AtomicUsize>) -> Duration {
    let (_back, mut recv) = connection.accept_stream().await.unwrap();
    let mut longest = Duration::ZERO;
    let mut last = tokio::time::Instant::now();
    let mut chunks = vec![Bytes::new(); 16];
    let mut read = 0;
    while let Some(count) = recv.read_chunks(&mut chunks).await.unwrap() {
        longest = longest.max(last.elapsed());
        last = tokio::time::Instant::now();
        for chunk in &chunks[..count] {
            assert_eq!(chunk[..], pattern(read..read + chunk.len())[..], "at {read}");
            read += chunk.len();
        }
        progress.store(read, Ordering::Relaxed);
    }
    assert_eq!(read, total);
    longest
}

/// Waits until a condition holds.
pub async fn until(mut holds: impl FnMut() -> bool) {
    soon(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}
