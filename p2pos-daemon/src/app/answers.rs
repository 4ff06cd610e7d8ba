//! What the daemon answers on the control socket: each request is a few calls to node, host or the address book.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use p2pos_control::{
    ContactRequest, Document, Exit, Explained, Failure, Handler, Items, PeerStatus, PingReport, PingRound,
    PluginList, Request, Secret, Status, ToolSession,
};
use p2pos_host::{CommandError, Host, LogLine, PluginId, PluginSnapshot, State, ToolGrants, ToolOpen};
use p2pos_identity::{PeerId, RelayChoice};
use p2pos_node::{Attempt, AttemptOutcome, Node, OpenError, PeerSnapshot};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::debug;

use super::documents::{approval, log_line, micros, peer_status, plugin_detail, plugin_row};
use super::people::People;
use super::reach::{explained, netcheck};
use super::relay::relay_detail;
use super::udp_port;
use crate::bridge::Bridge;
use crate::config::nearest;
use crate::paths::Paths;

/// Most plugins that one command may name: more than anybody installs.
const PLUGINS_PER_COMMAND_MAX: usize = 64;

/// The parts of the daemon that answers come from.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) people: Arc<People>,
    pub(super) node: Node,
    pub(super) host: Host,
    pub(super) bridge: Arc<Bridge>,
}

/// Answers requests.
#[derive(Debug)]
pub(super) struct Answers {
    parts: Parts,
    data_dir: PathBuf,
    ready_at: Instant,
}

impl Handler for Answers {
    async fn handle(&self, request: Request, items: Items) -> Result<Document, Failure> {
        match request {
            Request::Status => Ok(Document::Status(self.status())),
            Request::Contacts(request) => self.contacts(request).await,
            Request::PluginList => Ok(rows(&self.parts.host.plugins())),
            Request::PluginInfo { plugin } => Ok(detail(&self.plugin(&plugin)?)),
            Request::PluginStart { plugins } => self.each(plugins, Act::Start).await,
            Request::PluginStop { plugins } => self.each(plugins, Act::Stop).await,
            Request::PluginRestart { plugins } => self.each(plugins, Act::Restart).await,
            Request::PluginEnable { plugin, approval } => self.enable(&plugin, &approval).await,
            Request::PluginDisable { plugin } => {
                let id = self.plugin(&plugin)?.id;
                Ok(detail(&self.parts.host.disable(&id).await.map_err(failed)?))
            }
            Request::PluginLogs { plugin, lines, follow } => self.logs(&plugin, lines, follow, items).await,
            Request::PluginRun { dir } => self.run_own(dir, items).await,
            Request::Tool { what } => self.tool(what),
            Request::Explain { who } => self.explain(&who),
            Request::Netcheck => Ok(Document::Netcheck(Box::new(netcheck(&self.parts.node.network())))),
            Request::RelayStatus => {
                let detail = relay_detail(&self.parts.node.relays(), |peer| self.parts.people.petname(peer));
                Ok(Document::Relay(Box::new(detail)))
            }
            Request::Ping { who, count, interval_ms } => self.ping(&who, count, interval_ms, items).await,
        }
    }
}

/// What can be done to several plugins at once.
#[derive(Clone, Copy, Debug)]
enum Act {
    Start,
    Stop,
    Restart,
}

impl Answers {
    pub(super) fn new(parts: Parts, paths: &Paths) -> Self {
        Self { parts, data_dir: paths.data_dir.clone(), ready_at: Instant::now() }
    }

