//! The messages between two daemons, and how they agree on a ProtocolName.
