//! The SDK for plugins in Rust: twelve calls, the same as in every other language.
//!
//! ```no_run
//! use p2pos_plugin_protocol::client::{Client, Error};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let client = Client::connect().await?; // from the environment that the daemon has set
//!     let mut listener = client.register("/shout/1").await?;
//!     client.ready();
//!     while let Some(incoming) = listener.accept().await {
//!         let mut stream = incoming.accept_stream()?;
//!         tokio::spawn(async move {
//!             while let Some(bytes) = stream.read().await? {
//!                 stream.write(bytes.to_ascii_uppercase()).await?;
//!             }
//!             stream.close_write()?;
//!             Ok::<_, Error>(())
//!         });
//!     }
//!     Ok(())
//! }
//! ```
//!
//! | call | does |
//! |---|---|
//! | [`Client::connect`] | finds the daemon by the environment, says Hello |
//! | [`Client::register`] | serves a protocol |
//! | [`Listener::accept`] | waits for a peer that opens it |
//! | [`Client::open`] | opens a protocol at a peer |
//! | [`Stream::read`] [`Stream::write`] [`Stream::close_write`] [`Stream::reset`] | what one does with a stream |
//! | [`Datagrams::send`] | what one does with a flow |
//! | [`Client::subscribe`] | hears of peers, contacts, paths |
//! | [`Client::log`] | writes a line into the plugin's log |
//! | [`Client::wait_shutdown`] | waits until the daemon wants the plugin to end |
//!
//! The SDK reads from its socket all the time, also while the plugin writes, so the only deadlock left is the plugin's
//! own: two plugins that both write more than a window and never read. A plugin that ends, or crashes, has all its
//! streams reset with 403 PLUGIN_GONE. When the daemon goes, every call and every stream here ends with 105
//! SHUTTING_DOWN; nothing hangs.
//!
//! Needs a tokio runtime; which flavour does not matter.

mod connect;
mod stream;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use p2pos_identity::{PeerId, ProtocolName};
use tokio::sync::{mpsc, watch};

use crate::{
    code::{Code, End},
    driver::{Answer, Inbound, Inbox, RequestError, Session},
    limits,
    message::{
        self, Accept, Attachment, Body, Contact, ErrorReply, Event, EventKind, Health, Kind, Level, Log,
        Open, Opened, PathKind, Register, Registration, Reject, RelayUse, Rid, Shutdown, Status, StreamId,
        Subscribe, Ticket, Unregister, Welcome,
    },
    streams::StreamEnd,
};

pub use connect::{Config, ConnectError, Endpoint, Socket, stdin_closed};
pub use stream::{Datagrams, RawStream, Stream};

/// Incoming streams that may wait for [`Listener::accept`]; more are told 306 NOT_READY. At half, a burst of peers
/// after a restart would be turned away; at double, a busy plugin lets them wait past their ten seconds.
const INCOMING_MAX: usize = 64;

/// Events that may wait for [`Events::next`]; more are dropped, and the next one tells how many.
const EVENTS_MAX: usize = 1024;

/// Says why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The daemon said no; code, text and hint say why.
    #[error("{}: {}; {}", .0.code, .0.message, .0.hint)]
    Refused(Box<ErrorReply>),
    /// The stream ended, otherwise than by fin.
    #[error(transparent)]
    Stream(#[from] StreamEnd),
    /// The session with the daemon is over.
    #[error("the session with the daemon is over: {0}")]
    SessionOver(End),
    /// What was given is no ProtocolName.
    #[error(transparent)]
    Name(#[from] p2pos_identity::ProtocolNameError),
    /// The socket of a detached stream could not be made.
    #[error(transparent)]
    Attach(Arc<ConnectError>),
    /// The stream is of another kind than the call is for, or it is over already.
    #[error("the stream was taken already, is over, or is of another kind")]
    NotHere,
    /// The daemon answered something that does not fit; it is broken.
    #[error("the daemon's answer does not fit the request")]
    OddAnswer,
}

impl Error {
    /// The code of the registry, if there is one.
    #[must_use]
    pub const fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(error) => Some(error.code),
            Self::Stream(end) => Some(end.end.code),
            Self::SessionOver(end) => Some(end.code),
            Self::Name(_) | Self::Attach(_) | Self::NotHere | Self::OddAnswer => None,
        }
    }
}

