//! Keeps the books of one session, and finds what the other side may not do: whatever a case is about, these rules hold in it.
//!
//! Counts credit, knows which ids were opened and which directions are over, which requests wait. Judges only what was received;
//! what the kit itself sends may be as wrong as a case wants. It is lenient about what may have crossed on the way.

use std::collections::{BTreeMap, BTreeSet};

use p2pos_plugin_protocol::limits::{CREDIT_BYTES_MAX, DATA_BYTES_MAX, STREAM_WINDOW_BYTES};

use crate::codec::Frame;

/// Whom the kit plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The other side is a plugin.
    Daemon,
    /// The other side is a daemon.
    Plugin,
}

/// What an id stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Bytes in Data frames.
    Stream,
    /// Datagrams.
    Flow,
    /// A socket of its own.
    Detached,
}

/// One direction of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    /// Bytes that may still be sent.
    pub credit: u64,
    /// Bytes that were sent.
    pub bytes: u64,
    /// Bytes of credit given since the beginning.
    pub granted: u64,
    /// fin was sent.
    pub is_finished: bool,
    /// Its reader has left.
    pub is_stopped: bool,
}

/// One stream or flow.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What it is.
    pub sort: Sort,
    /// What the other side sends.
    pub theirs: Way,
    /// What the kit sends.
    pub ours: Way,
    /// Not yet Opened or Accepted.
    pub is_pending: bool,
    /// The other side has reset it.
    pub is_reset_by_them: bool,
    /// The other side has said its last word: Reject, the bad answer to Open, StreamClosed.
    pub is_left_by_them: bool,
    /// The kit has reset, failed or closed it: whatever still comes has crossed that.
    pub is_left_by_us: bool,
}

/// The books.
#[derive(Debug)]
pub struct Book {
    part: Part,
    /// Streams and flows by id.
    pub entries: BTreeMap<u64, Entry>,
    /// What the other side may send on a fresh stream.
    pub their_window: u64,
    /// What the kit may send on a fresh stream.
    pub our_window: u64,
    /// Largest Data payload that the other side may send.
    pub data_bytes_max: u64,
    /// The plugin gives no credit.
    pub is_auto_window: bool,
    /// Whether the handshake is over.
    pub is_open: bool,
    highest_opened: u64,
    /// Requests of theirs that the kit has not answered.
    pub asked_by_them: BTreeSet<u64>,
    asked_by_us: BTreeSet<u64>,
    /// What the other side did that it may not, in the order of its doing.
    pub broken: Vec<String>,
}

/// Requests of a plugin; of a daemon only Incoming.
const REQUESTS: &[&str] = &[
    "open",
    "incoming",
    "register",
    "unregister",
    "subscribe",
    "contact_list",
    "cancel",
    "ready",
    "status",
    "log",
];
const ANSWERS: &[&str] = &["opened", "accept", "reject", "done", "contacts"];
const OF_DAEMON_ONLY: &[&str] = &[
    "stream_closed",
    "opened",
    "incoming",
    "welcome",
    "challenge",
    "refused",
    "attached",
    "event",
    "contacts",
    "shutdown",
];
const OF_PLUGIN_ONLY: &[&str] = &[
    "open",
    "accept",
    "reject",
    "hello",
    "auth_proof",
    "attach",
    "register",
    "unregister",
    "cancel",
    "ready",
    "status",
    "log",
    "subscribe",
    "contact_list",
];
const HANDSHAKE: &[&str] = &["hello", "auth_proof", "attach", "welcome", "challenge", "refused", "attached"];

impl Book {
    /// An empty book, with the defaults of [S-FLOW-2].
    #[must_use]
    pub fn new(part: Part) -> Self {
        Self {
            part,
            entries: BTreeMap::new(),
            their_window: STREAM_WINDOW_BYTES.into(),
            our_window: STREAM_WINDOW_BYTES.into(),
            data_bytes_max: DATA_BYTES_MAX.into(),
            is_auto_window: false,
            is_open: false,
            highest_opened: 0,
            asked_by_them: BTreeSet::new(),
            asked_by_us: BTreeSet::new(),
            broken: Vec::new(),
        }
    }

    fn complain(&mut self, what: impl Into<String>) {
        self.broken.push(what.into());
    }

    fn enter(&mut self, id: u64, sort: Sort) {
        let ours = Way { credit: self.our_window, ..Way::default() };
        let theirs = Way { credit: self.their_window, ..Way::default() };
        let entry = Entry {
            sort,
            theirs,
            ours,
            is_pending: true,
            is_reset_by_them: false,
            is_left_by_them: false,
            is_left_by_us: false,
        };
        self.entries.insert(id, entry);
    }

