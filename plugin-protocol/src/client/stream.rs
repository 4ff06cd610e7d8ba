//! Streams and flows as a plugin sees them.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use p2pos_identity::{PeerId, ProtocolName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Handle,
    time::timeout,
};

use super::{
    Client, Error,
    connect::{Attached, Socket},
};
use crate::{
    code::End,
    driver::{Closed, Detached, Flow, RecvHalf, SendHalf},
    message::{Opened, PathKind, StreamClosed},
    streams::{How, StreamEnd},
};

/// Most that one `poll_write` copies, in bytes.
const COPY_BYTES_MAX: usize = 64 * 1024;

/// Who is at the other end of a stream, and how one gets there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// Who.
    pub peer: PeerId,
    /// The user's own name for the peer, if it came with the stream.
    pub petname: Option<String>,
    /// Whether the peer is a contact, if that came with the stream.
    pub is_contact: bool,
    /// What is spoken.
    pub protocol: ProtocolName,
    /// The way it took when it was opened.
    pub path: PathKind,
}

impl StreamInfo {
    pub(super) fn opened(peer: PeerId, opened: &Opened) -> Self {
        Self { peer, petname: None, is_contact: false, protocol: opened.protocol.clone(), path: opened.path }
    }
}

/// A stream to another plugin: bytes, in order, both ways. Its `read` and `write` move whole pieces without copying;
/// it also is an [`AsyncRead`] and [`AsyncWrite`] for libraries that want one.
#[derive(Debug)]
pub struct Stream {
    send: SendHalf,
    recv: RecvHalf,
    info: StreamInfo,
    /// The rest of a piece that an `AsyncRead` has begun.
    begun: Bytes,
    /// Keeps the session alive.
    client: Client,
}

impl Stream {
    pub(super) fn new(client: &Client, send: SendHalf, recv: RecvHalf, info: StreamInfo) -> Self {
        Self { send, recv, info, begun: Bytes::new(), client: client.clone() }
    }

    /// Who is at the other end.
    #[must_use]
    pub const fn info(&self) -> &StreamInfo {
        &self.info
    }

    /// Waits for the next bytes; `None`: the other side writes no more, and all is read. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Stream`] if it ended otherwise.
    pub async fn read(&mut self) -> Result<Option<Bytes>, Error> {
        if !self.begun.is_empty() {
            return Ok(Some(std::mem::take(&mut self.begun)));
        }
        Ok(self.recv.read_chunk().await?)
    }

    /// Writes all of `bytes`, waiting while the other plugin does not read. Not cancel-safe: a part may have gone.
    ///
    /// # Errors
    /// [`Error::Stream`] if the other side reads no more, or the stream is over.
    pub async fn write(&mut self, bytes: impl Into<Bytes>) -> Result<(), Error> {
        Ok(self.send.write(bytes.into()).await?)
    }

    /// Says that nothing more will be written. Reading goes on.
    ///
    /// # Errors
    /// [`Error::Stream`] if the stream is over.
    pub fn close_write(&mut self) -> Result<(), Error> {
        Ok(self.send.finish()?)
    }

    /// Ends the stream at once, both ways, with the plugin's own number.
    pub fn reset(mut self, app_code: u32) {
        self.send.reset(End::app(app_code));
    }

    /// Waits for the daemon's word about how it truly ended; then all bytes are handed over, or they never will be.
    ///
    /// # Errors
    /// [`Error::Stream`] if the session ends first.
    pub async fn closed(&self) -> Result<StreamClosed, Error> {
        Ok(self.recv.closed().await?)
    }

    /// The two halves, for two tasks. The session must be kept alive by a [`Client`].
    #[must_use]
    pub fn split(self) -> (SendHalf, RecvHalf) {
        (self.send, self.recv)
    }

    /// The client that it belongs to.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if stream.begun.is_empty() {
            match ready!(stream.recv.poll_read_chunk(cx)) {
                Ok(Some(bytes)) => stream.begun = bytes,
                Ok(None) => return Poll::Ready(Ok(())),
                Err(end) => return Poll::Ready(Err(io_error(end))),
            }
        }
        let bytes = stream.begun.len().min(buffer.remaining());
        buffer.put_slice(&stream.begun[..bytes]);
        stream.begun.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        // Copying only what fits now; one byte suffices to be woken when more does.
        let fitting = stream.send.credit_available().clamp(1, COPY_BYTES_MAX).min(bytes.len());
        let mut piece = [Bytes::copy_from_slice(&bytes[..fitting])];
        stream.send.poll_write_chunks(cx, &mut piece).map_err(io_error)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().send.finish().map_err(io_error))
    }
}

