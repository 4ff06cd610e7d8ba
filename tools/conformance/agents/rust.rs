//! The agent in Rust: obeys ORDERS.md by the SDK of `p2pos_plugin_protocol::client`.

#![expect(clippy::print_stderr, reason = "an agent's words are its log")]

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use p2pos_identity::{PeerId, ProtocolName};
use p2pos_plugin_protocol::client::{
    Client, Datagrams, Error, Events, Incoming, Listener, OpenRequest, RawStream, stdin_closed,
};
use p2pos_plugin_protocol::code::{Code, End};
use p2pos_plugin_protocol::driver::{Closed, RecvHalf, SendHalf};
use p2pos_plugin_protocol::message::{
    Attachment, Body, Cause, EventKind, Health, Kind, Level, Register, Registration, StreamClosed, Trust,
    Unregister,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Mutex;

const PIECE_BYTES: usize = 32 * 1024;

type Answer = Result<String, Error>;
type Listeners = Arc<BTreeMap<&'static str, Mutex<Listener>>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect().await?;
    let mut orders = client.register("/p2pos/conformance/1").await?;
    let mut refused = client.register("/p2pos/conformance-refused/1").await?;
    let mut listeners = BTreeMap::new();
    for (name, kind, attachment) in [
        ("stream", Kind::Stream, Attachment::Mux),
        ("detached", Kind::Stream, Attachment::Socket),
        ("datagram", Kind::Datagram, Attachment::Mux),
    ] {
        let protocol = ProtocolName::parse(&format!("/p2pos/conformance-{name}/1"))?;
        let registration =
            Registration { trust: Trust::Anyone, attachment, ..Registration::new(protocol, kind) };
        listeners.insert(name, Mutex::new(client.register_with(registration).await?));
    }
    let listeners = Arc::new(listeners);
    client.ready();
    tokio::spawn(async move {
        while let Some(incoming) = refused.accept().await {
            incoming.reject(false, "as ordered");
        }
    });
    let ending = client.clone();
    let serve = async {
        while let Some(incoming) = orders.accept().await {
            tokio::spawn(obey(client.clone(), Arc::clone(&listeners), incoming));
        }
    };
    tokio::select! {
        () = serve => {}
        _ = ending.wait_shutdown() => {}
        () = stdin_closed() => {}
    }
    leave(&ending).await
}

/// Says goodbye, and ends the process: tasks that wait for something are not waited for.
async fn leave(client: &Client) -> ! {
    client.session().close(End::new(Code::SHUTTING_DOWN), "the agent is done");
    // The daemon may be gone, or deaf.
    drop(tokio::time::timeout(Duration::from_secs(1), client.session().ended()).await);
    std::process::exit(0)
}

/// The stream that orders mean.
enum Subject {
    None,
    Stream { send: SendHalf, recv: RecvHalf, rest: Vec<u8>, closed: Option<Closed> },
    Raw { stream: Option<Box<RawStream>>, closed: Option<Closed> },
    Flow(Datagrams),
}

struct Obeying {
    client: Client,
    listeners: Listeners,
    subject: Subject,
    /// What orders cannot reach any more, kept as it is.
    earlier: Vec<Subject>,
    events: Option<Events>,
}

async fn obey(client: Client, listeners: Listeners, incoming: Incoming) {
    let mut obeying =
        Obeying { client, listeners, subject: Subject::None, earlier: Vec::new(), events: None };
    let Ok(stream) = incoming.accept_stream() else { return };
    let (mut send, mut recv) = stream.split();
    let mut said = Vec::new();
    while let Ok(Some(bytes)) = recv.read_chunk().await {
        said.extend_from_slice(&bytes);
        while let Some(end) = said.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&said.drain(..=end).collect::<Vec<u8>>()[..end]).into_owned();
            let answer = match obeying.order(&line).await {
                Ok(answer) => answer,
                Err(error) => told(&error),
            };
            if send.write(format!("{answer}\n").into()).await.is_err() {
                return;
            }
        }
    }
    if let Err(error) = send.finish() {
        eprintln!("an order stream ended early: {error}");
    }
}

