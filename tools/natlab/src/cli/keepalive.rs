//! `lab keepalive`: what silence costs, as a table; and beside it what it costs behind two real NATs.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use p2pos_natlab::keepalive::{LIFETIMES_S, learned, table};
use p2pos_natlab::people::Program;
use p2pos_natlab::scenario::{self, Outcome, Scenario};

use super::{data, words};

/// The scenarios that measure the same behind real NATs.
const REAL: [Scenario; 2] = [Scenario::SilenceBehindShortNat, Scenario::SilenceBehindUsualNat];

#[derive(Debug, Args)]
pub(crate) struct KeepaliveArguments {
    /// Also keep silent behind real NATs of 12 s and of 30 s, with real daemons: takes a minute and a half, and needs root
    #[arg(long)]
    real: bool,
    /// The program to try, instead of target/release/p2pos
    #[arg(long, value_name = "PATH", requires = "real")]
    p2pos: Option<PathBuf>,
}

/// Prints the table. Fails if a binding was lost.
pub(crate) async fn run(arguments: KeepaliveArguments) -> Result<ExitCode> {
    table().iter().for_each(|line| data(line));
    let lost: u64 =
        LIFETIMES_S.iter().map(|seconds| learned(std::time::Duration::from_secs(*seconds)).lost).sum();
    let mut is_good = lost == 0;
    if arguments.real {
        let program = Program::find(arguments.p2pos)?;
        let [short, usual] = REAL.map(|silence| scenario::play(&program, silence, false));
        let (short, usual) = tokio::join!(short, usual);
        for report in [short, usual] {
            let words = match &report.outcome {
                Outcome::Passed { figures } => {
                    let figure = |name: &str| figures.get(name).copied().unwrap_or_default();
                    format!(
                        "real: {} packets an hour and peer, and answered after {} ms",
                        figure("packets_per_peer_and_hour"),
                        figure("answer_ms")
                    )
                }
                Outcome::Failed { why } => format!("FAILED: {why}"),
                Outcome::Missing { part } => format!("NOT BUILT: {part}"),
            };
            is_good &= matches!(report.outcome, Outcome::Passed { .. });
            data(&format!("{}: {words}", report.scenario));
        }
    }
    words(&format!("{lost} bindings lost in {} simulated days", LIFETIMES_S.len()));
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
