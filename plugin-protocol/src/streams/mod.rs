//! The stream-and-credit machine of one session: who may send what on which stream, and what waits for whom.
//!
//! It is the same machine at both ends of the socket. In: what the application does (`open`, `write`, `read`, `reset`,
//! ...) and what the other side said (`handle`, `handle_data`). Out: what to send (`poll_transmit`), and whom to wake
//! (`poll_event`). Drain both after every call. It keeps the bytes that wait, within the limits, and nothing else: no
//! socket, clock, or task.
//!
//! # Story
//! A stream has two halves. Each half ends by fin, by the reader leaving (StopSending), or with the whole stream
//! (Reset). Bytes need credit: a byte may be queued only if the other side has room for it, so what is queued is always
//! allowed to leave, and a stalled stream stalls its own writer and nobody else. The receiver gives credit back when
//! its application has *consumed* bytes, never merely because they arrived.
//!
//! The daemon has the last word about every stream that came to be: StreamClosed, sent once both halves are over. Until
//! then the stream counts against the limit. A stream that was refused (Error, Reject) never came to be, and is
//! forgotten by [`Streams::abandon`].
//!
//! Sending order: first StopSending, Reset and StreamClosed, then credit, then one Data frame (or datagram) per stream
//! in turn. SPEC.md, "Streams" and "Flow control".

mod flow;
mod half;
mod queue;
mod slot;
pub mod table;
mod terms;
mod wire;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::{
    code::{Code, End},
    message::{Role, StreamClosed, StreamId, StreamMessage, Violation},
};

use flow::Flow;
pub use half::Read;
use half::{Arrival, Receiver, SendState, Sender};
use slot::{Slot, What, handles};
pub use terms::{
    Admission, Config, Counters, Credit, Event, How, OpenError, Payload, Sort, StreamEnd, Transmit,
};
use wire::live;

/// Payloads of at least this many bytes are kept as slices of the read buffer; smaller ones are copied together. With
/// read buffers of 256 KiB, a byte that waits pins at most 8; at half this threshold it would be 16, at double every
/// other bulk frame would be copied.
pub const SHARE_BYTES_MIN: usize = 32 * 1024;

/// All streams of one session.
#[derive(Debug)]
pub struct Streams {
    slots: BTreeMap<StreamId, Slot>,
    book: Book,
}

/// What is kept across all streams, apart from the streams themselves so that both can be held at once.
#[derive(Debug)]
struct Book {
    config: Config,
    /// Highest id that we have opened, 0 at first.
    last_opened_here: u32,
    /// Highest id that the other side has opened, 0 at first.
    last_opened_there: u32,
    /// How many slots are not over.
    live: u32,
    /// Streams with something to send; each stands here once (`Slot::is_ready`).
    ready: VecDeque<StreamId>,
    /// Streams that owe credit; each stands here once (`Slot::is_credit_due`).
    credit_due: VecDeque<StreamId>,
    control: VecDeque<StreamMessage>,
    /// The session is ending, and with it every stream: nothing more is said about single ones.
    is_leaving: bool,
    events: VecDeque<Event>,
    counters: Counters,
}

impl Streams {
    /// Starts without streams.
    #[must_use]
    pub const fn new(config: Config) -> Self {
        let book = Book {
            config,
            last_opened_here: 0,
            last_opened_there: 0,
            live: 0,
            ready: VecDeque::new(),
            credit_due: VecDeque::new(),
            control: VecDeque::new(),
            is_leaving: false,
            events: VecDeque::new(),
            counters: Counters { datagrams_dropped: 0, frames_late: 0 },
        };
        Self { slots: BTreeMap::new(), book }
    }

    // ---- What the application does ----

