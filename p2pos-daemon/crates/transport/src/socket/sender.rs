//! What noq's tasks send through: finds the way of a batch, splits what the kernel cannot take at once, and forgets what
//! cannot be sent.
//!
//! A packet that did not leave is a lost packet, and QUIC repairs those; an error returned from here would end the
//! connection. So nothing here ever fails.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    num::NonZeroUsize,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use noq::UdpSender;
use noq_udp::Transmit;
use p2pos_relay::{HEAD_BYTES, PAYLOAD_BYTES_MAX};

use crate::{
    mux::{
        fake::FakeAddr,
        flow::{Carrier, Flow},
        routes::Route,
        tcp::Queue,
    },
    probing::Leave,
    tuning::GSO_BATCH_BYTES_MAX,
};

use super::{
    Guess, Shared,
    family::{Family, Writable},
    is_sendable,
    message::Message,
    real_address,
};

/// Segments that we let noq put in one batch; the kernel's own limit (`UDP_MAX_SEGMENTS`), noq uses fewer.
const SEGMENTS_MAX: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not zero");

/// Set in the first byte of packets with a long header, those of the handshake (RFC 9000 s17.2).
const LONG_HEADER: u8 = 0x80;

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// noq's endpoint, answering packets that belong to no connection.
    Responder,
    /// A connection, talking to its own partner or probing a path.
    Connection,
}

/// What a batch wears on its way.
#[derive(Clone, Copy)]
enum Dress<'a> {
    /// Nothing: it goes to the peer.
    Plain,
    /// The envelope of a relay flow.
    Envelope(&'a Flow),
}

