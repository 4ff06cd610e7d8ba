//! People who are evil on purpose: a relay that mangles what it forwards, and somebody who sends peers to a victim.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::time::sleep;

use super::Figures;
use super::load::Load;
use crate::evil::Mischief;
use crate::lab::BuiltSite;
use crate::people::World;
use crate::topology::Kind;
use crate::watch::Carrier;

/// What the relay does, to how many of a hundred frames, and what the pieces of a conversation are called that come through all the same.
const MISCHIEF: [(Mischief, u64, &str); 6] = [
    (Mischief::Drops, 30, "kib_per_s_dropping_30_percent"),
    (Mischief::Delays, 30, "kib_per_s_delaying_30_percent"),
    (Mischief::Replays, 100, "kib_per_s_replaying_all"),
    (Mischief::Truncates, 30, "kib_per_s_truncating_30_percent"),
    (Mischief::Alters, 30, "kib_per_s_altering_30_percent"),
    (Mischief::Swaps, 30, "kib_per_s_swapping_30_percent"),
];
/// How long each is kept up.
const EACH_FOR: Duration = Duration::from_secs(5);
/// Pieces of a conversation that have to come through in this time, at least.
const PIECES_MIN: u64 = 2;
/// Bytes of a piece, there and back.
const PIECE_KIB: f64 = 32.0;
/// Pieces through the other relay at the end.
const PIECES_AFTER: u64 = 100;
/// Part of what two people say that goes over the other relay then, in percent.
const MOVED_PERCENT_MIN: u64 = 80;
/// Once a relay forwards nothing whole, a pair stands still for so long at most. It took 0.8 s when this was written; the rest is for
/// what comes through by chance and makes a bad relay look better than it is.
const MOVES_WITHIN: Duration = Duration::from_secs(10);

/// How long a victim is watched: the time for which the limit holds.
const VICTIM_WATCHED: Duration = Duration::from_secs(60);
/// What a victim, told by one liar at one address and port, may get from one deceived daemon in the first minute: nine openers
/// (`p2pos_traversal::ProbeBudget`), and nine challenges of QUIC in each of three rounds.
const VICTIM_PACKETS_MAX: u64 = 36;

/// Two pairs whom only a relay joins talk over an evil one; no byte may change, both go on all the time, and where it forwards nothing whole
/// any more, both move to the other relay.
pub(super) async fn relay(world: World) -> Result<Figures> {
    let (world, evil) = world.with_evil_relay().await?;
    let kind = Kind::Random;
    let (a, b, c, d) = tokio::try_join!(
        world.person("a", kind),
        world.person("b", kind),
        world.person("c", kind),
        world.person("d", kind)
    )?;
    world.introduce(&a, &b).await?;
    world.introduce(&c, &d).await?;
    let (one, other) = (Load::start(&a, &b).await?, Load::start(&c, &d).await?);
    let mut figures = Figures::new();
    for (mischief, percent, name) in MISCHIEF {
        let (before, begun) = ([one.pieces(), other.pieces()], Instant::now());
        evil.set(mischief, percent);
        sleep(EACH_FOR).await;
        let deeds = evil.rest();
        let pieces = [one.pieces() - before[0], other.pieces() - before[1]];
        ensure!(deeds.hit > 0, "{mischief:?}: nobody goes over the evil relay: {deeds:?}, {pieces:?} pieces");
        let fewest = pieces[0].min(pieces[1]);
        ensure!(fewest >= PIECES_MIN, "{mischief:?}: {pieces:?} pieces came through, {deeds:?}");
        let kib_per_s = fewest as f64 * PIECE_KIB / begun.elapsed().as_secs_f64();
        figures.insert(name, kib_per_s.round());
    }
    let before = [one.pieces(), other.pieces()];
    let begun = Instant::now();
    evil.set(Mischief::Truncates, 100);
    for (load, before) in [(&one, before[0]), (&other, before[1])] {
        // What was on its way when the mischief began is let through.
        load.goes_on((before + 3).saturating_sub(load.pieces())).await;
    }
    let moved_ms = (begun.elapsed().as_secs_f64() * 1e4).round() / 10.0;
    ensure!(begun.elapsed() <= MOVES_WITHIN, "the pairs moved to the other relay after {moved_ms} ms");
    for (load, person) in [(&one, &a), (&other, &c)] {
        let sent = person.sent()?;
        load.goes_on(PIECES_AFTER).await;
        let sent = person.sent()?.since(&sent);
        let bytes = |second: bool| {
            sent.bytes_to(Carrier::Udp, |ip| world.is_relay(ip) && world.is_spare_relay(ip) == second)
        };
        let (first, second) = (bytes(false), bytes(true));
        ensure!(
            second * 100 >= (first + second) * MOVED_PERCENT_MIN && second > 0,
            "{}: {first} bytes to the evil relay, {second} to the other",
            person.daemon.name
        );
    }
    let (one, other) = (one.end().await?, other.end().await?);
    figures.insert("moved_ms", moved_ms);
    figures.extend(if one.longest_wait > other.longest_wait { one.figures() } else { other.figures() });
    Ok(figures)
}

