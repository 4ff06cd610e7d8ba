//! The endpoint: our sockets, our identity and noq's machine, put together; and taken apart in order.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use noq::{ClientConfig, EndpointConfig, NoneTokenStore, ServerConfig, TokioRuntime, TransportConfig};
use p2pos_identity::{PeerId, SecretKey};
use p2pos_noise_quic::{
    Handshakes, QUIC_VERSION, cid_generator, probe::StrangerFilter, reset_key, token_key,
};
use p2pos_peer_protocol::EndCode;
use tokio::{
    sync::{Mutex, mpsc},
    task::AbortHandle,
    time::timeout,
};

use crate::{
    accept,
    connection::Connection,
    error::BindError,
    socket::{Listen, Shared, SocketCounters, Survivors},
    stream::quic_code,
    tuning::{
        self, ACCEPT_QUEUE, CLOSE_WAIT_MAX, INCOMING_BYTES_ALL, INCOMING_BYTES_EACH, INCOMING_WAITING_MAX,
        RESET_INTERVAL_MIN, Reach, UDP_PAYLOAD_BYTES_MAX,
    },
};

/// What an endpoint needs.
#[derive(Clone)]
pub struct Config {
    /// Our identity.
    pub key: Arc<SecretKey>,
    /// The UDP port in both families; `None` takes any, the same in both where possible.
    pub port: Option<u16>,
    /// The IPv4 address to bind; `None` does without IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address to bind; `None` does without IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

impl Config {
    /// Any port, on all addresses of both families.
    #[must_use]
    pub fn new(key: Arc<SecretKey>) -> Self {
        Self { key, port: None, ipv4: Some(Ipv4Addr::UNSPECIFIED), ipv6: Some(Ipv6Addr::UNSPECIFIED) }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key: _, port, ipv4, ipv6 } = self;
        f.debug_struct("Config")
            .field("port", port)
            .field("ipv4", ipv4)
            .field("ipv6", ipv6)
            .finish_non_exhaustive()
    }
}

/// A handle to the endpoint; clones share it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    noq: noq::Endpoint,
    shared: Arc<Shared>,
    configs: Arc<Configs>,
    established: Mutex<mpsc::Receiver<Connection>>,
    acceptor: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

