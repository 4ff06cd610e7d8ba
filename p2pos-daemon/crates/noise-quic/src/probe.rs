//! Who is answered at all: decisions on the first bytes of a datagram, before QUIC sees it.
//!
//! QUIC is talkative towards strangers: an unknown version is answered with Version Negotiation, a short connection id
//! with a CONNECTION_CLOSE, an Initial may be answered with Retry. A port scan would find us. [`judge`] drops what noq
//! would answer and what it could only throw away; it looks at a few bytes and holds no state. [`StrangerFilter`] asks
//! more of an Initial: that it was made by someone who knows our PeerId. Behind both, no stranger gets a byte.
//!
//! Refuses to know: addresses, rates, connections. Nothing here may panic, whatever the bytes.

use bytes::BytesMut;
use noq_proto::{ConnectionId, ConnectionIdGenerator, PathId, Side, crypto::Keys};
use p2pos_identity::SecretKey;

use crate::{
    QUIC_VERSION,
    cid::{CID_BYTES, cid_generator},
    header::{PACKET_NUMBER_BYTES_MAX, SAMPLE_BYTES, packet_number_bytes},
    initial::InitialSecret,
    packet::PacketLimits,
    retry::RETRY_BYTES_MAX,
};

/// The shortest connection id in a long header. RFC 9000 s7.2 demands 8 of a first Initial, and everything that this
/// protocol issues is that long; noq would answer shorter ones.
pub const LONG_HEADER_CID_BYTES_MIN: usize = 8;
/// The longest connection id (RFC 9000 s17.2).
pub const LONG_HEADER_CID_BYTES_MAX: usize = 20;
/// The shortest datagram with a short header that can mean something: a stateless reset (RFC 9000 s10.3).
pub const SHORT_HEADER_BYTES_MIN: usize = 21;
/// What a protected packet has behind its connection ids at the least: a length, a packet number and a sample.
const LONG_HEADER_TAIL_BYTES_MIN: usize = 1 + PACKET_NUMBER_BYTES_MAX + SAMPLE_BYTES;

const LONG_HEADER_FORM: u8 = 0x80;
const FIXED_BIT: u8 = 0x40;

/// What to do with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Hand it to QUIC.
    Quic,
    /// Forget it, without an answer. The reason is for a counter.
    Drop(DropReason),
}

/// Why a datagram is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The fixed bit is not set: this is no QUIC packet, or a greased one, which we never offer to take.
    NotQuic,
    /// Too short to be what it says, or cut off inside of its header.
    TooShort,
    /// A QUIC version that we do not speak, or Version Negotiation, which we never need.
    ForeignVersion,
    /// A connection id shorter than 8 or longer than 20 bytes.
    ConnectionIdLength,
    /// 0-RTT, which this protocol does not have.
    EarlyData,
    /// A Retry larger than one that we would check.
    OversizedRetry,
}

/// Decides whether a datagram may reach QUIC. Wants the whole datagram, of which it reads the first packet's header.
#[must_use]
pub fn judge(datagram: &[u8]) -> Verdict {
    match check(datagram) {
        Ok(()) => Verdict::Quic,
        Err(reason) => Verdict::Drop(reason),
    }
}

fn check(datagram: &[u8]) -> Result<(), DropReason> {
    let first = *datagram.first().ok_or(DropReason::TooShort)?;
    if first & FIXED_BIT == 0 {
        return Err(DropReason::NotQuic);
    }
    if first & LONG_HEADER_FORM == 0 {
        let is_long_enough = datagram.len() >= SHORT_HEADER_BYTES_MIN;
        return if is_long_enough { Ok(()) } else { Err(DropReason::TooShort) };
    }
    let header = LongHeader::parse(datagram)?;
    match header.kind {
        Kind::ZeroRtt => Err(DropReason::EarlyData),
        Kind::Retry if datagram.len() > RETRY_BYTES_MAX => Err(DropReason::OversizedRetry),
        Kind::Retry => Ok(()),
        Kind::Initial | Kind::Handshake if header.tail.len() < LONG_HEADER_TAIL_BYTES_MIN => {
            Err(DropReason::TooShort)
        }
        Kind::Initial | Kind::Handshake => Ok(()),
    }
}

/// Tells callers from scanners: admits an Initial only if it was made with our PeerId.
///
/// For the socket wrapper, behind [`judge`]. A stranger's Initial would get no answer without it either, as long as
/// every attempt is accepted; but it would take one of noq's places for pending attempts, and while the daemon defends
/// itself with Retry or refusals, it *would* be answered. Costs a stranger's datagram three key derivations and one
/// decryption (about ten microseconds); all other packets pass after a look at one byte.
pub struct StrangerFilter {
    initial: InitialSecret,
    cids: Box<dyn ConnectionIdGenerator>,
}

impl std::fmt::Debug for StrangerFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StrangerFilter").finish_non_exhaustive()
    }
}

