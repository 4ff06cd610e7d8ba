//! Numbers that look random, from a seed that the caller brings: pure machines have no randomness of their own.
//!
//! SplitMix64 (Steele, Lea, Flood 2014): a counter and a mixer, eight lines, every seed as good as another. With a seed
//! from the operating system nobody outside guesses a token; whoever is told one could compute the next, and is told
//! that anyway. Never use it for keys.

/// The increment of SplitMix64: 2^64 divided by the golden ratio, made odd.
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// A source of numbers. The same seed gives the same numbers.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Starts from a seed; the operating system's randomness outside of tests.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Returns the next number.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `limit`; 0 if the limit is 0. The bias of the multiplication is below 2^-32 for every
    /// limit here.
    pub fn below(&mut self, limit: u32) -> u32 {
        let high = self.next_u64() >> 32;
        u32::try_from((high * u64::from(limit)) >> 32)
            .expect("32 bits times 32 bits, shifted by 32, has 32 bits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_published_algorithm() {
        let mut random = Random::from_seed(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn every_number_below_a_limit_comes_and_none_above() {
        let mut random = Random::from_seed(7);
        let mut seen = [false; 10];
        for _ in 0..1_000 {
            seen[usize::try_from(random.below(10)).unwrap()] = true;
        }
        assert_eq!(seen, [true; 10]);
        assert_eq!(random.below(0), 0);
    }
}
