//! Every number that shapes the transport, each with its unit and its reason; and the noq configurations made of them.
//!
//! Owns no state and knows no socket. What is tuned per connection is tuned by [`Reach`], because noq fixes windows and
//! probe bounds when a connection begins and the only thing known then is the address. DESIGN s11 sets the budgets.

use std::{net::IpAddr, sync::Arc, time::Duration};

use noq::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt, congestion};
use p2pos_traversal::{Scope, scope_of};

use crate::congestion::Doubting;

use crate::mux::fake::FakeAddr;

/// Requested size of each kernel socket buffer, bytes. The default (208 KiB) holds 3 ms of a 70 MiB/s burst; larger
/// buffers alone were worth +20 % of bulk on two cores. The kernel gives what `net.core.{r,w}mem_max` allows.
pub(crate) const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Largest UDP payload we accept, bytes: all that UDP over IPv6 can carry. Only a number in the transport parameters and
/// the size of a receive slot; how much a path really gets is found by probing.
pub(crate) const UDP_PAYLOAD_BYTES_MAX: u16 = 65_527;

/// Largest batch handed to the kernel in one segmented send, bytes: an IPv4 datagram is at most 65,535 with its 28 bytes
/// of headers. One byte more and `sendmsg` fails with EMSGSIZE, silently losing the whole batch.
pub(crate) const GSO_BATCH_BYTES_MAX: usize = 65_507;

/// Silence after which a connection is dead. RFC 9308 s3.2 recommends 30 s; half would cut Wi-Fi roaming, double would
/// let a vanished peer look alive for a minute.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A ping when nothing else was sent for so long: two may be lost before [`IDLE_TIMEOUT`]. Keepalive learning
/// (connectivity.md 6b) will replace it per network.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Concurrent streams that a peer may open. A plugin may have 256; four busy plugins fit. Streams cost about 1 kB idle.
pub(crate) const BIDI_STREAMS_MAX: u32 = 1_024;

/// We never use one-way streams, so a peer gets none.
pub(crate) const UNI_STREAMS_MAX: u32 = 0;

/// Streams that may stand still, full, without slowing the other streams of the pair.
pub(crate) const STALLED_STREAMS: u32 = 100;

/// Streams that must be able to run at full window beside the stalled ones.
pub(crate) const RUNNING_STREAMS: u32 = 28;

/// Largest receive window of one stream, bytes. noq 1.4 ends the connection ("too many gaps in stream buffer") when 2,048
/// pieces of a stream wait behind a lost one, and a piece is a packet's share: 1,150 bytes on the smallest path, 2.3 MB in
/// all. Seen with 4 MiB when a direct path was cut under load. quinn joins such pieces since its change 2814; with a noq
/// that does too this can grow.
const STREAM_WINDOW_MAX: u32 = 2 * 1024 * 1024;

/// Streams of a stranger that can be full at the same time. With 32 strangers at once (the node's limit) this is 512 MiB
/// in the worst case.
const STRANGER_STREAMS: u32 = 4;

/// Unacknowledged bytes we keep per connection, as a multiple of the stream window: enough that one stream can fill its
/// window while another starts, and the bound on what a peer that never acknowledges makes us hold.
const SEND_WINDOWS: u64 = 8;

/// QUIC datagrams waiting in either direction, bytes: about 180 full packets. Drop-oldest: late datagrams are worthless.
pub(crate) const DATAGRAM_BUFFER_BYTES: usize = 256 * 1024;

/// Paths of one connection: local and public, IPv4 and IPv6, relay, and room for a hand-over (connectivity.md s5).
const PATHS_MAX: u32 = 8;

/// Candidates that a peer may tell us of, and have tried in a punching round: `CANDIDATES_MAX` of traversal. Each costs
/// nine small packets at the most.
const REMOTE_CANDIDATES_MAX: u8 = 32;

/// Packets acknowledged by one ACK. Acknowledging every second packet (RFC 9000 s13.2.2) costs the sender as much as the
/// packet itself; 10 matches one segmented batch and was worth +15 % of bulk. Small flows still get an ACK in time by
/// [`ACK_DELAY_MAX`].
const ACK_ELICITING_THRESHOLD: u32 = 10;

/// Longest wait for an ACK. Equal to the QUIC default (25 ms): fewer ACKs must not slow loss detection.
const ACK_DELAY_MAX: Duration = Duration::from_millis(25);

