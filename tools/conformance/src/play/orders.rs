//! Steps that order an agent about (ORDERS.md), and offer it streams.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail, ensure};

use super::{BO, Play, number};
use crate::agent::random_hex;
use crate::codec::{Fields, Frame};
use crate::notation::{self, Variables};
use crate::pattern;
use crate::session::{OrderStream, SOON};
use crate::verdict::Stop;

const PLUGIN: &str = "plugin";
/// The protocol on which orders travel.
const ORDERS: &str = "/p2pos/conformance/1";

impl Play<'_> {
    /// True: it was one of ours.
    pub(super) fn order_step(&mut self, verb: &str, words: &[String], text: &str) -> Result<bool> {
        match verb {
            "order" => {
                let (name, rest) = text.split_once(' ').context("order NAME ORDER => ANSWER")?;
                let (order, wanted) = rest.split_once(" => ").context("an answer is missing")?;
                self.ask(name, order)?;
                self.answer(name, wanted)?;
            }
            "ask" => {
                let (name, order) = text.split_once(' ').context("ask NAME ORDER")?;
                self.ask(name, order)?;
            }
            "answer" => {
                let (name, wanted) = text.split_once(" => ").context("answer NAME => ANSWER")?;
                self.answer(name, wanted)?;
            }
            "done" => self.done(words.first().context("done NAME")?)?,
            "offer" => {
                let variable =
                    words.first().context("offer ?STREAM PROTOCOL")?.trim_start_matches('?').to_owned();
                self.offer(&variable, words.get(1).context("a protocol is missing")?, &words[2..])?;
            }
            "take" => {
                let variable = words.first().context("take ?STREAM NAME")?.trim_start_matches('?').to_owned();
                let name = words.get(1).context("an order stream is missing")?.clone();
                self.take(&variable, &name, words.get(2).map_or("stream", String::as_str))?;
            }
            "open" => {
                let variable = words.first().context("open ?STREAM NAME")?.trim_start_matches('?').to_owned();
                let name = words.get(1).context("an order stream is missing")?.clone();
                self.open(&variable, &name, words.get(2).map_or("stream", String::as_str))?;
            }
            "close" => self.close(words)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn ask(&mut self, name: &str, order: &str) -> Result<()> {
        if !self.session(PLUGIN)?.orders.contains_key(name) {
            self.offer("order", ORDERS, &[])?;
            let stream = self.variables.get("order")?.parse()?;
            let session = self.session(PLUGIN)?;
            session.orders.insert(name.to_owned(), OrderStream { stream, ..OrderStream::default() });
            session.until("Accept of the order stream", SOON, |session| {
                let is_it = |frame: &Frame| frame.name == "accept" && frame.fields.number("stream") == stream;
                let at = session.queue.iter().position(is_it);
                Ok(at.and_then(|at| session.queue.remove(at)).map(|_| ()))
            })?;
        }
        let session = self.session(PLUGIN)?;
        let stream = session.orders.get(name).context("it was just made")?.stream;
        session.note(format!("kit  orders {name}: {order}"));
        let line = Fields::default().and("stream", stream).and_bytes("payload", format!("{order}\n"));
        session.send(&Frame::new(0, "data", line))
    }

    fn answer(&mut self, name: &str, wanted: &str) -> Result<()> {
        let session = self.session(PLUGIN)?;
        let line = session.until(&format!("an answer on order stream {name}"), SOON, |session| {
            let order = session.orders.get_mut(name).context("nothing was ordered there")?;
            let Some(end) = order.said.iter().position(|byte| *byte == b'\n') else {
                ensure!(!order.is_finished, "it finished order stream {name} without an answer");
                return Ok(None);
            };
            let line: Vec<u8> = order.said.drain(..=end).collect();
            Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()))
        })?;
        session.note(format!("     answers {name}: {line}"));
        if line == "unsupported" {
            return Err(Stop::Unsupported("an order that it does not know".to_owned()).into());
        }
        let does_fit = fits(wanted, &line, &mut self.variables)?;
        ensure!(does_fit, "it answered {line:?}");
        Ok(())
    }

    /// The kit finishes an order stream, and the agent does.
    fn done(&mut self, name: &str) -> Result<()> {
        let session = self.session(PLUGIN)?;
        let stream = session.orders.get(name).context("nothing was ordered there")?.stream;
        session.send(&Frame::new(0, "data", Fields::default().and("stream", stream).and("fin", 1)))?;
        session.until("the agent's fin on the order stream", SOON, |session| {
            Ok(session.orders.get(name).is_some_and(|order| order.is_finished).then_some(()))
        })
    }

    fn offer(&mut self, variable: &str, protocol: &str, more: &[String]) -> Result<()> {
        let name = match protocol.strip_prefix('/') {
            Some(_) => protocol.to_owned(),
            None => format!("/p2pos/conformance-{protocol}/1"),
        };
        if !self.registered.contains(&name) {
            return Err(Stop::Unsupported(format!("it did not register {name}")).into());
        }
        let session = self.session(PLUGIN)?;
        let (id, rid) = (session.take_id(), session.take_rid());
        let mut line = format!(
            "incoming rid={rid} stream={id} peer={BO} protocol={name} path=LOOPBACK petname=bo is_contact=true"
        );
        match protocol {
            "detached" => {
                let ticket = random_hex(16)?;
                write!(line, " ticket=0x{ticket}")?;
                self.variables.set("ticket", format!("0x{ticket}"));
            }
            "datagram" => line.push_str(" kind=DATAGRAM datagram_max=1200"),
            _ => {}
        }
        let mut words = notation::words(&line);
        words.extend_from_slice(more);
        self.variables.set(variable, id.to_string());
        self.session(PLUGIN)?.send(&notation::frame(&words)?)
    }

    /// Offers a stream, and has an order stream take it.
    fn take(&mut self, variable: &str, name: &str, kind: &str) -> Result<()> {
        let order = if kind == "stream" { "take".to_owned() } else { format!("take {kind}") };
        self.ask(name, &order)?;
        self.offer(variable, kind, &[])?;
        let id = self.variables.get(variable)?.to_owned();
        self.frame_step(PLUGIN, "expect", &notation::words(&format!("accept rid=* stream={id}")))?;
        if kind == "detached" {
            let attach = format!("{variable} {}", self.variables.get("ticket")?);
            self.plugin_step("attach", &notation::words(&attach))?;
            self.plugin_step("attached", &[variable.to_owned()])?;
        }
        let max = if kind == "datagram" { " 1200" } else { "" };
        self.answer(name, &format!("ok {BO} /p2pos/conformance-{kind}/1{max}"))
    }

    /// Has an order stream open a stream at bo, who takes it.
    fn open(&mut self, variable: &str, name: &str, kind: &str) -> Result<()> {
        let kind_word = if kind == "stream" { String::new() } else { format!(" {kind}") };
        self.ask(name, &format!("open {BO} /p2pos/far/1{kind_word}"))?;
        let kind_fields = match kind {
            "detached" => "kind=0..1 attachment=SOCKET",
            "datagram" => "kind=DATAGRAM",
            _ => "",
        };
        // Without a kind stands for STREAM, as STREAM does.
        let kind_fields = kind_fields.replace("kind=0..1 ", "");
        let wanted =
            format!("open rid=?open-rid stream=?{variable} peer={BO} protocols=/p2pos/far/1 {kind_fields}");
        self.frame_step(PLUGIN, "expect", &notation::words(&wanted))?;
        let (rid, id) = (self.variables.get("open-rid")?, self.variables.get(variable)?);
        let mut opened = format!("opened rid={rid} stream={id} protocol=/p2pos/far/1 path=LOOPBACK");
        match kind {
            "detached" => {
                let ticket = random_hex(16)?;
                write!(opened, " ticket=0x{ticket}")?;
                self.variables.set("ticket", format!("0x{ticket}"));
            }
            "datagram" => opened.push_str(" datagram_max=1200"),
            _ => {}
        }
        let frame = notation::frame(&notation::words(&opened))?;
        self.session(PLUGIN)?.send(&frame)?;
        if kind == "detached" {
            let attach = format!("{variable} {}", self.variables.get("ticket")?);
            self.plugin_step("attach", &notation::words(&attach))?;
            self.plugin_step("attached", &[variable.to_owned()])?;
        }
        let max = if kind == "datagram" { " 1200" } else { "" };
        self.answer(name, &format!("ok /p2pos/far/1{max}"))
    }

    /// The daemon's last word, with the bytes as they were counted.
    fn close(&mut self, words: &[String]) -> Result<()> {
        let stream: u64 = number(words, 0, "the stream")?;
        let session = self.session(PLUGIN)?;
        let entry = session.book.entries.get(&stream).context("there is no such stream")?;
        let cause = match words.get(1).map(String::as_str) {
            Some("finished") => 1,
            Some("local") => 2,
            Some("remote") => 3,
            _ => bail!("close STREAM finished, local or remote"),
        };
        let mut fields = Fields::default().and("stream", stream).and("cause", cause);
        if let Some(code) = words.get(2) {
            fields = fields.and("code", code.parse()?);
        }
        if let Some(app_code) = words.get(3) {
            fields = fields.and("app_code", app_code.parse()?);
        }
        fields = fields.and("bytes_in", entry.ours.bytes).and("bytes_out", entry.theirs.bytes);
        session.send(&Frame::new(0, "stream_closed", fields))
    }
}

/// Compares an answer with what a case wants: word by word; `*` any word, `?name` remembers it, `a|b` one of these, `sum:N:SEED` (or
/// `sum:N:SEED:FROM`) the sum of pattern bytes, `...` whatever follows.
fn fits(wanted: &str, line: &str, variables: &mut Variables) -> Result<bool> {
    let mut said = line.split(' ');
    for word in wanted.split_whitespace() {
        if word == "..." {
            return Ok(true);
        }
        let Some(is) = said.next() else { return Ok(false) };
        if let Some(name) = word.strip_prefix('?') {
            variables.set(name, is);
        } else if let Some(sum) = word.strip_prefix("sum:") {
            let numbers = sum.split(':').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
            let (count, seed) = (numbers[0], *numbers.get(1).context("sum:N:SEED")?);
            let from = numbers.get(2).copied().unwrap_or(0);
            let bytes = (from..from + count).map(|at| pattern::byte(seed, at));
            if is != pattern::sum(bytes).to_string() {
                return Ok(false);
            }
        } else if word != "*" && !word.split('|').any(|one| one == is) {
            return Ok(false);
        }
    }
    Ok(said.next().is_none())
}