/// One task's way out.
pub(super) struct Sender {
    shared: Arc<Shared>,
    role: Role,
    /// Bytes of the current batch that have left; noq offers the same batch again after a wait.
    sent: usize,
    waiting: Option<Writable>,
    /// The last destination that was free to send to, and in which window that was found.
    free: Option<(SocketAddr, u64)>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("role", &self.role).field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>, role: Role) -> Self {
        Self { shared, role, sent: 0, waiting: None, free: None }
    }

    fn poll_any(&mut self, transmit: &Transmit<'_>, cx: &mut Context<'_>) -> Poll<()> {
        if self.role == Role::Responder && !self.shared.may_answer(transmit.destination, transmit.contents) {
            self.shared.counters.answers_withheld.count();
            return Poll::Ready(());
        }
        let destination = real_address(transmit.destination);
        if let Some(fake) = FakeAddr::of(destination.ip()) {
            return self.poll_way(fake, transmit, cx);
        }
        if !is_sendable(destination) {
            self.shared.counters.unsendable.count();
            return Poll::Ready(());
        }
        if !self.may_leave(destination, transmit) {
            self.shared.counters.restrained.count();
            return Poll::Ready(());
        }
        let Some(family) = self.shared.family_for(destination.ip()) else {
            self.shared.counters.send_failures.count();
            return Poll::Ready(());
        };
        let source =
            transmit.src_ip.map(|ip| ip.to_canonical()).filter(|ip| ip.is_ipv4() == destination.is_ipv4());
        let batch = Transmit { destination, src_ip: source, ..transmit.clone() };
        self.poll_batch(&family, &batch, Dress::Plain, cx)
    }

    /// Whether a batch may leave for a real address. A batch that waits for the kernel has been judged.
    fn may_leave(&mut self, to: SocketAddr, batch: &Transmit<'_>) -> bool {
        let found = Some((to, self.shared.window.number()));
        if self.free == found || self.sent > 0 || self.waiting.is_some() {
            return true;
        }
        let segment = batch.segment_size.unwrap_or(batch.contents.len()).max(1);
        match self.shared.may_leave(to, batch.contents.len().div_ceil(segment)) {
            Leave::Free => {
                // Judging may have begun another window; then this is looked up once more.
                self.free = found;
                true
            }
            Leave::Counted => true,
            Leave::Spent | Leave::Foreign => false,
        }
    }

    /// Sends what is left of `batch`; pending while the kernel's buffer is full.
    fn poll_batch(
        &mut self,
        family: &Arc<Family>,
        batch: &Transmit<'_>,
        dress: Dress<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        while self.sent < batch.contents.len() {
            if let Some(waiting) = &mut self.waiting {
                let ready = ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
                if ready.is_err() {
                    self.shared.counters.send_failures.count();
                    break;
                }
            }
            let segments = dress.segments_max(family);
            let piece = next_piece(batch, self.sent, segments, dress.bytes());
            match dress.try_send(family, &piece) {
                Ok(()) => self.sent += piece.contents.len(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match self.role {
                    // noq does not come back to wait for these.
                    Role::Responder => break,
                    Role::Connection => self.waiting = Some(family.clone().writable()),
                },
                // The device cannot segment, which has just been noticed: the same bytes again, one by one.
                Err(_) if piece.segment_size.is_some() && dress.segments_max(family) < segments => {}
                Err(error) => {
                    self.forget_piece(&error, piece.contents.len());
                }
            }
        }
        Poll::Ready(())
    }

    fn forget_piece(&mut self, error: &io::Error, len: usize) {
        // Expected: that is how probing for the packet size finds the interface's limit.
        if !noq_udp::is_msg_size_err(error) {
            tracing::trace!(%error, len, "a batch could not be sent");
            self.shared.counters.send_failures.count();
        }
        self.sent += len;
    }

    /// Sends to what a made-up address stands for.
    fn poll_way(&mut self, fake: FakeAddr, batch: &Transmit<'_>, cx: &mut Context<'_>) -> Poll<()> {
        let route = self.shared.routes().get(fake).cloned();
        match route {
            Some(Route::Peer(ways)) => self.fan_out(&ways, batch),
            Some(Route::Guess(guess)) => {
                let batch = to_guess(&guess, batch);
                return self.poll_batch(&guess.family, &batch, Dress::Plain, cx);
            }
            Some(Route::Flow(flow)) => match flow.carrier() {
                Carrier::Tcp(queue) => queue_up(&flow, queue, batch),
                Carrier::Udp(relay) => {
                    let batch = Transmit { destination: *relay, src_ip: None, ..batch.clone() };
                    let Some(family) = self.shared.family_for(relay.ip()) else {
                        self.shared.counters.send_failures.count();
                        return Poll::Ready(());
                    };
                    return self.poll_batch(&family, &batch, Dress::Envelope(&flow), cx);
                }
            },
            Some(Route::Line(line)) => queue_bare(&line, batch),
            // Expected after a way was removed; a peer may also have made one up among its candidates.
            None => self.shared.counters.unsendable.count(),
        }
        Poll::Ready(())
    }

    /// Copies a packet of the handshake to every way; never waits, because the others would wait too. Data does not
    /// take this road: it would be sent as many times as there are ways.
    fn fan_out(&self, ways: &[SocketAddr], batch: &Transmit<'_>) {
        let is_handshake = batch.contents.first().is_some_and(|first| first & LONG_HEADER != 0);
        if !is_handshake {
            return self.shared.counters.unsendable.count();
        }
        for way in ways {
            if self.send_copy(*way, batch).is_err() {
                self.shared.counters.send_failures.count();
            }
        }
    }

    fn send_copy(&self, way: SocketAddr, batch: &Transmit<'_>) -> io::Result<()> {
        let missing = || io::Error::from(io::ErrorKind::NotConnected);
        let Some(fake) = FakeAddr::of(way.ip()) else {
            let family = self.shared.family_for(way.ip()).ok_or_else(missing)?;
            return send_all(
                &family,
                &Transmit { destination: way, src_ip: None, ..batch.clone() },
                Dress::Plain,
            );
        };
        let route = self.shared.routes().get(fake).cloned();
        match route.ok_or_else(missing)? {
            // A way of ways would multiply.
            Route::Peer(_) => Err(missing()),
            Route::Guess(guess) => send_all(&guess.family, &to_guess(&guess, batch), Dress::Plain),
            Route::Line(line) => {
                queue_bare(&line, batch);
                Ok(())
            }
            Route::Flow(flow) => match flow.carrier() {
                Carrier::Tcp(queue) => {
                    queue_up(&flow, queue, batch);
                    Ok(())
                }
                Carrier::Udp(relay) => {
                    let family = self.shared.family_for(relay.ip()).ok_or_else(missing)?;
                    let batch = Transmit { destination: *relay, src_ip: None, ..batch.clone() };
                    send_all(&family, &batch, Dress::Envelope(&flow))
                }
            },
        }
    }
}

