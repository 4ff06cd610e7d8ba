//! Streams that peers open: the hello is read under a deadline, ping is answered here, everything else waits a bounded time
//! for somebody to accept or refuse it.
//!
//! One task per unanswered stream owns the stream; an [`Incoming`] is only the right to decide about it, so a decision that
//! never comes cannot keep a peer waiting: the task then answers 306 NOT_READY itself.

use std::sync::Arc;

use p2pos_identity::{PeerId, ProtocolName};
use p2pos_peer_protocol::{
    EndCode, Kind, Message, PING_PROTOCOL, Refusal, RefusalCode, StreamAnswer, StreamHello,
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
    lease::Use,
    limits::{ANSWER_MAX, HELLO_MAX, UNANSWERED_PER_CONNECTION_MAX},
    open::Channel,
    peer::Live,
    ping,
    stream::PeerStream,
};

/// Advice to a peer whose stream found our queue full, ms.
const BUSY_RETRY_MS: u32 = 1_000;

/// A stream that a peer has opened and that waits for a decision; dropped, it is refused with 306 NOT_READY.
#[derive(Debug)]
pub struct Incoming {
    peer: PeerId,
    hello: StreamHello,
    path: Option<PathInfo>,
    is_contact: bool,
    decide: oneshot::Sender<Decision>,
}

/// What was decided about an incoming stream.
#[derive(Debug)]
enum Decision {
    Accept(ProtocolName, oneshot::Sender<Result<Channel, StreamEnd>>),
    Refuse(Refusal),
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

    /// Whether the policy knows the peer as a contact.
    #[must_use]
    pub fn is_contact(&self) -> bool {
        self.is_contact
    }

    /// Accepts it as one of [`Incoming::protocols`].
    ///
    /// # Errors
    /// [`StreamEnd`] if the stream ended or was answered for us in the meantime, or `protocol` was not offered.
    pub async fn accept(self, protocol: ProtocolName) -> Result<Channel, StreamEnd> {
        if !self.hello.offers(&protocol) {
            return Err(StreamEnd::Closed);
        }
        let (reply, channel) = oneshot::channel();
        if self.decide.send(Decision::Accept(protocol, reply)).is_err() {
            return Err(StreamEnd::Closed);
        }
        channel.await.unwrap_or(Err(StreamEnd::Closed))
    }

    /// Refuses it.
    pub fn refuse(self, refusal: Refusal) {
        if self.decide.send(Decision::Refuse(refusal)).is_err() {
            tracing::trace!("refused a stream that had ended");
        }
    }
}

/// Accepts the streams of one connection until it ends.
pub(crate) async fn run(live: Arc<Live>, is_contact: bool, incoming: mpsc::Sender<Incoming>) -> Lost {
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
                    let opened = Opened { live: live.clone(), is_contact, place };
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
    is_contact: bool,
    /// Given back when the stream is answered.
    place: OwnedSemaphorePermit,
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
        self.offer(hello, (send, recv), incoming).await;
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
        (mut send, recv): (SendStream, RecvStream),
        queue: mpsc::Sender<Incoming>,
    ) {
        let (decide, decision) = oneshot::channel();
        let kind = hello.kind();
        let incoming = Incoming {
            peer: self.live.connection.peer(),
            path: self.live.connection.path(),
            is_contact: self.is_contact,
            hello,
            decide,
        };
        // Taken before the answer: once the peer knows it, the connection is in use.
        let lease = self.live.leases.take(match kind {
            Kind::Stream => Use::Stream,
            Kind::Datagram => Use::Flow,
        });
        let busy = Refusal::new(RefusalCode::NOT_READY).with_retry_after_ms(BUSY_RETRY_MS);
        if queue.try_send(incoming).is_err() {
            return refuse((send, recv), busy).await;
        }
        let (protocol, reply) = match timeout(ANSWER_MAX, decision).await {
            Ok(Ok(Decision::Accept(protocol, reply))) => (protocol, reply),
            Ok(Ok(Decision::Refuse(refusal))) => return refuse((send, recv), refusal).await,
            Ok(Err(_)) | Err(_) => return refuse((send, recv), busy).await,
        };
        let registered = match kind {
            Kind::Stream => None,
            Kind::Datagram => self.live.flows.register(&self.live.connection, send.id()),
        };
        let channel = match answer(&mut send, &StreamAnswer::Accepted(protocol)).await {
            Err(end) => Err(end),
            Ok(()) => Ok(match registered {
                None => Channel::Stream(PeerStream::new(send, recv, lease)),
                Some(place) => {
                    Channel::Flow(Flow::new(self.live.connection.clone(), place, send, recv, lease))
                }
            }),
        };
        drop(self.place);
        if reply.send(channel).is_err() {
            tracing::trace!("whoever accepted a stream has gone");
        }
    }
}

/// Answers no, and stops what the opener may have sent already, for the same reason.
async fn refuse((mut send, mut recv): (SendStream, RecvStream), refusal: Refusal) {
    recv.stop(EndCode::of(refusal.code().number()));
    if answer(&mut send, &StreamAnswer::Refused(refusal)).await.is_ok() {
        send.finish();
    }
}

/// The answer is the first thing we write, and far smaller than any window: this does not wait for the peer.
async fn answer(send: &mut SendStream, answer: &StreamAnswer) -> Result<(), StreamEnd> {
    send.write_chunks(&mut [answer.encode()]).await
}
