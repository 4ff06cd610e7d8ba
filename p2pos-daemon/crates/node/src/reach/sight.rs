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

use p2pos_transport::{PathId, PathState, Paths, Way};
use p2pos_traversal::{plan::PathEvent, watchdog::patience};
use tokio::{sync::Notify, time::Instant};

/// The pause between looks while packets flow. A fifth of the watchdog's shortest patience.
const LOOK_BUSY: Duration = Duration::from_millis(40);
/// The pause while nothing flows; after that, whoever writes first wakes the watch.
const LOOK_QUIET_MAX: Duration = Duration::from_millis(640);
/// When somebody who talked a moment ago has said nothing for so long, the path is reminded; then after twice as long, and again.
/// A router that forgets in the middle of a conversation lets nobody in before its own side sends, and that side may just be
/// listening; and of a path that is cut while we only listen nothing else tells us. It is a part of the second that a cut may last;
/// half would cost slow talkers a packet for each word.
const REMIND_AFTER: Duration = Duration::from_millis(250);
/// So often; after that the keepalive alone is enough.
const REMINDERS_MAX: u32 = 5;
/// Bytes, both ways, from which on it is talk. Pings and their answers are less.
const TALK_BYTES_MIN: u64 = 512;
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
    /// Something was sent that nobody has answered yet.
    is_waiting: bool,
    /// Nothing but an answer is a good sign: the path is in use, or was until nobody answered.
    is_strict: bool,
    /// The one that was told.
    told_rtt: Duration,
}

/// What the last look saw, and when the next one is due.
#[derive(Debug)]
pub(super) struct Sight {
    paths: BTreeMap<PathId, Seen>,
    next: Option<Instant>,
    pause: Duration,
    /// Bytes of all paths at the last look, and when they last were talk.
    bytes: u64,
    talked_at: Instant,
    reminders: u32,
}

impl Sight {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            paths: BTreeMap::new(),
            next: Some(now + LOOK_BUSY),
            pause: LOOK_BUSY,
            bytes: 0,
            talked_at: now,
            // Nothing was said that could be interrupted.
            reminders: REMINDERS_MAX,
        }
    }

    /// When to look again; `None` while everything is quiet.
    pub(super) fn due(&self) -> Option<Instant> {
        [self.next, self.reminder_due()].into_iter().flatten().min()
    }

    fn reminder_due(&self) -> Option<Instant> {
        (self.reminders < REMINDERS_MAX).then(|| self.talked_at + REMIND_AFTER * (1 << self.reminders))
    }

    /// Whether the path in use is to be reminded now.
    pub(super) fn takes_reminder(&mut self) -> bool {
        let is_due = self.reminder_due().is_some_and(|due| due <= Instant::now());
        self.reminders += u32::from(is_due);
        is_due
    }

    /// Looks often again.
    pub(super) fn wake(&mut self) {
        self.pause = LOOK_BUSY;
        self.next = Some(Instant::now() + LOOK_BUSY);
    }

    /// Whether a path was there at the last look.
    pub(super) fn has_seen(&self, id: PathId) -> bool {
        self.paths.contains_key(&id)
    }

    /// Looks at all paths; what has happened on them since the last look, and whether anything did.
    pub(super) fn look(&mut self, paths: &Paths, in_use: Option<PathId>) -> Vec<(PathId, PathEvent)> {
        let states = paths.list();
        let mut events = Vec::new();
        for state in &states {
            let seen = self.paths.entry(state.id).or_default();
            let is_doubtful = in_use == Some(state.id) || (seen.is_strict && seen.is_waiting);
            seen.is_strict = is_doubtful && matches!(state.way, Way::Direct(_));
            events.extend(difference(seen, state).map(|event| (state.id, event)));
        }
        self.paths.retain(|id, _| states.iter().any(|state| state.id == *id));
        let bytes = states.iter().map(|state| state.bytes_sent + state.bytes_received).sum::<u64>();
        // Less than before: a path was closed.
        if bytes.saturating_sub(self.bytes) >= TALK_BYTES_MIN {
            (self.talked_at, self.reminders) = (Instant::now(), 0);
        }
        self.bytes = bytes;
        let has_moved = events.iter().any(|(_, event)| !matches!(event, PathEvent::Rtt(_)));
        self.pause = if has_moved { LOOK_BUSY } else { self.pause * 2 };
        self.next = (self.pause <= LOOK_QUIET_MAX).then(|| Instant::now() + self.pause);
        events
    }
}