    /// Notes what the kit sends.
    pub fn sent(&mut self, frame: &Frame) {
        let fields = &frame.fields;
        let id = fields.number("stream");
        if REQUESTS.contains(&frame.name.as_str()) && frame.rid > 0 {
            self.asked_by_us.insert(frame.rid);
        }
        if frame.rid > 0 && (ANSWERS.contains(&frame.name.as_str()) || frame.name == "error") {
            self.asked_by_them.remove(&frame.rid);
        }
        match frame.name.as_str() {
            "open" | "incoming" => self.enter(id, sort_of(frame)),
            "data" => self.ours(id, |way| {
                way.bytes += fields.bytes("payload").len() as u64;
                way.credit = way.credit.saturating_sub(fields.bytes("payload").len() as u64);
                way.is_finished |= fields.number("fin") > 0;
            }),
            "window" => self.theirs(id, |way| {
                way.credit += fields.number("bytes");
                way.granted += fields.number("bytes");
            }),
            "stop_sending" => self.theirs(id, |way| way.is_stopped = true),
            "reset" | "stream_closed" | "reject" => self.entry(id, |entry| entry.is_left_by_us = true),
            "error" if id > 0 => self.entry(id, |entry| entry.is_left_by_us = true),
            "opened" | "accept" => self.entry(id, |entry| entry.is_pending = false),
            _ => {}
        }
    }

    /// A frame that the kit sent as mere bytes may be answered: with its rid, and about the stream that it would open.
    pub fn may_be_answered(&mut self, frame: &Frame) {
        self.asked_by_us.insert(frame.rid);
        let id = frame.fields.number("stream");
        if frame.name == "open" && !self.entries.contains_key(&id) {
            self.enter(id, sort_of(frame));
        }
    }

    fn entry(&mut self, id: u64, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries.get_mut(&id) {
            change(entry);
        }
    }

    fn ours(&mut self, id: u64, change: impl FnOnce(&mut Way)) {
        self.entry(id, |entry| change(&mut entry.ours));
    }

    fn theirs(&mut self, id: u64, change: impl FnOnce(&mut Way)) {
        self.entry(id, |entry| change(&mut entry.theirs));
    }

    /// Notes what the other side sent, and what is wrong about it.
    pub fn received(&mut self, frame: &Frame) {
        let name = frame.name.as_str();
        if name.is_empty() {
            return self.complain("a frame without a body that version 1 knows [S-EVO-3]");
        }
        let never = match self.part {
            Part::Daemon => OF_DAEMON_ONLY,
            Part::Plugin => OF_PLUGIN_ONLY,
        };
        if never.contains(&name) {
            self.complain(format!("{name} is not its to say [S-MSG-5]"));
        }
        if self.is_open && HANDSHAKE.contains(&name) {
            self.complain(format!("{name} after the handshake [S-MSG-5]"));
        }
        self.requests(frame);
        match name {
            "open" | "incoming" => self.opens(frame),
            "data" => self.data(frame),
            "window" => self.window(frame),
            "datagram" => self.datagram(frame.fields.number("flow")),
            "stop_sending" => self.stop(frame.fields.number("stream")),
            "reset" | "stream_closed" | "accept" | "reject" | "opened" | "error" => self.word(frame),
            _ => {}
        }
    }

    fn requests(&mut self, frame: &Frame) {
        let name = frame.name.as_str();
        if REQUESTS.contains(&name) && frame.rid > 0 && !self.asked_by_them.insert(frame.rid) {
            self.complain(format!("{name} with rid {}, whose answer is still open [S-REQ-1]", frame.rid));
        }
        let is_answer = ANSWERS.contains(&name) || (name == "error" && frame.rid > 0);
        if is_answer && !self.asked_by_us.remove(&frame.rid) && frame.rid > 0 {
            self.complain(format!(
                "a second answer, or one that nobody asked for: {name} rid={} [S-REQ-3]",
                frame.rid
            ));
        }
        if is_answer && frame.rid == 0 {
            self.complain(format!("{name} with rid 0: the good answer is left out then [S-REQ-2]"));
        }
    }

    fn opens(&mut self, frame: &Frame) {
        let id = frame.fields.number("stream");
        let is_odd = id % 2 == 1;
        if id == 0 || is_odd != (self.part == Part::Daemon) {
            self.complain(format!("{} takes the id {id} [S-STREAM-1]", frame.name));
        } else if id <= self.highest_opened {
            self.complain(format!(
                "{} takes the id {id} after {} [S-STREAM-1]",
                frame.name, self.highest_opened
            ));
        }
        if frame.rid == 0 {
            self.complain(format!("{} without a rid [S-REQ-2]", frame.name));
        }
        self.highest_opened = self.highest_opened.max(id);
        self.enter(id, sort_of(frame));
    }

