//! The one thread that starts processes, and the handle on a guarded process. Owns every `fork` of the daemon.
//!
//! One thread that never ends, because the kernel's parent-death signal follows the *thread* that forked: a child of a
//! worker of a thread pool is signalled when that worker idles out. It also reaps the guards, and, where the process
//! is a subreaper, kills what a killed guard left behind.
//!
//! Processes are held by handles (`Child`, the control socket), never by a remembered number.
//! Refuses to know: manifests, restart policy, streams.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fmt,
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags},
    process::{Pid, WaitOptions},
};
use serde::Serialize;
use thiserror::Error;
use tokio::{net::UnixStream, sync::oneshot};

use crate::{
    guard::{EXITED, KILL, NOT_STARTED, REPORT_BYTES, SIGNALLED, START, STARTED, TERMINATE},
    processes::{kill_child, my_children},
    sandbox::ProcessLimits,
};

/// Requests that may wait for the thread. One takes about a millisecond; more than this at once is a caller's bug, and
/// is answered "busy".
const REQUESTS_MAX: usize = 256;
/// How long a start may take until the guard reports. It takes a few ms; a machine that swaps takes seconds. Longer than
/// this, and the disk with our own program hangs: then the start has failed, and whoever asked can say so.
const LAUNCH_WITHIN: Duration = Duration::from_secs(10);
/// How often the thread looks after dying guards, while there are any.
const TIDY_EVERY: Duration = Duration::from_millis(20);
/// How long a guard may take to leave after its control socket ended; then it is killed itself.
const GUARD_LEAVES_WITHIN: Duration = Duration::from_secs(10);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// Its guard was killed, so nobody saw how it ended.
    Unseen,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(75) => f.write_str("exit code 75 (try again later)"),
            Self::Code(78) => f.write_str("exit code 78 (configuration)"),
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(9) => f.write_str("signal 9 (killed)"),
            Self::Signal(11) => f.write_str("signal 11 (crashed)"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unseen => f.write_str("ended unseen: its guard was killed"),
        }
    }
}

/// What to start, and with what.
#[derive(Debug)]
pub(crate) struct Launch {
    /// How to run our guard: program and leading words.
    pub(crate) guard_exec: Vec<OsString>,
    pub(crate) exec: Vec<String>,
    /// The program's folder. Nobody but the program waits if it does not answer.
    pub(crate) dir: PathBuf,
    /// The whole environment.
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) limits: ProcessLimits,
    /// stdin, stdout, stderr of the program.
    pub(crate) stdio: [OwnedFd; 3],
    /// Whether this process adopts orphans and kills them: see `HostConfig`.
    pub(crate) adopts_orphans: bool,
}

/// Why a process could not be started.
#[derive(Debug, Error)]
pub(crate) enum LaunchError {
    #[error("the guard cannot be started: {0}")]
    Guard(#[source] io::Error),
    #[error("the process cannot be started: {0}")]
    Process(#[source] io::Error),
    #[error("too many processes are being started at once")]
    Busy,
    #[error(
        "nothing was heard of the process for {LAUNCH_WITHIN:?}: does the disk with p2pos itself answer?"
    )]
    Late,
}

/// Starts a process under a guard. Dropping the future after the start kills the process.
pub(crate) async fn launch(launch: Launch) -> Result<Guarded, LaunchError> {
    launch_within(launch, LAUNCH_WITHIN).await
}

async fn launch_within(launch: Launch, within: Duration) -> Result<Guarded, LaunchError> {
    tokio::time::timeout(within, launch_at_leisure(launch)).await.unwrap_or(Err(LaunchError::Late))
}

async fn launch_at_leisure(launch: Launch) -> Result<Guarded, LaunchError> {
    let (answer, answered) = oneshot::channel();
    thread_requests()
        .try_send(Request::Start { launch: Box::new(launch), answer })
        .map_err(|_| LaunchError::Busy)?;
    let started = answered.await.map_err(|_| LaunchError::Busy)?.map_err(LaunchError::Guard)?;
    let control = UnixStream::from_std(started.control).map_err(LaunchError::Guard)?;
    let mut guarded = Guarded {
        control,
        guard: Some(started.guard),
        report: [0; REPORT_BYTES],
        report_bytes: 0,
        pid: 0,
        exit: None,
    };
    match guarded.next_report().await {
        Some((STARTED, number)) => {
            guarded.pid = number.unsigned_abs();
            Ok(guarded)
        }
        Some((NOT_STARTED, errno)) => Err(LaunchError::Process(io::Error::from_raw_os_error(errno))),
        Some(_) | None => Err(LaunchError::Guard(io::Error::other("it ended at once"))),
    }
}