    /// How everything is.
    pub(super) fn status(&self) -> Status {
        let plugins = self.parts.host.plugins();
        let is_running = |plugin: &&PluginSnapshot| plugin.pid.is_some() || plugin.state == State::Running;
        let mut peers = self.parts.node.peers();
        peers.sort_by_key(|peer| peer.peer);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            peer_id: self.parts.node.peer_id().to_string(),
            uptime_s: self.ready_at.elapsed().as_secs(),
            data_dir: self.data_dir.display().to_string(),
            udp_port: udp_port(&self.parts.node),
            plugins: count(plugins.len()),
            plugins_running: count(plugins.iter().filter(is_running).count()),
            contacts: count(self.parts.people.count()),
            peers: peers.iter().map(|peer| self.peer(peer)).collect(),
        }
    }

    fn peer(&self, peer: &PeerSnapshot) -> PeerStatus {
        let explanation = self.parts.node.explain(&peer.peer);
        let relay = peer.relay.map(|relay| self.name(&relay));
        peer_status(peer, self.parts.people.petname(&peer.peer), relay, explanation.as_ref())
    }

    /// The user's name for somebody, or the PeerId.
    fn name(&self, peer: &PeerId) -> String {
        self.parts.people.petname(peer).unwrap_or_else(|| peer.to_string())
    }

    fn explain(&self, who: &str) -> Result<Document, Failure> {
        let peer = self.parts.people.resolve(who)?;
        let peers = self.parts.node.peers();
        let petname = self.parts.people.petname(&peer);
        let Some(snapshot) = peers.iter().find(|snapshot| snapshot.peer == peer) else {
            return Err(Failure::not_found(format!("nothing was tried yet to reach {who}"))
                .next(format!("try it: p2pos ping {who}")));
        };
        let explanation = self.parts.node.explain(&peer);
        let relay = snapshot.relay.map(|relay| self.name(&relay));
        let name = |peer: &PeerId| self.name(peer);
        let explained = explained(snapshot, explanation.as_ref(), &self.parts.node.network(), name);
        Ok(Document::Explain(Box::new(Explained { petname, relay, ..explained })))
    }

    /// Plugins that subscribed to contacts hear of every change.
    async fn contacts(&self, request: ContactRequest) -> Result<Document, Failure> {
        let what = match request {
            ContactRequest::List
            | ContactRequest::Show { .. }
            | ContactRequest::Addresses { .. }
            | ContactRequest::Relay { .. } => None,
            ContactRequest::Add { .. } => Some("added"),
            ContactRequest::Rename { .. } => Some("renamed"),
            ContactRequest::Remove { .. } => Some("removed"),
        };
        let is_removal = matches!(request, ContactRequest::Remove { .. });
        let changes_ways = matches!(
            request,
            ContactRequest::Add { .. } | ContactRequest::Addresses { .. } | ContactRequest::Relay { .. }
        );
        let document = self.parts.people.answer(request).await?;
        if let Document::Contact(contact) = &document
            && changes_ways
            && let Ok(peer) = contact.peer_id.parse::<PeerId>()
        {
            self.parts.node.redial(peer).await;
            if contact.relay == RelayChoice::Never.as_str() {
                // The policy forbids new ones since the book was written.
                self.parts.node.leave_relays(peer).await;
            }
        }
        if let (Some(what), Document::Contact(contact)) = (what, &document)
            && let Ok(peer) = contact.peer_id.parse::<PeerId>()
        {
            if is_removal {
                // The book and the resolver have forgotten it: now the connection goes, and the policy says who comes back.
                self.parts.node.disconnect(peer).await;
            } else {
                self.parts.node.expect(vec![peer]);
            }
            self.parts.bridge.contact_changed(peer, Some(contact.petname.clone()), what);
        }
        Ok(document)
    }

    /// The plugin that the user means: by its id, or by the last part of it (`chess` for `org.example.chess`).
    fn plugin(&self, named: &str) -> Result<PluginSnapshot, Failure> {
        if let Some(plugin) = self.parts.host.plugin(named) {
            return Ok(plugin);
        }
        let mut all = self.parts.host.plugins();
        let is_meant = |plugin: &PluginSnapshot| plugin.id.rsplit('.').next() == Some(named);
        let meant: Vec<usize> = (0..all.len()).filter(|&index| is_meant(&all[index])).collect();
        if let [only] = meant[..] {
            return Ok(all.swap_remove(only));
        }
        let failure = Failure::not_found(format!("there is no plugin \"{named}\""));
        if !meant.is_empty() {
            let failure = Failure::usage(format!("\"{named}\" may mean several plugins"));
            return Err(meant.iter().fold(failure, |failure, &index| failure.next(all[index].id.clone())));
        }
        Err(match nearest(named, all.iter().map(|plugin| plugin.id.as_str())) {
            Some(near) => failure.next(format!("did you mean {near}?")),
            None => failure.next("see them: p2pos plugins list"),
        })
    }

    /// Does the same to several plugins at once; the first failure is told, the others are done all the same.
    async fn each(&self, named: Vec<String>, act: Act) -> Result<Document, Failure> {
        if named.len() > PLUGINS_PER_COMMAND_MAX {
            return Err(Failure::usage(format!(
                "{} plugins at once, the limit is {PLUGINS_PER_COMMAND_MAX}",
                named.len()
            )));
        }
        let ids: Vec<String> =
            named.iter().map(|named| Ok(self.plugin(named)?.id)).collect::<Result<_, Failure>>()?;
        let mut acts = JoinSet::new();
        for id in ids {
            let host = self.parts.host.clone();
            acts.spawn(async move {
                match act {
                    Act::Start => host.start_plugin(&id).await,
                    Act::Stop => host.stop_plugin(&id).await,
                    Act::Restart => host.restart_plugin(&id).await,
                }
            });
        }
        let mut done = Vec::new();
        let mut first_failure = None;
        while let Some(ended) = acts.join_next().await {
            match ended {
                Ok(Ok(plugin)) => done.push(plugin),
                Ok(Err(error)) => {
                    first_failure.get_or_insert_with(|| failed(error));
                }
                Err(error) => {
                    first_failure.get_or_insert_with(|| Failure::failed(error.to_string()));
                }
            }
        }
        done.sort_by(|a, b| a.id.cmp(&b.id));
        first_failure.map_or_else(|| Ok(rows(&done)), Err)
    }

    async fn enable(&self, named: &str, shown: &str) -> Result<Document, Failure> {
        let plugin = self.plugin(named)?;
        if approval(&plugin) != shown {
            return Err(Failure::new(
                Exit::NeedsApproval,
                format!("{} has changed since you were shown it", plugin.id),
            )
            .next(format!("look again: p2pos plugins enable {}", plugin.id)));
        }
        Ok(detail(&self.parts.host.enable(&plugin.id).await.map_err(failed)?))
    }

    async fn logs(&self, named: &str, lines: u32, follow: bool, items: Items) -> Result<Document, Failure> {
        let done = Document::Done(p2pos_control::Done::default());
        let id = match self.plugin(named) {
            Ok(plugin) => plugin.id,
            // Removed, or run by its author and over: its log is still there to be read.
            Err(failure) => {
                let past = self.past_logs(named, lines).await?;
                if past.is_empty() {
                    return Err(failure);
                }
                send_lines(&items, &past).await?;
                return Ok(done);
            }
        };
        let mut tail = self.parts.host.logs(&id, lines as usize).map_err(failed)?;
        if tail.recent.is_empty() {
            // It has said nothing to this daemon yet, but perhaps to the one before.
            tail.recent = self.past_logs(&id, lines).await?;
        }
        send_lines(&items, &tail.recent).await?;
        while follow && let Some(line) = tail.follow.next().await {
            send_lines(&items, &[line]).await?;
        }
        Ok(done)
    }

    /// What stands in the log file of a plugin that may be known no more.
    async fn past_logs(&self, named: &str, lines: u32) -> Result<Vec<LogLine>, Failure> {
        let Ok(id) = PluginId::parse(named) else { return Ok(Vec::new()) };
        let past = self.parts.host.past_logs(&id, lines as usize).await;
        past.map_err(|error| Failure::failed(format!("the log of {named} cannot be read: {error}")))
    }

    /// The plugin is known until the asker leaves: then this future is dropped, and the guard within it. Meanwhile the
    /// author hears what the daemon has to say about the plugin, and what it says by Log frames.
    async fn run_own(&self, dir: String, items: Items) -> Result<Document, Failure> {
        let launch = self.parts.host.run_dev(dir.as_ref()).await.map_err(failed)?;
        let _known = KnownWhileHeld { host: self.parts.host.clone(), id: launch.id.clone() };
        let told = self.parts.host.logs(&launch.id, 0);
        let environment = launch.env.into_iter().map(|(name, value)| (name, Secret::new(value))).collect();
        let session = ToolSession { environment, exec: launch.exec };
        items.send(Document::Session(session)).await.map_err(|gone| Failure::failed(gone.to_string()))?;
        if let Ok(mut told) = told {
            while let Some(line) = told.follow.next().await {
                send_lines(&items, &[line]).await?;
            }
        }
        std::future::pending().await
    }

    fn tool(&self, what: String) -> Result<Document, Failure> {
        let grants = ToolGrants { name: what, open: ToolOpen::Any, accept: Vec::new(), peers_any: true };
        let launch = self.parts.host.mint_tool(grants).map_err(failed)?;
        let environment = launch.env.into_iter().map(|(name, value)| (name, Secret::new(value))).collect();
        Ok(Document::Session(ToolSession { environment, exec: Vec::new() }))
    }

    async fn ping(&self, who: &str, count: u32, interval_ms: u32, items: Items) -> Result<Document, Failure> {
        let peer = self.parts.people.resolve(who)?;
        let mut times = Vec::new();
        for seq in 1..=count {
            if seq > 1 {
                sleep(Duration::from_millis(interval_ms.into())).await;
            }
            let pings = self
                .parts
                .node
                .ping(peer, 1, Duration::ZERO)
                .await
                .map_err(|error| unreachable(who, &error))?;
            let rtt = pings.rtts.first().copied().flatten();
            times.extend(rtt.map(micros));
            let answered = rtt.and(pings.path.as_ref());
            let path = answered.map(|path| path.kind.to_string());
            let relay = answered.and(pings.relay).map(|relay| self.name(&relay));
            let why = if rtt.is_none() { "no answer in time".to_owned() } else { String::new() };
            let round = PingRound { seq, rtt_us: rtt.map(micros), path, relay, why };
            items.send(Document::PingRound(round)).await.map_err(|gone| Failure::failed(gone.to_string()))?;
        }
        times.sort_unstable();
        Ok(Document::Ping(PingReport {
            peer_id: peer.to_string(),
            petname: self.parts.people.petname(&peer),
            sent: count,
            received: self::count(times.len()),
            min_us: times.first().copied(),
            median_us: times.get(times.len() / 2).copied(),
            max_us: times.last().copied(),
        }))
    }
}

