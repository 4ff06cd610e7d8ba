//! Nodes on loopback for the tests of this folder.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use p2pos_discovery::Resolver;
use p2pos_identity::{PeerId, ProtocolName, SecretKey};
use p2pos_node::{Channel, Config, Flow, Incoming, Kind, Node, OpenRequest, PeerStream, RecvHalf, StreamEnd};

pub const ECHO: &str = "/test/echo/1";

/// A node with the resolver that tells it where others are.
pub struct Daemon {
    pub node: Node,
    pub resolver: Resolver,
}

pub fn key(seed: u8) -> Arc<SecretKey> {
    Arc::new(SecretKey::from_seed([seed; 32]))
}

pub fn peer_id(seed: u8) -> PeerId {
    key(seed).peer_id()
}

pub fn daemon(seed: u8) -> Daemon {
    daemon_with(seed, |_| ())
}

pub fn daemon_with(seed: u8, change: impl FnOnce(&mut Config)) -> Daemon {
    let resolver = Resolver::new();
    let mut config = Config::new(key(seed), resolver.clone());
    config.ipv4 = Some(Ipv4Addr::LOCALHOST);
    config.ipv6 = Some(Ipv6Addr::LOCALHOST);
    change(&mut config);
    Daemon { node: Node::start(config).unwrap(), resolver }
}

impl Daemon {
    pub fn address(&self) -> SocketAddr {
        self.node.local_addresses().into_iter().find(SocketAddr::is_ipv4).unwrap()
    }

    pub fn knows_at(&self, peer: PeerId, addresses: &[SocketAddr]) {
        let addresses = addresses.iter().map(|address| address.to_string().parse().unwrap()).collect();
        self.resolver.set(peer, addresses).unwrap();
    }

    pub fn knows(&self, other: &Self) {
        self.knows_at(other.node.peer_id(), &[other.address()]);
    }
}

/// Two nodes, of which the first knows where the second is.
pub fn pair() -> (Daemon, Daemon) {
    let (a, b) = (daemon(1), daemon(2));
    a.knows(&b);
    (a, b)
}

pub fn name(text: &str) -> ProtocolName {
    ProtocolName::parse(text).unwrap()
}

pub fn request(peer: PeerId) -> OpenRequest {
    OpenRequest::new(peer, vec![name(ECHO)])
}

/// Opens a stream from one node to the other, which accepts it.
pub async fn stream(from: &Daemon, to: &Daemon) -> (PeerStream, PeerStream) {
    let (opened, incoming) = tokio::join!(from.node.open(request(to.node.peer_id())), accept(to));
    (opened.unwrap().channel.into_stream().unwrap(), incoming.into_stream().unwrap())
}

/// Opens a flow from one node to the other, which accepts it.
pub async fn flow(from: &Daemon, to: &Daemon) -> (Flow, Flow) {
    let request = request(to.node.peer_id()).kind(Kind::Datagram);
    let (opened, incoming) = tokio::join!(from.node.open(request), accept(to));
    (opened.unwrap().channel.into_flow().unwrap(), incoming.into_flow().unwrap())
}

/// Accepts the next stream or flow.
pub async fn accept(at: &Daemon) -> Channel {
    take(at.node.accept().await.unwrap()).await
}

pub async fn take(incoming: Incoming) -> Channel {
    let protocol = incoming.protocols()[0].clone();
    incoming.accept(protocol).await.unwrap()
}

/// Accepts every stream at a node and sends back what comes, until the node ends.
pub fn serve_echo(at: &Daemon) {
    let node = at.node.clone();
    tokio::spawn(async move {
        while let Some(incoming) = node.accept().await {
            tokio::spawn(async move {
                if let Some(stream) = take(incoming).await.into_stream() {
                    echo(stream).await;
                }
            });
        }
    });
}

async fn echo(stream: PeerStream) {
    let PeerStream { mut send, mut recv } = stream;
    while let Ok(Some(chunk)) = recv.read_chunk().await {
        if send.write(chunk).await.is_err() {
            return;
        }
    }
    send.finish();
}

/// Sends `text` over the stream and reads it back to the end.
pub async fn round_trip(stream: PeerStream, text: &'static str) -> Result<Vec<u8>, StreamEnd> {
    let PeerStream { mut send, mut recv } = stream;
    send.write(Bytes::from(text)).await?;
    send.finish();
    read_all(&mut recv).await
}

pub async fn read_all(recv: &mut RecvHalf) -> Result<Vec<u8>, StreamEnd> {
    let mut all = Vec::new();
    while let Some(chunk) = recv.read_chunk().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

/// Far longer than anything here takes, so that a hang fails instead of hanging.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("this takes milliseconds")
}

/// Waits until something holds.
pub async fn until(mut holds: impl FnMut() -> bool) {
    soon(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
