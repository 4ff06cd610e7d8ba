//! The ground moves: addresses change, routers forget, ways are cut.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::sleep;

use super::Figures;
use super::gateways::becomes_direct;
use super::load::Load;
use crate::people::{Person, World};
use crate::topology::Kind;

/// Pieces before and after something happens: a few hundred milliseconds of talk.
const PIECES: u64 = 200;
/// A conversation stands still for at most so long when an address changes or a router forgets (issue: 3 s).
const MOVES_WITHIN: Duration = Duration::from_secs(3);
/// And for so long when the direct way is cut and there is another (issue: 1 s).
const FAILS_OVER_WITHIN: Duration = Duration::from_secs(1);

/// How often both routers forget while their owners punch, and the time between: a punch takes 20 ms here.
const REBOOTS: u32 = 20;
const REBOOT_EVERY: Duration = Duration::from_millis(10);

/// Whose ground moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Dialler,
    Acceptor,
    Both,
}

/// Two people on the Internet itself, by IPv4 and IPv6; one or both get other addresses.
pub(super) async fn roam(world: &World, who: Who) -> Result<Figures> {
    let (mut from, mut to) = two(world, Kind::Public, Kind::Public).await?;
    let load = Load::start(&from, &to).await?;
    load.goes_on(PIECES).await;
    if who != Who::Acceptor {
        from.site.change_address()?;
    }
    if who != Who::Dialler {
        to.site.change_address()?;
    }
    load.goes_on(PIECES).await;
    Ok(load.end().await?.at_most(MOVES_WITHIN)?.figures())
}

/// A random NAT forgets: the next packet comes from another port.
pub(super) async fn dialler_reboots(world: &World) -> Result<Figures> {
    let (from, to) = two(world, Kind::Random, Kind::Public).await?;
    reboot(&from, &to, &from).await
}

/// A full cone forgets: nobody gets in until its host sends.
pub(super) async fn acceptor_reboots(world: &World) -> Result<Figures> {
    let (from, to) = two(world, Kind::Public, Kind::FullCone).await?;
    reboot(&from, &to, &to).await
}

/// The way between two people is cut for good; the relay remains.
pub(super) async fn direct_path_cut(world: &World) -> Result<Figures> {
    let (from, to) = two(world, Kind::Home, Kind::Public).await?;
    let load = Load::start(&from, &to).await?;
    load.goes_on(PIECES).await;
    world.lab().cut(&from.site, &to.site)?;
    load.goes_on(PIECES).await;
    Ok(load.end().await?.at_most(FAILS_OVER_WITHIN)?.figures())
}

/// Both routers forget everything, again and again, while their owners punch; afterwards they get through.
pub(super) async fn reboot_mid_punch(world: &World) -> Result<Figures> {
    let (from, to) = two(world, Kind::Home, Kind::Home).await?;
    let load = Load::start(&from, &to).await?;
    for _ in 0..REBOOTS {
        from.site.reboot()?;
        to.site.reboot()?;
        sleep(REBOOT_EVERY).await;
    }
    let direct_ms = becomes_direct(&from, &to).await?;
    load.goes_on(PIECES).await;
    let talked = load.end().await?.at_most(MOVES_WITHIN)?;
    Ok(talked.figures().into_iter().chain([("direct_ms", direct_ms)]).collect())
}

async fn reboot(from: &Person, to: &Person, whose: &Person) -> Result<Figures> {
    let load = Load::start(from, to).await?;
    load.goes_on(PIECES).await;
    let before = entries(whose)?;
    whose.site.reboot()?;
    load.goes_on(PIECES).await;
    if before == 0 {
        bail!("the router had nothing to forget: this scenario tries nothing");
    }
    Ok(load.end().await?.at_most(MOVES_WITHIN)?.figures())
}

fn entries(person: &Person) -> Result<u64> {
    person.site.routers().iter().map(|router| router.entries()).sum()
}

/// Two people who know each other.
async fn two(world: &World, from: Kind, to: Kind) -> Result<(Person, Person)> {
    let (from, to) = tokio::try_join!(world.person("a", from), world.person("b", to))?;
    world.introduce(&from, &to).await?;
    Ok((from, to))
}
