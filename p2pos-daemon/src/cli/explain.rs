//! `p2pos explain`: how a peer is reached and why, laid out for people.
//!
//! Everything shown stands in the document. What a router said is a stranger's text and passes through `Untrusted`, as all
//! cells and facts do.

use p2pos_control::{Explained, NatSide, RouterAnswer};

use super::render::{Facts, short, way};
use super::table::Table;
use super::units::{duration_s, micros, plural};

/// The lines of an explanation.
pub(super) fn render(explained: &Explained) -> String {
    let whom = explained.petname.as_deref().unwrap_or(&explained.peer_id);
    let mut facts = Facts::new();
    facts.add("peer", &format!("{whom}, {}", explained.state));
    if explained.path.is_some() {
        let rtt = explained.rtt_us.map(|rtt| format!(", {}", micros(rtt))).unwrap_or_default();
        facts.add("path", &(way(explained.path.as_deref(), explained.relay.as_deref()) + &rtt));
    }
    facts.add("why", &explained.why);
    facts.add("doing", explained.doing.as_deref().map_or("", doing));
    facts.add("your side", &nat(&explained.ours));
    facts.add("their side", &nat(&explained.theirs));
    facts.add("expected", expected(&explained.expected));
    facts.add("would help", explained.advice.as_deref().unwrap_or_default());
    let tables = [routers(&explained.routers), attempts(explained), timeline(explained)];
    tables.iter().filter(|table| !table.is_empty()).fold(facts.0, |text, table| format!("{text}\n{table}"))
}

/// One side's NAT in a line.
pub(super) fn nat(side: &NatSide) -> String {
    let layers = side.layers.map(|layers| plural(layers.into(), "translating router"));
    let lifetime = side.lifetime_s.map(|seconds| format!("forgets after {}", duration_s(seconds.into())));
    let mapped = side.is_mapped.then(|| "port mapped".to_owned());
    [Some(side.words.clone()), mapped, layers, lifetime].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// What each router said.
pub(super) fn routers(answers: &[RouterAnswer]) -> String {
    let mut table = Table::new(&["ROUTER", "ASKED BY", "STATE", "OUTSIDE", "CHECKED", "LEASE", "SAID"]);
    for answer in answers {
        let state = match &answer.on_behalf_of {
            Some(inner) => format!("{} for {inner}", answer.state),
            None => answer.state.clone(),
        };
        let checked = match (&answer.external, answer.is_verified) {
            (None, _) => "-",
            (Some(_), true) => "yes",
            (Some(_), false) => "not yet",
        };
        table.row([
            &answer.router,
            &answer.protocol,
            &state,
            answer.external.as_deref().unwrap_or("-"),
            checked,
            &answer.lease_s.map_or_else(|| "-".to_owned(), duration_s),
            &answer.said,
        ]);
    }
    table.text()
}

fn attempts(explained: &Explained) -> String {
    let mut table = Table::new(&["DIALLED", "AFTER", "TOOK", "RESULT"]);
    for attempt in &explained.attempts {
        let (after, took) = (format!("{} ms", attempt.after_ms), format!("{} ms", attempt.took_ms));
        let whom = match &attempt.relay {
            None => attempt.address.clone(),
            Some(relay) => format!("relay {}", short(relay)),
        };
        table.row([&whom, &after, &took, &attempt.outcome]);
    }
    table.text()
}

fn timeline(explained: &Explained) -> String {
    let mut table = Table::new(&["AFTER", "TRIED", "WAY", "RESULT"]);
    for entry in &explained.timeline {
        table.row([&format!("{} ms", entry.after_ms), &entry.step, &entry.way, &entry.outcome]);
    }
    if explained.left_out > 0 {
        table.row(["...", &format!("{} lines left out of the middle", explained.left_out), "", ""]);
    }
    table.text()
}

fn doing(doing: &str) -> &str {
    match doing {
        "lookup" => "looking for addresses",
        "dial" => "dialling",
        "connected" => "waiting before a direct way is tried again",
        "punch" => "both sides open their routers",
        "guess" => "ports are guessed",
        "direct" => "nothing, it is direct",
        "suspect" => "the path is silent; looking for another",
        "idle" => "nothing, nobody uses it",
        other => other,
    }
}

fn expected(expected: &str) -> &str {
    match expected {
        "direct" => "direct",
        "direct-with-opener" => "direct, once both routers are opened",
        "direct-by-guess" => "direct, once a port is guessed",
        "relayed" => "by relay",
        "tcp-relayed" => "by relay over TCP",
        other => other,
    }
}
