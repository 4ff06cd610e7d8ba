//! The NAT lab: namespaces joined by real routers, what happens to them in the middle of a run, and who judges it.
//!
//! Knows daemons only from outside: it starts the program, and asks it over its sockets.

pub mod wire;
