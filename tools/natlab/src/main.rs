//! The NAT lab's command line: `cargo xtask lab` hands its arguments to it. Owns what is printed, and that Ctrl-C leaves nothing behind.

mod cli;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use p2pos_natlab::ledger;
use p2pos_natlab::wire::cli::WireArguments;
use tokio::signal::unix::{SignalKind, signal};

/// What a shell calls a program that a signal ended: 128 and SIGINT's number.
const INTERRUPTED: u8 = 130;

/// Real NATs in network namespaces, and real daemons behind them.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask lab")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Let two judges look at every NAT: is it the kind that it is said to be?
    Prove(cli::prove::ProveArguments),
    /// Try every pair of kinds with real daemons: is the path the one that we promise?
    Matrix(cli::matrix::MatrixArguments),
    /// Let something happen in the middle of a conversation: another address, a reboot, silence, loss, a flood
    Scenario(cli::scenario::ScenarioArguments),
    /// Let a home dial a random NAT again and again: how often, how fast and how dearly does a guess hit?
    Guess(cli::guess::GuessArguments),
    /// Show what silence costs behind NATs that forget after 30 s to 5 min, beside fixed intervals
    Keepalive(cli::keepalive::KeepaliveArguments),
    /// Name what this machine lacks for the lab; nothing is good
    Check,
    /// Build sites and leave them standing until Ctrl-C, for looking around by hand
    Stand(cli::stand::StandArguments),
    /// Join two network namespaces by a wire of chosen delay, jitter, loss and rate
    Wire(WireArguments),
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        // Listened for before anything is built, and heard while something is: building blocks the thread that it runs on.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let work = tokio::spawn(run(arguments.what));
        anyhow::Ok(tokio::select! {
            done = work => Some(done),
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
        })
    })?;
    let Some(done) = ended else {
        // Whatever still runs on other threads loses its namespaces; nobody hears what it has to say about that.
        ledger::abandon()?;
        std::process::exit(INTERRUPTED.into());
    };
    done?
}

async fn run(what: What) -> Result<ExitCode> {
    match what {
        What::Prove(arguments) => cli::prove::run(arguments).await,
        What::Matrix(arguments) => cli::matrix::run(arguments).await,
        What::Scenario(arguments) => cli::scenario::run(arguments).await,
        What::Guess(arguments) => cli::guess::run(arguments).await,
        What::Keepalive(arguments) => Box::pin(cli::keepalive::run(arguments)).await,
        What::Check => cli::check(),
        What::Stand(arguments) => cli::stand::run(&arguments).await,
        What::Wire(arguments) => {
            tokio::task::spawn_blocking(move || p2pos_natlab::wire::cli::run(&arguments)).await??;
            Ok(ExitCode::SUCCESS)
        }
    }
}
