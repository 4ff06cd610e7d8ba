//! Streams whose bytes travel outside of the session: on a socket of their own, or through a command's pipes. Owns the
//! reading and writing of those descriptors, and the question how such a stream *truly* ended.
//!
//! A socket's end of file says too little: a plugin that was killed in the middle of a file looks exactly like one that
//! has finished (measured, plugin-host.md A3). So every raw stream has a *minder*, a small task that knows the truth
//! (the session for a detached socket, the exit code for a command) and publishes it as the stream's [`Fate`]; a reader
//! that meets the end of file asks for the fate before it calls it a fin. It waits for it only where the plugin may be
//! dying. One that still holds its socket lives, and so does one whose process is not on its way out: if that wanted more
//! than a fin, it has said so on the session before (docs/decisions/0012).
//!
//! Refuses to know: tickets, commands, who owns the other end.

use std::{
    io::{self, IoSlice},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use p2pos_plugin_protocol::code::{Code, End};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpStream, UnixStream, tcp, unix, unix::pipe},
    sync::{oneshot, watch},
};

use super::{
    Ended,
    vitality::{self, Vitality},
};
use crate::spawner::Exit;

/// Size of one read, in bytes. A unix socket holds about 200 KiB; at half, bulk costs twice the system calls, at double
/// a thousand idle raw streams would hold twice the memory for nothing.
const READ_BYTES: usize = 256 * 1024;
/// Room that must be left before a read; with less a fresh buffer is taken.
const READ_BYTES_MIN: usize = 64 * 1024;
/// Slices of one vectored write: more gain nothing at 64 KiB each.
const WRITE_SLICES_MAX: usize = 16;
/// How long a socket that was closed whole by a dying process waits for the news, which its session brings: the session's
/// socket is closed in the same breath. Longer would only matter to a daemon that does not come round for a second.
const DYING_FATE_WITHIN: Duration = Duration::from_secs(1);
/// The same where nobody can say whether the process lives: on TCP, whose ends have no process, and without a readable
/// /proc. At 100 ms every short detached stream lasted so long; at a tenth of this a busy loop might not have come round.
const UNKNOWN_FATE_WITHIN: Duration = Duration::from_millis(2);
/// Turns of the runtime until a word that waits in a session's socket has become a fate: the first reads it, the second tells
/// the minder; twice as many, in case the runtime takes its tasks in another order some day.
const TURNS_TO_TELL: usize = 4;
/// How long the remote may be silent towards a socket that was closed whole before it is told to stop, and how often a
/// socket whose plugin has finished is looked at. A remote that writes hears of it at once; this gives its own fin a
/// round trip to come, and the plugin the time to say how it ended: stopped earlier, an orderly end would look like a
/// reset to a remote far away. Longer only keeps the stream's place.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// How long a command that closed its output may take to exit, so that its exit code can speak. A command that closes
/// its output and goes on reading has its fin delayed by this.
const COMMAND_FATE_WITHIN: Duration = Duration::from_secs(1);

/// What the minder has found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The plugin ended the stream, or is gone.
    Ended(End),
    /// The command exited.
    Exited(Exit),
}

impl Fate {
    /// Whether the bytes that came are all there were to come.
    fn judge(self) -> Result<(), End> {
        match self {
            Self::Ended(end) => Err(end),
            Self::Exited(Exit::Code(0)) => Ok(()),
            Self::Exited(Exit::Code(code)) => Err(End::app(code.unsigned_abs())),
            // As shells have it.
            Self::Exited(Exit::Signal(signal)) => Err(End::app(128 + signal.unsigned_abs())),
            Self::Exited(Exit::Unseen) => Err(End::new(Code::PLUGIN_GONE)),
        }
    }
}

/// What carries the bytes.
#[derive(Debug)]
pub(crate) enum RawIo {
    Unix(UnixStream),
    Tcp(TcpStream),
    /// Output and input of a command.
    Pipes(pipe::Receiver, pipe::Sender),
}

/// A raw stream before it is split among reader, writer and closer.
#[derive(Debug)]
pub(crate) struct RawEnd {
    pub(crate) io: RawIo,
    /// Bytes that were read together with the ticket.
    pub(crate) leftover: BytesMut,
    pub(crate) fate: watch::Receiver<Option<Fate>>,
    /// The minder waits for this.
    pub(crate) closed: oneshot::Sender<Closed>,
}

