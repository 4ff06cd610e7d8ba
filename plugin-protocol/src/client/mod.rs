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
mod desk;
mod stream;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use p2pos_identity::{PeerId, ProtocolName};
use tokio::sync::{mpsc, watch};

use crate::{
    code::{Code, End},
    driver::{Answer, Inbox, RequestError, Session},
    message::{
        Attachment, Body, Contact, ErrorReply, EventKind, Health, Kind, Level, Log, Open, Opened, Register,
        Registration, RelayUse, Shutdown, Status, StreamId, Subscribe, Ticket, Welcome,
    },
    streams::StreamEnd,
};

pub use connect::{Config, ConnectError, Endpoint, Socket, stdin_closed};
use desk::{Desk, EVENTS_MAX, INCOMING_MAX, hand_on};
pub use desk::{Events, Incoming, Listener};
pub use stream::{Datagrams, RawStream, Stream, StreamInfo};

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
    /// Log lines that found no room.
    lines_lost: AtomicU64,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.session.close(End::new(Code::SHUTTING_DOWN), "the plugin is done");
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
        let lines_lost = AtomicU64::new(0);
        Self { inner: Arc::new(Inner { session, welcome, endpoint, desk, shutdown, lines_lost }) }
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

    /// Writes a line into the plugin's log. Never waits: a plugin that logs faster than its daemon reads loses lines, and
    /// the next one that gets through tells how many.
    pub fn log(&self, level: Level, text: impl Into<String>) {
        let missing = self.inner.lines_lost.swap(0, Ordering::Relaxed);
        let text = match missing {
            0 => text.into(),
            _ => format!("{} ({missing} lines before this one were lost)", text.into()),
        };
        if !self.inner.session.try_notify(Body::Log(Log { level, text })) {
            self.inner.lines_lost.fetch_add(missing + 1, Ordering::Relaxed);
        }
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