impl UdpSender for Sender {
    fn poll_send(
        mut self: Pin<&mut Self>,
        transmit: &Transmit<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_any(transmit, cx));
        // Also where the way vanished while its socket was waited for: the next batch begins at its beginning.
        self.sent = 0;
        self.waiting = None;
        Poll::Ready(Ok(()))
    }

    fn max_transmit_segments(&self) -> NonZeroUsize {
        SEGMENTS_MAX
    }
}

impl Dress<'_> {
    /// Bytes before each packet.
    fn bytes(self) -> usize {
        match self {
            Self::Plain => 0,
            Self::Envelope(_) => HEAD_BYTES,
        }
    }

    fn segments_max(self, family: &Family) -> usize {
        match self {
            Self::Plain => family.segments_max(),
            Self::Envelope(_) => family.segments_in_pieces_max(),
        }
    }

    fn try_send(self, family: &Family, piece: &Transmit<'_>) -> io::Result<()> {
        match self {
            Self::Plain => family.try_send(piece),
            Self::Envelope(flow) => send_in_envelopes(flow, family, piece),
        }
    }
}

/// Sends a piece with a head before each packet: one system call, and no payload is copied.
fn send_in_envelopes(flow: &Flow, family: &Family, piece: &Transmit<'_>) -> io::Result<()> {
    let segment = piece.segment_size.unwrap_or(piece.contents.len()).max(1);
    // Each head has its own count, and a try that did not succeed has used some up: gaps mean nothing to the relay.
    let heads: Option<Vec<_>> = piece.contents.chunks(segment).map(|packet| flow.head(packet)).collect();
    let Some(heads) = heads else { return Ok(()) };
    let slices: Vec<IoSlice<'_>> = heads
        .iter()
        .zip(piece.contents.chunks(segment))
        .flat_map(|(head, packet)| [IoSlice::new(head), IoSlice::new(packet)])
        .collect();
    let segment = piece.segment_size.and_then(|segment| u16::try_from(segment + HEAD_BYTES).ok());
    let message = Message { to: piece.destination, slices: &slices, segment, ecn: piece.ecn, ttl: None };
    family.try_send_pieces(&message)?;
    flow.note_sent(heads.len(), piece.contents.len());
    Ok(())
}

/// Hands a batch to a TCP connection.
fn queue_up(flow: &Flow, queue: &Queue, batch: &Transmit<'_>) {
    let segment = batch.segment_size.unwrap_or(batch.contents.len()).max(1);
    for packet in batch.contents.chunks(segment) {
        let Some(head) = flow.head(packet) else { continue };
        match queue.push(&head, packet) {
            0 => {}
            dropped => flow.note_dropped(dropped),
        }
        flow.note_sent(1, packet.len());
    }
}

/// Hands a batch for the relay itself, or for a user of ours, to a TCP connection. What is too long is QUIC's search for the
/// largest packet, or the queue was full: both are losses, which QUIC repairs.
fn queue_bare(queue: &Queue, batch: &Transmit<'_>) {
    let segment = batch.segment_size.unwrap_or(batch.contents.len()).max(1);
    for packet in batch.contents.chunks(segment).filter(|packet| packet.len() <= PAYLOAD_BYTES_MAX) {
        queue.push(packet, &[]);
    }
}

/// The batch as it leaves by a guess socket, which has one partner and one address.
fn to_guess<'a>(guess: &Guess, batch: &Transmit<'a>) -> Transmit<'a> {
    Transmit { destination: guess.remote, src_ip: None, ..batch.clone() }
}

/// Sends a batch as far as that is possible at once.
fn send_all(family: &Family, batch: &Transmit<'_>, dress: Dress<'_>) -> io::Result<()> {
    let mut sent = 0;
    while sent < batch.contents.len() {
        let piece = next_piece(batch, sent, dress.segments_max(family), dress.bytes());
        dress.try_send(family, &piece)?;
        sent += piece.contents.len();
    }
    Ok(())
}

