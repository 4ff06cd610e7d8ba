//! `relay:PEERID@HOST:PORT/TOKEN`: where a peer can be called through a relay, as people pass it on.
//!
//! `PEERID@HOST:PORT` names the relay, the token (32 hexadecimal digits) is what its holder must show it. Whoever has such an
//! address can have its owner called, so it is for friends. Refuses to know: what a relay does with it.

use std::{fmt, str::FromStr};

use p2pos_identity::PeerId;

use crate::host_port::{HostPort, HostPortError};

/// Bytes of a token (RELAY.md s5).
pub const RELAY_TOKEN_BYTES: usize = 16;

/// How such an address begins.
const SCHEME: &str = "relay:";

/// A relay: who it is and where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RelayAt {
    /// Who.
    pub relay: PeerId,
    /// Where.
    pub at: HostPort,
}

/// A way to call somebody through a relay.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RelayAddress {
    /// The relay.
    pub at: RelayAt,
    /// What the relay wants to see.
    pub token: [u8; RELAY_TOKEN_BYTES],
}

/// An address of a peer, as the user typed it: of the peer itself, or through a relay.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PeerAddress {
    /// `HOST:PORT`.
    Direct(HostPort),
    /// `relay:PEERID@HOST:PORT/TOKEN`.
    Relay(RelayAddress),
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerAddressError {
    /// Its HOST:PORT is none.
    #[error(transparent)]
    HostPort(#[from] HostPortError),
    /// There is no `@` between the relay's PeerId and its HOST:PORT.
    #[error("a relay is written as PEERID@HOST:PORT; the @ is missing")]
    NoAt,
    /// What stands before the `@` is no PeerId.
    #[error("what stands before the @ is not a PeerId")]
    PeerId,
    /// What stands behind the slash is no token.
    #[error("the address of a peer at a relay ends with / and {} hexadecimal digits", RELAY_TOKEN_BYTES * 2)]
    Token,
}

impl FromStr for RelayAt {
    type Err = PeerAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (relay, at) = text.split_once('@').ok_or(PeerAddressError::NoAt)?;
        let relay = relay.parse().map_err(|_| PeerAddressError::PeerId)?;
        Ok(Self { relay, at: at.parse()? })
    }
}

impl FromStr for PeerAddress {
    type Err = PeerAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some(rest) = text.strip_prefix(SCHEME) else { return Ok(Self::Direct(text.parse()?)) };
        let (at, token) = rest.rsplit_once('/').ok_or(PeerAddressError::Token)?;
        let token = token_of(token).ok_or(PeerAddressError::Token)?;
        Ok(Self::Relay(RelayAddress { at: at.parse()?, token }))
    }
}

fn token_of(text: &str) -> Option<[u8; RELAY_TOKEN_BYTES]> {
    let is_hex = text.len() == RELAY_TOKEN_BYTES * 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten().map(u128::to_be_bytes)
}

impl fmt::Display for RelayAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.relay, self.at)
    }
}

impl fmt::Display for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{:032x}", self.at, u128::from_be_bytes(self.token))
    }
}

impl fmt::Debug for RelayAddress {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayAddress").field("at", &self.at).finish_non_exhaustive()
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(address) => address.fmt(f),
            Self::Relay(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use p2pos_identity::SecretKey;

    use super::*;

    const TOKEN: &str = "00112233445566778899aabbccddeeff";

    fn relay() -> PeerId {
        SecretKey::from_seed([1; 32]).peer_id()
    }

    #[test]
    fn an_address_through_a_relay_prints_as_it_was_typed() {
        for host in ["192.0.2.7:4000", "[2001:db8::7]:4000", "example.org:443"] {
            let text = format!("relay:{}@{host}/{TOKEN}", relay());
            let PeerAddress::Relay(address) = text.parse().unwrap() else { panic!("{text}") };
            assert_eq!((address.at.relay, address.token[15]), (relay(), 0xff));
            assert_eq!(address.to_string(), text);
            assert!(!format!("{address:?}").contains("255"), "the token is no business of a log");
        }
    }

    #[test]
    fn each_way_of_getting_it_wrong_has_its_message() {
        let relay = relay();
        for (typed, error) in [
            (format!("relay:{relay}@192.0.2.7:4000"), PeerAddressError::Token),
            (format!("relay:{relay}@192.0.2.7:4000/{}", &TOKEN[1..]), PeerAddressError::Token),
            (format!("relay:{relay}@192.0.2.7:4000/+{}", &TOKEN[1..]), PeerAddressError::Token),
            (format!("relay:{relay}/{TOKEN}"), PeerAddressError::NoAt),
            (format!("relay:p2p1x@192.0.2.7:4000/{TOKEN}"), PeerAddressError::PeerId),
            (format!("relay:{relay}@192.0.2.7/{TOKEN}"), HostPortError::NoPort.into()),
            ("192.0.2.7".to_owned(), HostPortError::NoPort.into()),
        ] {
            assert_eq!(typed.parse::<PeerAddress>(), Err(error), "{typed}");
        }
        assert!(matches!("192.0.2.7:1".parse(), Ok(PeerAddress::Direct(_))));
    }
}
