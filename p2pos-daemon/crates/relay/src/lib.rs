//! What a relay is asked to carry, and the head it reads on each packet.
//!
//! This crate holds what is decided and testable today: [`RelayMode`], which the user sets, and the codec of the data
//! frame. The machines that lease, bind and forward (reservations, circuits, their limits) come with the relay itself
//! and have their place here, pure like the rest; until then nothing in p2pOS relays, and `relay = off` is the default.
//!
//! Floor 1: no socket, clock, task or randomness. Refuses to know: what is inside a packet (it is encrypted end to end,
//! and the relay has no key), whose flow a number is, how a tag is computed. Follows DESIGN section 7.

mod frame;
mod mode;

pub use crate::{
    frame::{
        FIRST_BYTE, Frame, FrameError, HEAD_BYTES, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN, TAG_BYTES, Tag, Vni,
        decode, encode_head,
    },
    mode::{RelayMode, UnknownRelayMode},
};
