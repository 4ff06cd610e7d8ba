//! The relay's service in virtual time: leases, calls, limits, roaming, draining, accounting.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::time::Duration;

use p2pos_relay::{
    Class, Dropped, FlowEnding, LEASE_TIME, Notice, Opened, Rate, Refusal, RelayMode, RelaySettings, Search,
    Service, ServiceEvent, Tariff, Verdict, Via,
};

use support::{Relay, contact, packet, peer, settings, signed, stranger};

#[test]
fn a_packet_reaches_the_other_side_as_it_was_and_bears_that_sides_marks() {
    let mut relay = Relay::new(settings(RelayMode::Contacts));
    let (ana, bo) = relay.join(&contact(1), &contact(2));
    let (verdict, frame) = relay.send(&ana, &packet());
    let Verdict::Forward { to, flow, class } = verdict else { panic!("{verdict:?}") };
    assert_eq!((to, flow, class), (Via::Udp(bo.at), bo.end.vni(), Class::Signalling));
    assert!(matches!(bo.end.open(&frame), Ok(Opened::Packet(read)) if read == packet()));
    let (back, frame) = relay.send(&bo, &packet());
    assert!(matches!(back, Verdict::Forward { to, .. } if to == Via::Udp(ana.at)));
    assert!(matches!(ana.end.open(&frame), Ok(Opened::Packet(read)) if read == packet()));
}

#[test]
fn nobody_is_served_unless_the_owner_said_so_and_strangers_only_in_community_mode() {
    for (mode, asker, is_served) in [
        (RelayMode::Off, contact(1), false),
        (RelayMode::Contacts, contact(1), true),
        (RelayMode::Contacts, stranger(1), false),
        (RelayMode::Community, stranger(1), true),
    ] {
        let lease = Relay::new(settings(mode)).reserve(&asker);
        assert_eq!(lease.is_ok(), is_served, "{mode}");
        assert!(is_served || lease == Err(Refusal::NotServed));
    }
}

#[test]
fn nobody_is_called_without_a_lease_its_token_and_a_connection() {
    let mut relay = Relay::new(settings(RelayMode::Community));
    let no_lease = Err(Refusal::NoLease);
    assert_eq!(relay.connect(&stranger(1), peer(2), [0; 16]).map(drop), no_lease);
    let lease = relay.reserve(&stranger(2)).unwrap();
    assert_eq!(relay.connect(&stranger(1), peer(2), [0; 16]).map(drop), no_lease, "a wrong token");
    assert_eq!(relay.connect(&stranger(2), peer(2), lease.token).map(drop), no_lease, "oneself");
    relay.service.handle_gone(relay.now, peer(2));
    assert_eq!(relay.connect(&stranger(1), peer(2), lease.token).map(drop), no_lease, "gone");
    assert_eq!(relay.reserve(&stranger(2)).unwrap().token, lease.token, "who returns keeps the token");
    assert!(relay.connect(&stranger(1), peer(2), lease.token).is_ok());
}

#[test]
fn a_lease_ends_after_its_hour_unless_it_is_renewed() {
    let mut relay = Relay::new(settings(RelayMode::Community));
    let lease = relay.reserve(&stranger(2)).unwrap();
    assert_eq!(lease.lasts, LEASE_TIME);
    relay.pass(LEASE_TIME / 2);
    relay.reserve(&stranger(2)).unwrap();
    relay.pass(LEASE_TIME * 9 / 10);
    assert_eq!(relay.service.status().community_leases, 1);
    relay.pass(LEASE_TIME / 5);
    assert_eq!(relay.service.status().community_leases, 0);
    assert_eq!(relay.service.poll_timeout(), None, "an empty relay sets no timer");
}

#[test]
fn a_lease_of_somebody_who_went_away_waits_a_minute() {
    let mut relay = Relay::new(settings(RelayMode::Community));
    relay.reserve(&stranger(2)).unwrap();
    relay.service.handle_gone(relay.now, peer(2));
    relay.pass(Duration::from_secs(50));
    assert_eq!(relay.service.status().community_leases, 1);
    relay.pass(Duration::from_secs(20));
    assert_eq!(relay.service.status().community_leases, 0);
}

