//! The relay's side: answers `/p2pos/relay/1`, tells users what concerns them, and lets the service's clock run.
//!
//! One task for each user's stream reads requests and writes answers and notices; one tends the service. Frames do not come
//! here: the sockets hand them to the same service ([`Forwarder`]). Refuses to know: limits and leases (`p2pos_relay`).

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use p2pos_identity::PeerId;
use p2pos_peer_protocol::{
    Decoder, EndCode, Message as _,
    relay::{RelayExchange, RelayMessage, RelayNotice},
};
use p2pos_relay::{Asker, Call, ENTROPY_BYTES, Entropy, Refusal, Service, ServiceEvent, Via};
use p2pos_transport::{Endpoint, Forwarder, Lost, PathStatus, RecvStream, SendStream, StreamEnd, Way};
use rand::RngExt as _;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep_until, timeout},
};

use super::words;
use crate::{
    config::{Admission, Policy},
    peer::Live,
};

/// Notices that wait for a user who does not read. It loses the rest: calls that nobody took are tried elsewhere, and a flow
/// that ended shows itself by its silence.
const NOTICES_MAX: usize = 64;

/// How long a user may take to read an answer.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// Requests taken from one user in [`RATE_WINDOW`]; then it waits. A busy caller has some.
const REQUESTS_MAX: u32 = 64;

/// See there.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// The serving side of a node.
pub(super) struct Serving {
    endpoint: Endpoint,
    policy: Arc<dyn Policy>,
    forwarder: Arc<Forwarder>,
    users: Mutex<BTreeMap<PeerId, User>>,
    /// Something was said to the service, so its next deadline may be another one.
    changed: Notify,
    /// Every flow has ended after a drain.
    drained: Notify,
}

/// Where to tell a user something.
struct User {
    /// Tells streams of one user apart.
    stream: u64,
    notices: mpsc::Sender<RelayMessage>,
}

/// How a user's stream ended.
#[derive(Debug, Clone, Copy)]
enum Leave {
    /// The user wants nothing more.
    InGoodOrder,
    /// It may come back.
    Lost,
}

impl Serving {
    pub(super) fn new(endpoint: Endpoint, policy: Arc<dyn Policy>, forwarder: Arc<Forwarder>) -> Self {
        Self {
            endpoint,
            policy,
            forwarder,
            users: Mutex::default(),
            changed: Notify::new(),
            drained: Notify::new(),
        }
    }

    /// Asks the service something, and tells users what follows.
    pub(super) fn with<T>(&self, talk: impl FnOnce(&mut Service) -> T) -> T {
        let said = self.forwarder.with(talk);
        self.tell();
        self.changed.notify_one();
        said
    }

    /// Goes down in good order: tells everybody, forwards for `grace` at the longest, and returns when no flow is left.
    pub(super) async fn drain(&self, grace: Duration) {
        let drained = self.drained.notified();
        self.with(|service| service.handle_drain(now(), grace));
        // The service ends the drain by itself, within its grace.
        timeout(grace + WRITE_MAX, drained).await.ok();
    }

    /// Lets the service's clock run, for ever.
    pub(super) async fn tend(&self) {
        loop {
            match self.forwarder.with(|service| service.poll_timeout()) {
                None => self.changed.notified().await,
                Some(due) => {
                    tokio::select! {
                        () = sleep_until(Instant::from_std(due)) => {
                            self.forwarder.with(|service| service.handle_timeout(now()));
                            self.tell();
                        }
                        () = self.changed.notified() => {}
                    }
                }
            }
        }
    }

    /// Serves a user until its stream ends.
    pub(super) async fn serve(&self, live: &Live, mut send: SendStream, mut recv: RecvStream) {
        let peer = live.connection.peer();
        let (notices, mut waiting) = mpsc::channel(NOTICES_MAX);
        let stream = send.id();
        self.users().insert(peer, User { stream, notices });
        let leave = self.talk(live, &mut send, &mut recv, &mut waiting).await;
        let was_last = {
            let mut users = self.users();
            let is_last = users.get(&peer).is_some_and(|user| user.stream == stream);
            if is_last {
                users.remove(&peer);
            }
            is_last
        };
        if was_last {
            self.with(|service| match leave {
                Leave::InGoodOrder => service.handle_left(peer),
                Leave::Lost => service.handle_gone(now(), peer),
            });
        }
        send.finish();
    }

