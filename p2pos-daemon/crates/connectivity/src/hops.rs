//! Which routers stand between us and the world: packets that die on the way, and the letters that tell where.
//!
//! A datagram with a time to live of N is returned by the Nth router as ICMP "time exceeded" (RFC 792), which Linux hands to
//! the socket that sent it (`IP_RECVERR`). Nothing reaches the address that the datagram names. Used to find the router
//! behind our router, and to count our own NATs, which says how far an opener must get (connectivity: low TTL).
//!
//! Elsewhere than on Linux, nothing is found, and the callers go on without. Refuses to know: what the answer is good for.

use std::{collections::BTreeMap, net::Ipv4Addr};

use tokio::task::JoinSet;

/// Hops looked at: own router, a second one, the provider's NAT, and one more.
pub const HOPS_MAX: u8 = 4;

/// The router at hop `ttl` on the way to `toward`; `None` if none tells within a second. Cancel-safe.
#[cfg(target_os = "linux")]
pub async fn router_at(ttl: u8, toward: Ipv4Addr) -> Option<Ipv4Addr> {
    match linux::router_at(ttl, toward).await {
        Ok(router) => router,
        Err(error) => {
            tracing::debug!(%error, "the routers on the way cannot be asked for");
            None
        }
    }
}

/// The router at hop `ttl` on the way to `toward`: not found out on this system.
#[cfg(not(target_os = "linux"))]
#[expect(clippy::unused_async, reason = "the signature is that of the Linux one")]
pub async fn router_at(_: u8, _: Ipv4Addr) -> Option<Ipv4Addr> {
    None
}

/// The routers on the way to `toward`, nearest first, up to [`HOPS_MAX`]; silent ones are `None`. Ends as soon as `is_enough`
/// says so of those that are known without a gap; takes a second at most.
///
/// `gateway` is the first of them where the routing table tells. A home router sends few ICMP errors in a second, and those
/// that its silent ports cost may be all of them. Cancel-safe.
pub async fn routers_toward(
    toward: Ipv4Addr,
    gateway: Option<Ipv4Addr>,
    is_enough: impl Fn(&[Option<Ipv4Addr>]) -> bool,
) -> Vec<Option<Ipv4Addr>> {
    let mut asked = JoinSet::new();
    let mut known = BTreeMap::from_iter(gateway.map(|gateway| (1, Some(gateway))));
    for ttl in 1..=HOPS_MAX {
        if !known.contains_key(&ttl) {
            asked.spawn(async move { (ttl, router_at(ttl, toward).await) });
        }
    }
    loop {
        let without_gap: Vec<_> = (1..=HOPS_MAX).map_while(|ttl| known.get(&ttl).copied()).collect();
        if is_enough(&without_gap) {
            return without_gap;
        }
        match asked.join_next().await {
            Some(Ok((ttl, router))) => known.insert(ttl, router),
            Some(Err(_)) => None,
            None => return without_gap,
        };
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        io::{self, IoSliceMut},
        net::Ipv4Addr,
        os::fd::AsRawFd,
        time::Duration,
    };

    use nix::{
        cmsg_space,
        libc::{sock_extended_err, sockaddr_in},
        sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt::Ipv4RecvErr},
    };
    use tokio::{io::Interest, net::UdpSocket, time};

    /// The port of traceroute: what comes there is known for what it is.
    const TRACE_PORT: u16 = 33434;
    /// How long a router may take to answer; those we ask for are a few hops away.
    const WAIT: Duration = Duration::from_millis(500);
    /// Letters sent: routers limit the ICMP they send, and packets get lost.
    const SENDS: u8 = 2;

    pub(super) async fn router_at(ttl: u8, toward: Ipv4Addr) -> io::Result<Option<Ipv4Addr>> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        setsockopt(&socket, Ipv4RecvErr, &true)?;
        socket.set_ttl(ttl.into())?;
        for _ in 0..SENDS {
            // An error of an earlier letter is reported here first; it is read below.
            socket.send_to(&[0], (toward, TRACE_PORT)).await.ok();
            if let Ok(found) = time::timeout(WAIT, letter(&socket)).await {
                return found.map(Some);
            }
        }
        Ok(None)
    }

    /// Waits for the next letter, and tells whose it is.
    async fn letter(socket: &UdpSocket) -> io::Result<Ipv4Addr> {
        loop {
            let read = socket.async_io(Interest::ERROR, || read_letter(socket)).await?;
            if let Some(router) = read {
                return Ok(router);
            }
        }
    }

    fn read_letter(socket: &UdpSocket) -> io::Result<Option<Ipv4Addr>> {
        let mut payload = [0; 64];
        let mut parts = [IoSliceMut::new(&mut payload)];
        let mut space = cmsg_space!(sock_extended_err, sockaddr_in);
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::Ipv4RecvErr(_, Some(offender)) = part {
                return Ok(Some(Ipv4Addr::from(u32::from_be(offender.sin_addr.s_addr))));
            }
        }
        Ok(None)
    }
}
