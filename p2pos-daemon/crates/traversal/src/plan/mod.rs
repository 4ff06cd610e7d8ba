//! One peer, from "who is it" to a direct path and back: the machine that ties all others together.
//!
//! ```text
//! Lookup -> Dial -> Connected -> Punch -> Guess
//!                      ^  |        |        |
//!                      |  +--------+--------+--> Direct <-> Suspect
//!                      +--- no direct path: again in 5, 10, ... 600 s       any of them <-> Idle
//! ```
//!
//! - **Dial** all that is known at once, relays too. The first answer carries data; everything after is improvement.
//! - **Connected**: both sides tell their candidates and NAT reports. If the path is direct, that is all.
//! - **Punch**: both open their NATs (`opener`), then QUIC punches. If there is no direct path after [`PUNCH_WAIT`], or
//!   sooner where nothing else was expected, and one side changes its ports: **Guess** (`guess`).
//! - A new path is pinged until it is proven, then `choice` puts it to use: **Direct**.
//! - **Suspect**: the `watchdog` heard nothing. The relay returns first; if the path is dead it is closed and the punch
//!   begins again. So too when our network changes.
//! - **Idle**: nobody used the connection for [`IDLE_AFTER`]. No keepalive, no retries; the direct path may die.
//!
//! The dialling side leads rounds and chooses paths; the accepting side answers, and makes the other begin by telling
//! new candidates. All transitions are written into the [`Timeline`].
//!
//! The caller does what [`PeerPlan::poll_action`] says, until it says nothing, after every `handle_*`. Refuses to know:
//! sockets, QUIC, who the peer is; the host's budgets ([`crate::ProbeBudget`], [`crate::guess::GuessLedger`]), which may
//! keep the caller from doing what an action says.

mod link;
mod rounds;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use self::link::{Link, Phase};
use crate::{
    backoff::{Backoff, BackoffSettings},
    candidate::{CANDIDATES_MAX, Candidate, CandidateKind, CandidateSet},
    choice::{PathId, Tier},
    guess::HardSetup,
    order::in_dial_order,
    predict::{Advice, Expected, advice, predict},
    random::Random,
    signal::{GuessStart, NatReport, Role, Signal},
    timeline::{Outcome, Step, Timeline, Way},
};

/// Time that a punch has before ports are guessed, or it is called failed: noq's first probes and their repetitions.
pub const PUNCH_WAIT: Duration = Duration::from_secs(2);
/// Shortest time for a punch where the verdicts say that only a guess will do. A guess takes eight seconds in the worst
/// of twenty cases, and all shall be over in ten.
pub const PUNCH_WAIT_BEFORE_GUESS: Duration = Duration::from_millis(300);
/// Time that the caller has to find our next outside port, when it is to be predicted.
pub const MEASURE_WAIT: Duration = Duration::from_secs(1);
/// Time without use after which a connection is idle.
pub const IDLE_AFTER: Duration = Duration::from_secs(60);
/// Rounds that the peer's word may start within [`PEER_ROUNDS_WINDOW`], besides our own retries: candidates trickle in
/// during the first seconds, but a hostile peer could invent ever new ones.
pub const PEER_ROUNDS_MAX: u32 = 4;
/// The time in which [`PEER_ROUNDS_MAX`] are counted.
pub const PEER_ROUNDS_WINDOW: Duration = Duration::from_secs(60);
/// Waits between rounds while the path is relayed. Who probes every five seconds for ever is taken for a scanner.
pub const RETRY: BackoffSettings = BackoffSettings {
    first: Duration::from_secs(5),
    max: Duration::from_secs(600),
    healthy: Duration::from_secs(30),
};

/// Where a peer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerState {
    /// Addresses are looked for.
    Lookup,
    /// Attempts to connect run.
    Dial,
    /// Connected over a relay, and nothing better is being tried.
    Connected,
    /// Both sides open their NATs and punch.
    Punch,
    /// Ports are guessed.
    Guess,
    /// The path in use is direct.
    Direct,
    /// The path in use is silent.
    Suspect,
    /// Nobody uses the connection.
    Idle,
}

