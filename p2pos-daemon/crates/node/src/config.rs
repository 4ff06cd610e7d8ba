//! What a node is started with.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use p2pos_discovery::{RelayAt, Resolver};
use p2pos_identity::{PeerId, SecretKey};
use p2pos_relay::RelaySettings;

/// Who a peer that calls us is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Somebody the user knows.
    Contact,
    /// Somebody unknown who may come in; few of them may be connected at a time.
    Stranger,
    /// Nobody we talk to: the connection is closed.
    Refuse,
}

/// Decides who may connect to us. Asked once for each connection that a peer has begun, after it has proven who it is.
pub trait Policy: Send + Sync + 'static {
    /// Judges a peer. Must not block.
    fn admits(&self, peer: &PeerId) -> Admission;

    /// Whether packets to and from a peer may go through somebody else's machine. Must not block.
    fn may_relay(&self, _: &PeerId) -> bool {
        true
    }
}

impl<F: Fn(&PeerId) -> Admission + Send + Sync + 'static> Policy for F {
    fn admits(&self, peer: &PeerId) -> Admission {
        self(peer)
    }
}

/// The policy that lets everybody in, as strangers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Everyone;

impl Policy for Everyone {
    fn admits(&self, _: &PeerId) -> Admission {
        Admission::Stranger
    }
}

/// For whom a node relays, and whose relays it uses.
#[derive(Debug, Clone, Default)]
pub struct RelayConfig {
    /// For whom, and how much.
    pub settings: RelaySettings,
    /// Relays at which we want to be callable.
    pub uses: Vec<RelayAt>,
    /// Bytes that were forwarded this month before.
    pub month_bytes: u64,
    /// TCP ports for users whose network blocks UDP; 0 stands for the number of our UDP port.
    pub tcp_ports: Vec<u16>,
}

/// What a node needs.
#[derive(Clone)]
pub struct Config {
    /// Our identity.
    pub key: Arc<SecretKey>,
    /// The UDP port, in both families; `None` takes any.
    pub port: Option<u16>,
    /// The IPv4 address to bind; `None` does without IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address to bind; `None` does without IPv6.
    pub ipv6: Option<Ipv6Addr>,
    /// Whether routers are asked to let packets in.
    pub asks_routers: bool,
    /// For whom we relay, and whose relays we use.
    pub relay: RelayConfig,
    /// Where addresses of peers come from.
    pub resolver: Resolver,
    /// Who may connect to us.
    pub policy: Arc<dyn Policy>,
}

impl Config {
    /// Any port, on all addresses of both families, open to everyone.
    #[must_use]
    pub fn new(key: Arc<SecretKey>, resolver: Resolver) -> Self {
        Self {
            key,
            port: None,
            ipv4: Some(Ipv4Addr::UNSPECIFIED),
            ipv6: Some(Ipv6Addr::UNSPECIFIED),
            asks_routers: false,
            relay: RelayConfig::default(),
            resolver,
            policy: Arc::new(Everyone),
        }
    }

    pub(crate) fn transport(&self) -> p2pos_transport::Config {
        p2pos_transport::Config { key: self.key.clone(), port: self.port, ipv4: self.ipv4, ipv6: self.ipv6 }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key: _, port, ipv4, ipv6, asks_routers, relay, resolver: _, policy: _ } = self;
        f.debug_struct("Config")
            .field("port", port)
            .field("ipv4", ipv4)
            .field("ipv6", ipv6)
            .field("asks_routers", asks_routers)
            .field("relay", relay)
            .finish_non_exhaustive()
    }
}
