//! Which ports to guess, in which order: predicted, then the block, then anywhere; none twice.
//!
//! A sequential NAT gave the sockets of the hard side one port after the other, starting somewhere behind the last one
//! that was seen: other connections may have taken some between. `n` sockets in a row are hit by any guess that lies
//! within them, so guesses half a row apart reach far: eight of them cover the next 4 `n` ports.

use crate::{
    guess::{PREDICTED_MAX, SOCKETS_MAX},
    nat::{PortPattern, PortRange},
    random::Random,
    signal::GuessStart,
};

/// An endless supply of ports, until each was there once.
#[derive(Debug)]
pub struct PortGuesses {
    predicted: Vec<u16>,
    block: Option<PortRange>,
    /// Guessed already: one bit for each port.
    done: Vec<u64>,
    /// Ports of the block, and of all, that are not guessed yet.
    left_in_block: u32,
    left: u32,
    random: Random,
}

impl PortGuesses {
    /// Starts from what the hard side says about its NAT.
    #[must_use]
    pub fn new(start: &GuessStart, random: Random) -> Self {
        let block = match start.pattern {
            PortPattern::Block(range) => {
                PortRange::new(range.first().max(PortRange::DYNAMIC.first()), range.last())
            }
            PortPattern::Sequential { .. } | PortPattern::Random | PortPattern::Unknown => None,
        };
        Self {
            predicted: predicted(start),
            block,
            done: vec![0; usize::from(u16::MAX) / 64 + 1],
            left_in_block: block.map_or(0, PortRange::count),
            left: PortRange::DYNAMIC.count(),
            random,
        }
    }

    fn take(&mut self, port: u16) -> bool {
        let (word, bit) = (usize::from(port / 64), 1 << (port % 64));
        if port < PortRange::DYNAMIC.first() || self.done[word] & bit != 0 {
            return false;
        }
        self.done[word] |= bit;
        self.left -= 1;
        self.left_in_block -= u32::from(self.block.is_some_and(|block| block.contains(port)));
        true
    }
}

impl Iterator for PortGuesses {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        while let Some(port) = self.predicted.pop() {
            if self.take(port) {
                return Some(port);
            }
        }
        if self.left == 0 {
            return None;
        }
        let range = self.block.filter(|_| self.left_in_block > 0).unwrap_or(PortRange::DYNAMIC);
        // A port that was there already is drawn again. An attempt ends long before this becomes slow: after 1,024
        // guesses, a block of 1,024 has cost 7,700 draws.
        loop {
            let above =
                u16::try_from(self.random.below(range.count())).expect("a range of ports has at most 65,536");
            let port = range.first() + above;
            if self.take(port) {
                return Some(port);
            }
        }
    }
}

/// The predicted ports, the likeliest last, so that they can be popped.
fn predicted(start: &GuessStart) -> Vec<u16> {
    let PortPattern::Sequential { delta } = start.pattern else {
        return Vec::new();
    };
    if start.base_port == 0 {
        return Vec::new();
    }
    let half_a_row = (i32::from(start.sockets.min(SOCKETS_MAX)) / 2).max(1);
    let ports = (1..=i32::from(PREDICTED_MAX)).rev();
    ports
        .filter_map(|row| {
            u16::try_from(i32::from(start.base_port) + row * half_a_row * i32::from(delta)).ok()
        })
        .filter(|port| *port >= PortRange::DYNAMIC.first())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn predicted_ports_come_first_half_a_row_apart() {
        let start = GuessStart { base_port: 20_000, ..start(PortPattern::Sequential { delta: 2 }) };
        let first: Vec<u16> = PortGuesses::new(&start, Random::from_seed(1)).take(8).collect();
        assert_eq!(first, [20_064, 20_128, 20_192, 20_256, 20_320, 20_384, 20_448, 20_512]);
    }

    #[test]
    fn a_block_is_tried_whole_before_anything_else() {
        let range = PortRange::new(20_480, 21_503).unwrap();
        let guesses = PortGuesses::new(&start(PortPattern::Block(range)), Random::from_seed(1));
        let tried: BTreeSet<u16> = guesses.take(1_024).collect();
        assert_eq!(tried, (20_480..=21_503).collect());
    }

    #[test]
    fn every_port_comes_once_and_then_none() {
        let mut tried: Vec<u16> =
            PortGuesses::new(&start(PortPattern::Random), Random::from_seed(1)).collect();
        tried.sort_unstable();
        assert_eq!(tried, (1024..=u16::MAX).collect::<Vec<u16>>());
    }

    #[test]
    fn an_invitation_with_absurd_numbers_does_not_overflow_the_prediction() {
        let pattern = PortPattern::Sequential { delta: i16::MIN };
        let start = GuessStart { base_port: 1, sockets: u16::MAX, ..start(pattern) };
        assert_eq!(PortGuesses::new(&start, Random::from_seed(1)).take(9).count(), 9);
    }

    proptest! {
        #[test]
        fn no_invitation_makes_us_repeat_a_port_or_guess_a_well_known_one(
            seed: u64, base_port: u16, delta: i16, first: u16, last: u16, sockets: u16, kind in 0..3,
        ) {
            let pattern = match (kind, PortRange::new(first, last)) {
                (0, _) => PortPattern::Sequential { delta },
                (1, Some(range)) => PortPattern::Block(range),
                _ => PortPattern::Random,
            };
            let start = GuessStart { base_port, sockets, ..start(pattern) };
            let ports: Vec<u16> = PortGuesses::new(&start, Random::from_seed(seed)).take(1_500).collect();
            let different: BTreeSet<u16> = ports.iter().copied().collect();
            prop_assert_eq!(different.len(), ports.len());
            prop_assert!(ports.iter().all(|port| *port >= PortRange::DYNAMIC.first()));
        }
    }

    fn start(pattern: PortPattern) -> GuessStart {
        GuessStart { attempt: 1, token: 9, address: [45, 9, 9, 9].into(), base_port: 0, pattern, sockets: 64 }
    }
}
