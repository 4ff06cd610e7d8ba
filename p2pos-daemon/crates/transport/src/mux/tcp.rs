//! One TCP connection between a user and a relay, either end of it, for networks that block UDP.
//!
//! It carries two things, each behind its length: relay frames, and the QUIC packets of the connection between the two
//! themselves. One task owns it. What goes out waits in a short queue that drops its oldest packet: QUIC repairs a loss,
//! while a long queue would only add delay behind TCP's own. What comes in goes to the socket's receiving side; while that
//! is full, TCP is not read, and the relay drops. How the stream is opened is the caller's (RELAY.md s4).

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use p2pos_relay::{
    Class, ClassQueue, Vni,
    tcp::{FrameReader, encode_length},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{Notify, watch},
    task::AbortHandle,
    time::timeout,
};

use crate::mux::fake::{FakeAddr, FakeKind};

/// Packets that wait for the TCP connection. At 10 Mbit/s they are 75 ms of delay; more would make interactive use suffer
/// before congestion control hears of a loss.
pub(crate) const WAITING_MAX: usize = 64;

/// Bytes handed to the connection at once: what is still in the queue can be overtaken by what matters more.
const WRITE_BYTES: usize = 32 * 1024;

/// Longest a write may wait for the connection to take anything: a connection that stands still longer is dead.
const WRITE_STALL_MAX: Duration = Duration::from_secs(15);

/// Longest silence of the other side: three of QUIC's keepalives. A connection whose other end vanished must not stay.
const SILENCE_MAX: Duration = Duration::from_secs(90);

/// Time for the first packet of all. Whoever connects and says nothing only takes a place.
const FIRST_WITHIN: Duration = Duration::from_secs(10);

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// What is on its way to a TCP connection.
#[derive(Debug)]
pub(crate) struct Queue {
    id: u64,
    /// The other end.
    relay: SocketAddr,
    /// Under which address QUIC knows the other end.
    fake: FakeAddr,
    waiting: Mutex<Waiting>,
    filled: Notify,
    is_open: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Our own: they go first.
    frames: VecDeque<Bytes>,
    /// Those of others, on a relay.
    forwarded: ClassQueue<Bytes>,
    is_closed: bool,
}

/// Our end of a TCP connection between a user and a relay. The connection ends when this is dropped.
#[derive(Debug)]
pub struct TcpRelay {
    queue: Arc<Queue>,
    task: AbortHandle,
}

impl TcpRelay {
    /// Waits until the connection is gone. Cancel-safe.
    pub async fn closed(&self) {
        self.queue.closed().await;
    }

    /// The address under which the other end itself can be dialled through this connection.
    #[must_use]
    pub fn fake(&self) -> FakeAddr {
        self.queue.fake
    }

    /// The other end's address.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.queue.relay
    }

    /// Whether the connection still stands.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self.queue.is_open.borrow()
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }
}

impl Drop for TcpRelay {
    fn drop(&mut self) {
        self.queue.close();
        self.task.abort();
    }
}

impl Queue {
    /// Waits until the connection is gone.
    pub(crate) async fn closed(&self) {
        let mut is_open = self.is_open.subscribe();
        // An error would mean that the sender is gone, which is in `self`.
        is_open.wait_for(|is_open| !is_open).await.ok();
    }

