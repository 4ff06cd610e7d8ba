//! A conversation that goes on while something happens: pieces go to an echo and come back, each byte is compared, and the longest wait
//! between two pieces is what a user would have felt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::people::{Person, echo_back};

/// Bytes of a piece: several packets, so that a loss in the middle of one is seen.
const PIECE_BYTES: usize = 16 << 10;
/// The first byte of a scenario's conversation: nothing has happened yet.
const BEGINS_WITHIN: Duration = Duration::from_secs(20);
/// A piece that is not back by then never will be.
const PIECE_WITHIN: Duration = Duration::from_secs(40);
/// How often we look whether enough has come through.
const LOOK: Duration = Duration::from_millis(20);

/// A conversation that goes on by itself.
#[derive(Debug)]
pub(super) struct Load {
    is_over: Arc<AtomicBool>,
    pieces: Arc<AtomicU64>,
    talking: JoinHandle<Result<Duration>>,
}

/// How it went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Talked {
    /// The longest time between two pieces.
    pub(super) longest_wait: Duration,
    /// Bytes that went there and came back unchanged.
    pub(super) bytes: u64,
}

impl Load {
    /// Begins a conversation; gives back once the first piece has been answered.
    pub(super) async fn start(from: &Person, to: &Person) -> Result<Self> {
        let opened = async {
            let mut stream = from.plugin.open(to.daemon.peer_id).await?;
            echo_back(&mut stream, PIECE_BYTES, 0).await?;
            anyhow::Ok(stream)
        };
        let opened =
            timeout(BEGINS_WITHIN, opened).await.context("the conversation does not begin").flatten();
        let mut stream = opened.with_context(|| from.daemon.last_words())?;
        let (is_over, pieces) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (until, count) = (Arc::clone(&is_over), Arc::clone(&pieces));
        let talking = tokio::spawn(async move {
            let mut longest_wait = Duration::ZERO;
            while !until.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let salt = count.load(Ordering::Relaxed).to_le_bytes()[0];
                let piece = timeout(PIECE_WITHIN, echo_back(&mut stream, PIECE_BYTES, salt));
                piece.await.with_context(|| format!("no answer for {} s", PIECE_WITHIN.as_secs()))??;
                longest_wait = longest_wait.max(begun.elapsed());
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(longest_wait)
        });
        Ok(Self { is_over, pieces, talking })
    }

    /// Pieces that have come back so far.
    pub(super) fn pieces(&self) -> u64 {
        self.pieces.load(Ordering::Relaxed)
    }

    /// Waits until so many more pieces have come back, or the conversation has broken.
    pub(super) async fn goes_on(&self, pieces: u64) {
        let enough = self.pieces() + pieces;
        let waiting = async {
            while self.pieces() < enough && !self.talking.is_finished() {
                sleep(LOOK).await;
            }
        };
        // A conversation that stands still is broken by its own patience, and told by `end`.
        timeout(PIECE_WITHIN, waiting).await.ok();
    }

    /// Ends it.
    ///
    /// # Errors
    /// It broke, or a byte came back changed.
    pub(super) async fn end(self) -> Result<Talked> {
        self.is_over.store(true, Ordering::Relaxed);
        let longest_wait = self.talking.await??;
        let bytes = self.pieces.load(Ordering::Relaxed) * PIECE_BYTES as u64;
        Ok(Talked { longest_wait, bytes })
    }
}

impl Talked {
    /// The figures that every conversation has.
    pub(super) fn figures(self) -> super::Figures {
        super::Figures::from([
            ("longest_wait_ms", (self.longest_wait.as_secs_f64() * 1e4).round() / 10.0),
            ("echoed_mib", (self.bytes as f64 / 1024.0 / 102.4).round() / 10.0),
        ])
    }

    /// Makes sure that nobody waited longer.
    ///
    /// # Errors
    /// Somebody did.
    pub(super) fn at_most(self, limit: Duration) -> Result<Self> {
        ensure!(self.longest_wait <= limit, "stood still for {:?}, allowed are {limit:?}", self.longest_wait);
        Ok(self)
    }
}
