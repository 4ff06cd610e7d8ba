//! Rounds: open, punch, guess, and what comes of them; and what the machines inside have to say.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{
    Action, GuessJob, MEASURE_WAIT, PEER_ROUNDS_MAX, PEER_ROUNDS_WINDOW, PUNCH_WAIT, PUNCH_WAIT_BEFORE_GUESS,
    PeerPlan, PeerState,
    link::{Goal, Link, Phase},
};
use crate::{
    candidate::{CANDIDATES_MAX, Candidate, CandidateKind, CandidateSet, Scope, scope_of},
    choice::{ChoiceEvent, PathId},
    guess::{ATTEMPT_DEADLINE, Aim, HardSetup, sockets_for},
    nat::{NatClass, PortPattern},
    opener::OpenerEvent,
    predict::Expected,
    signal::{GuessStart, Role, Signal},
    timeline::{Outcome, Step, Way},
    watchdog::WatchEvent,
};

/// Time for a whole guess, as the plan sees it: the attempt, and the wait for an invitation over a slow relay.
const GUESS_WAIT: Duration = ATTEMPT_DEADLINE.saturating_add(Duration::from_secs(3));

impl PeerPlan {
    /// Does what the machines inside say, until they say nothing, and finds the state that follows.
    pub(super) fn drain(&mut self, now: Instant) {
        while let Some(link) = &mut self.link {
            if let Some(event) = link.opener.poll_event() {
                self.do_opener(event, now);
            } else if let Some(event) = link.choice.poll_event() {
                self.do_choice(event, now);
            } else if let Some((path, event)) = link.poll_watch() {
                self.do_watch(path, event, now);
            } else {
                break;
            }
        }
        self.settle(now);
    }

    fn settle(&mut self, now: Instant) {
        let Some(link) = &self.link else {
            return;
        };
        let state = match link.phase {
            _ if self.state == PeerState::Idle => PeerState::Idle,
            _ if link.is_suspect() => PeerState::Suspect,
            _ if link.is_direct() => PeerState::Direct,
            Phase::Rest => PeerState::Connected,
            Phase::Opening | Phase::Punching { .. } => PeerState::Punch,
            Phase::Measuring { .. } | Phase::Guessing { .. } => PeerState::Guess,
        };
        if state == PeerState::Direct {
            self.stop_round();
            if self.state != PeerState::Direct {
                self.retry.handle_connected(now);
            }
        }
        self.enter(state);
    }

    fn do_opener(&mut self, event: OpenerEvent, now: Instant) {
        match event {
            OpenerEvent::Signal(signal) => self.actions.push_back(Action::SendSignal(signal)),
            OpenerEvent::Send { to, ttl } => self.actions.push_back(Action::SendOpener { to, ttl }),
            OpenerEvent::Punch { is_answered, .. } => {
                let outcome = if is_answered { Outcome::Worked } else { Outcome::Failed };
                self.timeline.record(Step::Open, None, outcome, now);
                self.timeline.record(Step::Punch, None, Outcome::Began, now);
                self.actions.push_back(Action::PunchRound);
                let wait = self.punch_wait();
                self.with_link(|link| link.phase = Phase::Punching { until: now + wait, may_guess: true });
            }
        }
    }

    fn do_choice(&mut self, event: ChoiceEvent, now: Instant) {
        let Some(link) = &self.link else {
            return;
        };
        match event {
            ChoiceEvent::SetStatus { path, available } => {
                self.actions.push_back(Action::SetStatus { path, available });
                if link.role == Role::Dialler {
                    self.actions.push_back(Action::SendSignal(Signal::Status { path: path.0, available }));
                }
                if available {
                    let way = link.tier_in_use().map(Way::from);
                    self.timeline.record(Step::Use, way, Outcome::Worked, now);
                }
            }
            ChoiceEvent::DropRelay(path) => {
                self.timeline.record(Step::Close, Some(Way::Relay), Outcome::Worked, now);
                self.actions.push_back(Action::ClosePath(path));
            }
            ChoiceEvent::WantRelay => {
                let is_allowed = self.config.allows_relay;
                let outcome = if is_allowed { Outcome::Began } else { Outcome::Refused };
                self.timeline.record(Step::Relay, None, outcome, now);
                // Paths are opened by the side that dialled; but only one of the two may have noticed, or have a network.
                if is_allowed {
                    self.actions.push_back(Action::OpenRelayPath);
                }
            }
        }
    }

