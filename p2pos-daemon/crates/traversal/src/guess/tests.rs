//! Both sides of a guess over two simulated NATs and a wire with a delay, in virtual time.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    nat::PortPattern,
    opener::opener_ttl,
    probe::Probe,
    random::Random,
    signal::{GuessStart, Signal},
    testing::{Habits, Nat, habits_of, origin},
};

const ONE_WAY: Duration = Duration::from_millis(25);
/// Where the QUIC socket of the easy side is, and seems to be.
const EASY_INSIDE: ([u8; 4], u16) = ([192, 168, 1, 7], 4000);
const EASY_OUTSIDE: ([u8; 4], u16) = ([45, 1, 1, 1], 4000);
const HARD_OUTSIDE: [u8; 4] = [45, 9, 9, 9];

#[test]
fn ninety_five_of_a_hundred_attempts_at_a_random_nat_hit_in_ten_seconds() {
    let (mut hits, mut probes, mut times) = (0, Vec::new(), Vec::new());
    for seed in 0..1_000 {
        let end = attempt("home", habits_of("random"), seed);
        if end.is_hit && end.sent <= GUESSES_MAX && end.took <= Duration::from_secs(10) {
            hits += 1;
            probes.push(end.sent);
        }
        times.push(end.took);
    }
    probes.sort_unstable();
    times.sort_unstable();
    println!("random: 95 of 100 end within {} ms", times[949].as_millis());
    println!(
        "random: {hits} of 1000 hit, median {} guesses, worst {}",
        probes[probes.len() / 2],
        probes.last().unwrap()
    );
    assert!(hits >= 950, "{hits} of 1000");
}

#[test]
fn a_sequential_nat_is_met_by_the_eight_predicted_ports() {
    for seed in 0..200 {
        let end = attempt("home", habits_of("sequential"), seed);
        assert!(end.is_hit && end.sent <= u32::from(PREDICTED_MAX), "seed {seed}: {end:?}");
    }
}

#[test]
fn a_port_block_is_met_within_the_block() {
    let mut probes = Vec::new();
    for seed in 0..200 {
        let end = attempt("home", habits_of("block"), seed);
        assert!(end.is_hit, "seed {seed}: {end:?}");
        probes.push(end.sent);
    }
    println!("block: worst {} guesses", probes.iter().max().unwrap());
}

#[test]
fn a_collision_prone_home_is_met_as_well_because_guesses_go_out_first() {
    let hits = (0..50).filter(|seed| attempt("open home", habits_of("random"), *seed).is_hit).count();
    assert!(hits >= 46, "{hits} of 50");
}

#[test]
fn two_sequential_nats_meet_whatever_few_ports_others_take_meanwhile() {
    for slip in 0..16 {
        assert!(mutual_attempt(slip), "slip {slip}");
    }
    assert!(!mutual_attempt(40), "the model forgives too much");
}

#[test]
fn guesses_keep_to_their_rate_and_number_and_then_end() {
    let start = origin();
    let mut easy = EasySide::new(invitation(PortPattern::Random), Random::from_seed(3), start);
    let (mut sent, mut end) = (Vec::new(), start);
    while let Some(due) = easy.poll_timeout() {
        end = due;
        easy.handle_timeout(due);
        sent.extend(easy.poll_transmit(due).map(|_| due));
    }
    assert_eq!(u32::try_from(sent.len()).unwrap(), GUESSES_MAX);
    let a_second = usize::try_from(GUESSES_PER_SECOND_MAX).unwrap();
    assert!(sent.windows(a_second + 1).all(|window| window[a_second] - window[0] >= Duration::from_secs(1)));
    assert_eq!(easy.end(), Some(GuessEnd::Spent));
    assert!(end - start <= ATTEMPT_DEADLINE);
}

#[test]
fn a_strained_network_ends_the_attempt_and_a_hiccup_does_not() {
    let ms = Duration::from_millis;
    for (normal, later, lost, ends) in [
        (ms(40), ms(110), 0, false),
        (ms(40), ms(130), 0, true),
        (ms(2), ms(90), 0, false),
        (ms(40), ms(40), 8, false),
        (ms(40), ms(40), 9, true),
    ] {
        let mut easy = EasySide::new(invitation(PortPattern::Random), Random::from_seed(3), origin());
        easy.handle_strain(Strain { rtt: normal, lost: 0 });
        easy.handle_strain(Strain { rtt: later, lost });
        assert_eq!(easy.end(), ends.then_some(GuessEnd::Strained), "{normal:?} {later:?} {lost}");
    }
}

