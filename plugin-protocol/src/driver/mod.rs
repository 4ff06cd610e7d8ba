//! One session over one socket: a task that owns the socket and the machines, and handles that reach it.
//!
//! ```text
//!   SendHalf, RecvHalf, Flow, Session, Inbox          (any task)
//!        |  put bytes in, take bytes out: one lock, nanoseconds
//!   Core: stream machine, control queue, inbox
//!        |  all frames of a read in one run; many frames per writev
//!   Task: the socket                                  (one task per session)
//! ```
//!
//! Both the daemon's host and the Rust SDK use it; [`Settings::role`] tells which rules differ. Everything that is mere
//! bookkeeping (credit, pings, unknown messages, bad requests, StreamClosed) is answered here; the rest arrives in the
//! [`Inbox`]. However a session ends, every pending request and every half gets a coded end, and nothing hangs.
//!
//! Refuses to know: what a request means, who may ask, and where the socket came from.

mod core;
mod greet;
mod halves;
mod outbox;
mod request;
mod task;

#[cfg(test)]
mod tests;

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    code::{Code, End},
    limits::{self, Limits},
    message::{Body, Hello, Rid, Role, StreamClosed, StreamId, Welcome},
    streams::{Config, Credit, OpenError, Sort},
};

pub use greet::{CallFailure, GreetError, attach, call, greet};
pub use halves::{Closed, Detached, Flow, RecvHalf, SendHalf};
pub use request::{Answer, RequestError};

use self::core::Shared;

/// What was agreed in the handshake.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Who we are.
    pub role: Role,
    /// Largest frame body in bytes that we take.
    pub frame_bytes_max: u32,
    /// Largest frame body in bytes that the other side takes.
    pub peer_frame_bytes_max: u32,
    /// Largest payload in bytes of one Data frame.
    pub data_bytes_max: u32,
    /// What we may send per stream.
    pub send: Credit,
    /// What the other side may send per stream.
    pub recv: Credit,
    /// Streams at once.
    pub streams_max: u32,
    /// Unanswered requests at once, each way.
    pub requests_max: u32,
}

impl Settings {
    /// For the daemon's side: what it promised in `limits`, and what the plugin said in its `hello`.
    #[must_use]
    pub fn daemon(limits: &Limits, hello: &Hello) -> Self {
        let send = match hello.auto_window {
            true => Credit::Auto,
            false => Credit::Counted(hello.stream_window_bytes),
        };
        Self {
            role: Role::Daemon,
            frame_bytes_max: limits.frame_bytes_max,
            peer_frame_bytes_max: hello.frame_bytes_max,
            data_bytes_max: limits.data_bytes_max.min(data_bytes_fitting(hello.frame_bytes_max)),
            send,
            recv: Credit::Counted(limits.stream_window_bytes),
            streams_max: limits.streams_max,
            requests_max: limits.requests_max,
        }
    }

    /// For the plugin's side: what it said in `hello`, and what the daemon told in `welcome`.
    #[must_use]
    pub fn plugin(hello: &Hello, welcome: &Welcome) -> Self {
        let limits = &welcome.limits;
        let recv = match hello.auto_window {
            true => Credit::Auto,
            false => Credit::Counted(hello.stream_window_bytes),
        };
        Self {
            role: Role::Plugin,
            frame_bytes_max: hello.frame_bytes_max,
            peer_frame_bytes_max: limits.frame_bytes_max,
            data_bytes_max: limits.data_bytes_max.min(data_bytes_fitting(limits.frame_bytes_max)),
            send: Credit::Counted(limits.stream_window_bytes),
            recv,
            streams_max: limits.streams_max,
            requests_max: limits.requests_max,
        }
    }

    const fn streams(&self) -> Config {
        Config {
            role: self.role,
            data_bytes_max: self.data_bytes_max,
            streams_max: self.streams_max,
            send: self.send,
            recv: self.recv,
        }
    }
}

/// Payload that fits a frame of `frame_bytes_max`, with its head and tail.
fn data_bytes_fitting(frame_bytes_max: u32) -> u32 {
    const AROUND: u32 = 64;
    frame_bytes_max.saturating_sub(AROUND).max(AROUND)
}

/// Counts what passed through a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionStats {
    /// Bytes read from the socket.
    pub bytes_in: u64,
    /// Bytes written to it.
    pub bytes_out: u64,
    /// Frames taken.
    pub frames_in: u64,
    /// Stream frames given.
    pub frames_out: u64,
    /// Frames of messages that this version does not know.
    pub unknown_frames: u64,
    /// Notes that did not fit into the inbox.
    pub notifications_dropped: u64,
    /// Datagrams that did not fit into their queue, both ways.
    pub datagrams_dropped: u64,
    /// Streams, flows and detached streams that are not over.
    pub streams: u32,
    /// Bytes that wait for the socket and are no Data; at [`limits::CONTROL_QUEUE_BYTES_MAX`] the session closes.
    pub control_bytes_waiting: usize,
}

