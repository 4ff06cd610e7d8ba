//! The stream-and-credit machine, twice. As a pair: two machines that follow the rules, with an application at each end that does
//! whatever the fuzzer says. Promises: neither ever accuses the other; bytes arrive in order and none twice; and once everybody reads,
//! everything arrives (credit is never lost, and nothing waits for ever). Against hostile messages: no panic, and never more bytes
//! queued than credit was given for.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use p2pos_plugin_protocol::code::{Code, End};
use p2pos_plugin_protocol::message::{Role, StreamId, StreamMessage};
use p2pos_plugin_protocol::streams::{Admission, Config, Credit, Read, Sort, Streams, Transmit};

use crate::input::Input;

/// Small numbers, so that every limit is met within a short input.
const WINDOW_BYTES: u32 = 100;
const DATA_BYTES_MAX: u32 = 40;
const STREAMS_MAX: u32 = 4;
/// A fuzzer's input is worth at most so many steps.
const STEPS_MAX: usize = 2_000;

const fn config(role: Role) -> Config {
    Config {
        role,
        data_bytes_max: DATA_BYTES_MAX,
        streams_max: STREAMS_MAX,
        send: Credit::Counted(WINDOW_BYTES),
        recv: Credit::Counted(WINDOW_BYTES),
    }
}

/// What travels between the two machines; the driver's part of it is played here.
enum Wire {
    Open(StreamId),
    Refuse(StreamId),
    Message(StreamMessage),
}

/// One end: the machine, its application's view of each stream, and what it has sent but nobody has received yet.
struct Side {
    streams: Streams,
    known: Vec<StreamId>,
    written: BTreeMap<StreamId, Vec<u8>>,
    read: BTreeMap<StreamId, Vec<u8>>,
    /// Bytes read whose credit was not given back yet.
    unconsumed: BTreeMap<StreamId, usize>,
    /// Streams that this end reset, stopped or lost: their bytes may be cut short.
    cut: Vec<StreamId>,
    outgoing: VecDeque<Wire>,
}

impl Side {
    fn new(role: Role) -> Self {
        Self {
            streams: Streams::new(config(role)),
            known: Vec::new(),
            written: BTreeMap::new(),
            read: BTreeMap::new(),
            unconsumed: BTreeMap::new(),
            cut: Vec::new(),
            outgoing: VecDeque::new(),
        }
    }

    fn act(&mut self, input: &mut Input<'_>) {
        let action = input.below(8);
        if action == 0 {
            if let Ok(id) = self.streams.open(Sort::Stream) {
                self.known.push(id);
                self.outgoing.push_back(Wire::Open(id));
            }
            return;
        }
        if self.known.is_empty() {
            return;
        }
        let id = self.known[input.below(self.known.len().min(256))];
        match action {
            1 | 2 => self.write(id, input),
            3 => drop(self.streams.finish(id)),
            4 => self.read(id, true),
            5 => self.read(id, false),
            6 => {
                self.cut.push(id);
                self.streams.reset(id, End::app(input.number()));
            }
            _ => {
                self.cut.push(id);
                self.streams.stop(id, End::app(input.number()));
            }
        }
    }

    fn write(&mut self, id: StreamId, input: &mut Input<'_>) {
        let count = usize::from(input.byte());
        let history = self.written.entry(id).or_default();
        // Each byte tells its place, so that a lost, doubled or swapped one is seen.
        let bytes: Vec<u8> = (history.len()..history.len() + count)
            .map(|place| place.to_le_bytes()[0] ^ place.to_le_bytes()[1])
            .collect();
        let (first, second) = bytes.split_at(count / 3);
        let mut pieces = [Bytes::copy_from_slice(first), Bytes::copy_from_slice(second)];
        if let Ok(taken) = self.streams.write(id, &mut pieces) {
            history.extend_from_slice(&bytes[..taken]);
        }
    }

    /// Reads what there is; with `is_consuming` the credit goes back at once, otherwise later.
    fn read(&mut self, id: StreamId, is_consuming: bool) {
        while let Read::Bytes(bytes) = self.streams.read(id) {
            self.read.entry(id).or_default().extend_from_slice(&bytes);
            if is_consuming {
                self.streams.consume(id, bytes.len());
            } else {
                *self.unconsumed.entry(id).or_default() += bytes.len();
            }
        }
    }

    fn bytes_read(&self) -> usize {
        self.read.values().map(Vec::len).sum()
    }

    fn read_everything(&mut self) {
        for id in self.known.clone() {
            self.read(id, true);
            // What was read before without being consumed: its credit comes back now.
            self.streams.consume(id, self.unconsumed.remove(&id).unwrap_or(0));
        }
    }

    /// Moves everything that may leave the machine onto the wire.
    fn transmit(&mut self) {
        let mut payload = Vec::new();
        while let Some(transmit) = self.streams.poll_transmit(&mut payload) {
            let message = match transmit {
                Transmit::Data { stream, bytes, fin } => {
                    let payload = payload.concat();
                    assert_eq!(payload.len(), bytes);
                    assert!(bytes <= DATA_BYTES_MAX as usize);
                    StreamMessage::Data { stream, payload: payload.into(), fin }
                }
                Transmit::Message(message) => message,
            };
            payload.clear();
            self.outgoing.push_back(Wire::Message(message));
        }
        while self.streams.poll_event().is_some() {}
    }

