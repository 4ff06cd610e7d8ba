//! The host: its configuration, its start and end, and the calls that the rest of the daemon makes. Owns the list of
//! plugins; each is kept by a task of its own.
//!
//! Refuses to know: QUIC, IP addresses, how commands are spelled.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use p2pos_identity::{PeerId, ProtocolName};
use p2pos_plugin_protocol::limits::Limits;
use thiserror::Error;
use tokio::{
    sync::{broadcast, oneshot},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    endpoint::{Endpoint, EndpointError},
    grants::Grants,
    greeting, launch,
    log::{self, LogLine, LogTail, unix_ms},
    manifest,
    network::{Accepted, Network, NetworkEvent, Offer, Refusal},
    offer::{self, Offered},
    permissions::{Permission, Permissions},
    plugin::{Handle, Message, RECENT_LINES, Retirement, Supervisor, Wish},
    plugin_id::PluginId,
    sandbox::Sandbox,
    scan::{Watch, scan},
    shared::{Bearer, Shared},
    snapshot::{CommandError, DevLaunch, Facts, HostEvent, PluginSnapshot, ToolLaunch},
    supervise::State,
};

/// How long a supervisor may take to take a command: it may be reading a slow disk.
const COMMAND_WITHIN: Duration = Duration::from_secs(15);
/// How long to wait for a plugin to be up: the longest `start_timeout` that a manifest may ask for, and a bit.
const UP_WITHIN: Duration = Duration::from_secs(605);
/// How long to wait for a plugin to be gone: the stop ladder has 15 s, commands may add to it.
const GONE_WITHIN: Duration = Duration::from_secs(25);
/// How long all of them together may take when the daemon ends.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(30);
/// How long the last lines of the plugins' logs may take to the disk.
const LOGS_WITHIN: Duration = Duration::from_secs(2);
/// How long a tool may take from its token to its Hello.
const TOOL_TOKEN_TTL: Duration = Duration::from_secs(60);

/// Where things are, and who we are.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// One directory (or link to one) per plugin, called by the plugin's id. Made if missing.
    pub plugins_dir: PathBuf,
    /// `plugin.sock` and `endpoint.json`; must be short, and nobody else's. Made if missing.
    pub runtime_dir: PathBuf,
    /// `grants.toml`, and one directory per plugin for its data. Made if missing.
    pub data_dir: PathBuf,
    /// One log per plugin. Made if missing.
    pub log_dir: PathBuf,
    /// The user's own id, for Welcome.
    pub peer_id: PeerId,
    /// Name and version of the daemon, for Welcome.
    pub daemon_name: String,
    /// The command line that leads to [`crate::guard_main`]: `["/proc/self/exe", "__guard"]`.
    pub guard_exec: Vec<OsString>,
    /// Whether every child of this process is the host's, so that orphans may be killed on sight. True in a daemon; never
    /// in a test program that starts other processes.
    pub adopts_orphans: bool,
}

/// Why the host did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The place for plugins.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A directory or the grants file.
    #[error("{path}: {source}")]
    Disk {
        /// Which.
        path: PathBuf,
        /// What came back.
        source: std::io::Error,
    },
    /// No thread for the plugins' logs.
    #[error("no thread for the plugins' logs can be started: {0}")]
    Thread(#[source] std::io::Error),
}

/// Which protocols a tool may open.
#[derive(Clone, Debug)]
pub enum ToolOpen {
    /// Whatever its user types.
    Any,
    /// Only these.
    List(Vec<ProtocolName>),
}

/// What a tool may do with its token.
#[derive(Clone, Debug)]
pub struct ToolGrants {
    /// For logs: `dial`.
    pub name: String,
    /// What it may open.
    pub open: ToolOpen,
    /// What it may serve.
    pub accept: Vec<ProtocolName>,
    /// Whether it may deal with people who are no contacts.
    pub peers_any: bool,
}

/// The running host. Cheap to clone; all clones are the same host.
#[derive(Clone, Debug)]
pub struct Host {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    plugins: Mutex<BTreeMap<PluginId, Handle>>,
    /// Cancelled before the plugins are told that the daemon ends: nobody looks any more, so none comes back.
    retiring: CancellationToken,
}