/// What the minder is told at the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closed {
    pub(crate) ended: Ended,
    /// Bytes that the plugin received.
    pub(crate) bytes_in: u64,
    /// Bytes that the plugin sent.
    pub(crate) bytes_out: u64,
}

#[derive(Debug, Default)]
struct Counters {
    read: AtomicU64,
    written: AtomicU64,
}

impl RawEnd {
    pub(super) fn split(self) -> (RawReader, RawWriter, Closing) {
        let counters = Arc::<Counters>::default();
        let (read, write) = match self.io {
            RawIo::Unix(socket) => {
                let (read, write) = socket.into_split();
                (ReadIo::Unix(read), WriteIo::Unix(write))
            }
            RawIo::Tcp(socket) => {
                let (read, write) = socket.into_split();
                (ReadIo::Tcp(read), WriteIo::Tcp(write))
            }
            RawIo::Pipes(output, input) => (ReadIo::Pipe(output), WriteIo::Pipe(input)),
        };
        let reader = RawReader {
            io: Some(read),
            buffer: self.leftover,
            fate: self.fate.clone(),
            counters: counters.clone(),
        };
        let writer = RawWriter { io: Some(write), fate: self.fate, counters: counters.clone() };
        (reader, writer, Closing { closed: self.closed, counters })
    }
}

/// Resolves once the plugin has ended the stream; a command's exit does not count, its output may still be read.
async fn cut(fate: &mut watch::Receiver<Option<Fate>>) -> End {
    let ended = match fate.wait_for(|fate| matches!(fate, Some(Fate::Ended(_)))).await.as_deref() {
        Ok(Some(Fate::Ended(end))) => Some(*end),
        Ok(Some(Fate::Exited(_)) | None) | Err(_) => None,
    };
    match ended {
        Some(end) => end,
        // The minder left without a verdict: it has heard from the closer, so nobody asks any more.
        None => std::future::pending().await,
    }
}

#[derive(Debug)]
enum ReadIo {
    Unix(unix::OwnedReadHalf),
    Tcp(tcp::OwnedReadHalf),
    Pipe(pipe::Receiver),
}

impl ReadIo {
    /// Cancel-safe.
    async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.read_buf(buffer).await,
            Self::Tcp(socket) => socket.read_buf(buffer).await,
            Self::Pipe(pipe) => pipe.read_buf(buffer).await,
        }
    }

    /// How long the end of file must wait for the stream's fate; `None`: not at all, the plugin lives.
    async fn fate_within(&self) -> Option<Duration> {
        match self {
            // A plugin that only finished its own half still holds the socket, so it lives.
            Self::Unix(socket) => match socket.ready(Interest::READABLE | Interest::WRITABLE).await {
                Ok(ready) if !ready.is_write_closed() => None,
                Ok(_) | Err(_) => match vitality::of_peer(socket.as_ref()) {
                    Vitality::Alive => None,
                    Vitality::Dying => Some(DYING_FATE_WITHIN),
                    Vitality::Unknown => Some(UNKNOWN_FATE_WITHIN),
                },
            },
            Self::Tcp(_) => Some(UNKNOWN_FATE_WITHIN),
            Self::Pipe(_) => Some(COMMAND_FATE_WITHIN),
        }
    }
}

/// Bytes from the plugin.
#[derive(Debug)]
pub(super) struct RawReader {
    /// `None` after the end.
    io: Option<ReadIo>,
    buffer: BytesMut,
    fate: watch::Receiver<Option<Fate>>,
    counters: Arc<Counters>,
}