#[test]
fn who_takes_leave_leaves_places_to_others_and_the_other_side_is_told() {
    let mut relay = Relay::new(settings(RelayMode::Community));
    let (_caller, callee) = relay.join(&stranger(1), &stranger(2));
    relay.service.handle_left(peer(1));
    assert_eq!((relay.service.status().community_leases, relay.service.status().flows), (1, 0));
    let is_told = |event| match event {
        ServiceEvent::Tell { peer: told, notice: Notice::Ended { vni, why } } => {
            (told, vni, why) == (peer(2), callee.end.vni(), FlowEnding::HungUp)
        }
        ServiceEvent::Tell { .. }
        | ServiceEvent::MonthWarning { .. }
        | ServiceEvent::MonthUsedUp { .. }
        | ServiceEvent::Drained => false,
    };
    assert!(std::iter::from_fn(|| relay.service.poll_event()).any(is_told));
    relay.service.handle_left(peer(2));
    assert_eq!(relay.service.status().community_leases, 0);
    relay.service.handle_left(peer(2));
}

#[test]
fn a_contacts_guest_may_call_and_the_contact_pays() {
    let mut relay = Relay::new(settings(RelayMode::Contacts));
    let (guest, _) = relay.join(&stranger(1), &contact(2));
    assert!(matches!(relay.send(&guest, &packet()).0, Verdict::Forward { .. }));
    let peers = relay.service.peers(relay.now);
    assert_eq!(peers.len(), 1, "the guest has no account");
    assert_eq!((peers[0].peer, peers[0].bytes), (peer(2), 1217));
}

#[test]
fn limits_are_told_in_every_answer() {
    let mut relay = Relay::new(settings(RelayMode::Community));
    let lease = relay.reserve(&stranger(2)).unwrap();
    assert_eq!((lease.limits.flow_bytes_per_s, lease.limits.flow_burst_bytes), (32_000, 4 << 20));
    assert_eq!(lease.limits.day_bytes_left, Some(64 << 20));
    let flow = relay.connect(&stranger(1), peer(2), lease.token).unwrap();
    assert_eq!(flow.limits.source_bytes_per_s, 64_000);
    let of_contact = relay.reserve(&contact(3)).unwrap().limits;
    assert_eq!((of_contact.flow_bytes_per_s, of_contact.day_bytes_left), (250_000, None));
}

#[test]
fn a_strangers_flow_has_its_burst_and_then_its_rate() {
    let mut relay = Relay::new(settings(RelayMode::Community));
    let (ana, _bo) = relay.join(&stranger(1), &stranger(2));
    let burst = relay.send_many(&ana, 100_000);
    // 4 MiB of the flow's burst, and what passes as signalling beside it: 64 KiB, at 1,217 bytes a frame.
    assert!((3_440..=3_560).contains(&burst), "{burst}");
    relay.pass(Duration::from_secs(10));
    let later = relay.send_many(&ana, 100_000);
    // Ten seconds at 32,000 bytes, and at 1,000 for signalling.
    assert!((255..=290).contains(&later), "{later}");
    let drops = relay.service.status().dropped;
    assert_eq!(drops[Dropped::FlowRate.index()], 2);
}

