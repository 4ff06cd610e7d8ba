//! Which addresses this machine has, and which of them are worth telling a friend.
//!
//! The addresses of the machine's own interfaces are chosen by [`own_candidates`]; [`Mapper`] asks the routers before us to
//! let packets in; [`NetworkWatch`] tells when any of this has changed; [`routers_toward`] counts the routers on the way.
//! (DESIGN section 7.)
//!
//! Floor 2. Refuses to know: peers, connections, and who is told.

mod gateways;
mod hops;
mod interfaces;
mod mapping;
mod watch;

pub use crate::{
    gateways::{GATEWAYS_MAX, Gateway, gateways},
    hops::{HOPS_MAX, router_at, routers_toward},
    interfaces::{
        InterfaceAddress, InterfacesError, OWN_CANDIDATES_MAX, interface_addresses, own_candidates,
        worth_telling,
    },
    mapping::{Mapper, MappingProtocol, MappingReport, MappingState, Question},
    watch::{NetworkState, NetworkWatch},
};
