//! Opening a stream or flow at a peer: connect if need be, say hello, hear the answer.
//!
//! [`open`] waits for the answer. [`begin`] hands the send half out as soon as the hello is on its way, which saves the
//! caller one round trip; it does so only on a connection that is surely alive and surely the one that stays, and otherwise
//! waits for the answer like `open`. So nothing that was written is ever lost to a peer's restart or to a duplicate
//! connection: until an answer has come, a lost connection only means another try.

use std::{sync::Arc, time::Duration};

use p2pos_identity::{PeerId, ProtocolName};
use p2pos_peer_protocol::{EndCode, Kind, Message, StreamAnswer, StreamHello};
use p2pos_transport::{self as transport, AttemptOutcome, Lost, PathInfo, RecvStream, SendStream, StreamEnd};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    error::OpenError,
    flow::{Flow, Registered},
    hello::{ReadMessageError, read_message},
    lease::{Lease, Use},
    limits::{OPEN_DEFAULT, OPEN_TRIES_MAX, SUSPECT_AFTER},
    peer::{Command, Context, Live},
    reach::Explanation,
    registry::Registry,
    stream::{PeerStream, RecvHalf, SendHalf},
};

/// How often the path of streams that want no relay is looked at although steering has told of no change: QUIC may put another path
/// in place of one by itself when the network changes. A connection that ends is also noticed only then.
const PATH_LOOK: Duration = Duration::from_secs(1);

/// What to open.
#[derive(Debug, Clone)]
pub struct OpenRequest {
    peer: PeerId,
    protocols: Vec<ProtocolName>,
    kind: Kind,
    timeout: Duration,
    needs_own_path: bool,
}

impl OpenRequest {
    /// A stream at `peer` with the first of `protocols` that it serves, within 10 s.
    #[must_use]
    pub fn new(peer: PeerId, protocols: Vec<ProtocolName>) -> Self {
        Self { peer, protocols, kind: Kind::Stream, timeout: OPEN_DEFAULT, needs_own_path: false }
    }

    /// Sets stream or datagram flow.
    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Waits for a path without a relay. The connection may begin through one, which is how it finds a better path.
    #[must_use]
    pub fn without_relay(mut self) -> Self {
        self.needs_own_path = true;
        self
    }

    /// Sets the time until the answer must have come, dialling included. While it lasts, an unreachable peer is dialled
    /// again and again.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// What an open led to.
#[derive(Debug)]
pub enum Channel {
    /// A stream.
    Stream(PeerStream),
    /// A datagram flow.
    Flow(Flow),
}

impl Channel {
    /// The stream, if it is one.
    #[must_use]
    pub fn into_stream(self) -> Option<PeerStream> {
        match self {
            Self::Stream(stream) => Some(stream),
            Self::Flow(_) => None,
        }
    }

    /// The flow, if it is one.
    #[must_use]
    pub fn into_flow(self) -> Option<Flow> {
        match self {
            Self::Flow(flow) => Some(flow),
            Self::Stream(_) => None,
        }
    }
}

/// A stream or flow that both sides agreed on.
#[derive(Debug)]
pub struct Opened {
    /// The protocol that the peer chose.
    pub protocol: ProtocolName,
    /// The path, if the connection still stands.
    pub path: Option<PathInfo>,
    /// The stream or flow.
    pub channel: Channel,
}

/// A stream whose answer is on its way.
#[derive(Debug)]
pub struct Opening {
    /// Write at once; if the peer refuses, what was written is dropped.
    pub send: SendHalf,
    /// The answer to come.
    pub answer: Answer,
}

/// The peer's answer, which may have come or not.
#[derive(Debug)]
pub struct Answer {
    state: AnswerState,
}

#[derive(Debug)]
enum AnswerState {
    Here(Box<Answered>),
    Awaited(Box<Awaited>),
}

#[derive(Debug)]
struct Awaited {
    live: Arc<Live>,
    hello: StreamHello,
    recv: RecvStream,
    lease: Arc<Lease>,
    deadline: Deadline,
    suspicion: Suspicion,
}

/// A positive answer.
#[derive(Debug)]
pub struct Answered {
    /// The protocol that the peer chose.
    pub protocol: ProtocolName,
    /// The path, if the connection still stands.
    pub path: Option<PathInfo>,
    /// The half that the peer writes.
    pub recv: RecvHalf,
}

impl Answer {
    /// Waits for the answer, at most until the time of the request is over. Dropping the future gives up the stream.
    ///
    /// # Errors
    /// [`OpenError`] if the peer refused or did not answer; the send half is of no use then.
    pub async fn wait(self) -> Result<Answered, OpenError> {
        let awaited = match self.state {
            AnswerState::Here(answered) => return Ok(*answered),
            AnswerState::Awaited(awaited) => awaited,
        };
        let Awaited { live, hello, mut recv, lease, deadline, suspicion } = *awaited;
        let Ok(answer) = timeout_at(deadline.at, read_answer(&hello, &mut recv)).await else {
            return Err(suspicion.too_late(deadline.after));
        };
        suspicion.settle();
        match answer {
            Ok(protocol) => {
                live.note_heard();
                let path = live.connection.path();
                Ok(Answered { protocol, path, recv: RecvHalf::new(recv, lease) })
            }
            Err(failure) => Err(failure.into_error()),
        }
    }
}

/// When an open must be done, and how long that was.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    at: Instant,
    after: Duration,
}

