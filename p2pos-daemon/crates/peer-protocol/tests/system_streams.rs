//! The messages of `/p2pos/signal/1` and `/p2pos/relay/1` on the wire: round trips, limits, truncations, gibberish,
//! and what a newer version may say.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::{
    fmt::Debug,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
};

use bytes::Bytes;
use p2pos_identity::{PeerId, SecretKey};
use p2pos_peer_protocol::{
    Decoder, Hidden, MESSAGE_BYTES_MAX, Message, MessageError, RETRY_AFTER_MS_MAX,
    measure::{MEASURE_TOKENS_MAX, MeasureAnswer, MeasureQuestion},
    relay::{
        LEASE_S_MAX, Receipt, RelayEnding, RelayExchange, RelayFlow, RelayLease, RelayLimits, RelayMessage,
        RelayNotice, RelayRefusal, RelayStamp,
    },
    signal::{
        CANDIDATES_MAX, GuessStart, NatBehaviour, NatReport, PortChoice, Ports, RELAY_ADDRESSES_MAX,
        RELAYS_MAX, RelayPlace, SignalCandidate, SignalCandidateKind, SignalMessage,
    },
};
use proptest::prelude::*;

#[test]
fn the_bytes_of_known_messages_never_change() {
    let open_ok = SignalMessage::OpenOk { round: 7 };
    assert_eq!(&open_ok.encode()[..], b"\x00\x04\x22\x02\x08\x07");
    let candidates = SignalMessage::Candidates(vec![SignalCandidate {
        address: "192.0.2.1:256".parse().unwrap(),
        kind: SignalCandidateKind::Mapped,
    }]);
    let bytes =
        b"\x00\x1a\x0a\x18\x0a\x16\x0a\x12\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\x00\x02\x01\x01\x00\x10\x02";
    assert_eq!(&candidates.encode()[..], bytes);
    let hang_up = RelayMessage::Notice(RelayNotice::HangUp { vni: number(0x0102_0304) });
    assert_eq!(&hang_up.encode()[..], b"\x00\x07\x42\x05\x0d\x04\x03\x02\x01");
    let refuse =
        RelayMessage::Numbered { request: number(9), body: RelayExchange::Refuse(RelayRefusal::NoLease) };
    assert_eq!(&refuse.encode()[..], b"\x00\x06\x08\x09\x3a\x02\x08\x07");
}

#[test]
fn questions_about_a_nat_survive_the_wire_and_their_bytes_never_change() {
    let lifetime = MeasureQuestion::Lifetime { first_token: 0x0102_0304_0506_0708, count: 7 };
    assert_eq!(&lifetime.encode()[..], b"\x00\x0d\x0a\x0b\x09\x08\x07\x06\x05\x04\x03\x02\x01\x10\x07");
    let dial_back = MeasureQuestion::DialBack { token: 1, port: 4_000 };
    for question in [lifetime, dial_back] {
        let bytes = question.encode();
        assert_eq!(MeasureQuestion::decode(&bytes[2..]), Ok(question));
        for end in 3..bytes.len() {
            assert_ne!(MeasureQuestion::decode(&bytes[2..end]), Ok(question), "cut to {end}");
        }
    }
    for is_granted in [true, false] {
        let answer = MeasureAnswer { is_granted };
        assert_eq!(MeasureAnswer::decode(&answer.encode()[2..]), Ok(answer));
    }
    assert_eq!(MeasureQuestion::decode(b""), Ok(MeasureQuestion::Unknown));
}

#[test]
fn a_question_about_no_port_or_too_many_tokens_is_refused() {
    let lifetime = |count: u8| MeasureQuestion::decode(&[0x0a, 2, 0x10, count]);
    assert_eq!(lifetime(MEASURE_TOKENS_MAX), Ok(MeasureQuestion::Lifetime { first_token: 0, count: 8 }));
    assert!(lifetime(MEASURE_TOKENS_MAX + 1).is_err());
    assert!(lifetime(0).is_err());
    assert!(MeasureQuestion::decode(&[0x12, 0]).is_err(), "port 0");
    assert!(MeasureQuestion::decode(&[0x12, 4, 0x10, 0x80, 0x80, 4]).is_err(), "port 65536");
}

