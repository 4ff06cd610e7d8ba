//! The two halves of a stream: what each may still do, what waits in it, and the credit that goes with it.
//!
//! The states are those of SPEC.md, "Stream states"; [`super::table`] holds them as rows, and a test walks every row
//! through this file.

use bytes::{Buf as _, Bytes};

use super::{Credit, Payload, SHARE_BYTES_MIN, StreamEnd, queue::ByteQueue};
use crate::{code::End, limits};

/// Pieces smaller than this are copied when written, in bytes: below it a copy costs less than a slice of its own.
const GATHER_BELOW_BYTES: usize = 1024;

/// Where a sending half stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendState {
    /// May be written to.
    Open,
    /// Its writer is done; bytes or the fin still wait to be sent.
    Finishing,
    /// The fin is sent.
    Finished,
    /// The other side reads no more; what waited is dropped.
    Stopped { end: End },
    /// Over.
    Ended(StreamEnd),
}

/// Where a receiving half stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecvState {
    /// May bring more.
    Open,
    /// The fin came; its reader has not got there yet.
    Draining,
    /// Its reader has seen the fin.
    Finished,
    /// Its reader has left and said so; what still comes is dropped.
    Stopped,
    /// Over.
    Ended(StreamEnd),
}

/// The half that we write.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) state: SendState,
    queue: ByteQueue,
    /// What the other side lets us send beyond what is queued; `None`: it gives no credit, the socket is the limit.
    credit: Option<u32>,
    /// A writer waits for room.
    is_awaited: bool,
    /// Payload bytes that went out.
    pub(super) bytes: u64,
}

impl Sender {
    pub(super) fn new(credit: Credit) -> Self {
        Self {
            state: SendState::Open,
            queue: ByteQueue::default(),
            credit: credit.bytes(),
            is_awaited: false,
            bytes: 0,
        }
    }

    pub(super) const fn is_over(&self) -> bool {
        match self.state {
            SendState::Finished | SendState::Stopped { .. } | SendState::Ended(_) => true,
            SendState::Open | SendState::Finishing => false,
        }
    }

    pub(super) const fn is_reset(&self) -> bool {
        matches!(self.state, SendState::Ended(_))
    }

    /// Why it cannot be written to, if it cannot.
    pub(super) const fn closed_by(&self) -> Option<StreamEnd> {
        match self.state {
            SendState::Open => None,
            SendState::Finishing | SendState::Finished => Some(StreamEnd::LOCAL),
            SendState::Stopped { end } => Some(StreamEnd::stopped(end)),
            SendState::Ended(end) => Some(end),
        }
    }

    /// Bytes that may be written now.
    pub(super) fn room(&self) -> usize {
        let space = limits::SEND_BUFFER_BYTES_MAX.saturating_sub(self.queue.len());
        self.credit.map_or(space, |credit| space.min(credit as usize))
    }

    pub(super) const fn credit(&self) -> Option<u32> {
        self.credit
    }

    pub(super) const fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Takes as many bytes off the front of `pieces` as there is room for.
    pub(super) fn write(&mut self, pieces: &mut [Bytes]) -> usize {
        let room = self.room();
        let mut taken = 0;
        for piece in pieces.iter_mut().filter(|piece| !piece.is_empty()) {
            let bytes = piece.len().min(room - taken);
            if bytes == 0 {
                break;
            }
            if bytes < GATHER_BELOW_BYTES {
                self.queue.push_copy(&piece[..bytes]);
                piece.advance(bytes);
            } else {
                self.queue.push(piece.split_to(bytes));
            }
            taken += bytes;
        }
        if let Some(credit) = &mut self.credit {
            *credit -=
                u32::try_from(taken).expect("never more than the room, which is never more than the credit");
        }
        self.is_awaited = taken == 0;
        taken
    }

    /// Adds credit; false if that is more than anybody may have.
    pub(super) fn grant(&mut self, bytes: u32) -> bool {
        let Some(credit) = &mut self.credit else {
            return true;
        };
        match credit.checked_add(bytes) {
            Some(sum) if sum <= limits::CREDIT_BYTES_MAX => {
                *credit = sum;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Tells, once, whether a waiting writer should look again.
    pub(super) fn is_due(&mut self) -> bool {
        let is_due = self.is_awaited && (self.room() > 0 || self.state != SendState::Open);
        self.is_awaited &= !is_due;
        is_due
    }

    pub(super) const fn has_something_to_send(&self) -> bool {
        match self.state {
            SendState::Open => !self.queue.is_empty(),
            SendState::Finishing => true,
            SendState::Finished | SendState::Stopped { .. } | SendState::Ended(_) => false,
        }
    }

    /// Takes the next Data frame's payload, at most `bytes_max` bytes; tells its length and whether it is the last.
    pub(super) fn take(&mut self, bytes_max: usize, payload: &mut Vec<Bytes>) -> (usize, bool) {
        let mut bytes = 0;
        while bytes < bytes_max
            && let Some(piece) = self.queue.pop(bytes_max - bytes)
        {
            bytes += piece.len();
            payload.push(piece);
        }
        self.bytes += bytes as u64;
        let fin = self.queue.is_empty() && self.state == SendState::Finishing;
        if fin {
            self.state = SendState::Finished;
        }
        (bytes, fin)
    }

    pub(super) fn stop(&mut self, end: End) {
        if matches!(self.state, SendState::Open | SendState::Finishing) {
            self.queue.clear();
            self.state = SendState::Stopped { end };
        }
    }

    pub(super) fn end(&mut self, end: StreamEnd) {
        self.queue.clear();
        if !self.is_over() {
            self.state = SendState::Ended(end);
        }
    }
}

/// The half that we read.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) state: RecvState,
    queue: ByteQueue,
    /// What the other side may still send; `None`: we give no credit, so anything goes.
    allowance: Option<u32>,
    /// What may be on its way at most.
    window: u32,
    /// Consumed, but not yet told.
    untold: u32,
    /// A reader waits for bytes.
    is_awaited: bool,
    /// Payload bytes that came in.
    pub(super) bytes: u64,
}

/// What came of a Data frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    Taken,
    /// More than the credit allows.
    Overrun,
    /// After the sender's own fin.
    AfterFin,
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// The next bytes.
    Bytes(Bytes),
    /// The sender writes no more, and all that it wrote was read.
    Fin,
    /// Nothing now; an event will tell.
    Blocked,
    /// It ended otherwise.
    Ended(StreamEnd),
}

impl Receiver {
    pub(super) fn new(credit: Credit) -> Self {
        Self {
            state: RecvState::Open,
            queue: ByteQueue::default(),
            allowance: credit.bytes(),
            window: credit.bytes().unwrap_or(0),
            untold: 0,
            is_awaited: false,
            bytes: 0,
        }
    }

