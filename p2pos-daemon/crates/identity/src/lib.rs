//! Who is who: PeerId, ProtocolName, keys, backup words and the contacts store.
