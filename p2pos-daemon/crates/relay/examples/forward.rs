//! How many frames one core judges and rewrites, without sockets: the part of forwarding that is ours.
//!
//! `cargo run --release -p p2pos-relay --example forward`. Signing is timed apart: the senders' cores do it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measuring program owns its clock, its output and its failures"
)]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use p2pos_identity::SecretKey;
use p2pos_relay::{
    Asker, Call, Entropy, FlowEnd, HEAD_BYTES, Notice, Rate, RelayMode, RelaySettings, Service, ServiceEvent,
    Tariff, Verdict, Via,
};

const CIRCUITS: u8 = 100;
const FRAMES_OF_EACH: usize = 64;
const ROUNDS: usize = 100;

fn main() {
    for packet_bytes in [64, 1200, 1452] {
        let best = (0..5).map(|_| measure(packet_bytes)).min_by_key(|(forwarding, _)| *forwarding).unwrap();
        let frames = u32::from(CIRCUITS) * u32::try_from(FRAMES_OF_EACH * ROUNDS).unwrap();
        let per_s = |time: Duration| f64::from(frames) / time.as_secs_f64() / 1e6;
        println!(
            "{packet_bytes:>5}-byte packets: {:.2} M frames/s forwarded ({} ns each), {:.2} M/s signed",
            per_s(best.0),
            (best.0 / frames).as_nanos(),
            per_s(best.1),
        );
    }
}

/// Times forwarding and signing of the same frames, in batches of 64 as a socket delivers them.
fn measure(packet_bytes: usize) -> (Duration, Duration) {
    let now = Instant::now();
    let mut relay = Service::new(now, settings(), [7; 16], 0);
    let ends: Vec<_> = (0..CIRCUITS).map(|number| join(&mut relay, now, number)).collect();
    let packet = vec![0x41; packet_bytes];
    let mut frames = vec![vec![0; HEAD_BYTES + packet_bytes]; FRAMES_OF_EACH];
    let (mut forwarding, mut signing) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..ROUNDS {
        for (end, at) in &ends {
            let start = Instant::now();
            for frame in &mut frames {
                frame[..HEAD_BYTES].copy_from_slice(&end.head(&packet).unwrap());
                frame[HEAD_BYTES..].copy_from_slice(&packet);
            }
            let signed = Instant::now();
            for frame in &mut frames {
                let verdict = relay.forward(now, Via::Udp(*at), frame);
                assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
            }
            signing += signed - start;
            forwarding += signed.elapsed();
        }
    }
    (forwarding, signing)
}

fn join(relay: &mut Service, now: Instant, number: u8) -> (FlowEnd, SocketAddr) {
    let (caller, callee) = (asker(number, 1), asker(number, 2));
    let entropy = Entropy([number; 48]);
    let lease = relay.handle_reserve(now, &callee, [number; 16], None).unwrap();
    let call = Call { callee: callee.peer, token: lease.token };
    let flow = relay.handle_connect(now, &caller, &call, &entropy).unwrap();
    let event = relay.poll_event();
    assert!(matches!(event, Some(ServiceEvent::Tell { notice: Notice::Incoming { .. }, .. })));
    (FlowEnd::new(flow.vni, flow.key, flow.accept), caller.address)
}

fn asker(number: u8, role: u8) -> Asker {
    let mut seed = [role; 32];
    seed[0] = number;
    let address = SocketAddr::from(([8, role, number, 1], 4000));
    let peer = SecretKey::from_seed(seed).peer_id();
    Asker { peer, is_contact: true, address, via: Via::Udp(address), is_relayed: false }
}

fn settings() -> RelaySettings {
    let wide = Rate::new(1 << 42, 1 << 42);
    let contacts = Tariff { flow: wide, source: wide, ..Tariff::contacts() };
    RelaySettings { mode: RelayMode::Contacts, contacts, total: wide, ..RelaySettings::default() }
}