#[test]
fn the_days_share_ends_and_begins_anew_and_signalling_passes_meanwhile() {
    let mut relay = Relay::new(RelaySettings {
        community: Tariff { flow: wide(), source: wide(), ..Tariff::community() },
        ..settings(RelayMode::Community)
    });
    let (ana, _bo) = relay.join(&stranger(1), &stranger(2));
    let passed = relay.send_many(&ana, 100_000);
    assert_eq!(passed, (64 << 20) / 1217, "64 MiB of frames");
    assert!(matches!(relay.send(&ana, &packet()).0, Verdict::Dropped(Dropped::DayShare)));
    relay.pass(Duration::from_secs(30));
    assert!(matches!(relay.send(&ana, &packet()).0, Verdict::Forward { class: Class::Signalling, .. }));
    let told = relay.reserve(&stranger(1)).unwrap().limits;
    assert!(told.is_introduction_only && told.day_bytes_left == Some(0));

    relay.pass(Duration::from_secs(24 * 3600));
    let (ana, _bo) = relay.join(&stranger(1), &stranger(2));
    assert_eq!(relay.send_many(&ana, 100_000), (64 << 20) / 1217, "a new day, a new share");
}

#[test]
fn a_second_key_at_the_same_address_has_no_second_share() {
    let mut relay = Relay::new(RelaySettings {
        community: Tariff { flow: wide(), source: wide(), ..Tariff::community() },
        ..settings(RelayMode::Community)
    });
    let (ana, _bo) = relay.join(&stranger(1), &stranger(2));
    relay.send_many(&ana, 100_000);
    let twin = support::asker_at(99, "8.8.1.200:5000".parse().unwrap());
    let (twin, _bo) = relay.join(&twin, &stranger(2));
    assert_eq!(relay.send_many(&twin, 100_000), 0);
}

#[test]
fn who_relayed_for_us_has_a_double_share_that_day() {
    let mut relay = Relay::new(settings(RelayMode::Community));
    relay.reserve(&stranger(1)).unwrap();
    relay.service.handle_receipt(relay.now, peer(1));
    let prefix_share = relay.reserve(&stranger(1)).unwrap().limits.day_bytes_left;
    assert_eq!(prefix_share, Some(64 << 20), "its neighbours' share stays, and bounds it");
    relay.reserve(&contact(3)).unwrap();
    relay.service.handle_receipt(relay.now, peer(9));
    assert_eq!(relay.service.peers(relay.now).len(), 2, "a receipt of an unknown opens no account");
}

#[test]
fn a_full_relay_still_introduces_and_says_that_it_does_no_more() {
    let mut relay = Relay::new(RelaySettings {
        community: Tariff { flows_max: 1, ..Tariff::community() },
        ..settings(RelayMode::Community)
    });
    let (_a, first) = relay.join(&stranger(1), &stranger(2));
    let lease = relay.reserve(&stranger(3)).unwrap();
    let flow = relay.connect(&stranger(4), peer(3), lease.token).unwrap();
    assert!(flow.limits.is_introduction_only);
    let side = support::side(&stranger(4), &flow);
    let passed = relay.send_many(&side, 1000);
    assert!((50..=54).contains(&passed), "64 KiB of handshakes and candidates: {passed}");
    assert!(matches!(relay.send(&side, &packet()).0, Verdict::Dropped(Dropped::Introduction)));

    relay.service.handle_hang_up(peer(2), first.end.vni()).unwrap();
    relay.pass(Duration::from_secs(6));
    assert_eq!(relay.service.status().introductions, 0, "a place became free");
    assert!(relay.send_many(&side, 1000) == 1000);
}

#[test]
fn a_busy_relay_lets_interactive_go_before_bulk_and_signalling_before_both() {
    // All together may send 100,000 bytes at once; one greedy flow drains what bulk may have of it.
    let mut relay =
        Relay::new(RelaySettings { total: Rate::new(1, 100_000), ..settings(RelayMode::Contacts) });
    let (greedy, _) = relay.join(&contact(1), &contact(2));
    let taken = relay.send_many(&greedy, 1000) * 1217;
    assert!((58_000..=86_000).contains(&taken), "{taken}");
    assert!(matches!(relay.send(&greedy, &packet()).0, Verdict::Dropped(Dropped::TotalRate)));
    let (shy, _) = relay.join(&contact(3), &contact(4));
    assert!(matches!(relay.send(&shy, &packet()).0, Verdict::Forward { class: Class::Signalling, .. }));
}