impl From<RequestError> for Error {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Refused(reply) => Self::Refused(reply),
            RequestError::Ended(end) => Self::SessionOver(end),
        }
    }
}

/// The plugin's session with its daemon. Cheap to clone; the session ends when the last clone and everything made by it
/// is gone.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    session: Session,
    welcome: Welcome,
    endpoint: Option<Endpoint>,
    desk: Arc<Desk>,
    shutdown: watch::Receiver<Option<Shutdown>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.session.close(End::new(Code::SHUTTING_DOWN), "the plugin is done");
    }
}

/// Where what arrives is handed on to whoever waits for it.
#[derive(Debug, Default)]
struct Desk {
    state: Mutex<DeskState>,
}

/// Brings a peer that asks to the listener of its protocol.
type PeerSender = mpsc::Sender<(Rid, message::Incoming)>;

#[derive(Debug, Default)]
struct DeskState {
    listeners: BTreeMap<ProtocolName, PeerSender>,
    events: Option<mpsc::Sender<Event>>,
    events_missed: u32,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, DeskState> {
        self.state.lock().expect("nobody panics while holding the desk")
    }
}

impl Client {
    /// Finds the daemon by the environment that it set at launch: `P2POS_ENDPOINT` and `P2POS_TOKEN`.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect() -> Result<Self, ConnectError> {
        Self::connect_with(Config::from_env()?).await
    }

    /// Connects to the daemon that `config` names.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect_with(config: Config) -> Result<Self, ConnectError> {
        let endpoint = config.endpoint.clone();
        let (session, inbox, welcome) = connect::connect(config).await?;
        Ok(Self::on(session, inbox, welcome, Some(endpoint)))
    }

    /// Works on a session that exists already; for tests of plugins. Detached streams need a real endpoint.
    #[must_use]
    pub fn on_session(session: Session, inbox: Inbox, welcome: Welcome) -> Self {
        Self::on(session, inbox, welcome, None)
    }

    fn on(session: Session, inbox: Inbox, welcome: Welcome, endpoint: Option<Endpoint>) -> Self {
        let desk = Arc::new(Desk::default());
        let (shutdown_in, shutdown) = watch::channel(None);
        // It ends with the session; nobody waits for it.
        drop(tokio::spawn(hand_on(inbox, Arc::clone(&desk), shutdown_in)));
        Self { inner: Arc::new(Inner { session, welcome, endpoint, desk, shutdown }) }
    }

    /// What the daemon said: who the user is, what is granted, which limits hold.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.inner.welcome
    }

    /// The session underneath, for what the twelve calls do not cover.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.inner.session
    }

    /// Serves a protocol for the user's contacts, with muxed streams.
    ///
    /// # Errors
    /// A bad name; the daemon's refusal (202, 204, 206).
    pub async fn register(&self, name: &str) -> Result<Listener, Error> {
        self.register_with(Registration::new(ProtocolName::parse(name)?, Kind::Stream)).await
    }

    /// Serves a protocol in any way: datagrams, for strangers too, on sockets of their own.
    ///
    /// # Errors
    /// As [`Client::register`].
    pub async fn register_with(&self, registration: Registration) -> Result<Listener, Error> {
        let name = registration.name.clone();
        let (sender, incoming) = mpsc::channel(INCOMING_MAX);
        let ours = sender.downgrade();
        // The listener stands before the daemon knows of it: the first peer may be quicker than the answer.
        let replaced = self.inner.desk.lock().listeners.insert(name.clone(), sender);
        let answer =
            self.inner.session.request(Body::Register(Register { protocols: vec![registration] })).await;
        if answer.is_err() {
            let mut desk = self.inner.desk.lock();
            match replaced {
                Some(earlier) => desk.listeners.insert(name.clone(), earlier),
                None => desk.listeners.remove(&name),
            };
        }
        expect_done(answer)?;
        Ok(Listener { client: self.clone(), name, sender: ours, incoming })
    }

    /// Opens a protocol at a peer: a muxed stream, by any path.
    ///
    /// # Errors
    /// A bad name; the daemon's refusal (202, 3xx).
    pub async fn open(&self, peer: PeerId, protocol: &str) -> Result<Stream, Error> {
        self.open_with(OpenRequest::new(peer, ProtocolName::parse(protocol)?)).await
    }

    /// Opens a stream with a preference list, a deadline, or a wish about relays.
    ///
    /// # Errors
    /// As [`Client::open`].
    pub async fn open_with(&self, request: OpenRequest) -> Result<Stream, Error> {
        let peer = request.peer;
        let opening = self
            .inner
            .session
            .open_stream(|id| Body::Open(request.body(id, Kind::Stream, Attachment::Mux)))?;
        let opened = opened(opening.answer).await?;
        Ok(Stream::new(self, opening.send, opening.recv, StreamInfo::opened(peer, &opened)))
    }

    /// Opens a datagram flow.
    ///
    /// # Errors
    /// As [`Client::open`].
    pub async fn open_datagrams(&self, request: OpenRequest) -> Result<Datagrams, Error> {
        let peer = request.peer;
        let opening = self
            .inner
            .session
            .open_flow(|id| Body::Open(request.body(id, Kind::Datagram, Attachment::Mux)))?;
        let opened = opened(opening.answer).await?;
        Ok(Datagrams::new(self, opening.flow, StreamInfo::opened(peer, &opened), opened.datagram_max))
    }

    /// Opens a stream with a socket of its own: the fastest way, and one file descriptor.
    ///
    /// # Errors
    /// As [`Client::open`], and what may happen to the second socket.
    pub async fn open_raw(&self, request: OpenRequest) -> Result<RawStream, Error> {
        let peer = request.peer;
        let opening = self
            .inner
            .session
            .open_detached(|id| Body::Open(request.body(id, Kind::Stream, Attachment::Socket)))?;
        let opened = opened(opening.answer).await?;
        let info = StreamInfo::opened(peer, &opened);
        let ticket = opened.ticket.ok_or(Error::OddAnswer)?;
        let socket = self.attach(ticket).await?;
        Ok(RawStream::new(self, socket, opening.detached, info))
    }

    async fn attach(&self, ticket: Ticket) -> Result<connect::Attached, Error> {
        let endpoint = self.inner.endpoint.as_ref().ok_or(Error::NotHere)?;
        connect::attach(endpoint, ticket).await.map_err(|error| Error::Attach(Arc::new(error)))
    }

    /// Says that start-up is over.
    pub fn ready(&self) {
        self.inner.session.notify(Body::Ready);
    }

    /// Writes a line into the plugin's log.
    pub fn log(&self, level: Level, text: impl Into<String>) {
        self.inner.session.notify(Body::Log(Log { level, text: text.into() }));
    }

    /// Says how the plugin is; `p2pos plugins list` shows it.
    pub fn status(&self, health: Health, text: impl Into<String>) {
        self.inner.session.notify(Body::Status(Status { health, text: text.into() }));
    }

    /// Hears of events of these kinds from now on: first what is, then what changes. A second call replaces the first.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn subscribe(&self, kinds: &[EventKind]) -> Result<Events, Error> {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        self.inner.desk.lock().events = Some(sender);
        let subscribe = Body::Subscribe(Subscribe { kinds: kinds.to_vec() });
        expect_done(self.inner.session.request(subscribe).await)?;
        Ok(Events { _client: self.clone(), events })
    }

    /// Asks for the user's contacts.
    ///
    /// # Errors
    /// The daemon's refusal (202).
    pub async fn contacts(&self) -> Result<Vec<Contact>, Error> {
        if let Body::Contacts(contacts) = self.inner.session.request(Body::ContactList).await? {
            return Ok(contacts);
        }
        Err(Error::OddAnswer)
    }

    /// Waits until the daemon wants the plugin to end, or is gone itself (then the deadline is 0). Cancel-safe.
    pub async fn wait_shutdown(&self) -> Shutdown {
        let mut shutdown = self.inner.shutdown.clone();
        if let Ok(told) = shutdown.wait_for(Option::is_some).await
            && let Some(told) = told.as_ref()
        {
            return told.clone();
        }
        Shutdown { deadline: Duration::ZERO, reason: "the daemon is gone".to_owned() }
    }
}