/// A running process and everything it started. Dropping this kills all of them.
#[derive(Debug)]
pub(crate) struct Guarded {
    control: UnixStream,
    guard: Option<Child>,
    report: [u8; REPORT_BYTES],
    report_bytes: usize,
    pid: u32,
    exit: Option<Exit>,
}

impl Guarded {
    /// The program's process number, for people to look at; never used to signal it.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// SIGTERM to the program's process group.
    pub(crate) fn terminate(&self) {
        self.order(TERMINATE);
    }

    /// Kills the program and all its descendants.
    pub(crate) fn kill(&self) {
        self.order(KILL);
    }

    fn order(&self, order: u8) {
        if let Err(error) = self.control.try_write(&[order]) {
            // A broken pipe: the guard is gone, and with it the process.
            tracing::debug!(%error, pid = self.pid, "the guard takes no order");
        }
    }

    /// Waits until the program has ended and no descendant is left. Cancel-safe.
    pub(crate) async fn gone(&mut self) -> Exit {
        while let Some((tag, number)) = self.next_report().await {
            self.exit = Some(if tag == SIGNALLED { Exit::Signal(number) } else { Exit::Code(number) });
            debug_assert!(tag == SIGNALLED || tag == EXITED, "the guard reports one end");
        }
        if let Some(exit) = self.exit {
            return exit;
        }
        // Somebody killed the guard. The program dies with it; the rest falls to the thread, if it is a subreaper.
        if let Some(guard) = self.guard.take() {
            let (swept, is_swept) = oneshot::channel();
            if thread_requests().try_send(Request::Bury { guard, swept: Some(swept) }).is_ok()
                && is_swept.await.is_err()
            {
                tracing::debug!(pid = self.pid, "the sweep was not confirmed");
            }
        }
        Exit::Unseen
    }

    /// One report of the guard, or `None` when it has ended. Cancel-safe: half a report stays in `self`.
    async fn next_report(&mut self) -> Option<(u8, i32)> {
        while self.report_bytes < REPORT_BYTES {
            self.control.readable().await.ok()?;
            match self.control.try_read(&mut self.report[self.report_bytes..]) {
                Ok(0) => return None,
                Ok(count) => self.report_bytes += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
        self.report_bytes = 0;
        let [tag, number @ ..] = self.report;
        Some((tag, i32::from_be_bytes(number)))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.order(KILL);
        if let Some(guard) = self.guard.take()
            && thread_requests().try_send(Request::Bury { guard, swept: None }).is_err()
        {
            tracing::warn!(pid = self.pid, "a guard was not waited for: too many at once");
        }
    }
}

enum Request {
    Start {
        launch: Box<Launch>,
        answer: oneshot::Sender<io::Result<Started>>,
    },
    /// Reap this guard; tell `swept` when it and its orphans are gone.
    Bury {
        guard: Child,
        swept: Option<oneshot::Sender<()>>,
    },
}

struct Started {
    control: StdUnixStream,
    guard: Child,
}

fn thread_requests() -> &'static SyncSender<Request> {
    static THREAD: OnceLock<SyncSender<Request>> = OnceLock::new();
    THREAD.get_or_init(|| {
        let (requests, inbox) = sync_channel(REQUESTS_MAX);
        let spawned =
            thread::Builder::new().name("spawner".into()).spawn(move || Keeper::default().run(&inbox));
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for starting plugins");
        }
        requests
    })
}

/// The thread's state.
#[derive(Default)]
struct Keeper {
    /// Numbers of guards that have not been reaped: everything else that is our child is an orphan.
    guards: BTreeSet<u32>,
    dying: Vec<Dying>,
    adopts_orphans: bool,
}

/// A guard whose handle was dropped.
struct Dying {
    guard: Child,
    since: Instant,
    swept: Option<oneshot::Sender<()>>,
}

