//! The two messages that open a stream, as types that cannot hold nonsense, and the choice of the protocol.
//!
//! The opener names ProtocolNames in order of preference; the accepter answers with the one both will speak, or with
//! the reason why none. The opener may send data before the answer: it belongs to the first name of its list, and is
//! dropped with the stream if another one or none is chosen. Whether an accepted name was ever offered is checked by
//! the opener with [`StreamHello::offers`]: the types alone cannot know.
//!
//! Refuses to know: bytes (`codec`), and who is allowed what.

use p2pos_identity::ProtocolName;

use crate::{MessageError, pb::peer_v1 as pb};

/// Names in one [`StreamHello`], and in [`Refusal::offered`]. 16 of the longest take 2.1 KiB of the 4 KiB message; a
/// program that speaks more versions of a protocol than this drops the oldest.
pub const PROTOCOLS_MAX: usize = 16;

/// The longest wait a peer can ask of us, one hour in milliseconds: more is taken as this much, so that a hostile
/// answer cannot silence us for good.
pub const RETRY_AFTER_MS_MAX: u32 = 3_600_000;

/// The ProtocolName that every daemon serves to its contacts itself: what is sent comes back.
pub const PING_PROTOCOL: &str = "/p2pos/ping/1";

/// What a QUIC stream stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Kind {
    /// A stream of bytes.
    #[default]
    Stream,
    /// A datagram flow: its id is the stream's id, and it ends when the stream ends.
    Datagram,
}

/// The opener's first message on a stream. Holds 1 to [`PROTOCOLS_MAX`] names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamHello {
    protocols: Vec<ProtocolName>,
    kind: Kind,
}

/// The accepter's first message on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamAnswer {
    /// Both will speak this.
    Accepted(ProtocolName),
    /// There will be no stream.
    Refused(Refusal),
}

/// Why a stream was refused, and what would help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    code: RefusalCode,
    retry_after_ms: u32,
    offered: Vec<ProtocolName>,
}

/// The number of a refusal, from the registry of the plugin protocol: classes 3 (peer) and 4 (stream).
///
/// A number that this version does not know is kept, so that a plugin of tomorrow can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RefusalCode(u16);

impl RefusalCode {
    /// None of the names is served; [`Refusal::offered`] tells which are.
    pub const PROTOCOL_NOT_SUPPORTED: Self = Self(304);
    /// The person or the program said no.
    pub const REFUSED: Self = Self(305);
    /// It is served, but not now; [`Refusal::retry_after_ms`] tells when.
    pub const NOT_READY: Self = Self(306);
    /// Too many streams are open.
    pub const STREAM_LIMIT: Self = Self(401);

    /// Takes a number of class 3 or 4, and no other.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        u16::try_from(number).ok().filter(|number| (300..=499).contains(number)).map(Self)
    }

    /// Returns the number.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }
}

impl StreamHello {
    /// Builds the message from names in order of preference.
    ///
    /// # Errors
    /// [`MessageError::NoProtocols`] and [`MessageError::TooManyProtocols`]: here they are our own caller's mistake.
    pub fn new(protocols: Vec<ProtocolName>, kind: Kind) -> Result<Self, MessageError> {
        match protocols.len() {
            0 => Err(MessageError::NoProtocols),
            1..=PROTOCOLS_MAX => Ok(Self { protocols, kind }),
            found => Err(MessageError::TooManyProtocols { found }),
        }
    }

    /// Returns the names in order of preference, at least one.
    #[must_use]
    pub fn protocols(&self) -> &[ProtocolName] {
        &self.protocols
    }

    /// Returns what the stream stands for.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Tells whether `name` is one of ours. A peer that accepts a name we never offered broke the protocol.
    #[must_use]
    pub fn offers(&self, name: &ProtocolName) -> bool {
        self.protocols.contains(name)
    }

    /// Takes the message apart into names and kind.
    #[must_use]
    pub fn into_parts(self) -> (Vec<ProtocolName>, Kind) {
        (self.protocols, self.kind)
    }
}

impl Refusal {
    /// Builds a refusal without advice.
    #[must_use]
    pub fn new(code: RefusalCode) -> Self {
        Self { code, retry_after_ms: 0, offered: Vec::new() }
    }

    /// Adds when to try again; cut to [`RETRY_AFTER_MS_MAX`].
    #[must_use]
    pub fn with_retry_after_ms(mut self, retry_after_ms: u32) -> Self {
        self.retry_after_ms = retry_after_ms.min(RETRY_AFTER_MS_MAX);
        self
    }

    /// Adds what this peer could have asked for; cut to the first [`PROTOCOLS_MAX`] names.
    #[must_use]
    pub fn with_offered(mut self, mut offered: Vec<ProtocolName>) -> Self {
        offered.truncate(PROTOCOLS_MAX);
        self.offered = offered;
        self
    }

    /// Returns why.
    #[must_use]
    pub fn code(&self) -> RefusalCode {
        self.code
    }

    /// Returns when to try again, in milliseconds; 0 means that the peer gave no advice.
    #[must_use]
    pub fn retry_after_ms(&self) -> u32 {
        self.retry_after_ms
    }

    /// Returns the names that the accepter would serve to this peer, at most [`PROTOCOLS_MAX`].
    #[must_use]
    pub fn offered(&self) -> &[ProtocolName] {
        &self.offered
    }
}

