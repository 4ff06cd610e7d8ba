//! A stream between two daemons once its protocol is agreed: two halves that hold their connection in use.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use p2pos_peer_protocol::EndCode;
use p2pos_transport::{RecvStream, SendStream, Stopped, StreamEnd};
use tokio::time::timeout;

use crate::{lease::Lease, limits::LINGER_MAX};

/// Both halves of a stream.
#[derive(Debug)]
pub struct PeerStream {
    /// The half that we write.
    pub send: SendHalf,
    /// The half that the peer writes.
    pub recv: RecvHalf,
}

impl PeerStream {
    pub(crate) fn new(send: SendStream, recv: RecvStream, lease: Lease) -> Self {
        let lease = Arc::new(lease);
        Self { send: SendHalf::new(send, lease.clone()), recv: RecvHalf::new(recv, lease) }
    }
}

/// The half that we write. Dropped before [`SendHalf::finish`] or [`SendHalf::reset`], it tells the peer 403 PLUGIN_GONE.
#[derive(Debug)]
pub struct SendHalf {
    inner: SendStream,
    lease: Arc<Lease>,
    is_finished: bool,
}

impl SendHalf {
    pub(crate) fn new(inner: SendStream, lease: Arc<Lease>) -> Self {
        Self { inner, lease, is_finished: false }
    }

    /// Writes all chunks without copying them; waits for the peer's credit.
    ///
    /// Cancel-safe as long as the slice is kept: what was taken is gone from it (noq empties or cuts the chunks in place), so a
    /// dropped call is taken up by calling again with the same slice.
    ///
    /// # Errors
    /// [`StreamEnd`] if the peer stopped the stream or the connection is gone.
    pub async fn write_chunks(&mut self, chunks: &mut [Bytes]) -> Result<(), StreamEnd> {
        self.lease.note_writing();
        self.inner.write_chunks(chunks).await
    }

    /// Writes one chunk; see [`SendHalf::write_chunks`].
    ///
    /// # Errors
    /// As [`SendHalf::write_chunks`].
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), StreamEnd> {
        self.write_chunks(&mut [chunk]).await
    }

    /// Ends the half (half-close); what was written still arrives, also if this handle is dropped. Idempotent.
    pub fn finish(&mut self) {
        self.is_finished = true;
        self.inner.finish();
    }

    /// Gives up: what the peer has not read is lost, and it learns `code`.
    pub fn reset(&mut self, code: EndCode) {
        self.is_finished = false;
        self.inner.reset(code);
    }

    /// A future of its own that tells what becomes of the half: stopped by the peer, delivered after
    /// [`SendHalf::finish`], or lost.
    pub fn stopped(&self) -> Stopped {
        self.inner.stopped()
    }
}

impl Drop for SendHalf {
    /// A finished half keeps its connection in use until its last byte is delivered, for a bounded time.
    fn drop(&mut self) {
        if !self.is_finished {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (stopped, lease) = (self.inner.stopped(), self.lease.clone());
        runtime.spawn(linger(stopped, lease, LINGER_MAX));
    }
}

async fn linger(stopped: Stopped, lease: Arc<Lease>, limit: Duration) {
    if timeout(limit, stopped).await.is_err() {
        tracing::debug!("the end of a stream was not delivered in time");
    }
    drop(lease);
}

/// The half that the peer writes. Dropped before its end, it tells the peer to stop, with 403 PLUGIN_GONE.
#[derive(Debug)]
pub struct RecvHalf {
    inner: RecvStream,
    _lease: Arc<Lease>,
}

impl RecvHalf {
    pub(crate) fn new(inner: RecvStream, lease: Arc<Lease>) -> Self {
        Self { inner, _lease: lease }
    }

    /// Reads what has arrived, as many chunks as `chunks` has room for; `None` once the peer has finished. Reading is what
    /// gives the peer credit for more. Cancel-safe.
    ///
    /// # Errors
    /// [`StreamEnd`] if the peer reset the stream or the connection is gone.
    pub async fn read_chunks(&mut self, chunks: &mut [Bytes]) -> Result<Option<usize>, StreamEnd> {
        self.inner.read_chunks(chunks).await
    }

    /// Reads one chunk; `None` once the peer has finished. Cancel-safe.
    ///
    /// # Errors
    /// As [`RecvHalf::read_chunks`].
    pub async fn read_chunk(&mut self) -> Result<Option<Bytes>, StreamEnd> {
        self.inner.read_chunk().await
    }

    /// Asks the peer to stop sending, and why.
    pub fn stop(&mut self, code: EndCode) {
        self.inner.stop(code);
    }
}
