//! The stream machine against a model: two machines, a wire between them, and every interleaving that chance finds.
//!
//! The model knows only what an author may rely on: bytes arrive in order, all of them or an end; credit is neither lost
//! nor made; nobody who waits is forgotten; nothing hangs while somebody reads; the daemon has exactly one last word.
//! It drives the machines as a driver does, and after a random story it lets the story end: then everything written must
//! be read, and no slot may be left.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may panic, its helpers too, and looks for one case among many"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use p2pos_plugin_protocol::{
    code::{Code, End},
    message::{Cause, Role, StreamClosed, StreamId, StreamMessage},
    streams::{Admission, Config, Credit, Event, Payload, Read, Sort, StreamEnd, Streams, Transmit},
};
use proptest::prelude::*;

const STREAMS_MAX: u32 = 6;

/// What everybody still writes when the story ends: more than the smallest window many times over.
const LAST_BYTES: u64 = 100;

#[derive(Clone, Debug)]
enum Act {
    Open { side: usize },
    Write { side: usize, stream: usize, bytes: usize, pieces: usize },
    Finish { side: usize, stream: usize },
    Read { side: usize, stream: usize },
    Consume { side: usize, stream: usize, bytes: usize },
    Reset { side: usize, stream: usize },
    Stop { side: usize, stream: usize },
    Adopt { side: usize, stream: usize },
    Refuse { side: usize, stream: usize },
    Transmit { side: usize, frames: usize },
    Deliver { to: usize, frames: usize },
    Release { side: usize, stream: usize },
}

fn act() -> impl Strategy<Value = Act> {
    let side = || 0..2usize;
    let stream = || 0..8usize;
    prop_oneof![
        2 => side().prop_map(|side| Act::Open { side }),
        8 => (side(), stream(), 1..1500usize, 1..4usize)
            .prop_map(|(side, stream, bytes, pieces)| Act::Write { side, stream, bytes, pieces }),
        1 => (side(), stream()).prop_map(|(side, stream)| Act::Finish { side, stream }),
        8 => (side(), stream()).prop_map(|(side, stream)| Act::Read { side, stream }),
        6 => (side(), stream(), 0..2000usize)
            .prop_map(|(side, stream, bytes)| Act::Consume { side, stream, bytes }),
        1 => (side(), stream()).prop_map(|(side, stream)| Act::Reset { side, stream }),
        1 => (side(), stream()).prop_map(|(side, stream)| Act::Stop { side, stream }),
        4 => (side(), stream()).prop_map(|(side, stream)| Act::Adopt { side, stream }),
        1 => (side(), stream()).prop_map(|(side, stream)| Act::Refuse { side, stream }),
        8 => (side(), 1..6usize).prop_map(|(side, frames)| Act::Transmit { side, frames }),
        8 => (side(), 1..6usize).prop_map(|(to, frames)| Act::Deliver { to, frames }),
        1 => (side(), stream()).prop_map(|(side, stream)| Act::Release { side, stream }),
    ]
}

