//! Endpoints on loopback for the tests of this folder.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use p2pos_identity::SecretKey;
use p2pos_transport::{Config, Connection, Endpoint, RecvStream, StreamEnd};

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
    let candidates = [v4_of(to)];
    let (dialed, accepted) = tokio::join!(from.dial(to.peer_id(), &candidates), to.accept());
    (dialed.unwrap().connection, accepted.unwrap())
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
