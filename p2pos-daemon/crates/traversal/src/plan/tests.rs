//! Two plans against each other, over a relay with a delay and a world that obeys the matrix; and single plans
//! against hostile or broken peers.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{
    choice::RELAY_DROP_AFTER,
    nat::NatClass,
    predict::predict_classes,
    testing::{CLASSES, origin, report_of},
};

const RELAY: PathId = PathId(0);
const PUNCHED: PathId = PathId(1);
const GUESSED: PathId = PathId(2);

#[test]
fn every_pair_of_classes_ends_on_the_path_that_the_matrix_promises_whoever_dials() {
    for (ana, bo) in CLASSES.into_iter().flat_map(|ana| CLASSES.map(|bo| (ana, bo))) {
        let mut world = World::new(ana, bo);
        world.run(Duration::from_secs(15));
        let expected = match predict_classes(ana, bo) {
            Expected::Direct | Expected::DirectWithOpener => Tier::DirectV4,
            Expected::DirectByGuess => Tier::Guessed,
            Expected::Relayed | Expected::TcpRelayed => Tier::Relay,
        };
        for plan in &world.plans {
            let (ana, bo) = (ana.letter(), bo.letter());
            assert_eq!(
                plan.chosen().map(|(_, tier)| tier),
                Some(expected),
                "{ana} x {bo}\n{}",
                plan.timeline()
            );
        }
    }
}

#[test]
fn a_settled_pair_has_no_relay_path_after_half_a_minute() {
    let mut world = World::new(NatClass::PortRestricted, NatClass::PortRestricted);
    world.run(Duration::from_secs(2));
    assert!(world.alive.contains(&RELAY));
    world.run(RELAY_DROP_AFTER);
    assert_eq!((world.states(), &world.alive[..]), ([PeerState::Direct; 2], &[PUNCHED][..]));
}

#[test]
fn a_cut_under_load_is_noticed_within_half_a_second_and_the_relay_is_used_when_the_path_is_closed_not_before()
{
    let mut world = World::new(NatClass::PortRestricted, NatClass::PortRestricted);
    world.run(Duration::from_secs(40));
    world.log.clear();
    world.cut = true;
    let cut_at = world.now;
    world.plans[0].handle_path(PUNCHED, PathEvent::Sent, world.now);
    world.run(Duration::from_secs(1));
    let when = |wanted: &Action| {
        let found = world.log.iter().find(|(_, side, action)| *side == 0 && action == wanted);
        found.unwrap_or_else(|| panic!("no {wanted:?}\n{}", world.plans[0].timeline())).0 - cut_at
    };
    let order: Vec<&Action> =
        world.log.iter().filter(|(_, side, _)| *side == 0).map(|(.., action)| action).collect();
    let place = |wanted: &Action| order.iter().position(|action| *action == wanted);
    let used = Action::SetStatus { path: PathId(10), available: true };
    assert!(place(&Action::ClosePath(PUNCHED)) < place(&used), "late acknowledgements come with the status");
    let relay_used = when(&Action::SetStatus { path: PathId(10), available: true });
    let closed = when(&Action::ClosePath(PUNCHED));
    assert!(relay_used == closed && closed < Duration::from_millis(500), "{relay_used:?} {closed:?}");
    assert!(when(&Action::OpenRelayPath) <= Duration::from_millis(300));
}

#[test]
fn who_was_dialled_calls_too_when_nothing_is_heard() {
    let now = origin();
    let mut plan = PeerPlan::new(config(1), now);
    plan.handle_connected(Role::Accepter, PUNCHED, Tier::DirectV4, now);
    drain(&mut plan);
    plan.handle_path(PUNCHED, PathEvent::Sent, now);
    let due = plan.poll_timeout().unwrap();
    plan.handle_timeout(due);
    assert!(drain(&mut plan).contains(&Action::OpenRelayPath), "{}", plan.timeline());
}

#[test]
fn a_call_of_the_peer_makes_us_look_whether_the_path_lives() {
    let now = origin();
    let mut plan = PeerPlan::new(config(1), now);
    plan.handle_connected(Role::Dialler, PUNCHED, Tier::DirectV4, now);
    drain(&mut plan);
    plan.handle_called(now);
    assert_eq!(drain(&mut plan), [Action::PingPath(PUNCHED)]);
    let due = plan.poll_timeout().unwrap();
    plan.handle_timeout(due);
    assert!(due < now + Duration::from_secs(1) && plan.state() == PeerState::Suspect);
}

