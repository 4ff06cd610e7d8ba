//! NAT-PMP on the wire: the four packets of RFC 6886 that a UDP mapping needs, and nothing else.
//!
//! A request is 2 bytes (which address do you have?) or 12 (map this port); an answer is 12 or 16. Deleting a mapping is
//! asking for it with lifetime zero (s3.4). Answers are untrusted: any host of the network can send one, so a caller
//! takes only what came from the gateway that it asked and speaks of the port that it asked for.
//!
//! Refuses to know: sockets, retries, who asks.

use std::net::Ipv4Addr;

/// RFC 6886 s3: requests go to this port of the gateway.
pub(crate) const SERVER_PORT: u16 = 5351;
/// RFC 6886 s3.2.1: gateways announce a new address, or a restart, at this port of the group 224.0.0.1.
pub(crate) const ANNOUNCE_PORT: u16 = 5350;

const VERSION: u8 = 0;
const OP_ADDRESS: u8 = 0;
const OP_MAP_UDP: u8 = 1;
const ANSWER_BIT: u8 = 128;
const ADDRESS_ANSWER_BYTES: usize = 12;
const MAP_ANSWER_BYTES: usize = 16;

/// Asks for the gateway's external address (s3.2).
pub(crate) const ADDRESS_REQUEST: [u8; 2] = [VERSION, OP_ADDRESS];

/// A mapping to ask for (s3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MapRequest {
    /// Our UDP port.
    pub(crate) internal_port: u16,
    /// The port outside that we would like; 0 leaves it to the gateway.
    pub(crate) suggested_port: u16,
    /// For how long, in s; 0 deletes.
    pub(crate) lifetime_s: u32,
}

impl MapRequest {
    pub(crate) fn encode(&self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[0] = VERSION;
        bytes[1] = OP_MAP_UDP;
        bytes[4..6].copy_from_slice(&self.internal_port.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.suggested_port.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.lifetime_s.to_be_bytes());
        bytes
    }
}

/// What a gateway answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Its external address.
    Address { epoch_s: u32, external: Ipv4Addr },
    /// The mapping it made.
    Mapped { epoch_s: u32, internal_port: u16, external_port: u16, lifetime_s: u32 },
    /// It will not, for the reason of s3.5.
    Refused(Refusal),
}

/// The result codes of RFC 6886 s3.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Result 1.
    #[error("the router speaks another version of NAT-PMP")]
    UnsupportedVersion,
    /// Result 2.
    #[error("port mapping is switched off in the router")]
    NotAuthorized,
    /// Result 3: mostly it has no address itself, or a private one.
    #[error("the router has no usable address itself")]
    NetworkFailure,
    /// Result 4.
    #[error("the router has no room for another mapping")]
    OutOfResources,
    /// Result 5.
    #[error("the router does not know this request")]
    UnsupportedOpcode,
    /// A result that the RFC does not name.
    #[error("the router refuses with result {0}")]
    Other(u16),
}

/// Reads an answer; `None` for anything that is none.
pub(crate) fn decode(bytes: &[u8]) -> Option<Answer> {
    let (&[version, op], rest) = bytes.split_first_chunk::<2>()?;
    if version != VERSION || op & ANSWER_BIT == 0 {
        return None;
    }
    let result = u16::from_be_bytes(*rest.first_chunk()?);
    if result != 0 {
        return Some(Answer::Refused(refusal(result)));
    }
    let epoch_s = u32::from_be_bytes(*bytes.get(4..8)?.first_chunk()?);
    match (op & !ANSWER_BIT, bytes.len()) {
        (OP_ADDRESS, ADDRESS_ANSWER_BYTES) => {
            let external = Ipv4Addr::from(*bytes.get(8..12)?.first_chunk::<4>()?);
            Some(Answer::Address { epoch_s, external })
        }
        (OP_MAP_UDP, MAP_ANSWER_BYTES) => Some(Answer::Mapped {
            epoch_s,
            internal_port: u16::from_be_bytes(*bytes.get(8..10)?.first_chunk()?),
            external_port: u16::from_be_bytes(*bytes.get(10..12)?.first_chunk()?),
            lifetime_s: u32::from_be_bytes(*bytes.get(12..16)?.first_chunk()?),
        }),
        _ => None,
    }
}

fn refusal(result: u16) -> Refusal {
    match result {
        1 => Refusal::UnsupportedVersion,
        2 => Refusal::NotAuthorized,
        3 => Refusal::NetworkFailure,
        4 => Refusal::OutOfResources,
        5 => Refusal::UnsupportedOpcode,
        other => Refusal::Other(other),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_has_the_bytes_of_the_rfc() {
        let request = MapRequest { internal_port: 0x1234, suggested_port: 0x5678, lifetime_s: 7200 };
        assert_eq!(request.encode(), [0, 1, 0, 0, 0x12, 0x34, 0x56, 0x78, 0, 0, 0x1C, 0x20]);
        assert_eq!(ADDRESS_REQUEST, [0, 0]);
    }

    #[test]
    fn answers_of_the_rfc_are_read() {
        let address = [0, 128, 0, 0, 0, 0, 0, 9, 45, 0, 0, 7];
        assert_eq!(
            decode(&address),
            Some(Answer::Address { epoch_s: 9, external: Ipv4Addr::new(45, 0, 0, 7) })
        );
        let mapped = [0, 129, 0, 0, 0, 0, 0, 9, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 60];
        let expected =
            Answer::Mapped { epoch_s: 9, internal_port: 0x1234, external_port: 0x5678, lifetime_s: 60 };
        assert_eq!(decode(&mapped), Some(expected));
    }

    #[test]
    fn a_refusal_is_read_however_short_it_is() {
        assert_eq!(decode(&[0, 129, 0, 2]), Some(Answer::Refused(Refusal::NotAuthorized)));
        assert_eq!(
            decode(&[0, 128, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0]),
            Some(Answer::Refused(Refusal::NetworkFailure))
        );
        assert_eq!(decode(&[0, 128, 1, 0]), Some(Answer::Refused(Refusal::Other(256))));
    }

    #[test]
    fn requests_foreign_versions_and_truncations_are_no_answers() {
        let mapped = [0, 129, 0, 0, 0, 0, 0, 9, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 60];
        for length in 0..mapped.len() {
            assert_eq!(decode(&mapped[..length]), None, "{length} bytes");
        }
        assert_eq!(decode(&[0, 1, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 60]), None, "a request");
        assert_eq!(decode(&[2, 129, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 60]), None, "PCP");
        assert_eq!(decode(&[0, 130, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 60]), None, "TCP");
    }

    proptest! {
        #[test]
        fn gibberish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            decode(&bytes);
        }
    }
}
