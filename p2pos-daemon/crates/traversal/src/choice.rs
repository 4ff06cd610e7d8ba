//! Which of a connection's paths carries the data.
//!
//! A connection may have several paths at once: over a relay, over the LAN, IPv6, IPv4. One is *available*, the rest
//! wait as *backup*. Never are two available: data split over paths of different length arrives in disorder, and the
//! receiver takes that for loss.
//!
//! 1. A path counts when it is **proven**: [`PROVEN_PINGS`] answered pings. The path that the connection was made on is
//!    proven by the handshake.
//! 2. The better [`Tier`] wins; within one, the shorter round trip. IPv6 and IPv4 are one tier in which IPv6 is given
//!    [`IPV6_BONUS`], so that a slow IPv6 tunnel does not beat a good IPv4 path (decision 0016).
//! 3. Within a tier another path must be better by [`HYSTERESIS`] or a tenth, whichever is more, and the last change
//!    [`SWITCH_SPACING`] ago: the round trip of a path grows when it is used, and two would take turns for ever.
//! 4. The dialling side decides. The other mirrors what it is told, or both would flap against each other; only when its
//!    path is gone it takes the best it has until told otherwise.
//! 5. After [`RELAY_DROP_AFTER`] on a proven direct path the relay path goes: the relay carries nothing for a settled
//!    pair. At the first suspicion it is wanted back, before anybody knows whether the path is dead; and so is another one when
//!    the path in use leads over a relay that is silent, or that says that it goes down.
//! 6. A silent path is left when it is closed, and not before. Whoever moves first gets, by the new path, late acknowledgements
//!    of what the silent one carried; QUIC takes them for its round trip, and gives up what is in flight there a second later
//!    than it could (decision 0057).
//! 7. When nothing else is left, a path over a relay is used although QUIC has just validated it, and nothing more: that took a
//!    round trip, and no NAT is just opening there. Somebody is waiting.
//!
//! Refuses to know: how paths are opened and measured, what a status does to packets.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::signal::Role;

/// Answered pings that prove a path. One may be an accident of a NAT that is just opening; two took two round trips.
pub const PROVEN_PINGS: u8 = 2;
/// How much longer an IPv6 round trip may be than an IPv4 one (as RFC 8305 prefers it): it has no NAT that may forget.
pub const IPV6_BONUS: Duration = Duration::from_millis(3);
/// How much better a path of the same tier must be. Half would follow the scheduler's noise; double would keep a
/// noticeably worse path in a city network.
pub const HYSTERESIS: Duration = Duration::from_millis(5);
/// Shortest time between two changes within a tier.
pub const SWITCH_SPACING: Duration = Duration::from_secs(5);
/// Time that a direct path must hold before the relay path is dropped.
pub const RELAY_DROP_AFTER: Duration = Duration::from_secs(30);
/// Paths of one connection; QUIC is configured for as many. More are not looked at.
pub const PATHS_MAX: usize = 8;

/// A path of a connection, by QUIC's number, which is the same on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub u32);

/// What kind of way a path is, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Within one network.
    Lan,
    /// Through the internet, IPv6.
    DirectV6,
    /// Through the internet, IPv4.
    DirectV4,
    /// Direct, to a guessed port: as good, but the binding is nobody's promise.
    Guessed,
    /// Over a relay, UDP.
    Relay,
    /// Over a relay, TCP.
    TcpRelay,
}

impl Tier {
    /// Tells whether no relay is between.
    #[must_use]
    pub fn is_direct(self) -> bool {
        self <= Self::Guessed
    }

    /// The tiers that are compared by round trip share a rank.
    fn rank(self) -> u8 {
        match self {
            Self::Lan => 0,
            Self::DirectV6 | Self::DirectV4 => 1,
            Self::Guessed => 2,
            Self::Relay => 3,
            Self::TcpRelay => 4,
        }
    }
}