#[test]
fn lists_of_the_limit_pass_and_one_more_is_refused() {
    let candidate = b"\x0a\x16\x0a\x12\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\x00\x02\x01\x01\x00\x10\x02";
    let address = b"\x12\x12\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\x00\x02\x01\x01\x00";
    for (tag, entry, max) in [(0x0a, &candidate[..], CANDIDATES_MAX), (0x1a, &address[..], CANDIDATES_MAX)] {
        for (count, is_taken) in [(max, true), (max + 1, false)] {
            let body = wrapped(tag, &entry.repeat(count));
            let read = SignalMessage::decode(&body);
            assert_eq!(read.is_ok(), is_taken, "{tag} {count}");
            assert!(
                is_taken || matches!(read, Err(MessageError::TooMany { found, max: 32, .. }) if found == 33)
            );
        }
    }
    let place = |addresses: usize| {
        let fields =
            [&wrapped(0x0a, peer(1).as_bytes())[..], &address.repeat(addresses), &wrapped(0x1a, &[7; 16])];
        wrapped(0x0a, &fields.concat())
    };
    for (places, addresses, is_taken) in [
        (RELAYS_MAX, RELAY_ADDRESSES_MAX, true),
        (RELAYS_MAX + 1, 1, false),
        (1, RELAY_ADDRESSES_MAX + 1, false),
    ] {
        let body = wrapped(0x42, &place(addresses).repeat(places));
        assert_eq!(SignalMessage::decode(&body).is_ok(), is_taken, "{places} {addresses}");
    }
}

#[test]
fn the_largest_messages_fit() {
    let address = "[2001:db8::1]:65535".parse().unwrap();
    let candidate = SignalCandidate { address, kind: SignalCandidateKind::Manual };
    let place = RelayPlace {
        relay: peer(1),
        addresses: vec![address; RELAY_ADDRESSES_MAX],
        token: Hidden([255; 16]),
    };
    for message in [
        SignalMessage::Candidates(vec![candidate; CANDIDATES_MAX]),
        SignalMessage::Open { round: u32::MAX, addresses: vec![address; CANDIDATES_MAX] },
        SignalMessage::Relays(vec![place; RELAYS_MAX]),
    ] {
        assert!(message.encode().len() <= 2 + MESSAGE_BYTES_MAX);
        assert_eq!(decoded(message.encode()), Ok(Some(message)));
    }
}

#[test]
fn a_list_that_is_too_long_is_cut_by_its_sender() {
    let address: SocketAddr = "192.0.2.1:1".parse().unwrap();
    let open = SignalMessage::Open { round: 1, addresses: vec![address; CANDIDATES_MAX + 1] };
    let cut = SignalMessage::Open { round: 1, addresses: vec![address; CANDIDATES_MAX] };
    assert_eq!(decoded(open.encode()), Ok(Some(cut)));
}

#[test]
fn what_a_newer_version_says_is_passed_over() {
    assert_eq!(SignalMessage::decode(b""), Ok(SignalMessage::Unknown));
    assert_eq!(SignalMessage::decode(b"\xfa\x01\x02\x08\x07"), Ok(SignalMessage::Unknown));
    assert_eq!(RelayMessage::decode(b"\x08\x07\xfa\x01\x02\x08\x07"), Ok(RelayMessage::Unknown));
    let refusal = RelayMessage::decode(b"\x08\x07\x3a\x02\x08\x63").unwrap();
    let other = RelayExchange::Refuse(RelayRefusal::Other);
    assert_eq!(refusal, RelayMessage::Numbered { request: number(7), body: other }, "reason 99");
    let report = SignalMessage::decode(b"\x12\x02\x08\x63").unwrap();
    assert_eq!(report, SignalMessage::NatReport(NatReport::default()), "mapping 99");
}

#[test]
fn requests_without_a_number_flows_without_one_and_missing_fields_are_refused() {
    for (body, field) in [
        (&b"\x3a\x00"[..], "request"),
        (b"\x32\x00", "incoming.from"),
        (b"\x42\x00", "vni"),
        (b"\x4a\x00", "vni"),
        (b"\x08\x01\x12\x00", "reserve.token"),
        (b"\x08\x01\x1a\x00", "limits"),
        (b"\x08\x01\x22\x00", "connect.peer"),
        (b"\x08\x01\x2a\x00", "vni"),
        (b"\x08\x01\x3a\x02\x08\x06", "refuse.challenge"),
    ] {
        assert_eq!(RelayMessage::decode(body), Err(MessageError::Field { field }), "{body:?}");
    }
    assert_eq!(
        SignalMessage::decode(b"\x12\x04\x18\x80\x80\x04"),
        Err(MessageError::Field { field: "delta" })
    );
    let empty_range = SignalMessage::decode(b"\x12\x06\x22\x04\x08\x09\x10\x08");
    assert_eq!(empty_range, Err(MessageError::Field { field: "range" }));
    assert_eq!(RelayMessage::decode(b"\x0a\xff"), Err(MessageError::Malformed));
}