/// Why one try of an open failed.
enum Failure {
    /// The connection ended under it.
    Lost(Lost),
    /// The peer said no, or something that is no answer.
    Said(OpenError),
}

impl Failure {
    /// Whether the peer cannot have acted on the hello: it was restarted, or was ending this very connection in good order.
    fn is_worth_another_try(&self) -> bool {
        match self {
            Self::Lost(Lost::Restarted) => true,
            Self::Lost(Lost::Closed(code)) => [EndCode::DUPLICATE, EndCode::IDLE].contains(code),
            Self::Lost(Lost::Local | Lost::TimedOut | Lost::Protocol(_)) | Self::Said(_) => false,
        }
    }

    fn into_error(self) -> OpenError {
        match self {
            Self::Said(error) => error,
            Self::Lost(Lost::Closed(code)) if code == EndCode::REFUSED => {
                OpenError::Refused { code: code.code }
            }
            Self::Lost(lost) => OpenError::ConnectionLost(lost),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::Said(error)
    }
}

impl From<StreamEnd> for Failure {
    fn from(end: StreamEnd) -> Self {
        match end {
            StreamEnd::Lost(lost) => Self::Lost(lost),
            StreamEnd::Reset(code) | StreamEnd::Stopped(code) => Self::Said(OpenError::of_reset(code)),
            StreamEnd::Closed => Self::Lost(Lost::Local),
        }
    }
}

/// Opens and waits for the answer.
pub(crate) async fn open(
    registry: &Registry,
    context: &Arc<Context>,
    request: OpenRequest,
) -> Result<Opened, OpenError> {
    let attempt = Attempt::new(registry, context, request)?;
    attempt.open().await
}

/// Opens a stream and hands out its send half as early as is safe.
pub(crate) async fn begin(
    registry: &Registry,
    context: &Arc<Context>,
    request: OpenRequest,
) -> Result<Opening, OpenError> {
    let attempt = Attempt::new(registry, context, request)?;
    if attempt.hello.kind() == Kind::Datagram {
        return Err(OpenError::Misuse("a datagram flow has no send half to hand out early"));
    }
    attempt.begin().await
}

/// One open, over all its tries.
struct Attempt<'a> {
    registry: &'a Registry,
    context: &'a Arc<Context>,
    peer: PeerId,
    hello: StreamHello,
    deadline: Deadline,
    needs_own_path: bool,
}

impl<'a> Attempt<'a> {
    fn new(
        registry: &'a Registry,
        context: &'a Arc<Context>,
        request: OpenRequest,
    ) -> Result<Self, OpenError> {
        let OpenRequest { peer, protocols, kind, timeout, needs_own_path } = request;
        if peer == context.us() {
            return Err(OpenError::Misuse("the peer is this daemon itself"));
        }
        let hello =
            StreamHello::new(protocols, kind).map_err(|_| OpenError::Misuse("name one to 16 protocols"))?;
        let deadline = Deadline { at: Instant::now() + timeout, after: timeout };
        Ok(Self { registry, context, peer, hello, deadline, needs_own_path })
    }

    /// Runs one step until the deadline; tells why it was not done in time.
    async fn within_deadline<T, E: From<OpenError>>(
        &self,
        step: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match timeout_at(self.deadline.at, step).await {
            Ok(result) => result,
            Err(_) => Err(self.too_late().into()),
        }
    }

    fn too_late(&self) -> OpenError {
        let timeout = OpenError::Timeout { after: self.deadline.after };
        let status = self.registry.existing(&self.peer).map(|handle| handle.status());
        match status {
            Some(status) if status.live.is_none() => {
                let attempts = status.timeline.attempts();
                match (attempts.is_empty(), self.context.relays.are_forbidden(self.peer)) {
                    (true, _) => timeout,
                    (false, true) => OpenError::NeedsRelay { attempts },
                    (false, false) => OpenError::Unreachable { attempts },
                }
            }
            Some(_) | None => timeout,
        }
    }