/// What the caller shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChoiceEvent {
    /// Set our status of a path; the dialler also tells the peer.
    SetStatus {
        /// Which.
        path: PathId,
        /// Available, else backup.
        available: bool,
    },
    /// Close a relay path: the direct one has held.
    DropRelay(PathId),
    /// A relay path is wanted, and there is none.
    WantRelay,
}

impl ChoiceEvent {
    fn path(self) -> Option<PathId> {
        match self {
            Self::SetStatus { path, .. } | Self::DropRelay(path) => Some(path),
            Self::WantRelay => None,
        }
    }
}

/// Chooses among the paths of one connection.
#[derive(Debug)]
pub struct PathChoice {
    role: Role,
    paths: Vec<Path>,
    chosen: Option<PathId>,
    last_switch: Option<Instant>,
    /// Since when a direct path has been chosen without suspicion.
    settled_since: Option<Instant>,
    /// The relay was dropped, or asked for, since then.
    is_relay_settled: bool,
    events: VecDeque<ChoiceEvent>,
}

#[derive(Debug, Clone, Copy)]
struct Path {
    id: PathId,
    tier: Tier,
    rtt: Option<Duration>,
    pings: u8,
    is_suspect: bool,
    /// Its relay goes down.
    is_leaving: bool,
}

impl Path {
    fn is_usable(&self) -> bool {
        self.pings >= PROVEN_PINGS && !self.is_suspect
    }

    /// Good enough when nothing else is left.
    fn is_makeshift(&self) -> bool {
        !self.tier.is_direct() && !self.is_suspect
    }

    /// Best first.
    fn order(&self) -> impl Ord + use<> {
        (self.is_leaving, self.tier.rank(), self.cost(), self.tier, self.id)
    }

    /// The round trip for comparison; unmeasured ones come last.
    fn cost(&self) -> Duration {
        let handicap = if self.tier == Tier::DirectV6 { Duration::ZERO } else { IPV6_BONUS };
        self.rtt.map_or(Duration::MAX, |rtt| rtt.saturating_add(handicap))
    }
}

impl PathChoice {
    /// Starts with the path that the connection was made on, which is available.
    #[must_use]
    pub fn new(role: Role, first: PathId, tier: Tier, now: Instant) -> Self {
        let pings = PROVEN_PINGS;
        let path = Path { id: first, tier, rtt: None, pings, is_suspect: false, is_leaving: false };
        Self {
            role,
            paths: vec![path],
            chosen: Some(first),
            last_switch: None,
            settled_since: tier.is_direct().then_some(now),
            is_relay_settled: false,
            events: VecDeque::from([ChoiceEvent::SetStatus { path: first, available: true }]),
        }
    }

    /// Takes a new path. It starts as backup.
    pub fn handle_opened(&mut self, id: PathId, tier: Tier) {
        if self.paths.len() < PATHS_MAX && self.path(id).is_none() {
            self.paths.push(Path { id, tier, rtt: None, pings: 0, is_suspect: false, is_leaving: false });
            self.events.push_back(ChoiceEvent::SetStatus { path: id, available: false });
        }
    }

    /// Takes an answered ping: the path lives, and this is its round trip.
    pub fn handle_answered(&mut self, id: PathId, rtt: Duration, now: Instant) {
        if let Some(path) = self.path(id) {
            path.pings = path.pings.saturating_add(1);
            path.rtt = Some(rtt);
            path.is_suspect = false;
            self.decide(now);
        }
    }

    /// Takes a path's round trip as QUIC measures it all the time; it proves nothing about an unproven path.
    pub fn handle_rtt(&mut self, id: PathId, rtt: Duration, now: Instant) {
        if let Some(path) = self.path(id) {
            path.rtt = Some(rtt);
            self.decide(now);
        }
    }

