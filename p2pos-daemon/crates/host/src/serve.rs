//! Stream commands (tier T0): one process per inbound stream, whose stdin and stdout are the stream. Owns their starting,
//! their end, and what their exit code means to the peer.
//!
//! What peers can bring about as often as they like has a bound: starts go through [`Throttle`], and lines about them
//! through the log's own budget. A command runs under a guard of its own, like a plugin's main process, so it too cannot outlive the daemon. Its
//! stderr goes to the plugin's log. Refuses to know: the directory of protocols, the network.

use std::{
    ffi::OsString,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use p2pos_identity::PeerId;
use p2pos_plugin_protocol::code::{Code, End};
use tokio::sync::{oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    launch::{self, LogPipe},
    log::{LogSource, PluginLog},
    manifest::Serve,
    network::{Offer, Refusal},
    sandbox::ProcessLimits,
    spawner::{self, Exit, Guarded, Launch, LaunchError},
    stream::{Ended, Fate, PluginStream, RawEnd, RawIo},
    throttle::Throttle,
};

/// How long a command may still run when its stream is over both ways.
const EXIT_WITHIN: Duration = Duration::from_secs(5);
/// How long a command may take to obey SIGTERM.
const TERM_WITHIN: Duration = Duration::from_secs(2);
/// How long to wait for the last words on stderr of a command that is gone.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(1);

/// A stream command that is being served.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) serve: Serve,
    pub(crate) guard_exec: Vec<OsString>,
    pub(crate) adopts_orphans: bool,
    pub(crate) dir: PathBuf,
    /// What every command of the plugin gets; the stream's own facts are added.
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) limits: ProcessLimits,
    pub(crate) log: Arc<PluginLog>,
    /// Shared by all commands of the plugin.
    pub(crate) throttle: Arc<Mutex<Throttle>>,
    /// Cancelled when the plugin is stopped.
    pub(crate) stop: CancellationToken,
    /// Counts the running commands, so that a stop can wait for them.
    pub(crate) running: TaskTracker,
}

impl Command {
    /// Starts the command for a stream.
    pub(crate) async fn open(&self, offer: &Offer) -> Result<PluginStream, Refusal> {
        let not_now = |retry_after, reason| Refusal {
            code: Code::NOT_READY,
            retry_after: Some(retry_after),
            offered: Vec::new(),
            reason,
        };
        let may = self.throttle.lock().unwrap_or_else(PoisonError::into_inner).start(Instant::now());
        if let Err(wait) = may {
            tracing::debug!(protocol = %self.serve.protocol, ?wait, "a stream command is started too often");
            return Err(not_now(wait, "it is started too often".to_owned()));
        }
        self.start(offer).await.map_err(|error| {
            let what = format!("{} for {}", self.serve.protocol, name_of(offer));
            self.log.push(LogSource::Life, &format!("{what}: {error}"));
            note_end(&self.throttle, &self.log, &what, false);
            not_now(Duration::from_secs(1), error.to_string())
        })
    }

    async fn start(&self, offer: &Offer) -> Result<PluginStream, LaunchError> {
        let pipes = launch::Pipes::new().map_err(LaunchError::Process)?;
        let mut env = self.env.clone();
        let mut set = |key: &str, value: String| env.push((key.into(), value.into()));
        set("P2POS_PROTOCOL", self.serve.protocol.to_string());
        set("P2POS_REMOTE_PEER", offer.peer.to_string());
        set("P2POS_REMOTE_PETNAME", offer.petname.clone().unwrap_or_default().replace('\0', ""));
        let guarded = spawner::launch(Launch {
            guard_exec: self.guard_exec.clone(),
            exec: self.serve.exec.clone(),
            dir: self.dir.clone(),
            env,
            limits: self.limits,
            stdio: pipes.theirs,
            adopts_orphans: self.adopts_orphans,
        })
        .await?;
        let (tell, fate) = watch::channel(None);
        let (closed, is_closed) = oneshot::channel();
        let minder = Minder {
            guarded,
            stderr: LogPipe::new(pipes.stderr, self.log.clone(), LogSource::Stderr),
            what: format!("{} for {}", self.serve.protocol, name_of(offer)),
            log: self.log.clone(),
            throttle: self.throttle.clone(),
            stop: self.stop.clone(),
        };
        self.running.spawn(minder.run(tell, is_closed));
        let io = RawIo::Pipes(pipes.stdout, pipes.stdin);
        Ok(PluginStream::raw(RawEnd { io, leftover: BytesMut::new(), fate, closed }))
    }
}