#[test]
fn a_new_path_that_leads_nowhere_is_closed_within_a_second() {
    let now = origin();
    let mut plan = connected(Role::Dialler, now);
    plan.handle_path(RELAY, PathEvent::Rtt(Duration::from_millis(200)), now);
    plan.handle_path(PUNCHED, PathEvent::Opened(Tier::DirectV4), now);
    let closed = loop {
        let due = plan.poll_timeout().unwrap();
        plan.handle_timeout(due);
        if drain(&mut plan).contains(&Action::ClosePath(PUNCHED)) {
            break due - now;
        }
    };
    assert!(closed < Duration::from_secs(1), "{closed:?}");
}

#[test]
fn a_cut_path_is_punched_again_and_used_again() {
    let mut world = World::new(NatClass::PortRestricted, NatClass::PortRestricted);
    world.run(Duration::from_secs(5));
    world.cut = true;
    world.plans[0].handle_path(PUNCHED, PathEvent::Sent, world.now);
    world.run(Duration::from_millis(800));
    assert_eq!(world.plans[0].chosen(), Some((RELAY, Tier::Relay)));
    world.cut = false;
    world.run(Duration::from_secs(20));
    assert_eq!(world.states(), [PeerState::Direct; 2], "{}", world.plans[0].timeline());
}

#[test]
fn our_network_change_begins_a_round_at_once() {
    let mut world = World::new(NatClass::PortRestricted, NatClass::PortRestricted);
    world.run(Duration::from_secs(40));
    world.cut = true;
    world.log.clear();
    world.plans[0].handle_network_change(world.now);
    world.plans[0].handle_own_report(report_of(NatClass::PortRestricted), world.now);
    world.run(Duration::from_millis(300));
    assert!(world.log.iter().any(|(_, side, action)| *side == 0 && *action == Action::OpenRelayPath));
    world.cut = false;
    world.run(Duration::from_secs(3));
    assert_eq!(world.states(), [PeerState::Direct; 2], "{}", world.plans[0].timeline());
}

#[test]
fn rounds_that_fail_come_ever_more_seldom() {
    let mut world = World::new(NatClass::Random, NatClass::Random);
    world.run(Duration::from_secs(4 * 3_600));
    let rounds: Vec<Instant> = world
        .log
        .iter()
        .filter(|(_, _, action)| *action == Action::PunchRound)
        .map(|(at, _, _)| *at)
        .collect();
    let gaps: Vec<u64> = rounds.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    // The first rounds are the peer's candidates trickling in; the idle pair stops trying.
    assert!(rounds.len() < 12 && gaps.windows(2).all(|pair| pair[0] <= pair[1]), "{gaps:?}");
}

#[test]
fn rounds_of_a_pair_in_use_go_on_at_ten_minutes() {
    let mut world = World::new(NatClass::Random, NatClass::Random);
    for _ in 0..60 {
        world.run(Duration::from_secs(50));
        let now = world.now;
        world.plans.iter_mut().for_each(|plan| plan.handle_use(now));
    }
    let rounds = world.log.iter().filter(|(_, _, action)| *action == Action::PunchRound).count();
    assert!((9..16).contains(&rounds), "{rounds} rounds in 50 minutes");
}

#[test]
fn a_contact_without_relays_is_not_dialled_over_one_and_a_relayed_connection_is_ended() {
    let now = origin();
    let mut plan = PeerPlan::new(PlanConfig { allows_relay: false, ..config(1) }, now);
    let mut found = CandidateSet::new();
    let relayed = Candidate { addr: address(7), kind: CandidateKind::Relayed };
    found.add_from_peer(relayed).unwrap();
    plan.handle_resolved(&found, now);
    assert_eq!(plan.poll_action(), None);
    let direct = Candidate { addr: address(8), kind: CandidateKind::Observed };
    found.add_from_peer(direct).unwrap();
    plan.handle_resolved(&found, now);
    assert_eq!(drain(&mut plan), [Action::Report(PeerState::Dial), Action::Dial(vec![direct])]);
    plan.handle_connected(Role::Accepter, RELAY, Tier::Relay, now);
    assert_eq!(drain(&mut plan), [Action::Disconnect]);
    plan.handle_connected(Role::Dialler, PUNCHED, Tier::DirectV4, now);
    drain(&mut plan);
    plan.handle_path(RELAY, PathEvent::Opened(Tier::Relay), now);
    assert!(drain(&mut plan).contains(&Action::ClosePath(RELAY)));
    plan.handle_path(PUNCHED, PathEvent::Sent, now);
    plan.handle_timeout(now + Duration::from_millis(300));
    assert!(!drain(&mut plan).contains(&Action::OpenRelayPath));
    assert!(plan.timeline().to_string().contains("not allowed"));
}

