//! The `p2pos` command: the daemon and its command line in one binary.
//!
//! This file only decides whether the process is the host's guard (which must come before any thread, runtime or
//! logger exists) or a command line.

mod cli;
mod config;
mod contacts;
mod demo;
mod lock;
mod paths;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