async fn send_lines(items: &Items, lines: &[LogLine]) -> Result<(), Failure> {
    for line in lines {
        let sent = items.send(Document::LogLine(log_line(line))).await;
        sent.map_err(|gone| Failure::failed(gone.to_string()))?;
    }
    Ok(())
}

/// Takes a plugin under development out of the host's list when its author's command ends, however it ends.
struct KnownWhileHeld {
    host: Host,
    id: String,
}

impl Drop for KnownWhileHeld {
    fn drop(&mut self) {
        let (host, id) = (self.host.clone(), std::mem::take(&mut self.id));
        // The asker has left; nobody waits for this.
        tokio::spawn(async move {
            if let Err(error) = host.end_dev(&id).await {
                debug!(%error, "a plugin under development was gone already");
            }
        });
    }
}

fn rows(plugins: &[PluginSnapshot]) -> Document {
    Document::Plugins(PluginList { plugins: plugins.iter().map(plugin_row).collect() })
}

fn detail(plugin: &PluginSnapshot) -> Document {
    Document::Plugin(Box::new(plugin_detail(plugin)))
}

fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

fn failed(error: CommandError) -> Failure {
    let text = error.to_string();
    match error {
        CommandError::NotFound { .. } => Failure::not_found(text).next("see them: p2pos plugins list"),
        CommandError::NeedsApproval { id, new_permissions, .. } => new_permissions
            .into_iter()
            .fold(Failure::new(Exit::NeedsApproval, text), |failure, ask| {
                failure.next(format!("asks for {ask}"))
            })
            .next(format!("approve: p2pos plugins enable {id}")),
        CommandError::Invalid { id, .. } => {
            // The command was right; what it was about is not.
            Failure::failed(text).next(format!("see what is wrong: p2pos plugins info {id}"))
        }
        CommandError::Failed { id, recent, .. } => {
            let failure = Failure::failed(text);
            let said = recent.last().map(|line| format!("its last words: {line}"));
            said.into_iter().fold(failure, Failure::next).next(format!("try: p2pos plugins logs {id}"))
        }
        CommandError::Timeout { .. } => Failure::new(Exit::TimedOut, text),
        CommandError::ShuttingDown => Failure::failed(text),
    }
}