impl Endpoint {
    /// Binds the sockets and starts to accept handshakes. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`] if the port is taken, or no address family works.
    pub fn bind(config: &Config) -> Result<Self, BindError> {
        let listen = Listen { port: config.port, ipv4: config.ipv4, ipv6: config.ipv6 };
        let (shared, mux) = Shared::bind(listen, StrangerFilter::new(&config.key))?;
        let configs = Arc::new(Configs::new(config.key.clone()));
        let server = configs.server(Reach::Internet).as_ref().clone();
        let noq = noq::Endpoint::new_with_abstract_socket(
            endpoint_config(&config.key),
            Some(server),
            Box::new(mux),
            Arc::new(TokioRuntime),
        )?;
        let (sender, established) = mpsc::channel(ACCEPT_QUEUE);
        let acceptor = tokio::spawn(accept::run(noq.clone(), configs.clone(), shared.clone(), sender));
        let inner = Inner {
            noq,
            shared,
            configs,
            established: Mutex::new(established),
            acceptor: acceptor.abort_handle(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Who we are.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.inner.configs.key.peer_id()
    }

    /// Works out beforehand what every handshake with `peer` needs: for contacts, of which there are few. Costs some 50 us.
    pub fn expect(&self, peer: &PeerId) {
        self.inner.configs.handshakes.expect(peer);
    }

    /// The addresses of our sockets, as bound.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.inner.shared.local_addresses()
    }

    /// Waits for the next connection that a peer has begun; `None` once the endpoint is closed. Cancel-safe.
    pub async fn accept(&self) -> Option<Connection> {
        self.inner.established.lock().await.recv().await
    }

    /// Waits until a socket does not work any more; at once if that is so. [`Endpoint::network_changed`] heals. Cancel-safe.
    pub async fn broken(&self) {
        self.inner.shared.broken().await;
    }

    /// Heals broken sockets after a change of the network and makes every connection check its paths. Enough when our
    /// sockets are bound to no address in particular and still work; else [`Endpoint::rebuild_sockets`].
    ///
    /// # Errors
    /// [`BindError`] if no socket can be bound any more; connections then wait for the next change.
    pub fn network_changed(&self) -> Result<(), BindError> {
        let healed = self.inner.shared.heal();
        self.check_paths();
        healed
    }

    /// Closes all sockets and binds new ones, on the same port if that can be had within a tenth of a second; makes every
    /// connection check its paths, and every relay flow be bound anew. Connections live on: those that we dialled open
    /// paths from the new address, of those that we accepted the peer, or a relay, notices. Guess sockets are closed,
    /// since whatever NAT bindings they had belong to the old network.
    ///
    /// Not cancel-safe: dropped halfway it leaves no sockets, which [`Endpoint::broken`] tells.
    ///
    /// # Errors
    /// [`BindError`] if no socket can be bound any more; connections then wait for the next change.
    pub async fn rebuild_sockets(&self) -> Result<(), BindError> {
        let rebuilt = self.inner.shared.rebuild().await;
        self.check_paths();
        rebuilt
    }

    fn check_paths(&self) {
        let survivors = Survivors { shared: self.inner.shared.clone() };
        self.inner.noq.handle_network_change(Some(Arc::new(survivors)));
    }

    /// Datagrams that did not go the ordinary way.
    #[must_use]
    pub fn counters(&self) -> SocketCounters {
        self.inner.shared.counters()
    }

    /// Closes every connection with `code`, accepts no more, and waits a bounded time until the close packets have left.
    pub async fn close(&self, code: EndCode) {
        self.inner.shared.fall_silent();
        self.inner.noq.close(quic_code(code), b"");
        if timeout(CLOSE_WAIT_MAX, self.inner.noq.wait_all_draining()).await.is_err() {
            tracing::debug!("some connections did not close in time");
        }
        self.inner.acceptor.abort();
    }

    pub(crate) fn noq(&self) -> &noq::Endpoint {
        &self.inner.noq
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    pub(crate) fn configs(&self) -> &Configs {
        &self.inner.configs
    }
}

fn endpoint_config(key: &SecretKey) -> EndpointConfig {
    let mut config = EndpointConfig::new(reset_key(key));
    config
        .cid_generator(cid_generator(key))
        .supported_versions(vec![QUIC_VERSION])
        .grease_quic_bit(false)
        .min_reset_interval(RESET_INTERVAL_MIN)
        .max_udp_payload_size(UDP_PAYLOAD_BYTES_MAX)
        .expect("65,527 is the largest payload that QUIC allows");
    config
}

/// noq's configurations, one per reach, made once.
pub(crate) struct Configs {
    key: Arc<SecretKey>,
    pub(crate) handshakes: Handshakes,
    transports: [Arc<TransportConfig>; Reach::ALL.len()],
    servers: [Arc<ServerConfig>; Reach::ALL.len()],
}

impl std::fmt::Debug for Configs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Configs")
    }
}

impl Configs {
    fn new(key: Arc<SecretKey>) -> Self {
        let transports = Reach::ALL.map(tuning::transport);
        let handshakes = Handshakes::new(&key);
        let crypto = handshakes.server();
        let tokens = token_key(&key);
        let servers = transports.each_ref().map(|transport| {
            let mut server = ServerConfig::new(crypto.clone(), tokens.clone());
            server
                .transport_config(transport.clone())
                .migration(true)
                .max_incoming(INCOMING_WAITING_MAX)
                .incoming_buffer_size(INCOMING_BYTES_EACH)
                .incoming_buffer_size_total(INCOMING_BYTES_ALL);
            Arc::new(server)
        });
        Self { key, handshakes, transports, servers }
    }

    pub(crate) fn server(&self, reach: Reach) -> Arc<ServerConfig> {
        self.servers[index(reach)].clone()
    }

    /// Address tokens are not kept: they would link our connections, and Retry is rare.
    pub(crate) fn client(&self, peer: &PeerId, reach: Reach) -> ClientConfig {
        let mut client = ClientConfig::new(self.handshakes.client(peer));
        client
            .version(QUIC_VERSION)
            .transport_config(self.transports[index(reach)].clone())
            .token_store(Arc::new(NoneTokenStore));
        client
    }
}

fn index(reach: Reach) -> usize {
    match reach {
        Reach::Loopback => 0,
        Reach::Lan => 1,
        Reach::Internet => 2,
    }
}
