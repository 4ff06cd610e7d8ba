//! Joins the plugins' side of the daemon (`host`) to the peers' side (`node`): the only place that sees both.
//!
//! A plugin's Open becomes a QUIC stream to its peer, and a peer's stream becomes an Incoming at the plugin that serves its protocol. From then
//! on one task per stream carries bytes both ways (`pump`), or datagrams (`flow`). It translates words (`words`): codes, kinds, paths; it takes
//! no decision about plugins or peers that `host`, `node` or the user's contacts have not taken.

mod flow;
mod incoming;
mod opening;
mod pump;
mod words;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
};

use p2pos_host::{
    ConnectedPeer, ContactInfo, EventKind, Host, Network, NetworkEvent, OpenAnswer, OpenRequest, PathKind,
};
use p2pos_identity::{Contacts, PeerId};
use p2pos_node::{Event, Node, PeerState};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tracing::{debug, warn};

use crate::vigil::Pulse;

/// The joint. Made before the host, because the host asks it; told of the host as soon as that stands.
#[derive(Debug)]
pub(crate) struct Bridge {
    node: Node,
    contacts: Arc<Contacts>,
    pulse: Pulse,
    host: OnceLock<Host>,
    /// Who is connected, kept here because `Network` must answer without waiting.
    connected: Mutex<BTreeMap<PeerId, PathKind>>,
    /// What happened to peers since the bridge was made; `run` takes it.
    events: Mutex<Option<Receiver<Event>>>,
}

impl Bridge {
    /// Makes the joint on the node's side. Nothing moves until `run`.
    pub(crate) fn new(node: Node, contacts: Arc<Contacts>, pulse: Pulse) -> Arc<Self> {
        let events = Mutex::new(Some(node.events()));
        Arc::new(Self { node, contacts, pulse, host: OnceLock::new(), connected: Mutex::default(), events })
    }

    /// Takes peers' streams to plugins and peers' events to who subscribed, until the node shuts down.
    ///
    /// Call once, on the daemon's runtime. Dropping the future stops new streams; those that run go on.
    pub(crate) async fn run(self: Arc<Self>, host: Host) {
        if self.host.set(host.clone()).is_err() {
            warn!("the bridge was started twice");
            return;
        }
        let Some(events) = self.events.lock().expect("no code panics while it holds this lock").take() else {
            return;
        };
        tokio::join!(self.take_streams(&host), self.follow(events));
    }

    async fn take_streams(&self, host: &Host) {
        while let Some(stream) = self.node.accept().await {
            let petname = self.petname(&stream.peer());
            tokio::spawn(incoming::serve(host.clone(), stream, petname, self.pulse.clone()));
        }
    }

