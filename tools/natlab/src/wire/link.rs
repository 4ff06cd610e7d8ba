//! What a wire does to packets, as settings ([`Link`]) and as a pure machine ([`Line`]): when does this packet arrive, if at all?
//!
//! Owns the arithmetic of delay, jitter, loss, rate and queue. Refuses to know sockets, threads and the clock: it is handed `now`, so
//! that its tests need no time. Packets never overtake each other, as on nearly every real path.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

/// What one direction of a wire does. The default is a perfect wire.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Link {
    /// Time from one end to the other, one way, beside what the queue adds.
    pub delay: Duration,
    /// Each packet takes up to so much longer, evenly spread; order is kept.
    pub jitter: Duration,
    /// Part of the packets that get lost at random, 0 to 1, each for itself.
    pub loss: f64,
    /// How fast packets leave the queue, and how long the queue is; `None`: as fast as they come.
    pub bottleneck: Option<Bottleneck>,
}

/// A slow hop with a queue before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bottleneck {
    /// Bits of IP packets per second.
    pub bits_per_s: u64,
    /// Bytes that may wait; what comes on top is dropped (drop-tail).
    pub queue_bytes: u64,
}

impl Link {
    /// A wire with nothing but a one-way delay.
    #[must_use]
    pub fn delay(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// The same, losing this part of the packets (0 to 1).
    #[must_use]
    pub fn with_loss(self, loss: f64) -> Self {
        Self { loss, ..self }
    }

    /// The same, at this rate behind a queue of this length.
    #[must_use]
    pub fn with_bottleneck(self, bits_per_s: u64, queue_bytes: u64) -> Self {
        Self { bottleneck: Some(Bottleneck { bits_per_s, queue_bytes }), ..self }
    }
}

/// A text that is no [`Link`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` says nothing about a link: delay=20ms jitter=2ms loss=1% rate=100mbit queue=500k, with commas between"
)]
pub struct LinkTextError(String);

impl FromStr for Link {
    type Err = LinkTextError;

    /// Reads `delay=20ms,jitter=2ms,loss=0.1%,rate=100mbit,queue=500k`, every part optional. A rate without a queue gets one of
    /// a tenth of a second.
    fn from_str(text: &str) -> Result<Self, LinkTextError> {
        let wrong = || LinkTextError(text.to_owned());
        let mut link = Self::default();
        let (mut rate, mut queue) = (None, None);
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(wrong)?;
            match name {
                "delay" => link.delay = milliseconds(value).ok_or_else(wrong)?,
                "jitter" => link.jitter = milliseconds(value).ok_or_else(wrong)?,
                "loss" => link.loss = percent(value).ok_or_else(wrong)?,
                "rate" => rate = Some(scaled(value, &RATE_UNITS).ok_or_else(wrong)?),
                "queue" => queue = Some(scaled(value, &BYTE_UNITS).ok_or_else(wrong)?),
                _ => return Err(wrong()),
            }
        }
        link.bottleneck = match (rate, queue) {
            (None, None) => None,
            (None, Some(_)) => return Err(wrong()),
            (Some(bits_per_s), queue) => {
                Some(Bottleneck { bits_per_s, queue_bytes: queue.unwrap_or(bits_per_s / 80) })
            }
        };
        Ok(link)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (delay, jitter) = (self.delay.as_secs_f64() * 1e3, self.jitter.as_secs_f64() * 1e3);
        write!(f, "delay={delay}ms,jitter={jitter}ms,loss={}%", self.loss * 100.0)?;
        if let Some(Bottleneck { bits_per_s, queue_bytes }) = self.bottleneck {
            write!(f, ",rate={}kbit,queue={queue_bytes}", bits_per_s as f64 / 1e3)?;
        }
        Ok(())
    }
}

const RATE_UNITS: [(&str, f64); 3] = [("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3)];
const BYTE_UNITS: [(&str, f64); 3] = [("m", 1e6), ("k", 1e3), ("", 1.0)];

fn milliseconds(text: &str) -> Option<Duration> {
    let ms: f64 = text.strip_suffix("ms")?.parse().ok()?;
    Duration::try_from_secs_f64(ms / 1e3).ok()
}

fn percent(text: &str) -> Option<f64> {
    let percent: f64 = text.strip_suffix('%')?.parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent / 100.0)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded, and checked to be positive and below 2^53"
)]
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<u64> {
    let (number, unit) = units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    let value = (number.parse::<f64>().ok()? * unit).round();
    (1.0..9e15).contains(&value).then_some(value as u64)
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It arrives then.
    ArrivesAt(Instant),
    /// It is lost at random.
    Lost,
    /// The queue had no room for it.
    Overflowed,
}

/// One direction of a wire.
#[derive(Debug)]
pub(super) struct Line {
    link: Link,
    chance: Chance,
    /// When the slow hop has sent all that waits before it.
    free_at: Option<Instant>,
    /// When the last packet arrives: no later one may be sooner.
    last_arrival: Option<Instant>,
}

