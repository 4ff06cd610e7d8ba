//! The node's report of its relays as the document of `p2pos relay status`: plain translation, with the user's own names.

use p2pos_control::{RelayDetail, RelayDrop, RelayLease, RelayShare, RelayUser};
use p2pos_identity::PeerId;
use p2pos_node::RelayReport;
use p2pos_relay::{Dropped, Tariff};

/// Users of the relay in the document. A community relay remembers thousands, and nobody reads beyond the first screens.
const USERS_SHOWN_MAX: usize = 100;

/// What is relayed for others, and where we can be called; `petname` is asked for everybody who is shown.
pub(super) fn relay_detail(report: &RelayReport, petname: impl Fn(&PeerId) -> Option<String>) -> RelayDetail {
    let serving = &report.serving;
    let users = report.users.iter().take(USERS_SHOWN_MAX).map(|user| RelayUser {
        peer_id: user.peer.to_string(),
        petname: petname(&user.peer),
        has_lease: user.has_lease,
        flows: user.flows.into(),
        day_bytes: user.day_bytes,
        bytes: user.bytes,
    });
    let callable_at = report.leases.iter().map(|lease| RelayLease {
        peer_id: lease.relay.to_string(),
        petname: petname(&lease.relay),
        flows: number(lease.flows),
        address: lease.shown.clone(),
    });
    let dropped = Dropped::WORDS.iter().zip(serving.dropped).filter(|(_, packets)| *packets > 0);
    RelayDetail {
        mode: serving.mode.to_string(),
        is_draining: serving.is_draining,
        contact_leases: number(serving.contact_leases),
        community_leases: number(serving.community_leases),
        flows: serving.flows,
        introductions: serving.introductions,
        day_bytes: report.day_bytes,
        month_bytes: serving.month_bytes,
        month_bytes_max: serving.month_bytes_max,
        forwarded_bytes: serving.forwarded.bytes,
        forwarded_packets: serving.forwarded.packets,
        total_bytes_per_s: serving.settings.total.bytes_per_s(),
        contacts: share(&serving.settings.contacts),
        community: share(&serving.settings.community),
        dropped: dropped.map(|(why, packets)| RelayDrop { why: (*why).to_owned(), packets }).collect(),
        users: users.collect(),
        users_left_out: number(report.users.len().saturating_sub(USERS_SHOWN_MAX)),
        callable_at: callable_at.collect(),
    }
}

fn share(tariff: &Tariff) -> RelayShare {
    RelayShare {
        source_bytes_per_s: tariff.source.bytes_per_s(),
        flow_bytes_per_s: tariff.flow.bytes_per_s(),
        day_bytes_max: tariff.day_bytes_max,
        leases_max: tariff.leases_max,
        flows_max: tariff.flows_max,
        source_flows_max: tariff.source_flows_max.into(),
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use p2pos_identity::SecretKey;
    use p2pos_node::OurLease;
    use p2pos_relay::{PeerUse, RelayMode, RelaySettings, Service};

    use super::*;

    fn report(users: usize) -> RelayReport {
        let settings = RelaySettings { mode: RelayMode::Contacts, ..RelaySettings::default() };
        let mut serving = Service::new(Instant::now(), settings, [7; 16], 5_000).status();
        serving.dropped[3] = 9;
        let relay = SecretKey::from_seed([1; 32]).peer_id();
        let user = PeerUse { peer: relay, day_bytes: 1, bytes: 2, flows: 3, has_lease: true };
        let lease = OurLease { relay, address: None, flows: 1, shown: None };
        RelayReport { serving, users: vec![user; users], day_bytes: 4, leases: vec![lease] }
    }

    #[test]
    fn people_have_their_petnames_and_reasons_without_packets_are_left_out() {
        let detail = relay_detail(&report(1), |_| Some("mira".to_owned()));
        assert_eq!((detail.mode.as_str(), detail.month_bytes), ("contacts", 5_000));
        assert_eq!(detail.users[0].petname.as_deref(), Some("mira"));
        assert_eq!(detail.callable_at[0].petname.as_deref(), Some("mira"));
        assert_eq!(detail.dropped, [RelayDrop { why: Dropped::WORDS[3].to_owned(), packets: 9 }]);
        assert_eq!(detail.contacts.source_bytes_per_s, 250_000);
    }

    #[test]
    fn a_crowd_of_users_is_cut_and_the_rest_is_counted() {
        let detail = relay_detail(&report(USERS_SHOWN_MAX + 1), |_| None);
        assert_eq!((detail.users.len(), detail.users_left_out), (USERS_SHOWN_MAX, 1));
    }
}
