//! The one task of a session: it alone touches the socket.
//!
//! Every turn it reads what is there and takes all whole frames of it in one run, then writes what waits, and repeats
//! while anything moves. Reading never waits for writing: what the other side's words make us say goes into bounded
//! queues. When the session ends with a last word, the task still hands that over, for [`limits::CLOSE_LINGER`] at most.
//! Who is gone while we write to it may have said its last before: that is still read, as long.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    time::{Instant, Sleep},
};

use super::{
    core::{Core, Shared},
    outbox::Outbox,
};
use crate::{
    code::Code,
    frame,
    limits::{self, PREFIX_BYTES},
    message::{Body, ErrorReply, Frame, Message, StreamId, Violation},
    streams::{Payload, SHARE_BYTES_MIN},
};

/// Size of a read buffer in bytes: what a unix socket holds by default, so that one call empties it.
const READ_BUFFER_BYTES: usize = 256 * 1024;

/// With less room than this in bytes a new read buffer is taken, rather than reading in small portions.
const READ_ROOM_BYTES_MIN: usize = 32 * 1024;

pub(super) struct Task<R, W> {
    shared: Arc<Shared>,
    read: R,
    write: W,
    buffer: BytesMut,
    outbox: Outbox,
    phase: Phase,
    /// When a session that ends is over at the latest.
    leave_by: Option<Instant>,
    frame_bytes_max: u32,
    heard: Heard,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// The other side reads no more. What it said before still counts; then it is lost.
    Listening,
    /// The last word is on its way; what still comes in is thrown away.
    Leaving,
    /// It has left, and the other side knows that we write no more.
    Left,
    Over,
}

impl Phase {
    /// Whether what comes in is still taken.
    const fn is_taking(self) -> bool {
        match self {
            Self::Running | Self::Listening => true,
            Self::Leaving | Self::Left | Self::Over => false,
        }
    }
}

/// When the other side was last heard, and when it must be heard again.
struct Heard {
    last: Instant,
    pinged: Option<Instant>,
    alarm: Pin<Box<Sleep>>,
}