    /// Takes the suspicion that a path is dead. It stays in use until it is closed, and a relay path is wanted. To be chosen again
    /// later it must be proven anew: what is heard of it first may be late news of what passed before it died.
    pub fn handle_suspect(&mut self, id: PathId, now: Instant) {
        if let Some(path) = self.path(id) {
            (path.is_suspect, path.pings) = (true, 0);
            self.settled_since = None;
            self.is_relay_settled = false;
            self.want_relay();
            self.decide(now);
        }
    }

    /// Takes note that the relay of a path goes down, of which it tells both sides. The path is used until there is another one.
    pub fn handle_leaving(&mut self, id: PathId, now: Instant) {
        let is_in_use = self.chosen == Some(id);
        if let Some(path) = self.path(id)
            && !path.tier.is_direct()
            && !std::mem::replace(&mut path.is_leaving, true)
        {
            if self.role == Role::Accepter {
                return;
            }
            if is_in_use {
                self.want_relay();
                self.decide(now);
            } else {
                self.events.push_back(ChoiceEvent::DropRelay(id));
            }
        }
    }

    fn want_relay(&mut self) {
        if !self.has_hopeful_relay() {
            self.events.push_back(ChoiceEvent::WantRelay);
        }
    }

    /// Tells whether there is a path over a relay that is neither silent nor about to end.
    #[must_use]
    pub fn has_hopeful_relay(&self) -> bool {
        self.paths.iter().any(|path| path.is_makeshift() && !path.is_leaving)
    }

    /// Takes note that a suspected path was heard.
    pub fn handle_alive(&mut self, id: PathId, now: Instant) {
        if let Some(path) = self.path(id) {
            path.is_suspect = false;
            self.decide(now);
        }
    }

    /// Takes the end of a path.
    pub fn handle_closed(&mut self, id: PathId, now: Instant) {
        self.paths.retain(|path| path.id != id);
        // What was to be done with it is done.
        self.events.retain(|event| event.path() != Some(id));
        if self.chosen == Some(id) {
            self.chosen = None;
            self.settled_since = None;
            self.is_relay_settled = false;
        }
        self.decide(now);
    }

    /// Takes the peer's status of a path. Who dialled decides alone and ignores it.
    pub fn handle_remote_status(&mut self, id: PathId, available: bool, now: Instant) {
        let is_known = self.path(id).is_some();
        if self.role == Role::Accepter && is_known && available {
            self.switch_to(id, now);
        }
    }

