//! Messages to bytes and back: a u16 big-endian length, then protobuf.
//!
//! The decoder takes bytes as the network cuts them, one at a time if need be, and stops exactly behind its message:
//! what follows in the same chunk is the stream's data and stays in the caller's hands, uncopied. A length over the
//! limit is refused at its second byte, before a buffer exists.
//!
//! Refuses to know: what the messages mean (`hello`).

use std::marker::PhantomData;

use bytes::{BufMut, Bytes, BytesMut};
use p2pos_identity::ProtocolNameError;
use prost::Message as _;

use crate::{
    PROTOCOLS_MAX, StreamAnswer, StreamHello,
    measure::{MeasureAnswer, MeasureQuestion},
    pb::peer_v1 as pb,
    relay::RelayMessage,
    signal::SignalMessage,
};

/// The longest message behind its length, in bytes. 16 names of 128 bytes take 2.1 KiB; the rest is room for fields to
/// come. It is also what one stream that says nothing can cost us in memory before its protocol is known.
pub const MESSAGE_BYTES_MAX: usize = 4096;

const LENGTH_BYTES: usize = 2;

/// What is wrong with a message. In a decoder it is always the peer's fault: reset the stream with code 100 PROTOCOL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The announced length is over the limit.
    #[error("the message has {bytes} bytes, the limit is {MESSAGE_BYTES_MAX}")]
    TooLong {
        /// The announced length.
        bytes: usize,
    },
    /// The bytes are no protobuf, or not of this shape.
    #[error("the message cannot be decoded")]
    Malformed,
    /// No name at all.
    #[error("the message names no protocol")]
    NoProtocols,
    /// More names than the limit.
    #[error("the message names {found} protocols, the limit is {PROTOCOLS_MAX}")]
    TooManyProtocols {
        /// How many.
        found: usize,
    },
    /// A name that is none.
    #[error("the message holds a bad name: {0}")]
    Protocol(#[from] ProtocolNameError),
    /// An answer that is neither yes nor no.
    #[error("the answer holds no result")]
    NoResult,
    /// A kind of stream that this version does not know.
    #[error("the stream is of the unknown kind {found}")]
    UnknownKind {
        /// Its number.
        found: i32,
    },
    /// A field of a signal or relay message that is missing, of another length, or out of bounds.
    #[error("the field {field} is missing or out of bounds")]
    Field {
        /// Its name.
        field: &'static str,
    },
    /// A list that is longer than its limit.
    #[error("{field} has {found} entries, the limit is {max}")]
    TooMany {
        /// The list.
        field: &'static str,
        /// How many.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// A refusal whose number is not of the classes 3 and 4.
    #[error("the refusal has code {found}, which is not of the classes 3xx and 4xx")]
    RefusalCode {
        /// The number.
        found: u32,
    },
}

/// A message of the peer protocol. Sealed: those that exist are here.
pub trait Message: Sized + sealed::Sealed {
    /// Decodes a message without its length.
    ///
    /// # Errors
    /// [`MessageError`] if the bytes break the protocol.
    fn decode(body: &[u8]) -> Result<Self, MessageError>;

    /// Encodes the message with its length in front: what goes on the stream.
    fn encode(&self) -> Bytes;
}

impl Message for StreamHello {
    fn decode(body: &[u8]) -> Result<Self, MessageError> {
        within_limit(body)?;
        pb::StreamHello::decode(body).map_err(|_| MessageError::Malformed)?.try_into()
    }

    fn encode(&self) -> Bytes {
        with_length(&pb::StreamHello::from(self))
    }
}

impl Message for StreamAnswer {
    fn decode(body: &[u8]) -> Result<Self, MessageError> {
        within_limit(body)?;
        pb::StreamAnswer::decode(body).map_err(|_| MessageError::Malformed)?.try_into()
    }

    fn encode(&self) -> Bytes {
        with_length(&pb::StreamAnswer::from(self))
    }
}

impl Message for SignalMessage {
    fn decode(body: &[u8]) -> Result<Self, MessageError> {
        within_limit(body)?;
        pb::Signal::decode(body).map_err(|_| MessageError::Malformed)?.try_into()
    }

    fn encode(&self) -> Bytes {
        with_length(&pb::Signal::from(self))
    }
}

impl Message for RelayMessage {
    fn decode(body: &[u8]) -> Result<Self, MessageError> {
        within_limit(body)?;
        pb::Relay::decode(body).map_err(|_| MessageError::Malformed)?.try_into()
    }

    fn encode(&self) -> Bytes {
        with_length(&pb::Relay::from(self))
    }
}

impl Message for MeasureQuestion {
    fn decode(body: &[u8]) -> Result<Self, MessageError> {
        within_limit(body)?;
        pb::MeasureQuestion::decode(body).map_err(|_| MessageError::Malformed)?.try_into()
    }

    fn encode(&self) -> Bytes {
        with_length(&pb::MeasureQuestion::from(self))
    }
}

impl Message for MeasureAnswer {
    fn decode(body: &[u8]) -> Result<Self, MessageError> {
        within_limit(body)?;
        let answer = pb::MeasureAnswer::decode(body).map_err(|_| MessageError::Malformed)?;
        Ok(Self { is_granted: answer.is_granted })
    }

    fn encode(&self) -> Bytes {
        with_length(&pb::MeasureAnswer { is_granted: self.is_granted })
    }
}

/// Collects one message of type `M` from the beginning of a stream. After its message it is ready for another.
#[derive(Debug)]
pub struct Decoder<M> {
    /// Length and body as far as they have come; never more than [`MESSAGE_BYTES_MAX`] + 2.
    pending: BytesMut,
    message: PhantomData<fn() -> M>,
}

impl<M: Message> Decoder<M> {
    /// Starts before the first byte.
    #[must_use]
    pub fn new() -> Self {
        Self { pending: BytesMut::new(), message: PhantomData }
    }

    /// Takes from `input` what belongs to the message, and returns it once it is whole. What stays in `input` comes
    /// behind the message. `None` means that all of `input` was taken and more is needed.
    ///
    /// # Errors
    /// [`MessageError`] if the bytes break the protocol; the decoder and the stream are of no use afterwards.
    pub fn feed(&mut self, input: &mut Bytes) -> Result<Option<M>, MessageError> {
        loop {
            let missing = self.missing_bytes()?;
            if missing == 0 {
                let whole = self.pending.split();
                return M::decode(&whole[LENGTH_BYTES..]).map(Some);
            }
            if input.is_empty() {
                return Ok(None);
            }
            let taken = input.split_to(missing.min(input.len()));
            self.pending.extend_from_slice(&taken);
        }
    }

    /// Tells whether a part of a message has arrived: the stream must not end now.
    #[must_use]
    pub fn is_within_message(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Counts what is still to come of the length, or of the body once the length is known.
    fn missing_bytes(&self) -> Result<usize, MessageError> {
        let Some(length) = self.pending.first_chunk::<LENGTH_BYTES>() else {
            return Ok(LENGTH_BYTES - self.pending.len());
        };
        let bytes = usize::from(u16::from_be_bytes(*length));
        if bytes > MESSAGE_BYTES_MAX {
            return Err(MessageError::TooLong { bytes });
        }
        Ok(LENGTH_BYTES + bytes - self.pending.len())
    }
}

impl<M: Message> Default for Decoder<M> {
    fn default() -> Self {
        Self::new()
    }
}

mod sealed {
    #[expect(
        unnameable_types,
        reason = "nobody else may name it: the messages of the protocol are a closed set"
    )]
    pub trait Sealed {}
    impl Sealed for crate::StreamHello {}
    impl Sealed for crate::StreamAnswer {}
    impl Sealed for crate::signal::SignalMessage {}
    impl Sealed for crate::relay::RelayMessage {}
    impl Sealed for crate::measure::MeasureQuestion {}
    impl Sealed for crate::measure::MeasureAnswer {}
}