/// The petname, or the beginning of the PeerId.
fn name_of(offer: &Offer) -> String {
    offer.petname.clone().unwrap_or_else(|| short(&offer.peer))
}

fn short(peer: &PeerId) -> String {
    format!("{peer:?}")
}

/// The task that knows how the command ended.
struct Minder {
    guarded: Guarded,
    stderr: LogPipe,
    what: String,
    log: Arc<PluginLog>,
    throttle: Arc<Mutex<Throttle>>,
    stop: CancellationToken,
}

impl Minder {
    async fn run(
        mut self,
        tell: watch::Sender<Option<Fate>>,
        mut is_closed: oneshot::Receiver<crate::stream::Closed>,
    ) {
        let pump = tokio::spawn(self.stderr.run());
        let (mut is_over, mut was_ended) = (false, false);
        let exit = tokio::select! {
            exit = self.guarded.gone() => exit,
            closed = &mut is_closed => {
                is_over = true;
                let is_finished = closed.is_ok_and(|closed| closed.ended == Ended::Finished);
                was_ended = !is_finished;
                let patience = if is_finished { EXIT_WITHIN } else { Duration::ZERO };
                end(&mut self.guarded, patience).await
            }
            () = self.stop.cancelled() => {
                was_ended = true;
                tell.send_replace(Some(Fate::Ended(End::new(Code::PLUGIN_GONE))));
                end(&mut self.guarded, Duration::ZERO).await
            }
        };
        // At once, and before the last words are waited for: whoever has read the output to its end waits for this.
        tell.send_if_modified(|fate| {
            let is_news = fate.is_none();
            *fate = fate.or(Some(Fate::Exited(exit)));
            is_news
        });
        if tokio::time::timeout(LAST_WORDS_WITHIN, pump).await.is_err() {
            tracing::debug!(what = self.what, "stderr outlived its command");
        }
        if exit != Exit::Code(0) {
            self.log.push(LogSource::Life, &format!("{}: {exit}", self.what));
        }
        // What we ended ourselves (a stop, a peer that left) is not the command's failure.
        if !was_ended {
            note_end(&self.throttle, &self.log, &self.what, exit == Exit::Code(0));
        }
        // Keeps the fate readable until the stream is closed: a reader may still empty the pipe.
        tokio::select! {
            () = std::future::ready(()), if is_over => {}
            _ = &mut is_closed, if !is_over => {}
            () = self.stop.cancelled() => {}
        }
    }
}

/// A command has ended, well or not: too many failures in a row are told once, with the pause that follows.
fn note_end(throttle: &Mutex<Throttle>, log: &PluginLog, what: &str, is_good: bool) {
    let pause = throttle.lock().unwrap_or_else(PoisonError::into_inner).ended(is_good, Instant::now());
    if let Some(pause) = pause {
        let seconds = pause.as_secs();
        log.push(LogSource::Life, &format!("{what}: failed too often, not started for {seconds} s"));
    }
}

/// Lets a command end by itself, then asks, then kills it with all its descendants.
async fn end(guarded: &mut Guarded, patience: Duration) -> Exit {
    if let Ok(exit) = tokio::time::timeout(patience, guarded.gone()).await {
        return exit;
    }
    guarded.terminate();
    if let Ok(exit) = tokio::time::timeout(TERM_WITHIN, guarded.gone()).await {
        return exit;
    }
    guarded.kill();
    guarded.gone().await
}
