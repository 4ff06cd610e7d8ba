//! The `p2pos` command: the daemon and its command line in one binary.
//!
//! This file only decides whether the process is the host's guard, which must come before any thread, runtime or
//! logger exists, or a command line.

mod app;
mod bridge;
mod cli;
mod config;
mod contacts;
mod demo;
mod lock;
mod paths;
mod tool;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == app::GUARD_WORD) {
        p2pos_host::guard_main(words);
    }
    cli::run()
}
