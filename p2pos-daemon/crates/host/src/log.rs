//! A plugin's log: what it prints, what it says by Log frames, and what happens to it, in one order. Owns the files
//! with their rotation, the memory of the last lines, followers, and the limits that keep a flood from hurting anybody.
//!
//! Nothing a plugin prints can move a terminal's cursor or forge another line: text is cut at line ends, and whatever
//! is not plainly visible is escaped ([`Untrusted`]).
//!
//! Refuses to know: processes, frames. Writes to the disk on the caller's thread: appends to the page cache, at most
//! 1 MiB a second per plugin.

use std::{
    collections::VecDeque,
    fmt,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use p2pos_identity::Untrusted;
use p2pos_plugin_protocol::limits::LOG_LINE_BYTES_MAX;
pub use p2pos_plugin_protocol::message::Level;
use serde::Serialize;
use tokio::sync::broadcast;

/// Size in bytes at which a log file is put aside as `.1` and begun anew: two of them per plugin hold a week of a
/// talkative plugin, and a hundred plugins stay under 1 GiB.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
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
}

#[derive(Debug)]
struct Book {
    path: PathBuf,
    file: Option<File>,
    file_bytes: u64,
    ring: VecDeque<LogLine>,
    ring_bytes: usize,
    budget: Budget,
}

impl PluginLog {
    /// A log that writes to `path`. A disk that fails is told once, and the log goes on in memory.
    pub(crate) fn open(path: PathBuf) -> Self {
        let (file, file_bytes) = match open_append(&path) {
            Ok((file, bytes)) => (Some(file), bytes),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "a plugin's log cannot be written");
                (None, 0)
            }
        };
        let budget = Budget::new(Instant::now());
        let book = Book { path, file, file_bytes, ring: VecDeque::new(), ring_bytes: 0, budget };
        Self { book: Mutex::new(book), followers: broadcast::Sender::new(FOLLOW_LINES_MAX) }
    }

    /// Notes what the plugin printed or said. Several lines in `text` become several lines; `false` if any was dropped.
    pub(crate) fn push(&self, source: LogSource, text: &str) -> bool {
        let mut book = self.lock();
        let mut is_all = true;
        for line in text.split('\n') {
            for piece in pieces(line) {
                let now = Instant::now();
                match book.budget.spend(now, piece.len() + LINE_OVERHEAD_BYTES) {
                    Spent::Dropped => is_all = false,
                    Spent::Fits { dropped_before } => {
                        if dropped_before > 0 {
                            self.add(&mut book, dropped_note(dropped_before));
                        }
                        let text = Untrusted(piece).to_string();
                        self.add(&mut book, LogLine { unix_ms: unix_ms(), source, text });
                    }
                }
            }
        }
        is_all
    }

    /// Notes what happened to the plugin. Never dropped.
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
        book.write(&line);
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

    fn write(&mut self, line: &LogLine) {
        if self.file_bytes > FILE_BYTES_MAX {
            self.rotate();
        }
        let Some(file) = &mut self.file else { return };
        let text = format!("{line}\n");
        match file.write_all(text.as_bytes()) {
            Ok(()) => self.file_bytes += text.len() as u64,
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "a plugin's log cannot be written any more");
                self.file = None;
            }
        }
    }

    fn rotate(&mut self) {
        let aside = self.path.with_added_extension("1");
        let renewed = fs::rename(&self.path, &aside).and_then(|()| open_append(&self.path));
        match renewed {
            Ok((file, bytes)) => (self.file, self.file_bytes) = (Some(file), bytes),
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "a plugin's log cannot be rotated");
                self.file = None;
                self.file_bytes = 0;
            }
        }
    }
}