#[test]
fn the_months_limit_is_warned_of_and_never_passed() {
    let mut relay =
        Relay::new(RelaySettings { month_bytes_max: Some(1_000_000), ..settings(RelayMode::Contacts) });
    let (ana, bo) = relay.join(&contact(1), &contact(2));
    let passed = relay.send_many(&ana, 10_000) + relay.send_many(&bo, 10_000);
    let events: Vec<_> = std::iter::from_fn(|| relay.service.poll_event()).collect();
    assert!(
        matches!(&events[..], [ServiceEvent::MonthWarning { used, max: 1_000_000 }, ServiceEvent::MonthUsedUp { .. }] if (800_000..802_000).contains(used)),
        "{events:?}"
    );
    relay.pass(Duration::from_secs(100));
    relay.send_many(&ana, 10_000);
    relay.send_many(&bo, 10_000);
    let status = relay.service.status();
    assert!(passed * 1217 >= 980_000 && status.month_bytes <= 1_000_000, "{status:?}");
    assert!(status.dropped[Dropped::Month.index()] > 0);
    relay.service.handle_month_started();
    assert!(relay.send_many(&ana, 10) == 10);
}

#[test]
fn a_month_that_was_used_up_before_a_restart_stays_used_up() {
    let settings = RelaySettings { month_bytes_max: Some(1000), ..settings(RelayMode::Contacts) };
    let start = Relay::new(settings).now;
    let mut service = Service::new(start, settings, [7; 16], 1000);
    assert!(matches!(service.poll_event(), Some(ServiceEvent::MonthWarning { used: 1000, max: 1000 })));
    assert!(matches!(service.poll_event(), Some(ServiceEvent::MonthUsedUp { max: 1000 })));
}

#[test]
fn a_side_that_moves_keeps_sending_and_receives_after_one_proof() {
    let mut relay = Relay::new(settings(RelayMode::Contacts));
    let (mut ana, bo) = relay.join(&contact(1), &contact(2));
    let old = ana.at;
    ana.at = "9.9.9.9:999".parse().unwrap();
    assert!(
        matches!(relay.send(&ana, &packet()).0, Verdict::Forward { .. }),
        "nothing is lost on the way out"
    );
    assert!(matches!(relay.send(&bo, &packet()).0, Verdict::Forward { to, .. } if to == Via::Udp(old)));
    let asked = relay.settle(&ana);
    assert_eq!(asked, [ana.at, ana.at, old], "challenge, answer, and a question at the old address");
    assert!(matches!(relay.send(&bo, &packet()).0, Verdict::Forward { to, .. } if to == Via::Udp(ana.at)));
}

#[test]
fn a_silent_side_announces_its_new_address_by_itself() {
    let mut relay = Relay::new(settings(RelayMode::Contacts));
    let (mut ana, bo) = relay.join(&contact(1), &contact(2));
    ana.at = "9.9.9.9:999".parse().unwrap();
    let bind = ana.end.bind().unwrap();
    assert_eq!(relay.service.forward(relay.now, Via::Udp(ana.at), &mut bind.to_vec()), Verdict::Consumed);
    relay.settle(&ana);
    assert!(matches!(relay.send(&bo, &packet()).0, Verdict::Forward { to, .. } if to == Via::Udp(ana.at)));
}

#[test]
fn a_flow_moves_to_a_tcp_connection_in_the_same_way() {
    let mut relay = Relay::new(settings(RelayMode::Contacts));
    let (ana, bo) = relay.join(&contact(1), &contact(2));
    let tcp = Via::Tcp(5);
    relay.service.forward(relay.now, tcp, &mut ana.end.bind().unwrap().to_vec());
    let (to, challenge) = relay.service.poll_answer().unwrap();
    assert_eq!(to, tcp);
    let Ok(Opened::Answer(proof)) = ana.end.open(&challenge) else { panic!("a challenge") };
    relay.service.forward(relay.now, tcp, &mut proof.to_vec());
    assert!(matches!(relay.send(&bo, &packet()).0, Verdict::Forward { to, .. } if to == tcp));
}

