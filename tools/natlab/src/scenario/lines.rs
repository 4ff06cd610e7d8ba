//! Lines that are silent, lossy or deep.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::time::{sleep, timeout};

use super::Figures;
use super::load::Load;
use crate::people::{World, echo_back};
use crate::topology::{HOME, Kind, Router, Site};
use crate::wire::Link;

/// A binding that is kept answers at once; a loaded machine gets its time, and a dial anew would need an address that nobody has.
const SPEAKS_WITHIN: Duration = Duration::from_secs(5);
/// Packets an hour that silence may cost towards one peer: a fixed ping every 5 s and an answer to the peer's, which is what others spend.
const SILENT_PACKETS_PER_HOUR_MAX: u64 = 2 * 720;
/// Whom a person in these scenarios is connected with: the peer and three landmarks.
const PEERS: u64 = 4;
/// One way of the lossy line.
const DELAY: Duration = Duration::from_millis(10);
/// Part of the packets that it loses towards the Internet.
const LOSS: f64 = 0.05;
/// Pieces that must get through it.
const LOSSY_PIECES: u64 = 100;
/// Pieces that must get through three routers.
const DEEP_PIECES: u64 = 500;

/// Silence for longer than the NAT of the dialler remembers; then the other side speaks first, so that nothing of ours opens the way.
pub(super) async fn silence(world: &World, lifetime_s: u64, silence_s: u64) -> Result<Figures> {
    let lifetime = Duration::from_secs(lifetime_s);
    let home = Site::new("a", vec![Router::new(HOME).lifetimes(lifetime, lifetime)]);
    let (home, public) = tokio::try_join!(world.person_at(&home), world.person("b", Kind::Public))?;
    world.introduce(&home, &public).await?;
    let mut stream = home.plugin.open(public.daemon.peer_id).await?;
    echo_back(&mut stream, 1, 1).await?;
    // What follows the last word, and the search for mappings and lifetimes after a start, is not what silence costs for hours.
    let settling_s = silence_s / 2;
    sleep(Duration::from_secs(settling_s)).await;
    let before = home.sent()?;
    sleep(Duration::from_secs(silence_s - settling_s)).await;
    let packets: u64 = home.sent()?.since(&before).sent.values().map(|sent| sent.packets).sum();
    let per_peer = packets * 3_600 / (silence_s - settling_s) / PEERS;

    let begun = Instant::now();
    let speak = async {
        let mut stream = public.plugin.open(home.daemon.peer_id).await?;
        echo_back(&mut stream, 1, 1).await
    };
    let spoken =
        timeout(SPEAKS_WITHIN, speak).await.context("the binding was lost: nobody answers").flatten();
    spoken.with_context(|| public.daemon.last_words())?;
    let answer_ms = (begun.elapsed().as_secs_f64() * 1e4).round() / 10.0;
    ensure!(
        per_peer <= SILENT_PACKETS_PER_HOUR_MAX,
        "answered after {answer_ms} ms, but silence costs {per_peer} packets an hour and peer, allowed are {SILENT_PACKETS_PER_HOUR_MAX}"
    );
    Ok(Figures::from([("answer_ms", answer_ms), ("packets_per_peer_and_hour", per_peer as f64)]))
}

/// A line that loses packets one way only: what is lost are data on the one side, and acknowledgements on the other.
pub(super) async fn asymmetric_loss(world: &World) -> Result<Figures> {
    let clean = Link::delay(DELAY);
    let lossy = Site::new("a", vec![Router::new(HOME)]).line(clean, clean.with_loss(LOSS));
    let (lossy, public) = tokio::try_join!(world.person_at(&lossy), world.person("b", Kind::Public))?;
    world.introduce(&lossy, &public).await?;
    let load = Load::start(&lossy, &public).await?;
    load.goes_on(LOSSY_PIECES).await;
    ensure!(load.pieces() >= LOSSY_PIECES, "only {} of {LOSSY_PIECES} pieces came through", load.pieces());
    Ok(load.end().await?.figures())
}

/// Three home routers.
pub(super) async fn three_layers(world: &World) -> Result<Figures> {
    let deep = Site::new("a", vec![Router::new(HOME); 3]);
    let (deep, public) = tokio::try_join!(world.person_at(&deep), world.person("b", Kind::Public))?;
    world.introduce(&deep, &public).await?;
    let load = Load::start(&deep, &public).await?;
    load.goes_on(DEEP_PIECES).await;
    ensure!(load.pieces() >= DEEP_PIECES, "only {} of {DEEP_PIECES} pieces came through", load.pieces());
    Ok(load.end().await?.figures())
}