    pub(crate) fn relay(&self) -> SocketAddr {
        self.relay
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn fake(&self) -> FakeAddr {
        self.fake
    }

    /// Queues a frame or packet of ours, given in two parts; the oldest makes room. Says how many packets were dropped.
    pub(crate) fn push(&self, head: &[u8], payload: &[u8]) -> usize {
        let Some(frame) = with_length(head, payload) else { return 1 };
        let mut waiting = self.lock();
        if waiting.is_closed {
            return 1;
        }
        let is_full = waiting.frames.len() == WAITING_MAX;
        if is_full {
            waiting.frames.pop_front();
        }
        waiting.frames.push_back(frame);
        drop(waiting);
        self.filled.notify_one();
        usize::from(is_full)
    }

    /// Queues a frame that is forwarded; what matters least makes room.
    pub(crate) fn push_frame(&self, class: Class, flow: Vni, frame: &[u8]) {
        let Some(frame) = with_length(frame, &[]) else { return };
        let mut waiting = self.lock();
        if !waiting.is_closed {
            waiting.forwarded.push(class, flow, frame);
            drop(waiting);
            self.filled.notify_one();
        }
    }

    /// Takes what goes next, in one piece.
    fn take(&self, buffer: &mut BytesMut) {
        buffer.clear();
        let waiting = &mut *self.lock();
        while buffer.len() < WRITE_BYTES
            && let Some(frame) = waiting.frames.pop_front().or_else(|| waiting.forwarded.pop())
        {
            buffer.extend_from_slice(&frame);
        }
    }

    fn close(&self) {
        let mut waiting = self.lock();
        waiting.is_closed = true;
        waiting.frames.clear();
        waiting.forwarded = ClassQueue::new();
        drop(waiting);
        self.is_open.send_replace(false);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Frame or packet with its length. The one copy on this way: it must outlive the buffer it is in, and TCP gets one piece.
fn with_length(head: &[u8], payload: &[u8]) -> Option<Bytes> {
    let length = encode_length(head.len() + payload.len()).ok()?;
    let mut frame = BytesMut::with_capacity(length.len() + head.len() + payload.len());
    for part in [&length[..], head, payload] {
        frame.extend_from_slice(part);
    }
    Some(frame.freeze())
}

/// Runs a TCP connection. `deliver` gets each frame, and is waited for.
pub(crate) fn spawn<S, D, F>(stream: S, (id, relay): (u64, SocketAddr), deliver: D) -> TcpRelay
where
    S: AsyncRead + AsyncWrite + Send + 'static,
    D: Fn(Arc<Queue>, Bytes) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send,
{
    let queue = Arc::new(Queue {
        id,
        relay,
        fake: FakeAddr::mint(FakeKind::TcpRelay),
        waiting: Mutex::default(),
        filled: Notify::new(),
        is_open: watch::Sender::new(true),
    });
    let task = tokio::spawn({
        let queue = queue.clone();
        async move {
            let (reader, writer) = tokio::io::split(stream);
            let ended = tokio::select! {
                ended = read(reader, &queue, deliver) => ended,
                ended = write(writer, &queue) => ended,
            };
            if let Err(error) = ended {
                tracing::debug!(%relay, %error, "a TCP connection to a relay ended");
            }
            queue.close();
        }
    });
    TcpRelay { queue, task: task.abort_handle() }
}

async fn read<S, D, F>(mut reader: ReadHalf<S>, queue: &Arc<Queue>, deliver: D) -> io::Result<()>
where
    S: AsyncRead,
    D: Fn(Arc<Queue>, Bytes) -> F,
    F: Future<Output = ()>,
{
    let mut frames = FrameReader::new();
    let mut bytes = vec![0; READ_BYTES];
    let mut patience = FIRST_WITHIN;
    loop {
        let count = timeout(patience, reader.read(&mut bytes)).await??;
        if count == 0 {
            return Ok(());
        }
        frames.push(&bytes[..count]);
        while let Some(frame) = frames.next_frame().map_err(io::Error::other)? {
            patience = SILENCE_MAX;
            deliver(queue.clone(), frame).await;
        }
    }
}

async fn write<S: AsyncWrite>(mut writer: WriteHalf<S>, queue: &Queue) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    loop {
        queue.take(&mut bytes);
        if bytes.is_empty() {
            queue.filled.notified().await;
        } else {
            timeout(WRITE_STALL_MAX, writer.write_all(&bytes)).await??;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(stream: tokio::io::DuplexStream) -> TcpRelay {
        spawn(stream, (1, ([192, 0, 2, 1], 443).into()), |_, _| async {})
    }

    #[tokio::test]
    async fn a_slow_connection_drops_the_oldest_packets_and_keeps_the_newest() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let relay = idle(ours);
        let dropped: usize =
            (0..=u8::MAX).map(|fill| relay.queue().push(&[5; 17], &[fill.max(0x40); 40])).sum();
        assert_eq!(dropped, 256 - WAITING_MAX, "the task has not run yet");
        let mut frames = FrameReader::new();
        let mut seen = Vec::new();
        while seen.len() < WAITING_MAX {
            let mut bytes = [0; 64];
            let count = theirs.read(&mut bytes).await.unwrap();
            frames.push(&bytes[..count]);
            while let Some(frame) = frames.next_frame().unwrap() {
                seen.push(frame[20]);
            }
        }
        assert_eq!((seen[0], seen[WAITING_MAX - 1]), (192, 255), "partial writes keep frames whole");
    }

    #[tokio::test]
    async fn a_connection_that_speaks_something_else_ends() {
        let (ours, mut theirs) = tokio::io::duplex(1_024);
        let relay = idle(ours);
        theirs.write_all(b"HTTP/1.1 400 Bad Request\r\n").await.unwrap();
        timeout(Duration::from_secs(20), relay.closed()).await.unwrap();
        assert_eq!(relay.queue().push(&[5; 17], &[0x40; 40]), 1, "nothing is queued any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_takes_nothing_for_long_ends() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let relay = idle(ours);
        relay.queue().push(&[5; 17], &[0x40; 400]);
        timeout(WRITE_STALL_MAX * 2, relay.closed()).await.unwrap();
    }
}
