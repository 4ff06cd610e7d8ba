//! CUBIC (RFC 9438) with a doubt: is this loss a full queue, or bad luck?
//!
//! CUBIC takes every loss for a full queue and sends 30 % less. On a radio link that loses one packet in a hundred it has
//! nothing left soon. But a full queue shows in two more ways. Packets that waited in it took longer than the path's best
//! ones; and where the queue is too short for that to be seen, the part that is lost grows with what we send too much. So a
//! loss counts as congestion if the round trip stood above the path's minimum all through a round, or if more than
//! [`LOSS_SHARE_MAX`] of the packets were lost. Any other loss is repaired and changes nothing.
//!
//! Beside a CUBIC flow at a full queue both signs are there, and we are CUBIC: what is fair between two of them is fair here.
//! What we do more of is send on through losses that come without a queue, up to that share: the price of a short queue that
//! is shared with others. Slow start ends as in HyStart++ (RFC 9406).
//!
//! Pure: it is handed times, and knows neither packets' contents nor noq. Windows are bytes, curves are in packets.

use std::time::{Duration, Instant};

/// What is left of the window after congestion (RFC 9438 s4.6).
const BETA: f64 = 0.7;
/// How steep the curve is, packets per second cubed (RFC 9438 s5.1).
const STEEPNESS: f64 = 0.4;
/// Growth per round trip that equals Reno's share, packets (RFC 9438 s4.3).
const RENO_GROWTH: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);
/// Smallest window, packets: two keep the other side's acknowledgements coming.
const WINDOW_PACKETS_MIN: u64 = 2;

/// Part of the packets that may be lost without being called congestion. Radio links show up to one in a hundred; more than
/// three are beyond repair in time for anybody, and what CUBIC flows suffer together in a short queue.
const LOSS_SHARE_MAX: f64 = 0.03;
/// A share is judged over so many packets, or so many lost ones: of ten packets a tenth is lost with the first.
const JUDGED_PACKETS_MIN: u64 = 1_024;
const JUDGED_LOSSES_MIN: u64 = 64;

/// A queue is seen when the round trip stood this part of the path's best above it all through a round, within the bounds below
/// (RFC 9406 s4.3): less is the noise of a machine's own timers, more would be seen too late on a long path.
const QUEUE_SHARE: f64 = 1.0 / 8.0;
const QUEUE_DELAY_MIN: Duration = Duration::from_millis(4);
const QUEUE_DELAY_MAX: Duration = Duration::from_millis(16);
/// Packets of a round whose fastest can be trusted (RFC 9406 s4.3).
const ROUND_SAMPLES_MIN: u64 = 8;

/// After the first sign of a queue slow start grows by a quarter only, for so many rounds, and goes back to full growth if the
/// sign was false (RFC 9406 s4.2).
const CAREFUL_ROUNDS: u32 = 5;
const CAREFUL_GROWTH: u64 = 4;

/// The controller of one path.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    packet_bytes: u64,
    window: u64,
    slow_start_until: u64,
    curve: Curve,
    /// Packets sent before then cannot be news about congestion: we have answered already.
    answered_at: Option<Instant>,
    round: Round,
    last_round: Round,
    judged: Judged,
    /// Whether slow start has seen a sign of a queue.
    careful: Option<Careful>,
    /// The state before the last answer, should the losses turn out to be none.
    before_answer: Option<(u64, u64, Curve)>,
}

/// The window's way after congestion.
#[derive(Debug, Clone, Copy, Default)]
struct Curve {
    began: Option<Instant>,
    /// Window at the last congestion, packets.
    peak: f64,
    /// When the curve is back at its peak, seconds after it began.
    peak_at: f64,
    /// When an acknowledgement was last used for growth: time without use does not count.
    used_at: Option<Instant>,
}

/// What was seen between a packet's departure and its acknowledgement.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    began: Option<Instant>,
    delivered: u64,
    fastest: Option<Duration>,
}

