//! What evil users and strangers try with a relay, and what they get.
//!
//! Two honest users talk through it throughout. Randomised tests shrink and print their input (proptest).

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use p2pos_relay::{
    Ahead, Asker, Dropped, HEAD_BYTES, Lease, Opened, Refusal, RelayMode, RelaySettings, Search, Verdict, Via,
};
use proptest::prelude::*;

use support::{Relay, asker_at, contact, packet, settings, signed, stranger};

const MALLORY: &str = "66.6.6.6:666";

#[test]
fn a_replayed_frame_is_dropped_and_moves_nothing() {
    let mut relay = Relay::new(settings(RelayMode::Community));
    let (ana, bo) = relay.join(&stranger(1), &stranger(2));
    let caught = signed(&ana, &packet());
    assert!(is_forwarded(relay.service.forward(relay.now, Via::Udp(ana.at), &mut caught.clone())));
    for from in [ana.at, address(MALLORY)] {
        let again = relay.service.forward(relay.now, Via::Udp(from), &mut caught.clone());
        assert_eq!(again, Verdict::Dropped(Dropped::Replayed));
    }
    assert!(relay.service.poll_answer().is_none(), "nobody is asked anything");
    assert_eq!(sends_to(&mut relay, &bo), Via::Udp(ana.at));
}

#[test]
fn a_fresh_frame_caught_and_sent_first_from_elsewhere_does_not_steal_the_flow() {
    let mut relay = Relay::new(settings(RelayMode::Community));
    let (ana, bo) = relay.join(&stranger(1), &stranger(2));
    let mut caught = signed(&ana, &packet());
    assert!(is_forwarded(relay.service.forward(relay.now, Via::Udp(address(MALLORY)), &mut caught)));
    let (to, challenge) = relay.service.poll_answer().unwrap();
    assert_eq!(to, Via::Udp(address(MALLORY)));
    assert_eq!(sends_to(&mut relay, &bo), Via::Udp(ana.at), "a challenge is no move");

    // Mallory hands the challenge to Ana, who answers it from where she is: the cookie was not for there.
    let Ok(Opened::Answer(proof)) = ana.end.open(&challenge) else { panic!("a challenge") };
    let answered = relay.service.forward(relay.now, Via::Udp(ana.at), &mut proof.to_vec());
    assert_eq!(answered, Verdict::Dropped(Dropped::Control));
    assert_eq!(sends_to(&mut relay, &bo), Via::Udp(ana.at));
}

#[test]
fn who_races_even_the_proof_loses_the_flow_to_the_old_address_in_one_round_trip() {
    let mut relay = Relay::new(settings(RelayMode::Community));
    let (ana, bo) = relay.join(&stranger(1), &stranger(2));
    relay.service.forward(relay.now, Via::Udp(address(MALLORY)), &mut signed(&ana, &packet()));
    let (_, challenge) = relay.service.poll_answer().unwrap();
    let Ok(Opened::Answer(proof)) = ana.end.open(&challenge) else { panic!("a challenge") };
    relay.service.forward(relay.now, Via::Udp(address(MALLORY)), &mut proof.to_vec());
    assert_eq!(sends_to(&mut relay, &bo), Via::Udp(address(MALLORY)), "for now");
    relay.settle(&ana);
    assert_eq!(sends_to(&mut relay, &bo), Via::Udp(ana.at));
}

#[test]
fn an_evil_user_gets_nothing_of_others_with_keys_and_flows_of_its_own() {
    let mut relay = Relay::new(settings(RelayMode::Community));
    let (ana, bo) = relay.join(&stranger(1), &stranger(2));
    let (evil, _friend) = relay.join(&stranger(66), &stranger(67));
    let mut frame = signed(&evil, &packet());
    for number in [ana.end.vni(), bo.end.vni()] {
        frame[1..5].copy_from_slice(&number.value().to_be_bytes());
        let verdict = relay.service.forward(relay.now, Via::Udp(evil.at), &mut frame);
        assert_eq!(verdict, Verdict::Dropped(Dropped::Tag), "a swapped number");
    }
    let (anas, evils) = (signed(&ana, &packet()), signed(&evil, &packet()));
    let mut mixed = [&anas[..HEAD_BYTES - 8], &evils[HEAD_BYTES - 8..]].concat();
    let verdict = relay.service.forward(relay.now, Via::Udp(evil.at), &mut mixed);
    assert_eq!(verdict, Verdict::Dropped(Dropped::Tag), "a swapped tag");
    assert_eq!(relay.service.handle_hang_up(evil.peer, ana.end.vni()), Err(Refusal::NoFlow));
    assert!(is_forwarded(relay.send(&ana, &packet()).0) && is_forwarded(relay.send(&bo, &packet()).0));
}

