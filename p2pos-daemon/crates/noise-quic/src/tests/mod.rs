//! Tests of the whole crate: two real noq endpoints in one thread, in virtual time, over a network that loses,
//! repeats, delays and rewrites what it is told to. Each test is named after what it prevents; the files follow the
//! pitfalls of a Noise handshake on QUIC (NOISE-QUIC.md s10).

mod craft;
mod establish;
mod interplay;
mod rekey;
mod retry_and_return;
mod session;
mod silence;
mod unproven;
mod vectors;
mod world;
