//! What the parts of the host share: configuration, the network, and the tables that several tasks look into. Owns
//! nothing's behaviour; each table's rules stand in its own file.
//!
//! The tables are behind plain locks that are held for a look or a change, never across an await.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use p2pos_plugin_protocol::{
    driver::Session,
    message::{Attachment, LaunchToken},
};
use tokio::sync::{Notify, broadcast, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    HostConfig, HostEvent,
    directory::Directory,
    endpoint::Endpoint,
    grants::Grants,
    greeting,
    log::{self, PluginLog},
    network::{Network, NetworkEvent},
    permissions::Permissions,
    plugin::Message,
    plugin_id::PluginId,
    serve::Command,
    tickets::Tickets,
    tokens::Tokens,
};

/// Events that may wait for a subscriber before it misses some (protocol limit: 1,024).
const EVENTS_MAX: usize = 1024;

/// See the file's story.
pub(crate) struct Shared {
    pub(crate) config: HostConfig,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) endpoint: Endpoint,
    pub(crate) log_writer: log::Writer,
    pub(crate) network_events: broadcast::Sender<NetworkEvent>,
    pub(crate) host_events: broadcast::Sender<HostEvent>,
    /// Sessions, greetings, minders: whatever must end before the host has ended.
    pub(crate) tasks: TaskTracker,
    /// A supervisor has ended. Its directory may be back since: what is found while a plugin retires is lost with it.
    pub(crate) look_again: Notify,
    /// Cancelled when the host shuts down.
    pub(crate) ending: CancellationToken,
    tokens: Mutex<Tokens<Bearer>>,
    tickets: Mutex<Tickets>,
    directory: Mutex<Directory<Link>>,
    grants: Mutex<Grants>,
    last_instance: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Whom a session speaks for.
#[derive(Clone, Debug)]
pub(crate) struct Bearer {
    /// The plugin's id, or a tool's name that no plugin can have.
    pub(crate) owner: Arc<str>,
    pub(crate) instance: u64,
    pub(crate) permissions: Arc<Permissions>,
    pub(crate) streams_max: u32,
    /// `None` for tools.
    pub(crate) plugin: Option<PluginLink>,
}

/// A session's way to the task that supervises its plugin.
#[derive(Clone, Debug)]
pub(crate) struct PluginLink {
    pub(crate) supervisor: mpsc::Sender<Message>,
    pub(crate) log: Arc<PluginLog>,
}

/// What stands behind a registered protocol.
#[derive(Clone, Debug)]
pub(crate) enum Link {
    Session { session: Session, attachment: Attachment },
    Command(Arc<Command>),
}

impl Shared {
    pub(crate) fn new(
        config: HostConfig,
        network: Arc<dyn Network>,
        (endpoint, grants, log_writer): (Endpoint, Grants, log::Writer),
    ) -> Arc<Self> {
        Arc::new(Self {
            config,
            network,
            endpoint,
            log_writer,
            network_events: broadcast::Sender::new(EVENTS_MAX),
            host_events: broadcast::Sender::new(EVENTS_MAX),
            tasks: TaskTracker::new(),
            look_again: Notify::new(),
            ending: CancellationToken::new(),
            tokens: Mutex::new(Tokens::new()),
            tickets: Mutex::new(Tickets::new()),
            directory: Mutex::new(Directory::new()),
            grants: Mutex::new(grants),
            last_instance: AtomicU64::new(0),
        })
    }

    pub(crate) fn tokens(&self) -> MutexGuard<'_, Tokens<Bearer>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tickets(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn directory(&self) -> MutexGuard<'_, Directory<Link>> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn grants(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the TCP port for plugins that cannot do unix sockets, if it is not open, and tells where it is.
    pub(crate) async fn tcp_text(self: &Arc<Self>) -> std::io::Result<String> {
        let accept = |listener| {
            self.tasks.spawn(greeting::accept_tcp(listener, self.clone()));
        };
        self.endpoint.tcp_text(accept).await
    }

    /// Where the plugin's log is.
    pub(crate) fn log_path(&self, id: &PluginId) -> PathBuf {
        self.config.log_dir.join(format!("{id}.log"))
    }

    /// A number for a run of a plugin or tool, never used before in this life of the daemon.
    pub(crate) fn next_instance(&self) -> u64 {
        self.last_instance.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Gives out a token that stands for `bearer`. `None`: too many wait.
    pub(crate) fn issue_token(&self, bearer: Bearer, good_for: Duration) -> Option<LaunchToken> {
        let token = LaunchToken::from_random(random());
        let (instance, now) = (bearer.instance, Instant::now());
        self.tokens().add(&token, (instance, bearer), now + good_for, now).then_some(token)
    }
}

/// Random bytes from the kernel.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("Linux gives random bytes once it has booted");
    bytes
}