#[test]
fn no_control_frame_makes_the_relay_send_more_than_it_got() {
    let mut relay = Relay::new(settings(RelayMode::Community));
    let (ana, _bo) = relay.join(&stranger(1), &stranger(2));
    let mut from = address(MALLORY);
    for round in 0..200_u16 {
        from.set_port(1000 + round);
        let mut bind = ana.end.bind().unwrap().to_vec();
        let got = bind.len();
        relay.service.forward(relay.now, Via::Udp(from), &mut bind);
        let sent: usize =
            std::iter::from_fn(|| relay.service.poll_answer()).map(|(_, frame)| frame.len()).sum();
        assert!(sent <= got, "{sent} for {got}");
    }
    let mut short = signed(&ana, &[0x41; 21]);
    from.set_port(9);
    relay.service.forward(relay.now + Duration::from_secs(1), Via::Udp(from), &mut short);
    assert!(relay.service.poll_answer().is_none(), "38 bytes are not answered with 49");
}

#[test]
fn a_challenge_goes_to_one_address_in_a_tenth_of_a_second_and_never_into_the_relays_own_network() {
    let mut relay = Relay::new(settings(RelayMode::Community));
    let (ana, _bo) = relay.join(&stranger(1), &stranger(2));
    for inside in
        ["192.168.1.1:80", "10.0.0.1:53", "127.0.0.1:22", "169.254.169.254:80", "[fd00::1]:1", "[::1]:1"]
    {
        relay.service.forward(relay.now, Via::Udp(address(inside)), &mut ana.end.bind().unwrap().to_vec());
        assert!(relay.service.poll_answer().is_none(), "{inside}");
    }
    for (after_ms, asked) in [(0, 1), (50, 0), (60, 1)] {
        relay.pass(Duration::from_millis(after_ms));
        relay.service.forward(relay.now, Via::Udp(address(MALLORY)), &mut ana.end.bind().unwrap().to_vec());
        assert_eq!(std::iter::from_fn(|| relay.service.poll_answer()).count(), asked);
    }
}

#[test]
fn a_relay_is_no_open_proxy_nor_a_way_into_its_own_network() {
    let mut relay = Relay::new(settings(RelayMode::Community));
    let inside = asker_at(50, address("192.168.1.50:4000"));
    let outside = stranger(1);
    let lease = relay.reserve(&inside).unwrap();
    let refused = relay.connect(&outside, inside.peer, lease.token);
    assert_eq!(refused.unwrap_err(), Refusal::Address, "a stranger outside, a stranger inside");
    let other_inside = asker_at(51, address("192.168.1.51:4000"));
    assert!(relay.connect(&other_inside, inside.peer, lease.token).is_ok(), "both are inside");

    let family = |asker: Asker| Asker { is_contact: true, ..asker };
    let lease = relay.reserve(&family(asker_at(52, address("192.168.1.52:1")))).unwrap();
    let call = relay.connect(&contact(2), support::peer(52), lease.token);
    assert!(call.is_ok(), "the owner knows both, and both proved where they are");

    for nowhere in
        ["224.0.0.1:1", "0.0.0.0:1", "255.255.255.255:1", "127.0.0.1:1", "8.8.8.8:0", "[ff02::1]:1"]
    {
        let asker = asker_at(53, address(nowhere));
        assert_eq!(relay.reserve(&asker).unwrap_err(), Refusal::Address, "{nowhere}");
    }
}

#[test]
fn a_relay_is_not_reached_over_a_relay() {
    let mut relay = Relay::new(settings(RelayMode::Community));
    let relayed = Asker { is_relayed: true, ..contact(1) };
    assert_eq!(relay.reserve(&relayed).unwrap_err(), Refusal::Relayed);
    let lease = relay.reserve(&contact(2)).unwrap();
    assert_eq!(relay.connect(&relayed, support::peer(2), lease.token).unwrap_err(), Refusal::Relayed);
}