#[test]
fn no_relay_can_ask_for_more_than_an_hour_of_silence_or_promise_more_than_a_day() {
    let full = RelayRefusal::Full { retry_after_ms: u32::MAX };
    let message = RelayMessage::Numbered { request: number(1), body: RelayExchange::Refuse(full) };
    let Ok(Some(RelayMessage::Numbered { body: RelayExchange::Refuse(read), .. })) =
        decoded(message.encode())
    else {
        panic!("a refusal")
    };
    assert_eq!(read, RelayRefusal::Full { retry_after_ms: RETRY_AFTER_MS_MAX });
    let lease = RelayLease { lasts_s: u32::MAX, limits: limits(), seen: "192.0.2.1:1".parse().unwrap() };
    let message = RelayMessage::Numbered { request: number(1), body: RelayExchange::Lease(lease) };
    let Ok(Some(RelayMessage::Numbered { body: RelayExchange::Lease(read), .. })) = decoded(message.encode())
    else {
        panic!("a lease")
    };
    assert_eq!(read.lasts_s, LEASE_S_MAX);
}

#[test]
fn neither_keys_nor_tokens_are_printed() {
    let flow =
        RelayFlow { vni: number(1), key: Hidden([0xab; 16]), accept: Hidden([0xcd; 8]), limits: limits() };
    let shown = format!("{flow:?}");
    assert!(!shown.contains("171") && !shown.contains("205") && shown.contains("Hidden(..)"), "{shown}");
}

#[test]
fn a_receipt_is_good_as_its_user_signed_it_and_in_no_other_form() {
    let user = SecretKey::from_seed([1; 32]);
    let receipt = Receipt::sign(&user, peer(2), 1 << 40, 20_000);
    assert_eq!(receipt.verify(), Ok(()));
    let message = RelayMessage::Notice(RelayNotice::Receipt(Box::new(receipt)));
    let whole = message.encode();
    for at in 4..whole.len() {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1;
        if let Ok(Some(RelayMessage::Notice(RelayNotice::Receipt(read)))) = decoded(bytes.into()) {
            assert!(read.verify().is_err(), "byte {at}");
        }
    }
}

proptest! {
    #[test]
    fn every_signal_survives_any_cutting(message in any_signal(), step in 1..50_usize) {
        prop_assert_eq!(cut_up(&message, step), Some(message));
    }

    #[test]
    fn every_relay_message_survives_any_cutting(message in any_relay(), step in 1..50_usize) {
        prop_assert_eq!(cut_up(&message, step), Some(message));
    }

    #[test]
    fn no_truncation_of_a_message_reads_as_a_whole_one(message in any_relay(), cut: prop::sample::Index) {
        let whole = message.encode();
        let cut = cut.index(whole.len());
        prop_assert_eq!(decoded::<RelayMessage>(whole.slice(..cut)), Ok(None));
    }

    #[test]
    fn gibberish_never_panics(bytes: Vec<u8>) {
        SignalMessage::decode(&bytes).ok();
        RelayMessage::decode(&bytes).ok();
    }

    #[test]
    fn what_is_read_from_damaged_bytes_can_be_written_and_reads_the_same(message in any_signal(), at: prop::sample::Index, flip in 1..=255_u8) {
        let mut bytes = message.encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(Some(read)) = decoded::<SignalMessage>(bytes.into()) {
            prop_assert_eq!(decoded(read.encode()), Ok(Some(read)));
        }
    }
}

fn cut_up<M: Message>(message: &M, step: usize) -> Option<M> {
    let mut decoder = Decoder::new();
    message.encode().chunks(step).find_map(|piece| decoder.feed(&mut Bytes::copy_from_slice(piece)).unwrap())
}

fn decoded<M: Message + Debug>(mut bytes: Bytes) -> Result<Option<M>, MessageError> {
    Decoder::new().feed(&mut bytes)
}

/// A protobuf field of bytes; lengths up to 16 KiB.
fn wrapped(tag: u8, body: &[u8]) -> Vec<u8> {
    let low = u8::try_from(body.len() % 128).unwrap();
    let high = u8::try_from(body.len() / 128).unwrap();
    let length = if high == 0 { vec![low] } else { vec![low | 0x80, high] };
    [&[tag][..], &length, body].concat()
}

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn peer(seed: u8) -> PeerId {
    SecretKey::from_seed([seed; 32]).peer_id()
}

