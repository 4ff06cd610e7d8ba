//! Strangers who want to be a nuisance.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use tokio::time::sleep;

use super::Figures;
use super::load::Load;
use crate::lab::BuiltSite;
use crate::people::World;
use crate::topology::Kind;

/// First packets of the flood, per second: 48 Mbit/s, which is what a bored stranger with a home line has.
const FLOOD_PER_SECOND: u32 = 5_000;
/// Sent between two pauses of the flood.
const BURST: u32 = 10;
/// Sizes of a first packet: QUIC's smallest.
const INITIAL_BYTES: usize = 1_200;
/// Noise-QUIC's version (NOISE-QUIC.md): any other is dropped unread, and would be no flood.
const VERSION: [u8; 4] = 0x7032_5001_u32.to_be_bytes();
/// Rounds of four windows each: quiet, flooded, flooded, quiet, so that a machine that gets steadily slower does so for both. The middle
/// round is the one that counts: a machine with other work has windows that say nothing.
const ROUNDS: usize = 9;
/// Length of a window.
const WINDOW: Duration = Duration::from_millis(250);
/// Part of its pieces that a conversation may lose to the flood, in percent (issue: 10 %).
const LOST_PERCENT_MAX: f64 = 10.0;

/// A stranger floods whoever was dialled with first packets of our version that nobody's key fits.
pub(super) async fn flood(world: &World) -> Result<Figures> {
    let (from, to) = tokio::try_join!(world.person("a", Kind::Home), world.person("b", Kind::Public))?;
    world.introduce(&from, &to).await?;
    let stranger = world.lab().site(&Kind::Public.site("stranger"))?;
    let target = SocketAddr::new(to.site.host().v4.context("a public host has IPv4")?, to.daemon.port);
    let mut flood = Flood::prepare(&stranger, target)?;
    let load = Load::start(&from, &to).await?;
    let mut lost = Vec::new();
    for _ in 0..ROUNDS {
        let (mut quiet, mut flooded) = (0, 0);
        for is_flooded in [false, true, true, false] {
            flood.set(is_flooded);
            let before = load.pieces();
            sleep(WINDOW).await;
            *(if is_flooded { &mut flooded } else { &mut quiet }) += load.pieces() - before;
        }
        ensure!(quiet > 0, "the conversation stands still without any flood");
        lost.push(100.0 * (1.0 - flooded as f64 / quiet as f64));
    }
    let sent = flood.stop()?;
    let talked = load.end().await?;
    let per_second = sent as f64 / (WINDOW.as_secs_f64() * 2.0 * ROUNDS as f64);
    ensure!(
        per_second > f64::from(FLOOD_PER_SECOND) / 2.0,
        "the flood was a trickle: {per_second:.0} a second"
    );
    lost.sort_by(f64::total_cmp);
    let lost = lost[ROUNDS / 2];
    ensure!(
        lost < LOST_PERCENT_MAX,
        "the conversation lost {lost:.1} % to the flood, in the middle of {ROUNDS} rounds"
    );
    let mut figures = talked.figures();
    figures.insert("lost_percent", (lost * 10.0).round() / 10.0);
    figures.insert("flood_per_s", per_second.round());
    Ok(figures)
}

/// A thread that sends while it is told to.
struct Flood {
    is_on: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Flood {
    fn prepare(stranger: &BuiltSite, target: SocketAddr) -> Result<Self> {
        let ip: IpAddr = stranger.host().v4.context("a public host has IPv4")?;
        let socket = stranger.host().namespace.udp(ip)?;
        let (is_on, is_over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let sent = Arc::new(AtomicU64::new(0));
        let (on, over, count) = (Arc::clone(&is_on), Arc::clone(&is_over), Arc::clone(&sent));
        let thread = thread::spawn(move || run(&socket, target, (&on, &over), &count));
        Ok(Self { is_on, is_over, sent, thread: Some(thread) })
    }

    fn set(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Relaxed);
    }

    /// Ends it, and says how many packets it sent.
    fn stop(&mut self) -> Result<u64> {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow!("the flood panicked"))?;
        }
        Ok(self.sent.load(Ordering::Relaxed))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        // Told already if it was stopped; on the way out of an error there is nobody to tell.
        drop(self.stop());
    }
}

fn run(
    socket: &UdpSocket,
    target: SocketAddr,
    (is_on, is_over): (&AtomicBool, &AtomicBool),
    sent: &AtomicU64,
) {
    let mut packet = initial();
    let pause = Duration::from_secs(1) / (FLOOD_PER_SECOND / BURST);
    let mut due = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        if is_on.load(Ordering::Relaxed) {
            for _ in 0..BURST {
                let number = sent.fetch_add(1, Ordering::Relaxed);
                // Another connection id each time: each is a handshake of its own.
                packet[6..14].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
                // What does not fit into a queue is lost, as on a real line.
                socket.send_to(&packet, target).ok();
            }
        }
        // Behind time, it catches up; long behind, it gives up the rest.
        due = (due + pause).max(Instant::now() - WINDOW / 5);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// An Initial in form: long header, our version, an eight-byte destination, no source, no token, and noise where the encrypted part is.
fn initial() -> [u8; INITIAL_BYTES] {
    let mut packet = [0xa5; INITIAL_BYTES];
    packet[0] = 0xc3;
    packet[1..5].copy_from_slice(&VERSION);
    packet[5] = 8;
    // 6..14: the destination connection id, another one each time.
    packet[14] = 0;
    packet[15] = 0;
    let length = u16::try_from(INITIAL_BYTES - 18).expect("an Initial is shorter than 16 KiB") | 0x4000;
    packet[16..18].copy_from_slice(&length.to_be_bytes());
    packet
}