#[test]
fn reservations_from_a_thousand_addresses_leave_room_for_contacts_and_bounded_memory() {
    let mut relay = Relay::new(settings(RelayMode::Community));
    let (ana, bo) = relay.join(&stranger(1), &stranger(2));
    for number in 0..1000_u32 {
        let [.., third, fourth] = number.to_be_bytes();
        let asker = asker_at(1000 + number, SocketAddr::from(([90, third, fourth, 1], 4000)));
        let answer = relay.reserve(&asker);
        assert!(
            matches!(answer, Ok(_) | Err(Refusal::StampNeeded { .. })),
            "the sixteenth of 32 leases is the last for nothing: {answer:?}"
        );
    }
    let status = relay.service.status();
    assert_eq!(status.community_leases, 16);
    assert!(relay.service.peers(relay.now).len() <= 17, "who was refused is not remembered");
    assert!(relay.reserve(&contact(3)).is_ok(), "contacts have places of their own");
    assert!(relay.reserve(&stranger(2)).is_ok(), "who has a lease keeps it");
    assert!(is_forwarded(relay.send(&ana, &packet()).0) && is_forwarded(relay.send(&bo, &packet()).0));
}

/// A thousand addresses in 125 networks, each with a key of its own, ready to work for as many stamps as the relay asks for. Stamps are
/// small here: what they cost is not the question, but who gets what who pays.
#[test]
fn a_thousand_addresses_that_pay_get_the_places_there_are_hear_the_limits_and_slow_nobody_who_is_there() {
    let mut relay = Relay::new(RelaySettings { stamp_bits: 4, ..settings(RelayMode::Community) });
    let (ana, bo) = relay.join(&stranger(1), &stranger(2));
    let (mut granted, mut full, mut forwarded) = (BTreeMap::<[u8; 3], u32>::new(), 0, 0);
    let mut limits = BTreeSet::new();
    for number in 0..1000_u32 {
        let address = flooder_at(number);
        match reserve_with_stamp(&mut relay, &asker_at(1000 + number, address)) {
            Ok(lease) => {
                limits.insert((
                    lease.limits.flow_bytes_per_s,
                    lease.limits.source_bytes_per_s,
                    lease.limits.flows_max,
                ));
                *granted.entry(network_of(address)).or_default() += 1;
            }
            Err(Refusal::Full { retry_after }) => {
                assert_eq!(retry_after, Duration::from_secs(60), "who is refused hears when to ask again");
                full += 1;
            }
            Err(other) => panic!("{other}"),
        }
        relay.pass(Duration::from_millis(50));
        for side in [&ana, &bo] {
            forwarded += u32::from(is_forwarded(relay.send(side, &packet()).0));
        }
    }
    let leases = relay.service.status().community_leases;
    let most_of_a_network = granted.values().max().copied().unwrap_or(0);
    println!(
        "1000 addresses in 125 networks: {leases} leases stand (Bo's is one), at most {most_of_a_network} in a network, {full} were told \
         that the relay is full; the pair that was there had {forwarded} of 2000 packets forwarded; limits told: {limits:?}"
    );
    assert_eq!((leases, most_of_a_network, full, forwarded), (32, 4, 1000 - 31, 2000));
    assert_eq!(limits, BTreeSet::from([(32_000, 64_000, 4)]), "a new source hears the same as everybody");
    assert!(relay.reserve(&contact(3)).is_ok(), "contacts have places of their own");
    assert!(relay.reserve(&stranger(2)).is_ok(), "who has a lease keeps it");
    let lease = relay.reserve(&stranger(2)).unwrap();
    assert!(relay.connect(&stranger(3), support::peer(2), lease.token).is_ok(), "and can be called");
}

#[test]
fn one_network_gets_four_leases_however_many_keys_it_has() {
    let mut relay = Relay::new(settings(RelayMode::Community));
    let asks = |relay: &mut Relay, host: u8| {
        relay.reserve(&asker_at(u32::from(host), SocketAddr::from(([90, 1, 1, host], 4000))))
    };
    let granted = (1..=20).filter(|host| asks(&mut relay, *host).is_ok()).count();
    assert_eq!(granted, 4);
}