/// Packets over which losses are judged; older ones count ever less.
#[derive(Debug, Clone, Copy, Default)]
struct Judged {
    packets: u64,
    lost: u64,
}

/// Slow start after a sign of a queue.
#[derive(Debug, Clone, Copy)]
struct Careful {
    /// The round trip that was the sign.
    since: Duration,
    rounds_left: u32,
}

/// An acknowledged packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acked {
    pub(super) now: Instant,
    pub(super) sent: Instant,
    pub(super) bytes: u64,
    /// Whether we had less to send than we were allowed.
    pub(super) is_limited_by_application: bool,
    /// The path's smoothed and best round trip.
    pub(super) smoothed: Duration,
    pub(super) best: Duration,
}

impl Machine {
    pub(super) fn new(initial_window: u64, packet_bytes: u16) -> Self {
        Self {
            packet_bytes: packet_bytes.into(),
            window: initial_window,
            slow_start_until: u64::MAX,
            curve: Curve::default(),
            answered_at: None,
            round: Round::default(),
            last_round: Round::default(),
            judged: Judged::default(),
            careful: None,
            before_answer: None,
        }
    }

    /// Bytes that may be in flight.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// Where slow start ends, bytes.
    pub(super) fn slow_start_until(&self) -> u64 {
        self.slow_start_until
    }

    pub(super) fn handle_packet_bytes(&mut self, packet_bytes: u16) {
        self.packet_bytes = packet_bytes.into();
        self.window = self.window.max(self.window_min());
    }

    pub(super) fn handle_acked(&mut self, acked: Acked) {
        self.count_acked(&acked);
        let is_old = self.answered_at.is_some_and(|at| acked.sent <= at);
        if is_old || acked.is_limited_by_application {
            // A curve that ran on while nobody used it would end in a burst.
            self.curve.pause(acked.now);
            return;
        }
        if self.window < self.slow_start_until {
            self.window += if self.careful.is_some() { acked.bytes / CAREFUL_GROWTH } else { acked.bytes };
        } else {
            self.grow_along_curve(&acked);
        }
    }

    /// Packets were lost, the newest of them sent at `sent`; they have been counted by [`Self::handle_lost`].
    pub(super) fn handle_loss_event(&mut self, now: Instant, sent: Instant, best: Duration) {
        if self.answered_at.is_some_and(|at| sent <= at) || !self.is_congested(best) {
            return;
        }
        self.before_answer = Some((self.window, self.slow_start_until, self.curve));
        self.answer(now);
    }

    /// A router says that its queue grows (RFC 3168).
    pub(super) fn handle_congestion_mark(&mut self, now: Instant, sent: Instant) {
        if self.answered_at.is_none_or(|at| sent > at) {
            self.before_answer = None;
            self.answer(now);
        }
    }

    /// Nothing arrived for several round trips (RFC 9002 s7.6): begin anew.
    pub(super) fn handle_persistent_congestion(&mut self, now: Instant) {
        self.answer(now);
        self.before_answer = None;
        self.answered_at = None;
        self.window = self.window_min();
        self.round = Round::default();
    }

    pub(super) fn handle_lost(&mut self) {
        self.judged.lost += 1;
        self.judged.count();
    }

    /// What was called lost has arrived after all.
    pub(super) fn handle_losses_were_none(&mut self) {
        if let Some((window, slow_start_until, curve)) = self.before_answer.take()
            && window > self.window
        {
            (self.window, self.slow_start_until, self.curve) = (window, slow_start_until, curve);
        }
    }

    fn window_min(&self) -> u64 {
        WINDOW_PACKETS_MIN * self.packet_bytes
    }

    fn is_congested(&self, best: Duration) -> bool {
        let Judged { lost, packets } = self.judged;
        let is_judged = packets >= JUDGED_PACKETS_MIN || lost >= JUDGED_LOSSES_MIN;
        if is_judged && lost as f64 > packets as f64 * LOSS_SHARE_MAX {
            return true;
        }
        let (last, round) = (&self.last_round, &self.round);
        let fastest = if round.delivered >= ROUND_SAMPLES_MIN {
            round.fastest
        } else {
            round.fastest.into_iter().chain(last.fastest).min()
        };
        fastest.is_some_and(|fastest| shows_queue(fastest, best))
    }

