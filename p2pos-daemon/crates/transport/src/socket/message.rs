//! One `sendmsg` with more than noq-udp's: several buffers for one datagram, and a hop limit for this packet alone.
//!
//! Linux does both in one system call that cannot disturb other senders on the socket. Elsewhere the hop limit is a
//! property of the socket and is set and restored around the call; a QUIC packet of another thread could leave in between
//! with the low limit, and would count as lost.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
};

use noq_udp::EcnCodepoint;

/// What leaves in one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) to: SocketAddr,
    /// The contents, in pieces that follow one another.
    pub(super) slices: &'a [IoSlice<'a>],
    /// Size of each datagram but perhaps the last, if the contents are several.
    pub(super) segment: Option<u16>,
    pub(super) ecn: Option<EcnCodepoint>,
    /// Hops that the packet may take; `None`: the system's default.
    pub(super) ttl: Option<u8>,
}

/// Whether one call can carry several datagrams in pieces.
pub(super) const CAN_SEGMENT: bool = cfg!(target_os = "linux");

#[cfg(target_os = "linux")]
pub(super) fn send(socket: &tokio::net::UdpSocket, message: &Message<'_>) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;

    use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};

    let Message { to, slices, segment, ecn, ttl } = *message;
    let (segment_size, ecn_bits, hops) =
        (segment.unwrap_or(0), ecn.map_or(0, |ecn| ecn as u8), i32::from(ttl.unwrap_or(0)));
    let traffic_class = i32::from(ecn_bits);
    let mut controls = Vec::with_capacity(3);
    if segment.is_some() {
        controls.push(ControlMessage::UdpGsoSegments(&segment_size));
    }
    if ecn.is_some() {
        controls.push(match to {
            SocketAddr::V4(_) => ControlMessage::Ipv4Tos(&ecn_bits),
            SocketAddr::V6(_) => ControlMessage::Ipv6TClass(&traffic_class),
        });
    }
    if ttl.is_some() {
        controls.push(match to {
            SocketAddr::V4(_) => ControlMessage::Ipv4Ttl(&hops),
            SocketAddr::V6(_) => ControlMessage::Ipv6HopLimit(&hops),
        });
    }
    let to = SockaddrStorage::from(to);
    sendmsg(socket.as_raw_fd(), slices, &controls, MsgFlags::empty(), Some(&to))?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn send(socket: &tokio::net::UdpSocket, message: &Message<'_>) -> io::Result<()> {
    let Message { to, slices, segment: _, ecn: _, ttl } = *message;
    let socket = socket2::SockRef::from(socket);
    let set_hops = |hops: u32| match to {
        SocketAddr::V4(_) => socket.set_ttl_v4(hops),
        SocketAddr::V6(_) => socket.set_unicast_hops_v6(hops),
    };
    let usual = match to {
        SocketAddr::V4(_) => socket.ttl_v4()?,
        SocketAddr::V6(_) => socket.unicast_hops_v6()?,
    };
    if let Some(ttl) = ttl {
        set_hops(u32::from(ttl))?;
    }
    let sent = socket.send_to_vectored(slices, &to.into());
    if ttl.is_some() {
        set_hops(usual)?;
    }
    sent.map(|_| ())
}