impl<R, W> Task<R, W>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    pub(super) fn new(shared: Arc<Shared>, read: R, write: W, leftover: BytesMut) -> Self {
        let frame_bytes_max = shared.lock().settings.frame_bytes_max;
        let last = Instant::now();
        let alarm = Box::pin(tokio::time::sleep_until(last + limits::PING_AFTER));
        Self {
            shared,
            read,
            write,
            buffer: leftover,
            outbox: Outbox::default(),
            phase: Phase::Running,
            leave_by: None,
            frame_bytes_max,
            heard: Heard { last, pinged: None, alarm },
        }
    }

    /// Runs until the session is over and its socket can be closed.
    pub(super) async fn run(mut self) {
        self.take_frames();
        std::future::poll_fn(|cx| self.poll(cx)).await;
        let core = self.shared.lock();
        tracing::debug!(end = ?core.end(), stats = ?core.stats, "session over");
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let has_read = self.poll_read(cx).is_ready();
            let has_written = self.poll_write(cx).is_ready();
            // Whoever talks on and on after the end must not keep us here; the alarm alone would never get its turn.
            if self.leave_by.is_some_and(|by| by <= Instant::now()) {
                self.leave();
            }
            if self.phase == Phase::Over {
                return Poll::Ready(());
            }
            if !has_read && !has_written && self.poll_alarm(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    // ---- In ----

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.phase == Phase::Over {
            return Poll::Pending;
        }
        self.make_room();
        let Poll::Ready(read) = pin!(self.read.read_buf(&mut self.buffer)).poll(cx) else {
            return Poll::Pending;
        };
        match read {
            Ok(bytes) if bytes > 0 => {
                if self.phase.is_taking() {
                    self.heard.last = Instant::now();
                    self.heard.pinged = None;
                    self.shared.lock().stats.bytes_in += bytes as u64;
                    self.take_frames();
                } else {
                    self.buffer.clear();
                }
            }
            Ok(_) => self.lose(None),
            Err(error) => self.lose(Some(&error)),
        }
        Poll::Ready(())
    }

    fn make_room(&mut self) {
        let missing = match self.phase.is_taking() {
            true => frame::missing(&self.buffer, self.frame_bytes_max).unwrap_or(0),
            false => 0,
        };
        let room = self.buffer.capacity() - self.buffer.len();
        if room < missing.max(READ_ROOM_BYTES_MIN) {
            self.buffer.reserve(missing.max(READ_BUFFER_BYTES));
        }
    }

    /// Takes every whole frame that was read, and only then wakes whom they concern.
    fn take_frames(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut core = shared.lock();
        if let Err(violation) = self.take_frames_into(&mut core) {
            tracing::debug!(%violation, "the other side broke a rule");
            core.fail(violation);
        }
        core.check_control_queue();
        core.wake_by_events();
    }

    fn take_frames_into(&mut self, core: &mut Core) -> Result<(), Violation> {
        while core.end().is_none() {
            let length = match frame::measure(&self.buffer, self.frame_bytes_max) {
                Ok(Some(length)) => length,
                Ok(None) => return Ok(()),
                Err(error) => {
                    return Err(Violation {
                        code: error.code(),
                        what: "a frame of a length that cannot be [S-FRAME-2]",
                    });
                }
            };
            core.stats.frames_in += 1;
            let body = &self.buffer[PREFIX_BYTES..PREFIX_BYTES + length];
            let Some((stream, data)) =
                frame::parse_data(body).and_then(|data| Some((StreamId::new(data.stream)?, data)))
            else {
                core.handle_frame(Frame::decode(frame::take_body(&mut self.buffer, length)))?;
                continue;
            };
            if data.payload.len() < SHARE_BYTES_MIN {
                core.streams.handle_data(stream, Payload::Slice(&body[data.payload]), data.fin)?;
                self.buffer.advance(PREFIX_BYTES + length);
            } else {
                let payload = frame::take_body(&mut self.buffer, length).slice(data.payload);
                core.streams.handle_data(stream, Payload::Shared(payload), data.fin)?;
            }
        }
        Ok(())
    }

    /// The socket is gone, or the other side has closed it.
    fn lose(&mut self, error: Option<&io::Error>) {
        tracing::debug!(?error, "the other side is gone");
        let mut core = self.shared.lock();
        let end = core.end_of_loss();
        core.wind_up(end);
        self.phase = Phase::Over;
    }

    // ---- Out ----

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.phase {
            Phase::Running | Phase::Leaving => self.poll_flush(cx),
            Phase::Listening => self.poll_end(cx),
            Phase::Left | Phase::Over => Poll::Pending,
        }
    }

    /// Nothing can be said any more; if the session ends for another reason meanwhile, that is all.
    fn poll_end(&mut self, cx: &Context<'_>) -> Poll<()> {
        let mut core = self.shared.lock();
        core.note_task(cx.waker());
        if core.end().is_none() {
            return Poll::Pending;
        }
        drop(core);
        self.leave();
        Poll::Ready(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.fill(cx);
        let outcome = if self.outbox.is_empty() {
            if self.phase == Phase::Running {
                return Poll::Pending;
            }
            match Pin::new(&mut self.write).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => {
                    self.phase = Phase::Left;
                    Ok(())
                }
                Poll::Ready(Err(error)) => Err(error),
                Poll::Pending => return Poll::Pending,
            }
        } else {
            match self.outbox.poll_write(Pin::new(&mut self.write), cx) {
                Poll::Ready(Ok(bytes)) => {
                    self.shared.lock().stats.bytes_out += bytes as u64;
                    Ok(())
                }
                Poll::Ready(Err(error)) => Err(error),
                Poll::Pending => return Poll::Pending,
            }
        };
        match outcome {
            Ok(()) => {}
            Err(error) if self.phase == Phase::Running => self.listen(&error),
            Err(error) => self.lose(Some(&error)),
        }
        Poll::Ready(())
    }

    /// Writing has failed: the other side is gone, or will be told so by our silence. Reading tells when all is read.
    fn listen(&mut self, error: &io::Error) {
        tracing::debug!(%error, "the other side reads no more");
        self.phase = Phase::Listening;
        self.leave_in(limits::CLOSE_LINGER);
    }

    fn leave_in(&mut self, limit: Duration) {
        let leave_by = Instant::now() + limit;
        self.leave_by = Some(leave_by);
        self.heard.alarm.as_mut().reset(leave_by);
    }

    /// Takes from the queues what goes out next, and notices when the session is to end.
    fn fill(&mut self, cx: &Context<'_>) {
        let mut guard = self.shared.lock();
        let core = &mut *guard;
        core.note_task(cx.waker());
        let frames = self.outbox.fill(&mut core.control, &mut core.streams);
        core.stats.frames_out += frames;
        core.wake_by_events();
        let Some(end) = core.end() else { return };
        if self.outbox.is_empty() {
            core.wind_up(end);
        }
        drop(guard);
        if self.phase == Phase::Running {
            self.phase = Phase::Leaving;
            self.leave_in(limits::CLOSE_LINGER);
            tracing::debug!(%end, "session ends");
        }
    }

    // ---- Time ----

    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        std::task::ready!(self.heard.alarm.as_mut().poll(cx));
        match self.phase {
            Phase::Running => self.ask_for_a_sign(Instant::now()),
            Phase::Listening | Phase::Leaving | Phase::Left | Phase::Over => self.leave(),
        }
        Poll::Ready(())
    }

    /// Nothing more can be handed over.
    fn leave(&mut self) {
        self.phase = Phase::Over;
        let mut core = self.shared.lock();
        let end = core.end().unwrap_or_else(|| core.end_of_loss());
        core.wind_up(end);
    }

    /// Nothing was heard for a while: ask first, and give up only when that is not answered either. So a machine that
    /// has slept finds its sessions alive.
    fn ask_for_a_sign(&mut self, now: Instant) {
        let heard = &mut self.heard;
        let next = match heard.pinged {
            None if now < heard.last + limits::PING_AFTER => heard.last + limits::PING_AFTER,
            None => {
                heard.pinged = Some(now);
                let nonce = u64::try_from((now - heard.last).as_micros()).unwrap_or(u64::MAX);
                let ping = Frame { rid: None, message: Message::Ping(nonce) };
                ping.encode(&mut self.shared.lock().control);
                if self.buffer.is_empty() {
                    // An idle session keeps no read buffer.
                    self.buffer = BytesMut::new();
                }
                now + ANSWER_WITHIN
            }
            Some(pinged) if now < pinged + ANSWER_WITHIN => pinged + ANSWER_WITHIN,
            Some(_) => {
                let mut core = self.shared.lock();
                let reply =
                    ErrorReply::new(Code::TIMEOUT, "nothing was heard for 45 seconds, not even a Pong");
                Frame { rid: None, message: Message::Body(Body::Error(reply)) }.encode(&mut core.control);
                let end = core.end_of_loss();
                core.end_with(end);
                now + limits::CLOSE_LINGER
            }
        };
        heard.alarm.as_mut().reset(next);
    }
}

/// How long a Ping may go without any sign of life.
const ANSWER_WITHIN: Duration = limits::DEAD_AFTER.saturating_sub(limits::PING_AFTER);
