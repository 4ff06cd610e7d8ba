//! What a first connection costs: two processes on loopback, dialled again and again.
//!
//! `cargo run --release -p p2pos-node --example dials [-- COUNT]` starts its own counterpart and prints, for the first and for
//! the median dial, the time until the connection stands, until the peer has answered an open, and until the first bytes are
//! back. `tools/bench` measures the same through two daemons and their plugins.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measuring program, not a library"
)]

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use p2pos_discovery::Resolver;
use p2pos_identity::{PeerId, ProtocolName, SecretKey};
use p2pos_node::{Config, Event, Node, OpenRequest, PeerStream};

const ECHO: &str = "/dials/echo/1";
const CALLER_SEED: u8 = 1;
const SERVER_SEED: u8 = 2;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("serve") {
        runtime.block_on(serve());
    } else {
        let count = argument.and_then(|text| text.parse().ok()).unwrap_or(200);
        runtime.block_on(measure(count));
    }
}

fn node(seed: u8, resolver: Resolver) -> Node {
    let mut config = Config::new(Arc::new(SecretKey::from_seed([seed; 32])), resolver);
    config.ipv4 = Some(Ipv4Addr::LOCALHOST);
    config.ipv6 = None;
    Node::start(config).unwrap()
}

async fn serve() {
    let node = node(SERVER_SEED, Resolver::new());
    // As a daemon does for its contacts.
    node.expect(vec![SecretKey::from_seed([CALLER_SEED; 32]).peer_id()]);
    println!("PORT {}", node.local_addresses()[0].port());
    while let Some(incoming) = node.accept().await {
        tokio::spawn(async move {
            let protocol = incoming.protocols()[0].clone();
            let PeerStream { mut send, mut recv } =
                incoming.accept(protocol).await.unwrap().into_stream().unwrap();
            while let Ok(Some(chunk)) = recv.read_chunk().await {
                if send.write(chunk).await.is_err() {
                    return;
                }
            }
            send.finish();
        });
    }
}

/// The counterpart, which ends with this process.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Times of one dial, each counted from its begin.
struct Dial {
    connected: Duration,
    answered: Duration,
    replied: Duration,
}

async fn measure(count: usize) {
    let serve = Command::new(std::env::current_exe().unwrap()).arg("serve").stdout(Stdio::piped()).spawn();
    let mut server = Server(serve.unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let port: u16 = line.trim().strip_prefix("PORT ").unwrap().parse().unwrap();
    let peer = SecretKey::from_seed([SERVER_SEED; 32]).peer_id();
    let resolver = Resolver::new();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    resolver.set(peer, vec![address.to_string().parse().unwrap()]).unwrap();
    let node = node(CALLER_SEED, resolver);
    node.expect(vec![peer]);
    // Until that is done.
    tokio::time::sleep(Duration::from_millis(50)).await;

    let mut dials = Vec::new();
    for _ in 0..=count {
        dials.push(dial(&node, peer).await);
        node.disconnect(peer).await;
        // What the closed connection leaves behind must not be on the next one's bill.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let first = dials.remove(0);
    println!("us since the wish        first   median      p99");
    report("connected", first.connected, dials.iter().map(|dial| dial.connected));
    report("answer to the open", first.answered, dials.iter().map(|dial| dial.answered));
    report("first bytes back", first.replied, dials.iter().map(|dial| dial.replied));
    node.shutdown().await;
}

async fn dial(node: &Node, peer: PeerId) -> Dial {
    let mut events = node.events();
    let started = Instant::now();
    let request = OpenRequest::new(peer, vec![ProtocolName::parse(ECHO).unwrap()]);
    let connected = async {
        while !matches!(events.recv().await.unwrap(), Event::Connected { .. }) {}
        started.elapsed()
    };
    let (opened, connected) = tokio::join!(node.open(request), connected);
    let answered = started.elapsed();
    let PeerStream { mut send, mut recv } = opened.unwrap().channel.into_stream().unwrap();
    send.write(Bytes::from_static(&[7; 64])).await.unwrap();
    recv.read_chunk().await.unwrap().unwrap();
    Dial { connected, answered, replied: started.elapsed() }
}

fn report(what: &str, first: Duration, others: impl Iterator<Item = Duration>) {
    let mut sorted: Vec<u128> = others.map(|time| time.as_micros()).collect();
    sorted.sort_unstable();
    let at = |percent: usize| sorted[(sorted.len() - 1) * percent / 100];
    println!("{what:<20} {:>9} {:>8} {:>8}", first.as_micros(), at(50), at(99));
}