/// What the user decided about a peer, and where chance comes from.
#[derive(Debug, Clone, Copy)]
pub struct PlanConfig {
    /// `relay = never` in the address book makes it false.
    pub allows_relay: bool,
    /// Whether ports may be guessed (`punch.guess`).
    pub allows_guess: bool,
    /// Of the operating system's randomness.
    pub seed: u64,
}

/// What happens to a path of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathEvent {
    /// QUIC has validated a new path.
    Opened(Tier),
    /// A ping was answered after so long.
    Answered(Duration),
    /// QUIC's own measure of the round trip has changed.
    Rtt(Duration),
    /// Something that must be answered was sent.
    Sent,
    /// Something authentic came.
    Heard {
        /// Whether more is unanswered.
        in_flight: bool,
    },
    /// The path is gone.
    Closed,
}

/// A guess that the caller shall run, if its ledger allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuessJob {
    /// [`crate::guess::EasySide`].
    Easy(GuessStart),
    /// [`crate::guess::HardSide`].
    Hard(HardSetup),
}

/// What the caller shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Race these ([`crate::DialRace`]).
    Dial(Vec<Candidate>),
    /// Tell the peer, over any path.
    SendSignal(Signal),
    /// Send an opener, if the [`crate::ProbeBudget`] allows.
    SendOpener {
        /// A candidate of the peer.
        to: SocketAddr,
        /// TTL or hop limit.
        ttl: u8,
    },
    /// Start QUIC's punch to all candidates.
    PunchRound,
    /// Find out at which outside port our next new binding will follow: [`PeerPlan::handle_base_port`].
    MeasurePort,
    /// Run a guess: [`PeerPlan::handle_guess_ended`].
    StartGuess(GuessJob),
    /// End the guess that runs.
    StopGuess,
    /// Open a path to where a guess was answered; it starts as backup.
    OpenPath(SocketAddr),
    /// Open a path over a relay; who was dialled calls the peer there, so that it does.
    OpenRelayPath,
    /// Ping a path.
    PingPath(PathId),
    /// Use a path, or do not.
    SetStatus {
        /// Which.
        path: PathId,
        /// In use; else backup.
        available: bool,
    },
    /// Close a path. What is in flight on it is sent again on another.
    ClosePath(PathId),
    /// Keep the bindings of this peer alive, or do not.
    KeepAlive(bool),
    /// End the connection: it is relayed, and the user wants none.
    Disconnect,
    /// Tell who is interested.
    Report(PeerState),
}

/// The plan for one peer.
#[derive(Debug)]
pub struct PeerPlan {
    config: PlanConfig,
    random: Random,
    state: PeerState,
    timeline: Timeline,
    /// What the peer told of itself.
    remote: CandidateSet,
    own: Vec<Candidate>,
    our_report: NatReport,
    their_report: NatReport,
    link: Option<Link>,
    retry: Backoff,
    last_use: Instant,
    actions: VecDeque<Action>,
}

impl PeerPlan {
    /// Starts with the lookup.
    #[must_use]
    pub fn new(config: PlanConfig, now: Instant) -> Self {
        let mut timeline = Timeline::new(now);
        timeline.record(Step::Lookup, None, Outcome::Began, now);
        Self {
            config,
            random: Random::from_seed(config.seed),
            state: PeerState::Lookup,
            timeline,
            remote: CandidateSet::new(),
            own: Vec::new(),
            our_report: NatReport::default(),
            their_report: NatReport::default(),
            link: None,
            retry: Backoff::new(RETRY),
            last_use: now,
            actions: VecDeque::new(),
        }
    }

