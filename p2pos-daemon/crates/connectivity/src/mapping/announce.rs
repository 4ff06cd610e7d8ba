//! Hears routers announce that they have restarted or have another address.
//!
//! NAT-PMP and PCP routers send to 224.0.0.1 port 5350 then (RFC 6886 s3.2.1, RFC 6887 s14.1). What they say is not read: it
//! could be forged by any neighbour, so it is only a hint to ask the router itself, and no more often than
//! [`HINT_EVERY`].
//!
//! Refuses to know: what is asked then.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::UdpSocket,
    time::{self, Instant},
};

use super::natpmp::ANNOUNCE_PORT;

/// A hint is taken at most this often, so that a forger cannot make us load our router.
const HINT_EVERY: Duration = Duration::from_secs(5);

/// An ear for announcements; deaf where the system does not let us listen.
#[derive(Debug)]
pub(crate) struct Ear {
    socket: Option<UdpSocket>,
    next_at: Instant,
}

impl Ear {
    pub(crate) fn new() -> Self {
        let socket = listen()
            .inspect_err(|error| tracing::debug!(%error, "announcements of routers are not heard"))
            .ok();
        Self { socket, next_at: Instant::now() }
    }

    /// Waits for the next announcement, and tells who sent it. Cancel-safe.
    pub(crate) async fn hear(&mut self) -> IpAddr {
        let Some(socket) = &self.socket else { return std::future::pending().await };
        loop {
            time::sleep_until(self.next_at).await;
            match socket.recv_from(&mut [0; 1]).await {
                Ok((_, from)) => {
                    self.next_at = Instant::now() + HINT_EVERY;
                    return from.ip();
                }
                // A datagram longer than our byte is an error on some systems, and still an announcement nobody reads;
                // the next one is waited for.
                Err(_) => self.next_at = Instant::now() + HINT_EVERY,
            }
        }
    }
}

fn listen() -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // Other programs of this machine listen here, too.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, ANNOUNCE_PORT)).into())?;
    socket.join_multicast_v4(&Ipv4Addr::new(224, 0, 0, 1), &Ipv4Addr::UNSPECIFIED)?;
    UdpSocket::from_std(socket.into())
}