impl StrangerFilter {
    /// Makes the filter of one identity.
    #[must_use]
    pub fn new(local: &SecretKey) -> Self {
        let initial = InitialSecret::of_responder(&local.peer_id().x25519_public(), PacketLimits::default());
        Self { initial, cids: cid_generator(local)() }
    }

    /// Tells whether a datagram that [`judge`] let through may reach QUIC.
    ///
    /// An Initial that carries a connection id of our own making passes unseen: it belongs to a handshake under way
    /// (an answer to our call, or a call after our Retry), and its keys depend on that handshake.
    #[must_use]
    pub fn admits(&self, datagram: &[u8]) -> bool {
        let is_long = datagram.first().is_some_and(|first| first & LONG_HEADER_FORM != 0);
        if !is_long {
            return true;
        }
        match LongHeader::parse(datagram) {
            Ok(header) if header.kind == Kind::Initial => {
                self.is_ours(header.dst_cid) || self.is_authentic(datagram, &header).is_some()
            }
            Ok(_) => true,
            Err(_) => false,
        }
    }

    fn is_ours(&self, cid: &[u8]) -> bool {
        cid.len() == CID_BYTES && self.cids.validate(ConnectionId::new(cid)).is_ok()
    }

    fn is_authentic(&self, datagram: &[u8], header: &LongHeader<'_>) -> Option<()> {
        let span = InitialSpan::parse(datagram.len(), header.tail)?;
        let keys = self.initial.keys(&ConnectionId::new(header.dst_cid), Side::Server);
        open_initial(datagram, span, &keys)
    }
}

/// Decrypts a copy of an Initial packet; `None` if it is not authentic.
fn open_initial(datagram: &[u8], span: InitialSpan, keys: &Keys) -> Option<()> {
    let mut packet = BytesMut::from(datagram.get(..span.end)?);
    keys.header.remote.decrypt(span.packet_number_at, &mut packet);
    let number_bytes = packet_number_bytes(packet[0]);
    let mut payload = packet.split_off(span.packet_number_at + number_bytes);
    let number =
        packet[span.packet_number_at..].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    keys.packet.remote.decrypt(PathId::ZERO, number, &packet, &mut payload).ok()
}

/// Where an Initial packet's packet number begins, and where the packet ends, inside its datagram.
#[derive(Clone, Copy)]
struct InitialSpan {
    packet_number_at: usize,
    end: usize,
}

impl InitialSpan {
    /// Reads the token and the length behind the connection ids (RFC 9000 s17.2.2).
    fn parse(datagram_len: usize, tail: &[u8]) -> Option<Self> {
        let (token_len, tail) = take_varint(tail)?;
        let (_token, tail) = tail.split_at_checked(usize::try_from(token_len).ok()?)?;
        let (packet_len, tail) = take_varint(tail)?;
        let packet_len = usize::try_from(packet_len).ok()?;
        let is_whole = (PACKET_NUMBER_BYTES_MAX + SAMPLE_BYTES..=tail.len()).contains(&packet_len);
        let packet_number_at = datagram_len - tail.len();
        is_whole.then_some(Self { packet_number_at, end: packet_number_at + packet_len })
    }
}

/// The types of long-header packets (RFC 9000 table 5).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Initial,
    ZeroRtt,
    Handshake,
    Retry,
}

/// The part of a long header that all types share.
struct LongHeader<'a> {
    kind: Kind,
    dst_cid: &'a [u8],
    /// What follows the connection ids.
    tail: &'a [u8],
}

impl<'a> LongHeader<'a> {
    fn parse(datagram: &'a [u8]) -> Result<Self, DropReason> {
        let (&first, rest) = datagram.split_first().ok_or(DropReason::TooShort)?;
        let (version, rest) = rest.split_first_chunk().ok_or(DropReason::TooShort)?;
        if u32::from_be_bytes(*version) != QUIC_VERSION {
            return Err(DropReason::ForeignVersion);
        }
        let (dst_cid, rest) = take_cid(rest)?;
        let (_src_cid, tail) = take_cid(rest)?;
        let kind = match first >> 4 & 0b11 {
            0 => Kind::Initial,
            1 => Kind::ZeroRtt,
            2 => Kind::Handshake,
            _ => Kind::Retry,
        };
        Ok(Self { kind, dst_cid, tail })
    }
}

fn take_cid(bytes: &[u8]) -> Result<(&[u8], &[u8]), DropReason> {
    let (&len, rest) = bytes.split_first().ok_or(DropReason::TooShort)?;
    let len = usize::from(len);
    if !(LONG_HEADER_CID_BYTES_MIN..=LONG_HEADER_CID_BYTES_MAX).contains(&len) {
        return Err(DropReason::ConnectionIdLength);
    }
    rest.split_at_checked(len).ok_or(DropReason::TooShort)
}

/// Reads a QUIC variable-length integer (RFC 9000 s16).
fn take_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let first = *bytes.first()?;
    let (number, rest) = bytes.split_at_checked(1 << (first >> 6))?;
    let value = number[1..].iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, rest))
}
