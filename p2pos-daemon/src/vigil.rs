//! Keeps the daemon's thread awake for some microseconds after it has moved bytes, while that pays.
//!
//! A message that passes the daemon comes back after some tens of microseconds, if both plugins are near and quick. A thread that went to
//! sleep meanwhile costs the next message a wake-up, and a processor that was halted costs several times that. So here is what KVM does
//! with its guests (`halt_poll_ns`) and adaptive mutexes with their waiters: once there is nothing to do, look for the next event with an
//! open eye for at most [`WINDOW`], provided that the last gaps were so short; otherwise sleep at once. Between two looks the processor is
//! offered to whoever else can use it. It is switched on by [`SWITCH`] only: docs/decisions/0011 tells what it may bring, what it
//! costs, and what is not known yet.
//!
//! Refuses to know: what the events are. The bridge says that bytes have moved ([`Pulse::beat`]), the runtime says when it is about to
//! sleep, and the judgement between the two is a machine without a clock.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{runtime, sync::Notify};

/// The environment variable that switches it on, whatever its value.
pub(crate) const SWITCH: &str = "P2POS_VIGIL";

/// Longest time that the thread looks for the next event before it sleeps. A wake-up from a halted processor costs 10 to 50 us, so looking
/// for longer than this costs more than it can save; at half, a round trip through two daemons and two plugins ends after it.
const WINDOW: Duration = Duration::from_micros(50);

/// What a gap that was slept through may be longer than [`WINDOW`] and still count as short: it contains the wake-ups that looking would
/// have saved.
const WAKING: Duration = Duration::from_micros(30);

/// Short gaps, less the long ones, after which looking begins. One pause of a plugin must not begin it: at a message each millisecond
/// every second gap is short.
const WARM: u8 = 8;

/// Most short gaps that are remembered: one long gap halves them, two in a row end the looking.
const WARMTH_MAX: u8 = 2 * WARM;

/// Longer than this the processor is not given back by those who pass bytes on, but by who computes: a few messages' worth of work.
const CROWDED: Duration = Duration::from_micros(300);

/// How long nothing is looked for after somebody else wanted the processor. Offering it to them costs the waiting message up to
/// some milliseconds of theirs, which a sleeping thread is spared: the system prefers who has slept.
const KEEP_AWAY: Duration = Duration::from_millis(500);

/// Counts that bytes were moved. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// Bytes were moved, or a stream was asked for.
    pub(crate) fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Has the runtime ask, each time that it is about to sleep, whether to look once more instead. Returns what to run on it.
///
/// With a single processor nothing can happen while it looks: then it never does.
pub(crate) fn keep(
    builder: &mut runtime::Builder,
    pulse: Pulse,
) -> impl Future<Output = ()> + Send + 'static {
    let again = Arc::new(Notify::new());
    if thread::available_parallelism().is_ok_and(|processors| processors.get() > 1) {
        let judge = Arc::new(Mutex::new(Judge::new(Instant::now())));
        let woken = Arc::clone(&judge);
        builder.on_thread_unpark(move || locked(&woken).woke(Instant::now()));
        let again = Arc::clone(&again);
        builder.on_thread_park(move || {
            if locked(&judge).is_worth_a_look(Instant::now(), pulse.count()) {
                thread::yield_now();
                // Something to run keeps the runtime from sleeping: it looks for events and returns at once.
                again.notify_one();
            }
        });
    }
    async move {
        loop {
            again.notified().await;
        }
    }
}

fn locked(judge: &Mutex<Judge>) -> std::sync::MutexGuard<'_, Judge> {
    judge.lock().expect("no code panics while it judges")
}

/// Judges whether the next event is near.
#[derive(Debug)]
struct Judge {
    beats: u64,
    /// When everything was done after the last beat.
    idle_since: Instant,
    /// When the runtime last looked for events, or was woken by one.
    looked_at: Instant,
    /// Whether it has slept since the last beat.
    has_slept: bool,
    /// Short gaps seen lately, less the long ones.
    warmth: u8,
    /// When the processor was last offered to others, if no look has followed yet.
    offered_at: Option<Instant>,
    /// The processor is wanted by others until then.
    away_until: Instant,
}

impl Judge {
    fn new(now: Instant) -> Self {
        Self {
            beats: 0,
            idle_since: now,
            looked_at: now,
            has_slept: false,
            warmth: 0,
            offered_at: None,
            away_until: now,
        }
    }

    /// The runtime has looked for events, whether it slept before or not.
    fn woke(&mut self, now: Instant) {
        self.looked_at = now;
        if self.offered_at.take().is_some_and(|offered| now.saturating_duration_since(offered) > CROWDED) {
            self.away_until = now + KEEP_AWAY;
        }
    }