    fn data(&mut self, frame: &Frame) {
        let id = frame.fields.number("stream");
        let bytes = frame.fields.bytes("payload").len() as u64;
        let is_fin = frame.fields.number("fin") > 0;
        let Some(entry) = self.known(id, "data") else { return };
        let way = entry.theirs;
        let wrong = match entry.sort {
            Sort::Flow => Some("is a flow [S-DGRAM-3]".to_owned()),
            Sort::Detached => Some("has a socket of its own [S-ATTACH-4]".to_owned()),
            Sort::Stream if way.is_finished => Some("was finished by it [S-STREAM-5]".to_owned()),
            Sort::Stream if entry.is_reset_by_them => Some("was reset by it [S-STREAM-7]".to_owned()),
            Sort::Stream if entry.is_left_by_them => Some("was closed by it [S-STREAM-10]".to_owned()),
            Sort::Stream if entry.is_left_by_us => None,
            Sort::Stream if entry.is_pending && id % 2 == u64::from(self.part == Part::Plugin) => {
                Some("is not opened or accepted yet [S-STREAM-3]".to_owned())
            }
            Sort::Stream if bytes > way.credit => {
                Some(format!("had {} bytes of credit, {bytes} came [S-FLOW-3]", way.credit))
            }
            Sort::Stream => None,
        };
        if let Some(wrong) = wrong {
            self.complain(format!("data on {id}, which {wrong}"));
        }
        if bytes > self.data_bytes_max {
            self.complain(format!(
                "a payload of {bytes} bytes, the limit is {} [S-STREAM-11]",
                self.data_bytes_max
            ));
        }
        let is_counted = !(self.part == Part::Plugin && self.is_auto_window);
        self.theirs(id, |way| {
            way.bytes += bytes;
            way.is_finished |= is_fin;
            if is_counted {
                way.credit = way.credit.saturating_sub(bytes);
            }
        });
    }

    fn window(&mut self, frame: &Frame) {
        let (id, bytes) = (frame.fields.number("stream"), frame.fields.number("bytes"));
        let Some(entry) = self.known(id, "window") else { return };
        if entry.sort != Sort::Stream {
            return self.complain(format!(
                "window on {id}, which is no stream of Data frames [S-DGRAM-3] [S-ATTACH-4]"
            ));
        }
        if entry.is_left_by_them {
            return self.complain(format!("window on {id}, which it has ended [S-STREAM-10]"));
        }
        let granted = entry.ours.granted + bytes;
        if granted > entry.ours.bytes {
            self.complain(format!(
                "{granted} bytes of credit were given on {id}, only {} were ever sent to be consumed [S-FLOW-4]",
                entry.ours.bytes
            ));
        }
        if entry.ours.credit + bytes > CREDIT_BYTES_MAX.into() {
            self.complain(format!("the credit of {id} exceeds 16 MiB [S-FLOW-4]"));
        }
        self.ours(id, |way| {
            way.credit += bytes;
            way.granted = granted;
        });
    }

    fn datagram(&mut self, id: u64) {
        let Some(entry) = self.known(id, "datagram") else { return };
        if entry.sort != Sort::Flow {
            self.complain(format!("datagram on {id}, which is no flow [S-DGRAM-3]"));
        }
    }

    fn stop(&mut self, id: u64) {
        let Some(entry) = self.known(id, "stop_sending") else { return };
        if entry.sort != Sort::Stream {
            self.complain(format!(
                "stop_sending on {id}, which is no stream of Data frames [S-DGRAM-3] [S-ATTACH-4]"
            ));
        }
        self.ours(id, |way| way.is_stopped = true);
    }

    fn word(&mut self, frame: &Frame) {
        let id = frame.fields.number("stream");
        if frame.name == "error" && id == 0 {
            return;
        }
        let Some(entry) = self.known(id, &frame.name) else { return };
        // A plugin that reset what it was opening is still owed the answer.
        let is_owed = entry.is_pending && frame.rid > 0;
        if entry.is_left_by_them && self.part == Part::Plugin && frame.name != "stream_closed" && !is_owed {
            self.complain(format!("{} on {id} after its end [S-STREAM-10]", frame.name));
        }
        let name = frame.name.as_str();
        self.entry(id, |entry| match name {
            "opened" | "accept" => entry.is_pending = false,
            // A complaint about a datagram ends nothing.
            "error" if frame.rid == 0 => {}
            "reset" => entry.is_reset_by_them = true,
            _ => entry.is_left_by_them = true,
        });
    }

    fn known(&mut self, id: u64, name: &str) -> Option<Entry> {
        let entry = self.entries.get(&id).copied();
        if entry.is_none() {
            self.complain(format!("{name} on {id}, which was never opened [S-STREAM-9]"));
        }
        entry
    }
}

fn sort_of(frame: &Frame) -> Sort {
    let fields = &frame.fields;
    let has_socket = fields.number("attachment") == 2 || !fields.bytes("ticket").is_empty();
    match (fields.number("kind"), has_socket) {
        (2, _) => Sort::Flow,
        (_, true) => Sort::Detached,
        _ => Sort::Stream,
    }
}
