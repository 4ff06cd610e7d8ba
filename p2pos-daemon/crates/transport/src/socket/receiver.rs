//! The receiving side, held by noq's endpoint task: merges all sockets into one, sorts out what is not QUIC, and gives
//! packets that came by an unusual way the made-up address of that way.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroUsize,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use noq::{AsyncUdpSocket, UdpSender};
use noq_udp::RecvMeta;
use p2pos_relay::{FIRST_BYTE, HEAD_BYTES};
use tokio::sync::mpsc;

use crate::{
    classify::{Class, classify},
    mux::{
        fake::FakeAddr,
        flow::{Flow, Received},
        probe::{Offered, Source, kind_of},
        routes::Origin,
        sift::{Fate, sift},
    },
    tuning::UDP_PAYLOAD_BYTES_MAX,
};

use super::{
    Guess, Inbound, Shared,
    family::Family,
    lock, mapped_address, mapped_ip, now,
    sender::{Role, Sender},
};

/// Packets handed over per turn from where they wait in memory.
const WAITING_PER_TURN_MAX: usize = 32;

/// The receiving side.
pub(crate) struct Mux {
    shared: Arc<Shared>,
    /// Packets that came by TCP.
    inbound: mpsc::Receiver<Inbound>,
    /// Packets of a batch that did not come from the batch's first source; never more than one turn's.
    spilled: VecDeque<Spilled>,
    /// Which source is asked first next time, so that a busy one cannot starve another.
    turn: usize,
    /// The last address that was noted as heard, and in which window.
    heard: Option<(SocketAddr, u64)>,
}

/// A packet that has to wait for the next call.
struct Spilled {
    source: SocketAddr,
    ecn: Option<noq_udp::EcnCodepoint>,
    packet: Vec<u8>,
}

impl fmt::Debug for Mux {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mux").field("spilled", &self.spilled.len()).finish_non_exhaustive()
    }
}

impl Mux {
    pub(super) fn new(shared: Arc<Shared>, inbound: mpsc::Receiver<Inbound>) -> Self {
        Self { shared, inbound, spilled: VecDeque::new(), turn: 0, heard: None }
    }

    /// Hands over packets that wait from the last turn.
    fn take_spilled(&mut self, bufs: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(metas).take(WAITING_PER_TURN_MAX) {
            let Some(Spilled { source, ecn, packet }) = self.spilled.pop_front() else { break };
            *meta = fill(buf, &packet, source);
            meta.ecn = ecn;
            count += 1;
        }
        count
    }

    /// Hands over packets that came by TCP.
    fn poll_inbound(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<usize> {
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(metas).take(WAITING_PER_TURN_MAX) {
            let Poll::Ready(Some(Inbound { source, packet })) = self.inbound.poll_recv(cx) else { break };
            *meta = fill(buf, &packet, source);
            count += 1;
        }
        if count == 0 { Poll::Pending } else { Poll::Ready(count) }
    }

    fn poll_entry(
        &mut self,
        entry: Entry<'_>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<usize> {
        let received = entry.family.poll_recv(cx, bufs, metas, &self.shared.counters.receive_failures);
        if let Poll::Ready(count) = received {
            for (buf, meta) in bufs.iter_mut().zip(metas).take(count) {
                self.sort_out(buf, meta, entry);
            }
        }
        received
    }

    /// Leaves in a received batch what noq shall see, under the source that noq shall see.
    fn sort_out(&mut self, buf: &mut IoSliceMut<'_>, meta: &mut RecvMeta, entry: Entry<'_>) {
        let Self { shared, spilled, .. } = self;
        let from = meta.addr;
        if FakeAddr::of(from.ip()).is_some() {
            shared.counters.forged.count();
            meta.len = 0;
            return;
        }
        if entry.guess.is_none() {
            meta.len = shared.forward_batch((from, meta.dst_ip), meta.stride, &mut buf[..meta.len]);
        }
        let guest = Guest { shared, entry, from };
        let ecn = meta.ecn;
        let sifted = sift(
            &mut buf[..meta.len],
            meta.stride,
            |datagram| guest.judge(datagram),
            |source, packet| spilled.push_back(Spilled { source, ecn, packet: packet.to_vec() }),
        );
        meta.len = sifted.len;
        meta.stride = sifted.stride;
        let source = sifted.source.unwrap_or_else(|| mapped_address(from));
        meta.addr = source;
        if sifted.len > 0 && source == mapped_address(from) {
            self.note_heard(from, meta.dst_ip);
        }
        // Which address of ours a relay or a guess socket uses is not noq's business.
        meta.dst_ip = if FakeAddr::of(source.ip()).is_some() { None } else { meta.dst_ip.map(mapped_ip) };
    }

    /// Notes that QUIC packets came straight from a real address: once in a window, as long as it is the only one.
    fn note_heard(&mut self, from: SocketAddr, at: Option<IpAddr>) {
        let noted = Some((from, self.shared.window.number()));
        if self.heard != noted {
            self.shared.note_heard(from, at);
            self.heard = noted;
        }
    }
}

/// Puts a packet into a buffer of noq's.
fn fill(buf: &mut IoSliceMut<'_>, packet: &[u8], source: SocketAddr) -> RecvMeta {
    let mut meta = RecvMeta::default();
    meta.addr = source;
    meta.len = packet.len().min(buf.len());
    meta.stride = meta.len;
    buf[..meta.len].copy_from_slice(&packet[..meta.len]);
    meta
}

/// A socket by which datagrams come in.
#[derive(Clone, Copy)]
struct Entry<'a> {
    family: &'a Family,
    /// If it is a guess socket.
    guess: Option<&'a Guess>,
}