    /// Opens a stream or flow. The frame that tells the other side (Open, Incoming) must leave before anything of it,
    /// and in the order of the ids.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&mut self, sort: Sort) -> Result<StreamId, OpenError> {
        if self.book.is_full() {
            return Err(OpenError::Limit { max: self.book.config.streams_max });
        }
        let next = match (self.book.last_opened_here, self.book.config.role) {
            (0, Role::Plugin) => Some(1),
            (0, Role::Daemon) => Some(2),
            (last, _) => last.checked_add(2),
        };
        let id = next.and_then(StreamId::new).ok_or(OpenError::Exhausted)?;
        self.book.last_opened_here = id.number();
        self.insert(id, sort, true);
        Ok(id)
    }

    /// Takes what the other side opened, for the daemon only if it is not over already; false if it was taken or refused
    /// before, or is of another sort. Then there are as many holders as the sort has handles: two for a stream, one otherwise.
    pub fn adopt(&mut self, id: StreamId, sort: Sort) -> bool {
        let Some(slot) = self.slots.get_mut(&id) else {
            return false;
        };
        if slot.is_taken || slot.what.sort() != sort {
            return false;
        }
        slot.is_taken = true;
        slot.holders = handles(sort);
        true
    }

    /// Adds a holder to a stream that the application already holds.
    pub fn hold(&mut self, id: StreamId) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.holders += 1;
        }
    }

    /// A handle is gone. Ends nothing by itself.
    pub fn release(&mut self, id: StreamId) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.holders = slot.holders.saturating_sub(1);
            self.forget_if_done(id);
        }
    }

    /// Forgets a stream that never came to be: its Open or Incoming was refused, by either side.
    pub fn abandon(&mut self, id: StreamId, end: End) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        if !slot.is_taken {
            slot.holders = 0;
        }
        slot.what.end(StreamEnd { how: How::Refused, end });
        self.book.conclude(id, slot, None);
        self.forget_if_done(id);
    }

    /// Takes bytes off the front of `pieces`, as many as there is credit and room for. 0: an event will tell.
    ///
    /// # Errors
    /// [`StreamEnd`] if the half is over.
    pub fn write(&mut self, id: StreamId, pieces: &mut [Bytes]) -> Result<usize, StreamEnd> {
        let slot = self.slots.get_mut(&id).ok_or(StreamEnd::LOCAL)?;
        let send = slot.sender().ok_or(StreamEnd::LOCAL)?;
        if let Some(end) = send.closed_by() {
            return Err(end);
        }
        let bytes = send.write(pieces);
        if bytes > 0 {
            self.book.make_ready(id, slot);
        }
        Ok(bytes)
    }

    /// Bytes that can be written now.
    #[must_use]
    pub fn room(&self, id: StreamId) -> usize {
        match self.slots.get(&id).map(|slot| &slot.what) {
            Some(What::Stream { send, .. }) if send.closed_by().is_none() => send.room(),
            Some(What::Stream { .. } | What::Flow(_) | What::Detached { .. }) | None => 0,
        }
    }

    /// Tells whether the sending half is neither finished nor over.
    #[must_use]
    pub fn is_writable(&self, id: StreamId) -> bool {
        match self.slots.get(&id).map(|slot| &slot.what) {
            Some(What::Stream { send, .. }) => send.closed_by().is_none(),
            Some(What::Flow(_) | What::Detached { .. }) | None => false,
        }
    }

    /// Tells whether there are bytes to read.
    #[must_use]
    pub fn is_readable(&self, id: StreamId) -> bool {
        match self.slots.get(&id).map(|slot| &slot.what) {
            Some(What::Stream { recv, .. }) => recv.has_bytes(),
            Some(What::Flow(_) | What::Detached { .. }) | None => false,
        }
    }

    /// Ends the sending half after what is queued.
    ///
    /// # Errors
    /// [`StreamEnd`] if the half was over already, other than by this.
    pub fn finish(&mut self, id: StreamId) -> Result<(), StreamEnd> {
        let slot = self.slots.get_mut(&id).ok_or(StreamEnd::LOCAL)?;
        let send = slot.sender().ok_or(StreamEnd::LOCAL)?;
        match send.state {
            SendState::Open => {
                send.state = SendState::Finishing;
                self.book.make_ready(id, slot);
                Ok(())
            }
            SendState::Finishing | SendState::Finished => Ok(()),
            SendState::Stopped { end } => Err(StreamEnd::stopped(end)),
            SendState::Ended(end) => Err(end),
        }
    }

    /// Ends the whole stream or flow at once.
    pub fn reset(&mut self, id: StreamId, end: End) {
        let Some(slot) = self.slots.get_mut(&id).filter(|slot| !slot.is_over && !slot.what.is_over()) else {
            return;
        };
        self.book.reset(id, slot, end);
        self.forget_if_done(id);
    }

    /// Gets what there is to read. The credit stays out until [`Streams::consume`].
    pub fn read(&mut self, id: StreamId) -> Read {
        let Some(slot) = self.slots.get_mut(&id) else {
            return Read::Ended(StreamEnd::LOCAL);
        };
        let Some(recv) = slot.receiver() else {
            return Read::Ended(StreamEnd::LOCAL);
        };
        let read = recv.read();
        if read == Read::Fin {
            self.book.settle(id, slot);
        }
        read
    }

    /// Gives back the credit of bytes that were read and are now done with.
    pub fn consume(&mut self, id: StreamId, bytes: usize) {
        if let Some(slot) = self.slots.get_mut(&id)
            && slot.receiver().is_some_and(|recv| recv.consume(bytes))
            && !slot.is_credit_due
        {
            slot.is_credit_due = true;
            self.book.credit_due.push_back(id);
        }
    }

    /// Leaves the receiving half: the other side should stop sending.
    pub fn stop(&mut self, id: StreamId, end: End) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        if slot.receiver().is_some_and(Receiver::stop) {
            slot.cause.get_or_insert_with(|| (self.book.config.role.own_cause(), end));
            self.book.say(StreamMessage::StopSending { stream: id, end });
        }
        self.book.settle(id, slot);
        self.forget_if_done(id);
    }

    /// Why the sending half, or the flow, or the detached stream is over, if it is.
    #[must_use]
    pub fn ended(&self, id: StreamId) -> Option<StreamEnd> {
        let Some(slot) = self.slots.get(&id) else {
            return Some(StreamEnd::LOCAL);
        };
        let ended = match &slot.what {
            What::Stream { send, .. } => send.closed_by().filter(|end| *end != StreamEnd::LOCAL),
            What::Flow(flow) => flow.ended,
            What::Detached { ended } => *ended,
        };
        ended.or_else(|| slot.is_over.then_some(StreamEnd::LOCAL))
    }

    /// Why there is nothing more to read, if the stream ended otherwise than by a fin; known while bytes wait elsewhere.
    #[must_use]
    pub fn lost(&self, id: StreamId) -> Option<StreamEnd> {
        match self.slots.get(&id).map(|slot| &slot.what) {
            Some(What::Stream { recv, .. }) => recv.lost(),
            Some(What::Flow(_) | What::Detached { .. }) => None,
            None => Some(StreamEnd::LOCAL),
        }
    }

    /// How it truly ended, once that is known.
    #[must_use]
    pub fn closed(&self, id: StreamId) -> Option<StreamClosed> {
        self.slots.get(&id)?.closed
    }

    /// Tells whether nothing more will become known about it.
    #[must_use]
    pub fn is_over(&self, id: StreamId) -> bool {
        self.slots.get(&id).is_none_or(|slot| slot.is_over)
    }

    /// Sends one datagram, or rather queues it: if the queue is full, the oldest goes.
    ///
    /// # Errors
    /// [`StreamEnd`] if the flow is over.
    pub fn send_datagram(&mut self, id: StreamId, datagram: Bytes) -> Result<(), StreamEnd> {
        let slot = self.slots.get_mut(&id).ok_or(StreamEnd::LOCAL)?;
        let What::Flow(flow) = &mut slot.what else {
            return Err(StreamEnd::LOCAL);
        };
        if let Some(end) = flow.ended {
            return Err(end);
        }
        self.book.counters.datagrams_dropped += flow.outgoing.push(datagram);
        self.book.make_ready(id, slot);
        Ok(())
    }

    /// Gets the next datagram; `None`: an event will tell.
    ///
    /// # Errors
    /// [`StreamEnd`] if the flow is over.
    pub fn receive_datagram(&mut self, id: StreamId) -> Result<Option<Bytes>, StreamEnd> {
        let Some(Slot { what: What::Flow(flow), .. }) = self.slots.get_mut(&id) else {
            return Err(StreamEnd::LOCAL);
        };
        match (flow.read(), flow.ended) {
            (Some(datagram), _) => Ok(Some(datagram)),
            (None, Some(end)) => Err(end),
            (None, None) => Ok(None),
        }
    }

    /// Tells how a detached stream ended (the daemon's side knows, because it held the socket).
    pub fn close_detached(&mut self, id: StreamId, facts: StreamClosed) {
        if let Some(slot) = self.slots.get_mut(&id)
            && slot.what.sort() == Sort::Detached
            && !slot.is_over
        {
            slot.what.end(StreamEnd::LOCAL);
            self.book.conclude(id, slot, Some(facts));
            self.forget_if_done(id);
        }
    }

    /// The session is about to end: Data that is queued may still go out, but what becomes of streams from now on is the
    /// session's end and not their own, and is not told as such.
    pub fn leave(&mut self) {
        self.book.is_leaving = true;
    }

    /// Ends everything with the session: nothing will be sent any more. What came with its fin stays readable.
    pub fn end_session(&mut self, end: End) {
        let end = StreamEnd { how: How::Session, end };
        self.book.control.clear();
        for (id, slot) in &mut self.slots {
            slot.what.end_unfinished(end);
            self.book.conclude(*id, slot, None);
        }
        self.slots.retain(|_, slot| !slot.is_done());
    }

    // ---- What the other side does ----

    /// The other side opened a stream or flow.
    ///
    /// # Errors
    /// [`Violation`] if the id is not its to choose, or not higher than every one before.
    pub fn handle_open(&mut self, id: StreamId, sort: Sort) -> Result<Admission, Violation> {
        self.handle_bad_open(id)?;
        if self.book.is_full() {
            return Ok(Admission::Full);
        }
        self.insert(id, sort, false);
        Ok(Admission::Admitted)
    }

    /// The other side used up an id for an Open that is refused for its content.
    ///
    /// # Errors
    /// As [`Streams::handle_open`].
    pub fn handle_bad_open(&mut self, id: StreamId) -> Result<(), Violation> {
        if id.opener() == self.book.config.role {
            return Err(Violation::protocol("a stream opened with an id of the other side's [S-STREAM-1]"));
        }
        if id.number() <= self.book.last_opened_there {
            return Err(Violation::protocol(
                "a stream opened with an id not higher than the last [S-STREAM-1]",
            ));
        }
        self.book.last_opened_there = id.number();
        Ok(())
    }

    /// The other side said something about a stream.
    ///
    /// # Errors
    /// [`Violation`] ends the session.
    pub fn handle(&mut self, message: StreamMessage) -> Result<(), Violation> {
        match message {
            StreamMessage::Data { stream, payload, fin } => {
                self.handle_data(stream, Payload::Shared(payload), fin)
            }
            StreamMessage::Window { stream, bytes } => self.handle_window(stream, bytes),
            StreamMessage::Datagram { flow, payload } => self.handle_datagram(flow, &payload),
            StreamMessage::Reset { stream, end } => self.handle_reset(stream, self.as_theirs(end)),
            StreamMessage::StopSending { stream, end } => self.handle_stop(stream, self.as_theirs(end)),
            StreamMessage::StreamClosed { stream, facts } => self.handle_closed(stream, facts),
        }
    }

    /// What the other side may say of an end [S-STREAM-8]: a plugin only that it was its own doing. Else one could make the
    /// other plugin, or its user, believe that the path was lost or the daemon at fault.
    fn as_theirs(&self, end: End) -> End {
        match self.book.config.role {
            Role::Daemon => End::app(end.app),
            Role::Plugin => end,
        }
    }

    /// The other side sent bytes.
    ///
    /// # Errors
    /// [`Violation`] ends the session.
    pub fn handle_data(&mut self, id: StreamId, payload: Payload<'_>, fin: bool) -> Result<(), Violation> {
        if payload.len() > self.book.config.data_bytes_max as usize {
            return Err(Violation {
                code: Code::FRAME_TOO_LARGE,
                what: "a Data payload over data_bytes_max [S-STREAM-11]",
            });
        }
        let Some(slot) = live(&mut self.slots, &mut self.book, id)? else {
            return Ok(());
        };
        let What::Stream { recv, .. } = &mut slot.what else {
            return Err(Violation::protocol(
                "Data for something that is no muxed stream [S-DGRAM-3] [S-ATTACH-4]",
            ));
        };
        match recv.arrive(payload, fin) {
            Arrival::AfterFin => return Err(Violation::protocol("Data after fin [S-STREAM-5]")),
            Arrival::Overrun => self.book.reset(id, slot, End::new(Code::FLOW_CONTROL)),
            Arrival::Taken => {
                if recv.is_due() {
                    self.book.events.push_back(Event::Readable(id));
                }
                if !fin {
                    return Ok(());
                }
                self.book.settle(id, slot);
            }
        }
        self.forget_if_done(id);
        Ok(())
    }
}