#[test]
fn hanging_up_ends_the_flow_for_both_and_tells_the_other() {
    let mut relay = Relay::new(settings(RelayMode::Contacts));
    let (ana, bo) = relay.join(&contact(1), &contact(2));
    assert_eq!(relay.service.handle_hang_up(peer(3), ana.end.vni()), Err(Refusal::NoFlow), "not theirs");
    relay.service.handle_hang_up(peer(2), bo.end.vni()).unwrap();
    let told = relay.notices(peer(1));
    assert!(
        matches!(told[..], [Notice::Ended { vni, why: FlowEnding::HungUp }] if vni == ana.end.vni()),
        "{told:?}"
    );
    assert!(matches!(relay.send(&ana, &packet()).0, Verdict::Dropped(Dropped::NoFlow)));
    assert_eq!(relay.service.handle_hang_up(peer(2), bo.end.vni()), Err(Refusal::NoFlow), "not twice");
}

#[test]
fn a_new_flow_of_the_same_caller_takes_the_old_ones_place() {
    let mut relay = Relay::new(settings(RelayMode::Contacts));
    let (old, _) = relay.join(&contact(1), &contact(2));
    let (new, _) = relay.join(&contact(1), &contact(2));
    assert_ne!(old.end.vni(), new.end.vni());
    assert_eq!(relay.service.status().flows, 1);
    assert!(matches!(relay.send(&old, &packet()).0, Verdict::Dropped(Dropped::NoFlow)));
}

#[test]
fn a_flow_that_carries_nothing_ends_after_five_minutes_and_one_that_does_stays() {
    let mut relay = Relay::new(settings(RelayMode::Contacts));
    let (ana, _) = relay.join(&contact(1), &contact(2));
    let (cy, _) = relay.join(&contact(3), &contact(4));
    for _ in 0..4 {
        relay.pass(Duration::from_secs(240));
        relay.send(&ana, &packet());
    }
    assert!(matches!(relay.send(&ana, &packet()).0, Verdict::Forward { .. }));
    assert!(matches!(relay.send(&cy, &packet()).0, Verdict::Dropped(Dropped::NoFlow)));
    assert!(matches!(relay.notices(cy.peer)[..], [Notice::Ended { why: FlowEnding::Idle, .. }]));
}

#[test]
fn a_drain_tells_everybody_forwards_through_its_grace_and_then_ends() {
    let mut relay = Relay::new(settings(RelayMode::Contacts));
    let (ana, bo) = relay.join(&contact(1), &contact(2));
    let grace = Duration::from_secs(10);
    relay.service.handle_drain(relay.now, grace);
    let events: Vec<_> = std::iter::from_fn(|| relay.service.poll_event()).collect();
    let told = |who| {
        events.iter().any(|event| matches!(event, ServiceEvent::Tell { peer, notice: Notice::Drain { .. } } if *peer == who))
    };
    assert!(told(ana.peer) && told(bo.peer));
    assert_eq!(relay.reserve(&contact(3)).unwrap_err(), Refusal::Draining);
    relay.pass(grace / 2);
    assert!(matches!(relay.send(&ana, &packet()).0, Verdict::Forward { .. }));
    relay.pass(grace / 2);
    assert!(matches!(relay.send(&ana, &packet()).0, Verdict::Dropped(Dropped::NoFlow)));
    let ends: Vec<_> = std::iter::from_fn(|| relay.service.poll_event()).collect();
    assert!(matches!(ends.last(), Some(ServiceEvent::Drained)), "{ends:?}");
    assert_eq!(relay.service.poll_timeout(), None);
}

#[test]
fn a_drain_without_flows_is_over_at_once() {
    let mut relay = Relay::new(settings(RelayMode::Contacts));
    relay.reserve(&contact(1)).unwrap();
    relay.service.handle_drain(relay.now, Duration::from_secs(600));
    relay.pass(Duration::ZERO);
    let events: Vec<_> = std::iter::from_fn(|| relay.service.poll_event()).collect();
    assert!(matches!(events[..], [ServiceEvent::Tell { .. }, ServiceEvent::Drained]), "{events:?}");
}

