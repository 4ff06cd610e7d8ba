//! What shares our UDP sockets with QUIC, and the ways to a peer that are not plain addresses.
//!
//! noq knows a peer by an address and nothing else. So each unusual way has a made-up address ([`fake`]), which noq treats
//! like any other, and the socket translates at the border: [`flow`] puts QUIC packets into relay frames and takes them
//! out, [`tcp`] does the same through one TCP connection, [`routes`] is the table of all of them. [`sift`] sorts received
//! batches, [`probe`] carries the small packets that open NATs. Refuses to know: when any of these is wanted, and why.

mod endpoint;
pub(crate) mod fake;
pub(crate) mod flow;
pub(crate) mod probe;
pub(crate) mod routes;
pub(crate) mod sift;
pub(crate) mod tcp;
