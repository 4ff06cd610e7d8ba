//! Routers that map ports: asked, restarted, one behind the other, and asked to forget.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use p2pos_control::RouterAnswer;
use tokio::time::{sleep, timeout};

use super::Figures;
use super::load::Load;
use crate::gateway::Gateway;
use crate::people::{Person, World};
use crate::topology::{HOME, Inner, Kind, Router, Site};

/// Protocols that the gateways speak: PCP, NAT-PMP, UPnP.
const PROTOCOLS: usize = 3;
/// Until a mapping stands and a peer has come through it: UPnP's search takes seconds, and a peer helps after some more.
const MAPPED_WITHIN: Duration = Duration::from_secs(30);
/// How often we look.
const POLL: Duration = Duration::from_millis(100);
/// Pieces of a conversation through a mapping.
const PIECES: u64 = 100;

/// A home whose router maps ports, and starts anew: what it forgot is asked for again, long before the lease ends.
pub(super) async fn restart(world: &World) -> Result<Figures> {
    let home = Site::new("a", vec![Router::new(HOME)]);
    let (home, mut gateways) = world.person_behind_gateways(&home).await?;
    let mapped_ms = verified(&home, 1, |_| true).await?;
    for gateway in &mut gateways {
        let (before, after) = gateway.restart()?;
        ensure!(before > 0 && after == 0, "{before} mappings became {after}: this scenario tries nothing");
    }
    let begun = Instant::now();
    let again = async {
        while mappings(&gateways)? == 0 {
            sleep(POLL).await;
        }
        anyhow::Ok(())
    };
    timeout(MAPPED_WITHIN, again).await.context("the gateway was not asked again")??;
    Ok(Figures::from([("mapped_ms", mapped_ms), ("mapped_again_ms", milliseconds(begun))]))
}

/// Two routers, one behind the other, that both map: the outer one is asked on behalf of the inner one, by all three protocols; and
/// somebody behind a random NAT, whom nothing else would reach directly, comes in. At the end nothing stays mapped.
pub(super) async fn cascade(world: &World) -> Result<Figures> {
    let deep = Site::new("b", vec![Router::new(HOME), Router::new(HOME)]).inner(Inner::LooksPublic);
    let (deep, gateways) = world.person_behind_gateways(&deep).await?;
    let is_cascade = |answer: &RouterAnswer| answer.on_behalf_of.is_some();
    let mapped_ms = verified(&deep, PROTOCOLS, is_cascade).await?;

    let random = world.person("a", Kind::Random).await?;
    world.introduce(&random, &deep).await?;
    let load = Load::start(&random, &deep).await?;
    let direct_ms = becomes_direct(&random, &deep).await?;
    load.goes_on(PIECES).await;
    let figures = load.end().await?.figures();

    ensure!(mappings(&gateways)? > 0, "nothing is mapped, and all the same somebody came in");
    let site = deep.end_daemon().await?;
    let left = mappings(&gateways)?;
    ensure!(left == 0, "{left} mappings stay after the daemon ended");
    drop(site);
    Ok(figures.into_iter().chain([("mapped_ms", mapped_ms), ("direct_ms", direct_ms)]).collect())
}

/// Waits until so many mappings have been proven from outside; after how many milliseconds that was.
async fn verified(person: &Person, count: usize, is_counted: impl Fn(&RouterAnswer) -> bool) -> Result<f64> {
    let begun = Instant::now();
    loop {
        let routers = person.daemon.routers().await?;
        let proven = routers.iter().filter(|answer| answer.is_verified && is_counted(answer)).count();
        if proven >= count {
            return Ok(milliseconds(begun));
        }
        ensure!(
            begun.elapsed() < MAPPED_WITHIN,
            "{proven} of {count} mappings were proven within {MAPPED_WITHIN:?}: {routers:?}"
        );
        sleep(POLL).await;
    }
}

/// Waits until a conversation goes directly; after how many milliseconds that was.
pub(super) async fn becomes_direct(from: &Person, to: &Person) -> Result<f64> {
    let begun = Instant::now();
    loop {
        let path = from.daemon.path_to(&to.daemon.peer_id).await?;
        if path.kind == "direct" {
            return Ok(milliseconds(begun));
        }
        ensure!(begun.elapsed() < MAPPED_WITHIN, "it stays {:?}: {}", path.kind, path.why);
        sleep(POLL).await;
    }
}

/// Rules with which the gateways let packets in.
fn mappings(gateways: &[Gateway]) -> Result<usize> {
    gateways.iter().map(Gateway::mappings).sum()
}

fn milliseconds(begun: Instant) -> f64 {
    (begun.elapsed().as_secs_f64() * 1e4).round() / 10.0
}