/// Starts a session on a socket whose handshake is done. `leftover` is what was read beyond the handshake.
///
/// The session lives as long as its [`Inbox`]: dropping that closes it with 105 SHUTTING_DOWN.
///
/// # Panics
/// Outside a tokio runtime with time and IO.
pub fn spawn<R, W>(read: R, write: W, leftover: BytesMut, settings: Settings) -> (Session, Inbox)
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let shared = Arc::new(Shared::new(settings));
    let session = Session { shared: Arc::clone(&shared) };
    let inbox = Inbox { session: session.clone() };
    // The task ends by itself with the session; nobody needs to wait for it.
    drop(tokio::spawn(task::Task::new(shared, read, write, leftover).run()));
    (session, inbox)
}

/// A handle to one session. Cheap to clone; works from any task.
#[derive(Clone, Debug)]
pub struct Session {
    shared: Arc<Shared>,
}

/// A stream that we opened, before its answer.
#[derive(Debug)]
pub struct OpeningStream {
    /// Its id.
    pub id: StreamId,
    /// May be written to at once.
    pub send: SendHalf,
    /// Brings the other side's bytes.
    pub recv: RecvHalf,
    /// What the other side says to the request.
    pub answer: Answer,
}

/// A flow that we opened, before its answer.
#[derive(Debug)]
pub struct OpeningFlow {
    /// Its id.
    pub id: StreamId,
    /// May be used at once.
    pub flow: Flow,
    /// What the other side says to the request.
    pub answer: Answer,
}

/// A detached stream that we opened, before its answer.
#[derive(Debug)]
pub struct OpeningDetached {
    /// Its id.
    pub id: StreamId,
    /// Its opening and its end; the bytes go another way.
    pub detached: Detached,
    /// What the other side says to the request.
    pub answer: Answer,
}

impl Session {
    /// Asks something. The frame is queued at once; the answer is a future. Dropping that gives the request up.
    pub fn request(&self, body: Body) -> Answer {
        let rid = self.shared.lock().ask(body, None);
        Answer::new(Arc::clone(&self.shared), rid)
    }

    /// Answers a request of the other side's. Answering an Open by Error, or an Incoming by Reject or Error, drops its
    /// stream. An answer to what was never asked, or was answered before, goes nowhere.
    pub fn reply(&self, rid: Rid, body: Body) {
        self.shared.lock().reply(rid, body);
    }

    /// Tells something that needs no answer.
    pub fn notify(&self, body: Body) {
        self.shared.lock().notify(body);
    }

    /// Tells something that may be left out: false, and nothing was queued, if half of
    /// [`limits::CONTROL_QUEUE_BYTES_MAX`] waits already. For those who can speak faster than the other side reads.
    pub fn try_notify(&self, body: Body) -> bool {
        let mut core = self.shared.lock();
        let is_fitting = core.control_bytes_waiting() < limits::CONTROL_QUEUE_BYTES_MAX / 2;
        if is_fitting {
            core.notify(body);
        }
        is_fitting
    }

    /// Opens a stream: `make` gets the id that was chosen and writes the request (Open, Incoming) that tells it.
    ///
    /// # Errors
    /// Too many streams or requests, or the session is over.
    pub fn open_stream(&self, make: impl FnOnce(StreamId) -> Body) -> Result<OpeningStream, RequestError> {
        let (id, answer) = self.open(Sort::Stream, make)?;
        let (send, recv) = halves::halves(&self.shared, id);
        Ok(OpeningStream { id, send, recv, answer })
    }

    /// Opens a datagram flow, as [`Session::open_stream`].
    ///
    /// # Errors
    /// As [`Session::open_stream`].
    pub fn open_flow(&self, make: impl FnOnce(StreamId) -> Body) -> Result<OpeningFlow, RequestError> {
        let (id, answer) = self.open(Sort::Flow, make)?;
        Ok(OpeningFlow { id, flow: Flow::new(&self.shared, id), answer })
    }

    /// Opens a detached stream, as [`Session::open_stream`].
    ///
    /// # Errors
    /// As [`Session::open_stream`].
    pub fn open_detached(
        &self,
        make: impl FnOnce(StreamId) -> Body,
    ) -> Result<OpeningDetached, RequestError> {
        let (id, answer) = self.open(Sort::Detached, make)?;
        Ok(OpeningDetached { id, detached: Detached::new(&self.shared, id), answer })
    }