/// First round-trip guess. The RFC's 333 ms makes a lost first packet cost a second; most paths are under 100 ms.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Connection attempts whose first packet waits for us. noq's default (65,536) is 100 MiB of a stranger's choice.
pub(crate) const INCOMING_WAITING_MAX: usize = 256;

/// Bytes buffered for one waiting attempt beyond its first packet: its retransmissions.
pub(crate) const INCOMING_BYTES_EACH: u64 = 16 * 1024;

/// Bytes buffered for all waiting attempts together.
pub(crate) const INCOMING_BYTES_ALL: u64 = 1024 * 1024;

/// Handshakes in progress. Each costs two X25519 pairs (about 300 us) and some 20 kB for its short life.
pub(crate) const HANDSHAKES_MAX: usize = 128;

/// From so many handshakes on, an address must prove itself by a Retry before it gets one: a burst of honest peers stays
/// below, a flood with forged addresses does not.
pub(crate) const RETRY_FROM_HANDSHAKES: usize = 32;

/// Handshakes in progress for one network, proven and unproven addresses counted apart: 32 of [`HANDSHAKES_MAX`] at the
/// most. An office behind one address has its contacts back in a second; half would make it wait on slow paths.
pub(crate) const HANDSHAKES_PER_NETWORK_MAX: usize = 16;

/// Handshakes that one network may begin at once, after a rest. A household's or an office's daemons after a power cut.
pub(crate) const HANDSHAKES_BURST_PER_NETWORK: u32 = 128;

/// Handshakes per second that one network may begin for ever: at 300 us each, 1 % of a core.
pub(crate) const HANDSHAKES_PER_SECOND: u32 = 32;

/// Networks whose share is in use: some 64 bytes each. One is forgotten 4 s after its last attempt, so this is a thousand
/// networks per second; beyond, unproven addresses must prove themselves, and proven ones wait.
pub(crate) const NETWORKS_MAX: usize = 4_096;

/// Longest handshake, from first packet to proven identity: four retransmissions on a slow path.
pub(crate) const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// Established connections waiting for `Endpoint::accept`.
pub(crate) const ACCEPT_QUEUE: usize = 32;

/// Least time between two stateless resets. A restarted daemon with 100 peers answers all of them in two seconds.
pub(crate) const RESET_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// After its start a daemon answers packets of its former life from any address, as long as the connection id is one that
/// only it can have made. Older connections than this are dead on the other side by [`IDLE_TIMEOUT`], with a margin.
pub(crate) const RESET_GRACE_AFTER_START: Duration = Duration::from_secs(60);

/// Remote addresses remembered as partners of a connection; only these may get a reset after the grace time.
pub(crate) const RECENT_REMOTES_MAX: usize = 1_024;

/// How long an address stays a recent partner.
pub(crate) const RECENT_REMOTE_AGE_MAX: Duration = Duration::from_secs(10 * 60);

/// Longest wait for close packets to leave when the endpoint shuts down.
pub(crate) const CLOSE_WAIT_MAX: Duration = Duration::from_secs(1);

/// How far away an address can be at most, which is all that is known when a connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// This machine.
    Loopback,
    /// Private, unique-local or link-local: one hop or a few.
    Lan,
    /// Everything else.
    Internet,
}

impl Reach {
    /// Every reach, nearest first.
    pub(crate) const ALL: [Self; 3] = [Self::Loopback, Self::Lan, Self::Internet];