/// Whoever comes in.
struct Guest<'a> {
    shared: &'a Shared,
    entry: Entry<'a>,
    /// In its own family's form.
    from: SocketAddr,
}

impl Guest<'_> {
    fn judge(&self, datagram: &[u8]) -> Fate {
        let class = classify(datagram);
        match class {
            Class::Quic if self.shared.callers.admits(datagram) => self.source(),
            Class::Quic | Class::UnwantedQuic => {
                self.shared.counters.unwanted_quic.count();
                Fate::Gone
            }
            Class::Relay => self.open(datagram),
            Class::Unknown => {
                self.shared.counters.unknown.count();
                Fate::Gone
            }
            Class::Stun | Class::Opener | Class::Guess | Class::Knock => {
                self.offer(class, datagram);
                Fate::Gone
            }
        }
    }

    /// A QUIC packet as it is: from where it came, unless it came by a guess socket, which serves one address.
    fn source(&self) -> Fate {
        match self.entry.guess {
            None => Fate::Keep { source: mapped_address(self.from), skip: 0 },
            Some(guess) if guess.remote == self.from => {
                Fate::Keep { source: guess.fake.socket_addr(), skip: 0 }
            }
            Some(_) => {
                self.shared.counters.unwanted_quic.count();
                Fate::Gone
            }
        }
    }

    fn open(&self, frame: &[u8]) -> Fate {
        let flow = self.shared.flow_of(Origin::Udp(self.from), frame);
        match flow.as_ref().and_then(|flow| self.shared.open(flow, frame)) {
            Some(Received::Packet) => {
                let source = flow.map_or(self.from, |flow| flow.fake().socket_addr());
                Fate::Keep { source, skip: HEAD_BYTES }
            }
            Some(Received::Answer(answer)) => {
                self.shared.send_now(self.entry.family, self.from, &answer, None).ok();
                Fate::Gone
            }
            Some(Received::Noted) => Fate::Gone,
            None => {
                self.shared.counters.relay.count();
                Fate::Gone
            }
        }
    }

    fn offer(&self, class: Class, datagram: &[u8]) {
        let Some(kind) = kind_of(class) else { return };
        let source = Source { from: self.from, via: self.entry.guess.map(|guess| guess.fake) };
        match lock(&self.shared.gate).offer(kind, datagram, source, now()) {
            Offered::Taken => {}
            Offered::Dropped => self.shared.counters.probe.count(),
            Offered::Unasked => self.shared.counters.stun.count(),
        }
    }
}

impl Shared {
    /// The flow that a frame claims to belong to.
    pub(super) fn flow_of(&self, origin: Origin, frame: &[u8]) -> Option<Arc<Flow>> {
        let vni = p2pos_relay::decode(frame).ok()?.vni;
        self.routes().flow(origin, vni).cloned()
    }

    /// Opens a frame of a flow; a packet in it must be as good as one that came alone.
    pub(super) fn open(&self, flow: &Flow, frame: &[u8]) -> Option<Received> {
        let received = flow.open(frame).ok()?;
        if matches!(received, Received::Packet) {
            let packet = &frame[HEAD_BYTES..];
            if classify(packet) != Class::Quic || !self.callers.admits(packet) {
                self.counters.unwanted_quic.count();
                return Some(Received::Noted);
            }
        }
        Some(received)
    }

