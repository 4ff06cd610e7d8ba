//! Which addresses this machine has, and which of them are worth telling a friend.
//!
//! Today: the addresses of the machine's own interfaces, chosen by [`own_candidates`]. Port mapping (UPnP, NAT-PMP,
//! PCP), the watch for network changes, and the driver of traversal and relay get their modules here; each yields more
//! candidates of the same kind (DESIGN section 7).
//!
//! Floor 2. Refuses to know: peers, connections, and who is told.

mod interfaces;

pub use crate::interfaces::{
    InterfaceAddress, InterfacesError, OWN_CANDIDATES_MAX, interface_addresses, own_candidates, worth_telling,
};
