//! Watches the counters of a connection's paths: what was sent on which, and what was heard.
//!
//! QUIC tells nobody of each packet, and nobody should be woken for each. So the counters are looked at: often while they
//! change, seldom while they do not, and not at all once nobody uses the connection. Whoever writes after a silence wakes
//! the watch ([`Activity`]).
//!
//! Refuses to know: what follows from silence (`traversal::watchdog`).

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use p2pos_transport::{PathId, PathState, Paths};
use p2pos_traversal::plan::PathEvent;
use tokio::{sync::Notify, time::Instant};

/// The pause between looks while packets flow. A third of the watchdog's shortest patience.
const LOOK_BUSY: Duration = Duration::from_millis(100);
/// The pause while nothing flows; after that, whoever writes first wakes the watch.
const LOOK_QUIET_MAX: Duration = Duration::from_millis(800);
/// A change of the round trip that is worth telling: a tenth.
const RTT_CHANGE_DIVISOR: u32 = 10;

/// Set by whoever writes on a connection, read by its watch.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Nobody looks until woken.
    sleeps: AtomicBool,
    wake: Notify,
}

impl Activity {
    /// Says that something is being written. Costs one load while the watch is awake.
    pub(crate) fn note(&self) {
        if self.sleeps.load(Ordering::Relaxed) && self.sleeps.swap(false, Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    /// Waits until somebody writes. Cancel-safe.
    pub(super) async fn noted(&self) {
        self.sleeps.store(true, Ordering::Relaxed);
        self.wake.notified().await;
    }
}

/// What was seen of one path.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    to_answer: u64,
    received: u64,
    /// The round trip at the last look: it changes with every answer, by whichever path that comes.
    rtt: Option<Duration>,
    /// The one that was told.
    told_rtt: Duration,
}

/// What the last look saw, and when the next one is due.
#[derive(Debug)]
pub(super) struct Sight {
    paths: BTreeMap<PathId, Seen>,
    next: Option<Instant>,
    pause: Duration,
}

impl Sight {
    pub(super) fn new() -> Self {
        Self { paths: BTreeMap::new(), next: Some(Instant::now() + LOOK_BUSY), pause: LOOK_BUSY }
    }

    /// When to look again; `None` while everything is quiet.
    pub(super) fn due(&self) -> Option<Instant> {
        self.next
    }

    /// Looks often again.
    pub(super) fn wake(&mut self) {
        self.pause = LOOK_BUSY;
        self.next = Some(Instant::now() + LOOK_BUSY);
    }

    /// Looks at all paths; what has happened on them since the last look, and whether anything did.
    pub(super) fn look(&mut self, paths: &Paths) -> Vec<(PathId, PathEvent)> {
        let states = paths.list();
        let mut events = Vec::new();
        for state in &states {
            let seen = self.paths.entry(state.id).or_default();
            events.extend(difference(seen, state).map(|event| (state.id, event)));
        }
        self.paths.retain(|id, _| states.iter().any(|state| state.id == *id));
        let has_moved = events.iter().any(|(_, event)| !matches!(event, PathEvent::Rtt(_)));
        self.pause = if has_moved { LOOK_BUSY } else { self.pause * 2 };
        self.next = (self.pause <= LOOK_QUIET_MAX).then(|| Instant::now() + self.pause);
        events
    }
}

/// What a look adds to what was seen before.
fn difference(seen: &mut Seen, state: &PathState) -> impl Iterator<Item = PathEvent> + use<> {
    let has_asked = state.bytes_to_answer != seen.to_answer;
    let has_heard =
        state.packets_received != seen.received || seen.rtt.is_some_and(|before| before != state.rtt);
    // Whatever was sent beside something heard is mostly what was answered. If it was not, QUIC sends it again, and then
    // nothing is heard. Acknowledgements must not count, or two watchdogs would wake each other for ever.
    let traffic = match (has_heard, has_asked) {
        (true, _) => Some(PathEvent::Heard { in_flight: false }),
        (false, true) => Some(PathEvent::Sent),
        (false, false) => None,
    };
    let is_other_rtt = state.rtt.abs_diff(seen.told_rtt) > seen.told_rtt / RTT_CHANGE_DIVISOR;
    let rtt = (has_heard && is_other_rtt).then_some(PathEvent::Rtt(state.rtt));
    seen.to_answer = state.bytes_to_answer;
    seen.received = state.packets_received;
    seen.rtt = Some(state.rtt);
    if rtt.is_some() {
        seen.told_rtt = state.rtt;
    }
    [traffic, rtt].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use p2pos_transport::{PathStatus, Way};

    use super::*;

    fn state(bytes_to_answer: u64, packets_received: u64, rtt_ms: u64) -> PathState {
        PathState {
            id: PathId::FIRST,
            way: Way::Direct(([192, 0, 2, 1], 9).into()),
            status: PathStatus::Available,
            rtt: Duration::from_millis(rtt_ms),
            congestion_window: 0,
            packets_sent: bytes_to_answer,
            bytes_sent: bytes_to_answer,
            bytes_to_answer,
            packets_received,
            bytes_received: 0,
            packets_lost: 0,
        }
    }

    #[test]
    fn sending_without_hearing_is_told_and_hearing_ends_it() {
        let mut seen = Seen::default();
        let mut look = |state| difference(&mut seen, &state).collect::<Vec<_>>();
        assert_eq!(look(state(1, 0, 10)), [PathEvent::Sent]);
        assert_eq!(look(state(1, 0, 10)), []);
        let rtt = PathEvent::Rtt(Duration::from_millis(10));
        assert_eq!(look(state(1, 1, 10)), [PathEvent::Heard { in_flight: false }, rtt]);
        assert_eq!(look(state(2, 2, 10)), [PathEvent::Heard { in_flight: false }]);
    }

    #[test]
    fn an_answer_that_comes_by_another_path_is_heard() {
        let mut seen = Seen::default();
        let mut look = |state| difference(&mut seen, &state).collect::<Vec<_>>();
        assert_eq!(look(state(1, 0, 10)), [PathEvent::Sent]);
        let rtt = PathEvent::Rtt(Duration::from_millis(20));
        assert_eq!(look(state(2, 0, 20)), [PathEvent::Heard { in_flight: false }, rtt]);
    }

    #[test]
    fn an_acknowledgement_waits_for_no_answer() {
        let mut seen = Seen { to_answer: 5, ..Seen::default() };
        let acknowledged = PathState { packets_sent: 9, bytes_sent: 900, ..state(5, 0, 0) };
        assert_eq!(difference(&mut seen, &acknowledged).count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_wakes_a_watch_that_sleeps_and_only_once() {
        let activity = Activity::default();
        let noted = activity.noted();
        tokio::pin!(noted);
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut noted).await.is_err());
        activity.note();
        assert!(!activity.sleeps.load(Ordering::Relaxed), "the second note costs a load only");
        noted.await;
    }
}