#[test]
fn a_third_party_can_fake_neither_a_guess_nor_a_hit() {
    let now = origin();
    let start = invitation(PortPattern::Random);
    let mut easy = EasySide::new(start, Random::from_seed(3), now);
    let stranger = SocketAddr::from(([45, 66, 6, 6], 1));
    easy.handle_hit(stranger, start.token);
    easy.handle_hit(SocketAddr::from((HARD_OUTSIDE, 1)), start.token + 1);
    assert_eq!(easy.end(), None);
    let mut hard = HardSide::new(HardSetup { start, aim: Aim::At(EASY_OUTSIDE.into()), ttl: 2 }, now);
    assert!(matches!(hard.poll_event(now), Some(HardEvent::Open { socket: 0, .. })));
    hard.handle_guess(0, stranger, start.token, now);
    hard.handle_guess(0, EASY_OUTSIDE.into(), start.token + 1, now);
    hard.handle_guess(7, EASY_OUTSIDE.into(), start.token, now);
    assert_eq!(hard.end(), None);
}

#[test]
fn a_hit_is_sent_three_times_and_all_other_sockets_are_closed() {
    let mut now = origin();
    let mut hard = HardSide::new(
        HardSetup { start: invitation(PortPattern::Random), aim: Aim::At(EASY_OUTSIDE.into()), ttl: 2 },
        now,
    );
    for _ in 0..5 {
        assert!(matches!(hard.poll_event(now), Some(HardEvent::Open { .. })));
        now = hard.poll_timeout().unwrap();
    }
    hard.handle_guess(3, EASY_OUTSIDE.into(), 9, now);
    let (mut closed, mut hits) = (Vec::new(), 0);
    while let Some(due) = hard.poll_timeout() {
        while let Some(event) = hard.poll_event(due.max(now)) {
            if let HardEvent::Close { socket } = event {
                closed.push(socket);
            } else if let HardEvent::Send { socket, probe, .. } = event {
                assert_eq!((socket, probe), (3, Probe::Hit { token: 9 }));
                hits += 1;
            } else {
                assert_eq!(event, HardEvent::Signal(Signal::GuessHit { attempt: 1 }));
            }
        }
    }
    assert_eq!((closed, hits), (vec![0, 1, 2, 4], HITS));
    assert_eq!(hard.end(), Some(HardEnd::Hit { socket: 3, remote: EASY_OUTSIDE.into() }));
}

#[test]
fn a_silent_easy_side_leaves_no_socket_open() {
    let start = origin();
    let setup =
        HardSetup { start: invitation(PortPattern::Random), aim: Aim::At(EASY_OUTSIDE.into()), ttl: 2 };
    let mut hard = HardSide::new(setup, start);
    let (mut opened, mut closed) = (0, 0);
    while let Some(due) = hard.poll_timeout() {
        assert!(due <= start + ATTEMPT_DEADLINE);
        while let Some(event) = hard.poll_event(due) {
            opened += usize::from(matches!(event, HardEvent::Open { .. }));
            closed += usize::from(matches!(event, HardEvent::Close { .. }));
        }
    }
    let all = usize::from(SOCKETS_MAX);
    assert_eq!((opened, closed, hard.end()), (all, all, Some(HardEnd::Silent)));
}

#[derive(Debug)]
struct Outcome {
    is_hit: bool,
    sent: u32,
    took: Duration,
}

/// Packets and signals under way, the earliest first.
type Wire<T> = VecDeque<(Instant, T)>;

