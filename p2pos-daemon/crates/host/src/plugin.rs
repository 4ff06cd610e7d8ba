//! The task that keeps one plugin: it gives the life machine ([`crate::supervise`]) a process, a clock and ears. Owns the
//! plugin's process, its current session and its stream commands; everybody else sends it messages.
//!
//! No wait here is without a deadline of its own or of the machine, and none is for the network (plugin-host.md B6).
//! Refuses to know: frames, what other plugins do.

use std::{
    collections::BTreeSet,
    path::PathBuf,
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

use crate::{
    commands::Commands,
    grants::Grant,
    launch::{self, LogPipe, Pipes},
    log::{LogSource, PluginLog},
    manifest::{self, Loaded, Manifest, SocketKind},
    permissions::Permissions,
    plugin_id::PluginId,
    shared::{Bearer, PluginLink, Shared, random},
    snapshot::{CommandError, DevLaunch, Facts, HostEvent},
    spawner::{self, Exit, Guarded, Launch},
    supervise::{Action, Health, Jitter, Machine, Policy, ProcessPolicy, State, Verdict},
};

/// Messages that may wait for a supervisor: commands of people and notes of one session, a few a second.
pub(crate) const MESSAGES_MAX: usize = 64;
/// How long reading a plugin's directory may take (a sleeping disk, a network share) before a start fails.
const LOAD_WITHIN: Duration = Duration::from_secs(10);
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
    Retire { reason: &'static str },
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
    commands: Option<Commands>,
    session: Option<Session>,
    status: String,
    is_retiring: bool,
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
        let log = Arc::new(PluginLog::open(shared.config.log_dir.join(format!("{id}.log"))));
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
            commands: None,
            session: None,
            status: String::new(),
            is_retiring: false,
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
            self.act().await;
            self.publish();
            let is_over = self.is_retiring || !(self.is_installed || self.dev.is_some());
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
            Message::Retire { reason } => {
                self.is_retiring = true;
                self.machine.handle_stop(now, reason);
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

    /// The user approves the plugin as it lies there now.
    async fn enable(&mut self) -> Result<(), CommandError> {
        self.reload().await.map_err(|reason| self.failed(reason))?;
        self.apply_verdict().await;
        let (Some(manifest), Some(exec_hash)) = (&self.loaded.manifest, &self.loaded.exec_hash) else {
            return Err(self.why_not());
        };
        if self.machine.state() == State::Invalid {
            return Err(self.why_not());
        }
        let grant = Grant { exec_hash: exec_hash.clone(), permissions: manifest.permissions.clone() };
        self.remember(Some(grant)).await?;
        self.autostart();
        Ok(())
    }

    fn failed(&self, reason: String) -> CommandError {
        let (id, state) = (self.id.to_string(), self.machine.state());
        CommandError::Failed { id, state, reason, recent: self.log.last(RECENT_LINES) }
    }

    async fn remember(&mut self, grant: Option<Grant>) -> Result<(), CommandError> {
        let (shared, id) = (self.shared.clone(), self.id.clone());
        let written = tokio::task::spawn_blocking(move || shared.grants().set(&id, grant)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                return Err(self.failed(format!("the decision cannot be written down: {error}")));
            }
            Err(error) => return Err(self.failed(error.to_string())),
        }
        self.apply_verdict().await;
        Ok(())
    }

    async fn reload(&mut self) -> Result<(), String> {
        let dir = self.loaded.dir.clone();
        let reading = tokio::task::spawn_blocking(move || manifest::load(&dir));
        match tokio::time::timeout(LOAD_WITHIN, reading).await {
            Ok(Ok(loaded)) => {
                self.loaded = loaded;
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("its directory cannot be read in time".to_owned()),
        }
    }

    async fn apply_verdict(&mut self) {
        let verdict = self.verdict();
        if verdict != Verdict::Allowed
            && let Some(commands) = self.commands.take()
        {
            // Their files may have changed, and each stream would run them anew.
            commands.end().await;
            self.shared.directory().withdraw(self.id.as_str());
        }
        self.machine.set_policy(policy_of(self.loaded.manifest.as_ref()));
        self.machine.handle_verdict(Instant::now(), verdict);
    }

    fn verdict(&self) -> Verdict {
        let Some(manifest) = &self.loaded.manifest else {
            return Verdict::Invalid(self.loaded.errors.first().map(ToString::to_string).unwrap_or_default());
        };
        if manifest.id != self.id {
            return Verdict::Invalid(format!(
                "its manifest says id = \"{}\", its directory {}",
                manifest.id, self.id
            ));
        }
        let granted = self.shared.grants().of(&self.id).cloned();
        let Some(granted) = granted else { return Verdict::Disabled };
        let beyond = manifest.permissions.beyond(&granted.permissions);
        if !beyond.is_empty() {
            let list: Vec<String> = beyond.iter().map(ToString::to_string).collect();
            return Verdict::NeedsApproval(format!("it asks for more: {}", list.join(", ")));
        }
        if self.loaded.exec_hash.as_deref() != Some(&granted.exec_hash) {
            return Verdict::NeedsApproval("its files changed since you enabled it".to_owned());
        }
        Verdict::Allowed
    }

    fn new_permissions(&self) -> Vec<String> {
        let granted =
            self.shared.grants().of(&self.id).map(|grant| grant.permissions.clone()).unwrap_or_default();
        let wanted = self.loaded.manifest.as_ref().map(|manifest| manifest.permissions.beyond(&granted));
        wanted.unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    async fn handle_session(&mut self, instance: u64, note: SessionNote, now: Instant) {
        let is_dev = self.dev.as_ref().is_some_and(|dev| dev.instance == instance);
        let is_current = is_dev || self.process.as_ref().is_some_and(|process| process.instance == instance);
        match note {
            SessionNote::Up(session) if !is_current => {
                session.close(End::new(Code::REVOKED), "this run of the plugin is over");
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

    /// What belonged to the run that is over goes with it.
    async fn clear_up(&mut self) {
        self.status.clear();
        if let Some(session) = self.session.take() {
            session.close(End::new(Code::REVOKED), "this run of the plugin is over");
        }
        if let Some(commands) = self.commands.take() {
            commands.end().await;
        }
        let back_at = match self.machine.state() {
            State::Backoff => self.machine.next_try().map(|next| next + START_TAKES),
            State::Starting => Some(Instant::now() + START_TAKES),
            State::Invalid
            | State::Disabled
            | State::NeedsApproval
            | State::Stopped
            | State::Running
            | State::Degraded
            | State::WaitingNetwork
            | State::Stopping
            | State::Failed
            | State::Dev => None,
        };
        let mut directory = self.shared.directory();
        match back_at {
            Some(back_at) => directory.set_away(self.id.as_str(), &[], back_at),
            None => directory.withdraw(self.id.as_str()),
        }
    }

    /// Starts the process, after a last look at what is there.
    async fn launch(&mut self) -> Result<(), String> {
        self.reload().await?;
        match self.verdict() {
            Verdict::Allowed => {}
            Verdict::Disabled => return Err("it was disabled".to_owned()),
            Verdict::NeedsApproval(reason) | Verdict::Invalid(reason) => return Err(reason),
        }
        let manifest = self.loaded.manifest.clone().ok_or("its manifest is gone")?;
        let run = manifest.run.clone().ok_or("its manifest names no program any more")?;
        let instance = self.shared.next_instance();
        let session_env = self.session_env(&manifest, instance, run.start_timeout).await?;
        let mut env = self.base_env().await?;
        env.extend(session_env.map(|(key, value)| (key.into(), value.into())));
        env.push(("P2POS_EXIT_ON_STDIN_CLOSE".into(), "1".into()));
        let pipes = Pipes::new().map_err(|error| error.to_string())?;
        let config = &self.shared.config;
        let guarded = spawner::launch(Launch {
            guard_exec: config.guard_exec.clone(),
            exec: run.exec,
            dir: self.loaded.dir.clone(),
            env,
            limits: manifest.limits.into(),
            stdio: pipes.theirs,
            adopts_orphans: config.adopts_orphans,
        });
        let guarded = guarded.await.map_err(|error| error.to_string())?;
        self.log.life(&format!("started, process {}", guarded.pid()));
        let pumps = TaskTracker::new();
        for (pipe, source) in [(pipes.stdout, LogSource::Stdout), (pipes.stderr, LogSource::Stderr)] {
            pumps.spawn(LogPipe::new(pipe, self.log.clone(), source).run());
        }
        self.process = Some(Process { instance, guarded, stdin: Some(pipes.stdin), pumps });
        self.shared.directory().set_away(self.id.as_str(), &manifest.provides, Instant::now() + START_TAKES);
        self.serve_commands();
        Ok(())
    }

    async fn base_env(&self) -> Result<Vec<(std::ffi::OsString, std::ffi::OsString)>, String> {
        let (parent, id) = (self.shared.config.data_dir.clone(), self.id.clone());
        let made = tokio::task::spawn_blocking(move || launch::make_data_dir(&parent, &id)).await;
        let data_dir = made
            .map_err(|error| error.to_string())?
            .map_err(|error| format!("its data directory cannot be made: {error}"))?;
        Ok(launch::base_env(&self.id, &data_dir))
    }

    /// Endpoint and a fresh token for one run.
    async fn session_env(
        &self,
        manifest: &Manifest,
        instance: u64,
        good_for: Duration,
    ) -> Result<[(&'static str, String); 3], String> {
        let endpoint = match manifest.socket {
            SocketKind::Unix => self.shared.endpoint.unix_text(),
            SocketKind::Tcp => self
                .shared
                .tcp_text()
                .await
                .map_err(|error| format!("no TCP port can be opened on 127.0.0.1: {error}"))?,
        };
        let bearer = Bearer {
            owner: self.id.as_str().into(),
            instance,
            permissions: Arc::new(manifest.permissions.clone()),
            streams_max: u32::from(manifest.limits.streams),
            plugin: Some(PluginLink { supervisor: self.messages.clone(), log: self.log.clone() }),
        };
        let token =
            self.shared.issue_token(bearer, good_for).ok_or("too many plugins are starting at once")?;
        Ok(launch::session_env(&endpoint, token.as_env_text()))
    }

    /// Offers the stream commands of the manifest, if it has any.
    fn serve_commands(&mut self) {
        let Some(manifest) = &self.loaded.manifest else { return };
        if manifest.serve.is_empty() {
            return;
        }
        let data_dir = self.shared.config.data_dir.join(self.id.as_str());
        let env = launch::base_env(&self.id, &data_dir);
        let dir: PathBuf = self.loaded.dir.clone();
        let commands = Commands::offer(&self.shared, manifest, (dir, env), &self.log);
        self.commands = Some(commands);
    }

    async fn begin_dev(&mut self, loaded: Loaded) -> Result<DevLaunch, CommandError> {
        self.end_dev().await;
        let Some(manifest) = loaded.manifest.clone() else {
            return Err(CommandError::Invalid { id: self.id.to_string(), errors: texts(&loaded.errors) });
        };
        let now = Instant::now();
        if !self.machine.handle_dev(now) {
            return Err(self.failed(format!("it is {} already: stop it first", self.machine.state())));
        }
        let installed = std::mem::replace(&mut self.loaded, loaded);
        let prepared = self.prepare_dev(&manifest).await;
        if let Err(reason) = prepared {
            self.loaded = installed;
            self.end_dev_now(now).await;
            return Err(self.failed(reason));
        }
        let launch = prepared.map_err(|reason| self.failed(reason))?;
        self.serve_commands();
        self.log.life("run by its author");
        Ok(launch)
    }

    async fn prepare_dev(&mut self, manifest: &Manifest) -> Result<DevLaunch, String> {
        let instance = self.shared.next_instance();
        let good_for = manifest.run.as_ref().map(|run| run.start_timeout);
        self.dev = Some(DevRun { instance, until: good_for.map(|good_for| Instant::now() + good_for) });
        let mut env: Vec<(String, String)> = Vec::new();
        for (key, value) in self.base_env().await? {
            let is_ours = key.to_str().is_some_and(|key| key.starts_with("P2POS_"));
            if let (true, Ok(key), Ok(value)) = (is_ours, key.into_string(), value.into_string()) {
                env.push((key, value));
            }
        }
        if let Some(good_for) = good_for {
            let session = self.session_env(manifest, instance, good_for).await?;
            env.extend(session.map(|(key, value)| (key.to_owned(), value)));
        }
        Ok(DevLaunch {
            id: self.id.to_string(),
            env,
            dir: self.loaded.dir.clone(),
            exec: manifest.run.as_ref().map(|run| run.exec.clone()).unwrap_or_default(),
            warnings: self.loaded.warnings.clone(),
        })
    }

    async fn end_dev(&mut self) {
        if self.dev.is_some() {
            self.end_dev_now(Instant::now()).await;
        }
    }

    async fn end_dev_now(&mut self, now: Instant) {
        if let Some(dev) = self.dev.take() {
            self.shared.tokens().revoke(dev.instance);
        }
        self.machine.handle_dev_end(now);
        self.act().await;
        if self.is_installed {
            self.loaded.dir = self.shared.config.plugins_dir.join(self.id.as_str());
            if let Err(reason) = self.reload().await {
                tracing::debug!(plugin = %self.id, reason, "the installed plugin cannot be read");
            }
            self.apply_verdict().await;
        }
    }

    /// Lets everybody see how it stands.
    fn publish(&mut self) {
        let facts = self.facts_now();
        let told = Some((facts.state, facts.reason.clone()));
        if self.told != told {
            let reason = if facts.reason.is_empty() { String::new() } else { format!(": {}", facts.reason) };
            self.log.life(&format!("{}{reason}", facts.state));
            tracing::info!(plugin = %self.id, state = %facts.state, reason = facts.reason, "plugin");
            let event =
                HostEvent { id: self.id.to_string(), state: facts.state, reason: facts.reason.clone() };
            if self.shared.host_events.send(event).is_err() {
                // Nobody listens.
            }
            self.told = told;
        }
        self.facts.send_replace(facts);
    }

    fn facts_now(&self) -> Facts {
        let granted: Permissions =
            self.shared.grants().of(&self.id).map(|grant| grant.permissions.clone()).unwrap_or_default();
        Facts {
            state: self.machine.state(),
            since: self.machine.since(),
            reason: self.machine.reason().to_owned(),
            next_try: self.machine.next_try(),
            status: self.status.clone(),
            pid: self.process.as_ref().map(|process| process.guarded.pid()),
            restarts: self.machine.restarts(),
            last_exit: self.machine.last_exit(),
            granted: granted.to_texts(),
            new_permissions: self.new_permissions(),
            session: self.session.clone(),
            ..first_facts(&self.id, &self.loaded)
        }
    }
}

/// Log lines that a snapshot or an error carries.
pub(crate) const RECENT_LINES: usize = 20;

fn first_facts(id: &PluginId, loaded: &Loaded) -> Facts {
    let manifest = loaded.manifest.as_ref();
    let text = |part: fn(&Manifest) -> &String| manifest.map(|manifest| part(manifest).clone());
    Facts {
        name: text(|manifest| &manifest.name).unwrap_or_else(|| id.to_string()),
        version: text(|manifest| &manifest.version).unwrap_or_default(),
        description: text(|manifest| &manifest.description).unwrap_or_default(),
        dir: loaded.dir.clone(),
        state: State::Stopped,
        since: Instant::now(),
        reason: String::new(),
        next_try: None,
        status: String::new(),
        pid: None,
        restarts: 0,
        last_exit: None,
        permissions: manifest.map(|manifest| manifest.permissions.to_texts()).unwrap_or_default(),
        granted: Vec::new(),
        new_permissions: Vec::new(),
        warnings: texts(&loaded.warnings),
        errors: texts(&loaded.errors),
        exec_hash: loaded.exec_hash.clone(),
        session: None,
    }
}

fn texts(problems: &[manifest::Problem]) -> Vec<String> {
    let unique: BTreeSet<String> = problems.iter().map(ToString::to_string).collect();
    unique.into_iter().collect()
}

fn policy_of(manifest: Option<&Manifest>) -> Policy {
    let run = manifest.and_then(|manifest| manifest.run.as_ref());
    Policy {
        process: run.map(|run| ProcessPolicy {
            restart: run.restart,
            start_timeout: run.start_timeout,
            stop_timeout: run.stop_timeout,
        }),
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