    fn answer(&mut self, now: Instant) {
        let packets = self.window as f64 / self.packet_bytes as f64;
        // Whoever has less than before leaves room for newcomers (RFC 9438 s4.7).
        let peak = if packets < self.curve.peak { packets * (1.0 + BETA) / 2.0 } else { packets };
        self.window = part_of(self.window, BETA).max(self.window_min());
        self.slow_start_until = self.window;
        let left = self.window as f64 / self.packet_bytes as f64;
        let peak_at = ((peak - left).max(0.0) / STEEPNESS).cbrt();
        self.curve = Curve { began: Some(now), peak, peak_at, used_at: Some(now) };
        self.answered_at = Some(now);
        self.judged = Judged::default();
    }

    fn grow_along_curve(&mut self, acked: &Acked) {
        let window = self.window as f64 / self.packet_bytes as f64;
        let curve = &mut self.curve;
        let began = *curve.began.get_or_insert_with(|| {
            // Slow start ended without a loss: the curve begins at its peak.
            curve.peak = window;
            acked.now
        });
        curve.used_at = Some(acked.now);
        let since = acked.now.saturating_duration_since(began);
        let reno =
            curve.peak * BETA + RENO_GROWTH * since.as_secs_f64() / acked.smoothed.as_secs_f64().max(1e-6);
        let ahead = (since + acked.smoothed).as_secs_f64() - curve.peak_at;
        // At most half as much again in a round trip (RFC 9438 s4.4).
        let target = (STEEPNESS * ahead.powi(3) + curve.peak).max(reno).clamp(window, window * 1.5);
        // The way to the target is spread over the packets of a round trip.
        self.window += part_of(acked.bytes, (target - window) / window);
    }

    fn count_acked(&mut self, acked: &Acked) {
        if self.round.began.is_none_or(|began| acked.sent >= began) {
            self.end_round(acked);
        }
        self.judged.count();
        let round = &mut self.round;
        round.delivered += 1;
        // The fastest packet knows nothing of jitter, the smoothed round trip nothing of acknowledgements that were held back.
        let took = acked.now.saturating_duration_since(acked.sent).min(acked.smoothed);
        round.fastest = Some(round.fastest.map_or(took, |fastest| fastest.min(took)));
    }

    fn end_round(&mut self, acked: &Acked) {
        let ended = std::mem::replace(&mut self.round, Round { began: Some(acked.now), ..Round::default() });
        self.last_round = ended;
        let Some(fastest) = ended.fastest.filter(|_| ended.delivered >= ROUND_SAMPLES_MIN) else { return };
        if self.window >= self.slow_start_until {
            return;
        }
        match &mut self.careful {
            None if shows_queue(fastest, acked.best) => {
                self.careful = Some(Careful { since: fastest, rounds_left: CAREFUL_ROUNDS });
            }
            None => {}
            Some(careful) if fastest < careful.since => self.careful = None,
            Some(careful) if careful.rounds_left > 0 => careful.rounds_left -= 1,
            Some(_) => self.slow_start_until = self.window,
        }
    }
}

impl Judged {
    fn count(&mut self) {
        self.packets += 1;
        if self.packets >= 2 * JUDGED_PACKETS_MIN {
            self.packets /= 2;
            self.lost /= 2;
        }
    }
}

impl Curve {
    fn pause(&mut self, now: Instant) {
        if let (Some(began), Some(used_at)) = (&mut self.began, &mut self.used_at) {
            *began += now.saturating_duration_since(*used_at);
            *used_at = now;
        }
    }
}

/// Whether a round that was never faster found a queue.
fn shows_queue(fastest: Duration, best: Duration) -> bool {
    fastest >= best + best.mul_f64(QUEUE_SHARE).clamp(QUEUE_DELAY_MIN, QUEUE_DELAY_MAX)
}

