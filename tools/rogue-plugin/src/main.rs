//! A plugin that misbehaves on demand.
fn main() {}