impl Host {
    /// Starts the host inside a tokio runtime. Enabled plugins start by themselves; none is waited for.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: HostConfig, network: Arc<dyn Network>) -> Result<Self, StartError> {
        for path in [&config.plugins_dir, &config.data_dir, &config.log_dir] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|source| StartError::Disk { path: path.clone(), source })?;
        }
        let path = config.data_dir.join("grants.toml");
        let grants = Grants::open(path.clone()).map_err(|source| StartError::Disk { path, source })?;
        let (endpoint, listener) = Endpoint::open(&config.runtime_dir).await?;
        let log_writer = log::Writer::start().map_err(StartError::Thread)?;
        let shared = Shared::new(config, network, (endpoint, grants, log_writer));
        let inner =
            Inner { shared: shared.clone(), plugins: Mutex::default(), retiring: CancellationToken::new() };
        let host = Self { inner: Arc::new(inner) };
        shared.tasks.spawn(greeting::accept_unix(listener, shared.clone()));
        let mut watch = Watch::new();
        host.look(&mut watch).await;
        let keeper = host.clone();
        shared.tasks.spawn(async move {
            let keep_looking = async {
                loop {
                    tokio::select! {
                        () = watch.changed() => {}
                        () = keeper.shared().look_again.notified() => {}
                    }
                    keeper.look(&mut watch).await;
                }
            };
            // Ends in the middle of a look, too: a slow disk must not hold up the end.
            let ended: Option<()> = keeper.inner.retiring.run_until_cancelled(keep_looking).await;
            debug_assert!(ended.is_none(), "it looks for ever");
        });
        Ok(host)
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    fn handles(&self) -> MutexGuard<'_, BTreeMap<PluginId, Handle>> {
        self.inner.plugins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the plugins directory and tells the supervisors; new plugins get one, those that are gone lose theirs.
    async fn look(&self, watch: &mut Watch) {
        let plugins_dir = self.shared().config.plugins_dir.clone();
        let scanned = tokio::task::spawn_blocking(move || scan(&plugins_dir)).await;
        let found = match scanned {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return tracing::warn!(%error, "the plugins directory cannot be read"),
            Err(error) => return tracing::error!(%error, "reading the plugins directory failed"),
        };
        watch.follow(&self.shared().config.plugins_dir, &found);
        let mut news = Vec::new();
        {
            let mut handles = self.handles();
            handles.retain(|_, handle| !handle.messages.is_closed());
            for (id, handle) in handles.iter() {
                let is_installed = handle.facts.borrow().dir.starts_with(&self.shared().config.plugins_dir);
                if is_installed && !found.iter().any(|(found, _)| found == id) {
                    news.push((handle.clone(), Message::Retire(Retirement::Removed)));
                }
            }
            for (id, loaded) in found {
                match handles.get(&id) {
                    Some(handle) => news.push((handle.clone(), Message::Found(Box::new(loaded)))),
                    None => {
                        let (mut supervisor, handle) =
                            Supervisor::new(self.shared().clone(), id.clone(), loaded, true);
                        supervisor.autostart();
                        self.shared().tasks.spawn(supervisor.run());
                        handles.insert(id, handle);
                    }
                }
            }
        }
        for (handle, message) in news {
            if timeout(COMMAND_WITHIN, handle.messages.send(message)).await.is_err() {
                tracing::warn!("a supervisor does not listen");
            }
        }
    }

    /// Stops all plugins at once and ends the host. Returns when no process is left, or after 30 s.
    pub async fn shutdown(&self) {
        self.inner.retiring.cancel();
        let handles: Vec<Handle> = self.handles().values().cloned().collect();
        for handle in &handles {
            // An error means that this supervisor is over already.
            let message = Message::Retire(Retirement::DaemonEnds);
            if timeout(COMMAND_WITHIN, handle.messages.send(message)).await.is_err() {
                tracing::warn!("a supervisor does not listen");
            }
        }
        let all_over = async {
            for handle in &handles {
                handle.messages.closed().await;
            }
        };
        if timeout(SHUTDOWN_WITHIN, all_over).await.is_err() {
            tracing::warn!("a plugin did not end in time; its guard ends it with the daemon");
        }
        self.shared().ending.cancel();
        self.shared().tasks.close();
        if timeout(COMMAND_WITHIN, self.shared().tasks.wait()).await.is_err() {
            tracing::warn!("a plugin's connection did not end in time");
        }
        self.shared().endpoint.remove();
        if timeout(LOGS_WITHIN, self.flush_logs()).await.is_err() {
            tracing::warn!("the last lines of the plugins' logs were not written: the disk does not answer");
        }
    }

    /// Waits until everything that plugins have logged so far is in their files. Only a disk that hangs makes this long.
    pub async fn flush_logs(&self) {
        self.shared().log_writer.flush().await;
    }

    /// Asks the plugin that serves one of the offered protocols, and hands out its end before it has answered: the peer's
    /// first bytes may go there already.
    ///
    /// # Errors
    /// What to tell the peer if nobody can be asked.
    pub async fn ask(&self, offered: Offer) -> Result<Offered, Refusal> {
        offer::ask(self.shared(), offered).await
    }

    /// Asks as [`Host::ask`] and waits for the answer. Takes 10 s at most, 20 s for a detached stream.
    ///
    /// # Errors
    /// What to tell the peer.
    pub async fn offer(&self, offered: Offer) -> Result<Accepted, Refusal> {
        offer::offer(self.shared(), offered).await
    }

    /// Tells subscribed plugins what happened. Never waits.
    pub fn publish(&self, event: NetworkEvent) {
        if self.shared().network_events.send(event).is_err() {
            // No plugin listens.
        }
    }

    /// The protocols that are served now.
    #[must_use]
    pub fn protocols(&self) -> Vec<ProtocolName> {
        self.shared().directory().served(None)
    }

    /// What changes from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<HostEvent> {
        self.shared().host_events.subscribe()
    }

    /// What this machine enforces on plugins.
    #[must_use]
    pub fn sandbox(&self) -> Sandbox {
        Sandbox::probe()
    }

    /// All plugins, by id.
    #[must_use]
    pub fn plugins(&self) -> Vec<PluginSnapshot> {
        let handles = self.handles().clone();
        let alive = handles.iter().filter(|(_, handle)| !handle.messages.is_closed());
        alive.map(|(id, handle)| self.snapshot(id, handle)).collect()
    }

    /// One plugin.
    #[must_use]
    pub fn plugin(&self, id: &str) -> Option<PluginSnapshot> {
        let (id, handle) = self.find(id).ok()?;
        Some(self.snapshot(&id, &handle))
    }

    fn snapshot(&self, id: &PluginId, handle: &Handle) -> PluginSnapshot {
        let facts = handle.facts.borrow().clone();
        let now = Instant::now();
        let since = now.saturating_duration_since(facts.since);
        let commands = facts.commands.as_ref().map_or(0, TaskTracker::len);
        let streams = facts.session.as_ref().map_or(0, |session| session.stats().streams)
            + u32::try_from(commands).unwrap_or(u32::MAX);
        let served = self.shared().directory().served(Some(id.as_str()));
        PluginSnapshot {
            id: id.to_string(),
            name: facts.name,
            version: facts.version,
            description: facts.description,
            dir: facts.dir,
            state: facts.state,
            since_unix_ms: unix_ms().saturating_sub(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            since,
            reason: facts.reason,
            next_try: facts.next_try.map(|next| next.saturating_duration_since(now)),
            status: p2pos_identity::Untrusted(&facts.status).to_string(),
            pid: facts.pid,
            streams,
            restarts: facts.restarts,
            last_exit: facts.last_exit,
            recent: handle.log.last(RECENT_LINES),
            protocols: served.iter().map(ToString::to_string).collect(),
            permissions: facts.permissions,
            granted: facts.granted,
            warnings: facts.warnings,
            errors: facts.errors,
            exec_hash: facts.exec_hash,
            sandbox: Sandbox::probe().words,
        }
    }

    fn find(&self, id: &str) -> Result<(PluginId, Handle), CommandError> {
        let handles = self.handles();
        let found = handles.get_key_value(id).filter(|(_, handle)| !handle.messages.is_closed());
        found.map(|(id, handle)| (id.clone(), handle.clone())).ok_or_else(|| CommandError::NotFound {
            id: id.to_owned(),
            nearest: manifest::nearest(id, handles.keys().map(PluginId::as_str)).map(str::to_owned),
        })
    }

    async fn wish(&self, id: &str, wish: Wish) -> Result<Handle, CommandError> {
        let (_, handle) = self.find(id)?;
        let (answer, answered) = oneshot::channel();
        ask(&handle, id, Message::Wish { wish, answer }, answered).await?;
        Ok(handle)
    }

    /// Starts a plugin and waits until it is ready.
    ///
    /// # Errors
    /// Why it is not: not allowed, or tried and failed.
    pub async fn start_plugin(&self, id: &str) -> Result<PluginSnapshot, CommandError> {
        let handle = self.wish(id, Wish::Start).await?;
        self.until_up(id, handle).await
    }

    /// Stops a plugin and waits until none of its processes is left.
    ///
    /// # Errors
    /// When there is no such plugin, or it hangs in the kernel.
    pub async fn stop_plugin(&self, id: &str) -> Result<PluginSnapshot, CommandError> {
        let handle = self.wish(id, Wish::Stop).await?;
        self.until_gone(id, handle).await
    }

    /// Stops a plugin, starts it again and waits until it is ready.
    ///
    /// # Errors
    /// As [`Host::start_plugin`].
    pub async fn restart_plugin(&self, id: &str) -> Result<PluginSnapshot, CommandError> {
        let handle = self.wish(id, Wish::Restart).await?;
        self.until_up(id, handle).await
    }

    /// Approves a plugin as it lies there now, with what it asks for now, and starts it if it wants to be.
    ///
    /// # Errors
    /// When it has errors, or was started and failed.
    pub async fn enable(&self, id: &str) -> Result<PluginSnapshot, CommandError> {
        let handle = self.wish(id, Wish::Enable).await?;
        let is_resting = handle.facts.borrow().state == State::Stopped;
        if is_resting { self.report(id, &handle) } else { self.until_up(id, handle).await }
    }

    /// Takes the approval back; a running plugin is stopped and waited for.
    ///
    /// # Errors
    /// When there is no such plugin, or it hangs in the kernel.
    pub async fn disable(&self, id: &str) -> Result<PluginSnapshot, CommandError> {
        let handle = self.wish(id, Wish::Disable).await?;
        self.until_gone(id, handle).await
    }

    fn report(&self, id: &str, handle: &Handle) -> Result<PluginSnapshot, CommandError> {
        let (id, _) = self.find(id)?;
        Ok(self.snapshot(&id, handle))
    }

    async fn until_up(&self, id: &str, mut handle: Handle) -> Result<PluginSnapshot, CommandError> {
        let is_settled = |facts: &Facts| match facts.state {
            State::Starting | State::Stopping => false,
            State::Invalid
            | State::Disabled
            | State::NeedsApproval
            | State::Stopped
            | State::Running
            | State::Degraded
            | State::WaitingNetwork
            | State::Backoff
            | State::Failed
            | State::Dev => true,
        };
        let facts = wait(id, &mut handle, UP_WITHIN, is_settled).await?;
        let done = facts.state == State::Stopped && facts.reason == "done";
        if facts.state.is_up() || done {
            return self.report(id, &handle);
        }
        let recent = handle.log.last(RECENT_LINES);
        let id = id.to_owned();
        Err(match facts.state {
            State::NeedsApproval | State::Disabled => CommandError::NeedsApproval {
                id,
                reason: facts.reason,
                new_permissions: facts.new_permissions,
            },
            State::Invalid => CommandError::Invalid { id, errors: facts.errors },
            State::Stopped
            | State::Starting
            | State::Running
            | State::Degraded
            | State::WaitingNetwork
            | State::Stopping
            | State::Backoff
            | State::Failed
            | State::Dev => CommandError::Failed { id, state: facts.state, reason: facts.reason, recent },
        })
    }

    async fn until_gone(&self, id: &str, mut handle: Handle) -> Result<PluginSnapshot, CommandError> {
        let is_gone = |facts: &Facts| {
            facts.pid.is_none()
                && !facts.state.is_up()
                && !matches!(facts.state, State::Starting | State::Stopping)
        };
        wait(id, &mut handle, GONE_WITHIN, is_gone).await?;
        self.report(id, &handle)
    }

    /// The end of the log file of a plugin that is known no more: one that was removed, or that its author ran. Empty if
    /// there never was one.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn past_logs(&self, id: &PluginId, lines: usize) -> std::io::Result<Vec<LogLine>> {
        self.flush_logs().await;
        let path = self.shared().log_path(id);
        let reading = tokio::task::spawn_blocking(move || log::last_lines(&path, lines));
        reading.await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }

    /// The end of a plugin's log and what follows. Of a plugin that this daemon has not run yet, see [`Host::past_logs`].
    ///
    /// # Errors
    /// When there is no such plugin.
    pub fn logs(&self, id: &str, lines: usize) -> Result<LogTail, CommandError> {
        Ok(self.find(id)?.1.log.tail(lines))
    }

    /// Prepares a run of the plugin in `dir` by its author: whoever starts a process with this environment is the plugin,
    /// with everything its manifest asks for, until the session or the run ends. Call again for every run.
    ///
    /// # Errors
    /// When the manifest has errors or the plugin is running already.
    pub async fn run_dev(&self, dir: &Path) -> Result<DevLaunch, CommandError> {
        let path = dir.to_owned();
        let loading = tokio::task::spawn_blocking(move || {
            let path = path.canonicalize().unwrap_or(path);
            manifest::load(&path)
        });
        let shown = dir.display().to_string();
        let loaded = loading.await.map_err(|_| CommandError::ShuttingDown)?;
        let Some(id) = loaded.manifest.as_ref().map(|manifest| manifest.id.clone()) else {
            let errors = loaded.errors.iter().map(ToString::to_string).collect();
            return Err(CommandError::Invalid { id: shown, errors });
        };
        let handle = self.supervisor_for(&id, &loaded);
        let (answer, answered) = oneshot::channel();
        ask(&handle, id.as_str(), Message::Dev { loaded: Box::new(loaded), answer }, answered).await
    }

    /// The plugin's supervisor; an author's plugin that is not installed gets one for the time of its run.
    fn supervisor_for(&self, id: &PluginId, loaded: &manifest::Loaded) -> Handle {
        let mut handles = self.handles();
        if let Some(handle) = handles.get(id).filter(|handle| !handle.messages.is_closed()) {
            return handle.clone();
        }
        let (supervisor, handle) = Supervisor::new(self.shared().clone(), id.clone(), loaded.clone(), false);
        self.shared().tasks.spawn(supervisor.run());
        handles.insert(id.clone(), handle.clone());
        handle
    }

    /// Ends an author's run.
    ///
    /// # Errors
    /// When there is no such plugin.
    pub async fn end_dev(&self, id: &str) -> Result<(), CommandError> {
        self.wish(id, Wish::EndDev).await.map(|_| ())
    }

    /// Makes a token for a tool that the user runs by hand: one session, to be opened within 60 s.
    ///
    /// # Errors
    /// When too many tokens wait for their use.
    pub fn mint_tool(&self, grants: ToolGrants) -> Result<ToolLaunch, CommandError> {
        let mut permissions = match grants.open {
            ToolOpen::Any => Permissions::open_all(),
            ToolOpen::List(list) => list.into_iter().map(Permission::Open).collect(),
        };
        for protocol in grants.accept {
            permissions.add(Permission::Accept(protocol));
        }
        permissions.add(Permission::ContactsRead);
        if grants.peers_any {
            permissions.add(Permission::PeersAny);
        }
        let shared = self.shared();
        let instance = shared.next_instance();
        let owner = format!("tool:{}#{instance}", grants.name);
        let bearer = Bearer {
            owner: owner.as_str().into(),
            instance,
            permissions: Arc::new(permissions),
            streams_max: Limits::default().streams_max,
            plugin: None,
        };
        let token = shared.issue_token(bearer, TOOL_TOKEN_TTL).ok_or_else(|| CommandError::Failed {
            id: owner.clone(),
            state: State::Stopped,
            reason: "too many tokens wait for their use".to_owned(),
            recent: Vec::new(),
        })?;
        let mut env: Vec<(String, String)> =
            launch::session_env(&shared.endpoint.unix_text(), token.as_env_text())
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect();
        env.push(("P2POS_PLUGIN_ID".to_owned(), owner));
        Ok(ToolLaunch { env })
    }
}

/// Gives a supervisor a message and waits for its answer.
async fn ask<T>(
    handle: &Handle,
    id: &str,
    message: Message,
    answered: oneshot::Receiver<Result<T, CommandError>>,
) -> Result<T, CommandError> {
    let asked = async {
        handle.messages.send(message).await.map_err(|_| CommandError::ShuttingDown)?;
        answered.await.map_err(|_| CommandError::ShuttingDown)?
    };
    let state = handle.facts.borrow().state;
    let late = CommandError::Timeout { id: id.to_owned(), state };
    timeout(COMMAND_WITHIN, asked).await.unwrap_or(Err(late))
}

async fn wait(
    id: &str,
    handle: &mut Handle,
    within: Duration,
    is_settled: impl FnMut(&Facts) -> bool,
) -> Result<Facts, CommandError> {
    let waited = timeout(within, handle.facts.wait_for(is_settled)).await;
    match waited.map(|facts| facts.map(|facts| facts.clone())) {
        Ok(Ok(facts)) => Ok(facts),
        Ok(Err(_)) => Err(CommandError::ShuttingDown),
        Err(_) => {
            let state = handle.facts.borrow().state;
            Err(CommandError::Timeout { id: id.to_owned(), state })
        }
    }
}
