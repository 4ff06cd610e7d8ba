//! A relay flow as a way out: QUIC packets leave in the relay's envelope, and come in without it.
//!
//! The head of each packet is made here and sent beside the packet, never in front of a copy of it. A flow is bound to our
//! address by a short exchange with the relay, which is repeated until the relay says where it sees us, and again after
//! our sockets were rebuilt. Refuses to know how a flow was granted.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use p2pos_relay::{ControlFrame, FlowEnd, HEAD_BYTES, OpenError, Opened, PAYLOAD_BYTES_MAX, Vni};
use tokio::sync::watch;

use crate::mux::{fake::FakeAddr, tcp::Queue};

/// Waits between the attempts to bind a flow. The exchange takes one round trip; the sum, 6 s, is more than a relay that
/// is there will ever need, and a relay that is gone shall not be asked for ever.
pub(crate) const BIND_WAITS: [Duration; 7] = [
    Duration::from_millis(150),
    Duration::from_millis(300),
    Duration::from_millis(600),
    Duration::from_millis(1_000),
    Duration::from_millis(1_300),
    Duration::from_millis(1_300),
    Duration::from_millis(1_350),
];

/// What a relay told us about a flow, for [`crate::Endpoint::add_relay_flow`].
#[derive(Debug)]
pub struct RelayFlow {
    /// The relay's address.
    pub relay: SocketAddr,
    /// Our end of the flow.
    pub end: FlowEnd,
}

/// What a flow has carried, envelopes not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlowTraffic {
    /// QUIC packets handed to the relay.
    pub packets_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// QUIC packets that came from the relay.
    pub packets_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Packets that did not leave: too long for a relay, or the queue of the TCP connection was full.
    pub packets_dropped: u64,
}

/// How frames reach the relay.
#[derive(Debug)]
pub(crate) enum Carrier {
    /// As datagrams to this address, in its own family's form.
    Udp(SocketAddr),
    /// Through this connection's queue.
    Tcp(Arc<Queue>),
}

/// A registered flow.
#[derive(Debug)]
pub(crate) struct Flow {
    fake: FakeAddr,
    end: FlowEnd,
    carrier: Carrier,
    /// Where the relay sees us, once it has said so.
    bound: watch::Sender<Option<SocketAddr>>,
    binder: Mutex<Option<tokio::task::AbortHandle>>,
    packets_sent: AtomicU64,
    bytes_sent: AtomicU64,
    packets_received: AtomicU64,
    bytes_received: AtomicU64,
    packets_dropped: AtomicU64,
}

/// What a received frame was.
#[derive(Debug)]
pub(crate) enum Received {
    /// A QUIC packet, behind the head.
    Packet,
    /// A question of the relay, with the answer to send.
    Answer(ControlFrame),
    /// News for the flow, already noted.
    Noted,
}

impl Flow {
    pub(crate) fn new(fake: FakeAddr, end: FlowEnd, carrier: Carrier) -> Self {
        Self {
            fake,
            end,
            carrier,
            bound: watch::Sender::new(None),
            binder: Mutex::new(None),
            packets_sent: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            packets_received: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            packets_dropped: AtomicU64::new(0),
        }
    }

    pub(crate) fn fake(&self) -> FakeAddr {
        self.fake
    }

    pub(crate) fn vni(&self) -> Vni {
        self.end.vni()
    }

    pub(crate) fn carrier(&self) -> &Carrier {
        &self.carrier
    }

    /// The relay's address, for people.
    pub(crate) fn relay(&self) -> SocketAddr {
        match &self.carrier {
            Carrier::Udp(relay) => *relay,
            Carrier::Tcp(queue) => queue.relay(),
        }
    }

    /// Makes the head for one packet; `None` if the packet cannot travel on this flow. Count it once it has left.
    pub(crate) fn head(&self, packet: &[u8]) -> Option<[u8; HEAD_BYTES]> {
        // Longer ones are QUIC's search for the largest packet: to be dropped is the answer it looks for.
        let head = (packet.len() <= PAYLOAD_BYTES_MAX).then(|| self.end.head(packet)).flatten();
        if head.is_none() {
            self.note_dropped(1);
        }
        head
    }

    pub(crate) fn note_sent(&self, packets: usize, bytes: usize) {
        self.packets_sent.fetch_add(packets as u64, Ordering::Relaxed);
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn note_dropped(&self, packets: usize) {
        self.packets_dropped.fetch_add(packets as u64, Ordering::Relaxed);
    }

    /// Reads a frame that came from the relay.
    pub(crate) fn open(&self, frame: &[u8]) -> Result<Received, OpenError> {
        match self.end.open(frame)? {
            Opened::Packet(packet) => {
                self.packets_received.fetch_add(1, Ordering::Relaxed);
                self.bytes_received.fetch_add(packet.len() as u64, Ordering::Relaxed);
                Ok(Received::Packet)
            }
            Opened::Answer(answer) => Ok(Received::Answer(answer)),
            Opened::Bound(address) => {
                self.bound.send_replace(Some(address));
                Ok(Received::Noted)
            }
        }
    }

    /// Whether a frame from the relay's address is of this flow.
    pub(crate) fn recognises(&self, frame: &[u8]) -> bool {
        self.end.recognises(frame)
    }

    /// Forgets where the relay sees us, because that may have changed.
    pub(crate) fn forget_bound(&self) {
        self.bound.send_replace(None);
    }

    pub(crate) fn is_bound(&self) -> bool {
        self.bound.borrow().is_some()
    }

    /// The next frame that asks the relay to send to us here.
    pub(crate) fn bind_frame(&self) -> Option<ControlFrame> {
        self.end.bind()
    }

    /// Watches where the relay sees us.
    pub(crate) fn watch_bound(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.bound.subscribe()
    }

    /// Hands the flow the task that binds it, in place of an earlier one.
    pub(crate) fn set_binder(&self, task: tokio::task::AbortHandle) {
        let mut binder = self.binder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = binder.replace(task) {
            earlier.abort();
        }
    }

    pub(crate) fn traffic(&self) -> FlowTraffic {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FlowTraffic {
            packets_sent: read(&self.packets_sent),
            bytes_sent: read(&self.bytes_sent),
            packets_received: read(&self.packets_received),
            bytes_received: read(&self.bytes_received),
            packets_dropped: read(&self.packets_dropped),
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let binder = self.binder.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = binder.take() {
            task.abort();
        }
    }
}