#[test]
fn an_unused_connection_rests_and_wakes_with_a_round() {
    let mut world = World::new(NatClass::Random, NatClass::PortRestricted);
    world.plans[0].config.allows_guess = false;
    world.plans[1].config.allows_guess = false;
    world.run(IDLE_AFTER + Duration::from_secs(1));
    assert_eq!(world.states(), [PeerState::Idle; 2]);
    world.log.clear();
    world.run(Duration::from_secs(3_600));
    assert_eq!(world.log, [], "an idle peer is left alone");
    let now = world.now;
    world.plans[0].handle_use(now);
    world.run(Duration::from_secs(1));
    assert!(world.log.iter().any(|(_, _, action)| *action == Action::PunchRound));
}

#[test]
fn a_peer_that_invents_new_candidates_for_ever_gets_few_rounds_out_of_us() {
    let now = origin();
    let mut plan = connected(Role::Dialler, now);
    let mut rounds = 0;
    for port in 1..500 {
        let candidate = Candidate { addr: address(port), kind: CandidateKind::Observed };
        plan.handle_signal(Signal::Candidates(vec![candidate]), now);
        rounds += drain(&mut plan)
            .iter()
            .filter(|action| matches!(action, Action::SendSignal(Signal::Open { .. })))
            .count();
    }
    assert_eq!(rounds, usize::try_from(PEER_ROUNDS_MAX).unwrap());
}

#[test]
fn a_peer_that_repeats_its_report_does_not_fill_the_timeline() {
    let now = origin();
    let mut plan = connected(Role::Accepter, now);
    plan.handle_own_report(report_of(NatClass::PortRestricted), now);
    let before = plan.timeline().entries().count();
    for _ in 0..100 {
        plan.handle_signal(Signal::NatReport(report_of(NatClass::Random)), now);
    }
    assert_eq!(plan.timeline().entries().count(), before + 1);
}

#[test]
fn an_invitation_to_guess_at_forbidden_places_or_while_another_runs_is_refused() {
    let now = origin();
    let mut plan = connected(Role::Accepter, now);
    let invite = |address: [u8; 4], token| {
        let address = address.into();
        Signal::GuessStart(GuessStart {
            attempt: 1,
            token,
            address,
            base_port: 0,
            pattern: crate::PortPattern::Random,
            sockets: 256,
        })
    };
    for forbidden in [[127, 0, 0, 1], [192, 168, 1, 1], [224, 0, 0, 1], [255, 255, 255, 255], [192, 0, 2, 1]]
    {
        plan.handle_signal(invite(forbidden, 1), now);
        assert_eq!(guesses_of(&mut plan), 0, "{forbidden:?}");
    }
    for token in 0..50 {
        plan.handle_signal(invite([45, 9, 9, 9], token), now);
    }
    assert_eq!(guesses_of(&mut plan), 1);
}

#[test]
fn the_only_path_is_never_closed_and_is_used_again_when_it_comes_back() {
    let now = origin();
    let mut plan = PeerPlan::new(PlanConfig { allows_relay: false, ..config(1) }, now);
    plan.handle_connected(Role::Dialler, PUNCHED, Tier::DirectV4, now);
    plan.handle_path(PUNCHED, PathEvent::Sent, now);
    let mut pings = 0;
    let mut due = now;
    for _ in 0..10 {
        due = plan.poll_timeout().unwrap();
        plan.handle_timeout(due);
        for action in drain(&mut plan) {
            assert_ne!(action, Action::ClosePath(PUNCHED));
            pings += usize::from(action == Action::PingPath(PUNCHED));
        }
    }
    assert!(pings >= 5 && plan.state() == PeerState::Suspect, "{pings} {}", plan.timeline());
    plan.handle_path(PUNCHED, PathEvent::Answered(Duration::from_millis(40)), due);
    assert_eq!((plan.state(), plan.chosen()), (PeerState::Direct, Some((PUNCHED, Tier::DirectV4))));
}

