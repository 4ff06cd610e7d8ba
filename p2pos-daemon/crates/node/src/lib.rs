//! Opens a ProtocolName at a PeerId, and accepts: the peers' side of the daemon.
