//! The NAT lab's command line: `cargo xtask lab` hands its arguments to it.

use anyhow::Result;
use clap::Parser;

/// Real NATs in network namespaces, and real daemons behind them.
#[derive(Debug, Parser)]
#[command(name = "p2pos-natlab")]
struct Arguments {}

fn main() -> Result<()> {
    let Arguments {} = Arguments::parse();
    Ok(())
}
