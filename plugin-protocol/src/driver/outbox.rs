//! What leaves the socket next: many frames, few slices, no copied payload.
//!
//! Heads, tails, small payloads and control frames are gathered in one buffer; large payloads stand between its parts as
//! they came. One `writev` sends up to [`SLICES_MAX`] of these.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use crate::{
    frame,
    message::{Frame, Message, StreamId},
    streams::{Streams, Transmit},
};

/// How many bytes are taken from the streams at a time. Control frames wait behind at most so much: about 100 us.
const BATCH_BYTES: usize = 256 * 1024;

/// Slices per system call: at 64, the cost of the call is below a tenth of its copying; the kernel's own limit is 1,024.
const SLICES_MAX: usize = 64;

/// Payload pieces smaller than this are gathered, in bytes: below it a copy is cheaper than a slice.
const GATHER_BELOW_BYTES: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    segments: VecDeque<Bytes>,
    gathered: BytesMut,
    bytes: usize,
    /// Kept between calls for its memory.
    pieces: Vec<Bytes>,
}

impl Outbox {
    pub(super) const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Takes what waits, control frames first, unless there is plenty already: what the other side does not read must pile
    /// up where it is counted. Returns how many frames the streams gave.
    pub(super) fn fill(&mut self, control: &mut BytesMut, streams: &mut Streams) -> u64 {
        let mut frames = 0;
        if self.bytes < BATCH_BYTES {
            self.take_control(control);
        }
        while self.bytes < BATCH_BYTES
            && let Some(transmit) = streams.poll_transmit(&mut self.pieces)
        {
            frames += 1;
            match transmit {
                Transmit::Data { stream, bytes, fin } => self.put_data(stream, bytes, fin),
                Transmit::Message(message) => {
                    let before = self.gathered.len();
                    Frame { rid: None, message: Message::Stream(message) }.encode(&mut self.gathered);
                    self.bytes += self.gathered.len() - before;
                }
            }
        }
        frames
    }

    /// Writes until the socket is full or nothing is left; tells whether anything moved.
    ///
    /// # Errors
    /// What the socket says.
    pub(super) fn poll_write(
        &mut self,
        mut socket: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.close_gathered();
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slice, segment) in slices.iter_mut().zip(&self.segments) {
            *slice = IoSlice::new(segment);
            count += 1;
        }
        let written = ready!(socket.as_mut().poll_write_vectored(cx, &slices[..count]))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    fn take_control(&mut self, control: &mut BytesMut) {
        self.bytes += control.len();
        if control.len() < GATHER_BELOW_BYTES {
            self.gathered.extend_from_slice(control);
            control.clear();
        } else {
            self.close_gathered();
            self.segments.push_back(control.split().freeze());
        }
    }

    fn put_data(&mut self, stream: StreamId, bytes: usize, fin: bool) {
        let before = self.gathered.len();
        let payload_bytes = u32::try_from(bytes).expect("data_bytes_max is a u32");
        frame::put_data_head(&mut self.gathered, stream, payload_bytes, fin);
        self.bytes += self.gathered.len() - before + bytes;
        let mut pieces = std::mem::take(&mut self.pieces);
        for piece in pieces.drain(..) {
            if piece.len() < GATHER_BELOW_BYTES {
                self.gathered.extend_from_slice(&piece);
            } else {
                self.close_gathered();
                self.segments.push_back(piece);
            }
        }
        self.pieces = pieces;
        let before = self.gathered.len();
        frame::put_data_tail(&mut self.gathered, fin);
        self.bytes += self.gathered.len() - before;
    }

    fn close_gathered(&mut self) {
        if !self.gathered.is_empty() {
            self.segments.push_back(self.gathered.split().freeze());
        }
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(front) = self.segments.front_mut() {
            if written < front.len() {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.segments.pop_front();
        }
    }
}
