//! The handles of streams, flows and detached streams.
//!
//! A handle's work happens in the session's machine, under its lock; only waiting is asynchronous. A half that is
//! dropped before its end ends the stream with 400 APP, so that nobody takes a piece for the whole.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;

use super::core::{Core, Shared, keep};
use crate::{
    code::{Code, End},
    message::{Body, ErrorReply, StreamClosed, StreamId},
    streams::{How, Read, StreamEnd},
};

/// What a half that was simply dropped tells the other side.
const DROPPED: End = End::app(0);

pub(super) fn halves(shared: &Arc<Shared>, id: StreamId) -> (SendHalf, RecvHalf) {
    let send = SendHalf { handle: Handle::new(shared, id) };
    let recv = RecvHalf { handle: Handle::new(shared, id), is_credit_manual: false };
    (send, recv)
}

/// What every handle is made of.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    id: StreamId,
}

impl Handle {
    fn new(shared: &Arc<Shared>, id: StreamId) -> Self {
        shared.lock().hold(id, 1);
        Self { shared: Arc::clone(shared), id }
    }

    /// Does something to the stream, then wakes whom it concerns.
    fn call<T>(&self, work: impl FnOnce(&mut Core, StreamId) -> T) -> T {
        let mut core = self.shared.lock();
        let result = work(&mut core, self.id);
        core.after_stream_call();
        result
    }

    fn poll_ended(&self, cx: &Context<'_>) -> Poll<StreamEnd> {
        let mut core = self.shared.lock();
        match core.streams.ended(self.id).or_else(|| session_end(&core)) {
            Some(end) => Poll::Ready(end),
            None => {
                core.wakers(self.id).watch(cx.waker());
                Poll::Pending
            }
        }
    }

    fn closed(&self) -> Closed {
        let handle = Self::new(&self.shared, self.id);
        handle.shared.lock().streams.hold(self.id);
        Closed { handle }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().release(self.id);
    }
}

fn session_end(core: &Core) -> Option<StreamEnd> {
    core.end().map(|end| StreamEnd { how: How::Session, end })
}

/// The half of a stream that is written. One owner; works from any task.
#[derive(Debug)]
pub struct SendHalf {
    handle: Handle,
}

impl SendHalf {
    /// The stream's id.
    #[must_use]
    pub const fn id(&self) -> StreamId {
        self.handle.id
    }

    /// Waits until at least one byte can go, then takes as many as can off the front of `pieces`, and tells how many.
    /// Pieces of 1 KiB and more are not copied; what is taken together leaves in as few frames as possible. Nothing to
    /// write returns 0 at once. Cancel-safe.
    ///
    /// # Errors
    /// [`StreamEnd`] if the half, the stream or the session is over.
    pub async fn write_chunks(&mut self, pieces: &mut [Bytes]) -> Result<usize, StreamEnd> {
        poll_fn(|cx| self.poll_write_chunks(cx, pieces)).await
    }

    /// As [`SendHalf::write_chunks`], for those who poll.
    ///
    /// # Errors
    /// As [`SendHalf::write_chunks`].
    pub fn poll_write_chunks(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &mut [Bytes],
    ) -> Poll<Result<usize, StreamEnd>> {
        let mut core = self.handle.shared.lock();
        if let Some(end) = session_end(&core) {
            return Poll::Ready(Err(end));
        }
        if pieces.iter().all(Bytes::is_empty) {
            return Poll::Ready(Ok(0));
        }
        match core.streams.write(self.handle.id, pieces) {
            Ok(0) => {
                keep(&mut core.wakers(self.handle.id).writer, cx.waker());
                Poll::Pending
            }
            Ok(bytes) => {
                core.wake_task();
                Poll::Ready(Ok(bytes))
            }
            Err(end) => Poll::Ready(Err(end)),
        }
    }

    /// Writes all of `piece`. Not cancel-safe: a part may have been taken.
    ///
    /// # Errors
    /// As [`SendHalf::write_chunks`].
    pub async fn write(&mut self, piece: Bytes) -> Result<(), StreamEnd> {
        let mut pieces = [piece];
        while !pieces[0].is_empty() {
            self.write_chunks(&mut pieces).await?;
        }
        Ok(())
    }

    /// Bytes that can be written now without waiting.
    #[must_use]
    pub fn credit_available(&self) -> usize {
        self.handle.shared.lock().streams.room(self.handle.id)
    }

    /// Says that nothing more will be written; what was written still leaves.
    ///
    /// # Errors
    /// [`StreamEnd`] if the half ended otherwise before.
    pub fn finish(&mut self) -> Result<(), StreamEnd> {
        self.handle.call(|core, id| match session_end(core) {
            Some(end) => Err(end),
            None => core.streams.finish(id),
        })
    }

