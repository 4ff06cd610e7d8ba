//! The daemon's life: what starts in which order, when it ends, and in which order that goes.
//!
//! Up: folders, lock, control socket, key, contacts, node, host (with the bridge as its network), bridge, answers,
//! ready. Down: answers and control socket, plugins and relay, connections, lock; every wait bounded. Each part gets what it needs
//! as an argument and knows none of the others; this is the only file that sees them all. One thread runs everything
//! (DESIGN section 11: +30 % on the hot path); what must not wait for a disk goes to the blocking pool.

mod answers;
mod documents;
mod ending;
mod logging;
mod month;
mod people;
mod reach;
mod relay;

use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs};

use p2pos_control::{Document, Failure, Server, private_dir};
use p2pos_host::{Host, HostConfig};
use p2pos_identity::{KeyFile, KeyOrigin};
use p2pos_node::Node;
use sd_notify::NotifyState;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use self::answers::{Answers, Parts};
use self::ending::Ending;
use self::month::{MonthKeeper, MonthSoFar};
use self::people::People;
use crate::bridge::Bridge;
use crate::cli::Output;
use crate::config::{Config, Loaded};
use crate::lock::Lock;
use crate::paths::Paths;
use crate::vigil::Pulse;

/// The first word of the hidden command under which the host starts this binary as its plugins' guard.
pub(crate) const GUARD_WORD: &str = "__guard";

/// The host promises to have stopped every plugin within 15 s; beyond that something is wrong with the promise.
const HOST_ENDS_WITHIN: Duration = Duration::from_secs(17);
/// How long packets still pass after the relay's users were told to go elsewhere. They have kept another relay warm, and a
/// move takes two seconds; it runs beside the end of the plugins, and is over at once where nobody is relayed.
const RELAY_GRACE: Duration = Duration::from_secs(3);
/// The relay ends within its grace by itself.
const RELAY_ENDS_WITHIN: Duration = Duration::from_secs(5);
/// The node closes its connections within 2 s.
const NODE_ENDS_WITHIN: Duration = Duration::from_secs(4);

/// What `p2pos up` was told.
#[derive(Debug)]
pub(crate) struct Orders {
    pub(crate) port: Option<u16>,
    pub(crate) until_stdin_closes: bool,
}

/// Runs the daemon until it is told to end.
pub(crate) async fn run(
    paths: Paths,
    settings: &Loaded,
    orders: Orders,
    output: Output,
    pulse: Pulse,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut config = settings.config()?;
    config.port = orders.port.or(config.port);
    logging::start(config.log_level)?;
    for problem in settings.problems() {
        warn!("{}: {}", problem.place, problem.message);
    }
    let mut ending = Ending::watch(orders.until_stdin_closes)?;
    let daemon = Daemon::start(&paths, &config, pulse).await?;
    daemon.tell_ready(begun, output)?;
    ending.comes().await;
    tell_systemd(&[NotifyState::Stopping, NotifyState::Status("ending")]);
    if output.is_interactive {
        output.say("ending; Ctrl-C once more ends at once");
    }
    tokio::select! {
        () = daemon.end() => Ok(()),
        () = ending.insisted_on() => Ok(()),
    }
}

/// All parts, in the order in which they started.
struct Daemon {
    parts: Parts,
    bridge: JoinHandle<()>,
    control: JoinHandle<()>,
    month: MonthKeeper,
    answers: Arc<Answers>,
    // Last: whoever sees the lock free must find everything else gone.
    _lock: Lock,
}

