//! How fast two nodes are: two processes on loopback, each on one runtime thread, as the daemon runs.
//!
//! `cargo run --release -p p2pos-node --example throughput [-- SECONDS]` starts its own counterpart and prints bulk
//! MiB/s, round trips, new streams with a first reply, small messages and CPU time. `tools/bench` has the real comparison.

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
use p2pos_node::{Config, Node, OpenRequest, PeerStream};

const ECHO: &str = "/bench/echo/1";
const SINK: &str = "/bench/sink/1";
const CHUNK_BYTES: usize = 64 * 1024;
const SERVER_SEED: u8 = 2;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("serve") {
        runtime.block_on(serve());
    } else {
        let seconds = argument.and_then(|text| text.parse().ok()).unwrap_or(3);
        runtime.block_on(measure(Duration::from_secs(seconds)));
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
    println!("PORT {}", node.local_addresses()[0].port());
    while let Some(incoming) = node.accept().await {
        tokio::spawn(async move {
            let protocol = incoming.protocols()[0].clone();
            let is_echo = protocol.as_str() == ECHO;
            let stream = incoming.accept(protocol).await.unwrap().into_stream().unwrap();
            let PeerStream { mut send, mut recv } = stream;
            let mut chunks = vec![Bytes::new(); 64];
            while let Ok(Some(count)) = recv.read_chunks(&mut chunks).await {
                if is_echo && send.write_chunks(&mut chunks[..count]).await.is_err() {
                    return;
                }
            }
            send.finish();
            send.stopped().await;
        });
    }
}

async fn measure(time: Duration) {
    let serve = Command::new(std::env::current_exe().unwrap()).arg("serve").stdout(Stdio::piped()).spawn();
    let mut server = Server(serve.unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let port: u16 = line.trim().strip_prefix("PORT ").unwrap().parse().unwrap();
    let peer = SecretKey::from_seed([SERVER_SEED; 32]).peer_id();
    let resolver = Resolver::new();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    resolver.set(peer, vec![address.to_string().parse().unwrap()]).unwrap();
    let node = node(1, resolver);

    let started = Instant::now();
    let first = open(&node, peer, ECHO).await;
    println!("cold dial to first answer        {:>9} us", started.elapsed().as_micros());
    drop(first);
    let started = Instant::now();
    round_trips(&node, peer, 1).await;
    println!("second stream, first round trip  {:>9} us", started.elapsed().as_micros());
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    report("round trip, 64 B", round_trips(&node, peer, 20_000).await);
    report("new stream and first reply", new_streams(&node, peer, 5_000).await);
    for _ in 0..3 {
        bulk(&node, peer, time, server.0.id()).await;
    }
    messages(&node, peer, time).await;
    node.shutdown().await;
}

/// The counterpart, which ends with this process.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

async fn open(node: &Node, peer: PeerId, protocol: &str) -> PeerStream {
    let request = OpenRequest::new(peer, vec![ProtocolName::parse(protocol).unwrap()]);
    node.open(request).await.unwrap().channel.into_stream().unwrap()
}

async fn round_trips(node: &Node, peer: PeerId, count: usize) -> Vec<Duration> {
    let mut stream = open(node, peer, ECHO).await;
    let mut times = Vec::new();
    for _ in 0..count {
        let started = Instant::now();
        stream.send.write(Bytes::from_static(&[7; 64])).await.unwrap();
        let mut received = 0;
        while received < 64 {
            received += stream.recv.read_chunk().await.unwrap().unwrap().len();
        }
        times.push(started.elapsed());
    }
    times
}

async fn new_streams(node: &Node, peer: PeerId, count: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..count {
        let started = Instant::now();
        let request = OpenRequest::new(peer, vec![ProtocolName::parse(ECHO).unwrap()]);
        let mut opening = node.begin(request).await.unwrap();
        opening.send.write(Bytes::from_static(&[7; 64])).await.unwrap();
        opening.send.finish();
        let mut answered = opening.answer.wait().await.unwrap();
        answered.recv.read_chunk().await.unwrap().unwrap();
        times.push(started.elapsed());
    }
    times
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[times.len() * percent / 100].as_micros();
    println!("{what:<32} {:>9} us p50, {} us p99", at(50), at(99));
}

async fn bulk(node: &Node, peer: PeerId, time: Duration, server: u32) {
    let mut stream = open(node, peer, SINK).await;
    let chunk = Bytes::from(vec![0x5a; CHUNK_BYTES]);
    let (started, cpu) = (Instant::now(), cpu_seconds(server));
    let mut bytes = 0u64;
    while started.elapsed() < time {
        for _ in 0..16 {
            stream.send.write(chunk.clone()).await.unwrap();
            bytes += CHUNK_BYTES as u64;
        }
    }
    stream.send.finish();
    assert_eq!(stream.recv.read_chunk().await.unwrap(), None);
    let seconds = started.elapsed().as_secs_f64();
    let mib = bytes as f64 / (1024.0 * 1024.0);
    let cpu_per_gib = (cpu_seconds(server) - cpu) * 1024.0 / mib;
    println!("bulk {:>36.0} MiB/s, {cpu_per_gib:.2} CPU-s per GiB (both ends)", mib / seconds);
}

async fn messages(node: &Node, peer: PeerId, time: Duration) {
    let mut stream = open(node, peer, SINK).await;
    let started = Instant::now();
    let mut count = 0u64;
    while started.elapsed() < time {
        for _ in 0..256 {
            stream.send.write(Bytes::from_static(&[7; 64])).await.unwrap();
            count += 1;
        }
    }
    stream.send.finish();
    assert_eq!(stream.recv.read_chunk().await.unwrap(), None);
    println!("messages of 64 B {:>24.0} /s", count as f64 / started.elapsed().as_secs_f64());
}

/// CPU time of this process and the server's, from `/proc` (Linux; elsewhere 0).
fn cpu_seconds(server: u32) -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let ticks = |path: String| -> f64 {
        let stat = std::fs::read_to_string(path).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
        [11, 12].iter().filter_map(|index| fields.get(*index)?.parse::<f64>().ok()).sum()
    };
    (ticks("/proc/self/stat".to_owned()) + ticks(format!("/proc/{server}/stat"))) / TICKS_PER_SECOND
}