    /// Takes what the lookup found, and dials. May be called again with more; not while connected.
    pub fn handle_resolved(&mut self, found: &CandidateSet, now: Instant) {
        if self.link.is_some() {
            return;
        }
        let is_allowed = |one: &Candidate| self.config.allows_relay || one.kind != CandidateKind::Relayed;
        let allowed: Vec<Candidate> = found.as_slice().iter().copied().filter(is_allowed).collect();
        if allowed.is_empty() {
            let outcome = if found.is_empty() { Outcome::Failed } else { Outcome::Refused };
            self.timeline.record(Step::Lookup, None, outcome, now);
            return;
        }
        self.timeline.record(Step::Lookup, None, Outcome::Worked, now);
        self.timeline.record(Step::Dial, None, Outcome::Began, now);
        self.enter(PeerState::Dial);
        self.actions.push_back(Action::Dial(in_dial_order(&allowed)));
    }

    /// Takes note that no attempt connected.
    pub fn handle_dial_failed(&mut self, now: Instant) {
        if self.state == PeerState::Dial {
            self.timeline.record(Step::Dial, None, Outcome::Failed, now);
            self.enter(PeerState::Lookup);
        }
    }

    /// Takes a connection, made by us or by the peer, on its first path.
    pub fn handle_connected(&mut self, role: Role, path: PathId, tier: Tier, now: Instant) {
        self.timeline.record(Step::Connect, Some(tier.into()), Outcome::Worked, now);
        if !tier.is_direct() && !self.config.allows_relay {
            self.timeline.record(Step::Relay, Some(tier.into()), Outcome::Refused, now);
            self.actions.push_back(Action::Disconnect);
            return;
        }
        self.remote = CandidateSet::excluding(self.own.iter().map(|one| one.addr));
        self.their_report = NatReport::default();
        self.retry = Backoff::new(RETRY);
        self.last_use = now;
        self.link = Some(Link::new(role, path, tier, self.our_report.ttl_layers, now));
        self.actions.push_back(Action::KeepAlive(true));
        self.tell_ourselves();
        self.enter(if tier.is_direct() { PeerState::Direct } else { PeerState::Connected });
        self.drain(now);
    }

    /// Takes the end of the connection.
    pub fn handle_disconnected(&mut self, now: Instant) {
        if let Some(link) = self.link.take() {
            if matches!(link.phase, Phase::Guessing { .. }) {
                self.actions.push_back(Action::StopGuess);
            }
            self.timeline.record(Step::Connect, None, Outcome::Failed, now);
            self.enter(PeerState::Lookup);
        }
    }

    /// Takes our own candidates, as they become known; the peer is told when they change.
    pub fn handle_own_candidates(&mut self, own: &[Candidate], now: Instant) {
        let own: Vec<Candidate> = own.iter().copied().take(CANDIDATES_MAX).collect();
        if own != self.own {
            self.own = own;
            self.tell_ourselves();
            self.retry.reset();
            self.begin_round(now);
            self.drain(now);
        }
    }

    /// Takes what our NAT does (`verdict`); the peer is told when it changes.
    pub fn handle_own_report(&mut self, report: NatReport, now: Instant) {
        if report == self.our_report {
            return;
        }
        self.our_report = report;
        if let Some(link) = &mut self.link {
            link.opener.handle_layers(report.ttl_layers);
            self.actions.push_back(Action::SendSignal(Signal::NatReport(report)));
            self.compare(now);
        }
    }

    /// Takes what the peer says. Nothing it says makes us panic, grow, or probe beyond the budgets.
    pub fn handle_signal(&mut self, signal: Signal, now: Instant) {
        if self.link.is_none() {
            return;
        }
        match signal {
            Signal::Candidates(list) => self.take_candidates(&list, now),
            Signal::NatReport(report) if report == self.their_report => {}
            Signal::NatReport(report) => {
                self.their_report = report;
                self.compare(now);
            }
            Signal::Open { round, addresses } => self.answer_open(round, &addresses, now),
            Signal::OpenOk { round } => self.with_link(|link| link.opener.handle_open_ok(round)),
            Signal::GuessStart(start) => self.take_invitation(start, now),
            // For the caller's easy side, and for its `keepalive::Knocker`; here they change nothing.
            Signal::GuessHit { .. } => {}
            Signal::Status { path, available } => {
                self.with_link(|link| link.choice.handle_remote_status(PathId(path), available, now));
            }
        }
        self.drain(now);
    }

