//! PCP on the wire: the MAP request and answer of RFC 6887, for UDP, and nothing else.
//!
//! Both are 60 bytes: a header of 24 and the MAP part of 36. The nonce ties a mapping to us: whoever does not know it can
//! neither renew nor delete the mapping (s11.1), so it is random and kept for the mapping's life. The header carries the
//! client's own address, and a router that sees another source answers ADDRESS_MISMATCH (s8.1): a second router in a row
//! must therefore be asked in the name of the first one's outer address.
//!
//! Refuses to know: sockets, retries, who asks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A MAP request or answer without options (s7.1, s11.1).
pub(crate) const MAP_BYTES: usize = 60;

const VERSION: u8 = 2;
const OP_MAP: u8 = 1;
const ANSWER_BIT: u8 = 128;
const HEADER_BYTES: usize = 24;
/// The IANA number of UDP.
const UDP: u8 = 17;

/// Ties a mapping to whoever asked for it.
pub(crate) type Nonce = [u8; 12];

/// A mapping to ask for (s11.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MapRequest {
    /// Who asks, as the router sees it.
    pub(crate) client: IpAddr,
    /// Ours for the life of the mapping.
    pub(crate) nonce: Nonce,
    /// Our UDP port.
    pub(crate) internal_port: u16,
    /// What we would like outside; port 0 and an unspecified address leave it to the router.
    pub(crate) suggested: SocketAddr,
    /// For how long, in s; 0 deletes.
    pub(crate) lifetime_s: u32,
}

impl MapRequest {
    pub(crate) fn encode(&self) -> [u8; MAP_BYTES] {
        let mut bytes = [0; MAP_BYTES];
        bytes[0] = VERSION;
        bytes[1] = OP_MAP;
        bytes[4..8].copy_from_slice(&self.lifetime_s.to_be_bytes());
        bytes[8..24].copy_from_slice(&mapped(self.client).octets());
        bytes[24..36].copy_from_slice(&self.nonce);
        bytes[36] = UDP;
        bytes[40..42].copy_from_slice(&self.internal_port.to_be_bytes());
        bytes[42..44].copy_from_slice(&self.suggested.port().to_be_bytes());
        bytes[44..60].copy_from_slice(&mapped(self.suggested.ip()).octets());
        bytes
    }

    /// Whether an answer speaks of this request: same nonce, protocol and port (s11.4).
    fn is_meant(&self, part: &[u8]) -> bool {
        part.get(..12) == Some(&self.nonce[..])
            && part.get(12) == Some(&UDP)
            && part.get(16..18) == Some(&self.internal_port.to_be_bytes()[..])
    }
}

/// What a router answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The mapping it made.
    Mapped { epoch_s: u32, external: SocketAddr, lifetime_s: u32 },
    /// It will not.
    Refused {
        /// Why.
        refusal: Refusal,
        /// For how long this answer holds, in s (s7.4).
        holds_s: u32,
    },
}

/// The result codes of RFC 6887 s7.4 that a MAP request can meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Result 1; a router that only knows NAT-PMP says so, too.
    #[error("the router speaks another version of PCP")]
    UnsupportedVersion,
    /// Result 2.
    #[error("port mapping is switched off in the router")]
    NotAuthorized,
    /// Result 3.
    #[error("the router could not read the request")]
    MalformedRequest,
    /// Result 4.
    #[error("the router does not know this request")]
    UnsupportedOpcode,
    /// Result 7: mostly it has no address itself, or a private one.
    #[error("the router has no usable address itself")]
    NetworkFailure,
    /// Results 8 and 10.
    #[error("the router has no room for another mapping")]
    NoResources,
    /// Result 11.
    #[error("the router cannot give the address that was asked for")]
    CannotProvideExternal,
    /// Result 12: another NAT stands between us and the router.
    #[error("the router sees another address of ours: there is a NAT before it")]
    AddressMismatch,
    /// A result of no use to tell apart.
    #[error("the router refuses with result {0}")]
    Other(u8),
}

