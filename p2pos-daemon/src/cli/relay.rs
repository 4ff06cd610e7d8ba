//! `p2pos relay status`: what this computer relays for others and where it can be called, laid out for people.

use p2pos_control::{RelayDetail, RelayLease, RelayShare, RelayUser};

use super::render::Facts;
use super::table::Table;
use super::units::{bytes, plural, rate};

/// The lines of the status.
pub(super) fn render(detail: &RelayDetail) -> String {
    let is_off = detail.mode == "off";
    let mut facts = Facts::new();
    facts.add("you relay", &whom(detail));
    // What was forwarded before it was switched off still counts.
    if !is_off || detail.month_bytes > 0 {
        facts.add("this month", &month(detail));
    }
    if !is_off {
        facts.add("today", &bytes(detail.day_bytes));
        let packets = plural_u64(detail.forwarded_packets, "packet");
        facts.add("since start", &format!("{} in {packets}", bytes(detail.forwarded_bytes)));
        facts.add("leases", &leases(detail));
        facts.add("flows", &flows(detail));
        facts.add("at most", &format!("{} for all together", rate(detail.total_bytes_per_s)));
        facts.add("", &share("contact", &detail.contacts));
        if detail.mode == "community" {
            facts.add("", &share("stranger", &detail.community));
        }
        let drops = detail.dropped.iter().map(|drop| format!("{} ({})", drop.packets, drop.why));
        facts.add("dropped", &drops.collect::<Vec<_>>().join(", "));
    }
    if detail.callable_at.is_empty() {
        facts.add("called at", "no relay; name some: p2pos config set relay.use PEERID@HOST:PORT");
    }
    let tables = [users(&detail.users, detail.users_left_out), callable_at(&detail.callable_at)];
    tables.iter().filter(|table| !table.is_empty()).fold(facts.0, |text, table| format!("{text}\n{table}"))
}

fn whom(detail: &RelayDetail) -> String {
    let whom = match detail.mode.as_str() {
        "off" => "for nobody; p2pos config set relay.mode contacts",
        "contacts" => "for your contacts",
        "community" => "for everybody, contacts first",
        other => other,
    };
    let ending = if detail.is_draining { "; ending, its users were told to go elsewhere" } else { "" };
    format!("{whom}{ending}")
}

fn month(detail: &RelayDetail) -> String {
    let used = bytes(detail.month_bytes);
    match detail.month_bytes_max {
        None => format!("{used}; no limit"),
        Some(max) if detail.month_bytes >= max => {
            format!("{used} of {}: only introductions until the month is over", bytes(max))
        }
        Some(max) => format!("{used} of {}", bytes(max)),
    }
}

fn leases(detail: &RelayDetail) -> String {
    let of_contacts = format!("{} of {} for contacts", detail.contact_leases, detail.contacts.leases_max);
    if detail.mode != "community" {
        return of_contacts;
    }
    format!("{of_contacts}, {} of {} for strangers", detail.community_leases, detail.community.leases_max)
}

fn flows(detail: &RelayDetail) -> String {
    match detail.introductions {
        0 => detail.flows.to_string(),
        introductions => format!("{}, {introductions} of them for introductions only", detail.flows),
    }
}

fn share(who: &str, share: &RelayShare) -> String {
    let day = share.day_bytes_max.map(|max| format!(", {} a day", bytes(max))).unwrap_or_default();
    let (source, flow) = (rate(share.source_bytes_per_s), rate(share.flow_bytes_per_s));
    format!("{source} for each {who}, {flow} a flow{day}, {} flows", share.source_flows_max)
}

fn users(users: &[RelayUser], left_out: u32) -> String {
    let mut table = Table::new(&["FOR WHOM", "LEASE", "FLOWS", "TODAY", "IN ALL"]);
    for user in users {
        table.row([
            user.petname.as_deref().unwrap_or(&user.peer_id),
            if user.has_lease { "yes" } else { "no" },
            &user.flows.to_string(),
            &bytes(user.day_bytes),
            &bytes(user.bytes),
        ]);
    }
    if left_out > 0 {
        table.row(["...", "", "", "", &format!("{left_out} more who sent less")]);
    }
    table.text()
}

fn callable_at(leases: &[RelayLease]) -> String {
    let mut table = Table::new(&["YOU CAN BE CALLED AT", "FLOWS", "GIVE FRIENDS THIS ADDRESS"]);
    for lease in leases {
        let relay = lease.petname.as_deref().unwrap_or(&lease.peer_id);
        table.row([relay, &lease.flows.to_string(), lease.address.as_deref().unwrap_or("-")]);
    }
    table.text()
}

fn plural_u64(count: u64, what: &str) -> String {
    plural(usize::try_from(count).unwrap_or(usize::MAX), what)
}
