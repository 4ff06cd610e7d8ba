//! What an idle connection costs: many peers connect to one process, say one word each, and fall silent.
//!
//! Each caller is a peer of its own, with its own socket and identity; all callers share one process, which is not measured.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use p2pos_discovery::Resolver;
use p2pos_identity::{PeerId, SecretKey};
use p2pos_node::{Config, Node};

use crate::{
    place::Place,
    processes::{self, Serving},
    report::{Options, Samples, push, wanted},
    systems::{iroh::Iroh, p2pos::Pair},
    work::{self, System as _},
};

/// Callers. Fewer would drown in what a process takes anyway, more would only take longer.
const CALLERS: u8 = 200;
/// After the last word, and before a first look: what the handshakes took goes back meanwhile.
const SETTLE: Duration = Duration::from_secs(3);

/// Unit for the report.
pub const UNITS: [(&str, &str); 1] = [("idle-connections", "kB resident per connection")];

/// One round: memory per connection of each system.
pub fn run(options: &Options, samples: &mut Samples) -> Result<()> {
    if !wanted(&options.only, "idle-connections") {
        return Ok(());
    }
    if wanted(&options.systems, "p2pos") {
        let alone = Pair::start_alone(&options.p2pos)?;
        for number in 1..=CALLERS {
            alone.add_contact(&key(number).peer_id().to_string(), &format!("caller{number}"))?;
        }
        push(samples, "idle-connections", "p2pos", per_connection("p2pos", alone.pid(), &alone.target()?)?);
    }
    if wanted(&options.systems, "iroh") {
        let server = Serving::start(&["serve", "iroh"])?;
        push(samples, "idle-connections", "iroh", per_connection("iroh", server.pid(), &server.target)?);
    }
    Ok(())
}

fn per_connection(system: &str, pid: u32, target: &str) -> Result<f64> {
    std::thread::sleep(SETTLE);
    let before = processes::resident_kib(pid)?;
    let _callers = Serving::start_at(&Place::here(), &["crowd", system, target])?;
    std::thread::sleep(SETTLE);
    Ok((processes::resident_kib(pid)? - before) * 1.024 / f64::from(CALLERS))
}

fn key(number: u8) -> SecretKey {
    SecretKey::from_seed([number; 32])
}

/// (internal) The callers: connects all of them to `target`, and gives back what keeps them connected.
pub async fn call(system: &str, target: &str) -> Result<Box<dyn Send>> {
    Ok(match system {
        "p2pos" => Box::new(call_p2pos(target).await?),
        _ => Box::new(call_iroh(target).await?),
    })
}

async fn call_p2pos(target: &str) -> Result<Vec<Node>> {
    let (peer, address) = target.split_once(',').context("target is not PEER,ADDRESS")?;
    let (peer, address): (PeerId, SocketAddr) = (peer.parse()?, address.parse()?);
    let mut nodes = Vec::new();
    for number in 1..=CALLERS {
        let resolver = Resolver::new();
        resolver.set(peer, vec![address.to_string().parse()?])?;
        let mut config = Config::new(Arc::new(key(number)), resolver);
        config.ipv4 = Some(Ipv4Addr::LOCALHOST);
        config.ipv6 = None;
        let node = Node::start(config)?;
        let pings = node.ping(peer, 1, Duration::ZERO).await?;
        pings.rtts.first().copied().flatten().context("no ping came back")?;
        nodes.push(node);
    }
    Ok(nodes)
}

async fn call_iroh(target: &str) -> Result<Vec<(Iroh, iroh::endpoint::Connection)>> {
    let mut callers = Vec::new();
    for _ in 0..CALLERS {
        let caller = Iroh::at(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let link = caller.dial(target).await?;
        work::first_reply(&link).await?;
        callers.push((caller, link));
    }
    Ok(callers)
}
