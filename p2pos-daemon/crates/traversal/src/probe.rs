//! The small packets that are not QUIC: openers, guesses, hits, lifetime knocks.
//!
//! They share the socket with QUIC and are told apart by the first byte, which QUIC leaves free below 0x40 (RFC 9443
//! s3). They carry no secret and no address. The token in a guess, hit or knock was agreed over the encrypted
//! connection; who does not know it can send nothing that is believed.
//!
//! ```text
//! opener  06
//! guess   07 00 token(8)      hit   07 01 token(8)
//! ping    08 00 token(8)      pong  08 01 token(8)     ask 08 02 token(8)     knock 08 03 token(8)
//! ```
//!
//! No packet is answered with a longer one. Refuses to know: sockets, and what follows from a packet (`opener`, `guess`,
//! `keepalive`).

/// First byte of an opener.
pub const OPENER: u8 = 0x06;
/// First byte of a guess or hit.
pub const GUESS: u8 = 0x07;
/// First byte of what measures the lifetime of a mapping.
pub const KNOCK: u8 = 0x08;

/// Bytes of the longest probe.
pub const PROBE_LEN_MAX: usize = 10;

/// A packet that is not QUIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Opens our own NAT and dies on the way.
    Opener,
    /// From the easy side: "is your port here?"
    Guess {
        /// Of the attempt.
        token: u64,
    },
    /// From the hard side: "it is."
    Hit {
        /// Of the attempt.
        token: u64,
    },
    /// Warms a binding at a helper.
    Ping {
        /// Of the binding.
        token: u64,
    },
    /// The helper's answer to a ping.
    Pong {
        /// Of the binding.
        token: u64,
    },
    /// "Knock on the binding with this token."
    Ask {
        /// Of the binding.
        token: u64,
    },
    /// The helper's knock: if it arrives, the binding lives.
    Knock {
        /// Of the binding.
        token: u64,
    },
}

impl Probe {
    /// Writes the packet.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let (first, kind, token) = match self {
            Self::Opener => return vec![OPENER],
            Self::Guess { token } => (GUESS, 0, token),
            Self::Hit { token } => (GUESS, 1, token),
            Self::Ping { token } => (KNOCK, 0, token),
            Self::Pong { token } => (KNOCK, 1, token),
            Self::Ask { token } => (KNOCK, 2, token),
            Self::Knock { token } => (KNOCK, 3, token),
        };
        let mut packet = Vec::with_capacity(PROBE_LEN_MAX);
        packet.extend([first, kind]);
        packet.extend(token.to_be_bytes());
        packet
    }

    /// Reads a packet; `None` if it is none of ours to the last byte.
    #[must_use]
    pub fn decode(packet: &[u8]) -> Option<Self> {
        if packet == [OPENER] {
            return Some(Self::Opener);
        }
        let (head, token) = packet.split_first_chunk::<2>()?;
        let token = u64::from_be_bytes(token.try_into().ok()?);
        match *head {
            [GUESS, 0] => Some(Self::Guess { token }),
            [GUESS, 1] => Some(Self::Hit { token }),
            [KNOCK, 0] => Some(Self::Ping { token }),
            [KNOCK, 1] => Some(Self::Pong { token }),
            [KNOCK, 2] => Some(Self::Ask { token }),
            [KNOCK, 3] => Some(Self::Knock { token }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_table() {
        let token = 0x0102_0304_0506_0708;
        assert_eq!(Probe::Opener.encode(), [6]);
        assert_eq!(Probe::Hit { token }.encode(), [7, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(Probe::Knock { token }.encode(), [8, 3, 1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn every_kind_comes_back_and_no_part_of_it_does() {
        let token = u64::MAX - 5;
        for probe in [
            Probe::Guess { token },
            Probe::Hit { token },
            Probe::Ping { token },
            Probe::Pong { token },
            Probe::Ask { token },
            Probe::Knock { token },
        ] {
            let packet = probe.encode();
            assert_eq!((Probe::decode(&packet), packet.len()), (Some(probe), PROBE_LEN_MAX));
            for end in 0..packet.len() {
                assert_eq!(Probe::decode(&packet[..end]), None, "{probe:?} cut to {end}");
            }
            assert_eq!(Probe::decode(&[&packet[..], &[0]].concat()), None, "{probe:?} with a byte more");
        }
        assert_eq!(Probe::decode(&[6, 0]), None);
    }

    proptest! {
        #[test]
        fn what_is_read_from_gibberish_is_written_the_same(packet: Vec<u8>, first in 6..9u8) {
            let packet: Vec<u8> = std::iter::once(first).chain(packet).take(12).collect();
            if let Some(probe) = Probe::decode(&packet) {
                prop_assert_eq!(probe.encode(), packet);
            }
        }
    }
}