fn within_limit(body: &[u8]) -> Result<(), MessageError> {
    match body.len() {
        0..=MESSAGE_BYTES_MAX => Ok(()),
        bytes => Err(MessageError::TooLong { bytes }),
    }
}

fn with_length(message: &impl prost::Message) -> Bytes {
    let body_bytes = message.encoded_len();
    let length =
        u16::try_from(body_bytes).expect("every list and name is limited, so 4 KiB hold the message");
    let mut bytes = BytesMut::with_capacity(LENGTH_BYTES + body_bytes);
    bytes.put_u16(length);
    message.encode(&mut bytes).expect("the buffer has room for what encoded_len announced");
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use p2pos_identity::ProtocolName;
    use proptest::prelude::*;

    use super::*;
    use crate::{Kind, Refusal, RefusalCode};

    #[test]
    fn the_bytes_of_known_messages_never_change() {
        let hello = StreamHello::new(vec![name("/chat/1")], Kind::Datagram).unwrap();
        assert_eq!(&hello.encode()[..], b"\x00\x0b\x0a\x07/chat/1\x10\x02");
        let accepted = StreamAnswer::Accepted(name("/chat/1"));
        assert_eq!(&accepted.encode()[..], b"\x00\x09\x0a\x07/chat/1");
        let refused = StreamAnswer::Refused(Refusal::new(RefusalCode::NOT_READY).with_retry_after_ms(1000));
        assert_eq!(&refused.encode()[..], b"\x00\x08\x12\x06\x08\xb2\x02\x10\xe8\x07");
    }

    #[test]
    fn an_unspecified_kind_reads_as_a_stream_and_an_unknown_one_is_refused() {
        let unspecified = StreamHello::decode(b"\x0a\x07/chat/1").unwrap();
        assert_eq!(unspecified.kind(), Kind::Stream);
        let unknown = StreamHello::decode(b"\x0a\x07/chat/1\x10\x09");
        assert_eq!(unknown, Err(MessageError::UnknownKind { found: 9 }));
    }

    #[test]
    fn fields_of_a_newer_version_are_passed_over() {
        let newer = StreamHello::decode(b"\x0a\x07/chat/1\x7a\x03new").unwrap();
        assert_eq!(newer.protocols(), [name("/chat/1")]);
    }

    #[test]
    fn the_largest_hello_and_answer_fit_their_message() {
        let longest = name(&format!("/{}/1", "a".repeat(p2pos_identity::PROTOCOL_NAME_BYTES_MAX - 3)));
        let names = vec![longest; PROTOCOLS_MAX];
        let hello = StreamHello::new(names.clone(), Kind::Datagram).unwrap();
        let refused = Refusal::new(RefusalCode::PROTOCOL_NOT_SUPPORTED).with_retry_after_ms(u32::MAX);
        let answer = StreamAnswer::Refused(refused.with_offered(names));
        assert!(hello.encode().len() - LENGTH_BYTES <= MESSAGE_BYTES_MAX);
        assert!(answer.encode().len() - LENGTH_BYTES <= MESSAGE_BYTES_MAX);
        assert_eq!(decoded::<StreamHello>(hello.encode()), Ok(Some(hello)));
        assert_eq!(decoded::<StreamAnswer>(answer.encode()), Ok(Some(answer)));
    }

    #[test]
    fn a_message_of_the_limit_is_read_and_one_byte_more_is_refused_at_its_length() {
        let mut body = b"\x0a\x07/chat/1\x7a\xf4\x1f".to_vec();
        body.resize(MESSAGE_BYTES_MAX, b'x');
        let mut whole = BytesMut::new();
        whole.put_u16(4096);
        whole.put_slice(&body);
        assert!(decoded::<StreamHello>(whole.freeze()).unwrap().is_some());

        let bytes = MESSAGE_BYTES_MAX + 1;
        let only_length = Bytes::from_static(&[0x10, 0x01]);
        assert_eq!(decoded::<StreamHello>(only_length), Err(MessageError::TooLong { bytes }));
        body.push(b'x');
        assert_eq!(StreamHello::decode(&body), Err(MessageError::TooLong { bytes }));
    }

    #[test]
    fn one_name_too_many_on_the_wire_is_refused() {
        let body = b"\x0a\x04/a/1".repeat(PROTOCOLS_MAX + 1);
        let found = PROTOCOLS_MAX + 1;
        assert_eq!(StreamHello::decode(&body), Err(MessageError::TooManyProtocols { found }));
        let refusal_head = [0x12, u8::try_from(body.len() + 3).unwrap(), 0x08, 0xb0, 0x02];
        let offered = b"\x1a\x04/a/1".repeat(PROTOCOLS_MAX + 1);
        let answer = StreamAnswer::decode(&[&refusal_head[..], &offered].concat());
        assert_eq!(answer, Err(MessageError::TooManyProtocols { found }));
    }

    #[test]
    fn messages_that_say_nothing_or_nonsense_are_refused_each_for_its_reason() {
        assert_eq!(StreamHello::decode(b""), Err(MessageError::NoProtocols));
        assert_eq!(StreamAnswer::decode(b""), Err(MessageError::NoResult));
        assert_eq!(StreamHello::decode(b"\x0a\xff"), Err(MessageError::Malformed));
        assert!(matches!(StreamHello::decode(b"\x0a\x01x"), Err(MessageError::Protocol(_))));
        assert_eq!(StreamAnswer::decode(b"\x12\x00"), Err(MessageError::RefusalCode { found: 0 }));
    }

    #[test]
    fn a_message_cut_anywhere_is_neither_read_nor_refused_until_the_rest_comes() {
        let hello = StreamHello::new(vec![name("/chat/1"), name("/chat/2")], Kind::Stream).unwrap();
        let whole = hello.encode();
        for cut in 0..whole.len() {
            let mut decoder = Decoder::new();
            assert_eq!(decoder.feed(&mut whole.slice(..cut)), Ok(None));
            assert_eq!(decoder.is_within_message(), cut > 0);
            assert_eq!(decoder.feed(&mut whole.slice(cut..)), Ok(Some(hello.clone())));
            assert!(!decoder.is_within_message());
        }
    }

    #[test]
    fn data_behind_the_message_stays_with_the_caller_uncopied() {
        let hello = StreamHello::new(vec![name("/chat/1")], Kind::Stream).unwrap();
        let whole = Bytes::from([&hello.encode()[..], b"first data"].concat());
        let mut input = whole.clone();
        assert_eq!(Decoder::new().feed(&mut input), Ok(Some(hello)));
        assert_eq!(input, "first data");
        assert_eq!(input.as_ptr(), whole[whole.len() - input.len()..].as_ptr());
    }

    proptest! {
        #[test]
        fn every_hello_survives_any_cutting(hello in any_hello(), cuts: Vec<u8>) {
            let mut input = hello.encode();
            let mut decoder = Decoder::new();
            for cut in cuts {
                let mut piece = input.split_to(usize::from(cut).min(input.len()));
                if let Some(early) = decoder.feed(&mut piece).unwrap() {
                    prop_assert!(input.is_empty());
                    prop_assert_eq!(early, hello);
                    return Ok(());
                }
            }
            prop_assert_eq!(decoder.feed(&mut input), Ok(Some(hello)));
        }

        #[test]
        fn every_answer_survives_the_wire(answer in any_answer()) {
            prop_assert_eq!(decoded::<StreamAnswer>(answer.encode()), Ok(Some(answer)));
        }

        #[test]
        fn gibberish_never_panics_and_never_holds_more_than_a_message(bytes: Vec<u8>) {
            for decodes in [feed_all::<StreamHello>, feed_all::<StreamAnswer>] {
                prop_assert!(decodes(&bytes) <= LENGTH_BYTES + MESSAGE_BYTES_MAX);
            }
        }

        #[test]
        fn a_flipped_byte_is_refused_or_still_a_valid_message(hello in any_hello(), at: usize, flip in 1..=255_u8) {
            let mut bytes = hello.encode().to_vec();
            let at = at % bytes.len();
            bytes[at] ^= flip;
            if let Ok(Some(read)) = decoded::<StreamHello>(bytes.into()) {
                prop_assert!((1..=PROTOCOLS_MAX).contains(&read.protocols().len()));
            }
        }
    }

    fn name(text: &str) -> ProtocolName {
        ProtocolName::parse(text).unwrap()
    }

    fn decoded<M: Message>(mut bytes: Bytes) -> Result<Option<M>, MessageError> {
        Decoder::new().feed(&mut bytes)
    }

    fn feed_all<M: Message>(bytes: &[u8]) -> usize {
        let mut decoder = Decoder::<M>::new();
        let mut input = Bytes::copy_from_slice(bytes);
        while let Ok(Some(_)) = decoder.feed(&mut input) {}
        decoder.pending.capacity()
    }

    fn any_name() -> impl Strategy<Value = ProtocolName> {
        "/[a-z0-9._-]{1,60}/[a-z0-9._-]{1,60}".prop_map(|text| name(&text))
    }

    fn any_hello() -> impl Strategy<Value = StreamHello> {
        let kind = prop_oneof![Just(Kind::Stream), Just(Kind::Datagram)];
        (prop::collection::vec(any_name(), 1..=PROTOCOLS_MAX), kind)
            .prop_map(|(names, kind)| StreamHello::new(names, kind).unwrap())
    }

    fn any_answer() -> impl Strategy<Value = StreamAnswer> {
        let refused = (300..=499_u32, any::<u32>(), prop::collection::vec(any_name(), 0..=PROTOCOLS_MAX));
        prop_oneof![
            any_name().prop_map(StreamAnswer::Accepted),
            refused.prop_map(|(code, wait, names)| {
                let refusal = Refusal::new(RefusalCode::from_number(code).unwrap());
                StreamAnswer::Refused(refusal.with_retry_after_ms(wait).with_offered(names))
            }),
        ]
    }
}
