//! Adding and removing ways that are no plain addresses, and the small packets beside QUIC.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use p2pos_relay::{FlowEnd, HEAD_BYTES, Via};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::sleep,
};

use crate::{
    classify::{Class, classify},
    mux::{
        fake::{FakeAddr, FakeKind},
        flow::{BIND_WAITS, Carrier, Flow, FlowTraffic, Received, RelayFlow},
        probe::{PROBE_BYTES_MAX, ProbeError, Probes, kind_of},
        routes::{Route, RouteError},
        tcp::{self, TcpRelay},
    },
    path::Way,
};

use super::{Guess, Inbound, Shared, family::Family, is_sendable, lock, message::Message, now, real_address};

impl Shared {
    pub(crate) fn add_peer(&self, ways: &[SocketAddr]) -> Result<FakeAddr, RouteError> {
        let ways: Vec<SocketAddr> = ways.iter().map(|way| real_address(*way)).collect();
        let is_bad = |way: &&SocketAddr| match FakeAddr::of(way.ip()) {
            Some(fake) => fake.kind() == FakeKind::Peer,
            None => !is_sendable(**way),
        };
        if let Some(bad) = ways.iter().find(is_bad) {
            return Err(RouteError::Unsendable(*bad));
        }
        self.routes_mut().add_peer(ways)
    }

    pub(crate) fn add_relay_flow(self: &Arc<Self>, flow: RelayFlow) -> Result<FakeAddr, RouteError> {
        let relay = real_address(flow.relay);
        if FakeAddr::of(relay.ip()).is_some() || !is_sendable(relay) {
            return Err(RouteError::Unsendable(flow.relay));
        }
        self.add_flow(FakeKind::Relay, flow.end, Carrier::Udp(relay))
    }

    pub(crate) fn add_tcp_relay_flow(
        self: &Arc<Self>,
        relay: &TcpRelay,
        end: FlowEnd,
    ) -> Result<FakeAddr, RouteError> {
        self.add_flow(FakeKind::TcpRelay, end, Carrier::Tcp(relay.queue().clone()))
    }

    fn add_flow(
        self: &Arc<Self>,
        kind: FakeKind,
        end: FlowEnd,
        carrier: Carrier,
    ) -> Result<FakeAddr, RouteError> {
        let flow = Arc::new(Flow::new(FakeAddr::mint(kind), end, carrier));
        self.routes_mut().add_flow(&flow)?;
        self.spawn_binder(&flow);
        self.open_early(&flow);
        Ok(flow.fake())
    }

    /// Hands noq the packets that came for a flow before we knew it.
    fn open_early(&self, flow: &Flow) {
        let Some(forwarder) = self.forwarder() else { return };
        let from = match flow.carrier() {
            Carrier::Udp(relay) => Via::Udp(*relay),
            Carrier::Tcp(queue) => Via::Tcp(queue.id()),
        };
        for frame in forwarder.take_early(from, flow.vni(), now()) {
            if flow.recognises(&frame)
                && let Some(Received::Packet) = self.open(flow, &frame)
            {
                let packet = frame.slice(HEAD_BYTES..);
                let inbound = Inbound { source: flow.fake().socket_addr(), packet };
                if self.inbound.try_send(inbound).is_err() {
                    self.counters.relay.count();
                }
            }
        }
    }