/// Picks the opener's first choice that is served here. Names match exactly or not at all.
pub fn negotiate(
    offered: &[ProtocolName],
    mut is_served: impl FnMut(&ProtocolName) -> bool,
) -> Option<&ProtocolName> {
    offered.iter().find(|name| is_served(name))
}

impl TryFrom<pb::StreamHello> for StreamHello {
    type Error = MessageError;

    fn try_from(hello: pb::StreamHello) -> Result<Self, Self::Error> {
        let kind = match pb::Kind::try_from(hello.kind) {
            Ok(pb::Kind::Unspecified | pb::Kind::Stream) => Kind::Stream,
            Ok(pb::Kind::Datagram) => Kind::Datagram,
            Err(_) => return Err(MessageError::UnknownKind { found: hello.kind }),
        };
        Self::new(names_of(hello.protocols)?, kind)
    }
}

impl From<&StreamHello> for pb::StreamHello {
    fn from(hello: &StreamHello) -> Self {
        let kind = match hello.kind {
            Kind::Stream => pb::Kind::Stream,
            Kind::Datagram => pb::Kind::Datagram,
        };
        Self { protocols: texts_of(&hello.protocols), kind: kind.into() }
    }
}

impl TryFrom<pb::StreamAnswer> for StreamAnswer {
    type Error = MessageError;

    fn try_from(answer: pb::StreamAnswer) -> Result<Self, Self::Error> {
        match answer.result {
            Some(pb::stream_answer::Result::Protocol(name)) => {
                Ok(Self::Accepted(ProtocolName::parse(&name)?))
            }
            Some(pb::stream_answer::Result::Refusal(refusal)) => {
                let code = RefusalCode::from_number(refusal.code)
                    .ok_or(MessageError::RefusalCode { found: refusal.code })?;
                let refused = Refusal::new(code).with_retry_after_ms(refusal.retry_after_ms);
                Ok(Self::Refused(refused.with_offered(names_of(refusal.offered)?)))
            }
            None => Err(MessageError::NoResult),
        }
    }
}

impl From<&StreamAnswer> for pb::StreamAnswer {
    fn from(answer: &StreamAnswer) -> Self {
        let result = match answer {
            StreamAnswer::Accepted(name) => pb::stream_answer::Result::Protocol(name.to_string()),
            StreamAnswer::Refused(refusal) => pb::stream_answer::Result::Refusal(pb::Refusal {
                code: refusal.code.0.into(),
                retry_after_ms: refusal.retry_after_ms,
                offered: texts_of(&refusal.offered),
            }),
        };
        Self { result: Some(result) }
    }
}

fn names_of(texts: Vec<String>) -> Result<Vec<ProtocolName>, MessageError> {
    if texts.len() > PROTOCOLS_MAX {
        return Err(MessageError::TooManyProtocols { found: texts.len() });
    }
    texts.iter().map(|text| Ok(ProtocolName::parse(text)?)).collect()
}

fn texts_of(names: &[ProtocolName]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_openers_preference_decides_among_what_is_served() {
        let offered = [name("/chat/3"), name("/chat/2"), name("/chat/1")];
        let served = [name("/chat/1"), name("/chat/2"), name("/files/1")];
        assert_eq!(negotiate(&offered, |name| served.contains(name)), Some(&name("/chat/2")));
    }

    #[test]
    fn a_longer_or_shorter_name_is_another_name() {
        let offered = [name("/chat/1.1"), name("/chat/1/x")];
        assert_eq!(negotiate(&offered, |served| *served == name("/chat/1")), None);
    }

    #[test]
    fn a_hello_holds_one_to_sixteen_names() {
        assert_eq!(StreamHello::new(Vec::new(), Kind::Stream), Err(MessageError::NoProtocols));
        assert!(StreamHello::new(vec![name("/chat/1"); PROTOCOLS_MAX], Kind::Stream).is_ok());
        let found = PROTOCOLS_MAX + 1;
        let refused = StreamHello::new(vec![name("/chat/1"); found], Kind::Stream);
        assert_eq!(refused, Err(MessageError::TooManyProtocols { found }));
    }

    #[test]
    fn a_peer_cannot_ask_for_more_than_an_hour_of_silence_nor_offer_more_than_we_keep() {
        let refusal = Refusal::new(RefusalCode::NOT_READY)
            .with_retry_after_ms(u32::MAX)
            .with_offered(vec![name("/chat/1"); PROTOCOLS_MAX + 1]);
        assert_eq!(refusal.retry_after_ms(), RETRY_AFTER_MS_MAX);
        assert_eq!(refusal.offered().len(), PROTOCOLS_MAX);
    }

    #[test]
    fn refusal_codes_are_of_the_peer_and_stream_classes_only() {
        for (number, is_taken) in
            [(0, false), (299, false), (300, true), (499, true), (500, false), (66_000, false)]
        {
            assert_eq!(RefusalCode::from_number(number).is_some(), is_taken, "{number}");
        }
    }

    #[test]
    fn the_name_of_ping_is_a_protocol_name() {
        assert!(ProtocolName::parse(PING_PROTOCOL).is_ok());
    }

    fn name(text: &str) -> ProtocolName {
        ProtocolName::parse(text).unwrap()
    }
}
