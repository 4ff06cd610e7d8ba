//! How peers are reached, as documents of the control socket: the words of `traversal` for people and programs.
//!
//! Plain translation of what the node reports. What is not known stays unknown on the way.

use p2pos_connectivity::{MappingReport, MappingState};
use p2pos_control::{DialAttempt, Explained, Family, NatSide, Netcheck, RouterAnswer, TimelineEntry};
use p2pos_identity::PeerId;
use p2pos_node::{Attempt, AttemptOutcome, Explanation, NetworkReport, PathKind, PeerSnapshot, tried};
use p2pos_traversal::{
    Filtering, Mapping, NatClass, PortPattern,
    choice::Tier,
    plan::PeerState as Doing,
    predict::{Advice, Expected, Side},
    signal::NatReport,
    timeline::{Entry, Outcome, Step, Way},
    verdict::{Confidence, NatVerdict},
};

use super::documents::{micros, peer_state};

/// What stands for everything that nobody knows.
const UNKNOWN: &str = "unknown";

/// How a peer is reached, and why so; relays as the user knows them.
pub(super) fn explained(
    peer: &PeerSnapshot,
    explanation: Option<&Explanation>,
    network: &NetworkReport,
    name: impl Fn(&PeerId) -> String,
) -> Explained {
    let (ours, theirs) = explanation.map_or_else(
        || (network.verdict_v4.to_report(has_mapping(network)), NatReport::default()),
        |explanation| (explanation.ours, explanation.theirs),
    );
    Explained {
        peer_id: peer.peer.to_string(),
        petname: None,
        state: peer_state(peer).to_owned(),
        path: peer.path.as_ref().map(|path| path.kind.to_string()),
        relay: None,
        rtt_us: peer.path.as_ref().map(|path| micros(path.rtt)),
        why: why(peer, explanation),
        doing: explanation.map(|explanation| doing(explanation.state).to_owned()),
        ours: nat_side(&ours),
        theirs: nat_side(&theirs),
        expected: explanation
            .and_then(|explanation| explanation.expected)
            .map_or(UNKNOWN, expected)
            .to_owned(),
        advice: explanation.and_then(|explanation| explanation.advice).map(advice).map(str::to_owned),
        routers: network.mappings.iter().map(router_answer).collect(),
        attempts: peer.last_attempts.iter().map(|attempt| dial_attempt(attempt, &name)).collect(),
        // Without a connection there is no plan; what was tried to get one has its steps, too.
        timeline: match explanation {
            Some(explanation) => explanation.timeline.iter().map(timeline_entry).collect(),
            None => tried(&peer.last_attempts).iter().map(timeline_entry).collect(),
        },
        left_out: explanation.map_or(0, |explanation| explanation.left_out),
    }
}

/// What is known of our own network.
pub(super) fn netcheck(network: &NetworkReport) -> Netcheck {
    let family = |is_ours: fn(&std::net::IpAddr) -> bool, verdict: &NatVerdict, is_mapped| {
        let addresses = network.machine.addresses.iter().map(|own| own.ip);
        Family {
            addresses: addresses
                .filter(|ip| is_ours(ip) && !ip.is_loopback())
                .map(|ip| ip.to_string())
                .collect(),
            external: verdict.external.map(|external| external.to_string()),
            is_translated: verdict.is_translated.into(),
            preserves_port: verdict.preserves_port.into(),
            ports: ports(verdict.pattern),
            nat: nat_side(&verdict.to_report(is_mapped)),
            confidence: confidence(verdict.confidence()).to_owned(),
            agreeing: number(verdict.agreeing),
            dissenting: number(verdict.dissenting),
        }
    };
    let udp_works = match (network.verdict_v4.udp_works, network.verdict_v6.udp_works) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), _) | (_, Some(false)) => Some(false),
        (None, None) => None,
    };
    Netcheck {
        udp: udp_works.into(),
        ipv4: family(std::net::IpAddr::is_ipv4, &network.verdict_v4, has_mapping(network)),
        ipv6: family(std::net::IpAddr::is_ipv6, &network.verdict_v6, false),
        gateways: network.machine.gateways.iter().map(|gateway| gateway.ip.to_string()).collect(),
        asks_routers: network.asks_routers,
        routers: network.mappings.iter().map(router_answer).collect(),
        told: network.told.iter().map(ToString::to_string).collect(),
        keepalive_s: network.keep_alive.as_secs(),
    }
}