/// A part of a window, rounded down.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "windows are far below 2^52, and parts of them are not negative"
)]
fn part_of(bytes: u64, share: f64) -> u64 {
    (bytes as f64 * share.max(0.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const PACKET: u16 = 1_000;

    fn acked(now: Instant, took: Duration) -> Acked {
        let (bytes, best) = (PACKET.into(), 40 * MS);
        Acked { now, sent: now - took, bytes, is_limited_by_application: false, smoothed: took, best }
    }

    /// A machine whose round trips take `took`, long enough to have an opinion.
    fn settled(took: Duration) -> (Machine, Instant) {
        let mut machine = Machine::new(100_000, PACKET);
        let mut now = Instant::now();
        for _ in 0..100 {
            now += MS;
            machine.handle_acked(acked(now, took));
        }
        (machine, now)
    }

    #[test]
    fn a_loss_behind_a_queue_is_congestion_and_one_without_is_not() {
        for (took, is_congestion) in [(40 * MS, false), (44 * MS, false), (46 * MS, true), (80 * MS, true)] {
            let (mut machine, now) = settled(took);
            let window = machine.window();
            machine.handle_lost();
            machine.handle_loss_event(now, now - MS, 40 * MS);
            assert_eq!(machine.window() < window, is_congestion, "after round trips of {took:?}");
        }
    }

    #[test]
    fn losses_without_a_queue_are_congestion_once_they_are_many() {
        let (mut machine, mut now) = settled(40 * MS);
        let mut answered = false;
        for index in 0..2_000 {
            now += MS / 10;
            let before = machine.window();
            if index % 20 == 0 {
                machine.handle_lost();
                machine.handle_loss_event(now, now - MS, 40 * MS);
            } else {
                machine.handle_acked(acked(now, 40 * MS));
            }
            answered |= machine.window() < before;
        }
        assert!(answered, "one in twenty was lost");
    }

    #[test]
    fn one_full_queue_is_answered_once() {
        let (mut machine, now) = settled(80 * MS);
        machine.handle_loss_event(now, now - MS, 40 * MS);
        let window = machine.window();
        machine.handle_loss_event(now + MS, now - MS / 2, 40 * MS);
        machine.handle_congestion_mark(now + MS, now - MS / 2);
        assert_eq!(machine.window(), window);
        machine.handle_congestion_mark(now + 90 * MS, now + MS);
        assert!(machine.window() < window);
    }

    #[test]
    fn an_answer_to_losses_that_were_none_is_taken_back() {
        let (mut machine, now) = settled(80 * MS);
        let window = machine.window();
        machine.handle_loss_event(now, now - MS, 40 * MS);
        machine.handle_losses_were_none();
        assert_eq!(machine.window(), window);
        machine.handle_losses_were_none();
        assert_eq!(machine.window(), window);
    }

    #[test]
    fn silence_for_several_round_trips_begins_anew_with_two_packets() {
        let (mut machine, now) = settled(40 * MS);
        machine.handle_persistent_congestion(now);
        assert_eq!(machine.window(), 2 * u64::from(PACKET));
        machine.handle_acked(acked(now + 50 * MS, 40 * MS));
        assert_eq!(machine.window(), 3 * u64::from(PACKET));
    }

    #[test]
    fn what_the_application_does_not_use_lets_nothing_grow() {
        let (mut machine, mut now) = settled(80 * MS);
        machine.handle_loss_event(now, now - MS, 40 * MS);
        let window = machine.window();
        for _ in 0..10_000 {
            now += 10 * MS;
            machine.handle_acked(Acked { is_limited_by_application: true, ..acked(now, 40 * MS) });
        }
        assert_eq!(machine.window(), window);
        machine.handle_acked(acked(now + 10 * MS, 9 * MS));
        assert!(machine.window() <= window + u64::from(PACKET), "100 s of idling ended in a burst");
    }
}
