//! What it costs to keep a NAT from forgetting: a day behind simulated NATs, in virtual time, with the very machines that the daemon runs.
//!
//! A host keeps one path alive and nobody says a word. Its NAT forgets whatever carried nothing for so long; what it hands out after that
//! is another port, at which nobody seeks us. The learner measures first, with a helper, as daemons do, while the path is kept by the
//! interval for the unknown. Beside it stand those who always send after 5 s, and after 15 s.
//!
//! Packets are those that our side sends. The day knows no loss and no delay: how the learner gets on with real NATs is for the scenarios
//! `silence-12s` and `silence-30s`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use p2pos_traversal::Probe;
use p2pos_traversal::keepalive::{CLIFFS, CliffEvent, CliffProbe, KeepAlive, KeepAliveEvent, Knocker};

/// How long the simulated NATs remember, seconds (issue 3, demand 9).
pub const LIFETIMES_S: [u64; 4] = [30, 60, 120, 300];
/// What others send for ever, seconds: the two most common values.
pub const FIXED_S: [u64; 2] = [5, 15];

const HOURS: u64 = 24;
/// The day.
const DAY: Duration = Duration::from_secs(HOURS * 3_600);
/// The first of a measurement's tokens; any would do.
const TOKEN: u64 = 1_000;
/// Our own sockets: the throw-away ones of a measurement have the numbers below.
const KEPT: u8 = 100;
const ASKING: u8 = 101;
/// Where the NAT is, seen from outside. Ports follow from the bindings.
const OUTSIDE: [u8; 4] = [45, 1, 0, 2];
/// The first port that it hands out.
const PORT_FIRST: u16 = 20_000;

/// What came of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    /// How long the NAT remembers.
    pub lifetime: Duration,
    /// The interval at the end of the day.
    pub interval: Duration,
    /// Packets that kept the path alive.
    pub kept_with: u64,
    /// Packets that measured.
    pub measured_with: u64,
    /// How often the binding was gone when it should have been reminded.
    pub lost: u64,
}

impl Day {
    /// Packets in an hour, those of the measurement with the others.
    #[must_use]
    pub fn packets_per_hour(&self) -> f64 {
        (self.kept_with + self.measured_with) as f64 / HOURS as f64
    }

    /// How many times fewer that is than with a fixed interval.
    #[must_use]
    pub fn times_fewer_than(&self, fixed: Duration) -> f64 {
        3_600.0 / fixed.as_secs_f64() / self.packets_per_hour()
    }
}

/// A day of the daemon's own keepalive.
#[must_use]
pub fn learned(lifetime: Duration) -> Day {
    let start = Instant::now();
    let mut day = Running { nat: Nat::new(lifetime), kept_with: 0, measured_with: 0, lost: 0 };
    let (mut keep, mut probe, mut helper) = (KeepAlive::new(1, start), None::<CliffProbe>, Knocker::new());
    day.nat.send(KEPT, start);
    keep.handle_sent(start);
    let mut now = start;
    loop {
        let due = [keep.poll_timeout(), probe.as_ref().and_then(CliffProbe::poll_timeout)];
        match due.into_iter().flatten().min() {
            Some(due) if due < start + DAY => now = now.max(due),
            Some(_) | None => break,
        }
        while let Some(event) = keep.poll_event(now) {
            match event {
                KeepAliveEvent::Send => day.remind(now),
                KeepAliveEvent::Measure => {
                    helper.handle_announced(TOKEN, CLIFFS.len().try_into().unwrap_or(u8::MAX), now);
                    probe = Some(CliffProbe::new(TOKEN, now));
                }
            }
        }
        if let Some(measuring) = &mut probe {
            day.measure(measuring, &mut helper, now);
            if let Some(survived) = measuring.result() {
                keep.handle_survived(survived, now);
                probe = None;
            }
        }
    }
    day.end(keep.interval())
}

/// A day of somebody who sends at a fixed interval, whatever the NAT.
#[must_use]
pub fn fixed(lifetime: Duration, interval: Duration) -> Day {
    let start = Instant::now();
    let mut day = Running { nat: Nat::new(lifetime), kept_with: 0, measured_with: 0, lost: 0 };
    day.nat.send(KEPT, start);
    let mut now = start + interval;
    while now <= start + DAY {
        day.remind(now);
        now += interval;
    }
    day.end(interval)
}

/// The table, one line for each lifetime, as Markdown: what `docs/natlab.md` shows.
#[must_use]
pub fn table() -> Vec<String> {
    let mut lines = vec![
        "| the NAT forgets after | learned interval | packets an hour | fixed 5 s | fixed 15 s | bindings lost in a day |".to_owned(),
        "|---|---|---|---|---|---|".to_owned(),
    ];
    for lifetime in LIFETIMES_S.map(Duration::from_secs) {
        let day = learned(lifetime);
        let [five, fifteen] = FIXED_S.map(|fixed_s| {
            let fixed = fixed(lifetime, Duration::from_secs(fixed_s));
            let times = day.times_fewer_than(Duration::from_secs(fixed_s));
            format!("{:.0} ({times:.1} times as many)", fixed.packets_per_hour())
        });
        lines.push(format!(
            "| {} s | {} s | {:.1} | {five} | {fifteen} | {} |",
            lifetime.as_secs(),
            day.interval.as_secs(),
            day.packets_per_hour(),
            day.lost
        ));
    }
    lines
}

