//! Users of a p2pOS relay, by its own protocol (RELAY.md): leases and circuits over an ordinary connection, frames beside it.
//!
//! A side of a flood proves a socket of its own to the relay, so that nothing but the system's calls stands behind its frames.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use p2pos_discovery::Resolver;
use p2pos_identity::{PeerId, ProtocolName, SecretKey};
use p2pos_node::{Config, Node, OpenRequest, PeerStream};
use p2pos_peer_protocol::{
    Decoder, Hidden, Message as _,
    relay::{RELAY_PROTOCOL, RelayExchange, RelayFlow, RelayMessage, RelayNotice},
};
use p2pos_relay::{FlowEnd, FlowKey, HEAD_BYTES, Opened, Tag, Vni};

use super::{CALLEES, CALLERS, udp};

/// The number of the flooding user, and of the one that is flooded.
pub const CALLER: u16 = 1;
pub const CALLEE: u16 = 2;
/// What callees' friends must show.
const TOKEN: [u8; 16] = [9; 16];
/// Until the relay has bound a side to the socket of a flood.
const BOUND_MAX: Duration = Duration::from_secs(5);
/// First byte of what is in a frame: a QUIC packet's, as the relay wants it.
const PACKET_BYTE: u8 = 0x41;

pub fn key(number: u16) -> SecretKey {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_seed(seed)
}

/// A user's stream with the relay.
struct User {
    _node: Node,
    relay: SocketAddr,
    stream: PeerStream,
    decoder: Decoder<RelayMessage>,
    unread: Bytes,
    asked: u32,
}

impl User {
    /// Connects to `target`, `PEER,ADDRESS`.
    async fn connect(number: u16, ip: IpAddr, target: &str) -> Result<Self> {
        let (peer, address) = target.split_once(',').context("target is not PEER,ADDRESS")?;
        let (peer, relay): (PeerId, SocketAddr) = (peer.parse()?, address.parse()?);
        let IpAddr::V4(ip) = ip else { bail!("the places have IPv4 addresses") };
        let node = start(number, ip, peer, relay)?;
        let name = ProtocolName::parse(RELAY_PROTOCOL).context("the relay's protocol has a good name")?;
        let opened = node.open(OpenRequest::new(peer, vec![name])).await?;
        let stream = opened.channel.into_stream().context("a stream was asked for")?;
        let (decoder, unread) = (Decoder::new(), Bytes::new());
        Ok(Self { _node: node, relay, stream, decoder, unread, asked: 0 })
    }

    async fn ask(&mut self, body: RelayExchange) -> Result<RelayExchange> {
        self.asked += 1;
        let request = NonZeroU32::new(self.asked).context("requests begin with 1")?;
        self.stream.send.write(RelayMessage::Numbered { request, body }.encode()).await?;
        loop {
            match self.read().await? {
                RelayMessage::Numbered { body: RelayExchange::Refuse(why), .. } => bail!("refused: {why:?}"),
                RelayMessage::Numbered { body, .. } => return Ok(body),
                RelayMessage::Notice(_) | RelayMessage::Unknown => {}
            }
        }
    }

    async fn reserve(&mut self) -> Result<()> {
        self.ask(RelayExchange::Reserve { token: Hidden(TOKEN), stamp: None }).await.map(drop)
    }

    async fn call(&mut self, callee: PeerId) -> Result<RelayFlow> {
        match self.ask(RelayExchange::Connect { peer: callee, token: Hidden(TOKEN) }).await? {
            RelayExchange::Flow(flow) => Ok(flow),
            other => bail!("a call was answered with {other:?}"),
        }
    }

    async fn read(&mut self) -> Result<RelayMessage> {
        loop {
            if let Some(message) = self.decoder.feed(&mut self.unread)? {
                return Ok(message);
            }
            self.unread = self.stream.recv.read_chunk().await?.context("the relay ended the stream")?;
        }
    }
}

fn start(number: u16, ip: Ipv4Addr, relay: PeerId, address: SocketAddr) -> Result<Node> {
    let resolver = Resolver::new();
    resolver.set(relay, vec![address.to_string().parse()?])?;
    let mut config = Config::new(Arc::new(key(number)), resolver);
    config.ipv4 = Some(ip);
    config.ipv6 = None;
    Ok(Node::start(config)?)
}

