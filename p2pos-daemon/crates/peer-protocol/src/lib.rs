//! What two daemons say to each other inside a connection: the first message of a stream each way, the streams of the
//! daemons' own, the codes with which streams and connections end, and the head of a datagram.
//!
//! | module | what it is |
//! |---|---|
//! | `hello` | [`StreamHello`], [`StreamAnswer`]: validated types, and [`negotiate`] |
//! | `codec` | their bytes: u16 length and protobuf, with the incremental [`Decoder`] |
//! | [`signal`] | `/p2pos/signal/1`: finding a direct path |
//! | [`measure`] | `/p2pos/measure/1`: learning what one's own NAT does |
//! | [`relay`] | `/p2pos/relay/1`: leases and flows at a relay |
//! | `hidden`, `wire` | secrets in messages; addresses and numbers of both |
//! | `end_code` | [`EndCode`] and its place in a QUIC application error code |
//! | [`datagram`] | flow id and payload |
//!
//! Floor 1, pure: no socket, clock, task or randomness. Everything decoded here comes from a peer that may be hostile:
//! every size is limited before memory is spent, and nothing panics. Refuses to know: what a protocol carries, who may
//! open it, and how a stream gets its bytes. Follows DESIGN section 6; the shapes are in `proto/peer.proto`.

mod codec;
pub mod datagram;
mod end_code;
mod hello;
mod hidden;
pub mod measure;
pub mod relay;
pub mod signal;
mod wire;

#[allow(
    missing_docs,
    unreachable_pub,
    unnameable_types,
    clippy::all,
    reason = "generated; the .proto file carries the documentation"
)]
mod pb {
    pub(crate) mod peer_v1;
}

pub use crate::{
    codec::{Decoder, MESSAGE_BYTES_MAX, Message, MessageError},
    end_code::EndCode,
    hello::{
        Kind, PING_PROTOCOL, PROTOCOLS_MAX, RETRY_AFTER_MS_MAX, Refusal, RefusalCode, StreamAnswer,
        StreamHello, negotiate,
    },
    hidden::Hidden,
};
