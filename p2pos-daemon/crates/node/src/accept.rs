//! Streams that peers open: the hello is read under a deadline, ping is answered here, everything else waits a bounded time
//! for somebody to accept or refuse it.
//!
//! One task per unanswered stream owns its answer; an [`Incoming`] is only the right to decide about it, so a decision that
//! never comes cannot keep a peer waiting: the task then answers 306 NOT_READY itself. What the peer sends behind its hello
//! may be read before the decision ([`Incoming::early`]).

use std::sync::Arc;

use p2pos_identity::{PeerId, ProtocolName};
use p2pos_peer_protocol::{
    EndCode, Kind, Message, PING_PROTOCOL, Refusal, RefusalCode, StreamAnswer, StreamHello,
    measure::MEASURE_PROTOCOL, relay::RELAY_PROTOCOL, signal::SIGNAL_PROTOCOL,
};
use p2pos_transport::{Lost, PathInfo, RecvStream, SendStream, StreamEnd};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use crate::{
    flow::Flow,
    hello::{ReadMessageError, read_message},
    keepalive::Helper,
    lease::{Lease, Use},
    limits::{ANSWER_MAX, HELLO_MAX, UNANSWERED_PER_CONNECTION_MAX},
    open::Channel,
    peer::Live,
    ping,
    relays::Relays,
    stream::{PeerStream, RecvHalf, SendHalf},
};

/// Advice to a peer whose stream found our queue full, ms.
const BUSY_RETRY_MS: u32 = 1_000;

/// A stream that a peer has opened and that waits for a decision; dropped, it is refused with 306 NOT_READY.
#[derive(Debug)]
pub struct Incoming {
    peer: PeerId,
    hello: StreamHello,
    path: Option<PathInfo>,
    /// What follows the hello; `None` for flows, where nothing does.
    early: Option<RecvHalf>,
    /// `None` once decided.
    decide: Option<oneshot::Sender<Decision>>,
}

/// What was decided about an incoming stream.
#[derive(Debug)]
enum Decision {
    Accept(oneshot::Sender<Undecided>),
    Refuse(Refusal),
}

/// What the task keeps of an undecided stream, and gives to whoever accepts it.
#[derive(Debug)]
struct Undecided {
    live: Arc<Live>,
    send: SendStream,
    rest: Rest,
}

/// The part that depends on the kind. Here and in [`Incoming::early`] is the lease that holds the connection in use: it must
/// not end between the answer and the peer's learning of it.
#[derive(Debug)]
enum Rest {
    Stream(Arc<Lease>),
    Flow(RecvStream, Lease),
}

impl Incoming {
    /// Who opened it.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The protocols it may become, in the peer's order of preference.
    #[must_use]
    pub fn protocols(&self) -> &[ProtocolName] {
        self.hello.protocols()
    }

    /// Stream or datagram flow.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.hello.kind()
    }

    /// The path it came by, if the connection still stands.
    #[must_use]
    pub fn path(&self) -> Option<PathInfo> {
        self.path
    }

    /// What the peer has sent behind its hello: it need not wait for the answer, and whoever decides need not either. Once
    /// accepted it is the receiving half of the stream. `None` for flows.
    pub fn early(&mut self) -> Option<&mut RecvHalf> {
        self.early.as_mut()
    }

    /// Accepts it as one of [`Incoming::protocols`]. The answer leaves together with what is written right after.
    ///
    /// # Errors
    /// [`StreamEnd`] if the stream ended or was answered for us in the meantime, or `protocol` was not offered.
    pub async fn accept(mut self, protocol: ProtocolName) -> Result<Channel, StreamEnd> {
        let decide = self.decide.take().filter(|_| self.hello.offers(&protocol)).ok_or(StreamEnd::Closed)?;
        let (give, given) = oneshot::channel();
        if decide.send(Decision::Accept(give)).is_err() {
            return Err(StreamEnd::Closed);
        }
        let Undecided { live, mut send, rest } = given.await.map_err(|_| StreamEnd::Closed)?;
        let yes = StreamAnswer::Accepted(protocol);
        match (rest, self.early.take()) {
            (Rest::Stream(lease), Some(recv)) => {
                answer(&mut send, &yes).await?;
                Ok(Channel::Stream(PeerStream { send: SendHalf::new(send, lease), recv }))
            }
            (Rest::Flow(recv, lease), _) => {
                // Before the answer, so that no datagram is lost.
                let place = live.flows.register(&live.connection, send.id()).ok_or(StreamEnd::Closed)?;
                answer(&mut send, &yes).await?;
                Ok(Channel::Flow(Flow::new(live.connection.clone(), place, send, recv, lease)))
            }
            (Rest::Stream(_), None) => Err(StreamEnd::Closed),
        }
    }

    /// Refuses it, and stops what the opener may have sent already, for the same reason.
    pub fn refuse(mut self, refusal: Refusal) {
        if let Some(recv) = &mut self.early {
            recv.stop(EndCode::of(refusal.code().number()));
        }
        if self.decide.take().is_none_or(|decide| decide.send(Decision::Refuse(refusal)).is_err()) {
            tracing::trace!("refused a stream that had ended");
        }
    }
}