fn io_error(end: StreamEnd) -> io::Error {
    let kind = match end.how {
        How::Stopped => io::ErrorKind::BrokenPipe,
        How::Reset => io::ErrorKind::ConnectionReset,
        How::Refused => io::ErrorKind::ConnectionRefused,
        How::Local => io::ErrorKind::NotConnected,
        How::Session => io::ErrorKind::ConnectionAborted,
    };
    io::Error::new(kind, end)
}

/// Datagrams to and from another plugin: they may get lost, or come in another order.
#[derive(Debug)]
pub struct Datagrams {
    flow: Flow,
    info: StreamInfo,
    bytes_max: u32,
    /// Keeps the session alive.
    client: Client,
}

impl Datagrams {
    pub(super) fn new(client: &Client, flow: Flow, info: StreamInfo, bytes_max: u32) -> Self {
        Self { flow, info, bytes_max, client: client.clone() }
    }

    /// Who is at the other end.
    #[must_use]
    pub const fn info(&self) -> &StreamInfo {
        &self.info
    }

    /// Largest datagram in bytes that fitted the path when the flow was opened.
    #[must_use]
    pub const fn bytes_max(&self) -> u32 {
        self.bytes_max
    }

    /// Sends one datagram. Never waits.
    ///
    /// # Errors
    /// [`Error::Stream`] if the flow is over.
    pub fn send(&self, datagram: impl Into<Bytes>) -> Result<(), Error> {
        Ok(self.flow.send(datagram.into())?)
    }

    /// Waits for the next datagram. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Stream`] if the flow is over.
    pub async fn recv(&self) -> Result<Bytes, Error> {
        Ok(self.flow.recv().await?)
    }

    /// Ends the flow.
    pub fn close(self) {
        self.flow.reset(End::app(0));
    }

    /// The client that it belongs to.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }
}

/// A stream on a socket of its own. Shutting down its writing side is the fin; how it truly ended says
/// [`RawStream::closed`], since a socket alone cannot tell a reset from a good end.
#[derive(Debug)]
pub struct RawStream {
    /// There until it is dropped.
    socket: Option<Socket>,
    early: BytesMut,
    detached: Detached,
    info: StreamInfo,
    is_shut: bool,
    /// All that the other side wrote was read.
    is_read: bool,
    /// Keeps the session alive.
    client: Client,
}

/// How long a socket outlives its stream at most. The daemon needs microseconds.
const SOCKET_LINGER: Duration = Duration::from_secs(1);

impl Drop for RawStream {
    /// Whoever drops it in the middle of writing has not said all, and its daemon is told so; whoever has shut it down has.
    ///
    /// Either way the socket is closed only when the daemon has spoken its last word. Closed at once it would overtake what
    /// is said on the session, and look like a fin. If somebody there still writes, it is closed at once: it should stop.
    fn drop(&mut self) {
        if self.is_shut {
            self.detached.leave();
        }
        let is_written_to = self.is_shut && !self.is_read;
        if let Ok(runtime) = Handle::try_current()
            && !is_written_to
        {
            let (socket, closed, client) = (self.socket.take(), self.detached.closed(), self.client.clone());
            runtime.spawn(async move {
                // Too late or not, the socket goes.
                drop(timeout(SOCKET_LINGER, closed).await);
                drop((socket, client));
            });
        }
    }
}

impl RawStream {
    pub(super) fn new(client: &Client, attached: Attached, detached: Detached, info: StreamInfo) -> Self {
        let Attached { socket, early } = attached;
        let socket = Some(socket);
        Self { socket, early, detached, info, is_shut: false, is_read: false, client: client.clone() }
    }

    fn socket(&mut self) -> Pin<&mut Socket> {
        Pin::new(self.socket.as_mut().expect("only drop takes the socket"))
    }

    /// Who is at the other end.
    #[must_use]
    pub const fn info(&self) -> &StreamInfo {
        &self.info
    }

    /// The daemon's word about how it truly ended, to come.
    #[must_use]
    pub fn closed(&self) -> Closed {
        self.detached.closed()
    }

    /// Ends the stream at once, both ways, with the plugin's own number.
    pub fn reset(self, app_code: u32) {
        self.detached.reset(End::app(app_code));
    }

    /// The client that it belongs to.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }
}

impl AsyncRead for RawStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if stream.early.is_empty() {
            let before = buffer.filled().len();
            ready!(stream.socket().poll_read(cx, buffer))?;
            stream.is_read |= buffer.filled().len() == before && buffer.remaining() > 0;
            return Poll::Ready(Ok(()));
        }
        let bytes = stream.early.len().min(buffer.remaining());
        buffer.put_slice(&stream.early.split_to(bytes));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for RawStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().socket().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().socket().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        stream.is_shut = true;
        stream.socket().poll_shutdown(cx)
    }
}
