//! The `p2pos` command: daemon and command line in one binary.
fn main() {}
