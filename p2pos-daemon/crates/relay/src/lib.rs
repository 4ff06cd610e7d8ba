//! Relaying: the frames that a relay forwards without reading them, and the machines of both sides.
//!
//! | module | what it is |
//! |---|---|
//! | `frame` | the 17 bytes before each packet, and the four control messages that prove an address |
//! | `mac`, `sip` | [`FlowKey`] and [`Tag`]; the tags of several frames side by side |
//! | `end` | [`FlowEnd`]: a user's end of a flow |
//! | [`tcp`] | the same frames on a TCP connection |
//! | `service` | [`Service`]: the relay's side: leases, circuits, forwarding, limits |
//! | `bucket`, `window`, `address`, `stamp` | its parts: rates, replays, where it may send, work for strangers |
//! | [`lease`], [`circuit`] | the user's side: two leases kept, and which relay carries what |
//! | `queue` | [`ClassQueue`]: what waits for a full socket |
//! | `mode` | [`RelayMode`], which the user sets |
//!
//! Floor 1: no socket, clock, task or randomness. Refuses to know: what is inside a packet (it is encrypted end to end,
//! and the relay has no key). The specification is `RELAY.md` beside this crate; DESIGN section 7 has the decisions.

mod address;
mod bucket;
pub mod circuit;
mod end;
mod frame;
pub mod lease;
mod mac;
mod mode;
mod queue;
mod service;
mod sip;
mod stamp;
pub mod tcp;
mod window;

pub use crate::{
    address::Via,
    bucket::Rate,
    end::{FRAMES_MAX, FlowEnd, OpenError, Opened},
    frame::{
        ANSWER_BYTES, ASK_BYTES, COOKIE_BYTES, Control, ControlFrame, FIRST_BYTE, FRAME_BYTES_MAX, Frame,
        FrameError, HEAD_BYTES, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN, Vni, decode, encode_head,
    },
    mac::{FlowKey, KEY_BYTES, TAG_BYTES, Tag},
    mode::{RelayMode, UnknownRelayMode},
    queue::{ClassQueue, FLOW_QUEUE_PACKETS},
    service::{
        Ahead, Asker, Call, Class, Dropped, ENTROPY_BYTES, Entropy, Flow, FlowEnding, FlowUse, LEASE_TIME,
        Lease, Limits, Notice, PeerUse, Refusal, RelaySettings, RelayStatus, Service, ServiceEvent,
        TOKEN_BYTES, Tariff, Traffic, Verdict,
    },
    stamp::{CHALLENGE_BYTES, STAMP_BITS, Search, Stamp},
};