impl RawReader {
    pub(super) async fn read_chunks(&mut self, chunks: &mut [Bytes]) -> Result<Option<usize>, End> {
        let Some(io) = &mut self.io else { return Ok(None) };
        let Some(first) = chunks.first_mut() else { return Ok(Some(0)) };
        if self.buffer.is_empty() {
            if self.buffer.capacity() < READ_BYTES_MIN {
                self.buffer.reserve(READ_BYTES);
            }
            let read = tokio::select! {
                biased;
                end = cut(&mut self.fate) => Err(end),
                read = io.read(&mut self.buffer) => Ok(read),
            };
            match read {
                Err(end) => {
                    self.io = None;
                    return Err(end);
                }
                Ok(Ok(0)) => return self.judge_end().await,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return self.judge_failure(&error).await,
            }
        }
        *first = self.buffer.split().freeze();
        self.counters.read.fetch_add(first.len() as u64, Ordering::Relaxed);
        Ok(Some(1))
    }

    /// The end of file came: finds out what it means.
    async fn judge_end(&mut self) -> Result<Option<usize>, End> {
        let Some(io) = &self.io else { return Ok(None) };
        let fate = match io.fate_within().await {
            None => self.fate_told_before().await,
            Some(patience) => {
                let told = tokio::time::timeout(patience, self.fate.wait_for(Option::is_some)).await;
                told.ok().and_then(|fate| fate.ok().and_then(|fate| *fate))
            }
        };
        self.io = None;
        fate.map_or(Ok(()), Fate::judge).map(|()| None)
    }

    /// What a living plugin has said before it closed: its word lies in the session's socket already, and must only be read
    /// and told. No timer, however short: the runtime's are rounded up to a millisecond.
    async fn fate_told_before(&self) -> Option<Fate> {
        for _ in 0..TURNS_TO_TELL {
            if self.fate.borrow().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        *self.fate.borrow()
    }

    async fn judge_failure(&mut self, error: &io::Error) -> Result<Option<usize>, End> {
        tracing::debug!(%error, "a raw stream cannot be read");
        self.judge_end().await?;
        Err(End::new(Code::PLUGIN_GONE))
    }

    /// Resolves when the plugin ended the stream. Cancel-safe.
    pub(super) async fn lost(&mut self) -> End {
        cut(&mut self.fate).await
    }

    /// Closes our reading end: a writing plugin gets a broken pipe.
    pub(super) fn stop(&mut self) {
        self.io = None;
    }
}

#[derive(Debug)]
enum WriteIo {
    Unix(unix::OwnedWriteHalf),
    Tcp(tcp::OwnedWriteHalf),
    Pipe(pipe::Sender),
}

impl WriteIo {
    /// Cancel-safe.
    async fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.write_vectored(slices).await,
            Self::Tcp(socket) => socket.write_vectored(slices).await,
            Self::Pipe(pipe) => pipe.write_vectored(slices).await,
        }
    }

    /// Half-closes a socket; a pipe is closed by dropping it.
    async fn shut_down(&mut self) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.shutdown().await,
            Self::Tcp(socket) => socket.shutdown().await,
            Self::Pipe(pipe) => pipe.shutdown().await,
        }
    }

    /// Resolves when the kernel says that nobody reads. Of TCP it says so only after a write: until then a whole close
    /// looks like half a one. Cancel-safe.
    async fn broken(&self) {
        let watched = match self {
            Self::Unix(socket) => unread(socket).await,
            Self::Tcp(socket) => socket.ready(Interest::ERROR).await.map(drop),
            Self::Pipe(pipe) => pipe.ready(Interest::ERROR).await.map(drop),
        };
        if let Err(error) = watched {
            tracing::debug!(%error, "a raw stream cannot be watched");
        }
    }
}

/// Resolves when the plugin has closed the socket whole, which is no error to the kernel (EPOLLHUP), or it broke.
///
/// No interest of tokio's means the whole close alone. Waiting to write would return at once; priority is the one interest
/// that wakes at a close and at nothing else here, but at half a close, too, and then always: from there on the socket is
/// looked at by the clock.
async fn unread(socket: &unix::OwnedWriteHalf) -> io::Result<()> {
    loop {
        socket.ready(Interest::PRIORITY | Interest::ERROR).await?;
        // At once: end of file counts as readable.
        let is_whole = socket.ready(Interest::READABLE | Interest::WRITABLE).await?.is_write_closed();
        match tokio::time::timeout(SILENCE_MAX, socket.ready(Interest::ERROR)).await {
            Ok(broken) => return broken.map(drop),
            Err(_) if is_whole => return Ok(()),
            Err(_) => {}
        }
    }
}