    async fn open(&self) -> Result<Opened, OpenError> {
        let (live, protocol, channel) = self.ask().await?;
        Ok(Opened { protocol, path: live.connection.path(), channel })
    }

    async fn begin(&self) -> Result<Opening, OpenError> {
        let live = self.connect().await?;
        if !live.is_surely_alive() {
            let opened = self.open().await?;
            let PeerStream { send, recv } =
                opened.channel.into_stream().ok_or(OpenError::Misuse("not a stream"))?;
            let answered = Answered { protocol: opened.protocol, path: opened.path, recv };
            return Ok(Opening { send, answer: Answer { state: AnswerState::Here(Box::new(answered)) } });
        }
        let said = self.within_deadline(self.say_hello(&live)).await;
        let (send, recv, lease, suspicion) = said.map_err(Failure::into_error)?;
        let lease = Arc::new(lease);
        let send = SendHalf::new(send, lease.clone());
        let hello = self.hello.clone();
        let awaited = Awaited { live, hello, recv, lease, deadline: self.deadline, suspicion };
        Ok(Opening { send, answer: Answer { state: AnswerState::Awaited(Box::new(awaited)) } })
    }

    /// Says hello and hears the answer; again on a fresh connection if the old one ended meanwhile.
    async fn ask(&self) -> Result<(Arc<Live>, ProtocolName, Channel), OpenError> {
        let mut tries = 1;
        loop {
            let live = self.connect().await?;
            match self.ask_on(&live).await {
                Ok((protocol, channel)) => return Ok((live, protocol, channel)),
                Err(failure) if failure.is_worth_another_try() && tries < OPEN_TRIES_MAX => tries += 1,
                Err(failure) => return Err(failure.into_error()),
            }
        }
    }

    async fn ask_on(&self, live: &Arc<Live>) -> Result<(ProtocolName, Channel), Failure> {
        let (send, mut recv, lease, suspicion) = self.within_deadline(self.say_hello(live)).await?;
        let registered = self.register(live, &send);
        let asked = Asked::new(send);
        let Ok(answer) = timeout_at(self.deadline.at, read_answer(&self.hello, &mut recv)).await else {
            return Err(Failure::Said(suspicion.too_late(self.deadline.after)));
        };
        suspicion.settle();
        let protocol = answer?;
        live.note_heard();
        let send = asked.answered();
        let channel = match registered {
            None => Channel::Stream(PeerStream::new(send, recv, lease)),
            Some(place) => Channel::Flow(Flow::new(live.connection.clone(), place, send, recv, lease)),
        };
        Ok((protocol, channel))
    }

    async fn say_hello(
        &self,
        live: &Arc<Live>,
    ) -> Result<(SendStream, RecvStream, Lease, Suspicion), Failure> {
        let lease = live.leases.take(match self.hello.kind() {
            Kind::Stream => Use::Stream,
            Kind::Datagram => Use::Flow,
        });
        let (mut send, recv) = live.connection.open().await.map_err(Failure::Lost)?;
        let heard_before = live.connection.traffic().packets_received;
        send.write_chunks(&mut [self.hello.encode()]).await?;
        Ok((send, recv, lease, Suspicion::new(live.clone(), heard_before)))
    }

    fn register(&self, live: &Arc<Live>, send: &SendStream) -> Option<Registered> {
        match self.hello.kind() {
            Kind::Stream => None,
            Kind::Datagram => live.flows.register(&live.connection, send.id()),
        }
    }

    /// The connection to open on, with a path that will do.
    async fn connect(&self) -> Result<Arc<Live>, OpenError> {
        let live = self.connect_anyhow().await?;
        if self.needs_own_path && timeout_at(self.deadline.at, live.gets_own_path()).await.is_err() {
            let attempts =
                self.registry.existing(&self.peer).map(|handle| handle.status().timeline.attempts());
            return Err(OpenError::NeedsRelay { attempts: attempts.unwrap_or_default() });
        }
        Ok(live)
    }

    /// The connection that stands, or what the peer's task brings.
    async fn connect_anyhow(&self) -> Result<Arc<Live>, OpenError> {
        let standing = self.registry.existing(&self.peer).and_then(|handle| handle.live());
        if let Some(live) = standing {
            return Ok(live);
        }
        let (reply, connected) = oneshot::channel();
        self.within_deadline(async {
            self.registry.command(self.peer, self.context, Command::Connect(reply)).await?;
            connected.await.unwrap_or(Err(OpenError::ShuttingDown))
        })
        .await
    }
}