impl Drop for Incoming {
    /// Without a decision the task refuses; here is what it cannot stop.
    fn drop(&mut self) {
        if let Some(recv) = &mut self.early {
            recv.stop(EndCode::of(RefusalCode::NOT_READY.number()));
        }
    }
}

/// Accepts the streams of one connection until it ends.
pub(crate) async fn run(
    live: Arc<Live>,
    incoming: mpsc::Sender<Incoming>,
    helper: Arc<Helper>,
    relays: Arc<Relays>,
) -> Lost {
    let places = Arc::new(Semaphore::new(UNANSWERED_PER_CONNECTION_MAX));
    let mut unanswered = JoinSet::new();
    loop {
        tokio::select! {
            stream = live.connection.accept_stream() => match stream {
                Ok(stream) => {
                    let Ok(place) = places.clone().try_acquire_owned() else {
                        turn_away(stream);
                        continue;
                    };
                    let (helper, relays) = (helper.clone(), relays.clone());
                    let opened = Opened { live: live.clone(), helper, relays, _place: place };
                    unanswered.spawn(opened.serve(stream, incoming.clone()));
                }
                Err(lost) => return lost,
            },
            Some(done) = unanswered.join_next() => {
                if let Err(error) = done && error.is_panic() {
                    tracing::error!(%error, "a task for an incoming stream failed");
                }
            }
        }
    }
}

/// Ends a stream for which there is no place, without reading it.
fn turn_away((mut send, mut recv): (SendStream, RecvStream)) {
    send.reset(EndCode::STREAM_LIMIT);
    recv.stop(EndCode::STREAM_LIMIT);
}

/// One stream between its arrival and its answer.
struct Opened {
    live: Arc<Live>,
    helper: Arc<Helper>,
    relays: Arc<Relays>,
    /// Given back when the stream is decided on.
    _place: OwnedSemaphorePermit,
}

impl Opened {
    async fn serve(self, (mut send, mut recv): (SendStream, RecvStream), incoming: mpsc::Sender<Incoming>) {
        let hello = match timeout(HELLO_MAX, read_message::<StreamHello>(&mut recv)).await {
            Ok(Ok(hello)) => hello,
            Ok(Err(ReadMessageError::Ended(end))) => {
                return tracing::trace!(%end, "a stream ended before its hello");
            }
            Ok(Err(error @ (ReadMessageError::Finished | ReadMessageError::Malformed(_)))) => {
                tracing::debug!(peer = %self.live.connection.peer().short(), %error, "a peer sent no valid hello");
                send.reset(EndCode::PROTOCOL);
                return recv.stop(EndCode::PROTOCOL);
            }
            Err(_) => return turn_away((send, recv)),
        };
        if let Some(protocol) = hello.protocols().iter().find(|name| name.as_str() == PING_PROTOCOL) {
            let protocol = protocol.clone();
            return self.serve_ping(protocol, send, recv).await;
        }
        if let Some(protocol) = hello.protocols().iter().find(|name| name.as_str() == SIGNAL_PROTOCOL) {
            return self.hand_to_steering(protocol.clone(), send, recv).await;
        }
        if let Some(protocol) = hello.protocols().iter().find(|name| name.as_str() == MEASURE_PROTOCOL) {
            return self.serve_measurement(protocol.clone(), send, recv).await;
        }
        if let Some(protocol) = hello.protocols().iter().find(|name| name.as_str() == RELAY_PROTOCOL) {
            return self.serve_relay(protocol.clone(), send, recv).await;
        }
        self.offer(hello, (send, recv), incoming).await;
    }