/// Bytes to the plugin.
#[derive(Debug)]
pub(super) struct RawWriter {
    /// `None` after the end.
    io: Option<WriteIo>,
    fate: watch::Receiver<Option<Fate>>,
    counters: Arc<Counters>,
}

impl RawWriter {
    pub(super) async fn write_chunks(&mut self, chunks: &mut [Bytes]) -> Result<(), End> {
        let mut first = 0;
        loop {
            while chunks.get(first).is_some_and(Bytes::is_empty) {
                first += 1;
            }
            if first == chunks.len() {
                return Ok(());
            }
            let Some(io) = &mut self.io else { return Err(End::new(Code::CANCELLED)) };
            let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
            let mut count = 0;
            for (slice, chunk) in slices.iter_mut().zip(&chunks[first..]) {
                *slice = IoSlice::new(chunk);
                count += 1;
            }
            let written = tokio::select! {
                biased;
                end = cut(&mut self.fate) => Err(end),
                written = io.write(&slices[..count]) => Ok(written),
            };
            match written {
                Ok(Ok(written)) => {
                    self.counters.written.fetch_add(written as u64, Ordering::Relaxed);
                    take(&mut chunks[first..], written);
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a raw stream takes no more bytes");
                    self.io = None;
                    return Err(self.why_stopped());
                }
                Err(end) => {
                    self.io = None;
                    return Err(end);
                }
            }
        }
    }

    pub(super) async fn finish(&mut self) -> Result<(), End> {
        if let Some(io) = &mut self.io
            && let Err(error) = io.shut_down().await
        {
            tracing::debug!(%error, "a raw stream was closed before we finished it");
        }
        self.io = None;
        match *self.fate.borrow() {
            Some(Fate::Ended(end)) => Err(end),
            Some(Fate::Exited(_)) | None => Ok(()),
        }
    }

    pub(super) fn drop_socket(&mut self) {
        self.io = None;
    }

    pub(super) async fn stopped(&mut self) -> End {
        let Some(io) = &self.io else { return cut(&mut self.fate).await };
        tokio::select! {
            end = cut(&mut self.fate) => end,
            () = io.broken() => self.why_stopped(),
        }
    }

    /// Closed by the plugin without a word: "I read no more", app code 0.
    fn why_stopped(&self) -> End {
        match *self.fate.borrow() {
            Some(Fate::Ended(end)) => end,
            Some(Fate::Exited(_)) | None => End::app(0),
        }
    }
}

fn take(chunks: &mut [Bytes], mut bytes: usize) {
    for chunk in chunks {
        let taken = chunk.len().min(bytes);
        chunk.advance(taken);
        bytes -= taken;
        if bytes == 0 {
            return;
        }
    }
}

/// What the closer holds.
#[derive(Debug)]
pub(super) struct Closing {
    closed: oneshot::Sender<Closed>,
    counters: Arc<Counters>,
}

