//! A relay in miniature, and a NAT in miniature, for the tests of this folder.
//!
//! The relay has one flow with two sides, speaks RELAY.md over UDP and over streams, counts what it forwards, and can be
//! cut. The NAT forwards datagrams between whoever speaks first and one address, and can be cut as well.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use p2pos_relay::{
    ANSWER_BYTES, Control, FlowEnd, FlowKey, HEAD_BYTES, Tag, Vni, decode, encode_head,
    tcp::{FrameReader, encode_length},
};
use p2pos_transport::RelayFlow;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::UdpSocket,
    sync::mpsc,
};

const COOKIE: [u8; 8] = *b"a cookie";
const BYTES_BEFORE_TAG: usize = 9;

/// Where a side is.
#[derive(Clone)]
enum Link {
    Udp(SocketAddr),
    Stream(mpsc::Sender<Vec<u8>>),
}

struct Side {
    key: [u8; 16],
    accept: [u8; 8],
    link: Mutex<Option<Link>>,
}

struct State {
    socket: UdpSocket,
    vni: Vni,
    sides: [Side; 2],
    packets: AtomicU64,
    is_cut: AtomicBool,
}

/// The relay; gone when dropped.
pub struct Relay {
    state: Arc<State>,
    task: tokio::task::AbortHandle,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    pub async fn start() -> Self {
        let side = |fill| Side { key: [fill; 16], accept: [fill + 10; 8], link: Mutex::default() };
        let state = Arc::new(State {
            socket: UdpSocket::bind("127.0.0.1:0").await.unwrap(),
            vni: Vni::new(0x00c0_ffee).unwrap(),
            sides: [side(1), side(2)],
            packets: AtomicU64::new(0),
            is_cut: AtomicBool::new(false),
        });
        let task = tokio::spawn({
            let state = state.clone();
            async move {
                let mut buffer = vec![0; 65_536];
                loop {
                    let (len, from) = state.socket.recv_from(&mut buffer).await.unwrap();
                    state.handle(&mut buffer[..len], Link::Udp(from)).await;
                }
            }
        });
        Self { state, task: task.abort_handle() }
    }

    pub fn address(&self) -> SocketAddr {
        self.state.socket.local_addr().unwrap()
    }

    /// What side 0 or 1 is told about the flow.
    pub fn end(&self, side: usize) -> FlowEnd {
        let Side { key, accept, .. } = &self.state.sides[side];
        FlowEnd::new(self.state.vni, FlowKey::new(*key), Tag(*accept))
    }

    pub fn flow(&self, side: usize) -> RelayFlow {
        RelayFlow { relay: self.address(), end: self.end(side) }
    }

    /// Packets forwarded so far.
    pub fn packets(&self) -> u64 {
        self.state.packets.load(Ordering::Relaxed)
    }

    /// Serves a side that comes by a stream.
    pub fn serve(&self, stream: DuplexStream) {
        let state = self.state.clone();
        let (mut reader, mut writer) = tokio::io::split(stream);
        let (sender, mut frames) = mpsc::channel::<Vec<u8>>(64);
        tokio::spawn(async move {
            while let Some(frame) = frames.recv().await {
                let length = encode_length(frame.len()).unwrap();
                if writer.write_all(&[&length[..], &frame].concat()).await.is_err() {
                    return;
                }
            }
        });
        tokio::spawn(async move {
            let mut reader_of_frames = FrameReader::new();
            let mut buffer = vec![0; 65_536];
            while let Ok(len @ 1..) = reader.read(&mut buffer).await {
                reader_of_frames.push(&buffer[..len]);
                while let Some(frame) = reader_of_frames.next_frame().unwrap() {
                    state.handle(&mut frame.to_vec(), Link::Stream(sender.clone())).await;
                }
            }
        });
    }
}