    /// Whether we relay for this peer, and how much, the answers to its requests will say.
    async fn serve_relay(self, protocol: ProtocolName, mut send: SendStream, recv: RecvStream) {
        if answer(&mut send, &StreamAnswer::Accepted(protocol)).await.is_ok() {
            let _lease = self.live.leases.take(Use::Stream);
            self.relays.serve(&self.live, send, recv).await;
        }
    }

    /// As with ping, the lease keeps the connection, and the place stays taken.
    async fn serve_measurement(self, protocol: ProtocolName, mut send: SendStream, recv: RecvStream) {
        if answer(&mut send, &StreamAnswer::Accepted(protocol)).await.is_ok() {
            let _lease = self.live.leases.take(Use::Stream);
            self.helper.serve(self.live.clone(), (send, recv)).await;
        }
    }

    /// A connection has one signal stream; a second one finds no place.
    async fn hand_to_steering(self, protocol: ProtocolName, mut send: SendStream, recv: RecvStream) {
        match self.live.steered.streams.try_reserve() {
            Ok(place) => {
                if answer(&mut send, &StreamAnswer::Accepted(protocol)).await.is_ok() {
                    place.send((send, recv));
                }
            }
            Err(_) => turn_away((send, recv)),
        }
    }

    async fn serve_ping(self, protocol: ProtocolName, mut send: SendStream, recv: RecvStream) {
        if answer(&mut send, &StreamAnswer::Accepted(protocol)).await.is_ok() {
            // The lease keeps the connection; the place stays taken too, which bounds the ping streams of a peer.
            let _lease = self.live.leases.take(Use::Stream);
            ping::answer_pings(send, recv).await;
        }
    }

    /// Puts the stream before whoever accepts, and does what they decide.
    async fn offer(
        self,
        hello: StreamHello,
        (send, recv): (SendStream, RecvStream),
        queue: mpsc::Sender<Incoming>,
    ) {
        let (early, rest) = self.divide(hello.kind(), recv);
        let (decide, decision) = oneshot::channel();
        let incoming = Incoming {
            peer: self.live.connection.peer(),
            path: self.live.connection.path(),
            hello,
            early,
            decide: Some(decide),
        };
        let busy = Refusal::new(RefusalCode::NOT_READY).with_retry_after_ms(BUSY_RETRY_MS);
        if queue.try_send(incoming).is_err() {
            return Undecided { live: self.live, send, rest }.refuse(busy).await;
        }
        let undecided = Undecided { live: self.live, send, rest };
        match timeout(ANSWER_MAX, decision).await {
            Ok(Ok(Decision::Accept(give))) => {
                if give.send(undecided).is_err() {
                    tracing::trace!("whoever accepted a stream has gone");
                }
            }
            Ok(Ok(Decision::Refuse(refusal))) => undecided.refuse(refusal).await,
            Ok(Err(_)) | Err(_) => undecided.refuse(busy).await,
        }
    }

    /// What goes to whoever decides, and what stays here.
    fn divide(&self, kind: Kind, recv: RecvStream) -> (Option<RecvHalf>, Rest) {
        match kind {
            Kind::Stream => {
                let lease = Arc::new(self.live.leases.take(Use::Stream));
                (Some(RecvHalf::new(recv, lease.clone())), Rest::Stream(lease))
            }
            Kind::Datagram => (None, Rest::Flow(recv, self.live.leases.take(Use::Flow))),
        }
    }
}

impl Undecided {
    /// Answers no.
    async fn refuse(self, refusal: Refusal) {
        let Self { live: _live, mut send, rest } = self;
        if let Rest::Flow(mut recv, _lease) = rest {
            recv.stop(EndCode::of(refusal.code().number()));
        }
        if answer(&mut send, &StreamAnswer::Refused(refusal)).await.is_ok() {
            send.finish();
        }
    }
}

/// The answer is the first thing we write, and far smaller than any window: this does not wait for the peer.
async fn answer(send: &mut SendStream, answer: &StreamAnswer) -> Result<(), StreamEnd> {
    send.write_chunks(&mut [answer.encode()]).await
}