impl Keeper {
    fn run(mut self, inbox: &Receiver<Request>) {
        loop {
            let request = if self.dying.is_empty() {
                inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                inbox.recv_timeout(TIDY_EVERY)
            };
            match request {
                Ok(Request::Start { launch, answer }) => {
                    if let Err(Ok(unwanted)) = answer.send(self.start(&launch)) {
                        self.bury(unwanted.guard, None);
                    }
                }
                Ok(Request::Bury { guard, swept }) => self.bury(guard, swept),
                Err(RecvTimeoutError::Timeout) => {}
                // The sender is static: it is never dropped.
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.tidy();
        }
    }

    fn bury(&mut self, guard: Child, swept: Option<oneshot::Sender<()>>) {
        self.dying.push(Dying { guard, since: Instant::now(), swept });
    }

    fn start(&mut self, launch: &Launch) -> io::Result<Started> {
        if launch.adopts_orphans && !self.adopts_orphans {
            rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
            self.adopts_orphans = true;
        }
        let (ours, theirs) = StdUnixStream::pair()?;
        let (program, again) = launch
            .guard_exec
            .split_first()
            .ok_or_else(|| io::Error::other("no guard command is configured"))?;
        let mut command = Command::new(program);
        command.args(again).arg("watch").arg(again.len().to_string()).args(again);
        let mut dir = OsString::from("dir=");
        dir.push(&launch.dir);
        command.arg(dir).arg(format!("files={}", launch.limits.files));
        if let Some(bytes) = launch.limits.memory_bytes {
            command.arg(format!("memory={bytes}"));
        }
        command.arg("--").args(&launch.exec);
        command.env_clear().envs(launch.env.iter().map(|(key, value)| (key, value))).current_dir("/");
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::null());
        let guard = command.spawn()?;
        self.guards.insert(guard.id());
        let handed = send_stdio(&ours, &launch.stdio).and_then(|()| ours.set_nonblocking(true));
        match handed {
            Ok(()) => Ok(Started { control: ours, guard }),
            Err(error) => {
                self.bury(guard, None);
                Err(error)
            }
        }
    }

    /// Reaps guards that have ended, kills those that will not, and sweeps orphans.
    fn tidy(&mut self) {
        let mut dying = std::mem::take(&mut self.dying);
        for entry in &mut dying {
            match entry.guard.try_wait() {
                Ok(None) => entry.hurry(),
                Ok(Some(_)) | Err(_) => {
                    self.guards.remove(&entry.guard.id());
                }
            }
        }
        // After a guard is gone, its orphans are ours; a killed one leaves its own children to us, so an entry stays
        // until a look finds none.
        let are_orphans_left = self.adopts_orphans && !dying.is_empty() && self.sweep_orphans();
        for entry in dying {
            if are_orphans_left || self.guards.contains(&entry.guard.id()) {
                self.dying.push(entry);
            } else if let Some(swept) = entry.swept
                && swept.send(()).is_err()
            {
                // Whoever asked has stopped waiting.
            }
        }
    }

    /// Kills every child that is no guard, and reaps those that are dead. Tells whether there were any.
    fn sweep_orphans(&self) -> bool {
        let Ok(children) = my_children() else { return false };
        let is_orphan = |child: &Pid| !self.guards.contains(&child.as_raw_nonzero().get().unsigned_abs());
        let mut are_any = false;
        for orphan in children.into_iter().filter(is_orphan) {
            are_any = true;
            kill_child(orphan);
            if let Err(error) = rustix::process::waitpid(Some(orphan), WaitOptions::NOHANG) {
                tracing::debug!(%error, "an orphan was reaped by somebody else");
            }
        }
        are_any
    }
}

impl Dying {
    fn hurry(&mut self) {
        if self.since.elapsed() > GUARD_LEAVES_WITHIN
            && let Err(error) = self.guard.kill()
        {
            tracing::debug!(%error, "a guard that overstayed has just left");
        }
    }
}

fn send_stdio(control: &StdUnixStream, stdio: &[OwnedFd; 3]) -> io::Result<()> {
    let descriptors = stdio.each_ref().map(AsFd::as_fd);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    rustix::net::sendmsg(control, &[IoSlice::new(&[START])], &mut ancillary, SendFlags::empty())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch_of(guard: &[&str]) -> Launch {
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        Launch {
            guard_exec: guard.iter().map(OsString::from).collect(),
            exec: vec!["true".to_owned()],
            dir: "/".into(),
            env: Vec::new(),
            limits: ProcessLimits { files: 64, memory_bytes: None },
            stdio: [null(), null(), null()],
            adopts_orphans: false,
        }
    }

    #[tokio::test]
    async fn a_guard_that_never_reports_does_not_hold_up_its_start_for_ever_nor_anybody_else() {
        let silent = launch_of(&["/bin/sh", "-c", "exec sleep 1000"]);
        let outcome = launch_within(silent, Duration::from_millis(200)).await;
        assert!(matches!(outcome, Err(LaunchError::Late)), "{outcome:?}");
        let gone = launch_of(&["/no/such/guard"]);
        let outcome = launch_within(gone, Duration::from_secs(20)).await;
        assert!(matches!(outcome, Err(LaunchError::Guard(_))), "the thread works on: {outcome:?}");
    }
}