/// The half that carried the hello. If it is dropped before the answer, the peer hears that the open was given up (400 APP), and not
/// that a plugin is gone.
#[derive(Debug)]
struct Asked(Option<SendStream>);

impl Asked {
    fn new(send: SendStream) -> Self {
        Self(Some(send))
    }

    fn answered(mut self) -> SendStream {
        self.0.take().expect("taken only here, which consumes it")
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(send) = &mut self.0 {
            send.reset(EndCode::app(0));
        }
    }
}

async fn read_answer(hello: &StreamHello, recv: &mut RecvStream) -> Result<ProtocolName, Failure> {
    let not_spoken = || Failure::Said(OpenError::Refused { code: EndCode::PROTOCOL.code });
    match read_message(recv).await {
        Ok(StreamAnswer::Accepted(protocol)) if hello.offers(&protocol) => Ok(protocol),
        Ok(StreamAnswer::Accepted(_)) => Err(not_spoken()),
        Ok(StreamAnswer::Refused(refusal)) => Err(Failure::Said(OpenError::of_refusal(&refusal))),
        Err(ReadMessageError::Ended(end)) => Err(end.into()),
        Err(ReadMessageError::Finished | ReadMessageError::Malformed(_)) => Err(not_spoken()),
    }
}

/// Watches a connection from the hello on: if it is dropped unsettled (the deadline struck) and not one packet was heard in
/// a long time, the connection is condemned. The wait for credit before the hello does not count: a healthy connection may
/// be silent meanwhile, but a hello is always acknowledged.
#[derive(Debug)]
struct Suspicion {
    live: Arc<Live>,
    heard_before: u64,
    since: Instant,
    is_settled: bool,
}

impl Suspicion {
    /// `heard_before` is read before the hello is written: its acknowledgement must count.
    fn new(live: Arc<Live>, heard_before: u64) -> Self {
        Self { live, heard_before, since: Instant::now(), is_settled: false }
    }

    fn settle(mut self) {
        self.is_settled = true;
    }

    /// Why there is no answer after this time. A peer that acknowledges our packets is slow to answer (207); one of whom
    /// nothing was heard is not reached (302), whatever the connection still believes.
    fn too_late(&self, after: Duration) -> OpenError {
        let connection = &self.live.connection;
        let is_silent = connection.traffic().packets_received == self.heard_before;
        match connection.path().filter(|_| is_silent) {
            None => OpenError::Timeout { after },
            Some(path) => {
                let took = self.since.elapsed();
                let outcome = AttemptOutcome::NoAnswer;
                let started = Duration::ZERO;
                let attempt =
                    transport::Attempt { address: path.remote, relay: None, started, took, outcome };
                OpenError::Unreachable { attempts: vec![attempt] }
            }
        }
    }
}

impl Drop for Suspicion {
    fn drop(&mut self) {
        if !self.is_settled {
            self.live.suspect(self.heard_before, self.since.elapsed());
        }
    }
}

impl Live {
    /// Waits until data goes to the peer without a relay; returns, too, when the connection is lost. Cancel-safe.
    async fn gets_own_path(&self) {
        let mut steered = self.steered.explanation.clone();
        while self.is_relayed() && self.connection.lost().is_none() {
            may_have_moved(&mut steered).await;
        }
    }

    /// Waits until data goes through a relay; for ever if the connection ends before. Cancel-safe.
    pub(crate) async fn lost_own_path(&self) {
        let mut steered = self.steered.explanation.clone();
        while !self.is_relayed() {
            if self.connection.lost().is_some() {
                return std::future::pending().await;
            }
            may_have_moved(&mut steered).await;
        }
    }

    fn is_relayed(&self) -> bool {
        self.connection.path().is_some_and(|path| path.kind.is_relayed())
    }

    /// Ends the connection if it stayed silent for as long as `waited`, which must be long.
    fn suspect(&self, heard_before: u64, waited: Duration) {
        let is_silent = self.connection.traffic().packets_received == heard_before;
        if is_silent && waited >= SUSPECT_AFTER {
            tracing::debug!(peer = %self.connection.peer().short(), "a silent connection is given up");
            self.connection.close(EndCode::PATH_LOST);
        }
    }
}

/// Waits until data may take another path: steering says so at once. A path that QUIC replaced by itself it does not see, so the wait is over
/// after [`PATH_LOOK`] in any case. Cancel-safe.
async fn may_have_moved(steered: &mut watch::Receiver<Option<Explanation>>) {
    // A connection that is not steered, or no more, is looked at only.
    let told = async {
        if steered.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    timeout(PATH_LOOK, told).await.ok();
}
