//! The machine's other half: what the other side says besides Data, what goes out, and the bookkeeping.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    Book, Config, Counters, Event, Flow, How, Receiver, Sender, Slot, Sort, StreamEnd, Streams, Transmit,
    What, table::StreamState,
};
use crate::{
    code::{Code, End},
    message::{Role, StreamClosed, StreamId, StreamMessage, Violation},
};

impl Streams {
    pub(super) fn handle_window(&mut self, id: StreamId, bytes: u32) -> Result<(), Violation> {
        let Some(slot) = live(&mut self.slots, &mut self.book, id)? else {
            return Ok(());
        };
        let Some(send) = slot.sender() else {
            return Err(Violation::protocol(
                "Window for something that is no muxed stream [S-DGRAM-3] [S-ATTACH-4]",
            ));
        };
        if send.grant(bytes) {
            if send.is_due() {
                self.book.events.push_back(Event::Writable(id));
            }
        } else {
            self.book.reset(id, slot, End::new(Code::FLOW_CONTROL));
            self.forget_if_done(id);
        }
        Ok(())
    }

    pub(super) fn handle_datagram(&mut self, id: StreamId, payload: &[u8]) -> Result<(), Violation> {
        let Some(slot) = live(&mut self.slots, &mut self.book, id)? else {
            return Ok(());
        };
        let What::Flow(flow) = &mut slot.what else {
            return Err(Violation::protocol("Datagram for something that is no flow [S-DGRAM-3]"));
        };
        if flow.ended.is_none() {
            flow.bytes_received += payload.len() as u64;
            self.book.counters.datagrams_dropped += flow.incoming.push(Bytes::copy_from_slice(payload));
            if flow.is_due() {
                self.book.events.push_back(Event::Readable(id));
            }
        }
        Ok(())
    }

    pub(super) fn handle_reset(&mut self, id: StreamId, end: End) -> Result<(), Violation> {
        let Some(slot) = live(&mut self.slots, &mut self.book, id)? else {
            return Ok(());
        };
        slot.cause.get_or_insert_with(|| (self.book.config.role.other_cause(), end));
        slot.what.end(StreamEnd { how: How::Reset, end });
        self.book.events.push_back(Event::Changed(id));
        self.book.settle(id, slot);
        self.forget_if_done(id);
        Ok(())
    }

    pub(super) fn handle_stop(&mut self, id: StreamId, end: End) -> Result<(), Violation> {
        let Some(slot) = live(&mut self.slots, &mut self.book, id)? else {
            return Ok(());
        };
        let Some(send) = slot.sender() else {
            return Err(Violation::protocol(
                "StopSending for something that is no muxed stream [S-DGRAM-3] [S-ATTACH-4]",
            ));
        };
        if !send.is_over() {
            send.stop(end);
            slot.cause.get_or_insert_with(|| (self.book.config.role.other_cause(), end));
            self.book.events.push_back(Event::Changed(id));
            self.book.settle(id, slot);
            self.forget_if_done(id);
        }
        Ok(())
    }

    pub(super) fn handle_closed(&mut self, id: StreamId, facts: StreamClosed) -> Result<(), Violation> {
        if self.book.config.role == Role::Daemon {
            return Err(Violation::protocol("only the daemon says StreamClosed [S-MSG-5]"));
        }
        let Some(slot) = known(&mut self.slots, &mut self.book, id)? else {
            return Ok(());
        };
        let end = StreamEnd { how: How::Reset, end: facts.end.unwrap_or(End::new(Code::PROTOCOL)) };
        // A whole stream that was ended is told by Reset before; what came with its fin is good, and stays readable.
        slot.what.end_unfinished(end);
        self.book.conclude(id, slot, Some(facts));
        self.forget_if_done(id);
        Ok(())
    }

    // ---- What goes out ----