    fn do_watch(&mut self, path: PathId, event: WatchEvent, now: Instant) {
        let Some(link) = &mut self.link else {
            return;
        };
        match event {
            WatchEvent::Suspect => {
                link.choice.handle_suspect(path, now);
                self.timeline.record(Step::Silence, None, Outcome::Began, now);
                self.actions.push_back(Action::PingPath(path));
            }
            WatchEvent::Alive => {
                link.choice.handle_alive(path, now);
                if !link.choice.is_proven(path) {
                    link.handle_sent(path, now);
                    self.actions.push_back(Action::PingPath(path));
                }
                self.timeline.record(Step::Silence, None, Outcome::Worked, now);
            }
            // The last path is all we have, dead or not: QUIC's idle timeout decides, and meanwhile it may come back.
            WatchEvent::Dead if link.keeps_last(path, now) => {
                self.timeline.record(Step::Silence, None, Outcome::Failed, now);
                self.actions.push_back(Action::PingPath(path));
                // The call before was not answered in time, if there was one.
                if self.config.allows_relay && !link.choice.has_hopeful_relay() {
                    self.actions.push_back(Action::OpenRelayPath);
                }
            }
            WatchEvent::Dead => {
                link.handle_closed(path, now);
                self.timeline.record(Step::Close, None, Outcome::Failed, now);
                self.actions.push_back(Action::ClosePath(path));
                if !link.is_direct() && link.phase == Phase::Rest {
                    self.begin_round(now);
                }
            }
        }
    }

    /// Begins a round, unless the path is direct or one runs. The accepting side asks the other to.
    pub(super) fn begin_round(&mut self, now: Instant) {
        let Some(link) = &mut self.link else {
            return;
        };
        let is_needed = !link.is_direct() || link.is_suspect();
        if !is_needed || self.state == PeerState::Idle || matches!(link.phase, Phase::Guessing { .. }) {
            return;
        }
        match link.role {
            Role::Dialler if self.remote.is_empty() => {}
            Role::Dialler => {
                let own: Vec<SocketAddr> = self.own.iter().map(|one| one.addr).collect();
                link.opener.start(&own, &self.remote, link.rtt, now);
                link.phase = Phase::Opening;
                self.timeline.record(Step::Open, None, Outcome::Began, now);
            }
            Role::Accepter => {
                self.actions.push_back(Action::SendSignal(Signal::Candidates(self.own.clone())));
            }
        }
    }

    /// Begins a round because the peer said something, as often as it may.
    fn begin_round_for_peer(&mut self, now: Instant) {
        let Some(link) = &mut self.link else {
            return;
        };
        let (count, since) = &mut link.peer_rounds;
        if now.saturating_duration_since(*since) >= PEER_ROUNDS_WINDOW {
            (*count, *since) = (0, now);
        }
        if *count < PEER_ROUNDS_MAX {
            *count += 1;
            self.begin_round(now);
        }
    }

    /// Ends a round without result: the next one is some time away.
    pub(super) fn give_up_round(&mut self, now: Instant) {
        self.stop_round();
        let is_leading = self.link.as_ref().is_some_and(|link| link.role == Role::Dialler);
        if is_leading {
            let random = self.random.below(u32::MAX);
            let wait = self.retry.handle_failed(now, random);
            self.timeline.record(Step::Punch, None, Outcome::Again(wait), now);
        } else {
            self.timeline.record(Step::Punch, None, Outcome::Failed, now);
        }
    }

    pub(super) fn stop_round(&mut self) {
        if let Some(link) = &mut self.link {
            if let Phase::Guessing { is_running: true, .. } = link.phase {
                self.actions.push_back(Action::StopGuess);
            }
            link.opener.stop();
            link.phase = Phase::Rest;
        }
    }

    pub(super) fn retry_due(&self) -> Option<Instant> {
        let link = self.link.as_ref()?;
        let is_waiting = link.role == Role::Dialler && link.phase == Phase::Rest && !link.is_direct();
        // Without candidates there is nothing to try, and a time that is over would be asked for again and again.
        let is_possible = !self.remote.is_empty() && self.state != PeerState::Idle;
        self.retry.poll_timeout().filter(|_| is_waiting && is_possible)
    }