async fn opened(answer: Answer) -> Result<Opened, Error> {
    if let Body::Opened(opened) = answer.await? {
        return Ok(opened);
    }
    Err(Error::OddAnswer)
}

fn expect_done(answer: Result<Body, RequestError>) -> Result<(), Error> {
    if answer? == Body::Done { Ok(()) } else { Err(Error::OddAnswer) }
}

/// What is asked of [`Client::open_with`] and its siblings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRequest {
    /// At whom.
    pub peer: PeerId,
    /// In order of preference.
    pub protocols: Vec<ProtocolName>,
    /// How long to try; `None`: the daemon's default.
    pub timeout: Option<Duration>,
    /// Whether a relay will do.
    pub relay: RelayUse,
}

impl OpenRequest {
    /// One protocol, in the usual way.
    #[must_use]
    pub fn new(peer: PeerId, protocol: ProtocolName) -> Self {
        Self { peer, protocols: vec![protocol], timeout: None, relay: RelayUse::Allow }
    }

    fn body(&self, stream: StreamId, kind: Kind, attachment: Attachment) -> Open {
        Open {
            stream,
            peer: self.peer,
            protocols: self.protocols.clone(),
            kind,
            attachment,
            timeout: self.timeout,
            relay: self.relay,
        }
    }
}