#[test]
fn a_path_over_a_satellite_is_not_called_dead_before_its_first_answer() {
    let now = origin();
    let mut plan = connected(Role::Dialler, now);
    plan.handle_path(PUNCHED, PathEvent::Opened(Tier::DirectV4), now);
    let answered = now + Duration::from_millis(900);
    while let Some(due) = plan.poll_timeout().filter(|due| *due < answered) {
        plan.handle_timeout(due);
    }
    assert!(!drain(&mut plan).contains(&Action::ClosePath(PUNCHED)));
}

#[test]
fn a_failed_round_with_a_peer_that_has_no_candidates_does_not_spin() {
    let now = origin();
    let mut plan = connected(Role::Dialler, now);
    let start = GuessStart {
        attempt: 1,
        token: 1,
        address: [45, 9, 9, 9].into(),
        base_port: 0,
        pattern: crate::PortPattern::Random,
        sockets: 256,
    };
    plan.handle_signal(Signal::GuessStart(start), now);
    plan.handle_guess_ended(None, now);
    assert_eq!(plan.poll_timeout(), Some(now + IDLE_AFTER));
}

proptest! {
    #[test]
    fn no_peer_and_no_order_of_events_breaks_the_plan(
        seed: u64, accepts: bool, steps in prop::collection::vec((0..14u8, any::<u32>(), any::<[u8; 4]>()), 0..150),
    ) {
        let mut now = origin();
        let role = if accepts { Role::Accepter } else { Role::Dialler };
        let mut plan = PeerPlan::new(config(seed), now);
        plan.handle_own_candidates(&[Candidate { addr: address(1), kind: CandidateKind::Observed }], now);
        plan.handle_connected(role, RELAY, Tier::Relay, now);
        for (what, number, address) in steps {
            soup(&mut plan, (what, number, address), now);
            now += Duration::from_millis(u64::from(number % 5_000));
            plan.handle_timeout(now);
            let actions = drain(&mut plan);
            prop_assert!(actions.len() < 200, "{} actions at once", actions.len());
            for action in actions {
                if let Action::SendOpener { to, ttl } = action {
                    prop_assert!(!to.ip().is_loopback() && !to.ip().is_multicast() && to.port() != 0 && ttl <= 7);
                }
            }
            prop_assert!(plan.timeline().entries().count() <= crate::timeline::ENTRIES_MAX);
            prop_assert!(plan.poll_timeout().is_none_or(|due| due > now), "{:?}", plan);
        }
    }
}

/// One arbitrary event.
fn soup(plan: &mut PeerPlan, (what, number, bytes): (u8, u32, [u8; 4]), now: Instant) {
    let path = PathId(number % 4);
    let addr = SocketAddr::from((bytes, u16::try_from(number % 65_536).unwrap()));
    let tier = [Tier::Lan, Tier::DirectV6, Tier::DirectV4, Tier::Guessed, Tier::Relay, Tier::TcpRelay];
    let class = CLASSES[usize::try_from(number % 9).unwrap()];
    let start = GuessStart {
        attempt: number,
        token: u64::from(number % 3),
        address: addr.ip(),
        base_port: addr.port(),
        pattern: crate::PortPattern::Sequential { delta: i16::from(bytes[0]) },
        sockets: addr.port(),
    };
    match what {
        0 => plan.handle_signal(
            Signal::Candidates(vec![Candidate { addr, kind: CandidateKind::Observed }; 40]),
            now,
        ),
        1 => plan.handle_signal(Signal::NatReport(report_of(class)), now),
        2 => plan.handle_signal(Signal::Open { round: number, addresses: vec![addr; 40] }, now),
        3 => plan.handle_signal(Signal::OpenOk { round: number % 5 }, now),
        4 => plan.handle_signal(Signal::GuessStart(start), now),
        5 => plan.handle_signal(Signal::Status { path: path.0, available: number % 2 == 0 }, now),
        6 => plan.handle_path(path, PathEvent::Opened(tier[usize::try_from(number % 6).unwrap()]), now),
        7 => plan.handle_path(path, PathEvent::Answered(Duration::from_millis(u64::from(number))), now),
        8 => plan.handle_path(path, PathEvent::Sent, now),
        9 => plan.handle_path(path, PathEvent::Closed, now),
        10 => plan.handle_own_report(report_of(class), now),
        11 => plan.handle_guess_ended((number % 2 == 0).then_some(addr), now),
        12 => plan.handle_network_change(now),
        _ => plan.handle_use(now),
    }
}

