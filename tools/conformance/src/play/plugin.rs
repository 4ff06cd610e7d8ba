//! Steps about the process that is judged: its start, the handshake, its sockets, its end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::{OWN, Play, Subject, number};
use crate::agent::Agent;
use crate::book::Part;
use crate::codec::{Fields, Frame};
use crate::notation;
use crate::pattern;
use crate::session::{SOON, Session};
use crate::wire::Incoming;

const PLUGIN: &str = "plugin";

impl Play<'_> {
    /// True: it was one of ours.
    pub(super) fn plugin_step(&mut self, verb: &str, words: &[String]) -> Result<bool> {
        match verb {
            "launch" => {
                self.start()?;
                self.welcome(words)?;
                self.serve()?;
            }
            "start" => self.start()?,
            "welcome" => self.welcome(words)?,
            "serve" => self.serve()?,
            "exit" => {
                let code: i32 = number(words, 0, "the exit code")?;
                let status = self.agent()?.exit(SOON)?;
                ensure!(status.code() == Some(code), "it ended with {status}");
            }
            "ends" => {
                self.agent()?.exit(SOON)?;
            }
            "alive" => ensure!(self.agent()?.is_running()?, "it has ended"),
            "stdin-close" => self.agent()?.close_stdin(),
            "attach" => self.attach(words)?,
            "attached" => self.attached(words.first().context("attached NAME")?)?,
            "raw" => self.raw(words)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn agent(&mut self) -> Result<&mut Agent> {
        self.agent.as_mut().context("it was not started yet")
    }

    /// Starts the process and takes its Hello.
    fn start(&mut self) -> Result<()> {
        let Subject::Plugin(launch) = self.subject else { bail!("this case judges a plugin") };
        let mut agent = Agent::start(launch)?;
        let connection = agent.connection();
        let token = agent.token.clone();
        self.agent = Some(agent);
        self.sessions.insert(PLUGIN.to_owned(), Session::new(connection?, Part::Daemon));
        let wanted = format!(
            "hello magic=p2pOS min_version=0..1 max_version=1..1000 launch_token={token} rid=?hello-rid \
             auto_window=?hello-auto stream_window_bytes=?hello-window"
        );
        let words = notation::words(&wanted);
        self.frame_step(PLUGIN, "next", &words)
            .context("its first frame [S-HELLO-1] [S-HELLO-2] [S-HELLO-3]")?;
        Ok(())
    }

    /// Says Welcome: with the usual limits, or `window=`, `data_max=`, `streams_max=`.
    fn welcome(&mut self, words: &[String]) -> Result<()> {
        let limit = |name: &str, usual: u64| -> Result<u64> {
            let prefix = format!("{name}=");
            let told = words.iter().find_map(|word| word.strip_prefix(&prefix));
            told.map_or(Ok(usual), |told| Ok(told.parse()?))
        };
        let (window, data_max) = (limit("window", 256 * 1024)?, limit("data_max", 64 * 1024)?);
        let limits = format!(
            "{{frame_bytes_max=1048576,data_bytes_max={data_max},stream_window_bytes={window},streams_max={},\
             protocols_max=64,requests_max=1024,log_line_bytes_max=65536}}",
            limit("streams_max", 256)?
        );
        let rid = self.variables.get("hello-rid")?;
        let line = format!(
            "welcome rid={rid} version=1 daemon=\"the kit\" plugin_id=conformance instance_id=conformance-1 peer_id={OWN} \
             grants=net.open:/p2pos/far/1 limits={limits}"
        );
        let welcome = notation::frame(&notation::words(&line))?;
        let is_auto = self.variables.get("hello-auto")? == "1";
        let own_window: u64 = self.variables.get("hello-window")?.parse()?;
        let own_window = if own_window == 0 { 256 * 1024 } else { own_window };
        for (name, bytes) in [
            ("window", own_window),
            ("half", own_window.div_ceil(2)),
            ("rest", own_window / 2),
            ("over", own_window + 1),
        ] {
            self.variables.set(name, bytes.to_string());
        }
        let session = self.session(PLUGIN)?;
        session.book.their_window = window;
        session.book.data_bytes_max = data_max;
        session.book.is_auto_window = is_auto;
        session.book.our_window = own_window;
        session.book.is_open = true;
        // What it sent before Welcome counts on the default [S-FLOW-2].
        session.send(&welcome)
    }

    /// Answers Register until Ready comes.
    fn serve(&mut self) -> Result<()> {
        let mut registered = Vec::new();
        let session = self.session(PLUGIN)?;
        session.until("Ready", SOON, |session| {
            let is_it = |frame: &Frame| ["register", "ready"].contains(&frame.name.as_str());
            let Some(at) = session.queue.iter().position(is_it) else { return Ok(None) };
            let frame = session.queue.remove(at).context("it was just there")?;
            for protocol in frame.fields.all("protocols") {
                if let crate::codec::Value::Fields(protocol) = protocol {
                    registered.push(protocol.text("name"));
                }
            }
            if frame.rid > 0 {
                session.send(&Frame::new(frame.rid, "done", Fields::default()))?;
            }
            Ok((frame.name == "ready").then_some(()))
        })?;
        self.registered = registered;
        Ok(())
    }

    /// Takes the second socket of a detached stream: `attach NAME TICKET`.
    fn attach(&mut self, words: &[String]) -> Result<()> {
        let name = words.first().context("attach NAME TICKET")?.clone();
        let ticket = words.get(1).context("a ticket is missing")?.clone();
        let mut wire = self.agent()?.connection().context("the second socket [S-ATTACH-1]")?;
        let Incoming::Frame(body) = wire.next(4096, Instant::now() + SOON)? else {
            bail!("no Attach came on the second socket [S-ATTACH-1]");
        };
        let frame = Frame::from_body(&body)?;
        let words = notation::words(&format!("attach ticket={ticket}"));
        let does_fit = notation::fits(&words, &frame, &mut notation::Variables::default())?;
        ensure!(does_fit, "the second socket said {} [S-ATTACH-1]", notation::show(&frame));
        self.variables.set("attach-rid", frame.rid.to_string());
        self.raws.insert(name, wire);
        Ok(())
    }

    fn attached(&mut self, name: &str) -> Result<()> {
        let rid = self.variables.get("attach-rid")?.parse()?;
        let attached = Frame::new(rid, "attached", Fields::default()).to_bytes()?;
        self.raws.get_mut(name).context("there is no such socket")?.write(&attached)
    }

    /// `raw NAME write N SEED`, `read N SEED`, `attached-and N SEED`, `fin`, `eof`, `refuse`, `close`.
    pub(super) fn raw(&mut self, words: &[String]) -> Result<()> {
        let name = words.first().context("raw NAME ...")?.clone();
        let verb = words.get(1).context("raw NAME VERB")?.as_str();
        let rid: u64 = self.variables.get("attach-rid").map_or(Ok(0), str::parse)?;
        let wire = self.raws.get_mut(&name).context("there is no such socket")?;
        let deadline = Instant::now() + SOON;
        match verb {
            "write" => {
                wire.write(&pattern::bytes(number(words, 2, "how many")?, number(words, 3, "the seed")?))?;
            }
            "read" => {
                let (count, seed) = (number(words, 2, "how many")?, number(words, 3, "the seed")?);
                let read = wire.read_raw(count, deadline)?;
                ensure!(read.len() == count, "{} bytes came on the socket, not {count}", read.len());
                ensure!(read == pattern::bytes(count, seed), "other bytes came on the socket [S-ATTACH-1]");
            }
            "attached-and" => {
                let attached = Frame::new(rid, "attached", Fields::default()).to_bytes()?;
                let bytes = pattern::bytes(number(words, 2, "how many")?, number(words, 3, "the seed")?);
                wire.write(&[attached, bytes].concat())?;
            }
            "fin" => wire.finish(),
            "eof" => {
                let read = wire.read_raw(1, deadline + Duration::from_secs(1))?;
                ensure!(read.is_empty() && wire.is_over(), "its end of the socket is still open");
            }
            "refuse" => {
                let refused = Fields::default()
                    .and("code", 102)
                    .and_bytes("message", *b"the ticket is spent [S-ATTACH-2]");
                wire.write(&Frame::new(rid, "refused", refused).to_bytes()?)?;
                wire.hang_up();
            }
            "close" => {
                self.raws.remove(&name);
            }
            other => bail!("raw has no {other:?}"),
        }
        Ok(())
    }
}