fn told(error: &Error) -> String {
    match error {
        Error::Stream(end) => format!("ended {} {}", end.end.code.number(), end.end.app),
        Error::SessionOver(_) => "ended 105 0".to_owned(),
        Error::Refused(_) | Error::Name(_) | Error::Attach(_) | Error::NotHere | Error::OddAnswer => {
            format!("error {}", error.code().map_or(0, Code::number))
        }
    }
}

impl Obeying {
    async fn order(&mut self, line: &str) -> Answer {
        let words: Vec<&str> = line.split(' ').collect();
        let rest = |count: usize| line.splitn(count + 1, ' ').nth(count).unwrap_or_default();
        match words.as_slice() {
            ["hello"] => Ok("ok p2pos-plugin-protocol 0.1".to_owned()),
            ["take"] => self.take("stream").await,
            ["take", kind] => self.take(kind).await,
            ["open", peer, protocol, kind @ ..] => self.open(peer, protocol, kind.first().copied()).await,
            ["write", count, seed] => self.write(number(count), number(seed)).await,
            ["read", "end"] => self.read(usize::MAX).await,
            ["read", count] => self.read(number(count)).await,
            ["echo"] => self.echo().await,
            ["finish"] => self.finish().await,
            ["reset", app] => self.reset(app.parse().unwrap_or(0)),
            ["stop", app] => {
                if let Subject::Stream { recv, .. } = &mut self.subject {
                    recv.stop(End::app(app.parse().unwrap_or(0)));
                }
                ok("")
            }
            ["closed"] => self.closed().await,
            ["send", count, seed] => match &self.subject {
                Subject::Flow(flow) => {
                    flow.send(pattern(0..number(count), number(seed))).and_then(|()| ok(""))
                }
                Subject::None | Subject::Stream { .. } | Subject::Raw { .. } => Err(Error::NotHere),
            },
            ["receive"] => match &self.subject {
                Subject::Flow(flow) => {
                    flow.recv().await.and_then(|data| ok(format!("{} {}", data.len(), sum(&data))))
                }
                Subject::None | Subject::Stream { .. } | Subject::Raw { .. } => Err(Error::NotHere),
            },
            ["exit", code] => std::process::exit(code.parse().unwrap_or(1)),
            ["leave"] => leave(&self.client).await,
            _ => self.request(&words, rest).await,
        }
    }

