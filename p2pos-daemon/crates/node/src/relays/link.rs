//! A link to a relay that we use: the stream `/p2pos/relay/1` on an ordinary connection, requests and their answers.
//!
//! Refuses to know: what is reserved or called when (`keep`, `mod`), and what a flow is for.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use p2pos_identity::PeerId;
use p2pos_peer_protocol::{
    Decoder, EndCode, Message as _,
    relay::{RelayExchange, RelayMessage, RelayNotice},
};
use p2pos_transport::TcpRelay;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
    time::{Instant, timeout},
};

use crate::stream::{PeerStream, RecvHalf, SendHalf};

/// How long a relay has to answer. With what it takes to see that a path is dead, a move to another relay is over in two
/// seconds; half of it would give up relays behind a satellite.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Messages that wait to be written; a link has a handful of requests at a time.
const OUTBOX: usize = 32;

/// Notices of the relay that wait to be looked at; then it is not read on.
const NOTICES: usize = 32;

/// Requests that wait for their answers.
const PENDING_MAX: usize = 32;

/// How the relay is reached.
#[derive(Debug, Clone)]
pub(super) enum Road {
    /// By UDP, at this address: frames go there.
    Udp(SocketAddr),
    /// By this TCP connection.
    Tcp(Arc<TcpRelay>),
}

/// A link that stands, or stood. It ends when closed, when the stream ends, or when it is dropped.
#[derive(Debug)]
pub(super) struct Link {
    relay: PeerId,
    road: Road,
    rtt: Duration,
    next_request: AtomicU32,
    out: mpsc::Sender<RelayMessage>,
    pending: Arc<Pending>,
    is_open: watch::Sender<bool>,
    used_at: Mutex<Instant>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct Pending(Mutex<BTreeMap<NonZeroU32, oneshot::Sender<RelayExchange>>>);

impl Link {
    /// Takes over a stream that the relay has accepted. Its notices go to the receiver.
    pub(super) fn start(
        relay: PeerId,
        (road, rtt): (Road, Duration),
        stream: PeerStream,
    ) -> (Arc<Self>, mpsc::Receiver<RelayNotice>) {
        let (out, to_write) = mpsc::channel(OUTBOX);
        let (was_read, notices) = mpsc::channel(NOTICES);
        let pending = Arc::<Pending>::default();
        let is_open = watch::Sender::new(true);
        let task = tokio::spawn({
            let (pending, is_open) = (pending.clone(), is_open.clone());
            async move {
                let PeerStream { send, recv } = stream;
                tokio::select! {
                    () = write(send, to_write) => {}
                    () = read(recv, &pending, was_read) => {}
                }
                pending.lock().clear();
                is_open.send_replace(false);
            }
        });
        let link = Self {
            relay,
            road,
            rtt,
            next_request: AtomicU32::new(1),
            out,
            pending,
            is_open,
            used_at: Mutex::new(Instant::now()),
            task: task.abort_handle(),
        };
        (Arc::new(link), notices)
    }

    pub(super) fn relay(&self) -> PeerId {
        self.relay
    }

    pub(super) fn road(&self) -> &Road {
        &self.road
    }

    /// The relay's address.
    pub(super) fn address(&self) -> SocketAddr {
        match &self.road {
            Road::Udp(address) => *address,
            Road::Tcp(line) => line.remote(),
        }
    }

    pub(super) fn rtt(&self) -> Duration {
        self.rtt
    }

    pub(super) fn is_open(&self) -> bool {
        *self.is_open.borrow()
    }

    /// Waits until the link has ended. Cancel-safe.
    pub(super) async fn closed(&self) {
        // An error would mean that the sender is gone, which is in `self`.
        self.is_open.subscribe().wait_for(|is_open| !is_open).await.ok();
    }

    pub(super) fn close(&self) {
        self.task.abort();
        self.pending.lock().clear();
        self.is_open.send_replace(false);
    }

    /// Asks the relay something. `None`: no answer within [`ANSWER_MAX`], after which the link is closed, because a relay
    /// that does not answer is of no use.
    pub(super) async fn ask(&self, body: RelayExchange) -> Option<RelayExchange> {
        *self.used_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let number = self.next_request.fetch_add(1, Ordering::Relaxed);
        let request = NonZeroU32::new(number)?;
        let (answer, answered) = oneshot::channel();
        {
            let mut pending = self.pending.lock();
            if pending.len() >= PENDING_MAX {
                return None;
            }
            pending.insert(request, answer);
        }
        let asked = async {
            self.out.send(RelayMessage::Numbered { request, body }).await.ok()?;
            answered.await.ok()
        };
        match timeout(ANSWER_MAX, asked).await {
            Ok(answer) => answer,
            Err(_) => {
                tracing::debug!(relay = %self.relay.short(), "a relay did not answer");
                self.close();
                None
            }
        }
    }

    /// Tells the relay that a flow is not wanted any more. If it is busy, the flow ends by its silence.
    pub(super) fn hang_up(&self, vni: NonZeroU32) {
        let message = RelayMessage::Notice(RelayNotice::HangUp { vni });
        if self.out.try_send(message).is_err() {
            tracing::trace!(relay = %self.relay.short(), "a relay was not told that a flow is over");
        }
    }

    /// How long nothing was asked.
    pub(super) fn unused_for(&self) -> Duration {
        self.used_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NonZeroU32, oneshot::Sender<RelayExchange>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn write(mut send: SendHalf, mut messages: mpsc::Receiver<RelayMessage>) {
    while let Some(message) = messages.recv().await {
        if send.write(message.encode()).await.is_err() {
            return;
        }
    }
}

async fn read(mut recv: RecvHalf, pending: &Pending, notices: mpsc::Sender<RelayNotice>) {
    let mut decoder = Decoder::<RelayMessage>::new();
    while let Ok(Some(mut chunk)) = recv.read_chunk().await {
        loop {
            match decoder.feed(&mut chunk) {
                Ok(Some(RelayMessage::Numbered { request, body })) => {
                    if let Some(asker) = pending.lock().remove(&request) {
                        // Whoever asked may have gone.
                        asker.send(body).ok();
                    }
                }
                Ok(Some(RelayMessage::Notice(notice))) => {
                    if notices.send(notice).await.is_err() {
                        return;
                    }
                }
                Ok(Some(RelayMessage::Unknown)) => {}
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "a relay sent no valid message");
                    return recv.stop(EndCode::PROTOCOL);
                }
            }
        }
    }
}
