//! The NAT lab: networks of namespaces joined by real routers, what happens to them in the middle of a run, and who judges it.
//!
//! From the ground up: [`capability`] says what the machine must allow; [`namespace`] is one network stack; [`ledger`] remembers what has to
//! be removed, whatever happens to us; [`topology`] is a network as data, and [`rules`] what makes a router the NAT that it plays; [`lab`]
//! builds it; [`gateway`] lets a router map ports, [`evil`] mangles what a relay forwards. [`judge`] proves that a NAT is the kind it is said
//! to be. [`watch`] counts what a host really sent. [`people`] are daemons and their plugins, [`promise`] is what we promise for a pair of
//! them, [`matrix`] tries every pair, [`scenario`] breaks things under them. [`keepalive`] is a day of silence in virtual time.
//!
//! Knows daemons only from outside: it starts the program, and asks it over its sockets. Refuses to believe what a daemon says about a path
//! unless the counters of the host agree.

pub mod capability;
pub mod evil;
pub mod gateway;
pub mod judge;
pub mod keepalive;
pub mod lab;
pub mod ledger;
pub mod matrix;
pub mod namespace;
pub mod people;
mod program;
pub mod promise;
pub mod rules;
pub mod scenario;
pub mod topology;
pub mod watch;
pub mod wire;
