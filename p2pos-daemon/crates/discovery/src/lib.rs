//! From a PeerId to addresses that may reach it. Publishes and resolves; never connects.
//!
//! | module | what it is |
//! |---|---|
//! | `host_port` | [`HostPort`]: an address as the user types it |
//! | `relay_address` | [`RelayAddress`]: the same through a relay |
//! | `resolver` | [`Resolver`]: who is said to be where, and the lookup of host names |
//!
//! Today the only source is the user (`p2pos contacts add PEERID --addr HOST:PORT`), which always works and needs
//! nobody. The local network (mDNS and beacons) and the Mainline DHT become modules beside these, each an answer to the
//! same question, asked in parallel by [`Resolver::resolve`] and never waiting for the slowest (DESIGN section 8).
//!
//! Floor 2. Refuses to know: connections, contacts (the app copies what it needs), which address works.

mod host_port;
mod relay_address;
mod resolver;

pub use crate::{
    host_port::{Host, HostPort, HostPortError},
    relay_address::{PeerAddress, PeerAddressError, RELAY_TOKEN_BYTES, RelayAddress, RelayAt},
    resolver::{
        ADDRESSES_PER_NAME_MAX, ADDRESSES_PER_PEER_MAX, LOOKUPS_AT_ONCE_MAX, PEERS_MAX, Problem,
        RESOLVE_DEADLINE, RESOLVE_GRACE, Reason, ResolveError, Resolved, Resolver, SetError,
    },
};