impl Daemon {
    async fn start(paths: &Paths, config: &Config, pulse: Pulse) -> Result<Self, Failure> {
        make_dirs(paths)?;
        let lock = Lock::take(&paths.lock_file())?;
        // Bound before the parts and served after them: who asks meanwhile waits for the answer.
        let server =
            Server::bind(&paths.control_socket()).map_err(|error| Failure::failed(error.to_string()))?;
        let (key, origin) =
            KeyFile::load_or_create(&paths.data_dir).map_err(|e| Failure::failed(e.to_string()))?;
        let key = Arc::new(key);
        if origin == KeyOrigin::Created {
            info!(peer = %key.peer_id(), "a new identity was made; back it up: p2pos id backup");
        }
        let people = Arc::new(People::open(&paths.contacts_file()).await?);
        let mut node_config = p2pos_node::Config::new(Arc::clone(&key), people.resolver());
        node_config.port = config.port;
        node_config.asks_routers = config.asks_routers;
        node_config.policy = people.policy(config.strangers);
        let month = MonthSoFar::read(paths.relay_month_file());
        node_config.relay = config.relay.for_node(month.bytes());
        let node = Node::start(node_config).map_err(|error| Failure::failed(error.to_string()))?;
        node.expect(people.everybody());
        let month = month.keep(node.clone());
        let bridge = Bridge::new(node.clone(), people.contacts(), pulse);
        let host = start_host(paths, config, &node, Arc::clone(&bridge)).await?;
        let parts = Parts { people, node, host, bridge: Arc::clone(&bridge) };
        let bridge = tokio::spawn(bridge.run(parts.host.clone()));
        let answers = Arc::new(Answers::new(parts.clone(), paths));
        let control = tokio::spawn(server.serve(Arc::clone(&answers)));
        Ok(Self { parts, bridge, control, month, answers, _lock: lock })
    }

    /// For people a line, for programs the status, for the service manager its own word.
    fn tell_ready(&self, begun: Instant, output: Output) -> Result<(), Failure> {
        let status = self.answers.status();
        debug!(took_ms = begun.elapsed().as_millis(), port = status.udp_port, "ready");
        output.say(&format!(
            "ready: you are {}, peers reach you on UDP port {}",
            status.peer_id, status.udp_port
        ));
        output.say(&format!("  data in {}; in another terminal: p2pos status", status.data_dir));
        tell_systemd(&[
            NotifyState::Ready,
            NotifyState::Status(&format!("ready, UDP port {}", status.udp_port)),
        ]);
        if output.json { output.document(&Document::Status(status)) } else { Ok(()) }
    }

    async fn end(self) {
        // Nobody may ask any more; its file goes with it.
        self.control.abort();
        drop(self.control.await);
        tokio::join!(
            within("the plugins", HOST_ENDS_WITHIN, self.parts.host.shutdown()),
            within("the relay's users", RELAY_ENDS_WITHIN, self.parts.node.drain_relay(RELAY_GRACE)),
        );
        self.month.end().await;
        within("the connections", NODE_ENDS_WITHIN, self.parts.node.shutdown()).await;
        // Both sides that it joined are gone; what is left of it waits for neither.
        self.bridge.abort();
        info!("ended");
    }
}

async fn within(what: &str, limit: Duration, ending: impl Future<Output = ()>) {
    if timeout(limit, ending).await.is_err() {
        warn!("{what} did not end within {limit:?} and stay behind");
    }
}

async fn start_host(
    paths: &Paths,
    config: &Config,
    node: &Node,
    bridge: Arc<Bridge>,
) -> Result<Host, Failure> {
    let me =
        env::current_exe().map_err(|error| Failure::failed(format!("cannot find this program: {error}")))?;
    let config = HostConfig {
        plugins_dir: plugins_dir(paths, config),
        runtime_dir: paths.runtime_dir.clone(),
        data_dir: paths.plugin_data_dir.clone(),
        log_dir: paths.log_dir.clone(),
        peer_id: node.peer_id(),
        daemon_name: format!("p2pos {}", env!("CARGO_PKG_VERSION")),
        guard_exec: vec![me.into(), GUARD_WORD.into()],
        adopts_orphans: true,
    };
    Host::start(config, bridge).await.map_err(|error| Failure::failed(error.to_string()))
}

fn plugins_dir(paths: &Paths, config: &Config) -> PathBuf {
    config.plugins_dir.clone().unwrap_or_else(|| paths.plugins_dir.clone())
}

fn make_dirs(paths: &Paths) -> Result<(), Failure> {
    private_dir(&paths.runtime_dir).map_err(|error| Failure::failed(error.to_string()))?;
    // What is secret in these is 0600 by itself, so folders that the user made with the usual rights will do.
    for dir in [&paths.data_dir, &paths.plugins_dir, &paths.plugin_data_dir, &paths.log_dir] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| Failure::failed(format!("{}: {error}", dir.display())))?;
    }
    Ok(())
}

/// The UDP port that peers reach: the same for both address families where the system allowed it.
fn udp_port(node: &Node) -> u16 {
    node.local_addresses().first().map_or(0, SocketAddr::port)
}

fn tell_systemd(words: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(words) {
        debug!(%error, "the service manager was not told");
    }
}
