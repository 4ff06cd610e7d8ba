//! How many bytes the relay forwarded this month, kept over restarts: the owner's monthly limit means the month, not the
//! process.
//!
//! One line in one small file, `2026-12 123456`: the month (UTC) and its bytes. Written every few minutes and at the end, so
//! a crash forgets a few minutes' worth. [`Tally`] decides, with the time as an argument; [`MonthKeeper`] asks the clock
//! and writes. A daemon that never relayed has no such file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use p2pos_identity::replace_file;
use p2pos_node::Node;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::cli::month;

/// How often the count is written and the calendar looked at. A crash forgets so much: at 20 Mbit/s, 750 MB. Half of it
/// would write a sleeping disk awake too often; twice is more than a monthly limit should be off.
const EVERY: Duration = Duration::from_secs(300);

/// 2026-01-01. A clock before the first version of this program is wrong (a computer without a battery begins in 1970), and
/// says nothing about the month.
const CLOCK_FROM_UNIX_S: u64 = 1_767_225_600;

/// The month and its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tally {
    /// `2026-12`; sorts as time does. Empty before the first look at a clock that is right.
    month: String,
    bytes: u64,
}

impl Tally {
    /// Reads a line that [`Tally::line`] wrote.
    fn parse(line: &str) -> Option<Self> {
        let (month, bytes) = line.trim_end().split_once(' ')?;
        let is_month = month.len() == 7 && month.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        is_month.then_some(())?;
        Some(Self { month: month.to_owned(), bytes: bytes.parse().ok()? })
    }

    fn line(&self) -> String {
        format!("{} {}\n", self.month, self.bytes)
    }

    /// Looks at the calendar; true if another month has begun, and the bytes count from nothing. A calendar that goes back
    /// was wrong before or is wrong now: the bytes stay, as they were forwarded in any case.
    fn turn(&mut self, unix_s: u64) -> bool {
        if unix_s < CLOCK_FROM_UNIX_S {
            return false;
        }
        let now = month(unix_s);
        let has_begun = !self.month.is_empty() && now > self.month;
        self.month = now;
        if has_begun {
            self.bytes = 0;
        }
        has_begun
    }
}

/// The tally and its file.
#[derive(Debug)]
struct Ledger {
    path: PathBuf,
    tally: Tally,
    written: Tally,
}

impl Ledger {
    /// Reads the file. What cannot be read counts as nothing, and the owner hears of it.
    fn open(path: PathBuf, unix_s: u64) -> Self {
        let written = read(&path).unwrap_or_else(|error| {
            warn!(path = %path.display(), %error, "the relay's count of this month is lost, it begins anew");
            Tally::default()
        });
        let mut tally = written.clone();
        tally.turn(unix_s);
        Self { path, tally, written }
    }

    /// Takes the relay's count; true if another month has begun, which the relay must be told.
    fn note(&mut self, unix_s: u64, bytes: u64) -> bool {
        self.tally.bytes = bytes;
        let has_begun = self.tally.turn(unix_s);
        let is_news = self.tally != self.written && !self.tally.month.is_empty();
        if is_news && (self.tally.bytes > 0 || self.written.bytes > 0) {
            match replace_file(&self.path, self.tally.line().as_bytes()) {
                Ok(()) => self.written = self.tally.clone(),
                Err(error) => {
                    warn!(path = %self.path.display(), %error, "the relay's count of this month is not kept");
                }
            }
        }
        has_begun
    }
}

fn read(path: &Path) -> io::Result<Tally> {
    match fs::read_to_string(path) {
        Ok(text) => Tally::parse(&text)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is no month with its bytes")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Tally::default()),
        Err(error) => Err(error),
    }
}

/// The month before a node is there to count it.
#[derive(Debug)]
pub(super) struct MonthSoFar(Ledger);

impl MonthSoFar {
    /// Reads what was forwarded this month before. Blocks for as long as the disk takes.
    pub(super) fn read(path: PathBuf) -> Self {
        Self(Ledger::open(path, unix_s()))
    }

    /// Bytes of this month.
    pub(super) fn bytes(&self) -> u64 {
        self.0.tally.bytes
    }

    /// Keeps the count of this node's relay from now on.
    pub(super) fn keep(self, node: Node) -> MonthKeeper {
        let ledger = Arc::new(Mutex::new(self.0));
        let task = tokio::spawn({
            let (ledger, node) = (Arc::clone(&ledger), node.clone());
            async move {
                let mut every = interval(EVERY);
                // After a sleep once is enough.
                every.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    every.tick().await;
                    note(&ledger, &node).await;
                }
            }
        });
        MonthKeeper { ledger, node, task }
    }
}

/// Keeps the count until the daemon ends.
#[derive(Debug)]
pub(super) struct MonthKeeper {
    ledger: Arc<Mutex<Ledger>>,
    node: Node,
    task: JoinHandle<()>,
}