fn credit() -> impl Strategy<Value = Credit> {
    prop_oneof![
        4 => (1..2000u32).prop_map(Credit::Counted),
        1 => Just(Credit::Counted(1)),
        1 => Just(Credit::Auto),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn no_story_loses_a_byte_a_credit_a_waiter_or_a_last_word(
        acts in prop::collection::vec(act(), 1..150),
        to_daemon in credit(), to_plugin in credit(),
        data_bytes_max in 10..600u32,
    ) {
        let mut world = World::new(to_daemon, to_plugin, data_bytes_max);
        for act in &acts {
            world.act(act);
            world.check();
        }
        world.let_the_story_end();
    }
}

/// What travels: what the driver says beside the machine, and the machine's frames.
#[derive(Debug)]
enum Wire {
    Open(StreamId),
    Refused(StreamId),
    Data(StreamId, Vec<u8>, bool),
    Message(StreamMessage),
}

/// One direction of one stream, as its writer and its reader see it.
#[derive(Debug, Default)]
struct Way {
    written: u64,
    read: u64,
    consumed: u64,
    is_finished: bool,
    has_read_fin: bool,
}

/// One stream, as the model knows it.
#[derive(Debug, Default)]
struct Story {
    /// By the side that writes.
    ways: [Way; 2],
    /// Somebody reset or stopped it, or it was refused; then not every byte needs to arrive.
    is_disturbed: bool,
    is_refused: bool,
    is_adopted: bool,
    /// The side has dropped its handles.
    is_released: [bool; 2],
    last_words: u32,
    facts: Option<StreamClosed>,
}

struct World {
    /// 0: the plugin, 1: the daemon.
    machines: [Streams; 2],
    /// Towards each side.
    wires: [VecDeque<Wire>; 2],
    stories: BTreeMap<StreamId, Story>,
    /// Whoever waits since a call that gave nothing, by side and stream.
    readers: [BTreeSet<StreamId>; 2],
    writers: [BTreeSet<StreamId>; 2],
    is_counted: [bool; 2],
}

impl World {
    fn new(to_daemon: Credit, to_plugin: Credit, data_bytes_max: u32) -> Self {
        let config = |role, send, recv| Config { role, data_bytes_max, streams_max: STREAMS_MAX, send, recv };
        Self {
            machines: [
                Streams::new(config(Role::Plugin, to_daemon, to_plugin)),
                Streams::new(config(Role::Daemon, to_plugin, to_daemon)),
            ],
            wires: [VecDeque::new(), VecDeque::new()],
            stories: BTreeMap::new(),
            readers: [BTreeSet::new(), BTreeSet::new()],
            writers: [BTreeSet::new(), BTreeSet::new()],
            is_counted: [to_daemon != Credit::Auto, to_plugin != Credit::Auto],
        }
    }

    fn pick(&self, index: usize) -> Option<StreamId> {
        let newest = self.stories.len().saturating_sub(8);
        self.stories.keys().skip(newest).nth(index).copied()
    }

    fn holds(&self, side: usize, id: StreamId) -> bool {
        let story = &self.stories[&id];
        let is_opener = opener(id) == side;
        !story.is_released[side] && (is_opener || story.is_adopted)
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Open { side } => self.open(side),
            Act::Write { side, stream, bytes, pieces } => {
                self.with(side, stream, |world, id| world.write(side, id, bytes, pieces));
            }
            Act::Finish { side, stream } => self.with(side, stream, |world, id| world.finish(side, id)),
            Act::Read { side, stream } => self.with(side, stream, |world, id| {
                world.read(side, id);
            }),
            Act::Consume { side, stream, bytes } => {
                self.with(side, stream, |world, id| {
                    world.consume(side, id, bytes as u64);
                });
            }
            Act::Reset { side, stream } => self.with(side, stream, |world, id| {
                world.machines[side].reset(id, End::app(1));
                world.stories.get_mut(&id).unwrap().is_disturbed = true;
            }),
            Act::Stop { side, stream } => self.with(side, stream, |world, id| {
                world.machines[side].stop(id, End::app(2));
                world.stories.get_mut(&id).unwrap().is_disturbed = true;
            }),
            Act::Adopt { side, stream } => self.adopt_or_refuse(side, stream, true),
            Act::Refuse { side, stream } => self.adopt_or_refuse(side, stream, false),
            Act::Transmit { side, frames } => {
                self.transmit(side, frames);
            }
            Act::Deliver { to, frames } => {
                self.deliver(to, frames);
            }
            Act::Release { side, stream } => self.with(side, stream, Self::release_by(side)),
        }
    }

    fn release_by(side: usize) -> impl FnOnce(&mut Self, StreamId) {
        move |world, id| {
            // As the handles do when they are dropped.
            let story = world.stories.get_mut(&id).unwrap();
            let is_done = story.ways[side].is_finished && story.ways[1 - side].has_read_fin;
            story.is_disturbed |= !is_done;
            story.is_released[side] = true;
            if !story.ways[side].is_finished {
                world.machines[side].reset(id, End::app(0));
            }
            world.machines[side].stop(id, End::app(0));
            world.machines[side].release(id);
            world.machines[side].release(id);
            world.readers[side].remove(&id);
            world.writers[side].remove(&id);
        }
    }

    fn with(&mut self, side: usize, stream: usize, work: impl FnOnce(&mut Self, StreamId)) {
        if let Some(id) = self.pick(stream)
            && self.holds(side, id)
        {
            work(self, id);
        }
    }

    fn open(&mut self, side: usize) {
        if let Ok(id) = self.machines[side].open(Sort::Stream) {
            self.stories.insert(id, Story::default());
            self.wires[1 - side].push_back(Wire::Open(id));
        }
    }

    fn adopt_or_refuse(&mut self, side: usize, stream: usize, is_wanted: bool) {
        let Some(id) = self.pick(stream).filter(|id| opener(*id) != side) else { return };
        if self.stories[&id].is_adopted
            || self.stories[&id].is_refused
            || self.machines[side].check_opened(id).is_err()
        {
            return;
        }
        let story = self.stories.get_mut(&id).unwrap();
        if is_wanted {
            story.is_adopted = self.machines[side].adopt(id, Sort::Stream);
            return;
        }
        story.is_refused = true;
        story.is_disturbed = true;
        self.machines[side].abandon(id, End::new(Code::REFUSED));
        self.wires[1 - side].push_back(Wire::Refused(id));
    }

    fn write(&mut self, side: usize, id: StreamId, bytes: usize, pieces: usize) {
        let way = &mut self.stories.get_mut(&id).unwrap().ways[side];
        let from = way.written;
        let all: Vec<u8> = (0..bytes as u64).map(|n| pattern(id, side, from + n)).collect();
        let mut pieces: Vec<Bytes> = all.chunks(bytes.div_ceil(pieces)).map(Bytes::copy_from_slice).collect();
        match self.machines[side].write(id, &mut pieces) {
            Ok(0) => {
                self.writers[side].insert(id);
            }
            Ok(taken) => {
                let left: usize = pieces.iter().map(Bytes::len).sum();
                assert_eq!(taken + left, bytes, "what is taken is gone from the front, no more and no less");
                way.written += taken as u64;
            }
            Err(_) => assert!(way.is_finished || self.stories[&id].is_disturbed),
        }
    }

    fn finish(&mut self, side: usize, id: StreamId) {
        if self.machines[side].finish(id).is_ok() {
            self.stories.get_mut(&id).unwrap().ways[side].is_finished = true;
        }
    }

    /// Reads once; tells whether anything came of it.
    fn read(&mut self, side: usize, id: StreamId) -> bool {
        let story = self.stories.get_mut(&id).unwrap();
        let way = &mut story.ways[1 - side];
        match self.machines[side].read(id) {
            Read::Bytes(bytes) => {
                for (n, byte) in (way.read..).zip(&bytes) {
                    assert_eq!(*byte, pattern(id, 1 - side, n), "byte {n} of {id}");
                }
                way.read += bytes.len() as u64;
                assert!(way.read <= way.written);
                true
            }
            Read::Fin => {
                assert!(way.is_finished || story.is_disturbed);
                assert!(way.read == way.written || story.is_disturbed, "a fin comes after all bytes");
                // To learn of the end is something: the daemon may have its last word to say now.
                !std::mem::replace(&mut way.has_read_fin, true)
            }
            Read::Blocked => {
                self.readers[side].insert(id);
                false
            }
            Read::Ended(_) => {
                assert!(story.is_disturbed, "nobody has disturbed {id}");
                false
            }
        }
    }

    /// Tells whether there was something to consume: then credit may be on its way.
    fn consume(&mut self, side: usize, id: StreamId, bytes: u64) -> bool {
        let way = &mut self.stories.get_mut(&id).unwrap().ways[1 - side];
        let bytes = bytes.min(way.read - way.consumed);
        way.consumed += bytes;
        self.machines[side].consume(id, usize::try_from(bytes).unwrap());
        bytes > 0
    }

    /// Takes up to `frames` frames out of a machine; tells how many there were.
    fn transmit(&mut self, side: usize, frames: usize) -> usize {
        let mut pieces = Vec::new();
        for count in 0..frames {
            pieces.clear();
            let Some(transmit) = self.machines[side].poll_transmit(&mut pieces) else { return count };
            let wire = match transmit {
                Transmit::Data { stream, bytes, fin } => {
                    let payload = pieces.concat();
                    assert_eq!(payload.len(), bytes);
                    assert!(bytes <= self.machines[side].config().data_bytes_max as usize);
                    assert!(bytes > 0 || fin, "no frame says nothing");
                    Wire::Data(stream, payload, fin)
                }
                Transmit::Message(message) => {
                    if let StreamMessage::StreamClosed { stream, facts } = message {
                        let story = self.stories.get_mut(&stream).unwrap();
                        story.last_words += 1;
                        story.facts = Some(facts);
                    }
                    Wire::Message(message)
                }
            };
            let last_word = match &wire {
                Wire::Data(id, ..) => self.stories[id].last_words,
                Wire::Message(StreamMessage::StreamClosed { .. }) | Wire::Open(_) | Wire::Refused(_) => 0,
                Wire::Message(message) => self.stories[&message.stream()].last_words,
            };
            assert!(side == 0 || last_word == 0, "the last word is the last: {wire:?}");
            self.wires[1 - side].push_back(wire);
        }
        frames
    }

    /// Gives up to `frames` frames to a machine; tells how many there were.
    fn deliver(&mut self, to: usize, frames: usize) -> usize {
        for count in 0..frames {
            let Some(wire) = self.wires[to].pop_front() else { return count };
            let machine = &mut self.machines[to];
            match wire {
                Wire::Open(id) => {
                    if machine.handle_open(id, Sort::Stream).unwrap() == Admission::Full {
                        let story = self.stories.get_mut(&id).unwrap();
                        story.is_refused = true;
                        story.is_disturbed = true;
                        self.wires[1 - to].push_back(Wire::Refused(id));
                    }
                }
                Wire::Refused(id) => machine.abandon(id, End::new(Code::REFUSED)),
                Wire::Data(id, payload, fin) => {
                    let outcome = match count % 2 {
                        0 => machine.handle_data(id, Payload::Slice(&payload), fin),
                        _ => machine.handle_data(id, Payload::Shared(payload.into()), fin),
                    };
                    outcome.expect("no correct sender is ever at fault");
                }
                Wire::Message(message) => {
                    let is_violation = matches!(
                        &message,
                        StreamMessage::Reset { end, .. } if end.code == Code::FLOW_CONTROL
                    );
                    assert!(!is_violation, "credit was overrun: {message:?}");
                    machine.handle(message).expect("no correct sender is ever at fault");
                }
            }
        }
        frames
    }

    /// What holds after every act.
    fn check(&mut self) {
        for side in 0..2 {
            while let Some(event) = self.machines[side].poll_event() {
                match event {
                    Event::Readable(id) => {
                        self.readers[side].remove(&id);
                    }
                    Event::Writable(id) => {
                        self.writers[side].remove(&id);
                    }
                    Event::Changed(id) => {
                        self.readers[side].remove(&id);
                        self.writers[side].remove(&id);
                    }
                }
            }
            for id in &self.readers[side] {
                assert!(!self.machines[side].is_readable(*id), "a reader of {id} was forgotten");
            }
            for id in &self.writers[side] {
                assert_eq!(self.machines[side].room(*id), 0, "a writer of {id} was forgotten");
            }
            assert!(self.machines[1].live_count() <= STREAMS_MAX);
        }
        self.check_credit();
    }

    /// Credit is neither lost nor made: what a sender may still send, has queued or has on its way, together with the
    /// credit that is on its way to it, is exactly what its receiver still allows.
    fn check_credit(&self) {
        for (id, story) in &self.stories {
            let is_over = (0..2).any(|side| self.machines[side].is_over(*id));
            for side in (0..2).filter(|side| self.is_counted[*side] && !story.is_disturbed && !is_over) {
                let receiver = 1 - side;
                let (Some(sender), Some(taker)) =
                    (self.machines[side].accounts(*id), self.machines[receiver].accounts(*id))
                else {
                    continue;
                };
                let bytes = |wire: &Wire| match wire {
                    Wire::Data(stream, payload, _) if stream == id => payload.len(),
                    _ => 0,
                };
                let windows = |wire: &Wire| match wire {
                    Wire::Message(StreamMessage::Window { stream, bytes }) if stream == id => *bytes as usize,
                    _ => 0,
                };
                let under_way: usize = self.wires[receiver].iter().map(bytes).sum();
                let credit_under_way: usize = self.wires[side].iter().map(windows).sum();
                let (credit, queued) = (sender.0.unwrap() as usize, sender.1);
                assert_eq!(
                    credit + queued + under_way + credit_under_way,
                    taker.2.unwrap() as usize,
                    "credit of {id}"
                );
                let way = &story.ways[side];
                let window = match self.machines[receiver].config().recv {
                    Credit::Counted(window) => u64::from(window),
                    Credit::Auto => unreachable!("counted was asked for"),
                };
                assert!(way.written - way.consumed <= window, "never more than a window is waiting");
            }
        }
    }

    /// Everybody who holds a stream writes a little more, finishes, and reads to the end; each waits only to be woken.
    fn let_the_story_end(&mut self) {
        let ids: Vec<StreamId> = self.stories.keys().copied().collect();
        let mut left: BTreeMap<(usize, StreamId), u64> = BTreeMap::new();
        self.exchange_all();
        for &id in &ids {
            self.adopt_or_refuse_late(id);
            for side in 0..2 {
                left.insert((side, id), LAST_BYTES);
            }
        }
        loop {
            let mut has_moved = self.exchange_all();
            for &id in &ids {
                for side in 0..2 {
                    if !self.holds_now(side, id) {
                        continue;
                    }
                    has_moved |= self.write_on(side, id, &mut left);
                    while !self.readers[side].contains(&id) && self.read(side, id) {
                        has_moved = true;
                    }
                    has_moved |= self.consume(side, id, u64::MAX);
                    self.check();
                }
            }
            if !has_moved {
                break;
            }
        }
        for &id in &ids {
            self.check_end(id);
        }
        for side in 0..2 {
            assert_eq!(self.machines[side].slot_count(), 0, "nothing is left behind");
            assert_eq!(self.machines[side].live_count(), 0);
            assert!(!self.machines[side].has_transmit());
        }
    }

    fn holds_now(&self, side: usize, id: StreamId) -> bool {
        !self.stories[&id].is_refused && self.holds(side, id)
    }

    fn adopt_or_refuse_late(&mut self, id: StreamId) {
        let side = 1 - opener(id);
        let story = self.stories.get_mut(&id).unwrap();
        if !story.is_adopted && !story.is_refused {
            story.is_adopted = self.machines[side].adopt(id, Sort::Stream);
        }
    }

    fn write_on(&mut self, side: usize, id: StreamId, left: &mut BTreeMap<(usize, StreamId), u64>) -> bool {
        if self.stories[&id].ways[side].is_finished || self.writers[side].contains(&id) {
            return false;
        }
        let rest = left.get_mut(&(side, id)).unwrap();
        if *rest == 0 {
            self.finish(side, id);
            return self.stories[&id].ways[side].is_finished;
        }
        let before = self.stories[&id].ways[side].written;
        self.write(side, id, usize::try_from(*rest).unwrap(), 2);
        let written = self.stories[&id].ways[side].written - before;
        *rest -= written;
        written > 0
    }

    fn exchange_all(&mut self) -> bool {
        let mut has_moved = false;
        loop {
            let frames = self.transmit(0, 3) + self.transmit(1, 3) + self.deliver(0, 3) + self.deliver(1, 3);
            self.check();
            if frames == 0 {
                return has_moved;
            }
            has_moved = true;
        }
    }

    fn check_end(&mut self, id: StreamId) {
        let story = &self.stories[&id];
        if !story.is_disturbed {
            assert!(story.is_adopted);
            for way in &story.ways {
                assert_eq!(
                    (way.written, way.is_finished, way.has_read_fin),
                    (way.read, true, true),
                    "{id}: {story:?}"
                );
            }
            let facts = story.facts.expect("the daemon has the last word");
            assert_eq!(facts.cause, Cause::Finished);
            assert_eq!((facts.bytes_in, facts.bytes_out), (story.ways[1].written, story.ways[0].written));
        }
        match story.is_refused {
            // A stream that its opener ended before it was refused may have been told about.
            true => assert!(story.last_words <= 1, "{id}: {story:?}"),
            false => assert_eq!(story.last_words, 1, "{id}: {story:?}"),
        }
        for side in 0..2 {
            if !self.stories[&id].is_released[side] && self.holds(side, id) {
                let ended: Option<StreamEnd> = self.machines[side].ended(id);
                assert!(ended.is_some(), "whoever holds {id} learns that it is over");
                self.machines[side].release(id);
                self.machines[side].release(id);
            }
        }
    }
}

const fn opener(id: StreamId) -> usize {
    match id.opener() {
        Role::Plugin => 0,
        Role::Daemon => 1,
    }
}

/// The byte that stands at a place; so a byte at a wrong place is seen.
fn pattern(id: StreamId, side: usize, place: u64) -> u8 {
    let mixed =
        (place ^ u64::from(id.number()) << 40 ^ (side as u64) << 50).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    u8::try_from(mixed >> 56).unwrap()
}
