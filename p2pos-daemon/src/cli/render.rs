//! Documents for people: what `--json` prints as members, here as lines and tables.
//!
//! Everything that came from a peer or a plugin passes through [`Untrusted`]; nothing is shown that is not in the
//! document. The golden files in `tests/golden` hold every form.

use std::fmt::Write as _;

use p2pos_control::{
    CheckReport, Contact, ContactList, Document, Identity, LogLine, PingReport, PingRound, PluginDetail,
    PluginList, Settings, Status,
};
use p2pos_identity::{PeerId, Untrusted};

use super::table::Table;
use super::units::{clock, duration_s, micros, plural};
use crate::demo;

/// Width of the names before the values in a list of facts.
const LABEL_CHARS: usize = 12;

/// The lines of one document.
pub(crate) fn render(document: &Document) -> String {
    match document {
        Document::Done(done) if done.what.is_empty() => String::new(),
        Document::Done(done) => format!("{}\n", Untrusted(&done.what)),
        Document::Status(status) => self::status(status),
        Document::Identity(identity) => self::identity(identity),
        Document::Contacts(list) => contacts(list),
        Document::Contact(contact) => self::contact(contact),
        Document::Plugins(list) => plugins(list),
        Document::Plugin(detail) => plugin(detail),
        Document::LogLine(line) => log_line(line),
        Document::Check(report) => check(report),
        // Holds a token.
        Document::Session(_) => String::new(),
        Document::PingRound(round) => ping_round(round),
        Document::Ping(report) => ping(report),
        Document::Explain(explained) => super::explain::render(explained),
        Document::Netcheck(netcheck) => super::netcheck::render(netcheck),
        Document::Relay(detail) => super::relay::render(detail),
        Document::Config(settings) => self::settings(settings),
        Document::Demo(report) => demo::render(report),
        Document::Error(failure) => format!("{}\n", Untrusted(&failure.message)),
    }
}

/// Facts below each other, their names in a column of their own.
pub(super) struct Facts(pub(super) String);

impl Facts {
    pub(super) fn new() -> Self {
        Self(String::new())
    }

    pub(super) fn add(&mut self, label: &str, value: &str) {
        if !value.is_empty() {
            writeln!(self.0, "{label:LABEL_CHARS$}{}", Untrusted(value)).expect("a String takes every write");
        }
    }

    pub(super) fn add_each(&mut self, label: &str, values: &[String]) {
        for (index, value) in values.iter().enumerate() {
            self.add(if index == 0 { label } else { "" }, value);
        }
    }
}

fn identity(identity: &Identity) -> String {
    format!("{}\n", identity.peer_id)
}

fn status(status: &Status) -> String {
    let mut facts = Facts::new();
    facts.add("you are", &status.peer_id);
    facts.add(
        "daemon",
        &format!("{}, up {}, process {}", status.version, duration_s(status.uptime_s), status.pid),
    );
    facts.add("UDP port", &status.udp_port.to_string());
    facts.add("plugins", &format!("{} running of {}", status.plugins_running, status.plugins));
    facts.add("contacts", &status.contacts.to_string());
    facts.add("data", &status.data_dir);
    let mut table = Table::new(&["PEER", "STATE", "PATH", "RTT", "STREAMS", "WHY"]);
    for peer in &status.peers {
        table.row([
            peer.petname.as_deref().unwrap_or(&peer.peer_id),
            &peer.state,
            &way(peer.path.as_deref(), peer.relay.as_deref()),
            &peer.rtt_us.map_or_else(|| "-".to_owned(), micros),
            &peer.streams.to_string(),
            &peer.why,
        ]);
    }
    if status.peers.is_empty() { facts.0 } else { format!("{}\n{}", facts.0, table.text()) }
}

fn contacts(list: &ContactList) -> String {
    let mut table = Table::new(&["NAME", "PEERID", "TRUST", "RELAYS", "ADDRESSES"]);
    for contact in &list.contacts {
        table.row([
            &contact.petname,
            &contact.peer_id,
            &contact.trust,
            &contact.relay,
            &contact.addresses.join(" "),
        ]);
    }
    table.text()
}

fn contact(contact: &Contact) -> String {
    let mut facts = Facts::new();
    facts.add("name", &contact.petname);
    facts.add("PeerId", &contact.peer_id);
    facts.add("trust", &contact.trust);
    facts.add_each("addresses", &contact.addresses);
    facts
        .add("relays", if contact.relay == "never" { "never; rather no connection" } else { &contact.relay });
    facts.add("added", &clock(contact.added_unix_s));
    facts.0
}

