//! The same frames on a TCP connection, where UDP is blocked, and beside them the QUIC packets between the user and the
//! relay itself: a u16 length before each, and the first byte tells which it is.
//!
//! A length that neither has ends the connection: the other side speaks something else, and on a stream there is no
//! way to find the next beginning. The reader holds one unfinished frame and no more.
//!
//! Refuses to know: how the connection is secured, and when it is tried. Follows RELAY.md section 4.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::frame::{FRAME_BYTES_MAX, FrameError, PAYLOAD_BYTES_MIN};

/// Bytes of the length before a frame.
pub const LENGTH_BYTES: usize = 2;

/// Returns the length that stands before a frame or packet of so many bytes; write all in one piece.
///
/// # Errors
/// [`FrameError::TooShort`] and [`FrameError::TooLong`]: our own caller's mistake.
pub fn encode_length(frame_bytes: usize) -> Result<[u8; LENGTH_BYTES], FrameError> {
    check(frame_bytes)?;
    Ok(u16::try_from(frame_bytes).expect("checked to be at most 1,469").to_be_bytes())
}

/// Cuts what a TCP connection delivers into frames.
#[derive(Debug, Default)]
pub struct FrameReader {
    /// What has come and is not handed out; the caller drains it after each push.
    buffer: BytesMut,
}

impl FrameReader {
    /// Starts before the first byte.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes as they came. Then call [`FrameReader::next_frame`] until it returns `None`.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next whole frame, not yet decoded. `None` means that more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError`] for a length that no frame has: close the connection.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let bytes = usize::from(u16::from_be_bytes(*length));
        check(bytes)?;
        if self.buffer.len() < LENGTH_BYTES + bytes {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        Ok(Some(self.buffer.split_to(bytes).freeze()))
    }
}

fn check(bytes: usize) -> Result<(), FrameError> {
    match bytes {
        0..PAYLOAD_BYTES_MIN => Err(FrameError::TooShort { bytes }),
        PAYLOAD_BYTES_MIN..=FRAME_BYTES_MAX => Ok(()),
        _ => Err(FrameError::TooLong { bytes }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_that_no_frame_has_are_refused_before_the_frame_comes() {
        for (bytes, is_taken) in [
            (0, false),
            (PAYLOAD_BYTES_MIN - 1, false),
            (PAYLOAD_BYTES_MIN, true),
            (FRAME_BYTES_MAX, true),
            (FRAME_BYTES_MAX + 1, false),
        ] {
            let mut reader = FrameReader::new();
            reader.push(&u16::try_from(bytes).unwrap().to_be_bytes());
            assert_eq!(reader.next_frame().is_ok(), is_taken, "{bytes}");
            assert_eq!(encode_length(bytes).is_ok(), is_taken, "{bytes}");
        }
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_are_cut(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), PAYLOAD_BYTES_MIN..200), 0..6),
            step in 1..64_usize,
        ) {
            let wire: Vec<u8> =
                frames.iter().flat_map(|frame| [&encode_length(frame.len()).unwrap()[..], frame].concat()).collect();
            let mut reader = FrameReader::new();
            let mut read = Vec::new();
            for piece in wire.chunks(step) {
                reader.push(piece);
                while let Some(frame) = reader.next_frame().unwrap() {
                    read.push(frame.to_vec());
                }
            }
            prop_assert_eq!(read, frames);
            prop_assert!(reader.buffer.is_empty());
        }
    }
}