#[test]
fn who_is_no_longer_served_loses_lease_and_flows() {
    let mut relay = Relay::new(settings(RelayMode::Community));
    let (ana, _) = relay.join(&stranger(1), &stranger(2));
    let (cy, _) = relay.join(&contact(3), &contact(4));
    relay.service.handle_settings(settings(RelayMode::Contacts));
    assert!(matches!(relay.send(&ana, &packet()).0, Verdict::Dropped(Dropped::NoFlow)));
    assert!(matches!(relay.send(&cy, &packet()).0, Verdict::Forward { .. }));
    assert_eq!(relay.service.status().community_leases, 0);
}

#[test]
fn bytes_are_counted_for_each_flow_each_user_and_in_all() {
    let mut relay = Relay::new(settings(RelayMode::Contacts));
    let (ana, bo) = relay.join(&contact(1), &contact(2));
    relay.send(&ana, &packet());
    relay.send(&ana, &packet());
    relay.send(&bo, &packet());
    let flow = relay.service.flows().next().unwrap();
    assert_eq!((flow.caller.0, flow.forth.bytes, flow.forth.packets), (peer(1), 2434, 2));
    assert_eq!((flow.callee.0, flow.back.bytes, flow.back.packets), (peer(2), 1217, 1));
    let used: Vec<_> = relay.service.peers(relay.now).iter().map(|used| (used.peer, used.bytes)).collect();
    assert_eq!(used, [(peer(1), 2434), (peer(2), 1217)]);
    assert_eq!(relay.service.status().forwarded.bytes, 3651);
}

#[test]
fn a_stranger_pays_with_work_once_the_relay_is_half_full_and_contacts_never_do() {
    let mut relay = Relay::new(RelaySettings {
        community: Tariff { leases_max: 2, ..Tariff::community() },
        stamp_bits: 12,
        ..settings(RelayMode::Community)
    });
    relay.reserve(&stranger(1)).unwrap();
    let Err(Refusal::StampNeeded { challenge, bits }) = relay.reserve(&stranger(2)) else {
        panic!("a stamp")
    };
    assert!(relay.reserve(&stranger(1)).is_ok(), "who has a lease renews it for nothing");
    assert!(relay.reserve(&contact(3)).is_ok());
    let mut search = Search::new(&peer(2), challenge, bits).unwrap();
    let stamp = std::iter::repeat_with(|| search.step()).find_map(|found| found).unwrap();
    let token = support::token_of(peer(1));
    let mut pays = |asker| relay.service.handle_reserve(relay.now, &asker, token, Some(stamp));
    assert!(matches!(pays(stranger(4)), Err(Refusal::StampNeeded { .. })), "a stamp of somebody else");
    assert!(pays(stranger(2)).is_ok());
    assert!(matches!(pays(stranger(5)), Err(Refusal::Full { .. })));
    relay.pass(Duration::from_secs(3600 * 2));
    relay.reserve(&stranger(1)).unwrap();
    let late = relay.service.handle_reserve(relay.now, &stranger(2), token, Some(stamp));
    assert!(matches!(late, Err(Refusal::StampNeeded { .. })), "yesterday's stamp");
}

#[test]
fn a_frame_signed_twice_is_two_frames() {
    let mut relay = Relay::new(settings(RelayMode::Contacts));
    let (ana, _) = relay.join(&contact(1), &contact(2));
    for _ in 0..2 {
        let mut frame = signed(&ana, &packet());
        let verdict = relay.service.forward(relay.now, Via::Udp(ana.at), &mut frame);
        assert!(matches!(verdict, Verdict::Forward { .. }));
    }
}

fn wide() -> Rate {
    Rate::new(1 << 40, 1 << 40)
}