    /// Receives one thing from the other end.
    fn receive(&mut self, wire: Wire) {
        match wire {
            Wire::Open(id) => {
                match self.streams.handle_open(id, Sort::Stream).expect("the other end follows the rules") {
                    Admission::Admitted => {
                        assert!(self.streams.adopt(id, Sort::Stream));
                        self.known.push(id);
                    }
                    Admission::Full => {
                        self.cut.push(id);
                        self.outgoing.push_back(Wire::Refuse(id));
                    }
                }
            }
            Wire::Refuse(id) => {
                self.cut.push(id);
                self.streams.abandon(id, End::new(Code::STREAM_LIMIT));
            }
            Wire::Message(message) => {
                if let StreamMessage::Reset { stream, .. } | StreamMessage::StopSending { stream, .. } =
                    &message
                {
                    self.cut.push(*stream);
                }
                self.streams.handle(message).expect("the other end follows the rules");
            }
        }
    }
}

/// Two machines that follow the rules.
pub(crate) fn run_pair(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut plugin = Side::new(Role::Plugin);
    let mut daemon = Side::new(Role::Daemon);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        match input.below(8) {
            0..=2 => plugin.act(&mut input),
            3..=5 => daemon.act(&mut input),
            6 => drop(deliver(&mut plugin, &mut daemon, input.below(16))),
            _ => drop(deliver(&mut daemon, &mut plugin, input.below(16))),
        }
        check(&plugin, &daemon);
        check(&daemon, &plugin);
    }
    settle(&mut plugin, &mut daemon);
}

/// Gives back how many things arrived.
fn deliver(from: &mut Side, to: &mut Side, count: usize) -> usize {
    from.transmit();
    let arriving: Vec<Wire> = from.outgoing.drain(..count.min(from.outgoing.len())).collect();
    let count = arriving.len();
    arriving.into_iter().for_each(|wire| to.receive(wire));
    count
}

/// What was read is the beginning of what was written.
fn check(reader: &Side, writer: &Side) {
    for (id, read) in &reader.read {
        let written = writer.written.get(id).map(Vec::as_slice).unwrap_or_default();
        assert!(written.starts_with(read), "stream {id}: bytes changed on their way");
    }
}

/// Everybody reads, and everything is delivered, until nothing moves any more. Then nothing may be missing.
fn settle(plugin: &mut Side, daemon: &mut Side) {
    let mut is_moving = true;
    while is_moving {
        let before = plugin.bytes_read() + daemon.bytes_read();
        plugin.read_everything();
        daemon.read_everything();
        is_moving = deliver(plugin, daemon, usize::MAX) + deliver(daemon, plugin, usize::MAX) > 0;
        is_moving |= plugin.bytes_read() + daemon.bytes_read() > before;
    }
    for (reader, writer) in [(&*plugin, &*daemon), (&*daemon, &*plugin)] {
        check(reader, writer);
        for (id, written) in &writer.written {
            let is_cut = reader.cut.contains(id) || writer.cut.contains(id);
            let read = reader.read.get(id).map(Vec::len).unwrap_or_default();
            assert!(
                is_cut || read == written.len(),
                "stream {id}: {read} of {} bytes arrived",
                written.len()
            );
        }
    }
}

/// One machine against messages that follow no rule.
pub(crate) fn run_hostile(bytes: &[u8]) {
    let mut input = Input(bytes);
    let role = if input.byte().is_multiple_of(2) { Role::Daemon } else { Role::Plugin };
    let mut side = Side::new(role);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        if input.below(3) == 0 {
            side.act(&mut input);
        } else if say(&mut side, &mut input).is_none() {
            // A violation ends the session, and everything in it.
            side.streams.end_session(End::new(Code::PROTOCOL));
            break;
        }
        side.transmit();
        side.outgoing.clear();
        for id in &side.known {
            let (_, _, allowance) = side.streams.accounts(*id).unwrap_or_default();
            assert!(allowance.is_none_or(|bytes| bytes <= WINDOW_BYTES), "more credit out than there may be");
        }
        // The daemon keeps the limit, for it is the daemon's memory; a plugin is told and believes it.
        assert!(
            role == Role::Plugin || side.streams.live_count() <= STREAMS_MAX,
            "more streams than the limit"
        );
    }
}

/// The other side says something. `None`: it broke a rule.
fn say(side: &mut Side, input: &mut Input<'_>) -> Option<()> {
    let id = StreamId::new(u32::try_from(input.below(16)).unwrap_or(0))?;
    let end = End::app(7);
    let message = match input.below(7) {
        0 => {
            if side.streams.handle_open(id, Sort::Stream).ok()? == Admission::Admitted
                && side.streams.adopt(id, Sort::Stream)
            {
                side.known.push(id);
            }
            return Some(());
        }
        1 => {
            return side.streams.handle_open(id, Sort::Flow).ok().map(drop);
        }
        2 => {
            let count = input.below(64);
            let payload = Bytes::copy_from_slice(input.take(count));
            StreamMessage::Data { stream: id, payload, fin: input.below(2) == 1 }
        }
        3 => StreamMessage::Window { stream: id, bytes: input.number() },
        4 => StreamMessage::Datagram { flow: id, payload: Bytes::copy_from_slice(input.take(9)) },
        5 => StreamMessage::Reset { stream: id, end },
        _ => StreamMessage::StopSending { stream: id, end },
    };
    side.streams.handle(message).ok()
}