/// Somebody says that he lives at a victim's, too, and nobody gets through to where he is: so a peer tries again and again for a minute.
/// What the victim gets is counted at the victim's own line.
pub(super) async fn victim(world: &World) -> Result<Figures> {
    let victim = world.lab().site(&Kind::Public.site("v"))?;
    let address = victim.host().v4.context("a public host has IPv4")?;
    victim.host().namespace.nft(
        "table inet victim {\n chain prerouting { type filter hook prerouting priority raw;\n \
         iifname eth0 meta l4proto udp counter\n }\n}\n",
    )?;
    let (liar, deceived) = tokio::try_join!(world.person("a", Kind::Home), world.person("b", Kind::Home))?;
    // His daemon believes it, too: an interface has the address.
    liar.site.host().namespace.ip(&[format!("addr add {address}/32 dev eth0")])?;
    world.lab().cut(&liar.site, &deceived.site)?;
    world.introduce(&liar, &deceived).await?;
    let load = Load::start(&deceived, &liar).await?;
    let watched = Instant::now();
    while watched.elapsed() < VICTIM_WATCHED {
        load.goes_on(1).await;
        sleep(Duration::from_millis(200)).await;
    }
    load.end().await?;
    let was_told =
        deceived.sent()?.to(Carrier::Udp, |ip| ip == address).map(|(to, _)| to).collect::<Vec<SocketAddr>>();
    let (packets, bytes) = received(&victim)?;
    ensure!(!was_told.is_empty(), "nobody was deceived: this scenario tries nothing");
    ensure!(
        packets <= VICTIM_PACKETS_MAX,
        "the victim got {packets} packets ({bytes} bytes) in a minute, allowed are {VICTIM_PACKETS_MAX}"
    );
    Ok(Figures::from([
        ("packets_in_a_minute", packets as f64),
        ("bytes_in_a_minute", bytes as f64),
        ("packets_allowed", VICTIM_PACKETS_MAX as f64),
    ]))
}

/// What came in at the victim's line: packets and bytes.
fn received(victim: &BuiltSite) -> Result<(u64, u64)> {
    let said = victim.host().namespace.run("nft", &["-j", "list", "table", "inet", "victim"], "")?;
    let document: Value = serde_json::from_str(&said).context("read nft's JSON")?;
    let objects = document["nftables"].as_array().context("nft lists no objects")?;
    let expressions = objects.iter().filter_map(|object| object["rule"]["expr"].as_array()).flatten();
    let counter = expressions.map(|expression| &expression["counter"]).find(|counter| counter.is_object());
    let counter = counter.context("the victim's counter is gone")?;
    let number = |name: &str| counter[name].as_u64().with_context(|| format!("the counter has no {name}"));
    Ok((number("packets")?, number("bytes")?))
}