    /// Delivers a frame that came by TCP; waits while noq has enough to do.
    pub(super) async fn deliver(self: &Arc<Self>, queue: &crate::mux::tcp::Queue, frame: bytes::Bytes) {
        if frame.first() != Some(&FIRST_BYTE) {
            return self.deliver_bare(queue, frame).await;
        }
        let flow = self.flow_of(Origin::Tcp(queue.id()), &frame);
        let Some(flow) = flow.filter(|flow| flow.recognises(&frame)) else {
            if !self.forward_from_line(queue.id(), &frame) {
                self.counters.relay.count();
            }
            return;
        };
        match self.open(&flow, &frame) {
            Some(Received::Packet) => {
                let inbound =
                    Inbound { source: flow.fake().socket_addr(), packet: frame.slice(HEAD_BYTES..) };
                // Refused only when the endpoint is gone, and this task with it.
                self.inbound.send(inbound).await.ok();
            }
            Some(Received::Answer(answer)) => {
                queue.push(&answer, &[]);
            }
            Some(Received::Noted) => {}
            None => self.counters.relay.count(),
        }
    }

    /// Delivers a packet of the connection between a user and the relay itself.
    async fn deliver_bare(&self, queue: &crate::mux::tcp::Queue, packet: bytes::Bytes) {
        if classify(&packet) == Class::Quic && self.callers.admits(&packet) {
            let inbound = Inbound { source: queue.fake().socket_addr(), packet };
            // Refused only when the endpoint is gone, and this task with it.
            self.inbound.send(inbound).await.ok();
        } else {
            self.counters.unwanted_quic.count();
        }
    }
}

impl AsyncUdpSocket for Mux {
    fn create_sender(&self) -> Pin<Box<dyn UdpSender>> {
        let role = if self.shared.has_responder.swap(true, Ordering::Relaxed) {
            Role::Connection
        } else {
            Role::Responder
        };
        Box::pin(Sender::new(self.shared.clone(), role))
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let waiting = self.take_spilled(bufs, metas);
        if waiting > 0 {
            return Poll::Ready(Ok(waiting));
        }
        // Before the look at the sockets, so that one added meanwhile is not missed.
        lock(&self.shared.reader).get_or_insert_with(|| cx.waker().clone()).clone_from(cx.waker());
        let (v4, v6) = {
            let families = self.shared.families();
            (families.v4.clone(), families.v6.clone())
        };
        let guesses = self.shared.routes().guesses();
        let sources = 3 + guesses.len();
        self.turn = (self.turn + 1) % sources;
        for source in (self.turn..sources).chain(0..self.turn) {
            let received = match source {
                0 => v6
                    .as_deref()
                    .map(|family| self.poll_entry(Entry { family, guess: None }, cx, bufs, metas)),
                1 => v4
                    .as_deref()
                    .map(|family| self.poll_entry(Entry { family, guess: None }, cx, bufs, metas)),
                2 => Some(self.poll_inbound(cx, bufs, metas)),
                _ => {
                    let guess = &*guesses[source - 3];
                    let entry = Entry { family: &guess.family, guess: Some(guess) };
                    Some(self.poll_entry(entry, cx, bufs, metas))
                }
            };
            if let Some(Poll::Ready(count)) = received {
                return Poll::Ready(Ok(count));
            }
        }
        Poll::Pending
    }