    /// Gives the next frame to send. The payload of a Data frame is appended to `payload`, in pieces that together are
    /// one frame.
    pub fn poll_transmit(&mut self, payload: &mut Vec<Bytes>) -> Option<Transmit> {
        if let Some(message) = self.book.control.pop_front() {
            return Some(Transmit::Message(message));
        }
        while let Some(id) = self.book.credit_due.pop_front() {
            let Some(slot) = self.slots.get_mut(&id) else {
                continue;
            };
            slot.is_credit_due = false;
            if let Some(bytes) = slot.receiver().and_then(Receiver::take_credit) {
                return Some(Transmit::Message(StreamMessage::Window { stream: id, bytes }));
            }
        }
        while let Some(id) = self.book.ready.pop_front() {
            let Some(slot) = self.slots.get_mut(&id) else {
                continue;
            };
            slot.is_ready = false;
            let transmit = self.book.transmit(id, slot, payload);
            if transmit.is_some() {
                self.forget_if_done(id);
                return transmit;
            }
        }
        None
    }

    /// Tells whether [`Streams::poll_transmit`] may have something.
    #[must_use]
    pub fn has_transmit(&self) -> bool {
        !(self.book.control.is_empty() && self.book.credit_due.is_empty() && self.book.ready.is_empty())
    }

    /// How many frames wait that are no Data: only a deaf peer makes this grow.
    #[must_use]
    pub fn control_frames(&self) -> usize {
        self.book.control.len()
    }

    /// Tells whom to wake, one by one.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.book.events.pop_front()
    }

    // ---- What can be seen ----

    /// Checks that `id` was ever opened, by either side.
    ///
    /// # Errors
    /// [`Violation`] if not.
    pub fn check_opened(&mut self, id: StreamId) -> Result<(), Violation> {
        known(&mut self.slots, &mut self.book, id).map(drop)
    }

    /// What was agreed.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.book.config
    }

    /// Where it stands, as far as frames tell. What is still to be answered counts as open.
    #[must_use]
    pub fn state(&self, id: StreamId) -> StreamState {
        let Some(slot) = self.slots.get(&id).filter(|slot| !slot.is_over) else {
            return StreamState::Closed;
        };
        let (has_sent, has_come) = match &slot.what {
            What::Stream { send, recv } => (send.is_over(), recv.has_come()),
            What::Flow(_) | What::Detached { .. } => (slot.what.is_over(), slot.what.is_over()),
        };
        match (has_sent, has_come) {
            (false, false) => StreamState::Open,
            (true, false) => StreamState::HalfLocal,
            (false, true) => StreamState::HalfRemote,
            (true, true) => StreamState::Ending,
        }
    }

    /// How many streams, flows and detached streams are not over.
    #[must_use]
    pub const fn live_count(&self) -> u32 {
        self.book.live
    }

    /// What happened unseen.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.book.counters
    }

    /// For tests of the credit rules: (what we may still send, what is queued, what the other side may still send).
    #[must_use]
    pub fn accounts(&self, id: StreamId) -> Option<(Option<u32>, usize, Option<u32>)> {
        match &self.slots.get(&id)?.what {
            What::Stream { send, recv } => Some((send.credit(), send.queued(), recv.allowance())),
            What::Flow(_) | What::Detached { .. } => None,
        }
    }

    /// How many slots are kept, over or not.
    #[must_use]
    pub fn slot_count(&self) -> usize {
        self.slots.len()
    }

    // ---- Bookkeeping ----

    pub(super) fn insert(&mut self, id: StreamId, sort: Sort, is_ours: bool) {
        let config = &self.book.config;
        let what = match sort {
            Sort::Stream => What::Stream { send: Sender::new(config.send), recv: Receiver::new(config.recv) },
            Sort::Flow => What::Flow(Flow::default()),
            Sort::Detached => What::Detached { ended: None },
        };
        let slot = Slot {
            what,
            holders: if is_ours { super::handles(sort) } else { super::slot::offer_holders(config.role) },
            is_taken: is_ours,
            is_over: false,
            is_ready: false,
            is_credit_due: false,
            cause: None,
            closed: None,
        };
        self.slots.insert(id, slot);
        self.book.live += 1;
    }

    pub(super) fn forget_if_done(&mut self, id: StreamId) {
        if self.slots.get(&id).is_some_and(Slot::is_done) {
            self.slots.remove(&id);
        }
    }
}