impl State {
    async fn handle(&self, datagram: &mut [u8], from: Link) {
        if self.is_cut.load(Ordering::Relaxed) {
            return;
        }
        let Ok(frame) = decode(datagram) else { return };
        let signed = &datagram[..BYTES_BEFORE_TAG];
        let sender = self.sides.iter().position(|side| {
            let tag = FlowKey::new(side.key).tag(signed, frame.payload);
            frame.vni == self.vni && frame.tag.is(tag)
        });
        let Some(sender) = sender else { return };
        match frame.control {
            Some(Control::Bind) => self.answer(sender, &from, 2, &COOKIE).await,
            Some(Control::Proof(cookie)) => {
                assert_eq!(cookie, COOKIE);
                let address = match &from {
                    Link::Udp(SocketAddr::V4(address)) => *address,
                    Link::Udp(_) | Link::Stream(_) => "192.0.2.99:9".parse().unwrap(),
                };
                let ip = address.ip().to_ipv6_mapped().octets();
                let body = [&ip[..], &address.port().to_be_bytes()].concat();
                *self.sides[sender].link.lock().unwrap() = Some(from.clone());
                self.answer(sender, &from, 4, &body).await;
            }
            Some(Control::Challenge(_) | Control::Bound(_)) => panic!("sides do not say this"),
            None => {
                let other = &self.sides[1 - sender];
                let to = other.link.lock().unwrap().clone();
                let Some(to) = to else { return };
                datagram[BYTES_BEFORE_TAG..HEAD_BYTES].copy_from_slice(&other.accept);
                self.packets.fetch_add(1, Ordering::Relaxed);
                self.send(&to, datagram).await;
            }
        }
    }

    async fn answer(&self, side: usize, to: &Link, kind: u8, body: &[u8]) {
        let mut payload = [0; ANSWER_BYTES];
        payload[0] = kind;
        payload[1..=body.len()].copy_from_slice(body);
        let head = encode_head(self.vni, 1, Tag(self.sides[side].accept));
        self.send(to, &[&head[..], &payload].concat()).await;
    }

    async fn send(&self, to: &Link, frame: &[u8]) {
        match to {
            Link::Udp(to) => drop(self.socket.send_to(frame, to).await),
            // Full means lost, as on a real wire.
            Link::Stream(stream) => drop(stream.try_send(frame.to_vec())),
        }
    }
}

/// A NAT with one mapping, from whoever spoke last to `target`.
pub struct Nat {
    outside: SocketAddr,
    is_cut: Arc<AtomicBool>,
    tasks: [tokio::task::AbortHandle; 2],
}

impl Drop for Nat {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Nat {
    pub async fn start(target: SocketAddr) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let back = Arc::new(UdpSocket::bind("127.0.0.2:0").await.unwrap());
        let outside = front.local_addr().unwrap();
        let is_cut = Arc::new(AtomicBool::new(false));
        let inside = Arc::new(Mutex::new(None));
        let there = tokio::spawn({
            let (front, back, inside, is_cut) = (front.clone(), back.clone(), inside.clone(), is_cut.clone());
            async move {
                let mut buffer = vec![0; 65_536];
                loop {
                    let (len, from) = front.recv_from(&mut buffer).await.unwrap();
                    *inside.lock().unwrap() = Some(from);
                    if !is_cut.load(Ordering::Relaxed) {
                        back.send_to(&buffer[..len], target).await.ok();
                    }
                }
            }
        });
        let back_again = tokio::spawn({
            let is_cut = is_cut.clone();
            async move {
                let mut buffer = vec![0; 65_536];
                loop {
                    let (len, _) = back.recv_from(&mut buffer).await.unwrap();
                    let to = *inside.lock().unwrap();
                    if let Some(to) = to
                        && !is_cut.load(Ordering::Relaxed)
                    {
                        front.send_to(&buffer[..len], to).await.ok();
                    }
                }
            }
        });
        Self { outside, is_cut, tasks: [there.abort_handle(), back_again.abort_handle()] }
    }

    /// The address that leads to the target.
    pub fn address(&self) -> SocketAddr {
        self.outside
    }

    /// From now on nothing passes.
    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
    }
}
