//! The two halves of a stream, without a copy of the payload, and with every ending told as an [`EndCode`].
//!
//! A half that is dropped before its end tells the peer so with 403 PLUGIN_GONE: its owner vanished. (noq would finish a
//! dropped send half, and a cut-off stream would look complete.)

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use noq::VarInt;
use p2pos_peer_protocol::EndCode;

use crate::error::StreamEnd;

/// Converts a code into QUIC's 62-bit form.
pub(crate) fn quic_code(code: EndCode) -> VarInt {
    VarInt::from_u64(code.to_quic()).expect("a 16-bit and a 32-bit code fit 62 bits")
}

/// The half that we write.
#[derive(Debug)]
pub struct SendStream {
    inner: noq::SendStream,
    is_open: bool,
}

impl SendStream {
    pub(crate) fn new(inner: noq::SendStream) -> Self {
        Self { inner, is_open: true }
    }

    /// The QUIC stream id.
    #[must_use]
    pub fn id(&self) -> u64 {
        u64::from(VarInt::from(self.inner.id()))
    }

    /// Writes all chunks, without copying them, waiting for the peer's credit as need be.
    ///
    /// Cancel-safe as long as the slice is kept: what was taken is gone from it (noq empties or cuts the chunks in place), so a
    /// dropped call is taken up by calling again with the same slice.
    ///
    /// # Errors
    /// [`StreamEnd`] if the peer stopped the stream or the connection is gone.
    pub async fn write_chunks(&mut self, chunks: &mut [Bytes]) -> Result<(), StreamEnd> {
        if chunks.iter().all(Bytes::is_empty) {
            return Ok(());
        }
        Ok(self.inner.write_all_chunks(chunks).await?)
    }

    /// Ends the half: the peer reads everything written, then the end. Idempotent.
    pub fn finish(&mut self) {
        if std::mem::take(&mut self.is_open) && self.inner.finish().is_err() {
            tracing::trace!("finished a stream that the peer had stopped");
        }
    }

    /// Gives up: what the peer has not read is lost, and it learns `code`. Also after [`Self::finish`].
    pub fn reset(&mut self, code: EndCode) {
        self.is_open = false;
        if self.inner.reset(quic_code(code)).is_err() {
            tracing::trace!("reset a stream that had ended");
        }
    }

    /// Waits for what becomes of the half; independent of this handle's life.
    pub fn stopped(&self) -> Stopped {
        Stopped(Box::pin(self.inner.stopped()))
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if self.is_open {
            self.reset(EndCode::PLUGIN_GONE);
        }
    }
}

/// What became of a send half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendEnd {
    /// The peer does not want more.
    Stopped(EndCode),
    /// All of it arrived, and the half had been finished.
    Delivered,
    /// The connection is gone.
    Lost(crate::error::Lost),
}

/// The future of [`SendStream::stopped`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct Stopped(Pin<Box<noq::Stopped>>);

impl std::fmt::Debug for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stopped")
    }
}

impl Future for Stopped {
    type Output = SendEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<SendEnd> {
        self.0.as_mut().poll(cx).map(|end| match end {
            Ok(Some(code)) => SendEnd::Stopped(EndCode::from_quic(code.into_inner())),
            Ok(None) => SendEnd::Delivered,
            Err(noq::StoppedError::ConnectionLost(error)) => SendEnd::Lost(error.into()),
            Err(noq::StoppedError::ZeroRttRejected) => SendEnd::Lost(crate::error::Lost::Local),
        })
    }
}

/// The half that the peer writes.
#[derive(Debug)]
pub struct RecvStream {
    inner: noq::RecvStream,
    /// Bytes given back by whoever read the beginning of the stream.
    front: Bytes,
    is_open: bool,
}

impl RecvStream {
    pub(crate) fn new(inner: noq::RecvStream) -> Self {
        Self { inner, front: Bytes::new(), is_open: true }
    }

    /// Reads the next chunks, as many as have arrived and `chunks` has room for; `None` at the end. Reading is what gives
    /// the peer credit to send more. Cancel-safe.
    ///
    /// # Errors
    /// [`StreamEnd`] if the peer reset the stream or the connection is gone.
    pub async fn read_chunks(&mut self, chunks: &mut [Bytes]) -> Result<Option<usize>, StreamEnd> {
        if let (Some(first), false) = (chunks.first_mut(), self.front.is_empty()) {
            *first = std::mem::take(&mut self.front);
            return Ok(Some(1));
        }
        match self.inner.read_many_chunks(chunks).await {
            Ok(Some(count)) => Ok(Some(count)),
            Ok(None) => {
                self.is_open = false;
                Ok(None)
            }
            Err(error) => {
                self.is_open = false;
                Err(error.into())
            }
        }
    }

    /// Reads one chunk; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// As [`Self::read_chunks`].
    pub async fn read_chunk(&mut self) -> Result<Option<Bytes>, StreamEnd> {
        let mut chunk = [Bytes::new()];
        let [chunk] = match self.read_chunks(&mut chunk).await? {
            Some(_) => chunk,
            None => return Ok(None),
        };
        Ok(Some(chunk))
    }

    /// Gives back bytes that were read too far; the next read returns them first.
    pub fn push_front(&mut self, bytes: Bytes) {
        self.front = bytes;
    }

    /// Asks the peer to stop sending, and why.
    pub fn stop(&mut self, code: EndCode) {
        self.is_open = false;
        self.front = Bytes::new();
        if self.inner.stop(quic_code(code)).is_err() {
            tracing::trace!("stopped a stream that had ended");
        }
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        if self.is_open {
            self.stop(EndCode::PLUGIN_GONE);
        }
    }
}
