//! Reads a hello or an answer from the beginning of a stream, and leaves what follows in the stream.

use p2pos_peer_protocol::{Decoder, Message, MessageError};
use p2pos_transport::{RecvStream, StreamEnd};

/// Why no message came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadMessageError {
    /// The stream ended instead.
    #[error(transparent)]
    Ended(#[from] StreamEnd),
    /// The peer finished the stream before the message was whole.
    #[error("the stream ended within its first message")]
    Finished,
    /// The bytes are no such message.
    #[error(transparent)]
    Malformed(#[from] MessageError),
}

/// Reads one message. Not cancel-safe: use it under a deadline that ends the stream.
pub(crate) async fn read_message<M: Message>(recv: &mut RecvStream) -> Result<M, ReadMessageError> {
    let mut decoder = Decoder::new();
    loop {
        let mut chunk = recv.read_chunk().await?.ok_or(ReadMessageError::Finished)?;
        if let Some(message) = decoder.feed(&mut chunk)? {
            recv.push_front(chunk);
            return Ok(message);
        }
    }
}