    /// Keeps `connected` true. What happened before the first event, or in those that were lost, is seen by looking; events
    /// older than the look may follow it, but the last one of each peer says again what was seen.
    async fn follow(&self, mut events: Receiver<Event>) {
        self.look();
        loop {
            match events.recv().await {
                Ok(Event::Connected { peer, path }) => {
                    self.note_connected(peer, path.map_or(PathKind::Unknown, |path| words::path(path.kind)));
                }
                Ok(Event::Disconnected { peer, .. }) => self.note_disconnected(peer),
                Err(RecvError::Lagged(missed)) => {
                    debug!(missed, "peer events were faster than their readers");
                    self.look();
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Makes `connected` what the node says now.
    fn look(&self) {
        let mut gone = self.lock_connected().clone();
        for peer in self.node.peers() {
            if peer.state == PeerState::Connected {
                gone.remove(&peer.peer);
                let path = peer.path.map_or(PathKind::Unknown, |path| words::path(path.kind));
                self.note_connected(peer.peer, path);
            }
        }
        for peer in gone.into_keys() {
            self.note_disconnected(peer);
        }
    }

    fn note_connected(&self, peer: PeerId, path: PathKind) {
        let is_news = self.lock_connected().insert(peer, path).is_none();
        if is_news {
            self.publish(EventKind::Peer, peer, self.petname(&peer), "connected");
        }
    }

    fn note_disconnected(&self, peer: PeerId) {
        let is_news = self.lock_connected().remove(&peer).is_some();
        if is_news {
            self.publish(EventKind::Peer, peer, self.petname(&peer), "disconnected");
        }
    }

    /// Tells subscribed plugins that a contact was added, renamed or removed.
    pub(crate) fn contact_changed(&self, peer: PeerId, petname: Option<String>, what: &'static str) {
        self.publish(EventKind::Contact, peer, petname, what);
    }

    fn publish(&self, kind: EventKind, peer: PeerId, petname: Option<String>, what: &'static str) {
        if let Some(host) = self.host.get() {
            host.publish(NetworkEvent { kind, peer, petname, what });
        }
    }

    fn petname(&self, peer: &PeerId) -> Option<String> {
        self.contact(peer).map(|contact| contact.petname)
    }

    fn lock_connected(&self) -> MutexGuard<'_, BTreeMap<PeerId, PathKind>> {
        self.connected.lock().expect("no code panics while it holds this lock")
    }
}

impl Network for Bridge {
    fn open(&self, request: OpenRequest, answer: OpenAnswer) {
        tokio::spawn(opening::open(self.node.clone(), request, answer, self.pulse.clone()));
    }

    fn contacts(&self) -> Vec<ContactInfo> {
        let contacts = match self.contacts.list() {
            Ok(contacts) => contacts,
            Err(error) => {
                warn!(%error, "contacts cannot be read");
                return Vec::new();
            }
        };
        let connected = self.lock_connected();
        contacts
            .into_iter()
            .map(|contact| ContactInfo {
                is_connected: connected.contains_key(&contact.peer),
                peer: contact.peer,
                petname: contact.petname,
            })
            .collect()
    }

    fn contact(&self, peer: &PeerId) -> Option<ContactInfo> {
        let contact = match self.contacts.get(peer) {
            Ok(contact) => contact?,
            Err(error) => {
                warn!(%error, "contacts cannot be read");
                return None;
            }
        };
        let is_connected = self.lock_connected().contains_key(peer);
        Some(ContactInfo { peer: contact.peer, petname: contact.petname, is_connected })
    }

    fn connected(&self) -> Vec<ConnectedPeer> {
        let connected = self.lock_connected().clone();
        connected
            .into_iter()
            .map(|(peer, path)| ConnectedPeer { peer, petname: self.petname(&peer), path })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use p2pos_identity::SecretKey;
    use p2pos_node::{Config, Lost};
    use tokio::sync::broadcast::Sender;
    use tokio::time::{sleep, timeout};

    use super::*;

    fn node(seed: u8, resolver: p2pos_discovery::Resolver) -> Node {
        let mut config = Config::new(Arc::new(SecretKey::from_seed([seed; 32])), resolver);
        config.ipv4 = Some(Ipv4Addr::LOCALHOST);
        config.ipv6 = None;
        Node::start(config).unwrap()
    }

    /// A bridge whose node has been connected to another one since before the bridge was made.
    async fn late_bridge(dir: &tempfile::TempDir) -> (Arc<Bridge>, Node) {
        let resolver = p2pos_discovery::Resolver::new();
        let (here, there) = (node(1, resolver.clone()), node(2, p2pos_discovery::Resolver::new()));
        let address = there.local_addresses()[0].to_string().parse().unwrap();
        resolver.set(there.peer_id(), vec![address]).unwrap();
        here.ping(there.peer_id(), 1, Duration::ZERO).await.unwrap();
        let contacts = Arc::new(Contacts::open(&dir.path().join("contacts")).unwrap());
        (Bridge::new(here, contacts, Pulse::default()), there)
    }

    async fn until(mut holds: impl FnMut() -> bool) {
        let wait = async {
            while !holds() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(30), wait).await.expect("this takes milliseconds");
    }

    fn connected(bridge: &Bridge) -> Vec<PeerId> {
        bridge.connected().into_iter().map(|peer| peer.peer).collect()
    }

    #[tokio::test]
    async fn a_peer_that_connected_before_the_bridge_ran_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let (bridge, there) = late_bridge(&dir).await;
        let events = bridge.events.lock().unwrap().take().unwrap();
        let following = tokio::spawn({
            let bridge = Arc::clone(&bridge);
            async move { bridge.follow(events).await }
        });
        until(|| connected(&bridge) == [there.peer_id()]).await;
        there.shutdown().await;
        until(|| connected(&bridge).is_empty()).await;
        following.abort();
    }

    #[tokio::test]
    async fn a_lost_disconnect_is_noticed_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (bridge, there) = late_bridge(&dir).await;
        let sender = Sender::new(1);
        let events = sender.subscribe();
        let following = tokio::spawn({
            let bridge = Arc::clone(&bridge);
            async move { bridge.follow(events).await }
        });
        until(|| connected(&bridge) == [there.peer_id()]).await;
        there.shutdown().await;
        until(|| bridge.node.peers().iter().all(|peer| peer.state != PeerState::Connected)).await;
        assert_eq!(connected(&bridge), [there.peer_id()], "nobody has told the bridge");
        // Two events in a queue of one: the first is lost, and the second tells of somebody else.
        let other = SecretKey::from_seed([3; 32]).peer_id();
        for peer in [there.peer_id(), other] {
            sender.send(Event::Disconnected { peer, reason: Lost::TimedOut }).unwrap();
        }
        until(|| connected(&bridge).is_empty()).await;
        following.abort();
    }
}