    /// Takes note that time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.decide(now);
    }

    /// Returns the next thing to do, until there is none.
    pub fn poll_event(&mut self) -> Option<ChoiceEvent> {
        self.events.pop_front()
    }

    /// Returns when `handle_timeout` is due: the relay path is to be dropped.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.settled_since.filter(|_| !self.is_relay_settled).map(|since| since + RELAY_DROP_AFTER)
    }

    /// Returns the path in use and what it is.
    #[must_use]
    pub fn chosen(&self) -> Option<(PathId, Tier)> {
        self.paths.iter().find(|path| Some(path.id) == self.chosen).map(|path| (path.id, path.tier))
    }

    /// Tells whether a path has answered as often as it must.
    #[must_use]
    pub fn is_proven(&self, id: PathId) -> bool {
        self.paths.iter().any(|path| path.id == id && path.pings >= PROVEN_PINGS)
    }

    /// Returns how many paths there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.paths.len()
    }

    /// Returns the paths over a relay that are there.
    pub fn relay_paths(&self) -> impl Iterator<Item = PathId> {
        self.paths.iter().filter(|path| !path.tier.is_direct()).map(|path| path.id)
    }

    fn path(&mut self, id: PathId) -> Option<&mut Path> {
        self.paths.iter_mut().find(|path| path.id == id)
    }

    fn decide(&mut self, now: Instant) {
        let current = self.paths.iter().find(|path| Some(path.id) == self.chosen).copied();
        let may_decide = self.role == Role::Dialler || current.is_none();
        if may_decide && let Some(best) = self.best_instead_of(current, now) {
            self.switch_to(best, now);
        }
        let is_settled = self
            .paths
            .iter()
            .any(|path| Some(path.id) == self.chosen && path.tier.is_direct() && path.is_usable());
        if is_settled && self.settled_since.is_none() {
            self.settled_since = Some(now);
        }
        self.drop_relay(now);
    }

    fn best_instead_of(&self, current: Option<Path>, now: Instant) -> Option<PathId> {
        let usable = self.paths.iter().filter(|path| path.is_usable()).min_by_key(|path| path.order());
        let Some(current) = current else {
            let makeshift = self.paths.iter().filter(|path| path.is_makeshift());
            return usable.or_else(|| makeshift.min_by_key(|path| path.order())).map(|best| best.id);
        };
        // Whether it lives is being found out.
        if current.is_suspect {
            return None;
        }
        let best = usable?;
        if current.is_leaving {
            return (!best.is_leaving).then_some(best.id);
        }
        let is_better = if best.tier.rank() == current.tier.rank() {
            let margin = HYSTERESIS.max(current.cost() / 10);
            let may_switch = self.last_switch.is_none_or(|last| now >= last + SWITCH_SPACING);
            may_switch && best.cost().saturating_add(margin) < current.cost()
        } else {
            best.tier.rank() < current.tier.rank()
        };
        (is_better && best.id != current.id).then_some(best.id)
    }

    fn switch_to(&mut self, id: PathId, now: Instant) {
        if self.chosen == Some(id) {
            return;
        }
        // The old one first: never are two available.
        if let Some(path) = self.chosen {
            self.events.push_back(ChoiceEvent::SetStatus { path, available: false });
        }
        self.events.push_back(ChoiceEvent::SetStatus { path: id, available: true });
        let left = self.paths.iter().find(|path| Some(path.id) == self.chosen && path.is_leaving);
        if let Some(left) = left.filter(|_| self.role == Role::Dialler) {
            self.events.push_back(ChoiceEvent::DropRelay(left.id));
        }
        let was_direct = self.settled_since.is_some();
        self.chosen = Some(id);
        self.last_switch = Some(now);
        let is_direct = self.chosen().is_some_and(|(_, tier)| tier.is_direct());
        if is_direct != was_direct {
            self.settled_since = is_direct.then_some(now);
            self.is_relay_settled = false;
        }
    }

    fn drop_relay(&mut self, now: Instant) {
        let is_due = self.poll_timeout().is_some_and(|due| now >= due);
        if is_due {
            self.is_relay_settled = true;
            if self.role == Role::Dialler {
                let relays: Vec<PathId> = self.relay_paths().collect();
                self.events.extend(relays.into_iter().map(ChoiceEvent::DropRelay));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::origin;

    const RELAY: PathId = PathId(0);
    const DIRECT: PathId = PathId(1);

    #[test]
    fn data_moves_to_the_direct_path_when_it_is_proven_and_not_before() {
        let now = origin();
        let mut choice = on_relay(Role::Dialler, now);
        choice.handle_opened(DIRECT, Tier::DirectV4);
        assert_eq!(drain(&mut choice), [status(DIRECT, false)]);
        choice.handle_answered(DIRECT, ms(40), now);
        assert_eq!(drain(&mut choice), []);
        choice.handle_answered(DIRECT, ms(40), now);
        assert_eq!(drain(&mut choice), [status(RELAY, false), status(DIRECT, true)]);
    }

    #[test]
    fn after_thirty_seconds_of_direct_path_the_relay_is_dropped_and_it_returns_at_the_first_suspicion() {
        let now = origin();
        let mut choice = on_direct(Role::Dialler, now);
        let due = choice.poll_timeout().unwrap();
        assert_eq!(due, now + RELAY_DROP_AFTER);
        choice.handle_timeout(due - ms(1));
        assert_eq!(drain(&mut choice), []);
        choice.handle_timeout(due);
        assert_eq!(drain(&mut choice), [ChoiceEvent::DropRelay(RELAY)]);
        choice.handle_closed(RELAY, due);
        assert_eq!((drain(&mut choice), choice.poll_timeout()), (vec![], None));
        choice.handle_suspect(DIRECT, due);
        assert_eq!(drain(&mut choice), [ChoiceEvent::WantRelay]);
        choice.handle_opened(PathId(2), Tier::Relay);
        for _ in 0..PROVEN_PINGS {
            choice.handle_answered(PathId(2), ms(60), due);
        }
        assert_eq!(drain(&mut choice), [status(PathId(2), false)]);
        choice.handle_closed(DIRECT, due);
        assert_eq!(drain(&mut choice), [status(PathId(2), true)]);
    }

    #[test]
    fn a_silent_path_is_left_when_it_is_closed_and_then_a_relay_is_used_unproven() {
        let now = origin();
        let mut choice = on_direct(Role::Dialler, now);
        choice.handle_closed(RELAY, now);
        choice.handle_opened(PathId(2), Tier::DirectV6);
        choice.handle_suspect(DIRECT, now);
        drain(&mut choice);
        choice.handle_opened(PathId(3), Tier::Relay);
        for _ in 0..PROVEN_PINGS {
            choice.handle_answered(PathId(3), ms(60), now);
        }
        assert_eq!(
            drain(&mut choice),
            [status(PathId(3), false)],
            "late news of the silent one would come by it"
        );
        choice.handle_opened(PathId(4), Tier::Relay);
        choice.handle_suspect(PathId(3), now);
        drain(&mut choice);
        choice.handle_closed(DIRECT, now);
        assert_eq!(
            drain(&mut choice),
            [status(PathId(4), true)],
            "not the silent one, nor one that may not lead anywhere"
        );
    }

    #[test]
    fn a_silent_path_that_is_heard_again_is_kept_and_what_was_opened_meanwhile_is_chosen_from_as_ever() {
        let now = origin();
        let mut choice = on_relay(Role::Dialler, now);
        choice.handle_suspect(RELAY, now);
        choice.handle_opened(DIRECT, Tier::DirectV4);
        choice.handle_answered(DIRECT, ms(40), now);
        choice.handle_answered(DIRECT, ms(40), now);
        drain(&mut choice);
        assert_eq!(choice.chosen().map(|(path, _)| path), Some(RELAY));
        choice.handle_answered(RELAY, ms(60), now);
        assert_eq!(drain(&mut choice), [status(RELAY, false), status(DIRECT, true)]);
    }

    #[test]
    fn a_relay_that_falls_silent_is_replaced_by_another() {
        let now = origin();
        let mut choice = on_relay(Role::Dialler, now);
        choice.handle_suspect(RELAY, now);
        assert_eq!(drain(&mut choice), [ChoiceEvent::WantRelay]);
        choice.handle_opened(PathId(2), Tier::Relay);
        choice.handle_timeout(now);
        assert_eq!(drain(&mut choice), [status(PathId(2), false)]);
        choice.handle_closed(RELAY, now);
        assert_eq!(drain(&mut choice), [status(PathId(2), true)]);
    }

    #[test]
    fn a_relay_that_goes_down_is_used_until_another_is_proven_and_then_let_go() {
        let now = origin();
        let mut choice = on_relay(Role::Dialler, now);
        choice.handle_leaving(RELAY, now);
        choice.handle_leaving(RELAY, now);
        assert_eq!(drain(&mut choice), [ChoiceEvent::WantRelay]);
        choice.handle_opened(PathId(2), Tier::Relay);
        choice.handle_answered(PathId(2), ms(60), now);
        assert_eq!(drain(&mut choice), [status(PathId(2), false)]);
        choice.handle_answered(PathId(2), ms(60), now);
        let expected = [status(RELAY, false), status(PathId(2), true), ChoiceEvent::DropRelay(RELAY)];
        assert_eq!(drain(&mut choice), expected);
    }

    #[test]
    fn a_relay_that_goes_down_and_is_not_used_is_let_go_at_once() {
        let now = origin();
        let mut choice = on_direct(Role::Dialler, now);
        choice.handle_leaving(RELAY, now);
        assert_eq!(drain(&mut choice), [ChoiceEvent::DropRelay(RELAY)]);
        choice.handle_leaving(DIRECT, now);
        assert_eq!(drain(&mut choice), []);
    }

    #[test]
    fn a_suspected_path_that_answers_stays_in_use_and_must_settle_anew() {
        let now = origin();
        let mut choice = on_direct(Role::Dialler, now);
        let later = now + RELAY_DROP_AFTER / 2;
        choice.handle_suspect(DIRECT, later);
        assert_eq!(drain(&mut choice), [], "the relay is there, and waits");
        choice.handle_alive(DIRECT, later);
        choice.handle_answered(RELAY, ms(60), later);
        choice.handle_answered(DIRECT, ms(40), later);
        choice.handle_answered(DIRECT, ms(40), later);
        assert_eq!(drain(&mut choice), [], "it was never left");
        assert_eq!(choice.poll_timeout(), Some(later + RELAY_DROP_AFTER));
    }

    #[test]
    fn a_status_that_was_not_yet_set_is_forgotten_when_its_path_closes() {
        let now = origin();
        let mut choice = PathChoice::new(Role::Dialler, RELAY, Tier::Relay, now);
        choice.handle_closed(RELAY, now);
        assert_eq!(drain(&mut choice), []);
    }

    #[test]
    fn a_lone_direct_path_that_was_only_slow_lets_the_relay_go_again() {
        let now = origin();
        let mut choice = PathChoice::new(Role::Dialler, DIRECT, Tier::DirectV4, now);
        choice.handle_suspect(DIRECT, now);
        assert_eq!(drain(&mut choice), [status(DIRECT, true), ChoiceEvent::WantRelay]);
        choice.handle_opened(RELAY, Tier::Relay);
        for _ in 0..PROVEN_PINGS {
            choice.handle_answered(DIRECT, ms(40), now);
        }
        assert_eq!(drain(&mut choice), [status(RELAY, false)]);
        choice.handle_timeout(now + RELAY_DROP_AFTER);
        assert_eq!(drain(&mut choice), [ChoiceEvent::DropRelay(RELAY)]);
    }

    #[test]
    fn the_accepting_side_mirrors_and_chooses_only_when_its_path_is_gone() {
        let now = origin();
        let mut choice = on_relay(Role::Accepter, now);
        choice.handle_opened(DIRECT, Tier::Lan);
        for _ in 0..5 {
            choice.handle_answered(DIRECT, ms(1), now);
        }
        assert_eq!(drain(&mut choice), [status(DIRECT, false)], "it was not told to");
        choice.handle_remote_status(DIRECT, true, now);
        assert_eq!(drain(&mut choice), [status(RELAY, false), status(DIRECT, true)]);
        choice.handle_remote_status(PathId(77), true, now);
        assert_eq!(drain(&mut choice), [], "a path that nobody has");
        choice.handle_closed(DIRECT, now);
        assert_eq!(drain(&mut choice), [status(RELAY, true)]);
    }

    #[test]
    fn a_little_better_is_not_better_and_changes_do_not_follow_each_other_at_once() {
        let mut now = origin();
        let mut choice = on_direct(Role::Dialler, now);
        let other = PathId(2);
        choice.handle_opened(other, Tier::DirectV4);
        drain(&mut choice);
        now += SWITCH_SPACING;
        for _ in 0..3 {
            choice.handle_answered(other, ms(35), now);
        }
        assert_eq!(drain(&mut choice), [], "5 ms of 40 are not enough");
        choice.handle_answered(other, ms(34), now);
        assert_eq!(drain(&mut choice), [status(DIRECT, false), status(other, true)]);
        choice.handle_answered(other, ms(90), now + SWITCH_SPACING - ms(1));
        assert_eq!(drain(&mut choice), []);
        choice.handle_answered(other, ms(90), now + SWITCH_SPACING);
        assert_eq!(drain(&mut choice), [status(other, false), status(DIRECT, true)]);
    }

    #[test]
    fn ipv6_wins_by_its_bonus_and_a_slow_tunnel_does_not() {
        for (v6_ms, expected) in [(40, Tier::DirectV6), (43, Tier::DirectV6), (200, Tier::DirectV4)] {
            let now = origin();
            let mut choice = on_relay(Role::Dialler, now);
            choice.handle_opened(PathId(6), Tier::DirectV6);
            choice.handle_opened(PathId(4), Tier::DirectV4);
            // Both are proven in the same moment.
            choice.handle_answered(PathId(6), ms(v6_ms), now);
            choice.handle_answered(PathId(4), ms(40), now);
            choice.path(PathId(4)).unwrap().pings = PROVEN_PINGS;
            choice.handle_answered(PathId(6), ms(v6_ms), now);
            assert_eq!(choice.chosen().unwrap().1, expected, "{v6_ms} ms");
        }
    }

    #[test]
    fn a_ninth_path_is_not_looked_at() {
        let mut choice = on_relay(Role::Dialler, origin());
        for id in 1..20 {
            choice.handle_opened(PathId(id), Tier::DirectV4);
        }
        assert_eq!(choice.paths.len(), PATHS_MAX);
    }

    proptest! {
        #[test]
        fn two_paths_are_never_available_and_a_dialler_with_a_usable_path_uses_one(
            steps in prop::collection::vec((0..5u8, 0..6u32, 0..100u64), 0..200), accepts: bool,
        ) {
            let mut now = origin();
            let role = if accepts { Role::Accepter } else { Role::Dialler };
            let mut choice = PathChoice::new(role, RELAY, Tier::Relay, now);
            let tiers = [Tier::Relay, Tier::Lan, Tier::DirectV6, Tier::DirectV4, Tier::Guessed, Tier::TcpRelay];
            let mut available: Vec<PathId> = Vec::new();
            for (what, id, time_ms) in steps {
                now += ms(time_ms * 20);
                let path = PathId(id);
                match what {
                    0 => choice.handle_opened(path, tiers[usize::try_from(id).unwrap()]),
                    1 | 2 => choice.handle_answered(path, ms(time_ms), now),
                    3 => choice.handle_suspect(path, now),
                    _ if id % 2 == 0 => {
                        choice.handle_closed(path, now);
                        available.retain(|other| *other != path);
                    }
                    _ => choice.handle_remote_status(path, true, now),
                }
                while let Some(event) = choice.poll_event() {
                    if let ChoiceEvent::SetStatus { path, available: is_available } = event {
                        available.retain(|other| *other != path);
                        if is_available { available.push(path) }
                    }
                    prop_assert!(available.len() <= 1, "{:?}", available);
                }
                let has_usable = choice.paths.iter().any(Path::is_usable);
                prop_assert!(!has_usable || choice.chosen().is_some());
            }
        }
    }

    fn on_relay(role: Role, now: Instant) -> PathChoice {
        let mut choice = PathChoice::new(role, RELAY, Tier::Relay, now);
        assert_eq!(drain(&mut choice), [status(RELAY, true)]);
        choice
    }

    fn on_direct(role: Role, now: Instant) -> PathChoice {
        let mut choice = on_relay(role, now);
        choice.handle_opened(DIRECT, Tier::DirectV4);
        for _ in 0..PROVEN_PINGS {
            choice.handle_answered(DIRECT, ms(40), now);
        }
        drain(&mut choice);
        choice
    }

    fn drain(choice: &mut PathChoice) -> Vec<ChoiceEvent> {
        std::iter::from_fn(|| choice.poll_event()).collect()
    }

    fn status(path: PathId, available: bool) -> ChoiceEvent {
        ChoiceEvent::SetStatus { path, available }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }
}
