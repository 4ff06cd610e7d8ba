//! Relay frames through one TCP connection, for networks that block UDP.
//!
//! One task owns the connection. What goes out waits in a short queue that drops its oldest packet: QUIC repairs a loss,
//! while a long queue would only add delay behind TCP's own. What comes in goes to the socket's receiving side; while that
//! is full, TCP is not read, and the relay drops. How the stream is secured and opened is the caller's (RELAY.md s4).

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use p2pos_relay::tcp::{FrameReader, encode_length};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{Notify, watch},
    task::AbortHandle,
    time::timeout,
};

/// Packets that wait for the TCP connection. At 10 Mbit/s they are 75 ms of delay; more would make interactive use suffer
/// before congestion control hears of a loss.
pub(crate) const WAITING_MAX: usize = 64;

/// Longest a write may wait for the connection to take anything: a connection that stands still longer is dead.
const WRITE_STALL_MAX: Duration = Duration::from_secs(15);

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// Frames on their way to a TCP connection.
#[derive(Debug)]
pub(crate) struct Queue {
    id: u64,
    relay: SocketAddr,
    waiting: Mutex<Waiting>,
    filled: Notify,
    is_open: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Bytes>,
    is_closed: bool,
}

/// Our end of a TCP connection to a relay. The connection ends when this is dropped.
#[derive(Debug)]
pub struct TcpRelay {
    queue: Arc<Queue>,
    task: AbortHandle,
}

impl TcpRelay {
    /// Waits until the connection is gone. Cancel-safe.
    pub async fn closed(&self) {
        let mut is_open = self.queue.is_open.subscribe();
        // An error would mean that the sender is gone, which is in `self`.
        is_open.wait_for(|is_open| !is_open).await.ok();
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
    pub(crate) fn relay(&self) -> SocketAddr {
        self.relay
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Queues a frame given in two parts; the oldest makes room. Says how many packets were dropped.
    pub(crate) fn push(&self, head: &[u8], payload: &[u8]) -> usize {
        let Ok(length) = encode_length(head.len() + payload.len()) else { return 1 };
        // The one copy on this way: the packet must outlive noq's buffer, and TCP gets it in one piece.
        let mut frame = BytesMut::with_capacity(length.len() + head.len() + payload.len());
        for part in [&length[..], head, payload] {
            frame.extend_from_slice(part);
        }
        let mut waiting = self.lock();
        if waiting.is_closed {
            return 1;
        }
        let is_full = waiting.frames.len() == WAITING_MAX;
        if is_full {
            waiting.frames.pop_front();
        }
        waiting.frames.push_back(frame.freeze());
        drop(waiting);
        self.filled.notify_one();
        usize::from(is_full)
    }

    /// Takes all that waits, in one piece.
    fn take(&self, buffer: &mut BytesMut) {
        buffer.clear();
        for frame in self.lock().frames.drain(..) {
            buffer.extend_from_slice(&frame);
        }
    }

    fn close(&self) {
        let mut waiting = self.lock();
        waiting.is_closed = true;
        waiting.frames.clear();
        drop(waiting);
        self.is_open.send_replace(false);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a TCP connection. `deliver` gets each frame, and is waited for.
pub(crate) fn spawn<S, D, F>(stream: S, id: u64, relay: SocketAddr, deliver: D) -> TcpRelay
where
    S: AsyncRead + AsyncWrite + Send + 'static,
    D: Fn(Arc<Queue>, Bytes) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send,
{
    let queue = Arc::new(Queue {
        id,
        relay,
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
    loop {
        let count = reader.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        frames.push(&bytes[..count]);
        while let Some(frame) = frames.next_frame().map_err(io::Error::other)? {
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
        spawn(stream, 1, ([192, 0, 2, 1], 443).into(), |_, _| async {})
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