    /// Orders about the session as a whole.
    async fn request<'a>(&mut self, words: &[&str], rest: impl Fn(usize) -> &'a str) -> Answer {
        match words {
            ["register", name] => {
                let protocols = vec![Registration::new(ProtocolName::parse(name)?, Kind::Stream)];
                self.client.session().request(Body::Register(Register { protocols })).await?;
                ok("")
            }
            ["unregister", name] => {
                let names = vec![ProtocolName::parse(name)?];
                self.client.session().request(Body::Unregister(Unregister { names })).await?;
                ok("")
            }
            ["contacts"] => {
                let contacts = self.client.contacts().await?;
                let names: String = contacts.iter().map(|contact| format!(" {}", contact.petname)).collect();
                ok(format!("{}{names}", contacts.len()))
            }
            ["subscribe", kinds @ ..] => {
                let kinds: Vec<EventKind> = kinds.iter().map(|kind| event_kind(kind)).collect();
                self.events = Some(self.client.subscribe(&kinds).await?);
                ok("")
            }
            ["event"] => {
                let events = self.events.as_mut().ok_or(Error::NotHere)?;
                let event = events.next().await.ok_or(Error::SessionOver(End::new(Code::SHUTTING_DOWN)))?;
                let kind = format!("{:?}", event.kind).to_lowercase();
                let petname = event.petname.unwrap_or_default();
                ok(format!("{kind} {} {} {}", dash(&event.what), dash(&petname), event.missed))
            }
            ["log", level, ..] => {
                let level = match *level {
                    "debug" => Level::Debug,
                    "warn" => Level::Warn,
                    "error" => Level::Error,
                    _ => Level::Info,
                };
                self.client.log(level, rest(2));
                ok("")
            }
            ["status", health, ..] => {
                let health = match *health {
                    "degraded" => Health::Degraded,
                    "waiting-network" => Health::WaitingNetwork,
                    _ => Health::Ok,
                };
                self.client.status(health, rest(2));
                ok("")
            }
            _ => Ok("unsupported".to_owned()),
        }
    }

    fn change(&mut self, subject: Subject) {
        let earlier = std::mem::replace(&mut self.subject, subject);
        self.earlier.push(earlier);
    }

    async fn take(&mut self, kind: &str) -> Answer {
        let Some(listener) = self.listeners.get(kind) else { return Ok("unsupported".to_owned()) };
        let incoming = listener.lock().await.accept().await;
        let incoming = incoming.ok_or(Error::SessionOver(End::new(Code::SHUTTING_DOWN)))?;
        let info = incoming.info();
        let mut max = String::new();
        let subject = match kind {
            "detached" => of_raw(incoming.accept_raw().await?),
            "datagram" => {
                let flow = incoming.accept_datagrams()?;
                max = format!(" {}", flow.bytes_max());
                Subject::Flow(flow)
            }
            _ => of_halves(incoming.accept_stream()?.split()),
        };
        self.change(subject);
        ok(format!("{} {}{max}", info.peer, info.protocol))
    }

    async fn open(&mut self, peer: &str, protocol: &str, kind: Option<&str>) -> Answer {
        let Ok(peer) = peer.parse::<PeerId>() else { return Ok("error 200".to_owned()) };
        let request = OpenRequest::new(peer, ProtocolName::parse(protocol)?);
        let (subject, answer) = match kind {
            Some("detached") => {
                let raw = self.client.open_raw(request).await?;
                let protocol = raw.info().protocol.to_string();
                (of_raw(raw), protocol)
            }
            Some("datagram") => {
                let flow = self.client.open_datagrams(request).await?;
                let answer = format!("{} {}", flow.info().protocol, flow.bytes_max());
                (Subject::Flow(flow), answer)
            }
            _ => {
                let stream = self.client.open_with(request).await?;
                let protocol = stream.info().protocol.to_string();
                (of_halves(stream.split()), protocol)
            }
        };
        self.change(subject);
        ok(answer)
    }

    async fn write(&mut self, count: usize, seed: usize) -> Answer {
        for from in (0..count).step_by(PIECE_BYTES) {
            let piece = pattern(from..(from + PIECE_BYTES).min(count), seed);
            match &mut self.subject {
                Subject::Stream { send, .. } => send.write(piece.into()).await?,
                Subject::Raw { stream: Some(raw), .. } => {
                    raw.write_all(&piece).await.map_err(|_| Error::NotHere)?;
                }
                Subject::Raw { .. } | Subject::Flow(_) | Subject::None => return Err(Error::NotHere),
            }
        }
        ok(count)
    }

    /// The next bytes; `None` at the end.
    async fn some(&mut self, most: usize) -> Result<Option<Vec<u8>>, Error> {
        match &mut self.subject {
            Subject::Stream { recv, rest, .. } => {
                if rest.is_empty() {
                    match recv.read_chunk().await? {
                        Some(bytes) => rest.extend_from_slice(&bytes),
                        None => return Ok(None),
                    }
                }
                let count = most.min(rest.len());
                Ok(Some(rest.drain(..count).collect()))
            }
            Subject::Raw { stream: Some(raw), .. } => {
                let mut piece = vec![0; most.min(PIECE_BYTES)];
                // An abortive end is the end, too: `closed` tells the truth.
                let count = raw.read(&mut piece).await.unwrap_or(0);
                piece.truncate(count);
                Ok((count > 0).then_some(piece))
            }
            Subject::Raw { .. } | Subject::Flow(_) | Subject::None => Err(Error::NotHere),
        }
    }

    async fn read(&mut self, count: usize) -> Answer {
        let mut all = Vec::new();
        while all.len() < count {
            match self.some(count - all.len()).await? {
                Some(bytes) => all.extend_from_slice(&bytes),
                None => return ok(format!("{} {} fin", all.len(), sum(&all))),
            }
        }
        ok(format!("{} {} more", all.len(), sum(&all)))
    }

    async fn echo(&mut self) -> Answer {
        let mut count = 0;
        while let Some(bytes) = self.some(PIECE_BYTES).await? {
            count += bytes.len();
            match &mut self.subject {
                Subject::Stream { send, .. } => send.write(bytes.into()).await?,
                Subject::Raw { stream: Some(raw), .. } => {
                    raw.write_all(&bytes).await.map_err(|_| Error::NotHere)?;
                }
                Subject::Raw { .. } | Subject::Flow(_) | Subject::None => return Err(Error::NotHere),
            }
        }
        self.finish().await?;
        ok(count)
    }

    async fn finish(&mut self) -> Answer {
        match &mut self.subject {
            Subject::Stream { send, .. } => send.finish()?,
            Subject::Raw { stream: Some(raw), .. } => raw.shutdown().await.map_err(|_| Error::NotHere)?,
            Subject::Raw { .. } | Subject::Flow(_) | Subject::None => return Err(Error::NotHere),
        }
        ok("")
    }

    fn reset(&mut self, app: u32) -> Answer {
        match &mut self.subject {
            Subject::Stream { send, .. } => send.reset(End::app(app)),
            Subject::Raw { stream, .. } => stream.take().into_iter().for_each(|raw| raw.reset(app)),
            Subject::Flow(_) => {
                // The SDK's own way out of a flow takes it, and has no number.
                if let Subject::Flow(flow) = std::mem::replace(&mut self.subject, Subject::None) {
                    flow.close();
                }
            }
            Subject::None => return Err(Error::NotHere),
        }
        ok("")
    }

    async fn closed(&mut self) -> Answer {
        let closed = match &mut self.subject {
            Subject::Stream { closed, .. } | Subject::Raw { closed, .. } => {
                closed.take().ok_or(Error::NotHere)?
            }
            Subject::Flow(_) | Subject::None => return Err(Error::NotHere),
        };
        let facts: StreamClosed = closed.await?;
        let cause = match facts.cause {
            Cause::Finished => "finished",
            Cause::ResetLocal => "local",
            Cause::ResetRemote => "remote",
        };
        let (code, app) = facts.end.map_or((0, 0), |end| (end.code.number(), end.app));
        ok(format!("{cause} {code} {app} {} {}", facts.bytes_in, facts.bytes_out))
    }
}

fn of_halves((send, recv): (SendHalf, RecvHalf)) -> Subject {
    let closed = Some(recv.closed());
    Subject::Stream { send, recv, rest: Vec::new(), closed }
}

fn of_raw(raw: RawStream) -> Subject {
    let closed = Some(raw.closed());
    Subject::Raw { stream: Some(Box::new(raw)), closed }
}

#[expect(clippy::unnecessary_wraps, reason = "the good answer of an order")]
fn ok(what: impl Display) -> Answer {
    Ok(format!("ok {what}").trim_end().to_owned())
}

fn number(word: &str) -> usize {
    word.parse().unwrap_or(0)
}

fn dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn event_kind(word: &str) -> EventKind {
    match word {
        "contact" => EventKind::Contact,
        "path" => EventKind::Path,
        _ => EventKind::Peer,
    }
}

fn pattern(range: std::ops::Range<usize>, seed: usize) -> Vec<u8> {
    range.map(|at| u8::try_from((seed + at) % 251).unwrap_or(0)).collect()
}

fn sum(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (1u32, 0u32);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65521;
        b = (b + a) % 65521;
    }
    b << 16 | a
}