/// A day that is being lived.
struct Running {
    nat: Nat,
    kept_with: u64,
    measured_with: u64,
    lost: u64,
}

impl Running {
    fn remind(&mut self, now: Instant) {
        self.lost += u64::from(!self.nat.remembers(KEPT, now));
        self.nat.send(KEPT, now);
        self.kept_with += 1;
    }

    /// Does what the measurement wants, with a helper that is always there and answers at once.
    fn measure(&mut self, measuring: &mut CliffProbe, helper: &mut Knocker, now: Instant) {
        while let Some(event) = measuring.poll_event(now) {
            let (socket, sent) = match event {
                CliffEvent::Ping { socket, token } => (socket, Probe::Ping { token }),
                CliffEvent::Ask { token } => (ASKING, Probe::Ask { token }),
                CliffEvent::Close { .. } => continue,
            };
            self.measured_with += 1;
            let from = self.nat.send(socket, now);
            let Some(reply) = helper.handle_probe(sent, from, now) else { continue };
            if self.nat.deliver(from, now)
                && let Probe::Pong { token } = reply.answer
            {
                measuring.handle_pong(token, now);
            }
            if let Some((to, Probe::Knock { token })) = reply.knock
                && self.nat.deliver(to, now)
            {
                measuring.handle_knock(token);
            }
        }
    }

    fn end(self, interval: Duration) -> Day {
        let Self { nat, kept_with, measured_with, lost } = self;
        Day { lifetime: nat.lifetime, interval, kept_with, measured_with, lost }
    }
}

/// A NAT that forgets, and hands out another port afterwards.
struct Nat {
    lifetime: Duration,
    /// By inside socket: the outside port, and when it last carried a packet.
    bindings: BTreeMap<u8, (u16, Instant)>,
    port_next: u16,
}

impl Nat {
    fn new(lifetime: Duration) -> Self {
        Self { lifetime, bindings: BTreeMap::new(), port_next: PORT_FIRST }
    }

    fn remembers(&self, socket: u8, now: Instant) -> bool {
        self.bindings.get(&socket).is_some_and(|(_, last)| now < *last + self.lifetime)
    }

    /// Lets a packet out; gives where it seems to come from.
    fn send(&mut self, socket: u8, now: Instant) -> SocketAddr {
        if !self.remembers(socket, now) {
            self.bindings.insert(socket, (self.port_next, now));
            self.port_next = self.port_next.checked_add(1).unwrap_or(PORT_FIRST);
        }
        let (port, last) = self.bindings.entry(socket).or_insert((self.port_next, now));
        *last = now;
        (OUTSIDE, *port).into()
    }

    /// Lets a packet in, if it remembers for whom.
    fn deliver(&mut self, to: SocketAddr, now: Instant) -> bool {
        let lifetime = self.lifetime;
        let mut of_port = self.bindings.values_mut().filter(|(port, _)| *port == to.port());
        match of_port.find(|(_, last)| now < *last + lifetime) {
            Some((_, last)) => {
                *last = now;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_binding_is_lost_in_a_day_and_each_longer_memory_saves_packets() {
        let mut before = f64::INFINITY;
        for (lifetime_s, interval_s, most_per_hour) in
            [(30, 24, 160.0), (60, 48, 80.0), (120, 96, 41.0), (300, 240, 18.0)]
        {
            let day = learned(Duration::from_secs(lifetime_s));
            assert_eq!((day.lost, day.interval.as_secs()), (0, interval_s), "{day:?}");
            assert!(day.packets_per_hour() < before.min(most_per_hour), "{day:?}");
            assert!(day.measured_with > 0 && day.measured_with <= 60, "{day:?}");
            before = day.packets_per_hour();
        }
    }

    #[test]
    fn fixed_intervals_cost_the_same_whatever_the_nat_and_lose_what_is_shorter() {
        for (fixed_s, per_hour) in [(5, 720.0), (15, 240.0)] {
            for lifetime_s in LIFETIMES_S {
                let day = fixed(Duration::from_secs(lifetime_s), Duration::from_secs(fixed_s));
                assert_eq!((day.packets_per_hour(), day.lost), (per_hour, 0));
            }
        }
        let short = fixed(Duration::from_secs(12), Duration::from_secs(15));
        assert_eq!(short.lost, short.kept_with, "the model forgets nothing");
    }

    #[test]
    fn a_memory_of_twelve_seconds_is_lost_until_it_is_measured_and_never_again() {
        let day = learned(Duration::from_secs(12));
        assert_eq!(day.interval.as_secs(), 8);
        assert!((1..=2).contains(&day.lost), "{day:?}");
    }

    #[test]
    fn the_handbook_shows_the_table_that_the_command_prints() {
        let handbook = include_str!("../../../docs/natlab.md");
        for line in table() {
            assert!(handbook.contains(&line), "docs/natlab.md lacks: {line}");
        }
    }
}
