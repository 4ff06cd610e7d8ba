//! The thread that writes log files. Owns the files, their rotation, and what happens when the disk does not keep up.
//!
//! The daemon has one thread for everything that carries payload, and a disk may take seconds for an append: so lines
//! go into a queue with a bound, and whoever logs never waits. What does not fit is dropped, and the file says how many
//! lines that were. A kill -9 of the daemon loses what waits here, which is milliseconds' worth.
//!
//! Refuses to know: plugins; which lines deserve to be written.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{LogLine, life_line};

/// Size in bytes at which a log file is put aside as `.1` and begun anew: two of them per plugin hold a week of a
/// talkative plugin, and a hundred plugins stay under 1 GiB.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Lines of all plugins that may wait for the disk: at 20 us each, a tenth of a second.
const QUEUE_LINES_MAX: usize = 4096;
/// The same in bytes: four seconds of a plugin that logs as much as it may.
const QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a file that could not be written is left alone: a full disk is full for a while, and each try costs.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// Pause before a flush tries again to get into a full queue.
const FLUSH_PAUSE: Duration = Duration::from_millis(5);

/// Hands lines to the thread. The thread ends with the last clone of this.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    orders: SyncSender<Order>,
    bytes_waiting: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum Order {
    Line { file: Arc<LogFile>, text: String },
    Flush(oneshot::Sender<()>),
}

/// A log file, as everybody who writes into it knows it.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    /// Lines that found the queue full, and are not yet told.
    lost: AtomicU64,
    /// Locked by the writing thread alone.
    open: Mutex<Open>,
}

#[derive(Debug)]
enum Open {
    /// Not tried, or not since `Instant`.
    Closed(Option<Instant>),
    Open {
        file: File,
        bytes: u64,
    },
}

impl LogFile {
    pub(super) fn new(path: PathBuf) -> Arc<Self> {
        Arc::new(Self { path, lost: AtomicU64::new(0), open: Mutex::new(Open::Closed(None)) })
    }
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (orders, inbox) = sync_channel(QUEUE_LINES_MAX);
        let bytes_waiting = Arc::<AtomicUsize>::default();
        let counter = bytes_waiting.clone();
        thread::Builder::new().name("plugin logs".into()).spawn(move || keep_writing(&inbox, &counter))?;
        Ok(Self { orders, bytes_waiting })
    }

    /// Queues a line. Never waits: where there is no room, the line is counted instead.
    pub(super) fn write(&self, file: &Arc<LogFile>, line: &LogLine) {
        let text = format!("{line}\n");
        let bytes = text.len();
        let waiting = self.bytes_waiting.fetch_add(bytes, Ordering::Relaxed);
        let is_taken = waiting + bytes <= QUEUE_BYTES_MAX
            && self.orders.try_send(Order::Line { file: file.clone(), text }).is_ok();
        if !is_taken {
            self.bytes_waiting.fetch_sub(bytes, Ordering::Relaxed);
            file.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything that was queued so far is in its file. Cancel-safe; give it a deadline, as a disk that hangs
    /// hangs this.
    pub(crate) async fn flush(&self) {
        let (done, is_done) = oneshot::channel();
        let mut order = Order::Flush(done);
        while let Err(error) = self.orders.try_send(order) {
            let TrySendError::Full(back) = error else { break };
            order = back;
            tokio::time::sleep(FLUSH_PAUSE).await;
        }
        if is_done.await.is_err() {
            tracing::warn!("the thread that writes logs has ended");
        }
    }
}

fn keep_writing(inbox: &Receiver<Order>, bytes_waiting: &AtomicUsize) {
    while let Ok(order) = inbox.recv() {
        match order {
            Order::Line { file, text } => {
                bytes_waiting.fetch_sub(text.len(), Ordering::Relaxed);
                file.append(&text);
            }
            Order::Flush(done) => {
                if done.send(()).is_err() {
                    tracing::trace!("nobody waits for the logs any more");
                }
            }
        }
    }
}

impl LogFile {
    fn append(&self, text: &str) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let note = if lost > 0 { self.note_of(lost) } else { String::new() };
        if let Err(error) = open.write(&self.path, &[&note, text].concat()) {
            tracing::warn!(file = %self.path.display(), %error, "a plugin's log cannot be written");
            *open = Open::Closed(Some(Instant::now()));
        }
    }

    fn note_of(&self, lost: u64) -> String {
        let line = life_line(format!("{lost} lines are missing here: the disk was too slow"));
        tracing::warn!(file = %self.path.display(), lost, "the disk is too slow for a plugin's log");
        format!("{line}\n")
    }
}

impl Open {
    fn write(&mut self, path: &Path, text: &str) -> io::Result<()> {
        match self {
            Self::Closed(Some(since)) if since.elapsed() < RETRY_AFTER => return Ok(()),
            Self::Closed(_) => *self = open_append(path)?,
            Self::Open { bytes, .. } if *bytes > FILE_BYTES_MAX => {
                fs::rename(path, path.with_added_extension("1"))?;
                *self = open_append(path)?;
            }
            Self::Open { .. } => {}
        }
        if let Self::Open { file, bytes } = self {
            file.write_all(text.as_bytes())?;
            *bytes += text.len() as u64;
        }
        Ok(())
    }
}

fn open_append(path: &Path) -> io::Result<Open> {
    let file = File::options().append(true).create(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok(Open::Open { file, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> LogLine {
        life_line(text.to_owned())
    }

    #[tokio::test]
    async fn a_full_file_is_put_aside_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        fs::write(&path, vec![b'x'; usize::try_from(FILE_BYTES_MAX).unwrap() + 1]).unwrap();
        let (writer, file) = (Writer::start().unwrap(), LogFile::new(path.clone()));
        // The size is looked at before each line, so the first one opens the old file.
        for n in 0..3 {
            writer.write(&file, &line(&n.to_string()));
        }
        writer.flush().await;
        assert!(dir.path().join("a.log.1").exists());
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
    }

    #[tokio::test]
    async fn a_disk_that_hangs_costs_lines_and_never_a_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let (writer, file) = (Writer::start().unwrap(), LogFile::new(path.clone()));
        // The file's lock stands for the disk: the thread hangs in its first line.
        let disk = file.open.lock().unwrap();
        let long = line(&"x".repeat(10_000));
        let total = QUEUE_LINES_MAX + 100;
        for _ in 0..total {
            writer.write(&file, &long);
        }
        let lost = file.lost.load(Ordering::Relaxed);
        let most = QUEUE_BYTES_MAX / 10_000 + 2;
        assert!(total - usize::try_from(lost).unwrap() <= most, "{lost} of {total} were dropped");
        drop(disk);
        writer.flush().await;
        writer.write(&file, &line("back"));
        writer.flush().await;
        let files = [path.with_added_extension("1"), path];
        let text: String = files.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
        // The first line after the jam carries the note.
        assert!(text.contains(&format!("{lost} lines are missing here")), "{} lines", text.lines().count());
        assert_eq!(writer.bytes_waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_is_tried_again_later_and_blocks_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing/a.log");
        let (writer, file) = (Writer::start().unwrap(), LogFile::new(path.clone()));
        writer.write(&file, &line("lost"));
        writer.flush().await;
        fs::create_dir(path.parent().unwrap()).unwrap();
        writer.write(&file, &line("too early"));
        writer.flush().await;
        assert!(!path.exists());
        *file.open.lock().unwrap() = Open::Closed(None);
        writer.write(&file, &line("back"));
        writer.flush().await;
        assert!(fs::read_to_string(&path).unwrap().ends_with("back\n"));
    }
}
