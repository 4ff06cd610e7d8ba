//! SipHash-1-3 of several messages side by side (Aumasson and Bernstein, 2012): the same tags as one after the other, sooner.
//!
//! One SipHash waits for itself: each step needs the one before it, and most of a processor's arithmetic stands idle. Messages of one
//! length under one key are independent of each other, so their steps can fill the gaps: three or four of them take little longer than
//! one. A relay has such messages all the time, since QUIC fills a train with packets of one size.
//!
//! Refuses to know: frames. A message here is a first word, and then the rest.

/// One message: its first eight bytes, and what follows. The rest of all messages that are hashed together is of one length.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) first: [u8; 8],
    /// One byte before the rest, which a head of nine bytes leaves over.
    pub(crate) ninth: u8,
    pub(crate) rest: &'a [u8],
}

/// Bytes before the rest.
const HEAD_BYTES: usize = 9;
/// Bytes of the rest that complete the second word.
const SECOND_BYTES: usize = 7;

/// The state of `N` hashes: each of the four words for all of them together.
struct State<const N: usize>([[u64; N]; 4]);

/// Hashes messages of one length. The rest of each has at least seven bytes.
pub(crate) fn siphash_1_3<const N: usize>(key: &[u8; 16], messages: [Message<'_>; N]) -> [u64; N] {
    let length = messages.first().map_or(SECOND_BYTES, |message| message.rest.len());
    assert!(
        length >= SECOND_BYTES && messages.iter().all(|message| message.rest.len() == length),
        "messages that are hashed together are of one length"
    );
    let mut state = State::new(key);
    state.take(messages.map(|message| u64::from_le_bytes(message.first)));
    let mut second = messages.map(|message| u64::from(message.ninth));
    let rests = messages.map(|message| message.rest);
    for (word, rest) in second.iter_mut().zip(rests) {
        *word |= tail(&rest[..SECOND_BYTES]) << 8;
    }
    state.take(second);
    let cut = rests.map(|rest| rest[SECOND_BYTES..].as_chunks::<8>());
    for at in 0..(length - SECOND_BYTES) / 8 {
        state.take(std::array::from_fn(|lane| u64::from_le_bytes(cut[lane].0[at])));
    }
    // Of the length only the last byte counts: that is how SipHash is defined.
    let whole = ((HEAD_BYTES + length) as u64) << 56;
    state.take(cut.map(|(_, rest)| whole | tail(rest)));
    state.finish()
}

impl<const N: usize> State<N> {
    fn new(key: &[u8; 16]) -> Self {
        let (k0, k1) = (word(&key[..8]), word(&key[8..]));
        Self([
            [k0 ^ 0x736f_6d65_7073_6575; N],
            [k1 ^ 0x646f_7261_6e64_6f6d; N],
            [k0 ^ 0x6c79_6765_6e65_7261; N],
            [k1 ^ 0x7465_6462_7974_6573; N],
        ])
    }

    /// One word of each message: one round.
    #[inline(always)]
    fn take(&mut self, words: [u64; N]) {
        for (state, word) in self.0[3].iter_mut().zip(words) {
            *state ^= word;
        }
        self.round();
        for (state, word) in self.0[0].iter_mut().zip(words) {
            *state ^= word;
        }
    }

    #[inline(always)]
    fn round(&mut self) {
        let [v0, v1, v2, v3] = &mut self.0;
        for lane in 0..N {
            v0[lane] = v0[lane].wrapping_add(v1[lane]);
            v2[lane] = v2[lane].wrapping_add(v3[lane]);
        }
        for lane in 0..N {
            v1[lane] = v1[lane].rotate_left(13) ^ v0[lane];
            v3[lane] = v3[lane].rotate_left(16) ^ v2[lane];
            v0[lane] = v0[lane].rotate_left(32);
        }
        for lane in 0..N {
            v2[lane] = v2[lane].wrapping_add(v1[lane]);
            v0[lane] = v0[lane].wrapping_add(v3[lane]);
        }
        for lane in 0..N {
            v1[lane] = v1[lane].rotate_left(17) ^ v2[lane];
            v3[lane] = v3[lane].rotate_left(21) ^ v0[lane];
            v2[lane] = v2[lane].rotate_left(32);
        }
    }

    fn finish(mut self) -> [u64; N] {
        for state in &mut self.0[2] {
            *state ^= 0xff;
        }
        for _ in 0..3 {
            self.round();
        }
        let [v0, v1, v2, v3] = self.0;
        std::array::from_fn(|lane| v0[lane] ^ v1[lane] ^ v2[lane] ^ v3[lane])
    }
}

/// The first eight bytes.
#[inline(always)]
fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect("a word has eight bytes"))
}

/// Fewer than eight bytes, as a word.
fn tail(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher as _;

    use siphasher::sip::SipHasher13;

    use super::*;

    const KEY: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

    #[test]
    fn side_by_side_gives_what_one_after_the_other_gives_for_every_length() {
        for length in SECOND_BYTES..=300 {
            let bytes: Vec<u8> = (0..=u8::MAX).cycle().step_by(31).take(4 * (length + HEAD_BYTES)).collect();
            let whole: Vec<&[u8]> = bytes.chunks(length + HEAD_BYTES).collect();
            let message = |lane: usize| Message {
                first: whole[lane][..8].try_into().unwrap(),
                ninth: whole[lane][8],
                rest: &whole[lane][HEAD_BYTES..],
            };
            let expected: [u64; 4] = std::array::from_fn(|lane| {
                let mut hasher = SipHasher13::new_with_key(&KEY);
                hasher.write(whole[lane]);
                hasher.finish()
            });
            assert_eq!(siphash_1_3(&KEY, std::array::from_fn::<_, 4, _>(message)), expected, "{length}");
            assert_eq!(siphash_1_3(&KEY, [message(2)]), [expected[2]], "{length}");
        }
    }

    #[test]
    #[should_panic(expected = "one length")]
    fn messages_of_two_lengths_are_not_hashed_together() {
        let message = |rest| Message { first: [0; 8], ninth: 0, rest };
        siphash_1_3(&KEY, [message(&[0; 30]), message(&[0; 31])]);
    }
}