#[test]
fn an_address_that_somebody_left_is_not_flooded_by_a_friend() {
    let mut relay = Relay::new(settings(RelayMode::Contacts));
    let (left, friend) = relay.join(&contact(1), &contact(2));
    relay.send(&left, &packet());
    relay.pass(Duration::from_secs(31));
    assert_eq!(relay.send_many(&friend, 1000), 64, "as many as wake an idle one");
    assert_eq!(relay.send(&friend, &packet()).0, Verdict::Dropped(Dropped::Silent));
    relay.send(&left, &packet());
    assert_eq!(relay.send_many(&friend, 1000), 1000, "it is there after all");
}

#[test]
fn a_caller_without_end_rings_sixteen_times_and_then_once_a_second() {
    let mut relay = Relay::new(settings(RelayMode::Community));
    let lease = relay.reserve(&stranger(2)).unwrap();
    let rings = |relay: &mut Relay| {
        let calls = |relay: &mut Relay| relay.connect(&stranger(1), support::peer(2), lease.token).is_ok();
        (0..100).filter(|_| calls(relay)).count()
    };
    assert_eq!(rings(&mut relay), 16);
    relay.pass(Duration::from_secs(3));
    assert_eq!(rings(&mut relay), 3);
    assert_eq!(relay.service.status().flows, 1);
}

#[test]
fn a_greedy_user_takes_nothing_from_an_honest_one() {
    let mut relay = Relay::new(settings(RelayMode::Community));
    let (ana, _bo) = relay.join(&stranger(1), &stranger(2));
    let (evil, _friend) = relay.join(&stranger(66), &stranger(67));
    for _ in 0..100 {
        for _ in 0..100 {
            relay.send(&evil, &packet());
        }
        relay.pass(Duration::from_millis(50));
        assert!(is_forwarded(relay.send(&ana, &packet()).0));
    }
    let flows: Vec<_> = relay.service.flows().map(|flow| flow.forth.packets).collect();
    assert!(flows[0] == 100 && flows[1] < 10_000, "{flows:?}");
}

/// Judges a batch as the sockets' side of a relay does.
fn judge_together(relay: &mut Relay, from: &[SocketAddr], frames: &[Vec<u8>]) -> Vec<(Verdict, Vec<u8>)> {
    let stride = frames[0].len();
    let mut batch = frames.concat();
    let (mut ahead, mut judged) = (Ahead::default(), Vec::new());
    for (at, from) in from.iter().enumerate() {
        if ahead.is_over() {
            ahead = relay.service.look_ahead(&batch[at * stride..], stride);
        }
        let frame = &mut batch[at * stride..(at + 1) * stride];
        let verdict = relay.service.forward_next(relay.now, Via::Udp(*from), frame, &mut ahead);
        judged.push((verdict, frame.to_vec()));
    }
    judged
}

proptest! {
    #[test]
    fn frames_that_are_looked_at_together_are_judged_as_one_by_one(kinds in prop::collection::vec(0..5_u8, 1..16)) {
        let [mut one_by_one, mut together] = [(), ()].map(|()| Relay::new(settings(RelayMode::Community)));
        let (ana, bo) = one_by_one.join(&stranger(1), &stranger(2));
        together.join(&stranger(1), &stranger(2));
        let mut frames: Vec<Vec<u8>> = Vec::new();
        for kind in &kinds {
            let mut frame = signed(if *kind == 1 { &bo } else { &ana }, &packet());
            match kind {
                2 => *frame.last_mut().unwrap() ^= 1,
                3 => frame[9] ^= 1,
                4 => frame = frames.last().cloned().unwrap_or(frame),
                _ => {}
            }
            frames.push(frame);
        }
        let from: Vec<_> = kinds.iter().map(|kind| if *kind == 1 { bo.at } else { ana.at }).collect();
        let expected: Vec<_> = frames.iter().zip(&from).map(|(frame, from)| {
            let mut frame = frame.clone();
            (one_by_one.service.forward(one_by_one.now, Via::Udp(*from), &mut frame), frame)
        }).collect();
        prop_assert_eq!(judge_together(&mut together, &from, &frames), expected);
    }
}

