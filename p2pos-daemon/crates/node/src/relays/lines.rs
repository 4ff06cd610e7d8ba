//! TCP between users and relays, where UDP is blocked: who listens, who connects, and at which port.
//!
//! A relay listens on the number of its UDP port and, where it may, on 443. A user who does not reach a relay by UDP tries 443
//! first, then the relay's own port. What goes over the connection is the transport's; it needs no cover of its own, because
//! QUIC is encrypted and frames bear tags ([0024]). Refuses to know: leases and flows.
//!
//! [0024]: ../../../../../docs/decisions/0024-tcp-without-a-cover.md

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use p2pos_identity::PeerId;
use p2pos_transport::TcpRelay;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::Relays;
use crate::peer::Context;

/// The port that hardly any network blocks.
const HTTPS: u16 = 443;

/// How long a TCP connection may take to stand.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// TCP connections of one address, and of all. A household behind one router has a few.
const PER_ADDRESS_MAX: usize = 8;
const LINES_MAX: usize = 128;

/// Pause after a connection could not be taken: the machine is out of something, mostly of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The TCP connections that we made to relays.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<BTreeMap<PeerId, Arc<TcpRelay>>>);

impl Lines {
    /// The one to this relay.
    pub(super) fn to(&self, relay: PeerId) -> Option<Arc<TcpRelay>> {
        self.lock().get(&relay).filter(|line| line.is_open()).cloned()
    }

    /// Connects to a relay by TCP; whether that succeeded.
    pub(super) async fn connect(&self, context: &Context, relay: PeerId) -> bool {
        if self.to(relay).is_some() {
            return true;
        }
        let Ok(resolved) = context.resolver.resolve(&relay).await else { return false };
        for candidate in resolved.candidates {
            for port in [HTTPS, candidate.addr.port()] {
                let address = SocketAddr::new(candidate.addr.ip(), port);
                match timeout(CONNECT_MAX, TcpStream::connect(address)).await {
                    Ok(Ok(stream)) => {
                        set_quick(&stream);
                        let line = Arc::new(context.endpoint.add_tcp_relay(stream, address));
                        self.lock().insert(relay, line);
                        return true;
                    }
                    Ok(Err(error)) => tracing::debug!(%address, %error, "no TCP connection to a relay"),
                    Err(_) => tracing::debug!(%address, "no TCP connection to a relay in time"),
                }
            }
        }
        false
    }

    /// Lets go of connections to relays that are not in use.
    pub(super) fn sweep(&self, is_used: impl Fn(PeerId) -> bool) {
        self.lock().retain(|relay, line| line.is_open() && is_used(*relay));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, Arc<TcpRelay>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes users' connections on every address of ours at this port, for ever; 0 stands for the number of our UDP port.
pub(super) async fn listen(relays: Arc<Relays>, port: u16) {
    let mut listening = JoinSet::new();
    for local in relays.endpoint.local_addresses() {
        let local = SocketAddr::new(local.ip(), if port == 0 { local.port() } else { port });
        match bind(local) {
            Ok(listener) => {
                listening.spawn(accept(relays.clone(), listener));
            }
            // Below 1024 that takes a right that few daemons have; relaying works without.
            Err(error) => tracing::info!(%local, %error, "no TCP for users of the relay at this port"),
        }
    }
    while listening.join_next().await.is_some() {}
}

fn bind(local: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(local), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if local.is_ipv6() {
        // IPv4 has a socket of its own.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&local.into())?;
    socket.listen(i32::try_from(LINES_MAX).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

async fn accept(relays: Arc<Relays>, listener: TcpListener) {
    let mut lines = JoinSet::new();
    let mut held = BTreeMap::<IpAddr, usize>::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = lines.join_next() => {
                if let Ok(ip) = ended
                    && let Some(count) = held.get_mut(&ip)
                {
                    *count -= 1;
                    if *count == 0 {
                        held.remove(&ip);
                    }
                }
                continue;
            }
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a TCP connection could not be taken");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let is_serving = relays.serving.with(|service| service.status().mode) != p2pos_relay::RelayMode::Off;
        let of_address = held.get(&remote.ip()).copied().unwrap_or(0);
        // Closed without a word: whoever scans learns nothing.
        if is_serving && lines.len() < LINES_MAX && of_address < PER_ADDRESS_MAX {
            set_quick(&stream);
            *held.entry(remote.ip()).or_default() += 1;
            let line = relays.endpoint.add_tcp_relay(stream, remote);
            lines.spawn(async move {
                line.closed().await;
                remote.ip()
            });
        }
    }
}

/// Packets leave as they come; waiting for more would only add delay.
fn set_quick(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a TCP connection stays slow");
    }
}
