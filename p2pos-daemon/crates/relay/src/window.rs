//! Which counts of a sender were seen: the sliding window of RFC 6479, in 68 bytes.
//!
//! A count is good once. Counts older than the window are bad, since nobody remembers them. Refuses to know: tags.
//! Show it only counts whose tag was right, or a stranger moves the window.

/// How far a frame may arrive behind the newest one, in frames. Wi-Fi and several-queue network cards reorder by tens;
/// at half of this a burst of 1 Gbit/s reordered by 3 ms would begin to lose, and double costs 64 bytes for each side.
pub(crate) const WINDOW_FRAMES: u32 = 512;

const WORD_BITS: u32 = u64::BITS;
const WORDS: usize = (WINDOW_FRAMES / WORD_BITS) as usize;

/// The counts seen of one sender. At first, none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ReplayWindow {
    newest: u32,
    /// One bit for each of the newest 512 counts, at its place modulo 512.
    seen: [u64; WORDS],
}

impl ReplayWindow {
    /// Takes note of a count; `false` if it was seen before, is too old to know, or is 0, which nobody sends.
    pub(crate) fn accept(&mut self, counter: u32) -> bool {
        if counter == 0 || (counter <= self.newest && self.newest - counter >= WINDOW_FRAMES) {
            return false;
        }
        if counter > self.newest {
            self.forget_up_to(counter);
            self.newest = counter;
        }
        let (word, bit) = place(counter);
        let is_new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        is_new
    }

    /// Clears the places of the counts between the newest and this one, which are the places of counts now too old.
    fn forget_up_to(&mut self, counter: u32) {
        if counter - self.newest >= WINDOW_FRAMES {
            self.seen = [0; WORDS];
            return;
        }
        for passed in self.newest + 1..=counter {
            let (word, bit) = place(passed);
            self.seen[word] &= !bit;
        }
    }
}

fn place(counter: u32) -> (usize, u64) {
    let at = counter % WINDOW_FRAMES;
    ((at / WORD_BITS) as usize, 1 << (at % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_count_of_all_is_good_once() {
        let mut window = ReplayWindow::default();
        assert!(window.accept(u32::MAX) && !window.accept(u32::MAX));
        assert!(window.accept(u32::MAX - WINDOW_FRAMES + 1));
        assert!(!window.accept(u32::MAX - WINDOW_FRAMES) && !window.accept(0));
    }

    proptest! {
        #[test]
        fn it_says_what_a_set_of_all_counts_would_say(steps in prop::collection::vec(-600..700_i64, 1..400)) {
            let (mut window, mut all, mut newest) = (ReplayWindow::default(), BTreeSet::new(), 0_i64);
            for step in steps {
                let count = (newest + step).max(0);
                let expected = count > 0 && newest - count < i64::from(WINDOW_FRAMES) && !all.contains(&count);
                prop_assert_eq!(window.accept(u32::try_from(count).unwrap()), expected);
                if expected {
                    all.insert(count);
                    newest = newest.max(count);
                }
            }
        }
    }
}