    /// Ends the whole stream at once, both ways.
    pub fn reset(&mut self, end: End) {
        self.handle.call(|core, id| core.streams.reset(id, end));
    }

    /// Waits until the other side reads no more, or the stream is over. Cancel-safe.
    pub async fn stopped(&self) -> StreamEnd {
        poll_fn(|cx| self.handle.poll_ended(cx)).await
    }

    /// How the whole stream truly ended, once the daemon knows.
    #[must_use]
    pub fn closed(&self) -> Closed {
        self.handle.closed()
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        self.handle.call(|core, id| {
            if core.streams.is_writable(id) {
                core.streams.reset(id, DROPPED);
            }
        });
    }
}

/// The half of a stream that is read. One owner; works from any task.
#[derive(Debug)]
pub struct RecvHalf {
    handle: Handle,
    is_credit_manual: bool,
}

impl RecvHalf {
    /// The stream's id.
    #[must_use]
    pub const fn id(&self) -> StreamId {
        self.handle.id
    }

    /// Waits for the next bytes; `None`: the other side writes no more, and all is read. Cancel-safe.
    ///
    /// # Errors
    /// [`StreamEnd`] if the half, the stream or the session ended otherwise.
    pub async fn read_chunk(&mut self) -> Result<Option<Bytes>, StreamEnd> {
        poll_fn(|cx| self.poll_read_chunk(cx)).await
    }