#[test]
fn a_guess_begins_soon_where_nothing_else_can_help() {
    for (ana, bo) in
        [(NatClass::PortRestricted, NatClass::Random), (NatClass::Random, NatClass::PortRestricted)]
    {
        let mut world = World::new(ana, bo);
        let start = world.now;
        world.run(Duration::from_secs(5));
        let guess = world.log.iter().find(|(_, _, action)| matches!(action, Action::StartGuess(_)));
        let after = guess.unwrap().0 - start;
        assert!(
            after < Duration::from_millis(1_500),
            "{after:?}\n{}\n{}",
            world.plans[0].timeline(),
            world.plans[1].timeline()
        );
    }
}

#[test]
fn a_guess_that_is_not_allowed_is_neither_begun_nor_answered() {
    let mut world = World::new(NatClass::PortRestricted, NatClass::Random);
    world.plans[1].config.allows_guess = false;
    world.run(Duration::from_secs(40));
    assert!(!world.log.iter().any(|(_, _, action)| matches!(action, Action::StartGuess(_))));
    assert_eq!(world.plans[0].chosen(), Some((RELAY, Tier::Relay)));
}

#[test]
fn the_timeline_of_a_guess_tells_the_whole_story_without_an_address() {
    let mut world = World::new(NatClass::PortRestricted, NatClass::Random);
    world.run(Duration::from_secs(15));
    let text = world.plans[0].timeline().to_string();
    for part in
        ["connect         relay", "compare NATs", "open NATs", "punch", "guess port      guessed port  began"]
    {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(!text.contains("45."), "{text}");
    let entries: Vec<Duration> = world.plans[0].timeline().entries().map(|entry| entry.after).collect();
    assert!(entries.is_sorted());
}

#[test]
fn a_network_change_during_a_guess_ends_the_guess() {
    let now = origin();
    let mut plan = connected(Role::Accepter, now);
    let start = GuessStart {
        attempt: 1,
        token: 1,
        address: [45, 9, 9, 9].into(),
        base_port: 0,
        pattern: crate::PortPattern::Random,
        sockets: 256,
    };
    plan.handle_signal(Signal::GuessStart(start), now);
    drain(&mut plan);
    plan.handle_network_change(now);
    assert!(drain(&mut plan).contains(&Action::StopGuess));
}

/// What arrives at a plan some time later.
#[derive(Debug, Clone)]
enum Arrival {
    Signal(Signal),
    Path(PathId, PathEvent),
    GuessEnded,
    BasePort,
}

/// Ana (0) has dialled Bo (1) over a relay.
struct World {
    plans: [PeerPlan; 2],
    now: Instant,
    classes: [NatClass; 2],
    arrivals: Vec<(Instant, usize, Arrival)>,
    has_opened: [bool; 2],
    guesses: [bool; 2],
    /// Direct paths deliver nothing.
    cut: bool,
    alive: Vec<PathId>,
    relays_opened: u32,
    log: Vec<(Instant, usize, Action)>,
}

impl World {
    fn new(ana: NatClass, bo: NatClass) -> Self {
        let now = origin();
        let plans = [1, 2].map(|seed| PeerPlan::new(config(seed), now));
        let mut world = Self {
            plans,
            now,
            classes: [ana, bo],
            arrivals: Vec::new(),
            has_opened: [false; 2],
            guesses: [false; 2],
            cut: false,
            alive: vec![RELAY],
            relays_opened: 0,
            log: Vec::new(),
        };
        for (side, role) in [Role::Dialler, Role::Accepter].into_iter().enumerate() {
            let plan = &mut world.plans[side];
            let host = u8::try_from(side).unwrap() + 1;
            let own = Candidate { addr: ([45, host, 0, 1], 4000).into(), kind: CandidateKind::Observed };
            plan.handle_own_candidates(&[own], now);
            plan.handle_own_report(report_of(world.classes[side]), now);
            plan.handle_connected(role, RELAY, Tier::Relay, now);
        }
        world
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            for side in 0..2 {
                while let Some(action) = self.plans[side].poll_action() {
                    self.log.push((self.now, side, action.clone()));
                    self.act(side, action);
                }
            }
            let timeouts = self.plans.iter().filter_map(PeerPlan::poll_timeout);
            let next = self.arrivals.iter().map(|(at, _, _)| *at).chain(timeouts).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            self.arrive();
            let now = self.now;
            self.plans.iter_mut().for_each(|plan| plan.handle_timeout(now));
        }
    }

    fn arrive(&mut self) {
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.arrivals).into_iter().partition(|(at, _, _)| *at <= now);
        self.arrivals = later;
        let due: Vec<(Instant, usize, Arrival)> = due;
        for (_, side, arrival) in due {
            let plan = &mut self.plans[side];
            match arrival {
                Arrival::Signal(signal) => plan.handle_signal(signal, now),
                Arrival::Path(path, event) => plan.handle_path(path, event, now),
                Arrival::GuessEnded => plan.handle_guess_ended(Some(address(9)), now),
                Arrival::BasePort => plan.handle_base_port(30_000, now),
            }
        }
    }

    fn act(&mut self, side: usize, action: Action) {
        match action {
            Action::SendSignal(signal) => self.later(50, 1 - side, Arrival::Signal(signal)),
            Action::SendOpener { .. } => self.has_opened[side] = true,
            Action::PunchRound => {
                let works = match predict_classes(self.classes[0], self.classes[1]) {
                    Expected::Direct => true,
                    Expected::DirectWithOpener => self.has_opened == [true; 2],
                    Expected::DirectByGuess | Expected::Relayed | Expected::TcpRelayed => false,
                };
                if works && !self.cut {
                    self.open(PUNCHED, Tier::DirectV4);
                }
            }
            Action::MeasurePort => self.later(20, side, Arrival::BasePort),
            Action::StartGuess(job) => self.guess(side, job),
            Action::OpenPath(_) => self.open(GUESSED, Tier::Guessed),
            Action::OpenRelayPath => {
                self.open(PathId(10 + self.relays_opened), Tier::Relay);
                self.relays_opened += 1;
            }
            Action::PingPath(path) => {
                let is_direct = path == PUNCHED || path == GUESSED;
                if self.alive.contains(&path) && !(is_direct && self.cut) {
                    self.later(40, side, Arrival::Path(path, PathEvent::Answered(Duration::from_millis(40))));
                }
            }
            Action::ClosePath(path) => {
                self.alive.retain(|other| *other != path);
                self.later(0, side, Arrival::Path(path, PathEvent::Closed));
                self.later(50, 1 - side, Arrival::Path(path, PathEvent::Closed));
            }
            Action::Dial(_)
            | Action::StopGuess
            | Action::SetStatus { .. }
            | Action::KeepAlive(_)
            | Action::Disconnect
            | Action::Report(_) => {}
        }
    }

    /// A guess is answered when both sides take part.
    fn guess(&mut self, side: usize, job: GuessJob) {
        self.guesses[side] = true;
        if let GuessJob::Hard(setup) = job
            && !matches!(setup.aim, crate::guess::Aim::Predicted { guesses: true, .. })
        {
            self.later(50, 1 - side, Arrival::Signal(Signal::GuessStart(setup.start)));
        }
        if self.guesses == [true; 2] {
            self.guesses = [false; 2];
            self.later(500, 0, Arrival::GuessEnded);
            self.later(500, 1, Arrival::GuessEnded);
        }
    }

    fn open(&mut self, path: PathId, tier: Tier) {
        self.alive.push(path);
        for side in 0..2 {
            self.later(100, side, Arrival::Path(path, PathEvent::Opened(tier)));
        }
    }

    fn later(&mut self, ms: u64, side: usize, arrival: Arrival) {
        self.arrivals.push((self.now + Duration::from_millis(ms), side, arrival));
    }

    fn states(&self) -> [PeerState; 2] {
        [0, 1].map(|side: usize| self.plans[side].state())
    }
}

fn connected(role: Role, now: Instant) -> PeerPlan {
    let mut plan = PeerPlan::new(config(1), now);
    let own = Candidate { addr: ([45, 1, 0, 1], 4000).into(), kind: CandidateKind::Observed };
    plan.handle_own_candidates(&[own], now);
    plan.handle_connected(role, RELAY, Tier::Relay, now);
    drain(&mut plan);
    plan
}

fn drain(plan: &mut PeerPlan) -> Vec<Action> {
    std::iter::from_fn(|| plan.poll_action()).collect()
}

fn guesses_of(plan: &mut PeerPlan) -> usize {
    drain(plan).iter().filter(|action| matches!(action, Action::StartGuess(_))).count()
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([45, 7, 0, 1], port))
}

fn config(seed: u64) -> PlanConfig {
    PlanConfig { allows_relay: true, allows_guess: true, seed }
}
