//! The localhost protocol between plugins and the daemon, and the Rust SDK for plugins.
//!
//! A plugin is a program in any language that speaks to its daemon over one local socket. This crate owns what
//! travels on that socket (SPEC.md beside it is the contract), from the bytes up:
//!
//! | module | what it is | pure? |
//! |---|---|---|
//! | [`code`] | the error numbers, with name and hint | yes |
//! | [`limits`] | every limit, with unit and reason | yes |
//! | [`frame`] | length prefix, the first-byte rule, the fast path of `Data` | yes |
//! | [`message`] | our own validated types; the protobuf types never leave this crate | yes |
//! | [`hello`] | the handshake machine, both roles | yes |
//! | [`streams`] | the stream-and-credit machine, both roles | yes |
//! | `driver` | one task per session that owns a socket and the machines | tokio (feature `driver`) |
//! | `client` | the SDK for plugins in Rust | tokio (feature `client`) |
//!
//! The pure modules know no socket, clock, randomness or environment: whoever drives them brings those along. The
//! crate refuses to know what a peer's address is, what a manifest says, and whether a plugin may do what it asks:
//! that is the host's.

pub mod code;
pub mod frame;
pub mod hello;
pub mod limits;
pub mod message;
pub mod streams;

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "driver")]
pub mod driver;

#[expect(
    unreachable_pub,
    unnameable_types,
    reason = "generated; it is the generator's to write, and nobody outside sees it"
)]
mod pb {
    pub(crate) mod plugin_v1;
}
