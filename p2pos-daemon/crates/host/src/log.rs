//! A plugin's log: what it prints, what it says by Log frames, and what happens to it, in one order. Owns the memory of
//! the last lines, followers, and the limits that keep a flood from hurting anybody; `writer` has the files, `cut` the
//! lines that are too long, `past` the files of plugins that are known no more.
//!
//! Nothing a plugin prints can move a terminal's cursor or forge another line: text is cut at line ends, and whatever
//! is not plainly visible is escaped ([`Untrusted`]).
//!
//! Refuses to know: processes, frames. Nobody who logs waits for a disk.

mod cut;
mod past;
mod time;
mod writer;

use std::{
    collections::VecDeque,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use p2pos_identity::Untrusted;
pub use p2pos_plugin_protocol::message::Level;
use serde::Serialize;
use tokio::sync::broadcast;

pub(crate) use self::{cut::LineCutter, past::last_lines, time::unix_ms, writer::Writer};
use self::{time::Timestamp, writer::LogFile};

/// Lines kept in memory for `logs` and for "the last 20 lines" of a failure.
const RING_LINES_MAX: usize = 500;
/// The same in bytes, for plugins with long lines.
const RING_BYTES_MAX: usize = 256 * 1024;
/// Bytes a second that a plugin may log; what is more is dropped and counted. Nobody reads faster.
const BYTES_PER_SECOND: u64 = 1024 * 1024;
/// Lines a follower may be behind; then it is told how many it missed.
const FOLLOW_LINES_MAX: usize = 1024;
/// What each line costs in the budgets on top of its text, in bytes, so that a flood of empty lines is a flood, too.
const LINE_OVERHEAD_BYTES: usize = 64;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogSource {
    /// The program's standard output.
    Stdout,
    /// The program's standard error.
    Stderr,
    /// A Log frame of level debug.
    Debug,
    /// A Log frame of level info.
    Info,
    /// A Log frame of level warn.
    Warn,
    /// A Log frame of level error.
    Error,
    /// The daemon's own words about the plugin: started, ended, refused.
    Life,
}

impl LogSource {
    /// Every one of them.
    const ALL: [Self; 7] =
        [Self::Stdout, Self::Stderr, Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Life];

    /// The word in the log file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "out",
            Self::Stderr => "err",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Life => "p2pos",
        }
    }
}

impl From<Level> for LogSource {
    fn from(level: Level) -> Self {
        match level {
            Level::Debug => Self::Debug,
            Level::Info => Self::Info,
            Level::Warn => Self::Warn,
            Level::Error => Self::Error,
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogLine {
    /// When it arrived, milliseconds since 1970.
    pub unix_ms: u64,
    /// Where it came from.
    pub source: LogSource,
    /// Its text, escaped: safe to print.
    pub text: String,
}

/// The line as it stands in the file.
impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:<5} {}", Timestamp(self.unix_ms), self.source.as_str(), self.text)
    }
}

/// What `logs` shows: the lines that are there, and those to come.
#[derive(Debug)]
pub struct LogTail {
    /// Oldest first.
    pub recent: Vec<LogLine>,
    /// What comes after `recent`, without a gap.
    pub follow: LogFollow,
}

/// Lines to come.
#[derive(Debug)]
pub struct LogFollow {
    lines: broadcast::Receiver<LogLine>,
}

