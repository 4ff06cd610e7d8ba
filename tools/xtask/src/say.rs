//! Where the chores' words go: everything is for a person reading a log, so all of it is stdout, in order.

#![expect(
    clippy::print_stdout,
    reason = "a chore's output is its product; this is the only module that prints"
)]

use std::io::Write as _;

/// Prints one line and flushes it, so that it stands before whatever a started program prints.
pub(crate) fn line(text: impl AsRef<str>) {
    println!("{}", text.as_ref());
    // A closed pipe (`cargo xtask ci | head`) must not turn into a panic; the next println ends us anyway.
    std::io::stdout().flush().ok();
}