    /// Always of IPv6 form: see the header of the folder.
    fn local_addr(&self) -> io::Result<SocketAddr> {
        let port = self.shared.local_addresses().first().map_or(0, SocketAddr::port);
        Ok(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))
    }

    /// noq sizes a receive slot as segments times the largest payload, and one slot never holds more than 64 KiB.
    fn max_receive_segments(&self) -> NonZeroUsize {
        const SLOT_BYTES: usize = 65_535;
        NonZeroUsize::new(SLOT_BYTES.div_ceil(usize::from(UDP_PAYLOAD_BYTES_MAX)))
            .unwrap_or(NonZeroUsize::MIN)
    }

    fn may_fragment(&self) -> bool {
        self.shared.families().all().any(|family| family.may_fragment())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use p2pos_identity::SecretKey;
    use p2pos_noise_quic::probe::StrangerFilter;
    use p2pos_relay::{FlowEnd, FlowKey, PAYLOAD_BYTES_MIN, Tag, Vni, encode_head};

    use super::*;
    use crate::{mux::flow::RelayFlow, socket::Listen};

    const RELAY: ([u8; 4], u16) = ([192, 0, 2, 1], 9);
    const FRAME_BYTES: usize = HEAD_BYTES + PAYLOAD_BYTES_MIN;

    fn mux() -> Mux {
        let listen = Listen { port: None, ipv4: Some(Ipv4Addr::LOCALHOST), ipv6: None };
        Shared::bind(listen, StrangerFilter::new(&SecretKey::from_seed([1; 32]))).unwrap().1
    }

    fn add_flow(mux: &Mux, number: u32) -> SocketAddr {
        let end = FlowEnd::new(Vni::new(number).unwrap(), FlowKey::new([1; 16]), Tag([2; 8]));
        mux.shared.add_relay_flow(RelayFlow { relay: RELAY.into(), end }).unwrap().socket_addr()
    }

    fn frame(number: u32, accept: u8, fill: u8) -> Vec<u8> {
        let head = encode_head(Vni::new(number).unwrap(), 1, Tag([accept; 8]));
        let mut packet = [fill; PAYLOAD_BYTES_MIN];
        packet[0] = 0x40;
        [&head[..], &packet].concat()
    }

    /// Feeds a batch as the kernel would, and returns what noq gets: (source, bytes, size of each).
    fn feed(mux: &mut Mux, batch: &[u8], from: SocketAddr) -> Vec<(SocketAddr, Vec<u8>, usize)> {
        let mut bytes = vec![0; 65_536];
        bytes[..batch.len()].copy_from_slice(batch);
        let mut meta = RecvMeta::default();
        (meta.addr, meta.len, meta.stride) = (from, batch.len(), FRAME_BYTES);
        let family = mux.shared.families().v4.clone().unwrap();
        let mut buf = IoSliceMut::new(&mut bytes);
        mux.sort_out(&mut buf, &mut meta, Entry { family: &family, guess: None });
        let mut got = vec![(meta.addr, buf[..meta.len].to_vec(), meta.stride)];
        let (mut bytes, mut metas) = ([0; 2_048], [RecvMeta::default()]);
        while mux.take_spilled(&mut [IoSliceMut::new(&mut bytes)], &mut metas) == 1 {
            got.push((metas[0].addr, bytes[..metas[0].len].to_vec(), metas[0].stride));
        }
        got.retain(|(_, bytes, _)| !bytes.is_empty());
        got
    }

    #[tokio::test]
    async fn a_batch_of_several_flows_reaches_noq_flow_by_flow_and_without_envelopes() {
        let mut mux = mux();
        let (one, two) = (add_flow(&mux, 1), add_flow(&mux, 2));
        let batch = [frame(1, 2, 7), frame(2, 2, 8), frame(1, 2, 9)].concat();
        let got = feed(&mut mux, &batch, RELAY.into());
        let packet = |fill| [&[0x40][..], &[fill; PAYLOAD_BYTES_MIN - 1]].concat();
        let joined = [packet(7), packet(9)].concat();
        assert_eq!(got, [(one, joined, PAYLOAD_BYTES_MIN), (two, packet(8), PAYLOAD_BYTES_MIN)]);
    }

    #[tokio::test]
    async fn frames_with_a_wrong_tag_of_no_flow_or_from_elsewhere_are_dropped() {
        let mut mux = mux();
        add_flow(&mux, 1);
        let elsewhere = SocketAddr::from(([192, 0, 2, 2], 9));
        for (bytes, from) in [
            (frame(1, 3, 7), RELAY.into()),
            (frame(2, 2, 7), RELAY.into()),
            (frame(1, 2, 7), elsewhere),
            (frame(1, 2, 7)[..FRAME_BYTES - 1].to_vec(), RELAY.into()),
        ] {
            assert!(feed(&mut mux, &bytes, from).is_empty(), "{bytes:?} from {from}");
        }
        assert_eq!(mux.shared.counters().relay, 4);
    }

    #[tokio::test]
    async fn nothing_from_the_network_comes_with_a_made_up_source() {
        let mut mux = mux();
        let fake = add_flow(&mux, 1);
        let mut packet = vec![7; FRAME_BYTES];
        packet[0] = 0x40;
        assert!(feed(&mut mux, &packet, fake).is_empty());
        assert_eq!(mux.shared.counters().forged, 1);
        assert_eq!(feed(&mut mux, &packet, RELAY.into()).len(), 1, "an honest source passes");
    }

    #[tokio::test]
    async fn a_probe_within_a_batch_of_quic_reaches_its_reader() {
        let mut mux = mux();
        let mut probes = mux.shared.take_probes().unwrap();
        let mut batch = vec![7; 3 * FRAME_BYTES];
        (batch[0], batch[FRAME_BYTES], batch[2 * FRAME_BYTES]) = (0x40, p2pos_traversal::GUESS, 0x40);
        let got = feed(&mut mux, &batch, RELAY.into());
        assert_eq!(got.len(), 1);
        assert_eq!((got[0].1.len(), got[0].2), (2 * FRAME_BYTES, FRAME_BYTES));
        let probe = probes.next().await.unwrap();
        assert_eq!((probe.from, probe.bytes.len()), (RELAY.into(), FRAME_BYTES));
        assert!(mux.shared.take_probes().is_none(), "one reader only");
    }
}
