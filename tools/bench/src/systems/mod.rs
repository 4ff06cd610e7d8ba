//! The systems that are compared. Each file knows one of them and nothing of the others.

pub mod iroh;
pub mod libp2p;
pub mod p2pos;
pub mod socket;
