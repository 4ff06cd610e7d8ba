//! The UDP sockets, the QUIC endpoint and its connections.
