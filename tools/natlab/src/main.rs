//! The NAT lab's command line: `cargo xtask lab` hands its arguments to it.

use anyhow::Result;
use clap::{Parser, Subcommand};
use p2pos_natlab::wire;

/// Real NATs in network namespaces, and real daemons behind them.
#[derive(Debug, Parser)]
#[command(name = "p2pos-natlab")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Wire(wire::cli::WireArguments),
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Wire(arguments) => wire::cli::run(&arguments),
    }
}