/// Who is at the other end of a stream, and how one gets there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// Who.
    pub peer: PeerId,
    /// The user's own name for the peer, if it came with the stream.
    pub petname: Option<String>,
    /// Whether the peer is a contact, if that came with the stream.
    pub is_contact: bool,
    /// What is spoken.
    pub protocol: ProtocolName,
    /// The way it took when it was opened.
    pub path: PathKind,
}

impl StreamInfo {
    fn opened(peer: PeerId, opened: &Opened) -> Self {
        Self { peer, petname: None, is_contact: false, protocol: opened.protocol.clone(), path: opened.path }
    }
}

/// A protocol that is served. Dropping it unregisters.
#[derive(Debug)]
pub struct Listener {
    client: Client,
    name: ProtocolName,
    sender: mpsc::WeakSender<(Rid, message::Incoming)>,
    incoming: mpsc::Receiver<(Rid, message::Incoming)>,
}

impl Listener {
    /// Waits for the next peer that opens the protocol; `None` once the session is over. Cancel-safe.
    pub async fn accept(&mut self) -> Option<Incoming> {
        let (rid, incoming) = self.incoming.recv().await?;
        Some(Incoming { client: self.client.clone(), rid: Some(rid), incoming })
    }

    /// What is served.
    #[must_use]
    pub const fn protocol(&self) -> &ProtocolName {
        &self.name
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut desk = self.client.inner.desk.lock();
        // A later `register` of the same name may have taken the place; then the protocol is still served.
        let is_ours =
            |sender: &PeerSender| self.sender.upgrade().is_some_and(|ours| ours.same_channel(sender));
        if desk.listeners.get(&self.name).is_some_and(is_ours) {
            desk.listeners.remove(&self.name);
            drop(desk);
            let names = vec![self.name.clone()];
            self.client.inner.session.notify(Body::Unregister(Unregister { names }));
        }
    }
}

/// A peer that asks. Dropping it says 305 REFUSED.
#[derive(Debug)]
pub struct Incoming {
    client: Client,
    rid: Option<Rid>,
    incoming: message::Incoming,
}

impl Incoming {
    /// Who asks, for what, by which path.
    #[must_use]
    pub fn info(&self) -> StreamInfo {
        StreamInfo {
            peer: self.incoming.peer,
            petname: self.incoming.petname.clone(),
            is_contact: self.incoming.is_contact,
            protocol: self.incoming.protocol.clone(),
            path: self.incoming.path,
        }
    }

    /// Takes it as a muxed stream.
    ///
    /// # Errors
    /// [`Error::NotHere`] if it is something else, or is over already.
    pub fn accept_stream(mut self) -> Result<Stream, Error> {
        let (send, recv) =
            self.client.inner.session.adopt_stream(self.incoming.stream).ok_or(Error::NotHere)?;
        self.say_accept();
        Ok(Stream::new(&self.client, send, recv, self.info()))
    }

    /// Takes it as a datagram flow.
    ///
    /// # Errors
    /// As [`Incoming::accept_stream`].
    pub fn accept_datagrams(mut self) -> Result<Datagrams, Error> {
        let flow = self.client.inner.session.adopt_flow(self.incoming.stream).ok_or(Error::NotHere)?;
        self.say_accept();
        Ok(Datagrams::new(&self.client, flow, self.info(), self.incoming.datagram_max))
    }

