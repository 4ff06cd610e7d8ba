//! The conformance kit of the plugin protocol: judges plugins, daemons and codecs by the cases under `cases/` and by the golden vectors.
//!
//! | module | what it is |
//! |---|---|
//! | [`case`] | the cases, which are data |
//! | `play` | does a case's steps |
//! | [`session`], [`book`], [`wire`] | one session as the kit has it: frames, the rules that always hold, the socket |
//! | [`schema`], [`codec`], [`notation`] | messages by plugin.proto itself, to bytes and to the text in which cases write them |
//! | [`agent`], [`lend`] | the process that is judged; how the kit becomes a plugin of a running daemon |
//! | [`tier0`], [`vectors`] | stream commands; the golden vectors |
//! | [`report`], [`verdict`] | how it went, for people, programs and CI |
//! | [`porting`] | the port guide, made of the same tables |
//!
//! Judges with its own codec and its own books: of `p2pos_plugin_protocol` it takes limits, codes and the tables, and never the machines
//! that may be what is judged.

pub mod agent;
pub mod book;
pub mod case;
pub mod codec;
pub mod hostile;
pub mod lend;
pub mod notation;
pub mod pattern;
mod play;
pub mod porting;
pub mod report;
pub mod schema;
pub mod session;
pub mod tier0;
pub mod vectors;
pub mod verdict;
pub mod wire;

pub use play::{Subject, run};

/// The manifest of the plugin as which the kit attaches itself to a daemon.
#[must_use]
pub fn manifest(id: &str) -> String {
    let names =
        ["stream", "other", "detached", "datagram"].map(|name| format!("\"/p2pos/conformance-{name}/1\""));
    let names = names.join(", ");
    format!(
        "manifest = 1\nid = \"{id}\"\nname = \"Conformance kit\"\nversion = \"1.0.0\"\n\n[run]\nexec = [\"true\"]\nautostart = false\n\n\
         [permissions]\nnet.open = [{names}]\nnet.accept = [{names}]\ncontacts.read = true\n"
    )
}