    /// Everything is done: tells whether to look once more instead of sleeping. `beats` counts what has been moved so far.
    fn is_worth_a_look(&mut self, now: Instant, beats: u64) -> bool {
        if beats != self.beats {
            self.beats = beats;
            let gap = self.looked_at.saturating_duration_since(self.idle_since);
            let short = if self.has_slept { WINDOW + WAKING } else { WINDOW };
            self.warmth = if gap <= short { (self.warmth + 1).min(WARMTH_MAX) } else { self.warmth / 2 };
            self.idle_since = now;
            self.has_slept = false;
        }
        let is_worth = self.warmth >= WARM
            && now.saturating_duration_since(self.idle_since) < WINDOW
            && now >= self.away_until;
        self.offered_at = is_worth.then_some(now);
        self.has_slept |= !is_worth;
        is_worth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    /// A daemon in virtual time whose every look costs a microsecond and that is woken 10 us late from sleep.
    struct Daemon {
        judge: Judge,
        now: Instant,
        beats: u64,
        looks: u32,
    }

    impl Daemon {
        fn new() -> Self {
            let now = Instant::now();
            Self { judge: Judge::new(now), now, beats: 0, looks: 0 }
        }

        /// Moves something, then has nothing to do until `gap` later. Tells whether it was awake by then.
        fn pass(&mut self, gap: Duration) -> bool {
            self.beats += 1;
            let next = self.now + gap;
            while self.judge.is_worth_a_look(self.now, self.beats) {
                self.looks += 1;
                self.now += US;
                self.judge.woke(self.now);
                if self.now >= next {
                    return true;
                }
            }
            self.now = next + 10 * US;
            self.judge.woke(self.now);
            false
        }
    }

    #[test]
    fn quick_traffic_keeps_it_awake_after_a_few_messages() {
        let mut daemon = Daemon::new();
        let awake = (0..100).filter(|_| daemon.pass(20 * US)).count();
        assert_eq!(awake, 101 - usize::from(WARM), "the first has no gap before it");
    }

    #[test]
    fn a_message_and_its_reply_each_millisecond_cost_not_one_look() {
        let mut daemon = Daemon::new();
        for _ in 0..10_000 {
            daemon.pass(30 * US);
            daemon.pass(970 * US);
        }
        assert_eq!(daemon.looks, 0);
    }

    #[test]
    fn when_traffic_stops_it_sleeps_after_one_window() {
        let mut daemon = Daemon::new();
        while !daemon.pass(20 * US) {}
        let before = daemon.looks;
        assert!(!daemon.pass(Duration::from_secs(1)));
        assert!(Duration::from_micros(u64::from(daemon.looks - before)) <= WINDOW);
        assert!(!daemon.judge.is_worth_a_look(daemon.now, daemon.beats), "nothing has moved since");
    }

    #[test]
    fn one_pause_among_quick_messages_is_forgiven_and_two_are_not() {
        let mut daemon = Daemon::new();
        for _ in 0..100 {
            daemon.pass(20 * US);
        }
        daemon.pass(500 * US);
        assert!(daemon.pass(20 * US));
        daemon.pass(500 * US);
        daemon.pass(500 * US);
        assert!(!daemon.pass(20 * US));
    }

    #[test]
    fn who_gets_the_processor_back_late_leaves_it_to_the_others() {
        let mut daemon = Daemon::new();
        while !daemon.pass(20 * US) {}
        daemon.beats += 1;
        assert!(daemon.judge.is_worth_a_look(daemon.now, daemon.beats));
        daemon.now += 3_000 * US;
        daemon.judge.woke(daemon.now);
        assert_eq!((0..100).filter(|_| daemon.pass(20 * US)).count(), 0);
        daemon.now += KEEP_AWAY;
        for _ in 0..100 {
            daemon.pass(20 * US);
        }
        assert!(daemon.pass(20 * US), "it tries again later");
    }

    #[test]
    fn a_runtime_under_vigil_sleeps_as_soon_as_nothing_moves() {
        let pulse = Pulse::default();
        let mut builder = runtime::Builder::new_current_thread();
        let vigil = keep(&mut builder, pulse.clone());
        let runtime = builder.enable_all().build().unwrap();
        runtime.block_on(async move {
            tokio::spawn(vigil);
            let parks = || runtime::Handle::current().metrics().worker_park_count(0);
            let (mut ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
            tokio::spawn(async move { tokio::io::copy(&mut theirs.split().0, &mut tokio::io::sink()).await });
            for _ in 0..1_000 {
                tokio::io::AsyncWriteExt::write_all(&mut ours, b"x").await.unwrap();
                pulse.beat();
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            let before = parks();
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(parks() - before < 50, "{} parks in 200 ms of silence", parks() - before);
        });
    }
}
