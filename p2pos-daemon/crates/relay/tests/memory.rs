//! What 10,000 circuits cost: the budget is 200 MiB in all, a tenth of it is what we want.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::{net::SocketAddr, time::Duration};

use p2pos_relay::{Asker, RelayMode, RelaySettings, Tariff};

use support::{Relay, asker_at, settings};

const CIRCUITS: u32 = 10_000;

#[test]
#[cfg(target_os = "linux")]
fn ten_thousand_idle_circuits_take_less_than_two_kibibytes_each() {
    let contact = |number| Asker { is_contact: true, ..asker_at(number, address_of(number)) };
    let users: Vec<_> = (0..1000).map(contact).collect();
    let mut relay = Relay::new(RelaySettings {
        community: Tariff {
            leases_max: 4000,
            flows_max: CIRCUITS,
            source_flows_max: 1000,
            ..Tariff::contacts()
        },
        contacts: Tariff {
            leases_max: 4000,
            flows_max: CIRCUITS,
            source_flows_max: 1000,
            ..Tariff::contacts()
        },
        ..settings(RelayMode::Contacts)
    });
    let tokens: Vec<_> = users.iter().map(|user| relay.reserve(user).unwrap().token).collect();
    let before = resident_bytes();
    for circuit in 0..CIRCUITS as usize {
        let (caller, callee) = (circuit % 1000, (circuit + 1 + circuit / 1000) % 1000);
        relay.connect(&users[caller], users[callee].peer, tokens[callee]).unwrap();
        while relay.service.poll_event().is_some() {}
        if caller == 999 {
            relay.now += Duration::from_secs(2);
        }
    }
    assert_eq!(relay.service.status().flows, CIRCUITS);
    let each = (resident_bytes() - before) / u64::from(CIRCUITS);
    println!("{each} bytes for each circuit");
    assert!((100..2048).contains(&each), "{each} bytes for each circuit");
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn address_of(number: u32) -> SocketAddr {
    let [.., third, fourth] = number.to_be_bytes();
    SocketAddr::from(([90, third, fourth, 1], 4000))
}
