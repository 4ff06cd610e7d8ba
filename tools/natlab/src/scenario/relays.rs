//! Relays that die, that go down in good order, and that are not needed any more.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::Figures;
use super::gateways::becomes_direct;
use super::load::Load;
use crate::namespace::Namespace;
use crate::people::{Known, Person, World, echo_back};
use crate::topology::Kind;

/// Pieces before and after something happens.
const PIECES: u64 = 200;
/// A conversation over a relay that dies or goes down goes on over the next one within so long (issue: 2 s).
const MOVES_WITHIN: Duration = Duration::from_secs(2);
/// So long a direct path must hold before the relay carries nothing (issue: 30 s), and a moment for what is on its way.
const QUIET_AFTER: Duration = Duration::from_secs(32);
/// So long it is watched then.
const QUIET_FOR: Duration = Duration::from_secs(10);
/// A piece of a conversation that goes on for that long, and the pause between two.
const PIECE_BYTES: usize = 16 << 10;
const PAUSE: Duration = Duration::from_millis(200);

/// The first byte of a relay frame (RELAY.md section 2).
const RELAY_FRAME: u8 = 5;

/// How a relay ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// At once, without a word.
    Killed,
    /// In good order: it tells everybody to go elsewhere.
    Drained,
}

impl End {
    fn signal(self) -> &'static str {
        match self {
            Self::Killed => "KILL",
            Self::Drained => "TERM",
        }
    }
}

/// Two people between whom nothing passes directly talk over one of two relays, and that ends.
pub(super) async fn ends(world: World, how: End, kinds: [Kind; 2]) -> Result<Figures> {
    let world = world.with_spare_relay().await?;
    let [from, to] = kinds;
    let (from, to) = tokio::try_join!(world.person("a", from), world.person("b", to))?;
    world.lab().cut(&from.site, &to.site)?;
    world.introduce(&from, &to).await?;
    let load = Load::start(&from, &to).await?;
    load.goes_on(PIECES).await;
    let first = relay_between(&world, &from, &to).await?;
    first.daemon.signal(how.signal())?;
    let ended = Instant::now();
    load.goes_on(PIECES).await;
    let second = relay_between(&world, &from, &to).await?;
    ensure!(first.daemon.peer_id != second.daemon.peer_id, "they still talk over the relay that has ended");
    let talked = load.end().await?.at_most(MOVES_WITHIN)?;
    let goes_on_ms = (ended.elapsed().as_secs_f64() * 1e4).round() / 10.0;
    Ok(talked.figures().into_iter().chain([("moved_and_talked_ms", goes_on_ms)]).collect())
}

/// Two homes begin to talk over a relay and go on directly: after a while the relay carries nothing for them. Its own books and the
/// packets at its door must say the same.
pub(super) async fn goes_quiet(world: &World) -> Result<Figures> {
    let relay = world.relays().next().context("a world has a relay")?;
    count_frames(&relay.at.namespace)?;
    let (from, to) = tokio::try_join!(world.person("a", Kind::Home), world.person("b", Kind::Home))?;
    world.introduce(&from, &to).await?;
    let mut stream = from.plugin.open(to.daemon.peer_id).await?;
    echo_back(&mut stream, PIECE_BYTES, 0).await?;
    let direct_ms = becomes_direct(&from, &to).await?;
    let (until_quiet, mut salt) = (Instant::now() + QUIET_AFTER, 1_u8);
    let mut before = None;
    while Instant::now() < until_quiet + QUIET_FOR {
        if before.is_none() && Instant::now() >= until_quiet {
            before = Some(carried(relay).await?);
        }
        echo_back(&mut stream, PIECE_BYTES, salt).await?;
        salt = salt.wrapping_add(1);
        sleep(PAUSE).await;
    }
    let before = before.context("nobody looked")?;
    let after = carried(relay).await?;
    ensure!(
        before.frames > 0 && before.bytes > 0,
        "the relay never carried anything: this scenario tries nothing"
    );
    ensure!(after.flows == 0, "{} flows are still there", after.flows);
    ensure!(
        (after.frames, after.bytes) == (before.frames, before.bytes),
        "the relay goes on carrying: {before:?} became {after:?} in {QUIET_FOR:?}"
    );
    let number = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    Ok(Figures::from([
        ("direct_ms", direct_ms),
        ("frames_before", number(before.frames)),
        ("frames_while_quiet", number(after.frames - before.frames)),
        ("relayed_bytes_before", number(before.bytes)),
        ("relayed_bytes_while_quiet", number(after.bytes - before.bytes)),
    ]))
}

/// The relay that carries what they say.
async fn relay_between<'a>(world: &'a World, from: &Person, to: &Person) -> Result<&'a Known> {
    let path = from.daemon.path_to(&to.daemon.peer_id).await?;
    let Some(name) = path.relay else { bail!("no relay carries it: {:?}, {}", path.kind, path.why) };
    let named = world.relays().find(|relay| relay.daemon.name == name);
    named.with_context(|| format!("nobody knows the relay {name:?}"))
}

/// What a relay has carried for others, by its own books and by its door's.
#[derive(Clone, Copy, Debug)]
struct Carried {
    bytes: u64,
    flows: u32,
    /// Relay frames that came in or went out.
    frames: u64,
}

async fn carried(relay: &Known) -> Result<Carried> {
    let detail = relay.daemon.relaying().await?;
    let frames = frames(&relay.at.namespace)?;
    Ok(Carried { bytes: detail.forwarded_bytes, flows: detail.flows, frames })
}

/// Counts UDP datagrams that begin as relay frames do.
fn count_frames(host: &Namespace) -> Result<()> {
    let mut rules = String::from("table inet frames {\n  counter carried { }\n");
    for hook in ["input", "output"] {
        rules += &format!(
            "  chain {hook} {{ type filter hook {hook} priority filter;\n    meta l4proto udp @th,64,8 {RELAY_FRAME} counter name carried\n  }}\n"
        );
    }
    host.nft(&(rules + "}\n"))
}

fn frames(host: &Namespace) -> Result<u64> {
    let json = host.run("nft", &["-j", "list", "counter", "inet", "frames", "carried"], "")?;
    let document: Value = serde_json::from_str(&json).context("read nft's JSON")?;
    let mut objects = document["nftables"].as_array().context("nft lists no objects")?.iter();
    objects.find_map(|object| object["counter"]["packets"].as_u64()).context("nft lists no counter")
}
