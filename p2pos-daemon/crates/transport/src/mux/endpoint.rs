//! What the mux offers to the floor above, as calls of [`Endpoint`].

use std::{net::SocketAddr, sync::Arc};

use p2pos_relay::{FlowEnd, Service};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    endpoint::Endpoint,
    forward::Forwarder,
    mux::{
        fake::FakeAddr,
        flow::{FlowTraffic, RelayFlow},
        probe::{ProbeError, Probes},
        routes::RouteError,
        tcp::TcpRelay,
    },
};

impl Endpoint {
    /// Makes an address that stands for all of `ways` at once: the packets of a handshake sent to it are copied to each,
    /// and the peer's first answer decides which way the connection takes. `ways` are real addresses and addresses of
    /// relay flows and guess sockets, at most 32. Remove it when the dial is over.
    ///
    /// # Errors
    /// [`RouteError::Full`] at a limit, [`RouteError::Unsendable`] for a way that nothing may be sent to.
    pub fn add_peer(&self, ways: &[SocketAddr]) -> Result<FakeAddr, RouteError> {
        self.shared().add_peer(ways)
    }

    /// Makes an address that stands for a flow through a relay, and begins to bind the flow to our UDP socket: asks the
    /// relay until it answers, for 6 s at most, and again when the sockets were rebuilt. Packets may be sent at once.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`RouteError::Full`] at the limit, [`RouteError::Doubled`] if the flow is there already,
    /// [`RouteError::Unsendable`] for a relay that nothing may be sent to.
    pub fn add_relay_flow(&self, flow: RelayFlow) -> Result<FakeAddr, RouteError> {
        self.shared().add_relay_flow(flow)
    }

    /// Begins to forward what users of `service` send to our ports. Once for each endpoint: a second call changes nothing
    /// and returns `None`.
    #[must_use]
    pub fn forward(&self, service: Service) -> Option<Arc<Forwarder>> {
        self.shared().set_forwarder(service)
    }

    /// The number and the far end of the TCP connection by which a path goes, if it goes by one: it leads to a user of ours,
    /// or to a relay, and not through one.
    #[must_use]
    pub fn line_of(&self, fake: FakeAddr) -> Option<(u64, SocketAddr)> {
        self.shared().line_of(fake)
    }

    /// Takes over a TCP connection to a relay, for networks that block UDP, or one that a user of ours has made. It ends
    /// when the handle is dropped, when the other side is silent for 90 s, or says nothing at all for 10 s. `relay` is the
    /// other end's address. Must be called within a tokio runtime.
    pub fn add_tcp_relay<S>(&self, stream: S, relay: SocketAddr) -> TcpRelay
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        self.shared().add_tcp_relay(stream, relay)
    }

    /// The same as [`Endpoint::add_relay_flow`], through a TCP connection. Its packets wait in a queue of 64, which drops
    /// the oldest.
    ///
    /// # Errors
    /// As there.
    pub fn add_tcp_relay_flow(&self, relay: &TcpRelay, end: FlowEnd) -> Result<FakeAddr, RouteError> {
        self.shared().add_tcp_relay_flow(relay, end)
    }

    /// Makes an address that stands for `remote` as reached from `socket`: a socket whose NAT binding the peer has hit.
    /// Hand it to [`crate::Paths::open`], or, on the side that was dialled, just wait for the peer's path. Packets of others
    /// that come by this socket are dropped.
    ///
    /// # Errors
    /// [`RouteError::Full`] with 32 of them, [`RouteError::Socket`] if the socket is of no use,
    /// [`RouteError::Unsendable`] for a remote that nothing may be sent to.
    pub fn add_guess_socket(
        &self,
        socket: std::net::UdpSocket,
        remote: SocketAddr,
    ) -> Result<FakeAddr, RouteError> {
        self.shared().add_guess_socket(socket, remote)
    }

    /// Forgets a made-up address, and closes the socket if it was a guess socket's; whether it was there. Paths over it
    /// fall silent: close them first.
    pub fn remove_way(&self, fake: FakeAddr) -> bool {
        self.shared().remove_way(fake)
    }

    /// How much a relay flow has carried; `None` if there is no such flow.
    #[must_use]
    pub fn flow_traffic(&self, fake: FakeAddr) -> Option<FlowTraffic> {
        self.shared().flow_traffic(fake)
    }

    /// Waits until the relay has bound the flow to our address, and says which address that is as the relay sees it;
    /// `None` once the flow is gone. Waits for ever if the relay never answers. Cancel-safe.
    pub async fn flow_bound(&self, fake: FakeAddr) -> Option<SocketAddr> {
        self.shared().flow_bound(fake).await
    }

    /// The probes that come in: openers, guesses, knocks, and STUN from whom we asked. The first call gets them, later
    /// ones `None`. At most 256 wait; beyond that, and beyond 512 a second, they are dropped and counted.
    #[must_use]
    pub fn probes(&self) -> Option<Probes> {
        self.shared().take_probes()
    }

    /// Sends a probe from our ordinary socket, or from a guess socket if `to` is its made-up address; `ttl` limits its
    /// hops, for this packet only (on systems other than Linux a packet sent in the same instant may share it). Never
    /// waits. A STUN request lets answers of `to` in for ten seconds.
    ///
    /// # Errors
    /// [`ProbeError`] if it was not sent.
    pub fn send_probe(&self, probe: &[u8], to: SocketAddr, ttl: Option<u8>) -> Result<(), ProbeError> {
        self.shared().send_probe(probe, to, ttl)
    }
}
