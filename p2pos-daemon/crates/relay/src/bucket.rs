//! A token bucket in eight bytes, with room kept free for what matters more.
//!
//! Instead of tokens it keeps the moment at which the bucket would be full again (the "theoretical arrival time" of
//! the generic cell rate algorithm, ITU-T I.371): no timer refills it, and an unused one costs nothing. A taker may be
//! held to a part of the burst: bulk that may drain the bucket to 40 % leaves those 40 % to interactive traffic.
//!
//! Refuses to know: whose bytes, and what happens to those that do not fit.

/// Parts of a whole, in percent.
pub(crate) const WHOLE_PERCENT: u64 = 100;

const NANOS_PER_S: u128 = 1_000_000_000;

/// The longest time to fill a bucket, in nanoseconds: above it, percentages of it would overflow.
const BURST_NS_MAX: u64 = u64::MAX / WHOLE_PERCENT;

/// How many bits of a nanosecond the cost of a byte is kept with: at 1 GB/s a byte costs 1 ns, and rounding that to
/// whole nanoseconds would be wrong by half at twice the rate.
const COST_BITS: u32 = 16;

/// How fast, and how much at once. The slowest rate is one byte a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    bytes_per_s: u64,
    burst_bytes: u64,
    /// Nanoseconds for a byte, times 2^16.
    cost: u64,
    burst_ns: u64,
}

/// The state of one bucket. Full at first. Times are nanoseconds since any fixed moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bucket {
    full_at: u64,
}

impl Rate {
    /// Builds a rate. A burst that takes longer than five years to fill is cut to that.
    #[must_use]
    pub const fn new(bytes_per_s: u64, burst_bytes: u64) -> Self {
        let bytes_per_s = if bytes_per_s == 0 { 1 } else { bytes_per_s };
        // The quotients are below 2^47 and, cut, below 2^58: the casts lose nothing.
        #[expect(clippy::cast_possible_truncation, reason = "bounded in the line above each")]
        let cost = ((NANOS_PER_S << COST_BITS) / bytes_per_s as u128) as u64;
        let burst_ns = burst_bytes as u128 * NANOS_PER_S / bytes_per_s as u128;
        let burst_ns = if burst_ns > BURST_NS_MAX as u128 { BURST_NS_MAX as u128 } else { burst_ns };
        #[expect(clippy::cast_possible_truncation, reason = "cut in the line above")]
        Self { bytes_per_s, burst_bytes, cost, burst_ns: burst_ns as u64 }
    }

    /// Returns the sustained rate.
    #[must_use]
    pub fn bytes_per_s(self) -> u64 {
        self.bytes_per_s
    }

    /// Returns what passes at once after a rest.
    #[must_use]
    pub fn burst_bytes(self) -> u64 {
        self.burst_bytes
    }
}

impl Bucket {
    /// Tells whether `bytes` fit into `percent` of the burst, and takes nothing.
    pub(crate) fn holds(self, rate: Rate, now: u64, bytes: usize, percent: u64) -> bool {
        self.after(rate, now, bytes) - now <= rate.burst_ns * percent / WHOLE_PERCENT
    }

    /// Takes `bytes`; asked before with [`Bucket::holds`].
    pub(crate) fn take(&mut self, rate: Rate, now: u64, bytes: usize) {
        self.full_at = self.after(rate, now, bytes);
    }

    fn after(self, rate: Rate, now: u64, bytes: usize) -> u64 {
        // A frame has at most 1,469 bytes and a byte costs at most 2^46: no overflow within a frame's size.
        let cost = (rate.cost.saturating_mul(bytes as u64)) >> COST_BITS;
        self.full_at.max(now).saturating_add(cost)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn the_burst_passes_at_once_and_then_the_rate() {
        let rate = Rate::new(1000, 4000);
        let mut bucket = Bucket::default();
        assert_eq!(drain(&mut bucket, rate, 5 * S, WHOLE_PERCENT), 4000);
        assert_eq!(drain(&mut bucket, rate, 6 * S, WHOLE_PERCENT), 1000);
        assert_eq!(drain(&mut bucket, rate, 60 * S, WHOLE_PERCENT), 4000, "never more than the burst");
    }

    #[test]
    fn who_may_drain_it_to_a_half_leaves_the_other_half() {
        let rate = Rate::new(1000, 4000);
        let mut bucket = Bucket::default();
        assert_eq!(drain(&mut bucket, rate, 0, 50), 2000);
        assert_eq!(drain(&mut bucket, rate, 0, WHOLE_PERCENT), 2000);
    }

    #[test]
    fn extreme_rates_neither_overflow_nor_let_everything_through() {
        for rate in [Rate::new(0, 10), Rate::new(u64::MAX, u64::MAX), Rate::new(1, u64::MAX)] {
            let mut bucket = Bucket::default();
            bucket.take(rate, u64::MAX / 2, 1469);
            bucket.holds(rate, u64::MAX / 2, 1469, WHOLE_PERCENT);
        }
        assert!(!Bucket::default().holds(Rate::new(0, 10), 0, 11, WHOLE_PERCENT));
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_passes_more_than_burst_and_rate_allow(gaps in prop::collection::vec(0..20_000_000_u64, 1..200)) {
            let rate = Rate::new(100_000, 10_000);
            let (mut bucket, mut now, mut passed) = (Bucket::default(), 0, 0_u64);
            for gap in gaps {
                now += gap;
                if bucket.holds(rate, now, 1000, WHOLE_PERCENT) {
                    bucket.take(rate, now, 1000);
                    passed += 1000;
                }
                prop_assert!(passed <= 10_000 + now / 10_000 + 1);
            }
        }
    }

    fn drain(bucket: &mut Bucket, rate: Rate, now: u64, percent: u64) -> u64 {
        let mut passed = 0;
        while bucket.holds(rate, now, 100, percent) {
            bucket.take(rate, now, 100);
            passed += 100;
        }
        passed
    }
}