    /// As [`RecvHalf::read_chunk`], for those who poll.
    ///
    /// # Errors
    /// As [`RecvHalf::read_chunk`].
    pub fn poll_read_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamEnd>> {
        let mut core = self.handle.shared.lock();
        match self.read_one(&mut core) {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                keep(&mut core.wakers(self.handle.id).reader, cx.waker());
                Poll::Pending
            }
        }
    }

    /// Waits for bytes, then fills `pieces` with as many as are there; tells how many pieces, `None` as
    /// [`RecvHalf::read_chunk`]. Cancel-safe.
    ///
    /// # Errors
    /// As [`RecvHalf::read_chunk`].
    pub async fn read_chunks(&mut self, pieces: &mut [Bytes]) -> Result<Option<usize>, StreamEnd> {
        let Some((first, rest)) = pieces.split_first_mut() else {
            return Ok(Some(0));
        };
        match self.read_chunk().await? {
            Some(bytes) => *first = bytes,
            None => return Ok(None),
        }
        let mut count = 1;
        let mut core = self.handle.shared.lock();
        for piece in rest {
            if !core.streams.is_readable(self.handle.id) {
                break;
            }
            if let Some(Ok(Some(bytes))) = self.read_one(&mut core) {
                *piece = bytes;
                count += 1;
            }
        }
        Ok(Some(count))
    }

    fn read_one(&self, core: &mut Core) -> Option<Result<Option<Bytes>, StreamEnd>> {
        let outcome = match core.streams.read(self.handle.id) {
            Read::Bytes(bytes) => {
                if !self.is_credit_manual {
                    core.streams.consume(self.handle.id, bytes.len());
                }
                Ok(Some(bytes))
            }
            Read::Fin => Ok(None),
            Read::Ended(end) => Err(end),
            Read::Blocked => Err(session_end(core)?),
        };
        core.after_stream_call();
        Some(outcome)
    }

    /// Resolves when the stream was reset, or the session ended before its writer was done; also while bytes that were
    /// read before are still being passed on. Cancel-safe.
    pub async fn lost(&self) -> StreamEnd {
        poll_fn(|cx| {
            let mut core = self.handle.shared.lock();
            match core.streams.lost(self.handle.id) {
                Some(end) => Poll::Ready(end),
                None => {
                    core.wakers(self.handle.id).watch(cx.waker());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// From now on reading gives no credit back by itself; [`RecvHalf::consumed`] does. For those who hand the bytes on
    /// and want the sender to wait until they are really gone.
    pub const fn set_manual_credit(&mut self) {
        self.is_credit_manual = true;
    }

    /// Gives back the credit of `bytes` that were read and are now done with.
    pub fn consumed(&mut self, bytes: usize) {
        self.handle.call(|core, id| core.streams.consume(id, bytes));
    }

    /// Leaves: the other side should stop sending. What came and was not read is gone.
    pub fn stop(&mut self, end: End) {
        self.handle.call(|core, id| core.streams.stop(id, end));
    }

    /// How the whole stream truly ended, once the daemon knows.
    #[must_use]
    pub fn closed(&self) -> Closed {
        self.handle.closed()
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        self.handle.call(|core, id| core.streams.stop(id, DROPPED));
    }
}

/// The daemon's last word about a stream, to come. Holds nothing of the stream open. Cancel-safe.
///
/// # Errors
/// [`StreamEnd`] if that word never comes: the stream was refused, or the session is over.
#[derive(Debug)]
pub struct Closed {
    handle: Handle,
}

impl Future for Closed {
    type Output = Result<StreamClosed, StreamEnd>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let id = self.handle.id;
        let mut core = self.handle.shared.lock();
        if let Some(facts) = core.streams.closed(id) {
            return Poll::Ready(Ok(facts));
        }
        if let Some(end) = session_end(&core) {
            return Poll::Ready(Err(end));
        }
        if core.streams.is_over(id) {
            let refused = StreamEnd { how: How::Refused, end: DROPPED };
            return Poll::Ready(Err(core.streams.ended(id).unwrap_or(refused)));
        }
        core.wakers(id).watch(cx.waker());
        Poll::Pending
    }
}

/// A datagram flow: messages that may get lost, come twice or in another order. Works from any task.
#[derive(Debug)]
pub struct Flow {
    handle: Handle,
}

impl Flow {
    pub(super) fn new(shared: &Arc<Shared>, id: StreamId) -> Self {
        Self { handle: Handle::new(shared, id) }
    }

    /// The flow's id.
    #[must_use]
    pub const fn id(&self) -> StreamId {
        self.handle.id
    }

    /// Sends one datagram. Never waits: if the queue is full, the oldest in it goes, and a counter tells.
    ///
    /// # Errors
    /// [`StreamEnd`] if the flow or the session is over.
    pub fn send(&self, datagram: Bytes) -> Result<(), StreamEnd> {
        self.handle.call(|core, id| match session_end(core) {
            Some(end) => Err(end),
            None => core.streams.send_datagram(id, datagram),
        })
    }

    /// Waits for the next datagram. Cancel-safe.
    ///
    /// # Errors
    /// [`StreamEnd`] if the flow or the session is over.
    pub async fn recv(&self) -> Result<Bytes, StreamEnd> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`Flow::recv`], for those who poll.
    ///
    /// # Errors
    /// As [`Flow::recv`].
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<Result<Bytes, StreamEnd>> {
        let mut core = self.handle.shared.lock();
        match core.streams.receive_datagram(self.handle.id) {
            Ok(Some(datagram)) => Poll::Ready(Ok(datagram)),
            Err(end) => Poll::Ready(Err(end)),
            Ok(None) => match session_end(&core) {
                Some(end) => Poll::Ready(Err(end)),
                None => {
                    keep(&mut core.wakers(self.handle.id).reader, cx.waker());
                    Poll::Pending
                }
            },
        }
    }

    /// Tells the other side, without ending the flow, that something it sent went nowhere.
    pub fn complain(&self, code: Code, message: impl Into<String>) {
        let error = ErrorReply::new(code, message).about(self.handle.id);
        self.handle.shared.lock().notify(Body::Error(error));
    }

    /// Ends the flow. There is no gentler way: datagrams have no order that a fin could close.
    pub fn reset(&self, end: End) {
        self.handle.call(|core, id| core.streams.reset(id, end));
    }

    /// Waits until the flow is over. Cancel-safe.
    pub async fn ended(&self) -> StreamEnd {
        poll_fn(|cx| self.handle.poll_ended(cx)).await
    }

    /// How it truly ended, once the daemon knows.
    #[must_use]
    pub fn closed(&self) -> Closed {
        self.handle.closed()
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.handle.call(|core, id| core.streams.reset(id, DROPPED));
    }
}

/// A stream whose bytes travel on a socket of their own: here are only its opening and its end. Dropping it resets the
/// stream, unless [`Detached::close`] or [`Detached::leave`] came first.
#[derive(Debug)]
pub struct Detached {
    handle: Handle,
    is_left: bool,
}

impl Detached {
    pub(super) fn new(shared: &Arc<Shared>, id: StreamId) -> Self {
        Self { handle: Handle::new(shared, id), is_left: false }
    }

    /// The stream's id.
    #[must_use]
    pub const fn id(&self) -> StreamId {
        self.handle.id
    }

    /// Lets dropping it end nothing: its socket will tell.
    pub const fn leave(&mut self) {
        self.is_left = true;
    }

    /// The daemon's side: tells the plugin how it truly ended, and frees its place.
    pub fn close(&self, facts: StreamClosed) {
        self.handle.call(|core, id| core.streams.close_detached(id, facts));
    }

    /// Ends it at once. Whoever holds the socket must close that too.
    pub fn reset(&self, end: End) {
        self.handle.call(|core, id| core.streams.reset(id, end));
    }

    /// Waits until it was reset, or the session is over. Cancel-safe.
    pub async fn ended(&self) -> StreamEnd {
        poll_fn(|cx| self.handle.poll_ended(cx)).await
    }

    /// How it truly ended, once the daemon knows.
    #[must_use]
    pub fn closed(&self) -> Closed {
        self.handle.closed()
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        if !self.is_left {
            self.handle.call(|core, id| core.streams.reset(id, DROPPED));
        }
    }
}