    async fn talk(
        &self,
        live: &Live,
        send: &mut SendStream,
        recv: &mut RecvStream,
        waiting: &mut mpsc::Receiver<RelayMessage>,
    ) -> Leave {
        let mut decoder = Decoder::<RelayMessage>::new();
        let (mut window_ends, mut taken) = (Instant::now() + RATE_WINDOW, 0);
        loop {
            let mut chunk = tokio::select! {
                Some(notice) = waiting.recv() => {
                    if !write(send, &notice).await {
                        return Leave::Lost;
                    }
                    continue;
                }
                read = recv.read_chunk() => match read {
                    Ok(Some(chunk)) => chunk,
                    Ok(None) | Err(StreamEnd::Lost(Lost::Closed(_))) => return Leave::InGoodOrder,
                    Err(_) => return Leave::Lost,
                },
            };
            loop {
                let message = match decoder.feed(&mut chunk) {
                    Ok(Some(message)) => message,
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(%error, "a user of the relay sent no valid request");
                        recv.stop(EndCode::PROTOCOL);
                        return Leave::Lost;
                    }
                };
                if Instant::now() >= window_ends {
                    (window_ends, taken) = (Instant::now() + RATE_WINDOW, 0);
                }
                taken += 1;
                if taken > REQUESTS_MAX {
                    sleep_until(window_ends).await;
                }
                if let Some(answer) = self.answer(live, message)
                    && !write(send, &answer).await
                {
                    return Leave::Lost;
                }
            }
        }
    }

    fn answer(&self, live: &Live, message: RelayMessage) -> Option<RelayMessage> {
        match message {
            RelayMessage::Numbered { request, body } => self.answer_request(live, request, body),
            RelayMessage::Notice(RelayNotice::HangUp { vni }) => {
                let peer = live.connection.peer();
                // Of a flow that just ended by itself there is nothing to say.
                self.with(|service| service.handle_hang_up(peer, words::vni_of(vni))).ok();
                None
            }
            // What only relays say, receipts, which this version does not count, and what is newer.
            RelayMessage::Notice(
                RelayNotice::Incoming { .. }
                | RelayNotice::Ended { .. }
                | RelayNotice::Drain { .. }
                | RelayNotice::Limits(_)
                | RelayNotice::Receipt(_),
            )
            | RelayMessage::Unknown => None,
        }
    }

    fn answer_request(&self, live: &Live, request: NonZeroU32, body: RelayExchange) -> Option<RelayMessage> {
        let asker = self.asker(live);
        let answer = match body {
            RelayExchange::Reserve { token, stamp } => asker.and_then(|asker| {
                let stamp = stamp.map(words::stamp_from_wire);
                let lease = self.with(|service| service.handle_reserve(now(), &asker, token.0, stamp))?;
                Ok(RelayExchange::Lease(words::lease_to_wire(&lease)))
            }),
            RelayExchange::Connect { peer, token } => asker.and_then(|asker| {
                let call = Call { callee: peer, token: token.0 };
                let flow = self.with(|service| service.handle_connect(now(), &asker, &call, &entropy()))?;
                Ok(RelayExchange::Flow(words::flow_to_wire(&flow)))
            }),
            RelayExchange::Lease(_) | RelayExchange::Flow(_) | RelayExchange::Refuse(_) => return None,
        };
        let body = answer.unwrap_or_else(|refusal| {
            tracing::debug!(peer = %live.connection.peer().short(), %refusal, "a user of the relay was refused");
            RelayExchange::Refuse(words::refusal_to_wire(refusal))
        });
        Some(RelayMessage::Numbered { request, body })
    }

    /// Who asks, as its connection proves: by its direct path if it has one, else by its TCP connection with us. Of several, the
    /// newest: an older one may lead to where the asker was before.
    fn asker(&self, live: &Live) -> Result<Asker, Refusal> {
        let mut found = None;
        for path in live.connection.paths().list() {
            let (address, via, is_relayed) = match path.way {
                Way::Direct(address) | Way::Guess { remote: address, .. } => {
                    (address, Via::Udp(address), false)
                }
                Way::Relay { fake, relay } | Way::TcpRelay { fake, relay } => {
                    match self.endpoint.line_of(fake) {
                        Some((line, address)) => (address, Via::Tcp(line), false),
                        None => (relay, Via::Udp(relay), true),
                    }
                }
                Way::Gone(_) => continue,
            };
            let rank = (is_relayed, path.status != PathStatus::Available, matches!(via, Via::Tcp(_)));
            if found.as_ref().is_none_or(|(best, _)| rank <= *best) {
                found = Some((rank, (address, via, is_relayed)));
            }
        }
        let (_, (address, via, is_relayed)) = found.ok_or(Refusal::Address)?;
        let peer = live.connection.peer();
        let is_contact = self.policy.admits(&peer) == Admission::Contact;
        Ok(Asker { peer, is_contact, address, via, is_relayed })
    }

    /// Does what the service wants done.
    fn tell(&self) {
        while let Some(event) = self.forwarder.with(Service::poll_event) {
            match event {
                ServiceEvent::Tell { peer, notice } => {
                    let message = RelayMessage::Notice(words::notice_to_wire(&notice));
                    if let Some(user) = self.users().get(&peer)
                        && user.notices.try_send(message).is_err()
                    {
                        tracing::debug!(peer = %peer.short(), "a user of the relay does not read");
                    }
                }
                ServiceEvent::MonthWarning { used, max } => {
                    tracing::warn!(
                        used,
                        max,
                        "most of the bytes that the relay may forward this month are used"
                    );
                }
                ServiceEvent::MonthUsedUp { max } => {
                    tracing::warn!(max, "the relay has forwarded this month's bytes; now it only introduces");
                }
                ServiceEvent::Drained => self.drained.notify_waiters(),
            }
        }
    }

    fn users(&self) -> MutexGuard<'_, BTreeMap<PeerId, User>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn write(send: &mut SendStream, message: &RelayMessage) -> bool {
    matches!(timeout(WRITE_MAX, send.write_chunks(&mut [message.encode()])).await, Ok(Ok(())))
}

fn entropy() -> Entropy {
    let mut bytes = [0; ENTROPY_BYTES];
    rand::rng().fill(&mut bytes);
    Entropy(bytes)
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
