//! Steers one connection: runs its [`PeerPlan`] and does what the plan says.
//!
//! One task per connection, on both sides. It is told what happens (path events, counters, signals of the peer, news of our
//! own network) and obeys the plan's actions. Nothing here decides; where the plan's word cannot be carried out, the plan
//! is told what happened instead.
//!
//! Connections within the machine are not steered: there is nothing better.

mod opening;
mod talking;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use p2pos_identity::PeerId;
use p2pos_peer_protocol::{
    EndCode,
    signal::{RelayPlace, SignalMessage},
};
use p2pos_transport::{
    FakeAddr, PathEvent, PathEvents, PathId, PathState, PathStatus, Paths, Pulse, Sign, Way,
};
use p2pos_traversal::{
    Probe, Scope,
    choice::{PathId as PlanPath, Tier},
    guess::{NetworkPair, Strain},
    plan::{Action, GuessJob, PathEvent as PlanEvent, PeerPlan, PlanConfig},
    scope_of,
    signal::{Role, Signal},
};
use tokio::{
    sync::{broadcast, mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};

use self::opening::{Opening, settle};
use super::{
    Explanation, Reach,
    guessing::{self, Attempt, Told},
    own::Own,
    sight::{Activity, Sight},
    signals::{SignalStream, Signals},
};
use crate::{peer::Live, relays::Relays};

/// How long a path may take to be opened, and a ping to be answered, before nobody waits any more.
const PATH_WAIT: Duration = Duration::from_secs(5);
/// After a change of the network QUIC replaces paths that are proven by others that count as proven, and says nothing of it; for so long
/// they are looked for.
const REPLACED_WITHIN: Duration = Duration::from_secs(3);
/// Calls of the peer that wait to be looked at.
const CALLS_WAITING: usize = 4;
/// How often the path that carries the signals is looked at while ports are guessed.
const STRAIN_LOOK: Duration = Duration::from_millis(500);

/// What the rest of the node holds of a connection's steering.
#[derive(Debug)]
pub(crate) struct Steered {
    /// Where the peer's signal stream goes.
    pub(crate) streams: mpsc::Sender<SignalStream>,
    /// How the peer is reached; `None` for connections that are not steered.
    pub(crate) explanation: watch::Receiver<Option<Explanation>>,
    /// Flows by which the peer calls us although the connection stands.
    pub(crate) calls: mpsc::Sender<FakeAddr>,
}

/// What steering takes from the connection's owner.
#[derive(Debug)]
pub(crate) struct Helm {
    streams: mpsc::Receiver<SignalStream>,
    calls: mpsc::Receiver<FakeAddr>,
    publish: watch::Sender<Option<Explanation>>,
    activity: Arc<Activity>,
}

impl Steered {
    /// Makes both ends, for a connection on which writing is noted in `activity`.
    pub(crate) fn new(activity: Arc<Activity>) -> (Self, Helm) {
        let (streams, stream_queue) = mpsc::channel(1);
        let (calls, call_queue) = mpsc::channel(CALLS_WAITING);
        let (publish, explanation) = watch::channel(None);
        let helm = Helm { streams: stream_queue, calls: call_queue, publish, activity };
        (Self { streams, explanation, calls }, helm)
    }
}

/// Steers a connection until it ends. `is_contact`: the user knows the peer, so its word about our address counts.
pub(crate) async fn steer(
    live: Arc<Live>,
    helm: Helm,
    (reach, relays): (Arc<Reach>, Arc<Relays>),
    is_contact: bool,
) {
    let paths = live.connection.paths();
    let Some(first) = paths.list().into_iter().next() else { return };
    let mut events = paths.events();
    if is_within_machine(first.way) {
        return;
    }
    let tier = tier_of(first.way);
    let mut early = Vec::new();
    if tier.is_direct() {
        let hear = |external| {
            if let Way::Direct(observer) = first.way {
                reach.observed(observer, external, is_contact);
            }
        };
        // The peer's first word about our address mostly comes with the handshake's last packet, before anybody listens.
        paths.observed_addr().into_iter().for_each(hear);
        let Some(kept) = settle(&mut events, hear).await else { return };
        early = kept;
    }
    let role = if live.connection.is_initiator() { Role::Dialler } else { Role::Accepter };
    let allows_relay = relays.may_relay(live.connection.peer());
    let config = PlanConfig { allows_relay, allows_guess: true, seed: rand::random() };
    let mut own = reach.own().picture();
    let mut plan = PeerPlan::new(config, now());
    let network = {
        let own = own.borrow_and_update();
        plan.handle_own_candidates(&own.candidates, now());
        plan.handle_own_report(own.report, now());
        own.network
    };
    plan.handle_connected(role, PlanPath(first.id.number()), tier, now());
    let signals = (role == Role::Dialler).then(|| Signals::open(live.connection.clone()));
    let mut steering = Steering {
        live,
        reach,
        places: relays.our_places(),
        leaving: relays.leaving(),
        relays,
        paths,
        plan,
        role,
        is_contact,
        network,
        changed_at: None,
        signals,
        helm,
        sight: Sight::new(),
        told: Vec::new(),
        pulses: JoinSet::new(),
        openings: JoinSet::new(),
        search: None,
        attempt: None,
        lost_before: 0,
        guessed: Vec::new(),
        keeps_alive: false,
        has_scouted: false,
    };
    let told = own.borrow().candidates.iter().map(|candidate| candidate.addr).collect();
    steering.tell_candidates(told);
    steering.tell_places();
    early.into_iter().for_each(|event| steering.path_event(event));
    steering.run(events, own).await;
}

/// What one turn of the loop was woken by.
enum Turn {
    Path(PathEvent),
    Stream(SignalStream),
    Message(SignalMessage),
    SignalsEnded,
    Own,
    Places,
    Called(FakeAddr),
    RelayLeaves(PeerId),
    Pulse(PathId, Pulse),
    Opened(Opening),
    Guess(Signal),
    GuessEnded(Option<SocketAddr>),
    Activity,
    Time,
    Gone,
}

struct Steering {
    live: Arc<Live>,
    reach: Arc<Reach>,
    relays: Arc<Relays>,
    /// Where we can be called, to be told to the peer.
    places: watch::Receiver<Vec<RelayPlace>>,
    /// Relays that go down.
    leaving: broadcast::Receiver<PeerId>,
    paths: Paths,
    plan: PeerPlan,
    role: Role,
    is_contact: bool,
    /// The network that we were in.
    network: u64,
    /// When it last became another one.
    changed_at: Option<Instant>,
    signals: Option<Signals>,
    helm: Helm,
    sight: Sight,
    /// Candidates that noq was told for punching.
    told: Vec<SocketAddr>,
    pulses: JoinSet<(PathId, Pulse)>,
    openings: JoinSet<Opening>,
    /// Relays are being called for a path: a second call at one would end the first one's flow.
    search: Option<AbortHandle>,
    attempt: Option<Attempt>,
    /// Losses on the path of the signals when the attempt began.
    lost_before: u64,
    /// Guess sockets that were hit; given back at the end.
    guessed: Vec<FakeAddr>,
    keeps_alive: bool,
    /// Whether the peer's IPv4 address was tried for its word about ours.
    has_scouted: bool,
}

impl Steering {
    async fn run(mut self, mut events: PathEvents, mut own: watch::Receiver<Own>) {
        loop {
            self.obey();
            self.publish();
            match self.next_turn(&mut events, &mut own).await {
                Turn::Path(event) => self.path_event(event),
                Turn::Stream(stream) => self.take_stream(stream),
                Turn::Message(message) => self.message(message),
                Turn::SignalsEnded => self.signals = None,
                Turn::Own => {
                    let own = own.borrow_and_update().clone();
                    self.own_changed(&own);
                }
                Turn::Places => self.tell_places(),
                Turn::Pulse(path, pulse) => self.pulse(path, pulse),
                Turn::Called(way) => self.called(way),
                Turn::RelayLeaves(relay) => self.relay_leaves(relay),
                Turn::Opened(opening) => self.opening_ended(opening),
                Turn::Guess(signal) => self.send(&signal),
                Turn::GuessEnded(hit) => self.guess_ended(hit),
                Turn::Activity => self.sight.wake(),
                Turn::Time => self.time_passed(),
                Turn::Gone => return,
            }
        }
    }

    async fn next_turn(&mut self, events: &mut PathEvents, own: &mut watch::Receiver<Own>) -> Turn {
        let plan_due = self.plan.poll_timeout().map(Instant::from_std);
        let strain_due = self.attempt.is_some().then(|| Instant::now() + STRAIN_LOOK);
        let due = [plan_due, self.sight.due(), strain_due].into_iter().flatten().min();
        let sleeps = self.sight.due().is_none();
        let activity = self.helm.activity.clone();
        tokio::select! {
            biased;
            event = events.next() => event.map_or(Turn::Gone, Turn::Path),
            Some(stream) = self.helm.streams.recv() => Turn::Stream(stream),
            message = next_message(&mut self.signals) => message.map_or(Turn::SignalsEnded, Turn::Message),
            Ok(()) = own.changed() => Turn::Own,
            Ok(()) = self.places.changed() => Turn::Places,
            Some(way) = self.helm.calls.recv() => Turn::Called(way),
            // Whoever missed some hears of it by their silence.
            Ok(relay) = self.leaving.recv() => Turn::RelayLeaves(relay),
            Some(Ok((path, pulse))) = self.pulses.join_next() => Turn::Pulse(path, pulse),
            Some(opening) = self.openings.join_next() => Turn::Opened(opening.unwrap_or(Opening::OverRelay)),
            turn = next_of_attempt(&mut self.attempt) => turn,
            () = activity.noted(), if sleeps => Turn::Activity,
            () = sleep_until_some(due) => Turn::Time,
        }
    }

    /// Does what the plan says, until it says nothing.
    fn obey(&mut self) {
        while let Some(action) = self.plan.poll_action() {
            match action {
                Action::SendSignal(signal) => self.send(&signal),
                Action::SendOpener { to, ttl } => self.send_opener(to, ttl),
                Action::PunchRound => self.punch(),
                Action::MeasurePort => {
                    let port = self.reach.own().picture().borrow().last_port;
                    self.plan.handle_base_port(port, now());
                }
                Action::StartGuess(job) => self.start_guess(job),
                Action::StopGuess => self.stop_guess(),
                Action::OpenPath(remote) => self.open_path(remote),
                Action::OpenRelayPath => self.open_relay_path(),
                Action::PingPath(path) => self.ping(path),
                Action::SetStatus { path, available } => self.set_status(path, available),
                Action::ClosePath(path) => self.close_path(path),
                Action::KeepAlive(is_wanted) => {
                    self.keeps_alive = is_wanted;
                    self.keep_alive();
                }
                Action::Disconnect => self.live.connection.close(EndCode::REFUSED),
                Action::Report(state) => {
                    tracing::debug!(peer = %self.live.connection.peer().short(), ?state, "steering");
                }
                // The peer's task has dialled; a plan of a connection that stands does not.
                Action::Dial(_) => {}
            }
        }
    }

    fn send_opener(&self, to: SocketAddr, ttl: u8) {
        if self.reach.take_probe(to) {
            guessing::send(&self.reach.endpoint, Probe::Opener, to, Some(ttl));
        }
    }

    fn punch(&self) {
        if let Err(error) = self.paths.punch_round() {
            tracing::debug!(%error, "no punching round was begun");
        }
    }

    fn start_guess(&mut self, job: GuessJob) {
        let theirs = match job {
            GuessJob::Easy(start) => start.address,
            GuessJob::Hard(setup) => match setup.aim {
                p2pos_traversal::guess::Aim::At(remote) => remote.ip(),
                p2pos_traversal::guess::Aim::Predicted { address, .. } => address,
            },
        };
        match self.reach.begin_guess(NetworkPair { ours: self.network, theirs }) {
            Ok(()) => {
                self.lost_before = self.signal_path().map_or(0, |state| state.packets_lost);
                self.attempt = Some(Attempt::start(job, self.reach.clone()));
            }
            Err(reason) => {
                tracing::debug!(?reason, "no port is guessed now");
                self.plan.handle_guess_ended(None, now());
            }
        }
    }

    fn stop_guess(&mut self) {
        if self.attempt.take().is_some() {
            self.reach.end_guess(false);
        }
    }

    fn guess_ended(&mut self, hit: Option<SocketAddr>) {
        self.attempt = None;
        self.reach.end_guess(hit.is_some());
        self.guessed.extend(hit.and_then(|hit| FakeAddr::of(hit.ip())));
        self.plan.handle_guess_ended(hit, now());
    }

    fn ping(&mut self, path: PlanPath) {
        let (paths, id) = (self.paths.clone(), PathId::of(path.0));
        let is_in_use = self.plan.chosen().is_some_and(|(chosen, _)| chosen == path);
        let is_direct = paths.get(id).is_some_and(|state| matches!(state.way, Way::Direct(_)));
        let sign = if is_in_use && is_direct { Sign::Answer } else { Sign::Anything };
        self.pulses.spawn(async move { (id, paths.feel_pulse(id, sign, PATH_WAIT).await) });
    }

    fn set_status(&self, path: PlanPath, available: bool) {
        let status = if available { PathStatus::Available } else { PathStatus::Backup };
        if let Err(error) = self.paths.set_status(PathId::of(path.0), status) {
            tracing::debug!(%error, path = path.0, "a path's status was not set");
        }
        self.keep_alive();
    }

    /// A path by which nothing ever came stays until QUIC gives it up: the peer does not know it, and QUIC waits for its consent, for
    /// ever, before what was in flight is sent again. While it stands, probes carry that over to the others.
    fn close_path(&self, path: PlanPath) {
        let is_unheard = self.paths.get(PathId::of(path.0)).is_some_and(|state| state.packets_received == 0);
        if is_unheard {
            return;
        }
        if let Err(error) = self.paths.close(PathId::of(path.0)) {
            tracing::debug!(%error, path = path.0, "a path was not closed");
        }
    }

    /// Keeps the path in use alive, if that is wanted and a NAT may forget it; no other.
    fn keep_alive(&self) {
        let every = *self.reach.keep_alive().borrow();
        let chosen = self.plan.chosen().map(|(path, _)| PathId::of(path.0));
        for state in self.paths.list() {
            let is_wanted = self.keeps_alive && Some(state.id) == chosen && tier_of(state.way) != Tier::Lan;
            if self.paths.keep_alive(state.id, is_wanted.then_some(every)).is_err() {
                tracing::trace!("a path was closed before its keepalive was set");
            }
        }
    }

    fn path_event(&mut self, event: PathEvent) {
        self.paths.mirror(&event);
        match event {
            PathEvent::Opened(id) => self.path_opened(id),
            PathEvent::Abandoned { id, .. } => {
                self.leave_flow(id);
                self.plan.handle_path(PlanPath(id.number()), PlanEvent::Closed, now());
            }
            PathEvent::Observed { id, address } => self.observed(id, address),
            // Who was dialled has just followed the peer; streams that want no relay are to look at once.
            PathEvent::PeerStatus { .. } => self.helm.publish.send_modify(|_| {}),
            PathEvent::Candidates => {}
            PathEvent::Missed => {
                for state in self.paths.list() {
                    self.path_opened(state.id);
                }
            }
        }
        self.sight.wake();
    }

    fn path_opened(&mut self, id: PathId) {
        if let Some(state) = self.paths.get(id) {
            let tier = tier_of(state.way);
            self.plan.handle_path(PlanPath(id.number()), PlanEvent::Opened(tier), now());
            if !tier.is_direct() {
                self.has_found_relay();
            }
        }
    }

    fn observed(&self, id: PathId, external: SocketAddr) {
        // What a peer sees of a guess socket or behind a relay says nothing about our own socket.
        if let Some(Way::Direct(observer)) = self.paths.get(id).map(|state| state.way) {
            self.reach.observed(observer, external, self.is_contact);
        }
    }

    fn own_changed(&mut self, own: &Own) {
        if own.network != self.network {
            self.network = own.network;
            self.changed_at = Some(Instant::now());
            self.reach.forget_guesses();
            self.plan.handle_network_change(now());
            self.sight.wake();
        }
        self.tell_candidates(own.candidates.iter().map(|candidate| candidate.addr).collect());
        self.plan.handle_own_report(own.report, now());
        self.plan.handle_own_candidates(&own.candidates, now());
        // The lifetime of bindings may have been learned.
        self.keep_alive();
    }

    fn pulse(&mut self, id: PathId, pulse: Pulse) {
        if let Pulse::Alive(waited) = pulse {
            let rtt = self.paths.get(id).map_or(waited, |state| state.rtt);
            self.plan.handle_path(PlanPath(id.number()), PlanEvent::Answered(rtt), now());
        }
    }

    fn time_passed(&mut self) {
        if self.sight.due().is_some_and(|due| due <= Instant::now()) {
            self.look();
        }
        if let Some(attempt) = &self.attempt
            && let Some(state) = self.signal_path()
        {
            let lost = u32::try_from(state.packets_lost.saturating_sub(self.lost_before)).unwrap_or(u32::MAX);
            attempt.tell(Told::Strain(Strain { rtt: state.rtt, lost }));
        }
        self.plan.handle_timeout(now());
    }

    /// The path in use, which carries the signals.
    fn signal_path(&self) -> Option<PathState> {
        let (path, _) = self.plan.chosen()?;
        self.paths.get(PathId::of(path.0))
    }

    fn look(&mut self) {
        let (streams, flows) = self.live.leases.held();
        if self.changed_at.is_some_and(|at| at.elapsed() < REPLACED_WITHIN) {
            for state in self.paths.list() {
                if !self.sight.has_seen(state.id) {
                    self.path_opened(state.id);
                }
            }
        }
        let in_use = self.plan.chosen().map(|(path, _)| PathId::of(path.0));
        for (id, event) in self.sight.look(&self.paths, in_use) {
            self.plan.handle_path(PlanPath(id.number()), event, now());
        }
        if streams + flows > 0 {
            self.plan.handle_use(now());
        }
        if self.sight.takes_reminder()
            && streams > 0
            && let Some((path, _)) = self.plan.chosen()
            && self.paths.ping(PathId::of(path.0)).is_err()
        {
            tracing::trace!("the path was closed before it was reminded");
        }
    }

    fn publish(&self) {
        let (ours, theirs) = self.plan.reports();
        let explanation = Explanation {
            state: self.plan.state(),
            tier: self.plan.chosen().map(|(_, tier)| tier),
            timeline: self.plan.timeline().entries().copied().collect(),
            left_out: self.plan.timeline().left_out(),
            ours,
            theirs,
            expected: self.plan.expected(),
            advice: self.plan.advice(),
        };
        self.helm.publish.send_if_modified(|published| {
            let has_changed = published.as_ref() != Some(&explanation);
            *published = Some(explanation);
            has_changed
        });
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        self.stop_guess();
        for fake in self.guessed.drain(..) {
            self.reach.endpoint.remove_way(fake);
        }
    }
}

/// What kind of way a path is.
fn tier_of(way: Way) -> Tier {
    match way {
        Way::Direct(remote) => match (scope_of(remote.ip()), remote.ip().to_canonical().is_ipv6()) {
            (Scope::Loopback | Scope::Link | Scope::Lan, _) => Tier::Lan,
            (Scope::Global, true) => Tier::DirectV6,
            (Scope::Global, false) => Tier::DirectV4,
        },
        Way::Guess { .. } => Tier::Guessed,
        Way::TcpRelay { .. } => Tier::TcpRelay,
        Way::Relay { .. } | Way::Gone(_) => Tier::Relay,
    }
}

fn is_within_machine(way: Way) -> bool {
    matches!(way, Way::Direct(remote) if scope_of(remote.ip()) == Scope::Loopback)
}

/// Waits for the peer's next message; for ever while there is no stream.
async fn next_message(signals: &mut Option<Signals>) -> Option<SignalMessage> {
    match signals {
        Some(signals) => signals.next().await,
        None => std::future::pending().await,
    }
}

/// Waits for news of an attempt to guess; for ever while there is none.
async fn next_of_attempt(attempt: &mut Option<Attempt>) -> Turn {
    match attempt {
        Some(attempt) => tokio::select! {
            biased;
            Some(signal) = attempt.signals.recv() => Turn::Guess(signal),
            ended = attempt.ended.recv() => Turn::GuessEnded(ended.flatten()),
        },
        None => std::future::pending().await,
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

async fn sleep_until_some(alarm: Option<Instant>) {
    match alarm {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
