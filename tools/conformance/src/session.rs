//! One session as the kit has it: the wire, the books, what came and nobody has looked at, and a trace for whoever must understand a
//! failure. Answers Ping by itself; knows the order streams (ORDERS.md), because what comes on them is no case's subject.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use p2pos_plugin_protocol::limits::{FRAME_BYTES_MAX, PREFIX_BYTES};

use crate::book::{Book, Part};
use crate::codec::{Fields, Frame};
use crate::notation;
use crate::wire::{Incoming, Wire};

/// How long the kit waits for anything that should come at once. Nothing waits for it when all is well; a loaded machine needs some.
pub const SOON: Duration = Duration::from_secs(10);
/// Lines of a trace that are kept: the last ones are those that tell.
const TRACE_LINES_MAX: usize = 200;

/// One order stream.
#[derive(Debug, Default)]
pub struct OrderStream {
    /// Its id.
    pub stream: u64,
    /// What the agent has written and nobody has read.
    pub said: Vec<u8>,
    /// Whether the agent has finished.
    pub is_finished: bool,
}

/// A session with whoever is judged.
#[derive(Debug)]
pub struct Session {
    /// The socket.
    pub wire: Wire,
    /// The books.
    pub book: Book,
    /// Frames that came and nobody has asked for yet.
    pub queue: VecDeque<Frame>,
    /// Order streams by their names.
    pub orders: BTreeMap<String, OrderStream>,
    /// What was said, in lines.
    pub trace: VecDeque<String>,
    /// The other side has closed.
    pub is_over: bool,
    next_id: u64,
    next_rid: u64,
    next_nonce: u64,
}

impl Session {
    /// A session on a fresh connection.
    #[must_use]
    pub fn new(wire: Wire, part: Part) -> Self {
        Self {
            wire,
            book: Book::new(part),
            queue: VecDeque::new(),
            orders: BTreeMap::new(),
            trace: VecDeque::new(),
            is_over: false,
            next_id: if part == Part::Daemon { 2 } else { 1 },
            next_rid: 1,
            next_nonce: 0x5e77_1e00,
        }
    }

    /// An id that the kit may open next.
    pub fn take_id(&mut self) -> u64 {
        self.next_id += 2;
        self.next_id - 2
    }

    /// A rid that the kit has not used yet.
    pub fn take_rid(&mut self) -> u64 {
        self.next_rid += 1;
        self.next_rid - 1
    }

    /// Adds a line to the trace.
    pub fn note(&mut self, line: String) {
        if self.trace.len() == TRACE_LINES_MAX {
            self.trace.pop_front();
        }
        self.trace.push_back(line);
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// If the other side does not read or is gone.
    pub fn send(&mut self, frame: &Frame) -> Result<()> {
        self.book.sent(frame);
        self.note(format!("kit  {}", notation::show(frame)));
        self.wire.write(&frame.to_bytes()?)
    }

    /// Sends bytes that are what they are.
    ///
    /// # Errors
    /// As [`Session::send`].
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        // Whatever it asks may be answered.
        if let Some(Ok(frame)) = bytes.get(PREFIX_BYTES..).map(Frame::from_body) {
            self.book.may_be_answered(&frame);
        }
        self.note(format!(
            "kit  {} raw bytes: {}",
            bytes.len(),
            notation::hex(&bytes[..bytes.len().min(40)])
        ));
        self.wire.write(bytes)
    }

    /// Takes in one frame, if one comes until then. False: none came.
    ///
    /// # Errors
    /// If what comes is no frame, or breaks a rule.
    pub fn pump(&mut self, deadline: Instant) -> Result<bool> {
        if self.is_over {
            return Ok(false);
        }
        match self.wire.next(FRAME_BYTES_MAX, deadline)? {
            Incoming::Late => Ok(false),
            Incoming::End(left) => {
                self.is_over = true;
                self.note(format!("     end of file{}", if left > 0 { ", inside a frame" } else { "" }));
                Ok(false)
            }
            Incoming::Frame(body) => {
                let frame = Frame::from_body(&body).context("a frame that is no protobuf [S-MSG-4]")?;
                self.note(format!("     {}", notation::show(&frame)));
                self.take_in(frame)?;
                Ok(true)
            }
        }
    }

    fn take_in(&mut self, frame: Frame) -> Result<()> {
        self.book.received(&frame);
        if let Some(what) = self.book.broken.first() {
            bail!("it broke a rule: {what}");
        }
        match frame.name.as_str() {
            "ping" => {
                let pong = Frame::new(frame.rid, "pong", frame.fields);
                // Whoever asks and goes at once does not hear the answer.
                drop(self.send(&pong));
            }
            "data" => {
                let id = frame.fields.number("stream");
                match self.orders.values_mut().find(|order| order.stream == id) {
                    Some(order) => {
                        order.said.extend_from_slice(frame.fields.bytes("payload"));
                        order.is_finished |= frame.fields.number("fin") > 0;
                        let bytes = frame.fields.bytes("payload").len() as u64;
                        if bytes > 0 && !order.is_finished && !self.book.is_auto_window {
                            let window = Fields::default().and("stream", id).and("bytes", bytes);
                            self.send(&Frame::new(0, "window", window))?;
                        }
                    }
                    None => self.queue.push_back(frame),
                }
            }
            "window" if self.is_order(frame.fields.number("stream")) => {}
            _ => self.queue.push_back(frame),
        }
        Ok(())
    }

    fn is_order(&self, id: u64) -> bool {
        self.orders.values().any(|order| order.stream == id)
    }

    /// Waits until `ready` gives something, taking in what comes.
    ///
    /// # Errors
    /// If nothing does within `within`, or the other side ends.
    pub fn until<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut ready: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(found) = ready(self)? {
                return Ok(found);
            }
            if !self.pump(deadline)? {
                match ready(self)? {
                    Some(found) => return Ok(found),
                    None if self.is_over => bail!("it hung up instead of {what}"),
                    None => bail!("{:.0} s without {what}", within.as_secs_f64()),
                }
            }
        }
    }

    /// Asks for a Pong and waits for it: what was said before has been taken in then.
    ///
    /// # Errors
    /// If it does not come.
    pub fn settle(&mut self) -> Result<()> {
        self.next_nonce += 1;
        let (nonce, rid) = (self.next_nonce, self.take_rid());
        self.send(&Frame::new(rid, "ping", Fields::default().and("nonce", nonce)))?;
        self.until("Pong with the same nonce and rid [S-PING-1]", SOON, |session| {
            let is_it = |frame: &Frame| frame.name == "pong" && frame.fields.number("nonce") == nonce;
            let Some(at) = session.queue.iter().position(is_it) else { return Ok(None) };
            let pong = session.queue.remove(at).context("it was just there")?;
            anyhow::ensure!(pong.rid == rid, "Pong with rid {} instead of {rid} [S-PING-1]", pong.rid);
            Ok(Some(()))
        })
    }
}