/// Sends a batch of forwarded frames as far as the socket takes it; how many bytes are dealt with. What the kernel refuses
/// for another reason than a full buffer is lost.
pub(super) fn send_run(family: &Family, batch: &Transmit<'_>) -> usize {
    let mut sent = 0;
    while sent < batch.contents.len() {
        let segments = family.segments_max();
        let piece = next_piece(batch, sent, segments, 0);
        match family.try_send(&piece) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // The device cannot segment, which has just been noticed: the same bytes again, one by one.
            Err(_) if piece.segment_size.is_some() && family.segments_max() < segments => {}
            Ok(()) | Err(_) => sent += piece.contents.len(),
        }
    }
    sent
}

/// Cuts the next piece that one `sendmsg` can take: whole segments, at most `segments_max` and, with `extra` bytes before
/// each, at most 64 KiB together.
fn next_piece<'a>(batch: &Transmit<'a>, sent: usize, segments_max: usize, extra: usize) -> Transmit<'a> {
    let rest = &batch.contents[sent..];
    let segment = batch.segment_size.unwrap_or(rest.len()).max(1);
    let segments = (GSO_BATCH_BYTES_MAX / (segment + extra)).clamp(1, segments_max.max(1));
    let len = rest.len().min(segment * segments);
    let segment_size = (len > segment).then_some(segment);
    Transmit { contents: &rest[..len], segment_size, ..batch.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(contents: &[u8], segment_size: Option<usize>) -> Transmit<'_> {
        let destination = SocketAddr::from(([127, 0, 0, 1], 1));
        Transmit { destination, ecn: None, contents, segment_size, src_ip: None }
    }

    fn pieces(
        contents: &[u8],
        segment_size: Option<usize>,
        segments_max: usize,
    ) -> Vec<(usize, Option<usize>)> {
        let batch = batch(contents, segment_size);
        let mut sent = 0;
        let mut pieces = Vec::new();
        while sent < contents.len() {
            let piece = next_piece(&batch, sent, segments_max, 0);
            pieces.push((piece.contents.len(), piece.segment_size));
            sent += piece.contents.len();
        }
        pieces
    }

    #[test]
    fn a_batch_above_64_kib_leaves_in_whole_segments() {
        let contents = vec![0; 89_000];
        assert_eq!(pieces(&contents, Some(8_952), 64), [(62_664, Some(8_952)), (26_336, Some(8_952))]);
    }

    #[test]
    fn a_device_without_segmentation_gets_single_packets() {
        assert_eq!(pieces(&[0; 3_500], Some(1_452), 1), [(1_452, None), (1_452, None), (596, None)]);
    }

    #[test]
    fn an_ordinary_batch_stays_whole() {
        assert_eq!(pieces(&[0; 14_000], Some(1_452), 64), [(14_000, Some(1_452))]);
        assert_eq!(pieces(&[0; 1_200], None, 64), [(1_200, None)]);
        assert_eq!(pieces(&[0; 65_507], None, 64), [(65_507, None)]);
    }

    #[test]
    fn envelopes_count_towards_what_one_call_can_take() {
        let contents = vec![0; 64 * 1_452];
        let batch = Transmit {
            destination: ([192, 0, 2, 1], 9).into(),
            ecn: None,
            contents: &contents,
            segment_size: Some(1_452),
            src_ip: None,
        };
        let piece = next_piece(&batch, 0, 64, HEAD_BYTES);
        let segments = piece.contents.len() / 1_452;
        assert_eq!(piece.contents.len() % 1_452, 0);
        assert!(segments * (1_452 + HEAD_BYTES) <= GSO_BATCH_BYTES_MAX, "{segments}");
    }

    #[test]
    fn mapped_addresses_leave_by_their_own_family() {
        let mapped: SocketAddr = "[::ffff:192.0.2.7]:9".parse().unwrap();
        assert_eq!(real_address(mapped), "192.0.2.7:9".parse().unwrap());
        let v6: SocketAddr = "[2001:db8::1]:9".parse().unwrap();
        assert_eq!(real_address(v6), v6);
    }
}
