//! What the signal and relay messages share: addresses, fixed lengths and numbers taken from protobuf fields.
//!
//! Refuses to know: what a field means. Every failure names the field, for the log of whoever writes the other side.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use p2pos_identity::PeerId;

use crate::MessageError;

const ADDRESS_BYTES: usize = 18;

pub(crate) fn bad(field: &'static str) -> MessageError {
    MessageError::Field { field }
}

/// Takes a list only if it is not longer than its limit.
pub(crate) fn capped<T>(list: Vec<T>, field: &'static str, max: usize) -> Result<Vec<T>, MessageError> {
    match list.len() {
        found if found > max => Err(MessageError::TooMany { field, found, max }),
        _ => Ok(list),
    }
}

pub(crate) fn fixed<const N: usize>(bytes: &[u8], field: &'static str) -> Result<[u8; N], MessageError> {
    bytes.try_into().map_err(|_| bad(field))
}

pub(crate) fn small(number: u32, field: &'static str) -> Result<u16, MessageError> {
    u16::try_from(number).map_err(|_| bad(field))
}

/// Costs a scalar multiplication: PeerIds stand in messages that cost the sender more.
pub(crate) fn peer(bytes: &[u8], field: &'static str) -> Result<PeerId, MessageError> {
    PeerId::from_bytes(fixed(bytes, field)?).map_err(|_| bad(field))
}

pub(crate) fn address(bytes: &[u8], field: &'static str) -> Result<SocketAddr, MessageError> {
    let bytes: [u8; ADDRESS_BYTES] = fixed(bytes, field)?;
    let ip: [u8; 16] = bytes[..16].try_into().expect("sixteen of eighteen");
    Ok(SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), u16::from_be_bytes([bytes[16], bytes[17]])))
}

pub(crate) fn addresses(
    list: Vec<Bytes>,
    field: &'static str,
    max: usize,
) -> Result<Vec<SocketAddr>, MessageError> {
    capped(list, field, max)?.iter().map(|bytes| address(bytes, field)).collect()
}

pub(crate) fn address_bytes(address: SocketAddr) -> Bytes {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    [&ip.octets()[..], &address.port().to_be_bytes()].concat().into()
}

pub(crate) fn addresses_bytes(list: &[SocketAddr], max: usize) -> Vec<Bytes> {
    list.iter().take(max).map(|address| address_bytes(*address)).collect()
}

pub(crate) fn peer_bytes(peer: PeerId) -> Bytes {
    Bytes::copy_from_slice(peer.as_bytes())
}