/// (internal) Holds a lease, and takes in silence what one caller sends.
pub async fn callee(ip: IpAddr, target: &str, ready: impl FnOnce(&str)) -> Result<()> {
    let mut user = User::connect(CALLEE, ip, target).await?;
    user.reserve().await?;
    ready(&key(CALLEE).peer_id().to_string());
    loop {
        if let RelayMessage::Notice(RelayNotice::Incoming { flow, .. }) = user.read().await? {
            let _socket = bound(ip, user.relay, &end_of(&flow)?)?;
            std::future::pending::<()>().await;
        }
    }
}

/// (internal) Calls the callee and sends it packets of that size for ever.
pub async fn flood(
    ip: IpAddr,
    target: &str,
    callee: &str,
    packet_bytes: usize,
    ready: impl FnOnce(&str),
) -> Result<()> {
    let mut user = User::connect(CALLER, ip, target).await?;
    let flow = user.call(callee.parse()?).await?;
    let end = end_of(&flow)?;
    let socket = bound(ip, user.relay, &end)?;
    ready("flood");
    let packet = vec![PACKET_BYTE; packet_bytes];
    let frame_bytes = HEAD_BYTES + packet_bytes;
    let mut train = vec![0; frame_bytes * udp::segments_of(frame_bytes)];
    for frame in train.chunks_mut(frame_bytes) {
        frame[HEAD_BYTES..].copy_from_slice(&packet);
    }
    tokio::task::spawn_blocking(move || -> Result<()> {
        loop {
            for frame in train.chunks_mut(frame_bytes) {
                let head = end.head(&packet).context("the flow is used up")?;
                frame[..HEAD_BYTES].copy_from_slice(&head);
            }
            udp::send_train(&socket, &train, frame_bytes)?;
        }
    })
    .await?
}

fn end_of(flow: &RelayFlow) -> Result<FlowEnd> {
    let vni = Vni::new(flow.vni.get()).context("flow 0")?;
    Ok(FlowEnd::new(vni, FlowKey::new(flow.key.0), Tag(flow.accept.0)))
}

/// A socket to which the relay sends what is for this end.
fn bound(ip: IpAddr, relay: SocketAddr, end: &FlowEnd) -> Result<UdpSocket> {
    let socket = udp::bind(ip)?;
    socket.connect(relay)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let start = Instant::now();
    let mut buffer = vec![0; 65_536];
    while start.elapsed() < BOUND_MAX {
        socket.send(&end.bind().context("the flow is used up")?)?;
        while let Ok(length) = socket.recv(&mut buffer) {
            match end.open(&buffer[..length]) {
                Ok(Opened::Answer(answer)) => drop(socket.send(&answer)?),
                Ok(Opened::Bound(_)) => return Ok(socket),
                // Others' frames may already come.
                Ok(Opened::Packet(_)) | Err(_) => {}
            }
        }
    }
    bail!("the relay did not bind the flow within {} s", BOUND_MAX.as_secs())
}

/// (internal) Users without number: each caller has a circuit to each callee, unless only their links are wanted. Gives back what keeps
/// them.
pub async fn crowd(ip: IpAddr, target: &str, only_links: bool) -> Result<Box<dyn Send>> {
    let mut callees = Vec::new();
    for number in CALLERS + 1..=CALLERS + CALLEES {
        let mut user = User::connect(number, ip, target).await?;
        user.reserve().await?;
        // Its calls are read, or the relay would have to keep them.
        callees.push(tokio::spawn(async move { while user.read().await.is_ok() {} }));
    }
    let mut callers = Vec::new();
    for number in 1..=CALLERS {
        let mut user = User::connect(number, ip, target).await?;
        if !only_links {
            for callee in CALLERS + 1..=CALLERS + CALLEES {
                user.call(key(callee).peer_id()).await?;
            }
        }
        callers.push(user);
    }
    Ok(Box::new((callers, callees)))
}