    pub(crate) fn add_tcp_relay<S>(self: &Arc<Self>, stream: S, relay: SocketAddr) -> TcpRelay
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let id = self.tcp_relays.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::downgrade(self);
        let line = tcp::spawn(stream, (id, relay), move |queue, frame| {
            let shared = shared.upgrade();
            async move {
                if let Some(shared) = shared {
                    shared.deliver(&queue, frame).await;
                }
            }
        });
        // Without a place, nothing can be sent to the relay itself, and the dial says so.
        if let Err(error) = self.routes_mut().add_line(line.queue()) {
            tracing::debug!(%error, "a TCP connection with a relay found no place");
        }
        let (shared, queue) = (Arc::downgrade(self), line.queue().clone());
        tokio::spawn(async move {
            queue.closed().await;
            if let Some(shared) = shared.upgrade() {
                shared.routes_mut().remove(queue.fake());
                if let Some(forwarder) = shared.forwarder() {
                    forwarder.remove_line(queue.id());
                }
            }
        });
        if let Some(forwarder) = self.forwarder() {
            forwarder.add_line(line.queue().clone());
        }
        line
    }

    /// The number and the far end of the TCP connection that a made-up address stands for.
    pub(crate) fn line_of(&self, fake: FakeAddr) -> Option<(u64, SocketAddr)> {
        match self.routes().get(fake)? {
            Route::Line(line) => Some((line.id(), line.relay())),
            Route::Peer(_) | Route::Flow(_) | Route::Guess(_) => None,
        }
    }

    pub(crate) fn add_guess_socket(
        &self,
        socket: std::net::UdpSocket,
        remote: SocketAddr,
    ) -> Result<FakeAddr, RouteError> {
        let remote = real_address(remote);
        if FakeAddr::of(remote.ip()).is_some() || !is_sendable(remote) {
            return Err(RouteError::Unsendable(remote));
        }
        // A guess socket that breaks is not healed: its path dies and another way takes over.
        let family =
            Family::adopt(socket, Arc::default()).map_err(|error| RouteError::Socket(error.to_string()))?;
        let guess = Guess { fake: FakeAddr::mint(FakeKind::Guess), family: Arc::new(family), remote };
        let fake = guess.fake;
        self.routes_mut().add_guess(fake, Arc::new(guess))?;
        self.wake_reader();
        Ok(fake)
    }

    pub(crate) fn remove_way(&self, fake: FakeAddr) -> bool {
        self.routes_mut().remove(fake)
    }

    pub(crate) fn flow_traffic(&self, fake: FakeAddr) -> Option<FlowTraffic> {
        self.flow(fake).map(|flow| flow.traffic())
    }

    /// Waits until the relay has bound the flow, and says as whom it sees us; `None` if the flow is gone. Cancel-safe.
    pub(crate) async fn flow_bound(&self, fake: FakeAddr) -> Option<SocketAddr> {
        let mut bound = self.flow(fake)?.watch_bound();
        let bound = bound.wait_for(Option::is_some).await.ok()?;
        *bound
    }

    /// What an address of noq's stands for.
    pub(crate) fn way_of(&self, address: SocketAddr) -> Way {
        let address = real_address(address);
        let Some(fake) = FakeAddr::of(address.ip()) else { return Way::Direct(address) };
        match self.routes().get(fake) {
            Some(Route::Flow(flow)) => match flow.carrier() {
                Carrier::Udp(_) => Way::Relay { fake, relay: flow.relay() },
                Carrier::Tcp(_) => Way::TcpRelay { fake, relay: flow.relay() },
            },
            Some(Route::Guess(guess)) => Way::Guess { fake, remote: guess.remote },
            Some(Route::Line(line)) => Way::TcpRelay { fake, relay: line.relay() },
            Some(Route::Peer(_)) | None => Way::Gone(fake),
        }
    }

    /// The flow behind a made-up address.
    fn flow(&self, fake: FakeAddr) -> Option<Arc<Flow>> {
        match self.routes().get(fake) {
            Some(Route::Flow(flow)) => Some(flow.clone()),
            Some(Route::Peer(_) | Route::Guess(_) | Route::Line(_)) | None => None,
        }
    }

    /// Asks the relay to send to us here, until it says that it does.
    fn spawn_binder(self: &Arc<Self>, flow: &Arc<Flow>) {
        let (shared, weak) = (Arc::downgrade(self), Arc::downgrade(flow));
        let task = tokio::spawn(async move {
            for wait in BIND_WAITS {
                match (shared.upgrade(), weak.upgrade()) {
                    (Some(shared), Some(flow)) if !flow.is_bound() => shared.ask_to_bind(&flow),
                    _ => return,
                }
                sleep(wait).await;
            }
        });
        flow.set_binder(task.abort_handle());
    }

    fn ask_to_bind(&self, flow: &Flow) {
        let Some(frame) = flow.bind_frame() else { return };
        match flow.carrier() {
            Carrier::Tcp(queue) => {
                queue.push(&frame, &[]);
            }
            Carrier::Udp(relay) => {
                let Some(family) = self.family_for(relay.ip()) else { return };
                if let Err(error) = self.send_now(&family, *relay, &frame, None) {
                    tracing::trace!(%error, "could not ask a relay to bind a flow");
                }
            }
        }
    }

    /// After our addresses changed: all relays have to learn the new one.
    pub(super) fn bind_flows_anew(self: &Arc<Self>) {
        let flows = self.routes().udp_flows();
        for flow in flows {
            flow.forget_bound();
            self.spawn_binder(&flow);
        }
    }

    /// Hands out the probes that come in, once.
    pub(crate) fn take_probes(&self) -> Option<Probes> {
        lock(&self.probes).take()
    }

    pub(crate) fn send_probe(&self, probe: &[u8], to: SocketAddr, ttl: Option<u8>) -> Result<(), ProbeError> {
        if probe.len() > PROBE_BYTES_MAX {
            return Err(ProbeError::TooLong { bytes: probe.len() });
        }
        let class = classify(probe);
        if kind_of(class).is_none() {
            return Err(ProbeError::NotAProbe(probe.first().copied().unwrap_or(0)));
        }
        let to = real_address(to);
        let (family, to) = match FakeAddr::of(to.ip()) {
            None if is_sendable(to) => (self.family_for(to.ip()).ok_or(ProbeError::NoSocket)?, to),
            None => return Err(ProbeError::Unsendable(to)),
            Some(fake) => match self.routes().get(fake) {
                Some(Route::Guess(guess)) => (guess.family.clone(), guess.remote),
                Some(Route::Peer(_) | Route::Flow(_) | Route::Line(_)) | None => {
                    return Err(ProbeError::Unsendable(to));
                }
            },
        };
        if class == Class::Stun {
            lock(&self.gate).note_asked(to, now());
        }
        self.send_now(&family, to, probe, ttl).map_err(|error| {
            let is_busy = error.kind() == io::ErrorKind::WouldBlock;
            if is_busy { ProbeError::Busy } else { ProbeError::Refused(error.to_string()) }
        })
    }

    /// Sends one datagram of our own at once, or not.
    pub(super) fn send_now(
        &self,
        family: &Family,
        to: SocketAddr,
        datagram: &[u8],
        ttl: Option<u8>,
    ) -> io::Result<()> {
        let slices = [IoSlice::new(datagram)];
        let sent = family.send_at_once(&Message { to, slices: &slices, segment: None, ecn: None, ttl });
        if sent.is_err() {
            self.counters.send_failures.count();
        }
        sent
    }
}
