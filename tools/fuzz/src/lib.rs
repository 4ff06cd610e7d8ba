//! The fuzz targets: for each parser of bytes that strangers, plugins or users hand us, one function that feeds it any bytes
//! whatever and panics if a promise is broken.
//!
//! Owns the targets and the promises that they check beyond "does not panic". The same functions run under libFuzzer
//! (`cargo xtask fuzz`, tools/fuzz/engine) and, over the committed corpora, in the normal tests (tools/fuzz/tests). Knows no fuzzer.

mod first_bytes;
mod frames;
mod handshake;
mod identity;
mod input;
mod manifest;
mod noise;
mod peer;
mod probe;
mod relay;
mod streams;

/// One fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Also the name of its folder in the corpus.
    pub name: &'static str,
    /// Takes any bytes; panics if a promise is broken.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "first-bytes", run: first_bytes::run },
    Target { name: "frames", run: frames::run },
    Target { name: "handshake", run: handshake::run },
    Target { name: "manifest", run: manifest::run },
    Target { name: "noise-session", run: noise::run },
    Target { name: "peer-id-text", run: identity::run },
    Target { name: "peer-protocol", run: peer::run },
    Target { name: "probe", run: probe::run },
    Target { name: "relay", run: relay::run },
    Target { name: "stream-machine", run: streams::run_pair },
    Target { name: "stream-machine-hostile", run: streams::run_hostile },
];
