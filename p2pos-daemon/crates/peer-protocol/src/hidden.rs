//! Bytes that a message carries and no log may show: tokens and keys of relay flows.
//!
//! Refuses to know: what they open. `==` is for tests and for finding equal messages; whoever checks a secret compares
//! in constant time.

use std::fmt;

use bytes::Bytes;

/// Secret bytes of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hidden<const N: usize>(pub [u8; N]);

impl<const N: usize> Hidden<N> {
    pub(crate) fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}

impl<const N: usize> fmt::Debug for Hidden<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(..)")
    }
}
