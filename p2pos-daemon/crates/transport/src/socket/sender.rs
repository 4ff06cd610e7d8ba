//! What noq's tasks send through: routes a batch to its family, splits what the kernel cannot take at once, and forgets
//! what cannot be sent.
//!
//! A packet that did not leave is a lost packet, and QUIC repairs those; an error returned from here would end the
//! connection. So nothing here ever fails.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use noq::UdpSender;
use noq_udp::Transmit;

use crate::tuning::GSO_BATCH_BYTES_MAX;

use super::{
    Shared,
    family::{Family, Writable},
};

/// Segments that we let noq put in one batch; the kernel's own limit (`UDP_MAX_SEGMENTS`), noq uses fewer.
const SEGMENTS_MAX: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not zero");

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// noq's endpoint, answering packets that belong to no connection.
    Responder,
    /// A connection, talking to its own partner or probing a path.
    Connection,
}

/// One task's way out.
pub(super) struct Sender {
    shared: Arc<Shared>,
    role: Role,
    /// Bytes of the current batch that have left; noq offers the same batch again after a wait.
    sent: usize,
    waiting: Option<Writable>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("role", &self.role).field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>, role: Role) -> Self {
        Self { shared, role, sent: 0, waiting: None }
    }

    /// Sends what is left of `batch`; pending while the kernel's buffer is full.
    fn poll_batch(&mut self, family: &Arc<Family>, batch: &Transmit<'_>, cx: &mut Context<'_>) -> Poll<()> {
        while self.sent < batch.contents.len() {
            if let Some(waiting) = &mut self.waiting {
                let ready = ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
                if ready.is_err() {
                    self.count_failure();
                    break;
                }
            }
            let segments = family.segments_max();
            let piece = next_piece(batch, self.sent, segments);
            match family.try_send(&piece) {
                Ok(()) => self.sent += piece.contents.len(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match self.role {
                    // noq does not come back to wait for these.
                    Role::Responder => break,
                    Role::Connection => self.waiting = Some(family.clone().writable()),
                },
                // The device cannot segment, and noq-udp has just noticed: the same bytes again, one by one.
                Err(_) if piece.segment_size.is_some() && family.segments_max() < segments => {}
                Err(error) => {
                    self.forget_piece(&error, piece.contents.len());
                }
            }
        }
        self.sent = 0;
        Poll::Ready(())
    }

    fn forget_piece(&mut self, error: &io::Error, len: usize) {
        // Expected: that is how probing for the packet size finds the interface's limit.
        if !noq_udp::is_msg_size_err(error) {
            tracing::trace!(%error, len, "a batch could not be sent");
            self.count_failure();
        }
        self.sent += len;
    }

    fn count_failure(&self) {
        self.shared.counters.send_failures.fetch_add(1, Ordering::Relaxed);
    }
}

impl UdpSender for Sender {
    fn poll_send(
        mut self: Pin<&mut Self>,
        transmit: &Transmit<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.role == Role::Responder && !this.shared.may_answer(transmit.destination, transmit.contents) {
            this.shared.counters.answers_withheld.fetch_add(1, Ordering::Relaxed);
            return Poll::Ready(Ok(()));
        }
        let destination = real_address(transmit.destination);
        let Some(family) = this.shared.family_for(destination.ip()) else {
            this.count_failure();
            return Poll::Ready(Ok(()));
        };
        let source =
            transmit.src_ip.map(|ip| ip.to_canonical()).filter(|ip| ip.is_ipv4() == destination.is_ipv4());
        let batch = Transmit { destination, src_ip: source, ..transmit.clone() };
        ready!(this.poll_batch(&family, &batch, cx));
        Poll::Ready(Ok(()))
    }

    fn max_transmit_segments(&self) -> NonZeroUsize {
        SEGMENTS_MAX
    }
}

/// An address as its own family writes it.
fn real_address(address: SocketAddr) -> SocketAddr {
    match (address, address.ip().to_canonical()) {
        (SocketAddr::V6(_), ip @ IpAddr::V4(_)) => SocketAddr::new(ip, address.port()),
        (SocketAddr::V6(_), IpAddr::V6(_)) | (SocketAddr::V4(_), _) => address,
    }
}

/// Cuts the next piece that one `sendmsg` can take: whole segments, at most `segments_max` and at most 64 KiB together.
fn next_piece<'a>(batch: &Transmit<'a>, sent: usize, segments_max: usize) -> Transmit<'a> {
    let rest = &batch.contents[sent..];
    let segment = batch.segment_size.unwrap_or(rest.len()).max(1);
    let segments = (GSO_BATCH_BYTES_MAX / segment).clamp(1, segments_max.max(1));
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
            let piece = next_piece(&batch, sent, segments_max);
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
    fn mapped_addresses_leave_by_their_own_family() {
        let mapped: SocketAddr = "[::ffff:192.0.2.7]:9".parse().unwrap();
        assert_eq!(real_address(mapped), "192.0.2.7:9".parse().unwrap());
        let v6: SocketAddr = "[2001:db8::1]:9".parse().unwrap();
        assert_eq!(real_address(v6), v6);
    }
}
