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
use p2pos_node::{Event, Node};
use tokio::sync::broadcast::error::RecvError;
use tracing::{debug, warn};

/// The joint. Made before the host, because the host asks it; told of the host as soon as that stands.
#[derive(Debug)]
pub(crate) struct Bridge {
    node: Node,
    contacts: Arc<Contacts>,
    host: OnceLock<Host>,
    /// Who is connected, kept here because `Network` must answer without waiting.
    connected: Mutex<BTreeMap<PeerId, PathKind>>,
}

impl Bridge {
    /// Makes the joint on the node's side. Nothing moves until `run`.
    pub(crate) fn new(node: Node, contacts: Arc<Contacts>) -> Arc<Self> {
        Arc::new(Self { node, contacts, host: OnceLock::new(), connected: Mutex::default() })
    }

    /// Takes peers' streams to plugins and peers' events to who subscribed, until the node shuts down.
    ///
    /// Call once, on the daemon's runtime. Dropping the future stops new streams; those that run go on.
    pub(crate) async fn run(self: Arc<Self>, host: Host) {
        if self.host.set(host.clone()).is_err() {
            warn!("the bridge was started twice");
            return;
        }
        tokio::join!(self.take_streams(&host), self.tell_events(&host));
    }

    async fn take_streams(&self, host: &Host) {
        while let Some(stream) = self.node.accept().await {
            let petname = self.petname(&stream.peer());
            tokio::spawn(incoming::serve(host.clone(), stream, petname));
        }
    }

    async fn tell_events(&self, host: &Host) {
        let mut events = self.node.events();
        loop {
            match events.recv().await {
                Ok(event) => self.tell(host, &event),
                // A snapshot goes out with every Subscribe; a lost event only means that plugins see the next one sooner.
                Err(RecvError::Lagged(missed)) => {
                    debug!(missed, "peer events were faster than their readers")
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn tell(&self, host: &Host, event: &Event) {
        let (peer, what) = match event {
            Event::Connected { peer, path } => {
                let path = path.map_or(PathKind::Unknown, |path| words::path(path.kind));
                self.lock_connected().insert(*peer, path);
                (*peer, "connected")
            }
            Event::Disconnected { peer, .. } => {
                self.lock_connected().remove(peer);
                (*peer, "disconnected")
            }
        };
        host.publish(NetworkEvent { kind: EventKind::Peer, peer, petname: self.petname(&peer), what });
    }

    /// Tells subscribed plugins that a contact was added, renamed or removed.
    pub(crate) fn contact_changed(&self, peer: PeerId, petname: Option<String>, what: &'static str) {
        if let Some(host) = self.host.get() {
            host.publish(NetworkEvent { kind: EventKind::Contact, peer, petname, what });
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
        tokio::spawn(opening::open(self.node.clone(), request, answer));
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
