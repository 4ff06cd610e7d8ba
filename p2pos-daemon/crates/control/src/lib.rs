//! The control socket: what the command line asks and what it is told.