    pub(super) fn step_phase(&mut self, now: Instant) {
        let Some(link) = &self.link else {
            return;
        };
        match link.phase {
            Phase::Rest => {
                if self.retry_due().is_some_and(|due| now >= due) {
                    self.begin_round(now);
                }
            }
            Phase::Punching { until, may_guess } if now >= until => {
                if !may_guess || !self.prepare_guess(now) {
                    self.give_up_round(now);
                }
            }
            Phase::Measuring { until, .. } if now >= until => self.start_guess(0, now),
            Phase::Guessing { until, .. } if now >= until => {
                self.timeline.record(Step::Guess, Some(Way::Guessed), Outcome::Failed, now);
                self.give_up_round(now);
            }
            Phase::Opening | Phase::Punching { .. } | Phase::Measuring { .. } | Phase::Guessing { .. } => {}
        }
    }

    pub(super) fn take_candidates(&mut self, list: &[Candidate], now: Instant) {
        let mut remote = CandidateSet::excluding(self.own.iter().map(|one| one.addr));
        for candidate in list.iter().take(CANDIDATES_MAX) {
            remote.add_from_peer(*candidate).ok();
        }
        let is_new = remote.as_slice() != self.remote.as_slice();
        self.remote = remote;
        if is_new {
            self.timeline.record(Step::Candidates, None, Outcome::Worked, now);
            self.begin_round_for_peer(now);
        } else if self.link.as_ref().is_some_and(|link| link.phase == Phase::Rest) {
            // The peer wants a round.
            self.begin_round_for_peer(now);
        }
    }

    pub(super) fn answer_open(&mut self, round: u32, addresses: &[SocketAddr], now: Instant) {
        let Some(link) = &mut self.link else {
            return;
        };
        link.opener.handle_open(round, addresses, &self.remote);
        let is_free = matches!(link.phase, Phase::Rest | Phase::Punching { .. });
        if link.role == Role::Accepter && is_free && !link.is_direct() {
            self.timeline.record(Step::Open, None, Outcome::Worked, now);
            // The OK takes its time to the dialler before the punch begins.
            let begins = now + link.rtt;
            let wait = self.punch_wait();
            self.with_link(|link| link.phase = Phase::Punching { until: begins + wait, may_guess: true });
        }
    }

    /// How long a punch may take. Where only a guess is expected to help it is short: the verdicts may be wrong, but then
    /// the punch ends the guess, for both run on.
    fn punch_wait(&self) -> Duration {
        let Some(link) = self.link.as_ref().filter(|_| self.expected() == Some(Expected::DirectByGuess))
        else {
            return PUNCH_WAIT;
        };
        (link.rtt * 2).clamp(PUNCH_WAIT_BEFORE_GUESS, PUNCH_WAIT)
    }

    /// Prepares a guess where one can help; `false` where it cannot.
    fn prepare_guess(&mut self, now: Instant) -> bool {
        if !self.config.allows_guess || self.expected() != Some(Expected::DirectByGuess) {
            return false;
        }
        let (ours, theirs) = (NatClass::of(&self.our_report), NatClass::of(&self.their_report));
        let both_hard = theirs.is_some_and(NatClass::is_hard) && ours.is_some_and(NatClass::is_hard);
        let Some(link) = &mut self.link else {
            return false;
        };
        if both_hard && link.role == Role::Dialler {
            self.measure_for(Goal::Invite, now);
        } else if ours.is_some_and(NatClass::is_hard) && !both_hard {
            self.measure_for(Goal::BeHard, now);
        } else {
            // The other side invites.
            link.phase = Phase::Guessing { until: now + GUESS_WAIT, is_running: false };
        }
        true
    }

    /// Finds our next outside port first, if it can be predicted from the last.
    fn measure_for(&mut self, goal: Goal, now: Instant) {
        self.with_link(|link| link.phase = Phase::Measuring { until: now + MEASURE_WAIT, goal });
        match self.our_report.pattern() {
            PortPattern::Sequential { .. } => self.actions.push_back(Action::MeasurePort),
            PortPattern::Block(_) | PortPattern::Random | PortPattern::Unknown => self.start_guess(0, now),
        }
    }

    /// Begins the guess that our port was measured for.
    pub(super) fn start_guess(&mut self, base_port: u16, now: Instant) {
        let Some(Link { phase: Phase::Measuring { goal, .. }, .. }) = self.link else {
            return;
        };
        let Some(start) = self.own_invitation(base_port) else {
            self.timeline.record(Step::Guess, None, Outcome::Refused, now);
            self.give_up_round(now);
            return;
        };
        match goal {
            Goal::BeHard => match self.easy_address() {
                Some(easy) => self.run_hard(start, Aim::At(easy), now),
                None => self.give_up_round(now),
            },
            Goal::Invite => {
                self.actions.push_back(Action::SendSignal(Signal::GuessStart(start)));
                self.with_link(|link| {
                    link.invited = Some(start.token);
                    link.phase = Phase::Guessing { until: now + GUESS_WAIT, is_running: false };
                });
            }
            Goal::Await(theirs) => {
                let start = GuessStart { attempt: theirs.attempt, token: theirs.token, ..start };
                self.run_hard(start, aim_at(&theirs, false), now);
            }
        }
    }