proptest! {
    /// Whatever is done to a frame of Ana's, Bo receives either exactly what Ana sent, once, or nothing.
    #[test]
    fn nothing_but_what_was_sent_ever_arrives(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 21..100), 1..20),
        tampers in prop::collection::vec((any::<prop::sample::Index>(), 0..5_u8, any::<u16>(), any::<u8>(), any::<bool>()), 0..60),
    ) {
        let mut relay = Relay::new(settings(RelayMode::Community));
        let (ana, bo) = relay.join(&stranger(1), &stranger(2));
        let (evil, _friend) = relay.join(&stranger(66), &stranger(67));
        let frames: Vec<Vec<u8>> = packets
            .iter()
            .map(|packet| { let mut packet = packet.clone(); packet[0] |= 0x40; signed(&ana, &packet) })
            .collect();
        let mut arrived = Vec::new();
        let evil_number = evil.end.vni().value().to_be_bytes();
        for (which, how, at, flip, is_from_ana) in tampers {
            let mut frame = which.get(&frames).clone();
            let at = usize::from(at) % frame.len();
            match how {
                0 => {}
                1 => frame[at] ^= flip,
                2 => frame.truncate(at),
                3 => frame[1..5].copy_from_slice(&evil_number),
                _ => frame.push(flip),
            }
            let from = if is_from_ana { ana.at } else { evil.at };
            if let Verdict::Forward { to, .. } = relay.service.forward(relay.now, Via::Udp(from), &mut frame) {
                prop_assert_eq!(to, Via::Udp(bo.at));
                let Ok(Opened::Packet(packet)) = bo.end.open(&frame) else { panic!("Bo's own frame") };
                arrived.push(packet.to_vec());
            }
            while relay.service.poll_answer().is_some() {}
        }
        let mut sent: Vec<Vec<u8>> = frames.iter().map(|frame| frame[HEAD_BYTES..].to_vec()).collect();
        for packet in arrived {
            let at = sent.iter().position(|sent| *sent == packet);
            prop_assert!(at.is_some(), "it was sent, and did not arrive before");
            sent.remove(at.unwrap());
        }
    }

    #[test]
    fn gibberish_never_panics_nor_leaves_the_relay(bytes: Vec<u8>, number: u32) {
        let mut relay = Relay::new(settings(RelayMode::Community));
        relay.join(&stranger(1), &stranger(2));
        let mut frame = [&[5][..], &number.to_be_bytes(), &bytes].concat();
        let verdict = relay.service.forward(relay.now, Via::Udp(address(MALLORY)), &mut frame);
        prop_assert!(matches!(verdict, Verdict::Dropped(_)));
    }
}

fn is_forwarded(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Forward { .. })
}

/// Where the relay sends what this side sends.
fn sends_to(relay: &mut Relay, from: &support::Side) -> Via {
    match relay.send(from, &packet()).0 {
        Verdict::Forward { to, .. } => to,
        Verdict::Consumed | Verdict::Dropped(_) => panic!("not forwarded"),
    }
}

/// The n-th of the flooders: eight in each network, network after network.
fn flooder_at(number: u32) -> SocketAddr {
    let [network, host] = [number / 8, number % 8].map(|part| u8::try_from(part).unwrap());
    SocketAddr::from(([90, 7, network, host + 1], 4000))
}

fn network_of(address: SocketAddr) -> [u8; 3] {
    let std::net::IpAddr::V4(ip) = address.ip() else { panic!("flooders have IPv4") };
    *ip.octets().first_chunk().unwrap()
}

/// Asks for a lease, and again with a stamp if the relay wants one.
fn reserve_with_stamp(relay: &mut Relay, asker: &Asker) -> Result<Lease, Refusal> {
    let answer = relay.reserve(asker);
    let Err(Refusal::StampNeeded { challenge, bits }) = answer else { return answer };
    let mut search = Search::new(&asker.peer, challenge, bits).unwrap();
    let stamp = std::iter::repeat_with(|| search.step()).find_map(|found| found).unwrap();
    relay.service.handle_reserve(relay.now, asker, support::token_of(asker.peer), Some(stamp))
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