fn plugins(list: &PluginList) -> String {
    let mut table = Table::new(&["PLUGIN", "VERSION", "STATE", "FOR", "STREAMS", "RESTARTS", "STATUS"]);
    for row in &list.plugins {
        table.row([
            &row.id,
            &row.version,
            &row.state,
            &duration_s(row.since_s),
            &row.streams.to_string(),
            &row.restarts.to_string(),
            if row.status.is_empty() { &row.reason } else { &row.status },
        ]);
    }
    table.text()
}

fn plugin(detail: &PluginDetail) -> String {
    let row = &detail.row;
    let mut facts = Facts::new();
    facts.add("plugin", &format!("{} {}", row.id, row.version));
    facts.add("name", &row.name);
    facts.add("about", &detail.description);
    facts.add("state", &format!("{} for {}", row.state, duration_s(row.since_s)));
    facts.add("why", &row.reason);
    facts.add("status", &row.status);
    facts.add("process", &row.pid.map(|pid| pid.to_string()).unwrap_or_default());
    facts.add("streams", &row.streams.to_string());
    facts.add("restarts", &row.restarts.to_string());
    facts.add("last exit", detail.last_exit.as_deref().unwrap_or_default());
    facts.add_each("offers", &detail.protocols);
    facts.add_each("asks", &detail.asks);
    facts.add_each("granted", &detail.granted);
    facts.add_each("held by", &detail.sandbox);
    facts.add_each("warning", &detail.warnings);
    facts.add_each("error", &detail.errors);
    facts.add("directory", &detail.directory);
    facts.add_each("log", &detail.log_tail);
    facts.0
}

fn log_line(line: &LogLine) -> String {
    let time = clock(line.unix_ms / 1_000);
    format!("{time} {:<6} {:<5} {}\n", Untrusted(&line.source), Untrusted(&line.level), Untrusted(&line.text))
}

fn check(report: &CheckReport) -> String {
    let mut facts = Facts::new();
    facts.add("plugin", report.id.as_deref().unwrap_or("unknown"));
    facts.add("directory", &report.directory);
    for problem in &report.problems {
        let kind = if problem.is_error { "error" } else { "warning" };
        facts.add(kind, &format!("{}: {}", problem.place, problem.message));
    }
    let errors = report.problems.iter().filter(|problem| problem.is_error).count();
    let warnings = report.problems.len() - errors;
    facts.add("result", &format!("{}, {}", plural(errors, "error"), plural(warnings, "warning")));
    facts.0
}

/// The path, and through whom.
pub(super) fn way(path: Option<&str>, relay: Option<&str>) -> String {
    match (path, relay) {
        (None, _) => "-".to_owned(),
        (Some(path), None) => path.to_owned(),
        (Some(path), Some(relay)) => format!("{path} by {}", short(relay)),
    }
}

/// A petname as it is. Of a PeerId a few letters, as nobody reads sixty of them in a table; `--json` has them all.
pub(super) fn short(name: &str) -> String {
    name.parse::<PeerId>().map_or_else(|_| name.to_owned(), |peer| peer.short())
}

fn ping_round(round: &PingRound) -> String {
    match (round.rtt_us, &round.path) {
        (Some(rtt), Some(path)) => {
            let way = way(Some(path), round.relay.as_deref());
            format!("{}  {}  {}\n", round.seq, micros(rtt), Untrusted(&way))
        }
        (Some(rtt), None) => format!("{}  {}\n", round.seq, micros(rtt)),
        (None, _) => format!("{}  {}\n", round.seq, Untrusted(&round.why)),
    }
}

fn ping(report: &PingReport) -> String {
    let whom = report.petname.as_deref().unwrap_or(&report.peer_id);
    let mut line = format!("{}: {} of {} answered", Untrusted(whom), report.received, report.sent);
    if let (Some(min), Some(median), Some(max)) = (report.min_us, report.median_us, report.max_us) {
        write!(line, ", min {}, median {}, max {}", micros(min), micros(median), micros(max))
            .expect("a String takes every write");
    }
    line.push('\n');
    line
}

fn settings(settings: &Settings) -> String {
    let mut table = Table::new(&["SETTING", "VALUE", "FROM", "WHAT IT DOES"]);
    for setting in &settings.settings {
        let value = if setting.value.is_empty() { "-" } else { &setting.value };
        table.row([&setting.key, value, &setting.origin, &setting.help]);
    }
    table.text()
}
