//! The outermost layer: a u32 big-endian length, then that many bytes of one protobuf `Frame` (SPEC.md, "Frames").
//!
//! Two things live here because they must be cheap: finding the next whole frame in what was read, and the two ends of
//! a Data frame, which is written around its payload and recognised without touching it. Everything else about a
//! frame's content is [`crate::message`]'s.
//!
//! A frame is at most 2^24 - 1 bytes, so its first byte is always 0. That one byte tells a plugin from a browser, a TLS
//! client or somebody's JSON ([`Foreign`]), and such strangers get no answer at all.

use std::ops::Range;

use bytes::{Buf, BufMut};

use crate::{
    code::Code,
    limits::{self, PREFIX_BYTES},
    message::StreamId,
};

/// Says why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first byte is not 0: whoever speaks there is no plugin, or has lost its place in the stream of frames.
    #[error("the first byte of a frame is 0x{0:02x}, it must be 0 [S-FRAME-3]")]
    Foreign(u8),
    /// A frame without content.
    #[error("a frame of length 0 [S-FRAME-2]")]
    Empty,
    /// A frame larger than agreed.
    #[error("a frame of {bytes} bytes, the limit is {max} bytes [S-FRAME-2]")]
    TooLarge {
        /// What the length prefix announced.
        bytes: u32,
        /// What was agreed.
        max: u32,
    },
}

impl FrameError {
    /// The code that answers it.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Empty => Code::PROTOCOL,
            Self::Foreign(_) | Self::TooLarge { .. } => Code::FRAME_TOO_LARGE,
        }
    }
}

/// A guess at who speaks on our port without being a plugin; for the daemon's log only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// A capital letter: an HTTP method, most likely a browser's.
    Http,
    /// 0x16: a TLS handshake record.
    Tls,
    /// `{`: JSON lines, which this version does not speak.
    Json,
    /// Something else.
    Other(u8),
}

impl Foreign {
    /// Judges by the first byte.
    #[must_use]
    pub const fn from_first_byte(byte: u8) -> Self {
        match byte {
            b'A'..=b'Z' => Self::Http,
            0x16 => Self::Tls,
            b'{' => Self::Json,
            other => Self::Other(other),
        }
    }
}

/// Finds the first frame in `bytes`: the length of its body in bytes, or `None` while it is not whole.
///
/// The body then stands at `bytes[PREFIX_BYTES..PREFIX_BYTES + length]`. Errors come as early as the bytes allow, so
/// that nobody waits for a frame that will be refused.
///
/// # Errors
/// A first byte other than 0, a length of 0, a length over `max`.
#[inline]
pub fn measure(bytes: &[u8], max: u32) -> Result<Option<usize>, FrameError> {
    let Some(length) = announced(bytes, max)? else {
        return Ok(None);
    };
    Ok((bytes.len() >= PREFIX_BYTES + length).then_some(length))
}

/// Tells how many more bytes the first frame of `bytes` needs, as far as they show.
///
/// # Errors
/// As [`measure`].
pub fn missing(bytes: &[u8], max: u32) -> Result<usize, FrameError> {
    let whole = announced(bytes, max)?.map_or(PREFIX_BYTES, |length| PREFIX_BYTES + length);
    Ok(whole.saturating_sub(bytes.len()))
}

#[inline]
fn announced(bytes: &[u8], max: u32) -> Result<Option<usize>, FrameError> {
    if let Some(&first) = bytes.first()
        && first != 0
    {
        return Err(FrameError::Foreign(first));
    }
    let Some(prefix) = bytes.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*prefix);
    match length {
        0 => Err(FrameError::Empty),
        _ if length > max => Err(FrameError::TooLarge { bytes: length, max }),
        _ => Ok(Some(length as usize)),
    }
}

/// What stands around the payload of a Data frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFrame {
    /// Whose bytes they are; 0 is for the reader to refuse.
    pub stream: u32,
    /// Where the payload stands in the frame's body.
    pub payload: Range<usize>,
    /// Whether the sender writes no more.
    pub fin: bool,
}

const TAG_FRAME_DATA: u8 = 0x12;
const TAG_DATA_STREAM: u8 = 0x08;
const TAG_DATA_PAYLOAD: u8 = 0x12;
const TAG_DATA_FIN: u8 = 0x18;

/// Recognises a Data frame as every sane encoder writes it, in a few nanoseconds.
///
/// `None` does not mean that the body is wrong, only that the full decoder has to look at it: fields in another order,
/// unknown fields, a `rid`. What this function accepts, the full decoder reads the same way; a property test says so.
#[inline]
#[must_use]
pub fn parse_data(body: &[u8]) -> Option<DataFrame> {
    let mut at = Cursor { body, at: 0 };
    at.byte(TAG_FRAME_DATA)?;
    let inner = at.varint()?;
    if inner as usize != body.len() - at.at {
        return None;
    }
    at.byte(TAG_DATA_STREAM)?;
    let stream = at.varint()?;
    let mut payload = at.at..at.at;
    if at.byte(TAG_DATA_PAYLOAD).is_some() {
        let length = at.varint()? as usize;
        payload = at.at..at.at.checked_add(length)?;
        at.at = payload.end;
    }
    let fin = at.byte(TAG_DATA_FIN).is_some();
    if fin {
        at.byte(1)?;
    }
    (at.at == body.len()).then_some(DataFrame { stream, payload, fin })
}

struct Cursor<'a> {
    body: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// Steps over `wanted`, if that is what comes next.
    #[inline]
    fn byte(&mut self, wanted: u8) -> Option<()> {
        let found = *self.body.get(self.at)?;
        (found == wanted).then(|| self.at += 1)
    }

    /// Reads a varint that fits 32 bits in at most five bytes; whatever is longer is for the full decoder.
    #[inline]
    fn varint(&mut self) -> Option<u32> {
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = *self.body.get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return u32::try_from(value).ok();
            }
        }
        None
    }
}