/// Reads the answer to `request`; `None` for anything that is none.
pub(crate) fn decode(bytes: &[u8], request: &MapRequest) -> Option<Answer> {
    let &[version, op, _, result] = bytes.first_chunk()?;
    if op != OP_MAP | ANSWER_BIT {
        return None;
    }
    if version != VERSION {
        // A router of another version answers in its own format, with result 1 at the same place (s9).
        return (result == 1).then_some(Answer::Refused { refusal: Refusal::UnsupportedVersion, holds_s: 0 });
    }
    let (header, part) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let word = |at: usize| header.get(at..at + 4).and_then(|word| word.first_chunk()).copied();
    let lifetime_s = u32::from_be_bytes(word(4)?);
    if !request.is_meant(part) {
        return None;
    }
    if result != 0 {
        return Some(Answer::Refused { refusal: refusal(result), holds_s: lifetime_s });
    }
    let port = u16::from_be_bytes(*part.get(18..20)?.first_chunk()?);
    let ip = Ipv6Addr::from(*part.get(20..36)?.first_chunk::<16>()?).to_canonical();
    Some(Answer::Mapped {
        epoch_s: u32::from_be_bytes(word(8)?),
        external: SocketAddr::new(ip, port),
        lifetime_s,
    })
}

/// Addresses of both families travel as IPv6 ones (s5).
fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// The address that asks for any of this family.
pub(crate) fn any_of(family_of: IpAddr) -> IpAddr {
    match family_of {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn refusal(result: u8) -> Refusal {
    match result {
        1 => Refusal::UnsupportedVersion,
        2 => Refusal::NotAuthorized,
        3 => Refusal::MalformedRequest,
        4 => Refusal::UnsupportedOpcode,
        7 => Refusal::NetworkFailure,
        8 | 10 => Refusal::NoResources,
        11 => Refusal::CannotProvideExternal,
        12 => Refusal::AddressMismatch,
        other => Refusal::Other(other),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request() -> MapRequest {
        MapRequest {
            client: Ipv4Addr::new(192, 168, 1, 7).into(),
            nonce: *b"twelve bytes",
            internal_port: 0x1234,
            suggested: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0x1234),
            lifetime_s: 7200,
        }
    }

    /// What a router would answer to [`request`].
    fn answer(result: u8) -> [u8; MAP_BYTES] {
        let mut bytes = MapRequest {
            suggested: SocketAddr::new(Ipv4Addr::new(45, 0, 0, 7).into(), 0x5678),
            lifetime_s: 60,
            ..request()
        }
        .encode();
        bytes[1] |= ANSWER_BIT;
        bytes[3] = result;
        bytes[8..24].fill(0);
        bytes[11] = 9;
        bytes
    }

    #[test]
    fn a_request_has_the_bytes_of_the_rfc() {
        let bytes = request().encode();
        assert_eq!(bytes[..8], [2, 1, 0, 0, 0, 0, 0x1C, 0x20]);
        assert_eq!(bytes[8..24], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 168, 1, 7]);
        assert_eq!(bytes[24..36], *b"twelve bytes");
        assert_eq!(bytes[36..44], [17, 0, 0, 0, 0x12, 0x34, 0x12, 0x34]);
        assert_eq!(bytes[44..60], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0]);
    }

    #[test]
    fn an_answer_of_the_rfc_is_read() {
        let external = SocketAddr::new(Ipv4Addr::new(45, 0, 0, 7).into(), 0x5678);
        let expected = Answer::Mapped { epoch_s: 9, external, lifetime_s: 60 };
        assert_eq!(decode(&answer(0), &request()), Some(expected));
    }

    #[test]
    fn a_refusal_tells_why_and_for_how_long() {
        let expected = Answer::Refused { refusal: Refusal::AddressMismatch, holds_s: 60 };
        assert_eq!(decode(&answer(12), &request()), Some(expected));
    }

    #[test]
    fn a_router_that_only_knows_nat_pmp_is_understood() {
        let expected = Answer::Refused { refusal: Refusal::UnsupportedVersion, holds_s: 0 };
        assert_eq!(decode(&[0, 129, 0, 1, 0, 0, 0, 9], &request()), Some(expected));
    }

    #[test]
    fn an_answer_to_somebody_else_is_no_answer() {
        for place in [24, 36, 40] {
            let mut foreign = answer(0);
            foreign[place] ^= 1;
            assert_eq!(decode(&foreign, &request()), None, "byte {place} is another's");
        }
        assert_eq!(decode(&request().encode(), &request()), None, "our own request, echoed");
    }

    #[test]
    fn a_truncated_answer_is_no_answer() {
        let whole = answer(0);
        for length in 0..whole.len() {
            assert_eq!(decode(&whole[..length], &request()), None, "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn gibberish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            decode(&bytes, &request());
        }
    }
}