    /// Takes what happens to a path.
    pub fn handle_path(&mut self, path: PathId, event: PathEvent, now: Instant) {
        let Some(link) = &mut self.link else {
            return;
        };
        match event {
            PathEvent::Opened(tier) => {
                if !tier.is_direct() && !self.config.allows_relay {
                    self.timeline.record(Step::Relay, Some(Way::from(tier)), Outcome::Refused, now);
                    self.actions.push_back(Action::ClosePath(path));
                    link.handle_closed(path, now);
                } else {
                    link.handle_opened(path, tier, now);
                    self.actions.push_back(Action::PingPath(path));
                    link.handle_sent(path, now);
                    if !tier.is_direct() {
                        self.close_kept(now);
                    }
                }
            }
            PathEvent::Answered(rtt) => {
                if link.handle_answered(path, rtt, now) {
                    self.actions.push_back(Action::PingPath(path));
                    link.handle_sent(path, now);
                } else {
                    self.close_kept(now);
                }
            }
            PathEvent::Rtt(rtt) => link.handle_rtt(path, rtt, now),
            PathEvent::Sent => link.handle_sent(path, now),
            PathEvent::Heard { in_flight } => link.handle_heard(path, in_flight, now),
            PathEvent::Closed => {
                link.handle_closed(path, now);
                self.timeline.record(Step::Close, None, Outcome::Worked, now);
            }
        }
        self.drain(now);
    }

    /// What waits on a dead path is sent again as soon as that is closed, and not before.
    fn close_kept(&mut self, now: Instant) {
        let Some(link) = &mut self.link else {
            return;
        };
        for dead in link.kept() {
            link.handle_closed(dead, now);
            self.timeline.record(Step::Close, None, Outcome::Failed, now);
            self.actions.push_back(Action::ClosePath(dead));
        }
    }

    /// Takes note that the peer calls us through a relay although there is a connection: it hears nothing on the path in use. Whether
    /// we do is to be found out.
    pub fn handle_called(&mut self, now: Instant) {
        if let Some((path, _)) = self.chosen() {
            self.timeline.record(Step::Silence, None, Outcome::Began, now);
            self.actions.push_back(Action::PingPath(path));
            self.with_link(|link| link.handle_sent(path, now));
        }
        self.drain(now);
    }

    /// Takes note that the relay of a path goes down.
    pub fn handle_relay_leaving(&mut self, path: PathId, now: Instant) {
        self.with_link(|link| link.choice.handle_leaving(path, now));
        self.drain(now);
    }

    /// Takes the outside port that a new binding of ours was just given; 0 if nobody could tell.
    pub fn handle_base_port(&mut self, port: u16, now: Instant) {
        self.start_guess(port, now);
        self.drain(now);
    }

    /// Takes the end of a guess: where the peer is reached (a real address, or the caller's own for a guess socket).
    pub fn handle_guess_ended(&mut self, hit: Option<SocketAddr>, now: Instant) {
        let Some(link) = &mut self.link else {
            return;
        };
        let Phase::Guessing { .. } = link.phase else {
            return;
        };
        match hit {
            Some(addr) => {
                self.timeline.record(Step::Guess, Some(Way::Guessed), Outcome::Worked, now);
                // The other side opens no path, but its packets need time to make one.
                link.phase = Phase::Punching { until: now + PUNCH_WAIT, may_guess: false };
                if link.role == Role::Dialler {
                    self.actions.push_back(Action::OpenPath(addr));
                }
            }
            None => {
                self.timeline.record(Step::Guess, None, Outcome::Failed, now);
                self.give_up_round(now);
            }
        }
        self.drain(now);
    }

