//! Real daemons, real plugins, real sockets: what only the whole can show.
//!
//! One test binary, so that the daemon is linked once. Tests share nothing but the machine; each has daemons of its own.

#![expect(clippy::unwrap_used, reason = "a test that fails should say so at once")]

mod daemon;
mod detached;
mod disconnects;
mod disk;
mod gone;
mod hot_path;
mod kills;
mod plugin;
mod rogue;
mod strangers;
mod unreachable;
