//! Keys and tags of a flow: who may put frames on it.
//!
//! A side of a flow has one key, shared with the relay and with nobody else. Its tag is SipHash-1-3 over the frame
//! without the tag. SipHash makes 64-bit tags without a nonce and keeps 16 bytes of state for a key, where AES-GCM of
//! `ring` keeps 544 and takes twice the time on 1,200 bytes (decision 0017 has the figures). What a forger would win is
//! one junk packet on somebody's flow, which QUIC drops.
//!
//! Refuses to know: addresses, counters, what a frame says.

use std::{fmt, hash::Hasher as _};

use siphasher::sip::SipHasher13;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroize;

use crate::{
    frame::TAG_AT,
    sip::{Message, siphash_1_3},
};

/// Bytes of a tag. 64 bits: at a million forged frames a second a right one takes 300,000 years on average. Half of it
/// would fall in an hour; double would cost eight bytes of every packet for nothing.
pub const TAG_BYTES: usize = 8;

/// Bytes of a flow key.
pub const KEY_BYTES: usize = 16;

/// The key with which one side of one flow signs its frames to the relay. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct FlowKey([u8; KEY_BYTES]);

/// The tag of a frame. Compared only in constant time; that is why this type has no `==`.
#[derive(Clone, Copy)]
pub struct Tag(pub [u8; TAG_BYTES]);

impl FlowKey {
    /// Takes the bytes of a key: fresh random ones at the relay, those of its answer at a side.
    #[must_use]
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes, to be told to the side inside an encrypted connection.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; KEY_BYTES] {
        self.0
    }

    /// Computes the tag over the head without its tag, and the payload.
    #[must_use]
    pub fn tag(&self, head: &[u8], payload: &[u8]) -> Tag {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write(head);
        hasher.write(payload);
        Tag(hasher.finish().to_le_bytes())
    }

    /// Computes the tags of frames of one length side by side, which takes two thirds of the time.
    ///
    /// # Panics
    /// The payloads are of several lengths, or shorter than any frame's.
    pub(crate) fn tags<const N: usize>(&self, frames: [(&[u8; TAG_AT], &[u8]); N]) -> [Tag; N] {
        let messages =
            frames.map(|([first @ .., ninth], rest)| Message { first: *first, ninth: *ninth, rest });
        siphash_1_3(&self.0, messages).map(|tag| Tag(tag.to_le_bytes()))
    }
}

impl Tag {
    /// Compares in constant time: as one number, since `subtle` guards each part of a comparison, and eight guards for eight bytes
    /// were 6 % of a small packet's way through a relay.
    #[must_use]
    pub fn is(self, other: Self) -> bool {
        u64::from_le_bytes(self.0).ct_eq(&u64::from_le_bytes(other.0)).into()
    }
}

impl Drop for FlowKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FlowKey(..)")
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tag(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_siphash_1_3_of_the_joined_bytes() {
        // The first and the ninth vector of the reference implementation of SipHash-1-3, key 00 01 .. 0f.
        let key = FlowKey::new(std::array::from_fn(|at| u8::try_from(at).unwrap()));
        assert_eq!(key.tag(&[], &[]).0, [0xdc, 0xc4, 0x0f, 0x05, 0x58, 0x01, 0xac, 0xab]);
        assert_eq!(key.tag(&[0, 1, 2, 3], &[4, 5, 6, 7]).0, key.tag(&[0, 1, 2, 3, 4, 5, 6, 7], &[]).0);
    }

    #[test]
    fn tags_that_differ_in_any_one_bit_differ() {
        let tag = Tag([0xa5; TAG_BYTES]);
        assert!(tag.is(Tag([0xa5; TAG_BYTES])));
        for bit in 0..8 * TAG_BYTES {
            let mut other = tag;
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert!(!tag.is(other), "bit {bit}");
        }
    }

    #[test]
    fn neither_keys_nor_tags_are_ever_printed() {
        assert_eq!(format!("{:?} {:?}", FlowKey::new([7; 16]), Tag([7; 8])), "FlowKey(..) Tag(..)");
    }
}
