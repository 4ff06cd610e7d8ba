//! Learning what our NAT does with peers' help: how long it remembers a binding, and whether port mappings let anybody in.
//!
//! ```text
//!  learner (one task) --asks--> /p2pos/measure/1 --> helper (the other daemon): pongs, knocks
//!     |  measure: throw-away sockets, one silence each (traversal::keepalive)
//!     |  dial_back: "knock at my mapped port"          --results--> reach (own picture, keepalive interval)
//! ```
//!
//! Any peer that we reach directly across the Internet can help; nobody is dialled for it. A measurement of the lifetime is
//! made once a day in each network; a mapping is looked at when it is new, and again every half hour, since routers forget.
//!
//! Refuses to know: who the user's contacts are, what the interval is used for. DESIGN section 7.

mod dial_back;
mod helper;
mod measure;

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use p2pos_connectivity::{MappingReport, MappingState};
use p2pos_identity::ProtocolName;
use p2pos_peer_protocol::{
    Kind, Message as _, StreamAnswer, StreamHello,
    measure::{MEASURE_PROTOCOL, MeasureAnswer, MeasureQuestion},
};
use p2pos_transport::{PathKind, RecvStream, SendStream};
use p2pos_traversal::{
    Scope,
    keepalive::{KeepAlive, KeepAliveEvent, Survived},
    scope_of,
};
use tokio::{
    sync::broadcast,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

pub(crate) use self::helper::Helper;
use crate::{
    hello::read_message,
    lease::{Lease, Use},
    node::Event,
    peer::{Context, Live},
    reach::Own,
};

/// How long a helper may take to answer a question.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// A connection helps once it has lasted so long: most are over sooner, and a measurement would hold them.
const HELPS_AFTER: Duration = Duration::from_secs(10);
/// How often we look for a helper while something waits for one and peers are connected.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The pause before a mapping through which nothing came is looked at again; it doubles.
const LOOK_AGAIN_FIRST: Duration = Duration::from_secs(30);
/// How often a mapping that works is looked at, and the longest pause for one that does not.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(30 * 60);

/// A peer that can help, and where it is.
#[derive(Clone)]
struct Helping {
    live: Arc<Live>,
    remote: SocketAddr,
}

/// When a mapping is looked at next.
#[derive(Debug, Clone, Copy)]
struct Look {
    due: Instant,
    pause: Duration,
}

/// What a task of the learner found.
enum Found {
    Lifetime {
        network: u64,
        survived: Survived,
    },
    /// `None`: nobody looked.
    Mapping {
        external: SocketAddr,
        came_through: Option<bool>,
    },
}

/// Learns until it is aborted.
pub(crate) async fn learn(context: Arc<Context>) {
    let picture = context.reach.own().picture();
    let events = context.events().as_ref().map(broadcast::Sender::subscribe);
    let Some(events) = events else { return };
    let network = network_id(&picture.borrow());
    let learner = Learner {
        context,
        network,
        keep: KeepAlive::new(network, now()),
        looks: BTreeMap::new(),
        running: JoinSet::new(),
    };
    learner.run(picture, events).await;
}

struct Learner {
    context: Arc<Context>,
    network: u64,
    keep: KeepAlive,
    /// The mappings that stand, and when each is looked at.
    looks: BTreeMap<SocketAddr, Look>,
    running: JoinSet<Found>,
}

impl Learner {
    async fn run(
        mut self,
        mut picture: tokio::sync::watch::Receiver<Own>,
        mut events: broadcast::Receiver<Event>,
    ) {
        loop {
            let helpers = self.helpers();
            self.measure(&helpers);
            self.look_at_mappings(&helpers);
            let due = self.due(&helpers);
            tokio::select! {
                changed = picture.changed() => match changed {
                    Ok(()) => {
                        let own = picture.borrow_and_update().clone();
                        self.own_changed(&own);
                    }
                    Err(_) => return,
                },
                event = events.recv() => if let Err(broadcast::error::RecvError::Closed) = event {
                    return;
                },
                Some(found) = self.running.join_next() => match found {
                    Ok(found) => self.found(found),
                    Err(error) => if error.is_panic() {
                        tracing::error!(%error, "a measurement failed");
                    },
                },
                () = sleep_until(due) => {}
            }
        }
    }

    fn own_changed(&mut self, own: &Own) {
        let network = network_id(own);
        if network != self.network {
            self.network = network;
            self.running.abort_all();
            self.keep.handle_network_change(network, now());
            self.publish();
        }
        let standing: Vec<SocketAddr> = own.mappings.iter().filter_map(mapped_for_the_world).collect();
        self.looks.retain(|external, _| standing.contains(external));
        let at_once = Look { due: Instant::now(), pause: LOOK_AGAIN_FIRST };
        for external in standing {
            self.looks.entry(external).or_insert(at_once);
        }
    }

    /// Peers that are reached directly across the Internet, and have been for a while.
    fn helpers(&self) -> Vec<Helping> {
        let helping = |live: Arc<Live>| {
            let path = live.connection.path()?;
            let is_far = path.kind == PathKind::Direct && scope_of(path.remote.ip()) == Scope::Global;
            (is_far && live.connection.age() >= HELPS_AFTER).then_some(Helping { live, remote: path.remote })
        };
        let peers = self.context.registry.all();
        peers.into_iter().filter_map(|(_, handle)| helping(handle.live()?)).collect()
    }

    /// Starts what is due of the lifetime's measurement.
    fn measure(&mut self, helpers: &[Helping]) {
        // Throw-away sockets are made for IPv4: that is where NATs are.
        let helper = helpers.iter().find(|helper| helper.remote.is_ipv4());
        self.keep.handle_wanted(helper.is_some(), now());
        while let Some(event) = self.keep.poll_event(now()) {
            match (event, helper) {
                (KeepAliveEvent::Measure, Some(helper)) => {
                    let (network, helper) = (self.network, helper.clone());
                    self.running.spawn(async move {
                        Found::Lifetime { network, survived: measure::run(&helper.live, helper.remote).await }
                    });
                }
                // The connections keep themselves alive, at the interval that is published.
                (KeepAliveEvent::Send, _) | (KeepAliveEvent::Measure, None) => {}
            }
        }
    }

    fn look_at_mappings(&mut self, helpers: &[Helping]) {
        for (external, look) in &mut self.looks {
            if look.due > Instant::now() {
                continue;
            }
            // Who shares our outside address sits behind the same router.
            let is_outside = |helper: &&Helping| {
                helper.remote.is_ipv4() == external.is_ipv4() && helper.remote.ip() != external.ip()
            };
            let Some(helper) = helpers.iter().find(is_outside).cloned() else { continue };
            look.due = Instant::now() + look.pause;
            look.pause = (look.pause * 2).min(LOOK_AGAIN_MAX);
            let (context, external) = (self.context.clone(), *external);
            self.running.spawn(async move {
                let came_through = dial_back::run(&context.reach, &helper.live, external).await;
                Found::Mapping { external, came_through }
            });
        }
    }

    fn found(&mut self, found: Found) {
        match found {
            Found::Lifetime { network, survived } if network == self.network => {
                self.keep.handle_survived(survived, now());
                tracing::debug!(?survived, interval = ?self.keep.interval(), "the lifetime of a binding was measured");
                self.publish();
            }
            Found::Lifetime { .. } | Found::Mapping { came_through: None, .. } => {}
            Found::Mapping { external, came_through: Some(came_through) } => {
                self.context.reach.mapping_verified(external, came_through);
                if let Some(look) = self.looks.get_mut(&external).filter(|_| came_through) {
                    *look = Look { due: Instant::now() + LOOK_AGAIN_MAX, pause: LOOK_AGAIN_FIRST };
                }
            }
        }
    }

    fn publish(&self) {
        self.context.reach.keep_alive_every(self.keep.interval(), self.keep.measured());
    }

    /// When there may be something to do, if nothing happens before.
    fn due(&self, helpers: &[Helping]) -> Instant {
        let far = Instant::now() + LOOK_AGAIN_MAX;
        let next_look = self.looks.values().map(|look| look.due).min().unwrap_or(far);
        let keep = self.keep.poll_timeout().map_or(far, Instant::from_std);
        let has_peers = self.context.registry.all().iter().any(|(_, handle)| handle.live().is_some());
        let waits_for_helper = has_peers && (helpers.is_empty() || next_look <= Instant::now());
        let helper = if waits_for_helper { Instant::now() + LOOK_EVERY } else { far };
        let next_look = if next_look <= Instant::now() { far } else { next_look };
        next_look.min(keep).min(helper)
    }
}

/// Names the network that we are in: by its gateways and the address that the world sees.
fn network_id(own: &Own) -> u64 {
    let mut hasher = DefaultHasher::new();
    for gateway in &own.machine.gateways {
        gateway.ip.hash(&mut hasher);
    }
    own.seen_at.hash(&mut hasher);
    hasher.finish()
}

/// Where a router lets packets in for us, if the whole Internet can send there.
fn mapped_for_the_world(report: &MappingReport) -> Option<SocketAddr> {
    match report.state {
        MappingState::Mapped { external, .. } if scope_of(external.ip()) == Scope::Global => Some(external),
        MappingState::Mapped { .. }
        | MappingState::Asking
        | MappingState::Absent { .. }
        | MappingState::Refused { .. } => None,
    }
}

/// A question that was granted: the stream, which stays open as long as the helper is needed.
struct Granted {
    _send: SendStream,
    _recv: RecvStream,
    _lease: Lease,
}

/// Asks a peer for help; `None` if it will not, or does not know how.
async fn ask(live: &Live, question: MeasureQuestion) -> Option<Granted> {
    let lease = live.leases.take(Use::Stream);
    let name = ProtocolName::parse(MEASURE_PROTOCOL).expect("the name of the stream is valid");
    let hello = StreamHello::new(vec![name], Kind::Stream).expect("one name is not too many");
    let (mut send, mut recv) = live.connection.open().await.ok()?;
    send.write_chunks(&mut [hello.encode(), question.encode()]).await.ok()?;
    let answered = async {
        match read_message::<StreamAnswer>(&mut recv).await.ok()? {
            StreamAnswer::Accepted(_) => read_message::<MeasureAnswer>(&mut recv).await.ok(),
            StreamAnswer::Refused(_) => None,
        }
    };
    let answer = timeout(ANSWER_WAIT, answered).await.ok().flatten()?;
    answer.is_granted.then_some(Granted { _send: send, _recv: recv, _lease: lease })
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