    /// Takes the peer's invitation to guess.
    pub(super) fn take_invitation(&mut self, start: GuessStart, now: Instant) {
        let Some(link) = &mut self.link else {
            return;
        };
        let is_busy = match link.phase {
            Phase::Guessing { is_running, .. } => is_running,
            Phase::Measuring { .. } => true,
            Phase::Rest | Phase::Opening | Phase::Punching { .. } => false,
        };
        if link.is_direct() || is_busy || !self.config.allows_guess || !may_be_guessed_at(start.address) {
            self.timeline.record(Step::Guess, None, Outcome::Refused, now);
            return;
        }
        link.opener.stop();
        match NatClass::of(&self.our_report) {
            Some(NatClass::Sequential) if link.invited == Some(start.token) => {
                link.invited = None;
                self.run_hard(start, aim_at(&start, true), now);
            }
            Some(NatClass::Sequential) => self.measure_for(Goal::Await(start), now),
            Some(NatClass::Block | NatClass::Random | NatClass::UdpBlocked) => {
                self.timeline.record(Step::Guess, None, Outcome::Refused, now);
            }
            Some(
                NatClass::Public
                | NatClass::FullCone
                | NatClass::AddressRestricted
                | NatClass::PortRestricted
                | NatClass::CollisionProne,
            )
            | None => self.run_guess(GuessJob::Easy(start), now),
        }
    }

    fn run_hard(&mut self, start: GuessStart, aim: Aim, now: Instant) {
        if let Some(link) = &self.link {
            let ttl = link.opener.ttl();
            self.run_guess(GuessJob::Hard(HardSetup { start, aim, ttl }), now);
        }
    }

    fn run_guess(&mut self, job: GuessJob, now: Instant) {
        self.timeline.record(Step::Guess, Some(Way::Guessed), Outcome::Began, now);
        self.actions.push_back(Action::StartGuess(job));
        self.with_link(|link| link.phase = Phase::Guessing { until: now + GUESS_WAIT, is_running: true });
    }

    /// Our side of a guess; `None` if we do not know our outside address.
    fn own_invitation(&mut self, base_port: u16) -> Option<GuessStart> {
        let address = outside_ipv4(&self.own)?.ip();
        let pattern = self.our_report.pattern();
        let token = self.random.next_u64();
        let link = self.link.as_mut()?;
        link.attempt += 1;
        Some(GuessStart {
            attempt: link.attempt,
            token,
            address,
            base_port,
            pattern,
            sockets: sockets_for(pattern),
        })
    }

    /// The address that an easy peer is reached at.
    fn easy_address(&self) -> Option<SocketAddr> {
        outside_ipv4(self.remote.as_slice())
    }
}

fn aim_at(theirs: &GuessStart, guesses: bool) -> Aim {
    let delta = match theirs.pattern {
        PortPattern::Sequential { delta } => delta,
        PortPattern::Block(_) | PortPattern::Random | PortPattern::Unknown => 1,
    };
    Aim::Predicted { address: theirs.address, base_port: theirs.base_port, delta, guesses }
}

/// The likeliest address among candidates that the world sees: what a router mapped, what others saw, what it has.
fn outside_ipv4(candidates: &[Candidate]) -> Option<SocketAddr> {
    let rank = |kind| match kind {
        CandidateKind::Mapped => 0,
        CandidateKind::Observed => 1,
        CandidateKind::Manual => 2,
        CandidateKind::Host => 3,
        CandidateKind::Relayed => 4,
    };
    let is_usable = |one: &&Candidate| {
        one.addr.is_ipv4() && scope_of(one.addr.ip()) == Scope::Global && one.kind != CandidateKind::Relayed
    };
    candidates.iter().filter(is_usable).min_by_key(|one| rank(one.kind)).map(|one| one.addr)
}

/// Guesses go only where candidates may be, outside of our network.
fn may_be_guessed_at(address: IpAddr) -> bool {
    let candidate = Candidate { addr: SocketAddr::new(address, 1_024), kind: CandidateKind::Observed };
    scope_of(address) == Scope::Global && CandidateSet::new().add_from_peer(candidate).is_ok()
}
