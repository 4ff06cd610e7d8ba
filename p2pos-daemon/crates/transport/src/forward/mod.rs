//! The relay's hands: frames of others come in with everything else, are judged where they lie, and leave again.
//!
//! Owns the way of a frame from the receiving socket to the sending one; who may send what to whom is
//! [`p2pos_relay::Service`]'s judgement, which everything here asks. A batch that the kernel joined (GRO) is judged frame by
//! frame with one look at the clock, and neighbours with the same verdict leave as one batch (GSO): no copy and no
//! allocation, unless the socket is full. Then they wait in a [`ClassQueue`], and one task sends them when it is not.
//!
//! Refuses to know: leases, contacts, the wire of requests (floor 3), and how a socket sends ([`Outlet`]). RELAY.md s2-s4, s6.

mod early;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use p2pos_relay::{Ahead, Class, ClassQueue, Dropped, FIRST_BYTE, Service, Verdict, Via, Vni};

use self::early::Early;
use crate::mux::tcp::Queue;

/// Frames that wait for the other side of their flow to prove where it is; the first packets of a caller, who mostly is quicker.
/// More than a handful for each of some flows that begin at once would be a queue, which this is not.
const HELD_MAX: usize = 64;

/// How long they wait at most. A side has proven its address after two round trips.
const HELD_FOR: Duration = Duration::from_secs(1);

/// A way out to the network, as far as forwarding needs one.
pub(crate) trait Outlet {
    /// Sends datagrams of `stride` bytes each (the last one perhaps shorter) at once, as far as the socket takes them; says
    /// how many bytes are dealt with. What can never be sent is dealt with, too.
    fn send_run(&self, to: SocketAddr, stride: usize, run: &[u8]) -> usize;
}

/// A relay's forwarding, shared by the sockets that feed it and by whoever speaks with its users.
#[derive(Debug)]
pub struct Forwarder {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    service: Service,
    /// What waits for the socket of each address family, IPv4 first.
    waiting: [Waiting; 2],
    /// The TCP connections of users.
    lines: BTreeMap<u64, Arc<Queue>>,
    held: VecDeque<Held>,
    early: Early,
}

/// A frame whose flow has one side only so far.
#[derive(Debug)]
struct Held {
    from: Via,
    until: Instant,
    frame: Vec<u8>,
}

/// Frames before a full socket.
#[derive(Debug, Default)]
struct Waiting {
    /// The one that was tried last.
    next: Option<Parcel>,
    queue: ClassQueue<Parcel>,
}

/// A frame that waits for a full socket.
#[derive(Debug)]
struct Parcel {
    to: SocketAddr,
    frame: Bytes,
}

/// Neighbours in a batch that go the same way.
struct Run {
    range: Range<usize>,
    to: Via,
    flow: Vni,
    class: Class,
}

/// Which sockets have frames waiting that somebody must send later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Backlog {
    pub(crate) v4: bool,
    pub(crate) v6: bool,
}

impl Forwarder {
    pub(crate) fn new(service: Service) -> Self {
        let state = State {
            service,
            waiting: Default::default(),
            lines: BTreeMap::new(),
            held: VecDeque::new(),
            early: Early::default(),
        };
        Self { state: Mutex::new(state) }
    }

    /// Asks the service something, or tells it. Never hold on to it: frames wait meanwhile. What the service then has to
    /// say to a flow's side over the wire leaves with the next batch.
    pub fn with<T>(&self, talk: impl FnOnce(&mut Service) -> T) -> T {
        talk(&mut self.lock().service)
    }

    /// Takes the frames of others out of a received batch and sends them on; what is left closes ranks at the front of the
    /// buffer, and its length is returned. `is_ours` knows the frames of our own flows.
    pub(crate) fn take_batch(
        &self,
        outlet: &impl Outlet,
        (from, now): (SocketAddr, Instant),
        (buffer, stride): (&mut [u8], usize),
        is_ours: impl Fn(&[u8]) -> bool,
    ) -> (usize, Backlog) {
        let state = &mut *self.lock();
        let (mut left, mut start, mut run, mut is_control) = (0, 0, None::<Run>, false);
        let mut ahead = Ahead::default();
        while start < buffer.len() {
            if ahead.is_over() {
                ahead = state.service.look_ahead(&buffer[start..], stride);
            }
            let range = start..buffer.len().min(start + stride.max(1));
            start = range.end;
            let datagram = &mut buffer[range.clone()];
            if datagram.first() != Some(&FIRST_BYTE) || is_ours(datagram) {
                // It moves to the front, where a run may lie.
                ahead = Ahead::default();
                state.send(outlet, run.take(), buffer, stride);
                buffer.copy_within(range.clone(), left);
                left += range.len();
                continue;
            }
            let next = match state.service.forward_next(now, Via::Udp(from), datagram, &mut ahead) {
                Verdict::Forward { to, flow, class } => Some(Run { range, to, flow, class }),
                Verdict::Consumed => {
                    is_control = true;
                    None
                }
                Verdict::Dropped(why) => {
                    state.hold(why, (Via::Udp(from), now), datagram);
                    None
                }
            };
            run = match (run.take(), next) {
                (Some(run), Some(next)) if run.is_joined_by(&next) => {
                    Some(Run { range: run.range.start..next.range.end, ..run })
                }
                (run, next) => {
                    state.send(outlet, run, buffer, stride);
                    next
                }
            };
        }
        state.send(outlet, run, buffer, stride);
        if is_control {
            state.release(outlet, now);
        }
        state.send_answers(outlet);
        (left, state.backlog())
    }

