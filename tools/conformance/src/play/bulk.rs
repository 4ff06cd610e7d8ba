//! Steps about many bytes: the pattern, in pieces, with and without regard to credit.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::{Play, number};
use crate::codec::{Fields, Frame};
use crate::notation;
use crate::pattern;
use crate::session::Session;

/// Longest that a transfer may take without a byte moving.
const STALL_MAX: Duration = Duration::from_secs(10);

/// One direction of a transfer.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    bytes: usize,
    seed: usize,
    ends_with_fin: bool,
    done: usize,
    has_fin: bool,
}

impl Part {
    fn read(words: &[String]) -> Result<Self> {
        Ok(Self {
            bytes: number(words, 1, "how many bytes")?,
            seed: number(words, 2, "the seed")?,
            ends_with_fin: words.iter().any(|word| word == "fin"),
            ..Self::default()
        })
    }

    const fn is_done(&self) -> bool {
        self.done == self.bytes && self.ends_with_fin == self.has_fin
    }
}

impl Play<'_> {
    /// True: it was one of ours.
    pub(super) fn bulk_step(&mut self, name: &str, verb: &str, words: &[String]) -> Result<bool> {
        if !["supply", "gather", "exchange", "flood"].contains(&verb) {
            return Ok(false);
        }
        let stream = number(words, 0, "the stream")?;
        let part = Part::read(words)?;
        let keeps = words.iter().any(|word| word == "keep");
        let session = self.session(name)?;
        match verb {
            "supply" => transfer(session, stream, part, Part::default(), keeps)?,
            "gather" => transfer(session, stream, Part::default(), part, keeps)?,
            "exchange" => transfer(session, stream, part, part, keeps)?,
            _ => flood(session, stream, part)?,
        }
        Ok(true)
    }
}

/// Sends and receives at the same time, within the credit, and gives credit for what came unless it is kept.
fn transfer(session: &mut Session, stream: u64, mut out: Part, mut back: Part, keeps: bool) -> Result<()> {
    let mut moved = Instant::now();
    while !(out.is_done() && back.is_done()) {
        let has_sent = send_some(session, stream, &mut out)?;
        let has_come = !back.is_done() && take_some(session, stream, &mut back, keeps)?;
        if has_sent || has_come {
            moved = Instant::now();
            // What has come meanwhile may be credit.
            while session.pump(Instant::now())? {}
            continue;
        }
        if !session.pump(moved + STALL_MAX)? {
            ensure!(!session.is_over, "it hung up in the middle");
            bail!(
                "nothing moved for {} s: {} of {} bytes sent, {} of {} received (fin: {})",
                STALL_MAX.as_secs(),
                out.done,
                out.bytes,
                back.done,
                back.bytes,
                back.has_fin
            );
        }
    }
    Ok(())
}

fn send_some(session: &mut Session, stream: u64, part: &mut Part) -> Result<bool> {
    let Some(entry) = session.book.entries.get(&stream) else { bail!("nothing was opened as {stream}") };
    let credit = if session.book.is_auto_window { usize::MAX } else { usize::try_from(entry.ours.credit)? };
    let most = usize::try_from(session.book.data_bytes_max)?;
    let count = (part.bytes - part.done).min(credit).min(most);
    let is_last = part.done + count == part.bytes && part.ends_with_fin && !part.has_fin;
    if count == 0 && !is_last {
        return Ok(false);
    }
    send_piece(session, stream, part, count, is_last)?;
    Ok(true)
}

fn send_piece(
    session: &mut Session,
    stream: u64,
    part: &mut Part,
    count: usize,
    is_last: bool,
) -> Result<()> {
    let payload: Vec<u8> = (part.done..part.done + count).map(|at| pattern::byte(part.seed, at)).collect();
    let mut fields = Fields::default().and("stream", stream);
    if count > 0 {
        fields = fields.and_bytes("payload", payload);
    }
    if is_last {
        fields = fields.and("fin", 1);
        part.has_fin = true;
    }
    session.send(&Frame::new(0, "data", fields))?;
    part.done += count;
    Ok(())
}

fn take_some(session: &mut Session, stream: u64, part: &mut Part, keeps: bool) -> Result<bool> {
    let of_stream = |frame: &Frame| frame.fields.number("stream") == stream;
    if let Some(end) = session.queue.iter().find(|frame| frame.name == "reset" && of_stream(frame)) {
        bail!("it said {} in the middle", notation::show(end));
    }
    let Some(at) = session.queue.iter().position(|frame| frame.name == "data" && of_stream(frame)) else {
        return Ok(false);
    };
    let Some(frame) = session.queue.remove(at) else { return Ok(false) };
    let payload = frame.fields.bytes("payload");
    for (offset, byte) in payload.iter().enumerate() {
        let place = part.done + offset;
        ensure!(
            *byte == pattern::byte(part.seed, place),
            "byte {place} of stream {stream} is {byte}, not {} [S-STREAM-4]",
            pattern::byte(part.seed, place)
        );
    }
    part.done += payload.len();
    ensure!(part.done <= part.bytes, "{} bytes came, {} were ordered [S-STREAM-4]", part.done, part.bytes);
    part.has_fin = frame.fields.number("fin") > 0;
    ensure!(
        !part.has_fin || (part.ends_with_fin && part.done == part.bytes),
        "fin came after {} of {} bytes [S-STREAM-5]",
        part.done,
        part.bytes
    );
    let is_counted = !keeps && !payload.is_empty() && !part.has_fin;
    if is_counted {
        let window = Fields::default().and("stream", stream).and("bytes", payload.len() as u64);
        session.send(&Frame::new(0, "window", window))?;
    }
    Ok(true)
}

/// Sends without regard to credit.
fn flood(session: &mut Session, stream: u64, mut part: Part) -> Result<()> {
    let most = usize::try_from(session.book.data_bytes_max)?;
    while !part.is_done() {
        let count = (part.bytes - part.done).min(most);
        let is_last = part.done + count == part.bytes && part.ends_with_fin;
        send_piece(session, stream, &mut part, count, is_last)?;
    }
    Ok(())
}