/// Finds what a frame is about, if that can still be changed by it. `None`: it was over before the frame came, or we have
/// reset it and the other side does not know yet; that is a race, and nobody's fault.
pub(super) fn live<'a>(
    slots: &'a mut BTreeMap<StreamId, Slot>,
    book: &mut Book,
    id: StreamId,
) -> Result<Option<&'a mut Slot>, Violation> {
    Ok(known(slots, book, id)?.filter(|slot| !slot.what.is_reset()))
}

/// Finds what a frame is about, unless everything is said about it.
fn known<'a>(
    slots: &'a mut BTreeMap<StreamId, Slot>,
    book: &mut Book,
    id: StreamId,
) -> Result<Option<&'a mut Slot>, Violation> {
    let was_opened = match id.opener() == book.config.role {
        true => id.number() <= book.last_opened_here,
        false => id.number() <= book.last_opened_there,
    };
    if !was_opened {
        return Err(Violation::protocol("a frame for a stream that was never opened [S-STREAM-9]"));
    }
    let slot = slots.get_mut(&id).filter(|slot| !slot.is_over);
    if slot.is_none() {
        book.counters.frames_late += 1;
    }
    Ok(slot)
}

impl Book {
    pub(super) fn is_full(&self) -> bool {
        self.config.role == Role::Daemon && self.live >= self.config.streams_max
    }

    pub(super) fn make_ready(&mut self, id: StreamId, slot: &mut Slot) {
        if !slot.is_ready {
            slot.is_ready = true;
            self.ready.push_back(id);
        }
    }

    fn transmit(&mut self, id: StreamId, slot: &mut Slot, payload: &mut Vec<Bytes>) -> Option<Transmit> {
        match &mut slot.what {
            What::Stream { send, .. } => {
                if !send.has_something_to_send() {
                    return None;
                }
                let (bytes, fin) = send.take(self.config.data_bytes_max as usize, payload);
                if send.is_due() {
                    self.events.push_back(Event::Writable(id));
                }
                if send.has_something_to_send() {
                    self.make_ready(id, slot);
                }
                if fin {
                    self.settle(id, slot);
                }
                Some(Transmit::Data { stream: id, bytes, fin })
            }
            What::Flow(flow) => {
                let payload = flow.outgoing.pop()?;
                flow.bytes_sent += payload.len() as u64;
                if !flow.outgoing.is_empty() {
                    self.make_ready(id, slot);
                }
                Some(Transmit::Message(StreamMessage::Datagram { flow: id, payload }))
            }
            What::Detached { .. } => None,
        }
    }

    /// Queues something that is no Data.
    pub(super) fn say(&mut self, message: StreamMessage) {
        if !self.is_leaving {
            self.control.push_back(message);
        }
    }

    /// Ends a stream from our side, and says so.
    pub(super) fn reset(&mut self, id: StreamId, slot: &mut Slot, end: End) {
        self.say(StreamMessage::Reset { stream: id, end });
        slot.cause.get_or_insert_with(|| (self.config.role.own_cause(), end));
        slot.what.end(StreamEnd { how: How::Local, end });
        self.events.push_back(Event::Changed(id));
        self.settle(id, slot);
    }

    /// If both halves are over by now: the daemon says so, the plugin waits to be told.
    pub(super) fn settle(&mut self, id: StreamId, slot: &mut Slot) {
        if self.config.role == Role::Daemon && !slot.is_over && slot.what.is_over() {
            let facts = slot.facts();
            self.conclude(id, slot, Some(facts));
        }
    }

    /// It is over; nothing more will be said about it than `facts`.
    pub(super) fn conclude(&mut self, id: StreamId, slot: &mut Slot, facts: Option<StreamClosed>) {
        if slot.is_over {
            return;
        }
        slot.is_over = true;
        slot.closed = facts;
        self.live -= 1;
        if let Some(facts) = facts
            && self.config.role == Role::Daemon
        {
            self.say(StreamMessage::StreamClosed { stream: id, facts });
        }
        self.events.push_back(Event::Changed(id));
    }
}