    /// Judges an address, in IPv4 or IPv6 form alike.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        // What is behind a made-up address is anywhere.
        if FakeAddr::of(address).is_some() {
            return Self::Internet;
        }
        match scope_of(address) {
            Scope::Loopback => Self::Loopback,
            Scope::Link | Scope::Lan => Self::Lan,
            Scope::Global => Self::Internet,
        }
    }

    /// Upper end of the search for the path's packet size, bytes. Every failed probe size costs three lost packets, so the
    /// search is as wide as the link can be: loopback carries 64 KiB, a LAN perhaps jumbo frames, the Internet 1,500.
    fn packet_bytes_max(self) -> u16 {
        match self {
            Self::Loopback => LOOPBACK_PACKET_BYTES,
            Self::Lan => 8_952,
            Self::Internet => 1_452,
        }
    }

    /// Packet size before any search, bytes. Loopback needs no search: it carries 64 KiB everywhere, and ten probes of up to
    /// 16 KiB each way in the first milliseconds kept the first answer waiting (4.4 ms instead of 1.5 from the wish to the
    /// first bytes back). Everywhere else it is what QUIC may take for granted (RFC 9000 s14).
    fn packet_bytes_at_first(self) -> u16 {
        match self {
            Self::Loopback => LOOPBACK_PACKET_BYTES,
            Self::Lan | Self::Internet => 1_200,
        }
    }

    /// Receive window of one stream, bytes: what one stream may have in flight, and what a stalled one may make us hold.
    fn stream_window(self) -> u32 {
        match self {
            Self::Loopback | Self::Lan => 1024 * 1024,
            Self::Internet => STREAM_WINDOW_MAX,
        }
    }

    /// Bytes that may be sent before the first acknowledgement. RFC 9002 s7.2 allows 10 packets towards the unknown; on
    /// loopback nothing can be congested but our own socket buffers, and pacing a small window at the round trip of the
    /// handshake delayed the first answer by up to 10 ms, because the probes for large packets use the same budget.
    fn initial_window(self) -> u64 {
        match self {
            Self::Loopback => 1024 * 1024,
            Self::Lan => 64 * 1024,
            Self::Internet => 14_720,
        }
    }

    /// Receive window of a connection to somebody we do not know (yet): what a stranger can make us hold.
    fn stranger_window(self) -> u32 {
        self.stream_window() * STRANGER_STREAMS
    }

    /// Receive window of a connection to a known peer: all stalled streams and the running ones. It is the bound on the
    /// memory that one contact can pin; nothing is allocated before data arrives.
    pub(crate) fn connection_window(self) -> u32 {
        self.stream_window() * (STALLED_STREAMS + RUNNING_STREAMS)
    }
}

/// Packet size aimed at on loopback, bytes: four fit one segmented batch, and encryption per byte, not work per packet, is
/// what remains.
const LOOPBACK_PACKET_BYTES: u16 = 16_352;

/// Builds the transport configuration for connections of the given reach.
pub(crate) fn transport(reach: Reach) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_ELICITING_THRESHOLD))
        .max_ack_delay(Some(ACK_DELAY_MAX));
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(reach.packet_bytes_max());
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("30 s in milliseconds fits a QUIC integer");
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(BIDI_STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(reach.stream_window()))
        .receive_window(VarInt::from_u32(reach.stranger_window()))
        .send_window(u64::from(reach.stream_window()) * SEND_WINDOWS)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES)
        .ack_frequency_config(Some(acks))
        .mtu_discovery_config(Some(mtu))
        .initial_mtu(reach.packet_bytes_at_first())
        .initial_rtt(INITIAL_RTT)
        .allow_spin(false)
        .max_concurrent_multipath_paths(PATHS_MAX)
        .send_observed_address_reports(true)
        .receive_observed_address_reports(true)
        .max_remote_nat_traversal_addresses(REMOTE_CANDIDATES_MAX)
        .server_handshake_migration(true)
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .default_path_max_idle_timeout(Some(IDLE_TIMEOUT))
        .congestion_controller_factory(congestion_controller(reach));
    Arc::new(config)
}

/// The congestion controller: ours (decision 0013). It may judge by what it sees only; the reach decides no more than how
/// much is sent before anything was seen.
fn congestion_controller(reach: Reach) -> Arc<dyn congestion::ControllerFactory + Send + Sync> {
    Arc::new(Doubting { initial_window: reach.initial_window() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_judged_by_distance_in_both_families() {
        let reach = |text: &str| Reach::of(text.parse().unwrap());
        assert_eq!(reach("127.0.0.1"), Reach::Loopback);
        assert_eq!(reach("::1"), Reach::Loopback);
        assert_eq!(reach("::ffff:127.0.0.1"), Reach::Loopback);
        assert_eq!(reach("192.168.1.4"), Reach::Lan);
        assert_eq!(reach("fe80::1"), Reach::Lan);
        assert_eq!(reach("fd12::1"), Reach::Lan);
        assert_eq!(reach("100.64.0.1"), Reach::Internet);
        assert_eq!(reach("2001:db8::1"), Reach::Internet);
    }

    #[test]
    fn stalled_streams_leave_room_in_the_connection_window() {
        for reach in Reach::ALL {
            assert!(reach.connection_window() / reach.stream_window() > STALLED_STREAMS);
        }
    }
}