impl MonthKeeper {
    /// Writes the last word.
    pub(super) async fn end(self) {
        self.task.abort();
        note(&self.ledger, &self.node).await;
    }
}

async fn note(ledger: &Arc<Mutex<Ledger>>, node: &Node) {
    let (ledger, bytes) = (Arc::clone(ledger), node.relays().serving.month_bytes);
    let noted =
        spawn_blocking(move || ledger.lock().unwrap_or_else(PoisonError::into_inner).note(unix_s(), bytes));
    match noted.await {
        Ok(true) => {
            info!("a new month has begun for the relay");
            node.begin_relay_month();
        }
        Ok(false) => {}
        Err(error) => warn!(%error, "the relay's count of this month is not kept"),
    }
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-30 23:59:59 UTC and the second after.
    const LAST_OF_NOVEMBER: u64 = 1_796_083_199;
    const FIRST_OF_DECEMBER: u64 = LAST_OF_NOVEMBER + 1;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay-month");
        (dir, path)
    }

    #[test]
    fn what_was_forwarded_is_known_after_a_restart() {
        let (_dir, path) = place();
        assert!(!Ledger::open(path.clone(), FIRST_OF_DECEMBER).note(FIRST_OF_DECEMBER, 123_456));
        assert_eq!(fs::read_to_string(&path).unwrap(), "2026-12 123456\n");
        assert_eq!(Ledger::open(path, FIRST_OF_DECEMBER + 86_400).tally.bytes, 123_456);
    }

    #[test]
    fn a_month_begins_at_midnight_utc_and_counts_from_nothing() {
        let (_dir, path) = place();
        let mut ledger = Ledger::open(path.clone(), LAST_OF_NOVEMBER);
        assert!(!ledger.note(LAST_OF_NOVEMBER, 7_000));
        assert!(ledger.note(FIRST_OF_DECEMBER, 7_500), "the relay must be told");
        assert_eq!(fs::read_to_string(&path).unwrap(), "2026-12 0\n");
        assert!(!ledger.note(FIRST_OF_DECEMBER + 300, 400), "told once");
        assert_eq!(Ledger::open(path, FIRST_OF_DECEMBER + 300).tally.bytes, 400);
    }

    #[test]
    fn a_month_that_began_while_no_daemon_ran_counts_from_nothing() {
        let (_dir, path) = place();
        Ledger::open(path.clone(), LAST_OF_NOVEMBER).note(LAST_OF_NOVEMBER, 7_000);
        assert_eq!(Ledger::open(path, FIRST_OF_DECEMBER).tally.bytes, 0);
    }

    #[test]
    fn a_clock_that_is_wrong_gives_nothing_away() {
        let (_dir, path) = place();
        Ledger::open(path.clone(), FIRST_OF_DECEMBER).note(FIRST_OF_DECEMBER, 7_000);
        // The battery is empty: 1970 until the network has told the time.
        let mut ledger = Ledger::open(path.clone(), 60);
        assert_eq!(ledger.tally.bytes, 7_000);
        assert!(!ledger.note(360, 7_100));
        assert!(!ledger.note(FIRST_OF_DECEMBER + 600, 7_200));
        // The clock was ahead by a month, and was put right.
        let mut ledger = Ledger::open(path, LAST_OF_NOVEMBER);
        assert_eq!(ledger.tally.bytes, 7_200);
        assert!(ledger.note(FIRST_OF_DECEMBER, 7_300), "and then the month begins as it does");
    }

    #[test]
    fn what_is_forwarded_before_the_clock_is_right_belongs_to_the_month_that_it_says_then() {
        let (_dir, path) = place();
        let mut ledger = Ledger::open(path.clone(), 60);
        assert!(!ledger.note(360, 5));
        assert!(!path.exists());
        assert!(!ledger.note(FIRST_OF_DECEMBER, 9));
        assert_eq!(fs::read_to_string(&path).unwrap(), "2026-12 9\n");
    }

    #[test]
    fn who_never_relayed_has_no_file() {
        let (_dir, path) = place();
        let mut ledger = Ledger::open(path.clone(), LAST_OF_NOVEMBER);
        assert!(!ledger.note(LAST_OF_NOVEMBER, 0));
        ledger.note(FIRST_OF_DECEMBER, 0);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_says_something_else_counts_as_nothing_and_is_written_anew() {
        for text in ["", "2026-12", "december 5", "2026-12 x", "2026-12 -1", "2026-12 18446744073709551616"] {
            let (_dir, path) = place();
            fs::write(&path, text).unwrap();
            let mut ledger = Ledger::open(path.clone(), FIRST_OF_DECEMBER);
            assert_eq!(ledger.tally.bytes, 0, "{text:?}");
            ledger.note(FIRST_OF_DECEMBER, 5);
            assert_eq!(fs::read_to_string(&path).unwrap(), "2026-12 5\n", "{text:?}");
        }
    }
}
