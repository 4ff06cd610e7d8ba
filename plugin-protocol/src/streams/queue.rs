//! Bytes that wait, in order: for their turn on the socket, or for their reader.
//!
//! Large pieces are kept as they came, without a copy. Small ones are copied together: otherwise a slow reader of tiny
//! frames would hold one read buffer per frame, and a fast writer of tiny pieces would cost one slice per piece. So
//! what a queue pins is bounded by a small multiple of what it holds.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Smallest block that small pieces are gathered in, in bytes: a lone 64-byte message costs one small allocation.
const BLOCK_BYTES_MIN: usize = 1024;

/// Largest such block, in bytes: a burst of small messages costs one allocation per 32 KiB.
const BLOCK_BYTES_MAX: usize = 32 * 1024;

/// A queue of bytes. The pieces `chunks`, then `tail`, which is still being gathered.
#[derive(Debug, Default)]
pub(super) struct ByteQueue {
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    bytes: usize,
}

impl ByteQueue {
    pub(super) const fn len(&self) -> usize {
        self.bytes
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Appends a piece without copying it.
    pub(super) fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        self.close_tail();
        self.chunks.push_back(piece);
    }

    /// Appends a copy of a piece.
    pub(super) fn push_copy(&mut self, piece: &[u8]) {
        if self.tail.capacity() - self.tail.len() < piece.len() {
            self.close_tail();
            let block = self.bytes.clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
            self.tail.reserve(piece.len().max(block));
        }
        self.tail.extend_from_slice(piece);
        self.bytes += piece.len();
    }

    /// Takes the next piece, cut to `bytes_max`.
    pub(super) fn pop(&mut self, bytes_max: usize) -> Option<Bytes> {
        if self.chunks.is_empty() {
            self.close_tail();
        }
        let front = self.chunks.front_mut()?;
        let piece =
            if front.len() > bytes_max { front.split_to(bytes_max) } else { self.chunks.pop_front()? };
        self.bytes -= piece.len();
        Some(piece)
    }

    /// Forgets everything, and gives the memory back.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order_whatever_the_cuts(
            pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..3000), any::<bool>()), 0..40),
            cuts in prop::collection::vec(1usize..2000, 1..10),
        ) {
            let mut queue = ByteQueue::default();
            let (mut put, mut got) = (Vec::new(), Vec::new());
            for (index, (piece, is_copied)) in pieces.iter().enumerate() {
                put.extend_from_slice(piece);
                if *is_copied { queue.push_copy(piece) } else { queue.push(Bytes::copy_from_slice(piece)) }
                if let Some(piece) = queue.pop(cuts[index % cuts.len()]) {
                    got.extend_from_slice(&piece);
                }
                prop_assert_eq!(queue.len(), put.len() - got.len());
            }
            while let Some(piece) = queue.pop(usize::MAX) {
                got.extend_from_slice(&piece);
            }
            prop_assert!(queue.is_empty());
            prop_assert_eq!(got, put);
        }
    }

    #[test]
    fn tiny_pieces_are_gathered_into_few_chunks() {
        let mut queue = ByteQueue::default();
        for _ in 0..65_536 {
            queue.push_copy(&[7; 4]);
        }
        let chunks = std::iter::from_fn(|| queue.pop(usize::MAX)).count();
        assert!(chunks <= 20, "{chunks} chunks for 256 KiB");
    }
}