    /// Whether nothing more will come.
    pub(super) fn has_come(&self) -> bool {
        self.state != RecvState::Open
    }

    pub(super) const fn is_over(&self) -> bool {
        match self.state {
            RecvState::Finished | RecvState::Stopped | RecvState::Ended(_) => true,
            RecvState::Open | RecvState::Draining => false,
        }
    }

    pub(super) const fn is_reset(&self) -> bool {
        matches!(self.state, RecvState::Ended(_))
    }

    /// Why it ended, if not by a fin.
    pub(super) const fn lost(&self) -> Option<StreamEnd> {
        match self.state {
            RecvState::Ended(end) => Some(end),
            RecvState::Open | RecvState::Draining | RecvState::Finished | RecvState::Stopped => None,
        }
    }

    pub(super) const fn allowance(&self) -> Option<u32> {
        self.allowance
    }

    pub(super) fn arrive(&mut self, payload: Payload<'_>, fin: bool) -> Arrival {
        match self.state {
            RecvState::Open => {}
            RecvState::Draining | RecvState::Finished => return Arrival::AfterFin,
            // It crossed our StopSending on its way.
            RecvState::Stopped | RecvState::Ended(_) => return Arrival::Taken,
        }
        let bytes = payload.len();
        if let Some(allowance) = &mut self.allowance {
            match u32::try_from(bytes).ok().and_then(|bytes| allowance.checked_sub(bytes)) {
                Some(left) => *allowance = left,
                None => return Arrival::Overrun,
            }
        }
        self.bytes += bytes as u64;
        match payload {
            _ if bytes == 0 => {}
            Payload::Shared(payload) if bytes >= SHARE_BYTES_MIN => self.queue.push(payload),
            Payload::Shared(payload) => self.queue.push_copy(&payload),
            Payload::Slice(payload) => self.queue.push_copy(payload),
        }
        if fin {
            self.state = RecvState::Draining;
        }
        Arrival::Taken
    }

    pub(super) const fn has_bytes(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn read(&mut self) -> Read {
        if let Some(bytes) = self.queue.pop(usize::MAX) {
            return Read::Bytes(bytes);
        }
        match self.state {
            RecvState::Open => {
                self.is_awaited = true;
                Read::Blocked
            }
            RecvState::Draining => {
                self.state = RecvState::Finished;
                Read::Fin
            }
            RecvState::Finished => Read::Fin,
            RecvState::Stopped => Read::Ended(StreamEnd::LOCAL),
            RecvState::Ended(end) => Read::Ended(end),
        }
    }

    /// Tells, once, whether a waiting reader should look again.
    pub(super) fn is_due(&mut self) -> bool {
        let is_due = self.is_awaited && (!self.queue.is_empty() || self.state != RecvState::Open);
        self.is_awaited &= !is_due;
        is_due
    }

    /// Notes that the application is done with `bytes`; tells whether it is time to say so. Half a window is enough to
    /// keep the sender going, and rare enough to cost nothing.
    pub(super) fn consume(&mut self, bytes: usize) -> bool {
        let unused =
            self.window.saturating_sub(self.allowance.unwrap_or(self.window)).saturating_sub(self.untold);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(unused);
        self.untold += bytes;
        self.owes_credit()
    }

    pub(super) fn owes_credit(&self) -> bool {
        self.state == RecvState::Open && self.untold > 0 && self.untold >= self.window / 2
    }

    /// Gives out the credit that is owed.
    pub(super) fn take_credit(&mut self) -> Option<u32> {
        if !self.owes_credit() {
            return None;
        }
        let bytes = std::mem::take(&mut self.untold);
        self.allowance = self.allowance.map(|allowance| allowance + bytes);
        Some(bytes)
    }

    /// The reader leaves; tells whether the other side has to know.
    pub(super) fn stop(&mut self) -> bool {
        self.queue.clear();
        match self.state {
            RecvState::Open => {
                self.state = RecvState::Stopped;
                true
            }
            RecvState::Draining => {
                self.state = RecvState::Finished;
                false
            }
            RecvState::Finished | RecvState::Stopped | RecvState::Ended(_) => false,
        }
    }

    /// Ends at once. What a reader has not got yet is lost.
    pub(super) fn end(&mut self, end: StreamEnd) {
        self.queue.clear();
        if !self.is_over() {
            self.state = RecvState::Ended(end);
        }
    }

    /// Ends, unless the fin has come: who sent it has said all that there is to say, so that stays readable.
    pub(super) fn end_unfinished(&mut self, end: StreamEnd) {
        if self.state != RecvState::Draining {
            self.end(end);
        }
    }
}
