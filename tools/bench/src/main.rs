//! p2pOS beside what else a plugin author could take: iroh, libp2p, bare TCP, and a chain of TCP proxies with the same hops.
//!
//! Every system's two ends are processes of their own, and the systems take turns within each round, so that a noisy machine is noisy for all.
//! The report gives medians and ratios; the ratios are what to quote.

mod crowd;
mod far;
mod place;
mod processes;
mod relaying;
mod report;
mod sdks;
mod systems;
mod work;

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

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
    /// (internal) The address to bind at this process's place.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    ip: IpAddr,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs every system in turn and reports medians and ratios.
    Run(report::Options),
    /// (internal) Serves one system until killed; prints `READY TARGET`.
    Serve {
        system: String,
        /// Through this relay, and by no other way.
        #[arg(long)]
        relay: Option<String>,
    },
    /// (internal) Carries connections to NEXT; prints `READY ADDRESS`.
    Proxy { next: String },
    /// (internal) The serving plugin: launched by a daemon.
    Plugin,
    /// (internal) Connects many peers to a serving end; prints `READY` and keeps them connected until killed.
    Crowd { system: String, target: String },
    #[command(flatten)]
    Relaying(Relaying),
    /// (internal) Drives one job against a serving end; prints one JSON line.
    Drive {
        system: String,
        target: String,
        job: String,
        amount: f64,
        #[arg(default_value_t = 0.0)]
        skip: f64,
        /// When to begin, milliseconds since 1970: two drivers told the same begin together.
        #[arg(long, default_value_t = 0)]
        at_ms: u64,
    },
}

/// The ends and the forwarders of the relay jobs. All of them print `READY TARGET` and go on until they are killed.
#[derive(Subcommand)]
enum Relaying {
    /// (internal) A user of a p2pOS relay who holds a lease.
    RelayCallee { target: String },
    /// (internal) A user of a p2pOS relay who floods the callee.
    RelayFlood { target: String, callee: String, packet_bytes: usize },
    /// (internal) Many users of a p2pOS relay, and their circuits.
    RelayCrowd {
        target: String,
        #[arg(long)]
        only_links: bool,
    },
    /// (internal) iroh's relay.
    RelayIroh {
        #[arg(long)]
        counts: Option<PathBuf>,
        #[arg(long, default_value_t = 1)]
        segment: u64,
    },
    /// (internal) A client of iroh's relay that reads.
    RelayIrohReceive { relay: String },
    /// (internal) A client of iroh's relay that floods the other.
    RelayIrohFlood { relay: String, to: String, packet_bytes: usize },
    /// (internal) A UDP socket that nobody reads.
    UdpSink,
    /// (internal) A forwarder of UDP datagrams that does nothing else.
    UdpForward {
        to: String,
        #[arg(long)]
        counts: PathBuf,
    },
    /// (internal) Floods an address with UDP datagrams.
    UdpFlood { to: String, packet_bytes: usize },
}

impl Relaying {
    async fn run(self, ip: IpAddr) -> Result<()> {
        use relaying::{iroh, udp, user};
        match self {
            Self::RelayCallee { target } => user::callee(ip, &target, ready).await,
            Self::RelayFlood { target, callee, packet_bytes } => {
                user::flood(ip, &target, &callee, packet_bytes, ready).await
            }
            Self::RelayCrowd { target, only_links } => {
                let _users = user::crowd(ip, &target, only_links).await?;
                ready("crowd");
                std::future::pending().await
            }
            Self::RelayIroh { counts, segment } => iroh::serve(ip, counts, segment, ready).await,
            Self::RelayIrohReceive { relay } => iroh::receive(&relay, ready).await,
            Self::RelayIrohFlood { relay, to, packet_bytes } => {
                iroh::flood(&relay, &to, packet_bytes, ready).await
            }
            Self::UdpSink => udp::sink(ip, ready),
            Self::UdpForward { to, counts } => udp::forward(ip, &to, &counts, ready),
            Self::UdpFlood { to, packet_bytes } => udp::flood(ip, &to, packet_bytes, ready),
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match arguments.command {
        Command::Run(options) => report::run(&options),
        Command::Serve { system, relay } => runtime.block_on(serve(&system, arguments.ip, relay)),
        Command::Relaying(relaying) => runtime.block_on(relaying.run(arguments.ip)),
        Command::Proxy { next } => runtime.block_on(async {
            ready(&socket::proxy(next).await?);
            std::future::pending().await
        }),
        Command::Crowd { system, target } => runtime.block_on(async {
            let _callers = crowd::call(&system, &target).await?;
            ready("crowd");
            std::future::pending().await
        }),
        Command::Plugin => runtime.block_on(p2pos::plugin()),
        Command::Drive { system, target, job, amount, skip, at_ms } => runtime.block_on(async {
            // A worker thread does the work, as in an application: the main thread of a runtime is woken differently.
            let work = Order { job, amount, skip, begin: UNIX_EPOCH + Duration::from_millis(at_ms) };
            tokio::spawn(async move { drive(&system, arguments.ip, &target, work).await }).await?
        }),
    }
}

async fn serve(system: &str, ip: IpAddr, relay: Option<String>) -> Result<()> {
    let target = match (system, relay) {
        ("iroh", Some(relay)) => Iroh::through(ip, relay.parse()?).serve().await?,
        ("iroh", None) => Iroh::at(ip).serve().await?,
        ("libp2p", None) => Libp2p::default().serve().await?,
        ("tcp", None) => socket::Tcp { ip }.serve().await?,
        (other, _) => bail!("no system {other} to serve"),
    };
    ready(&target);
    std::future::pending().await
}

/// What a driving process is told to do.
struct Order {
    job: String,
    amount: f64,
    /// Seconds at the beginning that do not count.
    skip: f64,
    begin: SystemTime,
}

async fn drive(system: &str, ip: IpAddr, target: &str, order: Order) -> Result<()> {
    let measured = match system {
        "iroh" => drive_with(&Iroh::at(ip), target, &order).await?,
        "libp2p" => drive_with(&Libp2p::default(), target, &order).await?,
        "tcp" | "chain" => drive_with(&socket::Tcp { ip }, target, &order).await?,
        "p2pos" => drive_with(&p2pos::P2pos::mux(), target, &order).await?,
        "p2pos-detached" => drive_with(&p2pos::P2pos::detached(), target, &order).await?,
        other => bail!("no system {other} to drive"),
    };
    println_json(&measured)
}

async fn drive_with<S: System>(system: &S, target: &str, order: &Order) -> Result<work::Measured> {
    use crate::work::Link as _;
    let amount = order.amount;
    if order.job.starts_with("connect") {
        return work::connects(system, target, amount as usize).await;
    }
    let link = system.dial(target).await?;
    work::first_reply(&link).await.context("the first stream")?;
    let until_begin = order.begin.duration_since(SystemTime::now()).unwrap_or_default();
    tokio::time::sleep(SETTLE.max(until_begin)).await;
    let count = amount as usize;
    let job = match order.job.as_str() {
        "bulk" => Job::Bulk { seconds: amount },
        "watched-bulk" => Job::WatchedBulk { seconds: amount, skip: order.skip },
        "round-trip" => Job::RoundTrip { count },
        "messages-batched" => Job::MessagesBatched { count },
        "messages-flushed" => Job::MessagesFlushed { count },
        "open" => Job::Open { count },
        other => bail!("no job {other}"),
    };
    let measured = work::drive(&link, job).await?;
    link.close().await?;
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
