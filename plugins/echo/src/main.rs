//! A plugin that sends back what it gets.
fn main() {}
