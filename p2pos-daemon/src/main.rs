//! The `p2pos` command: the daemon and its command line in one binary.
//!
//! This file only decides what the process is: the host's guard, which must come before any thread, runtime or logger
//! exists; the echo plugin, for the demo; or a command line.

mod app;
mod bridge;
mod cli;
mod config;
mod contacts;
mod demo;
mod lock;
mod paths;
mod tool;
mod vigil;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    match words.next() {
        Some(word) if word == app::GUARD_WORD => p2pos_host::guard_main(words),
        Some(word) if word == demo::ECHO_WORD => demo::echo_plugin(),
        Some(_) | None => cli::run(),
    }
}