    /// Takes one frame that came by a TCP connection.
    pub(crate) fn take_from_line(
        &self,
        outlet: &impl Outlet,
        (line, now): (u64, Instant),
        frame: &mut [u8],
    ) -> Backlog {
        let state = &mut *self.lock();
        match state.service.forward(now, Via::Tcp(line), frame) {
            Verdict::Forward { to, flow, class } => {
                let run = Run { range: 0..frame.len(), to, flow, class };
                state.send(outlet, Some(run), frame, frame.len());
            }
            Verdict::Consumed => state.release(outlet, now),
            Verdict::Dropped(why) => state.hold(why, (Via::Tcp(line), now), frame),
        }
        state.send_answers(outlet);
        state.backlog()
    }

    /// Sends what waits for the socket of one family, until it is full again; whether something is left.
    pub(crate) fn send_waiting(&self, outlet: &impl Outlet, is_v4: bool) -> bool {
        let state = &mut *self.lock();
        let waiting = &mut state.waiting[usize::from(!is_v4)];
        while let Some(parcel) = waiting.next.take().or_else(|| waiting.queue.pop()) {
            if outlet.send_run(parcel.to, parcel.frame.len(), &parcel.frame) == 0 {
                waiting.next = Some(parcel);
                return true;
            }
        }
        false
    }

    pub(crate) fn is_waiting(&self, is_v4: bool) -> bool {
        !self.lock().waiting[usize::from(!is_v4)].is_empty()
    }

    /// Gives out the frames that came for a flow of ours before we knew it.
    pub(crate) fn take_early(&self, from: Via, flow: Vni, now: Instant) -> Vec<Bytes> {
        self.lock().early.take(from, flow, now)
    }

    pub(crate) fn add_line(&self, line: Arc<Queue>) {
        self.lock().lines.insert(line.id(), line);
    }

    pub(crate) fn remove_line(&self, id: u64) {
        self.lock().lines.remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.next.is_none() && self.queue.is_empty()
    }
}

impl Run {
    /// Whether a neighbour can leave in the same batch.
    fn is_joined_by(&self, next: &Self) -> bool {
        self.range.end == next.range.start
            && (self.to, self.flow, self.class) == (next.to, next.flow, next.class)
    }
}

impl State {
    fn send(&mut self, outlet: &impl Outlet, run: Option<Run>, buffer: &[u8], stride: usize) {
        let Some(Run { range, to, flow, class }) = run else { return };
        let frames = &buffer[range];
        match to {
            Via::Udp(to) => {
                let waiting = &mut self.waiting[usize::from(to.is_ipv6())];
                // Nothing overtakes what waits.
                let sent = if waiting.is_empty() { outlet.send_run(to, stride, frames) } else { 0 };
                for frame in frames[sent..].chunks(stride.max(1)) {
                    waiting.queue.push(class, flow, Parcel { to, frame: Bytes::copy_from_slice(frame) });
                }
            }
            Via::Tcp(line) => {
                if let Some(line) = self.lines.get(&line) {
                    frames.chunks(stride.max(1)).for_each(|frame| line.push_frame(class, flow, frame));
                }
            }
        }
    }

    /// Keeps a frame that was dropped only because the other side has not proven where it is, or because nobody has told us of
    /// its flow yet. Of what others want forwarded, a wrong tag says the same: two relays may use one number.
    fn hold(&mut self, why: Dropped, (from, now): (Via, Instant), frame: &[u8]) {
        if matches!(why, Dropped::NoFlow | Dropped::Tag) {
            self.early.keep((from, now), frame);
        }
        if why != Dropped::NotBound {
            return;
        }
        self.held.pop_front_if(|oldest| oldest.until < now);
        if self.held.len() < HELD_MAX {
            self.held.push_back(Held { from, until: now + HELD_FOR, frame: frame.to_vec() });
        }
    }

    /// Somebody may have proven where it is: tries the frames that waited for that.
    fn release(&mut self, outlet: &impl Outlet, now: Instant) {
        for mut held in std::mem::take(&mut self.held) {
            if now > held.until {
                continue;
            }
            let length = held.frame.len();
            match self.service.forward(now, held.from, &mut held.frame) {
                Verdict::Forward { to, flow, class } => {
                    self.send(outlet, Some(Run { range: 0..length, to, flow, class }), &held.frame, length);
                }
                Verdict::Dropped(Dropped::NotBound) => self.held.push_back(held),
                Verdict::Dropped(_) | Verdict::Consumed => {}
            }
        }
    }

    /// The relay's own words. They are short and asked for again if lost, so they wait for nothing.
    fn send_answers(&mut self, outlet: &impl Outlet) {
        while let Some((to, answer)) = self.service.poll_answer() {
            match to {
                Via::Udp(to) => {
                    if outlet.send_run(to, answer.len(), &answer) == 0 {
                        tracing::trace!("the socket was too full for a relay's answer");
                    }
                }
                Via::Tcp(line) => {
                    if let Some(line) = self.lines.get(&line) {
                        line.push(&answer, &[]);
                    }
                }
            }
        }
    }

    fn backlog(&self) -> Backlog {
        let [v4, v6] = &self.waiting;
        Backlog { v4: !v4.is_empty(), v6: !v6.is_empty() }
    }
}
