//! From a PeerId to addresses that may reach it; never connects.