/// Why the path is what it is, or why there is none; addresses stay out of it, as a status is shown to others.
pub(super) fn why(peer: &PeerSnapshot, explanation: Option<&Explanation>) -> String {
    let Some(path) = &peer.path else { return why_not(peer) };
    let words = match path.kind {
        PathKind::Loopback => "this computer",
        PathKind::Lan => "same network",
        PathKind::Direct => explanation.map_or("", why_direct),
        PathKind::Relayed | PathKind::TcpRelayed => explanation.map_or("", why_relayed),
    };
    words.to_owned()
}

fn why_direct(explanation: &Explanation) -> &'static str {
    let has_punched = explanation
        .timeline
        .iter()
        .any(|entry| entry.step == Step::Punch && entry.outcome == Outcome::Worked);
    match explanation.tier {
        Some(Tier::Guessed) => "its port was guessed",
        Some(Tier::DirectV6) => "IPv6",
        Some(Tier::DirectV4) if has_punched => "punched through the routers",
        Some(Tier::DirectV4 | Tier::Lan | Tier::Relay | Tier::TcpRelay) | None => "its address answers",
    }
}

fn why_relayed(explanation: &Explanation) -> &'static str {
    match (explanation.state, explanation.expected) {
        (Doing::Punch | Doing::Guess, _) => "a direct way is being tried",
        (_, Some(Expected::TcpRelayed)) => "one side lets no UDP through",
        (_, Some(Expected::Relayed)) => "both routers change ports",
        (_, Some(Expected::Direct | Expected::DirectWithOpener | Expected::DirectByGuess)) => {
            "no direct way found yet"
        }
        (_, None) => "too little is known of the routers",
    }
}

fn why_not(peer: &PeerSnapshot) -> String {
    peer.last_attempts.last().map(|last| outcome(&last.outcome)).unwrap_or_default()
}

fn outcome(outcome: &AttemptOutcome) -> String {
    match outcome {
        AttemptOutcome::Running => "trying".to_owned(),
        AttemptOutcome::Connected => "connected".to_owned(),
        AttemptOutcome::Abandoned => "given up for a better one".to_owned(),
        AttemptOutcome::NoAnswer => "no answer".to_owned(),
        AttemptOutcome::Refused(why) => format!("refused: {why}"),
        AttemptOutcome::Unroutable(why) => format!("no way to that address: {why}"),
    }
}

fn has_mapping(network: &NetworkReport) -> bool {
    network
        .mappings
        .iter()
        .any(|report| matches!(report.state, MappingState::Mapped { is_verified: true, .. }))
}

fn nat_side(report: &NatReport) -> NatSide {
    let class = NatClass::of(report);
    NatSide {
        class: class.map_or(UNKNOWN, class_name).to_owned(),
        words: class.map_or("not known yet", class_words).to_owned(),
        mapping: report.mapping.map_or(UNKNOWN, mapping).to_owned(),
        filtering: report.filtering.map_or(UNKNOWN, filtering).to_owned(),
        layers: report.ttl_layers,
        lifetime_s: report.lifetime_s,
        hairpin: report.hairpin.into(),
        is_mapped: report.mapped,
    }
}

fn class_name(class: NatClass) -> &'static str {
    match class {
        NatClass::Public => "public",
        NatClass::FullCone => "full-cone",
        NatClass::AddressRestricted => "address-restricted",
        NatClass::PortRestricted => "port-restricted",
        NatClass::CollisionProne => "collision-prone",
        NatClass::Sequential => "sequential",
        NatClass::Block => "port-block",
        NatClass::Random => "random",
        NatClass::UdpBlocked => "udp-blocked",
    }
}

fn class_words(class: NatClass) -> &'static str {
    match class {
        NatClass::Public => "open: everybody reaches it",
        NatClass::FullCone => "easy: one port, open to everybody",
        NatClass::AddressRestricted => "easy: one port, open to addresses that were called",
        NatClass::PortRestricted => "easy: one port, open to whom was called",
        NatClass::CollisionProne => "easy, if it is opened before anybody knocks",
        NatClass::Sequential => "hard: another port for each peer, in steps",
        NatClass::Block => "hard: another port for each peer, within a block",
        NatClass::Random => "hard: another port for each peer, at random",
        NatClass::UdpBlocked => "lets no UDP through",
    }
}