impl Line {
    pub(super) fn new(link: Link, seed: u64) -> Self {
        Self { link, chance: Chance(seed), free_at: None, last_arrival: None }
    }

    /// Changes the settings; packets on their way keep their time of arrival.
    pub(super) fn set(&mut self, link: Link) {
        self.link = link;
        self.free_at = None;
    }

    /// Decides about one IP packet of `bytes` that enters at `now`.
    pub(super) fn offer(&mut self, now: Instant, bytes: usize) -> Fate {
        // Always drawn, so that the n-th packet's luck depends on the seed alone.
        let is_lost = self.chance.next_unit() < self.link.loss;
        let late = self.link.jitter.mul_f64(self.chance.next_unit());
        let Some(sent) = self.through_bottleneck(now, bytes as u64) else { return Fate::Overflowed };
        if is_lost {
            return Fate::Lost;
        }
        let arrival = (sent + self.link.delay + late).max(self.last_arrival.unwrap_or(now));
        self.last_arrival = Some(arrival);
        Fate::ArrivesAt(arrival)
    }

    /// When the packet has left the slow hop; `None` if its queue is full.
    fn through_bottleneck(&mut self, now: Instant, bytes: u64) -> Option<Instant> {
        let Some(Bottleneck { bits_per_s, queue_bytes }) = self.link.bottleneck else { return Some(now) };
        let free_at = self.free_at.unwrap_or(now).max(now);
        let waiting = (free_at - now).as_nanos() * u128::from(bits_per_s) / 8 / NANOS_PER_S;
        if waiting + u128::from(bytes) > u128::from(queue_bytes) {
            return None;
        }
        let takes = u128::from(bytes) * 8 * NANOS_PER_S / u128::from(bits_per_s);
        let sent = free_at + Duration::from_nanos(u64::try_from(takes).ok()?);
        self.free_at = Some(sent);
        Some(sent)
    }
}

const NANOS_PER_S: u128 = 1_000_000_000;

/// SplitMix64: small, good enough for luck, and the same on every machine and in every year.
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    /// A number from 0 up to, but not including, 1.
    fn next_unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_link_is_read_as_it_is_written() {
        let link: Link = "delay=20ms,jitter=2.5ms,loss=0.1%,rate=100mbit,queue=500k".parse().unwrap();
        assert_eq!(link.delay, 20 * MS);
        assert_eq!(link.jitter, Duration::from_micros(2_500));
        assert!((link.loss - 0.001).abs() < 1e-12);
        assert_eq!(link.bottleneck, Some(Bottleneck { bits_per_s: 100_000_000, queue_bytes: 500_000 }));
        assert_eq!(link.to_string().parse(), Ok(link));
        assert_eq!("".parse(), Ok(Link::default()));
    }

    #[test]
    fn a_text_that_is_no_link_is_named() {
        for text in
            ["delay", "delay=20", "loss=101%", "loss=-1%", "rate=fast", "rate=0mbit", "queue=5k", "hops=3"]
        {
            assert_eq!(text.parse::<Link>(), Err(LinkTextError(text.to_owned())));
        }
    }

    #[test]
    fn packets_arrive_after_the_delay_and_in_order() {
        let start = Instant::now();
        let mut line = Line::new(Link { jitter: 5 * MS, ..Link::delay(20 * MS) }, 1);
        let mut last = start;
        for step in 0..1_000 {
            let now = start + MS / 10 * step;
            let Fate::ArrivesAt(arrival) = line.offer(now, 1_500) else { panic!("nothing is lost here") };
            assert!(arrival >= now + 20 * MS && arrival >= last);
            assert!(arrival <= now + 25 * MS);
            last = arrival;
        }
    }

    #[test]
    fn the_set_part_is_lost_and_the_same_packets_each_time() {
        let lost = |seed| {
            let mut line = Line::new(Link::default().with_loss(0.01), seed);
            let now = Instant::now();
            (0..100_000).filter(|_| line.offer(now, 1_500) == Fate::Lost).collect::<Vec<u32>>()
        };
        assert!((900..1_100).contains(&lost(7).len()), "{} of 100,000 lost", lost(7).len());
        assert_eq!(lost(7), lost(7));
        assert_ne!(lost(7), lost(8));
    }

    #[test]
    fn a_bottleneck_spaces_packets_and_drops_what_its_queue_cannot_hold() {
        // 12 Mbit/s: one 1,500-byte packet each millisecond.
        let start = Instant::now();
        let mut line = Line::new(Link::delay(10 * MS).with_bottleneck(12_000_000, 4_500), 1);
        for place in 1..=3 {
            assert_eq!(line.offer(start, 1_500), Fate::ArrivesAt(start + 10 * MS + place * MS));
        }
        assert_eq!(line.offer(start, 1_500), Fate::Overflowed);
        assert_eq!(line.offer(start + MS, 1_500), Fate::ArrivesAt(start + 14 * MS));
    }
}