impl LogFollow {
    /// The next line; `None` when the plugin is gone from the daemon. Cancel-safe. A follower that was too slow gets a
    /// line that tells how many it missed.
    pub async fn next(&mut self) -> Option<LogLine> {
        match self.lines.recv().await {
            Ok(line) => Some(line),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                Some(life_line(format!("{missed} lines skipped: reading was too slow")))
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// A plugin's log. Shared by all who write to it; each call takes a short lock.
#[derive(Debug)]
pub(crate) struct PluginLog {
    book: Mutex<Book>,
    followers: broadcast::Sender<LogLine>,
    writer: Writer,
    file: Arc<LogFile>,
}

#[derive(Debug)]
struct Book {
    ring: VecDeque<LogLine>,
    ring_bytes: usize,
    budget: Budget,
}

impl PluginLog {
    /// A log that is written to `path`. A disk that fails is told to the daemon's log, and this one goes on in memory.
    pub(crate) fn new(path: PathBuf, writer: Writer) -> Self {
        let book = Book { ring: VecDeque::new(), ring_bytes: 0, budget: Budget::new(Instant::now()) };
        let followers = broadcast::Sender::new(FOLLOW_LINES_MAX);
        Self { book: Mutex::new(book), followers, writer, file: LogFile::new(path) }
    }

    /// Notes what the plugin printed or said. Several lines in `text` become several lines; `false` if any was dropped.
    pub(crate) fn push(&self, source: LogSource, text: &str) -> bool {
        let mut book = self.lock();
        let mut is_all = true;
        for line in text.split('\n') {
            let line = cut::cut(line);
            match book.budget.spend(Instant::now(), line.len() + LINE_OVERHEAD_BYTES) {
                Spent::Dropped => is_all = false,
                Spent::Fits { dropped_before } => {
                    if dropped_before > 0 {
                        self.add(&mut book, dropped_note(dropped_before));
                    }
                    let text = Untrusted(&line).to_string();
                    self.add(&mut book, LogLine { unix_ms: unix_ms(), source, text });
                }
            }
        }
        is_all
    }

    /// Notes what happened to the plugin. Never dropped, so only for what its supervisor does; what a peer can bring about
    /// as often as it likes goes through [`PluginLog::push`].
    pub(crate) fn life(&self, text: &str) {
        let mut book = self.lock();
        let dropped = book.budget.take_dropped();
        if dropped > 0 {
            self.add(&mut book, dropped_note(dropped));
        }
        self.add(&mut book, life_line(Untrusted(text).to_string()));
    }

    /// The last `lines` lines and a follower behind them.
    pub(crate) fn tail(&self, lines: usize) -> LogTail {
        let book = self.lock();
        let skip = book.ring.len().saturating_sub(lines);
        let recent = book.ring.iter().skip(skip).cloned().collect();
        LogTail { recent, follow: LogFollow { lines: self.followers.subscribe() } }
    }

    /// The last `lines` lines as the file has them.
    pub(crate) fn last(&self, lines: usize) -> Vec<String> {
        let book = self.lock();
        let skip = book.ring.len().saturating_sub(lines);
        book.ring.iter().skip(skip).map(ToString::to_string).collect()
    }

    fn add(&self, book: &mut Book, line: LogLine) {
        self.writer.write(&self.file, &line);
        // No follower is not an error.
        if self.followers.receiver_count() > 0 && self.followers.send(line.clone()).is_err() {
            tracing::trace!("the last follower of a log has just left");
        }
        book.remember(line);
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn remember(&mut self, line: LogLine) {
        self.ring_bytes += line.text.len() + LINE_OVERHEAD_BYTES;
        self.ring.push_back(line);
        while self.ring.len() > RING_LINES_MAX || self.ring_bytes > RING_BYTES_MAX {
            let Some(old) = self.ring.pop_front() else { break };
            self.ring_bytes -= old.text.len() + LINE_OVERHEAD_BYTES;
        }
    }
}

fn dropped_note(dropped: u64) -> LogLine {
    life_line(format!("{dropped} lines dropped: more than {BYTES_PER_SECOND} bytes a second"))
}

fn life_line(text: String) -> LogLine {
    LogLine { unix_ms: unix_ms(), source: LogSource::Life, text }
}

/// A token bucket in bytes that counts what did not fit.
#[derive(Debug)]
struct Budget {
    left: u64,
    filled: Instant,
    dropped: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Spent {
    Fits { dropped_before: u64 },
    Dropped,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { left: BYTES_PER_SECOND, filled: now, dropped: 0 }
    }

    fn spend(&mut self, now: Instant, bytes: usize) -> Spent {
        let passed = now.saturating_duration_since(self.filled).min(Duration::from_secs(1));
        let fresh = u64::try_from(passed.as_micros()).unwrap_or(0) * BYTES_PER_SECOND / 1_000_000;
        if fresh > 0 {
            self.left = (self.left + fresh).min(BYTES_PER_SECOND);
            self.filled = now;
        }
        match self.left.checked_sub(bytes as u64) {
            Some(left) => {
                self.left = left;
                Spent::Fits { dropped_before: self.take_dropped() }
            }
            None => {
                self.dropped += 1;
                Spent::Dropped
            }
        }
    }

    fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn log() -> (tempfile::TempDir, PluginLog) {
        let dir = tempfile::tempdir().unwrap();
        let log = PluginLog::new(dir.path().join("a.log"), Writer::start().unwrap());
        (dir, log)
    }

    #[tokio::test]
    async fn lines_stand_in_the_file_in_order_and_cannot_forge_others() {
        let (dir, log) = log();
        log.life("started");
        log.push(LogSource::Stdout, "one\ntwo");
        log.push(Level::Warn.into(), "evil \u{1b}[2J\u{202e}");
        log.writer.flush().await;
        let file = fs::read_to_string(dir.path().join("a.log")).unwrap();
        let texts: Vec<&str> = file.lines().map(|line| &line[25..]).collect();
        assert_eq!(texts, ["p2pos started", "out   one", "out   two", "warn  evil \\u{1b}[2J\\u{202e}"]);
    }

    #[test]
    fn a_flood_is_cut_to_its_budget_and_the_loss_is_told() {
        let mut budget = Budget::new(Instant::now());
        let start = budget.filled;
        let mut fitted = 0;
        for _ in 0..10_000 {
            if budget.spend(start, 1024) != Spent::Dropped {
                fitted += 1;
            }
        }
        assert_eq!(fitted, 1024, "one second's worth at once");
        let later = start + Duration::from_millis(100);
        assert_eq!(budget.spend(later, 1024), Spent::Fits { dropped_before: 10_000 - 1024 });
        assert_eq!(budget.spend(later, 1024), Spent::Fits { dropped_before: 0 });
        assert_eq!(budget.left, BYTES_PER_SECOND / 10 - 2048, "a tenth of a second brings a tenth");
    }

    #[test]
    fn memory_holds_the_last_lines_only() {
        let (_dir, log) = log();
        for n in 0..RING_LINES_MAX + 10 {
            log.push(LogSource::Stdout, &n.to_string());
        }
        let tail = log.tail(2);
        assert_eq!(tail.recent[1].text, (RING_LINES_MAX + 9).to_string());
        assert_eq!(log.tail(usize::MAX).recent.len(), RING_LINES_MAX);
        log.push(LogSource::Stdout, &"x".repeat(200_000));
        let held: usize = log.lock().ring.iter().map(|line| line.text.len()).sum();
        assert!(held <= RING_BYTES_MAX);
    }

    #[tokio::test]
    async fn a_slow_follower_is_told_what_it_missed() {
        let (_dir, log) = log();
        let mut follow = log.tail(0).follow;
        for n in 0..FOLLOW_LINES_MAX + 5 {
            log.push(LogSource::Stdout, &n.to_string());
        }
        assert_eq!(follow.next().await.unwrap().text, "5 lines skipped: reading was too slow");
        assert_eq!(follow.next().await.unwrap().text, "5");
    }
}