/// What a look adds to what was seen before.
fn difference(seen: &mut Seen, state: &PathState) -> impl Iterator<Item = PathEvent> + use<> {
    let has_asked = state.bytes_to_answer != seen.to_answer;
    // What came before the first look was mostly answers.
    let is_answered = match seen.rtt {
        Some(before) => before != state.rtt && !is_late_news(before, state.rtt),
        None => state.packets_received > 0,
    };
    let has_received = state.packets_received != seen.received;
    // On a direct path in use, whatever comes while we wait for an answer proves nothing: it may come from an address that the peer
    // has now, and we still send to the one that it had: what waits there would wait for ever. A relay follows the peer; and the answers to what we send on a path that
    // the peer does not use yet may take a way that is dead.
    // Acknowledgements are not to be answered, or two watchdogs would wake each other for ever.
    let is_good_sign = is_answered || (has_received && !seen.is_strict);
    seen.is_waiting = !is_good_sign && (seen.is_waiting || has_asked);
    let has_heard = is_good_sign || (has_received && !seen.is_waiting);
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

/// Whether a change of the round trip comes from something that was sent a patience ago: when another path opens, what the peer had
/// of a dead one is acknowledged by that. An eighth of each measurement goes into the round trip (RFC 9002 s5.3).
fn is_late_news(before: Duration, now: Duration) -> bool {
    now > before && before + (now - before) * 8 >= patience(before)
}

#[cfg(test)]
mod tests {
    use p2pos_transport::PathStatus;

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
    fn sending_without_an_answer_is_told_and_the_answer_ends_it() {
        let mut seen = Seen { is_strict: true, ..Seen::default() };
        let mut look = |state| difference(&mut seen, &state).collect::<Vec<_>>();
        assert_eq!(look(state(1, 0, 10)), [PathEvent::Sent]);
        assert_eq!(look(state(1, 0, 10)), []);
        let rtt = PathEvent::Rtt(Duration::from_millis(20));
        assert_eq!(look(state(1, 1, 20)), [PathEvent::Heard { in_flight: false }, rtt]);
        assert_eq!(look(state(1, 2, 20)), [PathEvent::Heard { in_flight: false }], "who only listens hears");
    }

    #[test]
    fn packets_of_a_peer_that_has_moved_are_no_answer() {
        let mut seen = Seen { is_strict: true, ..Seen::default() };
        let mut look = |state| difference(&mut seen, &state).collect::<Vec<_>>();
        assert_eq!(look(state(1, 0, 10)), [PathEvent::Sent]);
        assert_eq!(look(state(1, 9, 10)), []);
        assert_eq!(look(state(2, 20, 10)), [PathEvent::Sent]);
        seen.is_strict = false;
        let on_another = difference(&mut seen, &state(3, 30, 10)).collect::<Vec<_>>();
        assert_eq!(on_another[0], PathEvent::Heard { in_flight: false });
    }

    #[tokio::test(start_paused = true)]
    async fn who_talked_a_moment_ago_reminds_the_routers_five_times() {
        let mut sight = Sight::new();
        assert!(sight.reminder_due().is_none(), "nothing was said yet");
        (sight.talked_at, sight.reminders) = (Instant::now(), 0);
        let mut reminded = Vec::new();
        let begun = Instant::now();
        while let Some(due) = sight.reminder_due() {
            tokio::time::sleep_until(due).await;
            assert!(sight.takes_reminder());
            reminded.push(begun.elapsed().as_millis());
        }
        assert_eq!(reminded, [250, 500, 1_000, 2_000, 4_000]);
        assert!(!sight.takes_reminder());
    }

    #[test]
    fn an_answer_that_comes_by_another_path_is_heard() {
        let mut seen = Seen { is_strict: true, ..Seen::default() };
        let mut look = |state| difference(&mut seen, &state).collect::<Vec<_>>();
        assert_eq!(look(state(1, 0, 10)), [PathEvent::Sent]);
        let rtt = PathEvent::Rtt(Duration::from_millis(20));
        assert_eq!(look(state(2, 0, 20)), [PathEvent::Heard { in_flight: false }, rtt]);
    }

    #[test]
    fn what_was_sent_long_ago_is_no_answer() {
        let mut seen = Seen { is_strict: true, ..Seen::default() };
        let mut look = |state| difference(&mut seen, &state).collect::<Vec<_>>();
        assert_eq!(look(state(1, 0, 4)), [PathEvent::Sent]);
        assert_eq!(look(state(2, 0, 34)), [PathEvent::Sent], "240 ms ago");
        assert!(look(state(3, 0, 33)).contains(&PathEvent::Heard { in_flight: false }));
    }

    #[test]
    fn an_acknowledgement_waits_for_no_answer() {
        let mut seen = Seen { to_answer: 5, is_strict: true, ..Seen::default() };
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
