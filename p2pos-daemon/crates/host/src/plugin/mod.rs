//! The task that keeps one plugin: it gives the life machine ([`crate::supervise`]) a process, a clock and ears. Owns the
//! plugin's process, its current session and its stream commands; everybody else sends it messages.
//!
//! No wait here is without a deadline of its own or of the machine, and none is for the network (plugin-host.md B6).
//! Refuses to know: frames, what other plugins do.

mod approval;
mod facts;
mod run;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use p2pos_plugin_protocol::{
    code::{Code, End},
    driver::Session,
    message::{Body, Shutdown},
};
use tokio::{
    net::unix::pipe,
    sync::{mpsc, oneshot, watch},
};
use tokio_util::task::TaskTracker;

pub(crate) use self::facts::RECENT_LINES;
use self::facts::{first_facts, policy_of, texts};
use crate::{
    commands::Commands,
    log::PluginLog,
    manifest::{Loaded, Manifest},
    plugin_id::PluginId,
    shared::{Shared, random},
    snapshot::{CommandError, DevLaunch, Facts},
    spawner::{Exit, Guarded},
    supervise::{Action, Health, Jitter, Machine, State},
};

/// Messages that may wait for a supervisor: commands of people and notes of one session, a few a second.
pub(crate) const MESSAGES_MAX: usize = 64;
/// How long to wait for a dead process's last lines.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(1);
/// What peers are told to wait while a plugin starts.
const START_TAKES: Duration = Duration::from_secs(2);

/// What a supervisor is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// A person wants something; the answer says whether it is under way.
    Wish { wish: Wish, answer: oneshot::Sender<Result<(), CommandError>> },
    /// An author wants to run it.
    Dev { loaded: Box<Loaded>, answer: oneshot::Sender<Result<DevLaunch, CommandError>> },
    /// Its session has something to tell.
    Session { instance: u64, note: SessionNote },
    /// Its directory was read again.
    Found(Box<Loaded>),
    /// Stop and end: its directory is gone, or the daemon ends.
    Retire(Retirement),
}

/// Why a supervisor ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retirement {
    /// The user has taken its directory away.
    Removed,
    DaemonEnds,
}

impl Retirement {
    const fn reason(self) -> &'static str {
        match self {
            Self::Removed => "its directory is gone",
            Self::DaemonEnds => "the daemon ends",
        }
    }
}

/// What a person can want of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Start,
    Stop,
    Restart,
    Enable,
    Disable,
    EndDev,
}

/// What a session tells.
#[derive(Debug)]
pub(crate) enum SessionNote {
    Up(Session),
    Ready,
    Status(Health, String),
    Down(End),
}

/// The task's state.
pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    id: PluginId,
    log: Arc<PluginLog>,
    messages: mpsc::Sender<Message>,
    inbox: mpsc::Receiver<Message>,
    facts: watch::Sender<Facts>,
    machine: Machine,
    loaded: Loaded,
    /// Whether its directory is one of the installed plugins'; an author's may lie anywhere.
    is_installed: bool,
    process: Option<Process>,
    dev: Option<DevRun>,
    /// An author's run was asked for: a supervisor of a plugin that is not installed lives for that alone.
    was_dev: bool,
    commands: Option<Commands>,
    session: Option<Session>,
    status: String,
    retiring: Option<Retirement>,
    /// What lay on the disk when the process was started.
    launched_hash: Option<String>,
    told: Option<(State, String)>,
}

/// A running process of the plugin.
struct Process {
    instance: u64,
    guarded: Guarded,
    stdin: Option<pipe::Sender>,
    pumps: TaskTracker,
}

/// A run by the author.
struct DevRun {
    instance: u64,
    /// When it is over if nobody has connected; `None` once somebody has, or where nobody needs to.
    until: Option<Instant>,
}

/// A supervisor's address.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(crate) messages: mpsc::Sender<Message>,
    pub(crate) facts: watch::Receiver<Facts>,
    pub(crate) log: Arc<PluginLog>,
}

