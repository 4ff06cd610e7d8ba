//! Measurements and days over simulated NATs, in virtual time.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    probe::Probe,
    testing::{Habits, Nat, habits_of, origin},
};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

#[test]
fn each_lifetime_is_found_by_the_longest_cliff_that_it_survives() {
    for (life_s, expected) in [
        (5, Survived::Nothing),
        (12, Survived::For(secs(10))),
        (30, Survived::For(secs(30))),
        (60, Survived::For(secs(60))),
        (100, Survived::For(secs(60))),
        (120, Survived::For(secs(120))),
        (300, Survived::For(secs(300))),
        (86_400, Survived::For(secs(300))),
    ] {
        assert_eq!(measure(lifetimes(life_s, life_s), true).0, expected, "{life_s} s");
    }
}

#[test]
fn a_nat_that_remembers_longer_what_is_warm_is_measured_warm() {
    let (survived, packets) = measure(lifetimes(30, 120), true);
    assert_eq!(survived, Survived::For(secs(120)));
    assert!(packets <= 70, "{packets} packets");
}

#[test]
fn a_helper_that_vanishes_is_not_mistaken_for_a_nat_that_forgets() {
    assert_eq!(measure(lifetimes(60, 60), false).0, Survived::Unknown);
}

#[test]
fn a_simulated_day_loses_no_binding_and_costs_a_fraction_of_fixed_intervals() {
    println!("lifetime  interval  packets/h  (fixed 5 s: 720, fixed 15 s: 240)");
    for (life_s, most_per_hour) in [(30, 153), (60, 78), (120, 41), (300, 18)] {
        let (lost, packets, interval) = day(lifetimes(life_s, life_s));
        let per_hour = packets / 24;
        println!("{life_s:>6} s  {:>6} s  {per_hour:>9}", interval.as_secs());
        assert_eq!(lost, 0, "{life_s} s");
        assert!(per_hour <= most_per_hour, "{per_hour} packets an hour at {life_s} s");
    }
}

#[test]
fn the_simulated_day_notices_an_interval_that_is_too_long() {
    let now = origin();
    let mut keep = KeepAlive::new(1, now);
    keep.handle_survived(Survived::For(secs(120)), now);
    assert!(live(&mut keep, lifetimes(60, 60), HOUR, now).0 > 0, "the model forgets nothing");
}

#[test]
fn a_lost_binding_halves_and_a_week_without_loss_gives_back_one_cliff_up_to_what_was_measured() {
    let mut now = origin();
    let mut keep = KeepAlive::new(1, now);
    assert_eq!(keep.interval(), INTERVAL_UNKNOWN);
    keep.handle_survived(Survived::For(secs(120)), now);
    assert_eq!(keep.interval(), secs(96));
    keep.handle_lost(now);
    keep.handle_lost(now);
    assert_eq!(keep.interval(), secs(24));
    let mut intervals = Vec::new();
    for _ in 0..4 {
        now += CALM;
        while keep.poll_event(now).is_some() {}
        intervals.push(keep.interval().as_secs());
    }
    assert_eq!(intervals, [48, 96, 96, 96]);
    for _ in 0..20 {
        keep.handle_lost(now);
    }
    assert_eq!(keep.interval(), INTERVAL_MIN);
    keep.handle_survived(Survived::For(secs(300)), now);
    assert_eq!(keep.interval(), INTERVAL_MAX);
}

#[test]
fn a_known_network_is_not_measured_again_and_an_unknown_one_at_once() {
    let now = origin();
    let mut keep = KeepAlive::new(1, now);
    assert_eq!(keep.poll_event(now), Some(KeepAliveEvent::Measure));
    keep.handle_survived(Survived::For(secs(60)), now);
    keep.handle_network_change(2, now);
    assert_eq!((keep.interval(), keep.poll_event(now)), (INTERVAL_UNKNOWN, Some(KeepAliveEvent::Measure)));
    keep.handle_network_change(1, now);
    assert_eq!((keep.interval(), keep.poll_event(now)), (secs(48), None));
    assert_eq!(keep.poll_event(now + MEASURE_AGAIN), Some(KeepAliveEvent::Measure));
    for network in 10..100 {
        keep.handle_network_change(network, now);
    }
    keep.handle_network_change(1, now);
    assert_eq!(keep.interval(), INTERVAL_UNKNOWN, "too long ago");
}

#[test]
fn traffic_and_having_no_nat_save_the_keepalive() {
    let now = origin();
    let mut keep = KeepAlive::new(1, now);
    keep.handle_survived(Survived::For(secs(60)), now);
    keep.handle_sent(now + secs(40));
    assert_eq!(keep.poll_event(now + secs(48)), None);
    assert_eq!(keep.poll_timeout(), Some(now + secs(88)));
    keep.handle_wanted(false, now);
    assert_eq!((keep.poll_event(now + DAY), keep.poll_timeout()), (None, None));
}

#[test]
fn a_measurement_without_a_helper_is_tried_again_ten_minutes_later() {
    let now = origin();
    let mut keep = KeepAlive::new(1, now);
    assert_eq!(keep.poll_event(now), Some(KeepAliveEvent::Measure));
    keep.handle_survived(Survived::Unknown, now);
    assert_eq!(keep.poll_event(now + secs(1)), None);
    assert_eq!(keep.poll_event(now + MEASURE_RETRY), Some(KeepAliveEvent::Measure));
}