fn limits() -> RelayLimits {
    RelayLimits {
        flow_bytes_per_s: 32_000,
        flow_burst_bytes: 4 << 20,
        source_bytes_per_s: 64_000,
        day_bytes_left: Some(0),
        flows_max: 4,
        is_introduction_only: true,
    }
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    // From 1: `::ffff:a.b.c.d` reads as IPv4, so no IPv6 address of that form comes back as it went.
    (any::<u32>(), any::<u64>(), any::<u16>(), any::<bool>()).prop_map(|(v4, v6, port, is_v4)| {
        let ip = if is_v4 {
            IpAddr::from(v4.to_be_bytes())
        } else {
            IpAddr::from((1_u128 << 127 | u128::from(v6)).to_be_bytes())
        };
        SocketAddr::new(ip, port)
    })
}

fn any_kind() -> impl Strategy<Value = SignalCandidateKind> {
    prop_oneof![
        Just(SignalCandidateKind::Host),
        Just(SignalCandidateKind::Mapped),
        Just(SignalCandidateKind::Observed),
        Just(SignalCandidateKind::Relayed),
        Just(SignalCandidateKind::Manual),
    ]
}

fn any_behaviour() -> impl Strategy<Value = Option<NatBehaviour>> {
    prop_oneof![
        Just(None),
        Just(Some(NatBehaviour::EndpointIndependent)),
        Just(Some(NatBehaviour::AddressDependent)),
        Just(Some(NatBehaviour::AddressAndPortDependent)),
    ]
}

fn any_ports() -> impl Strategy<Value = Ports> {
    (1..=u16::MAX, any::<u16>())
        .prop_map(|(first, more)| Ports::new(first, first.saturating_add(more)).unwrap())
}

fn any_report() -> impl Strategy<Value = NatReport> {
    let kinds = (any_behaviour(), any_behaviour(), prop::option::of(any_ports()));
    let step = prop::option::of(prop_oneof![i16::MIN..=-1, 1..=i16::MAX]);
    let numbers = (step, any::<Option<u8>>(), prop::option::of(1..=u16::MAX));
    let facts = (any::<Option<bool>>(), any::<bool>(), any::<Option<bool>>(), any::<bool>());
    (kinds, numbers, facts).prop_map(
        |(
            (mapping, filtering, range),
            (delta, ttl_layers, lifetime_s),
            (hairpin, mapped, collides, udp_blocked),
        )| {
            NatReport {
                mapping,
                filtering,
                delta,
                range,
                ttl_layers,
                lifetime_s,
                hairpin,
                mapped,
                collides,
                udp_blocked,
            }
        },
    )
}

fn any_guess() -> impl Strategy<Value = GuessStart> {
    let choice = prop_oneof![
        Just(PortChoice::Unknown),
        Just(PortChoice::Random),
        any_ports().prop_map(PortChoice::Block),
        (1..=i16::MAX).prop_map(PortChoice::Steps),
    ];
    (any::<u32>(), any::<u64>(), any_address(), choice, any::<u16>()).prop_map(
        |(attempt, token, at, choice, sockets)| GuessStart {
            attempt,
            token,
            address: at.ip(),
            base_port: at.port(),
            choice,
            sockets,
        },
    )
}

fn any_signal() -> impl Strategy<Value = SignalMessage> {
    let candidate = (any_address(), any_kind()).prop_map(|(address, kind)| SignalCandidate { address, kind });
    let place =
        (0..4_u8, prop::collection::vec(any_address(), 0..=RELAY_ADDRESSES_MAX), any::<[u8; 16]>()).prop_map(
            |(seed, addresses, token)| RelayPlace { relay: peer(seed), addresses, token: Hidden(token) },
        );
    prop_oneof![
        prop::collection::vec(candidate, 0..=CANDIDATES_MAX).prop_map(SignalMessage::Candidates),
        any_report().prop_map(SignalMessage::NatReport),
        (any::<u32>(), prop::collection::vec(any_address(), 0..=CANDIDATES_MAX))
            .prop_map(|(round, addresses)| SignalMessage::Open { round, addresses }),
        any::<u32>().prop_map(|round| SignalMessage::OpenOk { round }),
        any_guess().prop_map(SignalMessage::GuessStart),
        any::<u32>().prop_map(|attempt| SignalMessage::GuessHit { attempt }),
        any::<(u32, bool)>().prop_map(|(path, available)| SignalMessage::Status { path, available }),
        prop::collection::vec(place, 0..=RELAYS_MAX).prop_map(SignalMessage::Relays),
    ]
}

