//! How a stream or connection ended, in one number. Owns its place in QUIC's application error code.
//!
//! QUIC gives 62 bits (RFC 9000 s20.2) for resets, stop-sending and close. We use 48: our code in the low 16, and in the
//! next 32 the number that a program chose, which means something only beside the code 400 APP.
//!
//! Refuses to know: names and hints of the codes (the registry is the plugin protocol's; class 6 is our own and never
//! reaches a plugin).

use std::fmt;

/// Why something ended: a code of the registry, and the program's own number (0 unless the code is 400 APP).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndCode {
    /// The registry's number: 100 PROTOCOL, 105 SHUTTING_DOWN, 400 APP, ...
    pub code: u16,
    /// The number that the program gave.
    pub app: u32,
}

impl EndCode {
    /// The other side broke the protocol.
    pub const PROTOCOL: Self = Self::of(100);
    /// The daemon is going down in good order.
    pub const SHUTTING_DOWN: Self = Self::of(105);
    /// The stream is not wanted.
    pub const REFUSED: Self = Self::of(305);
    /// Too many streams.
    pub const STREAM_LIMIT: Self = Self::of(401);
    /// The plugin behind the stream has gone.
    pub const PLUGIN_GONE: Self = Self::of(403);
    /// No path to the peer is left.
    pub const PATH_LOST: Self = Self::of(404);
    /// Nothing happened for too long.
    pub const IDLE: Self = Self::of(405);
    /// Our own fault.
    pub const INTERNAL: Self = Self::of(500);
    /// Connections only: both sides dialled at once, and the other connection is the one that is kept.
    pub const DUPLICATE: Self = Self::of(600);

    /// Builds a code that needs no number of the program.
    #[must_use]
    pub const fn of(code: u16) -> Self {
        Self { code, app: 0 }
    }

    /// Builds the code of an end that the program itself chose: 400 APP with its number.
    #[must_use]
    pub const fn app(app: u32) -> Self {
        Self { code: 400, app }
    }

    /// Reads a QUIC application error code. One that uses bits we do not was not made by a p2pOS, and reads as
    /// [`EndCode::PROTOCOL`]: whatever it meant, the other side speaks something else.
    #[must_use]
    pub fn from_quic(number: u64) -> Self {
        let code = u16::try_from(number & u64::from(u16::MAX)).expect("masked to 16 bits");
        match u32::try_from(number >> u16::BITS) {
            Ok(app) => Self { code, app },
            Err(_) => Self::PROTOCOL,
        }
    }

    /// Returns the QUIC application error code; always under 2^48, so it fits a QUIC varint.
    #[must_use]
    pub fn to_quic(self) -> u64 {
        u64::from(self.app) << u16::BITS | u64::from(self.code)
    }
}

impl fmt::Display for EndCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.app {
            0 => write!(f, "{}", self.code),
            app => write!(f, "{} ({app})", self.code),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_two_numbers_have_their_fixed_places() {
        assert_eq!(EndCode { code: 400, app: 7 }.to_quic(), 7 << 16 | 400);
        assert_eq!(EndCode { code: u16::MAX, app: u32::MAX }.to_quic(), (1 << 48) - 1);
        assert_eq!(EndCode::app(7).to_string(), "400 (7)");
        assert_eq!(EndCode::IDLE.to_string(), "405");
    }

    #[test]
    fn a_number_that_no_p2pos_sends_reads_as_a_protocol_error() {
        assert_eq!(EndCode::from_quic(1 << 48), EndCode::PROTOCOL);
        assert_eq!(EndCode::from_quic(u64::MAX), EndCode::PROTOCOL);
    }

    proptest! {
        #[test]
        fn every_code_survives_the_wire(code: u16, app: u32) {
            let end = EndCode { code, app };
            prop_assert_eq!(EndCode::from_quic(end.to_quic()), end);
        }
    }
}