#[test]
fn a_helper_answers_nobody_that_did_not_announce_itself() {
    let now = origin();
    let from = SocketAddr::from(([45, 1, 1, 1], 4000));
    let mut helper = Knocker::new();
    for probe in [Probe::Ping { token: 5 }, Probe::Ask { token: 5 }, Probe::Opener, Probe::Pong { token: 5 }]
    {
        assert_eq!(helper.handle_probe(probe, from, now), None);
    }
    helper.handle_announced(5, 1, now);
    assert_eq!(helper.handle_probe(Probe::Ping { token: 6 }, from, now), None);
    let asked_too_early = helper.handle_probe(Probe::Ask { token: 5 }, from, now).unwrap();
    assert_eq!(asked_too_early.knock, None);
    assert_eq!(helper.handle_probe(Probe::Ping { token: 5 }, from, now + secs(400)), None, "long ago");
}

#[test]
fn one_token_makes_a_helper_send_few_packets_and_many_peers_fill_it_no_further() {
    let now = origin();
    let victim = SocketAddr::from(([45, 6, 6, 6], 4000));
    let mut helper = Knocker::new();
    helper.handle_announced(1, 1, now);
    helper.handle_probe(Probe::Ping { token: 1 }, victim, now);
    let knocks = (0..1_000)
        .filter_map(|_| helper.handle_probe(Probe::Ask { token: 1 }, victim, now))
        .filter(|reply| reply.knock.is_some())
        .count();
    assert_eq!(knocks, 11);
    for peer in 1..1_000 {
        helper.handle_announced(peer << 32, u8::MAX, now);
    }
    assert!(helper.handle_probe(Probe::Ping { token: 1 << 32 }, victim, now).is_some());
    assert!(helper.handle_probe(Probe::Ping { token: 1 << 32 | 8 }, victim, now).is_none(), "eight for each");
    assert!(helper.handle_probe(Probe::Ping { token: 999 << 32 }, victim, now).is_none(), "full");
}

/// Measures through a NAT with a real helper; returns what was found and the packets it took.
fn measure(habits: Habits, helper_stays: bool) -> (Survived, usize) {
    let start = origin();
    let mut now = start;
    let mut nat = Nat::new(habits, [45, 1, 1, 1], 1);
    let helper_addr = SocketAddr::from(([45, 2, 2, 2], 4000));
    let mut helper = Knocker::new();
    helper.handle_announced(100, u8::try_from(CLIFFS.len()).unwrap(), now);
    let mut probe = CliffProbe::new(100, now);
    let mut packets = 0;
    let mut closed = 0;
    loop {
        while let Some(event) = probe.poll_event(now) {
            let (inside, sent) = match event {
                CliffEvent::Ping { socket, token } => (throw_away(socket), Probe::Ping { token }),
                CliffEvent::Ask { token } => (throw_away(99), Probe::Ask { token }),
                CliffEvent::Close { .. } => {
                    closed += 1;
                    continue;
                }
            };
            packets += 1;
            let outside = nat.send(inside, helper_addr, now);
            let is_there = helper_stays || now < start + secs(8);
            let Some(reply) = helper.handle_probe(sent, outside, now).filter(|_| is_there) else { continue };
            packets += 1;
            assert_eq!(nat.deliver(helper_addr, outside.port(), now), Some(inside));
            if let Probe::Pong { token } = reply.answer {
                probe.handle_pong(token, now);
            }
            if let Some((to, Probe::Knock { token })) = reply.knock {
                packets += 1;
                if nat.deliver(helper_addr, to.port(), now).is_some() {
                    probe.handle_knock(token);
                }
            }
        }
        match probe.poll_timeout() {
            Some(due) => now = due,
            None => break,
        }
    }
    assert_eq!(closed, CLIFFS.len());
    (probe.result().unwrap(), packets)
}

/// A day behind a NAT: measured at first, then kept alive. Returns lost bindings, packets with those of the measurement,
/// and the interval.
fn day(habits: Habits) -> (usize, usize, Duration) {
    let now = origin();
    let mut keep = KeepAlive::new(1, now);
    assert_eq!(keep.poll_event(now), Some(KeepAliveEvent::Measure));
    let (survived, measuring) = measure(habits, true);
    keep.handle_survived(survived, now);
    let (lost, sent) = live(&mut keep, habits, DAY, now);
    (lost, sent + measuring, keep.interval())
}

/// Keeps one binding alive for a while. Before each keepalive somebody tries to reach us.
fn live(keep: &mut KeepAlive, habits: Habits, time: Duration, start: Instant) -> (usize, usize) {
    let mut nat = Nat::new(habits, [45, 1, 1, 1], 1);
    let peer = SocketAddr::from(([45, 2, 2, 2], 4000));
    // The connection was in use before: the binding is warm.
    for second in 0..4 {
        let port = nat.send(throw_away(0), peer, start + secs(second)).port();
        nat.deliver(peer, port, start + secs(second));
    }
    keep.handle_sent(start + secs(3));
    let (mut now, mut lost, mut sent) = (start + secs(3), 0, 0);
    let port = throw_away(0).port();
    while let Some(due) = keep.poll_timeout().filter(|due| *due < start + time) {
        now = now.max(due);
        while let Some(event) = keep.poll_event(now) {
            if event == KeepAliveEvent::Send {
                // The knock of a peer refreshes nothing here, or the test would help itself.
                lost += usize::from(!nat.is_bound(throw_away(0), now));
                assert_eq!(nat.send(throw_away(0), peer, now).port(), port);
                sent += 1;
            }
        }
    }
    (lost, sent)
}

fn throw_away(socket: u8) -> SocketAddr {
    SocketAddr::from(([192, 168, 1, 7], 10_000 + u16::from(socket)))
}

fn lifetimes(fresh_s: u64, warm_s: u64) -> Habits {
    Habits { lifetimes: (secs(fresh_s), secs(warm_s)), ..habits_of("home") }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}