fn mapping(mapping: Mapping) -> &'static str {
    match mapping {
        Mapping::EndpointIndependent => "endpoint-independent",
        Mapping::AddressDependent => "address-dependent",
        Mapping::AddressAndPortDependent => "address-and-port-dependent",
    }
}

fn filtering(filtering: Filtering) -> &'static str {
    match filtering {
        Filtering::EndpointIndependent => "endpoint-independent",
        Filtering::AddressDependent => "address-dependent",
        Filtering::AddressAndPortDependent => "address-and-port-dependent",
    }
}

fn ports(pattern: PortPattern) -> String {
    match pattern {
        PortPattern::Unknown => UNKNOWN.to_owned(),
        PortPattern::Sequential { delta } => format!("steps of {delta}"),
        PortPattern::Block(range) => format!("{} to {}", range.first(), range.last()),
        PortPattern::Random => "random".to_owned(),
    }
}

fn confidence(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Unknown => UNKNOWN,
        Confidence::Contested => "contested",
        Confidence::Agreed => "agreed",
        Confidence::Certain => "certain",
    }
}

fn expected(expected: Expected) -> &'static str {
    match expected {
        Expected::Direct => "direct",
        Expected::DirectWithOpener => "direct-with-opener",
        Expected::DirectByGuess => "direct-by-guess",
        Expected::Relayed => "relayed",
        Expected::TcpRelayed => "tcp-relayed",
    }
}

fn advice(advice: Advice) -> &'static str {
    match advice {
        Advice::ForwardPort(Side::Ours) => {
            "let your router forward this computer's UDP port, or allow UPnP, NAT-PMP or PCP in it"
        }
        Advice::ForwardPort(Side::Theirs) => {
            "their router should forward their UDP port, or allow UPnP, NAT-PMP or PCP"
        }
        Advice::AllowUdp(Side::Ours) => "let UDP out through your firewall",
        Advice::AllowUdp(Side::Theirs) => "their firewall should let UDP out",
        Advice::AllowUdpOnBoth => "let UDP out through the firewalls on both sides",
        Advice::Measure(Side::Ours) => {
            "connect to two people in different networks: what they see tells what your router does"
        }
        Advice::Measure(Side::Theirs) => {
            "they should connect to two people in different networks: what those see tells what their router does"
        }
    }
}

fn doing(state: Doing) -> &'static str {
    match state {
        Doing::Lookup => "lookup",
        Doing::Dial => "dial",
        Doing::Connected => "connected",
        Doing::Punch => "punch",
        Doing::Guess => "guess",
        Doing::Direct => "direct",
        Doing::Suspect => "suspect",
        Doing::Idle => "idle",
    }
}

fn router_answer(report: &MappingReport) -> RouterAnswer {
    let question = &report.question;
    let answer = RouterAnswer {
        router: question.gateway.ip.to_string(),
        protocol: question.protocol.name().to_owned(),
        on_behalf_of: question.on_behalf_of.map(|inner| inner.to_string()),
        ..RouterAnswer::default()
    };
    match &report.state {
        MappingState::Asking => RouterAnswer { state: "asking".to_owned(), ..answer },
        MappingState::Mapped { external, lease, is_verified } => RouterAnswer {
            state: "mapped".to_owned(),
            external: Some(external.to_string()),
            is_verified: *is_verified,
            lease_s: Some(lease.as_secs()),
            ..answer
        },
        MappingState::Absent { why } => {
            RouterAnswer { state: "absent".to_owned(), said: why.clone(), ..answer }
        }
        MappingState::Refused { said } => {
            RouterAnswer { state: "refused".to_owned(), said: said.clone(), ..answer }
        }
    }
}

fn dial_attempt(attempt: &Attempt, name: impl Fn(&PeerId) -> String) -> DialAttempt {
    // Of a relay that is known by name only and was not found there is none.
    let is_known = !attempt.address.ip().is_unspecified();
    DialAttempt {
        address: if is_known { attempt.address.to_string() } else { String::new() },
        relay: attempt.relay.as_ref().map(name),
        after_ms: millis(attempt.started),
        took_ms: millis(attempt.took),
        outcome: outcome(&attempt.outcome),
    }
}

fn timeline_entry(entry: &Entry) -> TimelineEntry {
    TimelineEntry {
        after_ms: millis(entry.after),
        step: entry.step.to_string(),
        way: entry.way.map(|way: Way| way.to_string()).unwrap_or_default(),
        outcome: entry.outcome.to_string(),
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