    /// Takes note that our network changed: all paths are doubtful, and everything is worth a new try.
    pub fn handle_network_change(&mut self, now: Instant) {
        self.timeline.record(Step::Network, None, Outcome::Began, now);
        self.retry.reset();
        self.stop_round();
        let Some(link) = &mut self.link else {
            return;
        };
        link.opener.handle_layers(None);
        link.handle_network_change(now);
        self.our_report = NatReport::default();
        for path in link.path_ids() {
            self.actions.push_back(Action::PingPath(path));
            link.handle_sent(path, now);
        }
        self.begin_round(now);
        self.drain(now);
    }

    /// Takes note that somebody uses the connection: a stream or datagram of a plugin.
    pub fn handle_use(&mut self, now: Instant) {
        self.last_use = now;
        if self.state == PeerState::Idle {
            self.timeline.record(Step::Idle, None, Outcome::Worked, now);
            self.actions.push_back(Action::KeepAlive(true));
            self.enter(PeerState::Connected);
            // It may have died meanwhile, and somebody waits.
            if let Some((path, _)) = self.chosen() {
                self.actions.push_back(Action::PingPath(path));
                self.with_link(|link| link.handle_sent(path, now));
            }
            self.drain(now);
            if self.state == PeerState::Connected {
                self.begin_round(now);
                self.drain(now);
            }
        }
    }

    /// Takes note that time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(link) = &mut self.link {
            link.handle_timeout(now);
            self.step_phase(now);
            self.drain(now);
            self.rest_when_unused(now);
        }
    }

    /// Returns the next thing to do, until there is none.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Returns when `handle_timeout` is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let link = self.link.as_ref()?;
        let is_idle = self.state == PeerState::Idle;
        let idle = (!is_idle).then_some(self.last_use + IDLE_AFTER);
        let retry = self.retry_due();
        [link.poll_timeout(), idle, retry].into_iter().flatten().min()
    }

    /// Returns where the peer stands.
    #[must_use]
    pub fn state(&self) -> PeerState {
        self.state
    }

    /// Returns the path in use and what it is.
    #[must_use]
    pub fn chosen(&self) -> Option<(PathId, Tier)> {
        self.link.as_ref()?.choice.chosen()
    }

    /// Returns what was tried.
    #[must_use]
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Returns what our NAT does and what the peer says of its own.
    #[must_use]
    pub fn reports(&self) -> (NatReport, NatReport) {
        (self.our_report, self.their_report)
    }

    /// Returns what both NATs, as far as they are known, allow.
    #[must_use]
    pub fn expected(&self) -> Option<Expected> {
        predict(&self.our_report, &self.their_report)
    }

    /// Returns the one change that would make the path direct.
    #[must_use]
    pub fn advice(&self) -> Option<Advice> {
        advice(&self.our_report, &self.their_report)
    }

    fn enter(&mut self, state: PeerState) {
        if self.state != state {
            self.state = state;
            self.actions.push_back(Action::Report(state));
        }
    }

    fn with_link(&mut self, act: impl FnOnce(&mut Link)) {
        if let Some(link) = &mut self.link {
            act(link);
        }
    }

    fn compare(&mut self, now: Instant) {
        if let Some(expected) = self.expected() {
            let outcome = if expected.is_direct() { Outcome::Worked } else { Outcome::Failed };
            self.timeline.record(Step::Compare, None, outcome, now);
        }
    }

    fn tell_ourselves(&mut self) {
        if self.link.is_some() {
            self.actions.push_back(Action::SendSignal(Signal::Candidates(self.own.clone())));
            self.actions.push_back(Action::SendSignal(Signal::NatReport(self.our_report)));
        }
    }

    fn rest_when_unused(&mut self, now: Instant) {
        if self.state != PeerState::Idle && now >= self.last_use + IDLE_AFTER {
            self.timeline.record(Step::Idle, None, Outcome::Began, now);
            self.actions.push_back(Action::KeepAlive(false));
            self.stop_round();
            self.enter(PeerState::Idle);
        }
    }
}