fn attempt(easy_kind: &str, hard_habits: Habits, seed: u64) -> Outcome {
    let start = origin();
    let mut now = start;
    let mut easy_nat = Nat::new(habits_of(easy_kind), EASY_OUTSIDE.0, seed);
    let mut hard_nat = Nat::new(hard_habits, HARD_OUTSIDE, seed ^ 0xffff);
    easy_nat.send(EASY_INSIDE.into(), SocketAddr::from(([45, 3, 3, 3], 1)), now);
    let base_port = hard_nat.send(hard_socket(999), SocketAddr::from(([45, 3, 3, 3], 1)), now).port();
    let invited = GuessStart { base_port, ..invitation(hard_habits.pattern) };
    let setup = HardSetup { start: invited, aim: Aim::At(EASY_OUTSIDE.into()), ttl: opener_ttl(Some(1)) };
    let mut hard = HardSide::new(setup, now);
    let mut easy: Option<EasySide> = None;
    let mut signals = Wire::<Signal>::new();
    let (mut guesses, mut hits) = (Wire::<(SocketAddr, u16)>::new(), Wire::<(SocketAddr, u16)>::new());
    while now < start + ATTEMPT_DEADLINE * 2 {
        while let Some(event) = hard.poll_event(now) {
            match event {
                // The opener books the binding and dies.
                HardEvent::Open { socket, to, .. } => drop(hard_nat.send(hard_socket(socket), to, now)),
                HardEvent::Send { socket, to, .. } => {
                    let from = hard_nat.send(hard_socket(socket), to, now);
                    hits.push_back((now + ONE_WAY, (from, to.port())));
                }
                HardEvent::Signal(signal) => signals.push_back((now + 2 * ONE_WAY, signal)),
                HardEvent::Close { .. } => {}
            }
        }
        while let Some((_, signal)) = signals.pop_front_if(|(due, _)| now >= *due) {
            if let Signal::GuessStart(invited) = signal {
                easy = Some(EasySide::new(invited, Random::from_seed(seed), now));
            } else if let Signal::GuessHit { attempt } = signal {
                easy.as_mut().unwrap().handle_told_hit(attempt, now);
            }
        }
        if let Some(easy) = &mut easy {
            while let Some((_, (from, port))) = hits.pop_front_if(|(due, _)| now >= *due) {
                if easy_nat.deliver(from, port, now).is_some() {
                    easy.handle_hit(from, invited.token);
                }
            }
            easy.handle_timeout(now);
            if let Some(end) = easy.end() {
                let is_hit = matches!(end, GuessEnd::Hit(_));
                return Outcome { is_hit, sent: easy.sent(), took: now - start };
            }
            while let Some(guess) = easy.poll_transmit(now) {
                let from = easy_nat.send(EASY_INSIDE.into(), guess.to, now);
                guesses.push_back((now + ONE_WAY, (from, guess.to.port())));
            }
        }
        while let Some((_, (from, port))) = guesses.pop_front_if(|(due, _)| now >= *due) {
            if let Some(inside) = hard_nat.deliver(from, port, now) {
                hard.handle_guess(inside.port() - 10_000, from, invited.token, now);
            }
        }
        now += Duration::from_millis(5);
    }
    panic!("seed {seed}: no end");
}

/// Two sequential NATs: one side opens and waits, then the other opens and guesses. `slip` ports were taken by others.
fn mutual_attempt(slip: u16) -> bool {
    let mut now = origin();
    let habits = habits_of("sequential");
    let mut nats = [Nat::new(habits, [45, 1, 1, 1], 1), Nat::new(habits, [45, 2, 2, 2], 2)];
    let observer = SocketAddr::from(([45, 3, 3, 3], 1));
    let bases = [0, 1].map(|side: usize| nats[side].send(hard_socket(999), observer, now).port());
    for other in 0..slip {
        nats[usize::from(other % 2)].send(hard_socket(500 + other), observer, now);
    }
    let pattern = habits.pattern;
    let aim = |peer: usize, guesses| Aim::Predicted {
        address: [[45, 1, 1, 1], [45, 2, 2, 2]][peer].into(),
        base_port: bases[peer],
        delta: 1,
        guesses,
    };
    let setup = |aim| HardSetup { start: invitation(pattern), aim, ttl: 2 };
    let mut sides = [HardSide::new(setup(aim(1, false)), now), HardSide::new(setup(aim(0, true)), now)];
    let mut targets: BTreeMap<(usize, u16), SocketAddr> = BTreeMap::new();
    for _ in 0..2_000 {
        for side in 0..2 {
            while let Some(event) = sides[side].poll_event(now) {
                match event {
                    HardEvent::Open { socket, to, .. } => {
                        nats[side].send(hard_socket(socket), to, now);
                        targets.insert((side, socket), to);
                    }
                    HardEvent::Send { socket, to, probe } => {
                        let from = nats[side].send(hard_socket(socket), to, now);
                        let Some(inside) = nats[1 - side].deliver(from, to.port(), now) else { continue };
                        let socket = inside.port() - 10_000;
                        if let Probe::Hit { token } = probe {
                            sides[1 - side].handle_hit(socket, from, token);
                        } else if let Probe::Guess { token } = probe {
                            sides[1 - side].handle_guess(socket, from, token, now);
                        }
                    }
                    HardEvent::Signal(_) | HardEvent::Close { .. } => {}
                }
            }
        }
        now += Duration::from_millis(5);
    }
    sides.iter().all(|side| matches!(side.end(), Some(HardEnd::Hit { .. })))
}

fn hard_socket(socket: u16) -> SocketAddr {
    SocketAddr::from(([192, 168, 2, 7], 10_000 + socket))
}

fn invitation(pattern: PortPattern) -> GuessStart {
    let address = HARD_OUTSIDE.into();
    GuessStart { attempt: 1, token: 9, address, base_port: 0, pattern, sockets: sockets_for(pattern) }
}