/// Most bytes that [`put_data_head`] writes: prefix, two tags with lengths, the stream.
pub const DATA_HEAD_BYTES_MAX: usize = PREFIX_BYTES + (1 + 5) + (1 + 5) + (1 + 5);

/// Writes everything of a Data frame that stands before its payload. The payload and [`put_data_tail`] must follow.
#[inline]
pub fn put_data_head(out: &mut impl BufMut, stream: StreamId, payload_bytes: u32, fin: bool) {
    let payload_field = match payload_bytes {
        0 => 0,
        length => 1 + varint_bytes(length) + length,
    };
    let inner = 1 + varint_bytes(stream.number()) + payload_field + if fin { 2 } else { 0 };
    debug_assert!(
        inner < limits::FRAME_BYTES_HARD_MAX - 8,
        "data_bytes_max keeps a Data frame under the hard limit"
    );
    out.put_u32(1 + varint_bytes(inner) + inner);
    out.put_u8(TAG_FRAME_DATA);
    put_varint(out, inner);
    out.put_u8(TAG_DATA_STREAM);
    put_varint(out, stream.number());
    if payload_bytes > 0 {
        out.put_u8(TAG_DATA_PAYLOAD);
        put_varint(out, payload_bytes);
    }
}

/// Writes what stands behind the payload.
#[inline]
pub fn put_data_tail(out: &mut impl BufMut, fin: bool) {
    if fin {
        out.put_slice(&[TAG_DATA_FIN, 1]);
    }
}

/// Takes the first frame's body out of `buffer`, once [`measure`] has told its length.
pub fn take_body(buffer: &mut bytes::BytesMut, length: usize) -> bytes::Bytes {
    buffer.advance(PREFIX_BYTES);
    buffer.split_to(length).freeze()
}

fn varint_bytes(value: u32) -> u32 {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        0x20_0000..0x1000_0000 => 4,
        _ => 5,
    }
}

fn put_varint(out: &mut impl BufMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the loop ends below 0x80")]
    out.put_u8(value as u8);
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::pb::plugin_v1 as pb;

    fn encode(stream: u32, payload: &[u8], fin: bool) -> BytesMut {
        let mut out = BytesMut::new();
        let stream = StreamId::new(stream).unwrap();
        put_data_head(&mut out, stream, u32::try_from(payload.len()).unwrap(), fin);
        out.put_slice(payload);
        put_data_tail(&mut out, fin);
        out
    }

    fn full(frame: &pb::Frame) -> Option<(u32, Bytes, bool)> {
        match &frame.body {
            Some(pb::frame::Body::Data(data)) if frame.rid == 0 => {
                Some((data.stream, data.payload.clone(), data.fin))
            }
            _ => None,
        }
    }

    #[test]
    fn the_specification_s_example_frame_is_written_byte_for_byte() {
        assert_eq!(encode(5, b"hi", true)[..], [0, 0, 0, 10, 0x12, 8, 8, 5, 0x12, 2, b'h', b'i', 0x18, 1]);
        assert_eq!(encode(1, b"", true)[..], [0, 0, 0, 6, 0x12, 4, 8, 1, 0x18, 1]);
    }

    #[test]
    fn a_frame_is_measured_only_when_whole_and_refused_as_soon_as_possible() {
        let bytes = encode(5, b"hi", false);
        for cut in 0..bytes.len() {
            assert_eq!(measure(&bytes[..cut], 100), Ok(None));
            assert!(missing(&bytes[..cut], 100).unwrap() > 0);
        }
        assert_eq!(measure(&bytes, 100), Ok(Some(8)));
        assert_eq!(measure(&bytes, 8), Ok(Some(8)));
        assert_eq!(measure(&bytes[..4], 7), Err(FrameError::TooLarge { bytes: 8, max: 7 }));
        assert_eq!(measure(&[0, 0, 0, 0], 7), Err(FrameError::Empty));
        assert_eq!(measure(b"G", 7), Err(FrameError::Foreign(b'G')));
        assert_eq!(Foreign::from_first_byte(b'G'), Foreign::Http);
    }

    proptest! {
        #[test]
        fn writing_by_hand_is_what_prost_writes(
            stream in 1..=u32::MAX, payload in prop::collection::vec(any::<u8>(), 0..300), fin: bool,
        ) {
            let data = pb::Data { stream, payload: payload.clone().into(), fin };
            let prost = pb::Frame { rid: 0, body: Some(pb::frame::Body::Data(data)) }.encode_to_vec();
            let ours = encode(stream, &payload, fin);
            prop_assert_eq!(&ours[PREFIX_BYTES..], &prost[..]);
            let read = parse_data(&prost).expect("the canonical form is always recognised");
            prop_assert_eq!((read.stream, &prost[read.payload], read.fin), (stream, &payload[..], fin));
        }

        #[test]
        fn what_the_fast_path_accepts_the_full_decoder_reads_the_same(
            mut body in prop::collection::vec(any::<u8>(), 0..24), fits: bool,
        ) {
            if fits && body.len() > 3 {
                body[0] = TAG_FRAME_DATA;
                body[1] = u8::try_from(body.len() - 2).unwrap();
                body[2] = TAG_DATA_STREAM;
            }
            if let Some(fast) = parse_data(&body) {
                let slow = pb::Frame::decode(&body[..]).expect("accepted bodies decode");
                let payload = Bytes::copy_from_slice(&body[fast.payload]);
                prop_assert_eq!(full(&slow), Some((fast.stream, payload, fast.fin)));
            }
        }
    }
}
