//! p2pOS beside what else a plugin author could take: iroh, libp2p, bare TCP, and a chain of TCP proxies with the same hops.
//!
//! Every system's two ends are processes of their own, and the systems take turns within each round, so that a noisy machine is noisy for all.
//! The report gives medians and ratios; the ratios are what to quote.

mod processes;
mod report;
mod systems;
mod work;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

use crate::{
    systems::{iroh::Iroh, libp2p::Libp2p, p2pos, socket},
    work::{Job, System},
};

/// Every job but `connect` begins on a connection of this age: path probing is done, and p2pOS no longer takes it for one
/// that may lose against a simultaneous dial (for its first second it lets nobody write before the peer's answer).
const SETTLE: Duration = Duration::from_millis(1_500);

#[derive(Parser)]
#[command(version, about = "Measures p2pOS beside its peers, in one run")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs every system in turn and reports medians and ratios.
    Run(report::Options),
    /// (internal) Serves one system until killed; prints `READY TARGET`.
    Serve { system: String },
    /// (internal) Carries connections to NEXT; prints `READY ADDRESS`.
    Proxy { next: String },
    /// (internal) The serving plugin: launched by a daemon.
    Plugin,
    /// (internal) Drives one job against a serving end; prints one JSON line.
    Drive { system: String, target: String, job: String, amount: f64 },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match arguments.command {
        Command::Run(options) => report::run(&options),
        Command::Serve { system } => runtime.block_on(serve(&system)),
        Command::Proxy { next } => runtime.block_on(async {
            ready(&socket::proxy(next).await?);
            std::future::pending().await
        }),
        Command::Plugin => runtime.block_on(p2pos::plugin()),
        Command::Drive { system, target, job, amount } => runtime.block_on(async {
            // A worker thread does the work, as in an application: the main thread of a runtime is woken differently.
            tokio::spawn(async move { drive(&system, &target, &job, amount).await }).await?
        }),
    }
}

async fn serve(system: &str) -> Result<()> {
    let target = match system {
        "iroh" => Iroh::default().serve().await?,
        "libp2p" => Libp2p::default().serve().await?,
        "tcp" => socket::Tcp.serve().await?,
        other => bail!("no system {other} to serve"),
    };
    ready(&target);
    std::future::pending().await
}

async fn drive(system: &str, target: &str, job: &str, amount: f64) -> Result<()> {
    let measured = match system {
        "iroh" => drive_with(&Iroh::default(), target, job, amount).await?,
        "libp2p" => drive_with(&Libp2p::default(), target, job, amount).await?,
        "tcp" | "chain" => drive_with(&socket::Tcp, target, job, amount).await?,
        "p2pos" => drive_with(&p2pos::P2pos::mux(), target, job, amount).await?,
        "p2pos-detached" => drive_with(&p2pos::P2pos::detached(), target, job, amount).await?,
        other => bail!("no system {other} to drive"),
    };
    println_json(&measured)
}

async fn drive_with<S: System>(system: &S, target: &str, job: &str, amount: f64) -> Result<work::Measured> {
    use crate::work::Link as _;
    match job {
        "connect" => return work::connects(system, target, amount as usize).await,
        "connect-once" => return work::connect_once(system, target).await,
        _ => {}
    }
    let link = system.dial(target).await?;
    work::first_reply(&link).await.context("the first stream")?;
    tokio::time::sleep(SETTLE).await;
    let count = amount as usize;
    let job = match job {
        "bulk" => Job::Bulk { seconds: amount },
        "round-trip" => Job::RoundTrip { count },
        "messages-batched" => Job::MessagesBatched { count },
        "messages-flushed" => Job::MessagesFlushed { count },
        "open" => Job::Open { count },
        other => bail!("no job {other}"),
    };
    let measured = work::drive(&link, job).await?;
    link.close().await;
    Ok(measured)
}

fn ready(target: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout();
    // A parent that has gone away is the only reader this line has.
    drop(writeln!(out, "READY {target}").and_then(|()| out.flush()));
}

fn println_json(value: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}