impl Closing {
    pub(super) fn close(self, ended: Ended) {
        let closed = Closed {
            ended,
            bytes_in: self.counters.written.load(Ordering::Relaxed),
            bytes_out: self.counters.read.load(Ordering::Relaxed),
        };
        if self.closed.send(closed).is_err() {
            // The minder is gone: so is the plugin.
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Minder = (watch::Sender<Option<Fate>>, oneshot::Receiver<Closed>);

    fn pair() -> (RawReader, RawWriter, Closing, UnixStream, Minder) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (tell, fate) = watch::channel(None);
        let (closed, is_closed) = oneshot::channel();
        let end = RawEnd { io: RawIo::Unix(ours), leftover: BytesMut::from("early "), fate, closed };
        let (reader, writer, closing) = end.split();
        (reader, writer, closing, theirs, (tell, is_closed))
    }

    async fn read_all(reader: &mut RawReader) -> (Vec<u8>, Result<(), End>) {
        let mut all = Vec::new();
        let mut chunks = [Bytes::new()];
        loop {
            match reader.read_chunks(&mut chunks).await {
                Ok(Some(_)) => all.extend_from_slice(&chunks[0]),
                Ok(None) => return (all, Ok(())),
                Err(end) => return (all, Err(end)),
            }
        }
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_and_half_close_is_kept() {
        let (mut reader, mut writer, closing, mut theirs, (_tell, is_closed)) = pair();
        theirs.write_all(b"hello").await.unwrap();
        theirs.shutdown().await.unwrap();
        assert_eq!(read_all(&mut reader).await, (b"early hello".to_vec(), Ok(())));
        let mut chunks = [Bytes::from_static(b"good"), Bytes::new(), Bytes::from_static(b"bye")];
        writer.write_chunks(&mut chunks).await.unwrap();
        writer.finish().await.unwrap();
        let mut answer = Vec::new();
        theirs.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"goodbye");
        closing.close(Ended::Finished);
        let closed = is_closed.await.unwrap();
        assert_eq!((closed.bytes_in, closed.bytes_out), (7, 11));
    }

    #[tokio::test]
    async fn a_killed_plugin_does_not_look_finished() {
        let (mut reader, _writer, _closing, theirs, (tell, _is_closed)) = pair();
        drop(theirs);
        tokio::spawn(async move {
            tell.send(Some(Fate::Ended(End::new(Code::PLUGIN_GONE)))).unwrap();
            std::future::pending::<()>().await;
        });
        let (_, ended) = read_all(&mut reader).await;
        assert_eq!(ended, Err(End::new(Code::PLUGIN_GONE)));
    }

    #[tokio::test]
    async fn an_exit_code_other_than_zero_resets_with_it() {
        for (exit, wanted) in [
            (Exit::Code(0), Ok(())),
            (Exit::Code(3), Err(End::app(3))),
            (Exit::Signal(9), Err(End::app(137))),
        ] {
            let (mut reader, _writer, _closing, theirs, (tell, _is_closed)) = pair();
            tell.send(Some(Fate::Exited(exit))).unwrap();
            drop(theirs);
            let (bytes, ended) = read_all(&mut reader).await;
            assert_eq!((bytes.as_slice(), ended), (b"early ".as_slice(), wanted));
        }
    }

    #[tokio::test]
    async fn a_plugin_that_closed_its_socket_stops_the_writer() {
        let (_reader, mut writer, _closing, theirs, _minder) = pair();
        drop(theirs);
        let mut ended = Ok(());
        for _ in 0..3 {
            ended = writer.write_chunks(&mut [Bytes::from_static(b"x")]).await;
        }
        assert!(ended.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_plugin_that_closed_its_socket_is_noticed_while_the_remote_is_silent() {
        let (_reader, mut writer, _closing, theirs, _minder) = pair();
        drop(theirs);
        let start = tokio::time::Instant::now();
        assert_eq!(writer.stopped().await, End::app(0));
        assert_eq!(start.elapsed().as_secs(), SILENCE_MAX.as_secs(), "the remote's fin has its time");
    }

    #[tokio::test(start_paused = true)]
    async fn a_plugin_that_only_finished_goes_on_reading_until_it_closes() {
        let (_reader, mut writer, _closing, mut theirs, _minder) = pair();
        theirs.shutdown().await.unwrap();
        let early = tokio::time::timeout(10 * SILENCE_MAX, writer.stopped()).await;
        assert!(early.is_err(), "it still reads");
        drop(theirs);
        assert_eq!(writer.stopped().await, End::app(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_plugin_that_says_why_after_it_closed_its_socket_is_heard() {
        let (_reader, mut writer, _closing, theirs, (tell, _is_closed)) = pair();
        drop(theirs);
        let telling = async {
            tokio::time::sleep(SILENCE_MAX / 2).await;
            tell.send(Some(Fate::Ended(End::app(7)))).unwrap();
        };
        assert_eq!(tokio::join!(writer.stopped(), telling).0, End::app(7));
    }

    #[tokio::test]
    async fn a_broken_pipe_is_noticed_without_writing() {
        let (output, input) = pipe::pipe().map(|(sender, receiver)| (receiver, sender)).unwrap();
        let (_tell, fate) = watch::channel(None);
        let mut writer = RawWriter { io: Some(WriteIo::Pipe(input)), fate, counters: Arc::default() };
        drop(output);
        assert_eq!(writer.stopped().await, End::app(0));
    }
}