impl Supervisor {
    /// Makes the task's state and its address; the caller spawns [`Supervisor::run`].
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: PluginId,
        loaded: Loaded,
        is_installed: bool,
    ) -> (Self, Handle) {
        let (messages, inbox) = mpsc::channel(MESSAGES_MAX);
        let log = Arc::new(PluginLog::new(shared.log_path(&id), shared.log_writer.clone()));
        let machine = Machine::new(policy_of(loaded.manifest.as_ref()), Instant::now());
        let facts = watch::Sender::new(first_facts(&id, &loaded));
        let handle = Handle { messages: messages.clone(), facts: facts.subscribe(), log: log.clone() };
        let mut supervisor = Self {
            shared,
            id,
            log,
            messages,
            inbox,
            facts,
            machine,
            loaded,
            is_installed,
            process: None,
            dev: None,
            was_dev: false,
            commands: None,
            session: None,
            status: String::new(),
            retiring: None,
            launched_hash: None,
            told: None,
        };
        if is_installed {
            let verdict = supervisor.verdict();
            supervisor.machine.handle_verdict(Instant::now(), verdict);
        }
        supervisor.publish();
        (supervisor, handle)
    }

    /// Starts the plugin if it is allowed and wants to.
    pub(crate) fn autostart(&mut self) {
        let wants = self.loaded.manifest.as_ref().is_some_and(Manifest::is_autostarted);
        if wants && self.machine.state() == State::Stopped {
            self.machine.handle_start(Instant::now());
        }
    }

    /// Keeps the plugin until it is told to retire.
    pub(crate) async fn run(mut self) {
        loop {
            self.publish();
            self.act().await;
            self.publish();
            let is_over = self.retiring.is_some() || (self.was_dev && !self.is_installed);
            if is_over && self.process.is_none() && self.dev.is_none() {
                break;
            }
            let due = [self.machine.poll_timeout(), self.dev.as_ref().and_then(|dev| dev.until)];
            let due = due.into_iter().flatten().min();
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => self.handle(message).await,
                    None => break,
                },
                exit = gone(&mut self.process) => self.handle_gone(exit).await,
                () = sleep_until(due) => self.handle_timeout(),
            }
        }
        self.shared.directory().withdraw(self.id.as_str());
        // Before the others hear of it: whoever looks now must see that this one is over.
        self.inbox.close();
        self.shared.look_again.notify_one();
    }

    async fn handle(&mut self, message: Message) {
        let now = Instant::now();
        match message {
            Message::Wish { wish, answer } => {
                let outcome = self.grant(wish).await;
                self.act().await;
                self.publish();
                if answer.send(outcome).is_err() {
                    tracing::debug!(plugin = %self.id, "whoever gave a command has not waited for it");
                }
            }
            Message::Dev { loaded, answer } => {
                let outcome = self.begin_dev(*loaded).await;
                self.publish();
                if answer.send(outcome).is_err() {
                    self.end_dev().await;
                }
            }
            Message::Session { instance, note } => self.handle_session(instance, note, now).await,
            Message::Found(loaded) => {
                if self.dev.is_none() {
                    self.loaded = *loaded;
                    self.is_installed = true;
                    self.apply_verdict().await;
                }
            }
            Message::Retire(why) => {
                self.retiring = Some(why);
                self.machine.handle_stop(now, why.reason());
                self.end_dev().await;
            }
        }
    }

    /// Does what a person wants, or says why not.
    async fn grant(&mut self, wish: Wish) -> Result<(), CommandError> {
        let now = Instant::now();
        match wish {
            Wish::Start => self.start(now),
            Wish::Stop => {
                self.machine.handle_stop(now, "stopped by the user");
                Ok(())
            }
            Wish::Restart => {
                self.machine.handle_stop(now, "restarted by the user");
                self.start(now)
            }
            Wish::Enable => self.enable().await,
            Wish::Disable => self.remember(None).await,
            Wish::EndDev => {
                self.end_dev().await;
                Ok(())
            }
        }
    }

    fn start(&mut self, now: Instant) -> Result<(), CommandError> {
        if self.machine.handle_start(now) { Ok(()) } else { Err(self.why_not()) }
    }

    fn why_not(&self) -> CommandError {
        let id = self.id.to_string();
        let (state, reason) = (self.machine.state(), self.machine.reason().to_owned());
        match state {
            State::Invalid => CommandError::Invalid { id, errors: texts(&self.loaded.errors) },
            State::Disabled | State::NeedsApproval => {
                CommandError::NeedsApproval { id, reason, new_permissions: self.new_permissions() }
            }
            State::Stopped
            | State::Starting
            | State::Running
            | State::Degraded
            | State::WaitingNetwork
            | State::Stopping
            | State::Backoff
            | State::Failed
            | State::Dev => CommandError::Failed { id, state, reason, recent: self.log.last(RECENT_LINES) },
        }
    }

    fn failed(&self, reason: String) -> CommandError {
        let (id, state) = (self.id.to_string(), self.machine.state());
        CommandError::Failed { id, state, reason, recent: self.log.last(RECENT_LINES) }
    }

    async fn handle_session(&mut self, instance: u64, note: SessionNote, now: Instant) {
        let is_dev = self.dev.as_ref().is_some_and(|dev| dev.instance == instance);
        let is_current = is_dev || self.process.as_ref().is_some_and(|process| process.instance == instance);
        match note {
            SessionNote::Up(session) if !is_current => {
                session.close(End::new(Code::SHUTTING_DOWN), "this run of the plugin is over");
            }
            SessionNote::Ready | SessionNote::Status(..) | SessionNote::Down(_) if !is_current => {}
            SessionNote::Up(session) => {
                self.session = Some(session);
                self.machine.handle_session_up();
                if let Some(dev) = &mut self.dev {
                    dev.until = None;
                }
            }
            SessionNote::Ready => {
                self.machine.handle_ready(now);
                self.shared.directory().settle(self.id.as_str());
            }
            SessionNote::Status(health, text) => {
                self.status = text;
                self.machine.handle_health(now, health);
            }
            SessionNote::Down(end) => {
                self.session = None;
                if is_dev {
                    self.end_dev().await;
                    return;
                }
                self.shared.directory().set_away(self.id.as_str(), &[], now + START_TAKES);
                let is_quiet = matches!(end.code, Code::PLUGIN_GONE | Code::SHUTTING_DOWN);
                let fault = (!is_quiet).then(|| format!("its session ended: {end}"));
                self.machine.handle_session_lost(now, fault.as_deref());
            }
        }
    }

    async fn handle_gone(&mut self, exit: Exit) {
        if let Some(process) = self.process.take() {
            process.pumps.close();
            if tokio::time::timeout(LAST_WORDS_WITHIN, process.pumps.wait()).await.is_err() {
                tracing::debug!(plugin = %self.id, "output outlived its process");
            }
            self.shared.tokens().revoke(process.instance);
        }
        self.log.life(&format!("ended: {exit}"));
        self.machine.handle_gone(Instant::now(), exit, jitter());
    }

    fn handle_timeout(&mut self) {
        let now = Instant::now();
        self.machine.handle_timeout(now);
        if let Some(dev) = &mut self.dev
            && dev.until.is_some_and(|until| until <= now)
        {
            self.shared.tokens().revoke(dev.instance);
            self.dev = None;
            self.machine.handle_dev_end(now);
        }
    }

    /// Does what the machine asks for.
    async fn act(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Launch => {
                    if let Err(reason) = self.launch().await {
                        self.log.life(&format!("not started: {reason}"));
                        let now = Instant::now();
                        self.machine.handle_launch_failed(now, reason, jitter());
                        let verdict = self.verdict();
                        self.machine.handle_verdict(now, verdict);
                    }
                }
                Action::Serve => self.serve_commands(),
                Action::Shutdown(deadline) => {
                    if let Some(session) = &self.session {
                        let reason = self.machine.reason().to_owned();
                        session.notify(Body::Shutdown(Shutdown { deadline, reason }));
                    }
                }
                Action::CloseStdin => {
                    // Its time to leave by itself is over: what the user took back ends now.
                    if self.is_revoked() {
                        self.end_session();
                    }
                    if let Some(process) = &mut self.process {
                        process.stdin = None;
                    }
                }
                Action::Terminate => {
                    if let Some(process) = &self.process {
                        process.guarded.terminate();
                    }
                }
                Action::Kill => {
                    if let Some(process) = &self.process {
                        process.guarded.kill();
                    }
                }
                Action::Ended => self.clear_up().await,
            }
        }
    }
}

fn jitter() -> Jitter {
    let [byte] = random::<1>();
    Jitter(f64::from(byte) / 127.5 - 1.0)
}

/// Pending for ever while there is no process. Cancel-safe.
async fn gone(process: &mut Option<Process>) -> Exit {
    match process {
        Some(process) => process.guarded.gone().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