fn open_append(path: &Path) -> io::Result<(File, u64)> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = File::options().append(true).create(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

fn dropped_note(dropped: u64) -> LogLine {
    life_line(format!("{dropped} lines dropped: more than {BYTES_PER_SECOND} bytes a second"))
}

fn life_line(text: String) -> LogLine {
    LogLine { unix_ms: unix_ms(), source: LogSource::Life, text }
}

/// Cuts an overlong line; the rest follows as lines of its own.
fn pieces(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let mut cut = line.len().min(LOG_LINE_BYTES_MAX as usize);
        while !line.is_char_boundary(cut) {
            cut -= 1;
        }
        let (piece, after) = line.split_at(cut);
        rest = (!after.is_empty()).then_some(after);
        Some(piece)
    })
}

/// Cuts a stream of bytes into lines, holding at most one line's worth.
#[derive(Debug, Default)]
pub(crate) struct LineCutter {
    held: Vec<u8>,
}

impl LineCutter {
    /// Takes bytes and gives every whole line, or a part of one that has grown too long, to `line`.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut line: impl FnMut(&str)) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.held.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.flush_into(&mut line, true);
        }
        self.held.extend_from_slice(bytes);
        if self.held.len() >= LOG_LINE_BYTES_MAX as usize {
            self.flush_into(&mut line, false);
        }
    }

    /// The rest, when the stream has ended.
    pub(crate) fn finish(mut self, mut line: impl FnMut(&str)) {
        self.flush_into(&mut line, false);
    }

    fn flush_into(&mut self, line: &mut impl FnMut(&str), is_whole: bool) {
        let text = String::from_utf8_lossy(&self.held);
        let text = text.strip_suffix('\r').unwrap_or(&text);
        if is_whole || !text.is_empty() {
            line(text);
        }
        self.held.clear();
    }
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

/// Milliseconds since 1970; 0 if the clock stands before that.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Shows milliseconds since 1970 as RFC 3339 in UTC.
struct Timestamp(u64);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ms) = (self.0 / 1000, self.0 % 1000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil_of_days(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

/// Year, month and day of a day number since 1970-01-01 in the Gregorian calendar. Years are counted from March, so
/// that the leap day is the last of its year; 146,097 days are one full cycle of 400 years.
fn civil_of_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> (tempfile::TempDir, PluginLog) {
        let dir = tempfile::tempdir().unwrap();
        let log = PluginLog::open(dir.path().join("a.log"));
        (dir, log)
    }

    #[test]
    fn dates_are_right_around_leap_days_and_centuries() {
        for (unix_s, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_799, "2000-02-29T23:59:59.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Timestamp(unix_s * 1000).to_string(), text);
        }
    }

    #[test]
    fn lines_stand_in_the_file_in_order_and_cannot_forge_others() {
        let (dir, log) = log();
        log.life("started");
        log.push(LogSource::Stdout, "one\ntwo");
        log.push(Level::Warn.into(), "evil \u{1b}[2J\u{202e}");
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

    #[test]
    fn a_full_file_is_put_aside_once() {
        let (dir, log) = log();
        log.lock().file_bytes = FILE_BYTES_MAX + 1;
        log.life("first of the new file");
        assert!(dir.path().join("a.log.1").exists());
        let file = fs::read_to_string(dir.path().join("a.log")).unwrap();
        assert_eq!(file.lines().count(), 1);
        assert!(log.lock().file_bytes < 200);
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

    #[test]
    fn bytes_become_lines_wherever_they_are_cut() {
        let text = b"one\r\n\xfftwo\n\nlast";
        for cut in 0..text.len() {
            let mut lines = Vec::new();
            let mut cutter = LineCutter::default();
            cutter.feed(&text[..cut], |line| lines.push(line.to_owned()));
            cutter.feed(&text[cut..], |line| lines.push(line.to_owned()));
            cutter.finish(|line| lines.push(line.to_owned()));
            assert_eq!(lines, ["one", "\u{fffd}two", "", "last"]);
        }
        let mut cutter = LineCutter::default();
        let mut count = 0;
        for _ in 0..100 {
            cutter.feed(&[b'x'; 10_000], |_| count += 1);
            assert!(cutter.held.len() < 2 * LOG_LINE_BYTES_MAX as usize, "an endless line is not held");
        }
        assert!(count > 10);
    }
}
