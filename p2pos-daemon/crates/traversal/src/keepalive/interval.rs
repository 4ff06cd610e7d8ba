//! When to remind the NAT, from what was measured and what happened.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::keepalive::{
    CALM, CLIFFS, INTERVAL_MAX, INTERVAL_MIN, INTERVAL_UNKNOWN, MEASURE_AGAIN, MEASURE_RETRY, NETWORKS_MAX,
    Survived,
};

/// What the caller shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAliveEvent {
    /// Send something small on the path that is to be kept alive. A low TTL is enough: only our own NAT must see it.
    Send,
    /// Measure the lifetime ([`crate::keepalive::CliffProbe`]), if there is a helper.
    Measure,
}

/// Keeps one path of this host alive.
#[derive(Debug)]
pub struct KeepAlive {
    /// What is known of the networks that we were in; the current one is the last.
    networks: VecDeque<Learned>,
    /// Of the last packet on the path.
    last_sent: Instant,
    is_wanted: bool,
}

#[derive(Debug, Clone, Copy)]
struct Learned {
    network: u64,
    /// The lifetime that was measured.
    measured: Option<Duration>,
    /// The lifetime that is believed.
    believed: Option<Duration>,
    measure_at: Instant,
    calm_since: Instant,
}

impl Learned {
    fn new(network: u64, now: Instant) -> Self {
        Self { network, measured: None, believed: None, measure_at: now, calm_since: now }
    }

    fn interval(&self) -> Duration {
        self.believed.map_or(INTERVAL_UNKNOWN, |life| (life * 4 / 5).clamp(INTERVAL_MIN, INTERVAL_MAX))
    }
}

impl KeepAlive {
    /// Starts in a network, about which nothing is known. `network` names it in any way that another has not.
    #[must_use]
    pub fn new(network: u64, now: Instant) -> Self {
        Self { networks: VecDeque::from([Learned::new(network, now)]), last_sent: now, is_wanted: true }
    }

    /// Takes note that we are in another network, perhaps one that is known. The binding is gone, the timer too.
    pub fn handle_network_change(&mut self, network: u64, now: Instant) {
        let known = self.networks.iter().position(|old| old.network == network);
        let mut learned =
            known.and_then(|index| self.networks.remove(index)).unwrap_or_else(|| Learned::new(network, now));
        // Time in other networks is not time without loss in this one.
        learned.calm_since = now;
        if self.networks.len() >= NETWORKS_MAX {
            self.networks.pop_front();
        }
        self.networks.push_back(learned);
        self.last_sent = now;
    }

    /// Takes whether a path must be kept alive: we are idle and behind a NAT or firewall, nobody else does it for us.
    pub fn handle_wanted(&mut self, is_wanted: bool, now: Instant) {
        if is_wanted && !self.is_wanted {
            self.last_sent = now;
        }
        self.is_wanted = is_wanted;
    }

    /// Takes note that something went out on the path: the NAT is reminded.
    pub fn handle_sent(&mut self, now: Instant) {
        self.last_sent = now;
    }

    /// Takes the result of a measurement.
    pub fn handle_survived(&mut self, survived: Survived, now: Instant) {
        let current = self.current_mut();
        let life = match survived {
            Survived::For(life) => life,
            Survived::Nothing => INTERVAL_MIN,
            Survived::Unknown => {
                current.measure_at = now + MEASURE_RETRY;
                return;
            }
        };
        (current.measured, current.believed) = (Some(life), Some(life));
        current.measure_at = now + MEASURE_AGAIN;
        current.calm_since = now;
    }

    /// Takes note that a binding was lost although it was kept alive.
    pub fn handle_lost(&mut self, now: Instant) {
        let current = self.current_mut();
        // What the present interval stands for.
        let life = current.believed.unwrap_or(INTERVAL_UNKNOWN * 5 / 4);
        current.believed = Some((life / 2).max(INTERVAL_MIN));
        current.calm_since = now;
    }

    /// Returns the interval now.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.current().interval()
    }

    /// Returns the lifetime that was measured in this network, for the NAT report.
    #[must_use]
    pub fn measured(&self) -> Option<Duration> {
        self.current().measured
    }

    /// Returns the next thing to do at `now`, until there is none.
    pub fn poll_event(&mut self, now: Instant) -> Option<KeepAliveEvent> {
        if !self.is_wanted {
            return None;
        }
        self.give_back_after_calm(now);
        let current = self.current_mut();
        if now >= current.measure_at {
            // Until the result comes, or never does.
            current.measure_at = now + MEASURE_RETRY;
            return Some(KeepAliveEvent::Measure);
        }
        if now >= self.last_sent + self.interval() {
            self.last_sent = now;
            return Some(KeepAliveEvent::Send);
        }
        None
    }

    /// Returns when `poll_event` is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = (self.last_sent + self.interval()).min(self.current().measure_at);
        self.is_wanted.then_some(next)
    }

    fn give_back_after_calm(&mut self, now: Instant) {
        let current = self.current_mut();
        let (Some(believed), Some(measured)) = (current.believed, current.measured) else {
            return;
        };
        if believed < measured && now >= current.calm_since + CALM {
            let next = CLIFFS.into_iter().find(|cliff| *cliff > believed).unwrap_or(measured);
            current.believed = Some(next.min(measured));
            current.calm_since = now;
        }
    }

    fn current(&self) -> &Learned {
        self.networks.back().expect("the network that we are in is always there")
    }

    fn current_mut(&mut self) -> &mut Learned {
        self.networks.back_mut().expect("the network that we are in is always there")
    }
}