    /// Id and frame go out under one lock, so that ids reach the other side in order.
    fn open(
        &self,
        sort: Sort,
        make: impl FnOnce(StreamId) -> Body,
    ) -> Result<(StreamId, Answer), RequestError> {
        let mut core = self.shared.lock();
        if let Some(end) = core.end() {
            return Err(RequestError::Ended(end));
        }
        let id = core.streams.open(sort).map_err(|error| match error {
            OpenError::Limit { .. } => RequestError::refused(Code::STREAM_LIMIT, error.to_string()),
            OpenError::Exhausted => RequestError::refused(Code::LIMIT, error.to_string()),
        })?;
        match core.ask(make(id), Some(id)) {
            Ok(rid) => {
                drop(core);
                Ok((id, Answer::new(Arc::clone(&self.shared), Ok(rid))))
            }
            Err(error) => {
                core.streams.abandon(id, End::new(Code::LIMIT));
                for _ in 0..2 {
                    core.streams.release(id);
                }
                Err(error)
            }
        }
    }

    /// Takes the halves of a stream that the other side opened; `None` if it is taken, refused or no stream, and for the
    /// daemon also if it is over already. The stream has been there since its request was read: bytes may already wait in it.
    #[must_use]
    pub fn adopt_stream(&self, id: StreamId) -> Option<(SendHalf, RecvHalf)> {
        self.adopt(id, Sort::Stream).then(|| halves::halves(&self.shared, id))
    }

    /// Takes a flow that the other side opened, as [`Session::adopt_stream`].
    #[must_use]
    pub fn adopt_flow(&self, id: StreamId) -> Option<Flow> {
        self.adopt(id, Sort::Flow).then(|| Flow::new(&self.shared, id))
    }

    /// Takes a detached stream that the other side opened, as [`Session::adopt_stream`].
    #[must_use]
    pub fn adopt_detached(&self, id: StreamId) -> Option<Detached> {
        self.adopt(id, Sort::Detached).then(|| Detached::new(&self.shared, id))
    }

    /// Ends a stream at once, both ways, for those who do not hold its halves. One that is over stays as it is.
    pub fn reset_stream(&self, id: StreamId, end: End) {
        let mut core = self.shared.lock();
        core.streams.reset(id, end);
        core.after_stream_call();
    }

    fn adopt(&self, id: StreamId, sort: Sort) -> bool {
        self.shared.lock().streams.adopt(id, sort)
    }

    /// Ends the session: what is queued still leaves (for at most a second), then a last word with the reason, then the
    /// socket closes. All handles see the end at once. Doing it again changes nothing.
    pub fn close(&self, end: End, reason: &str) {
        self.shared.lock().close(end, reason);
    }

    /// Waits for the end of the session and tells how it ended. Cancel-safe.
    pub async fn ended(&self) -> End {
        let mut ended = self.shared.lock().ended.subscribe();
        let told = ended.wait_for(Option::is_some).await;
        told.ok()
            .and_then(|end| *end)
            .expect("the sender lives as long as this handle, and waits are for an end")
    }

    /// How the session ended; `None` while it lives.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.shared.lock().end()
    }

    /// Why this side ended the session, in words: the rule that the other side broke. Empty if it did not.
    #[must_use]
    pub fn last_word(&self) -> String {
        self.shared.lock().last_word.clone()
    }

    /// What has passed through it so far.
    #[must_use]
    pub fn stats(&self) -> SessionStats {
        let core = self.shared.lock();
        SessionStats {
            datagrams_dropped: core.streams.counters().datagrams_dropped,
            streams: core.streams.live_count(),
            control_bytes_waiting: core.control_bytes_waiting(),
            ..core.stats
        }
    }

    /// What was agreed for it.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.shared.lock().settings
    }
}

/// Something that the other side said and that is for the session's owner.
#[derive(Clone, Debug, PartialEq)]
pub struct Inbound {
    /// If there is one, it wants an answer by [`Session::reply`].
    pub rid: Option<Rid>,
    /// What it said.
    pub body: Body,
}

/// Where the other side's requests and notes arrive. Bounded: what does not fit is refused with 206 LIMIT or, if nobody
/// waits for an answer, dropped and counted.
#[derive(Debug)]
pub struct Inbox {
    session: Session,
}

impl Inbox {
    /// Waits for the next one; `None` once the session is over. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Inbound> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Looks for the next one.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Inbound>> {
        self.session.shared.lock().poll_inbox(cx.waker()).map_or(Poll::Pending, Poll::Ready)
    }

    /// The session that it belongs to.
    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.session
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.session.close(End::new(Code::SHUTTING_DOWN), "the other side has ended");
    }
}

/// What a detached stream's owner tells about its end; for [`Detached::close`].
pub type DetachedEnd = StreamClosed;