    /// Takes it as a stream with a socket of its own, if the protocol was registered so.
    ///
    /// # Errors
    /// As [`Incoming::accept_stream`], and what may happen to the second socket.
    pub async fn accept_raw(mut self) -> Result<RawStream, Error> {
        let ticket = self.incoming.ticket.clone().ok_or(Error::NotHere)?;
        let detached =
            self.client.inner.session.adopt_detached(self.incoming.stream).ok_or(Error::NotHere)?;
        self.say_accept();
        let socket = self.client.attach(ticket).await?;
        Ok(RawStream::new(&self.client, socket, detached, self.info()))
    }

    /// Refuses: 306 NOT_READY if the peer may try again, 305 REFUSED otherwise.
    pub fn reject(mut self, may_try_again: bool, reason: impl Into<String>) {
        let code = if may_try_again { Code::NOT_READY } else { Code::REFUSED };
        self.say_reject(code, reason.into());
    }

    fn say_accept(&mut self) {
        if let Some(rid) = self.rid.take() {
            self.client.inner.session.reply(rid, Body::Accept(Accept { stream: self.incoming.stream }));
        }
    }

    fn say_reject(&mut self, code: Code, reason: String) {
        if let Some(rid) = self.rid.take() {
            let reject = Reject { stream: self.incoming.stream, code, reason };
            self.client.inner.session.reply(rid, Body::Reject(reject));
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.say_reject(Code::REFUSED, "the plugin does not want it".to_owned());
    }
}

/// What [`Client::subscribe`] hears.
#[derive(Debug)]
pub struct Events {
    _client: Client,
    events: mpsc::Receiver<Event>,
}

impl Events {
    /// Waits for the next event; `None` once the session is over, or somebody has subscribed anew. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

/// Hands on what arrives, until the session is over.
async fn hand_on(mut inbox: Inbox, desk: Arc<Desk>, shutdown: watch::Sender<Option<Shutdown>>) {
    while let Some(Inbound { rid, body }) = inbox.recv().await {
        if let (Some(rid), Body::Incoming(incoming)) = (rid, &body) {
            let sender = desk.lock().listeners.get(&incoming.protocol).cloned();
            if let Some(code) = offer(sender, rid, incoming) {
                let reject =
                    Reject { stream: incoming.stream, code, reason: "nobody takes it now".to_owned() };
                inbox.session().reply(rid, Body::Reject(reject));
            }
        } else if let Body::Event(event) = body {
            desk.lock().hand_on_event(event);
        } else if let Body::Shutdown(told) = body {
            shutdown.send_replace(Some(told));
        } else if let Body::Error(error) = &body {
            tracing::warn!(code = %error.code, message = error.message, "the daemon complains");
        } else if let Body::GoAway(away) = &body {
            tracing::info!(code = %away.code, reason = away.reason, "the daemon opens no more streams");
        } else if let Some(rid) = rid {
            let what = "this plugin does not know the request";
            inbox.session().reply(rid, Body::Error(ErrorReply::new(Code::UNKNOWN_METHOD, what)));
        }
    }
    // Whoever still waits for peers or events learns that none will come.
    let mut desk = desk.lock();
    desk.listeners.clear();
    desk.events = None;
}

/// Gives a peer to its listener; a code if that does not work.
fn offer(listener: Option<PeerSender>, rid: Rid, incoming: &message::Incoming) -> Option<Code> {
    match listener.map(|listener| listener.try_send((rid, incoming.clone()))) {
        Some(Ok(())) => None,
        Some(Err(mpsc::error::TrySendError::Full(_))) => Some(Code::NOT_READY),
        Some(Err(mpsc::error::TrySendError::Closed(_))) | None => Some(Code::REFUSED),
    }
}

impl DeskState {
    fn hand_on_event(&mut self, mut event: Event) {
        let Some(events) = &self.events else {
            return;
        };
        if event.kind == EventKind::Unknown {
            return;
        }
        event.missed = event.missed.saturating_add(self.events_missed);
        self.events_missed = match events.try_send(event) {
            Ok(()) => 0,
            Err(_) => self.events_missed.saturating_add(1),
        };
    }
}

const _: () =
    assert!(INCOMING_MAX < limits::STREAMS_MAX as usize, "a listener's backlog fits the session's streams");