fn any_limits() -> impl Strategy<Value = RelayLimits> {
    let left = prop::option::of(0..u64::MAX);
    (any::<(u64, u64, u64)>(), left, any::<u16>(), any::<bool>()).prop_map(
        |(
            (flow_bytes_per_s, flow_burst_bytes, source_bytes_per_s),
            day_bytes_left,
            flows_max,
            is_introduction_only,
        )| {
            RelayLimits {
                flow_bytes_per_s,
                flow_burst_bytes,
                source_bytes_per_s,
                day_bytes_left,
                flows_max,
                is_introduction_only,
            }
        },
    )
}

fn any_flow() -> impl Strategy<Value = RelayFlow> {
    (1..=u32::MAX, any::<[u8; 16]>(), any::<[u8; 8]>(), any_limits()).prop_map(
        |(vni, key, accept, limits)| RelayFlow {
            vni: number(vni),
            key: Hidden(key),
            accept: Hidden(accept),
            limits,
        },
    )
}

fn any_exchange() -> impl Strategy<Value = RelayExchange> {
    let stamp = any::<([u8; 8], u64)>().prop_map(|(challenge, nonce)| RelayStamp { challenge, nonce });
    let lease = (0..=LEASE_S_MAX, any_limits(), any_address())
        .prop_map(|(lasts_s, limits, seen)| RelayLease { lasts_s, limits, seen });
    let refusal = prop_oneof![
        Just(RelayRefusal::NotServed),
        Just(RelayRefusal::OverARelay),
        Just(RelayRefusal::Address),
        (0..=RETRY_AFTER_MS_MAX).prop_map(|retry_after_ms| RelayRefusal::Full { retry_after_ms }),
        Just(RelayRefusal::TooManyFlows),
        any::<([u8; 8], u8)>().prop_map(|(challenge, bits)| RelayRefusal::StampNeeded { challenge, bits }),
        Just(RelayRefusal::NoLease),
        Just(RelayRefusal::Draining),
        Just(RelayRefusal::NoFlow),
        Just(RelayRefusal::Other),
    ];
    prop_oneof![
        (any::<[u8; 16]>(), prop::option::of(stamp))
            .prop_map(|(token, stamp)| RelayExchange::Reserve { token: Hidden(token), stamp }),
        lease.prop_map(RelayExchange::Lease),
        (0..4_u8, any::<[u8; 16]>())
            .prop_map(|(seed, token)| RelayExchange::Connect { peer: peer(seed), token: Hidden(token) }),
        any_flow().prop_map(RelayExchange::Flow),
        refusal.prop_map(RelayExchange::Refuse),
    ]
}

fn any_relay() -> impl Strategy<Value = RelayMessage> {
    let why = prop_oneof![
        Just(RelayEnding::HungUp),
        Just(RelayEnding::Idle),
        Just(RelayEnding::Drained),
        Just(RelayEnding::Replaced),
        Just(RelayEnding::NotServed),
        Just(RelayEnding::Other),
    ];
    let receipt = (any::<u64>(), any::<u32>()).prop_map(|(bytes, day)| {
        Box::new(Receipt::sign(&SecretKey::from_seed([1; 32]), peer(2), bytes, day))
    });
    let notice = prop_oneof![
        (0..4_u8, any_flow()).prop_map(|(seed, flow)| RelayNotice::Incoming { from: peer(seed), flow }),
        (1..=u32::MAX).prop_map(|vni| RelayNotice::HangUp { vni: number(vni) }),
        (1..=u32::MAX, why).prop_map(|(vni, why)| RelayNotice::Ended { vni: number(vni), why }),
        (0..=RETRY_AFTER_MS_MAX).prop_map(|grace_ms| RelayNotice::Drain { grace_ms }),
        any_limits().prop_map(RelayNotice::Limits),
        receipt.prop_map(RelayNotice::Receipt),
    ];
    prop_oneof![
        (1..=u32::MAX, any_exchange())
            .prop_map(|(request, body)| RelayMessage::Numbered { request: number(request), body }),
        notice.prop_map(RelayMessage::Notice),
    ]
}