fn unreachable(who: &str, error: &OpenError) -> Failure {
    let text = format!("{who}: {error}");
    match error {
        OpenError::UnknownPeer => Failure::not_found(text)
            .next(format!("say where they may be reached: p2pos contacts address {who} HOST:PORT")),
        OpenError::Timeout { .. } => Failure::new(Exit::TimedOut, text),
        OpenError::Unreachable { attempts } if attempts.iter().all(is_silence) => {
            Failure::new(Exit::TimedOut, text)
        }
        OpenError::Misuse(_) => Failure::usage(text),
        OpenError::NeedsRelay { .. } => {
            Failure::failed(text).next(format!("allow relays for them: p2pos contacts relay {who} auto"))
        }
        OpenError::Offline
        | OpenError::Unreachable { .. }
        | OpenError::NotSupported { .. }
        | OpenError::Refused { .. }
        | OpenError::NotReady { .. }
        | OpenError::LocalOffline { .. }
        | OpenError::StreamLimit
        | OpenError::ConnectionLost(_)
        | OpenError::ShuttingDown => Failure::failed(text),
    }
}

/// Nothing came back: neither a yes nor a no.
fn is_silence(attempt: &Attempt) -> bool {
    match attempt.outcome {
        AttemptOutcome::Running | AttemptOutcome::NoAnswer | AttemptOutcome::Abandoned => true,
        AttemptOutcome::Connected | AttemptOutcome::Refused(_) | AttemptOutcome::Unroutable(_) => false,
    }
}
