//! A network that begins handshakes and never ends them takes its share of the places, and nobody else's.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use p2pos_identity::{PeerId, SecretKey};
use p2pos_transport::{Config, Endpoint};
use tokio::{net::UdpSocket, task::JoinSet};

use support::{dial, endpoint, soon, v4_of};

/// More than all places for handshakes.
const FLOOD_DIALS: usize = 160;

/// Passes on what comes from anybody to `victim`, and of its answers only Retry: the addresses prove themselves, but no
/// handshake gets any further. Returns where to dial.
async fn half_a_wire(victim: SocketAddr) -> SocketAddr {
    let near = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).await.unwrap();
    let far = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).await.unwrap();
    let address = near.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut out, mut back) = ([0; 2048], [0; 2048]);
        let mut caller = None;
        loop {
            tokio::select! {
                received = near.recv_from(&mut out) => {
                    let (length, from) = received.unwrap();
                    caller = Some(from);
                    far.send_to(&out[..length], victim).await.unwrap();
                }
                received = far.recv_from(&mut back) => {
                    let (length, _) = received.unwrap();
                    let is_retry = back[0] & 0xf0 == 0xf0;
                    if let (true, Some(caller)) = (is_retry, caller) {
                        near.send_to(&back[..length], caller).await.unwrap();
                    }
                }
            }
        }
    });
    address
}

fn endpoint_at(seed: u8, address: Ipv4Addr) -> Endpoint {
    let mut config = Config::new(Arc::new(SecretKey::from_seed([seed; 32])));
    config.ipv4 = Some(address);
    config.ipv6 = None;
    Endpoint::bind(&config).unwrap()
}

/// Dials many times at once, until the first dial is given up.
async fn flood(from: Endpoint, victim: PeerId, address: SocketAddr) {
    let mut dials = JoinSet::new();
    for _ in 0..FLOOD_DIALS {
        let from = from.clone();
        dials.spawn(async move { dial(&from, victim, &[address]).await.0.is_err() });
    }
    let failed = dials.join_next().await.unwrap();
    assert!(failed.unwrap(), "a handshake of the flood was completed");
}

#[tokio::test]
async fn under_a_flood_of_handshakes_from_one_network_a_dial_from_another_succeeds() {
    let victim = endpoint(1);
    let wire = half_a_wire(v4_of(&victim)).await;
    let flooding = tokio::spawn(flood(endpoint(2), victim.peer_id(), wire));
    // All of the flood's first packets and their repetitions are at the victim by then.
    tokio::time::sleep(Duration::from_millis(500)).await;

    let honest = endpoint_at(3, Ipv4Addr::new(127, 0, 1, 1));
    let address = [v4_of(&victim)];
    let (dialed, accepted) =
        soon(async { tokio::join!(dial(&honest, victim.peer_id(), &address), victim.accept()) }).await;
    assert!(!flooding.is_finished(), "the dial had to wait for the flood's end");
    assert_eq!(dialed.0.unwrap().peer(), victim.peer_id());
    assert_eq!(accepted.unwrap().peer(), honest.peer_id());
    flooding.abort();
}
