//! Which peers have a task, and how to reach it. A lock and not a task, because it is only ever held in passing.
//!
//! Commands are sent while the lock is held, and a task ends only while the lock is held and no command waits for it. So no
//! command is ever sent to a task that has made up its mind to end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use p2pos_identity::PeerId;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::{
    error::OpenError,
    limits::PEERS_MAX,
    peer::{self, Command, Context, PeerHandle},
};

/// The peers' tasks.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    peers: Mutex<BTreeMap<PeerId, PeerHandle>>,
}

/// What became of a command; one that was not sent comes back.
enum Sent {
    Yes,
    /// The task has no room for it now.
    Full(Command, PeerHandle),
    /// The task had ended.
    Gone(Command),
}

impl Registry {
    /// Gives a command to the task of `peer`, which is started if there is none; waits while its queue is full.
    ///
    /// # Errors
    /// [`OpenError::StreamLimit`] if there are too many peers, [`OpenError::ShuttingDown`] at the end of the node.
    pub(crate) async fn command(
        &self,
        peer: PeerId,
        context: &Arc<Context>,
        command: Command,
    ) -> Result<(), OpenError> {
        let mut command = command;
        loop {
            match self.try_command(peer, context, command)? {
                Sent::Yes => return Ok(()),
                Sent::Full(unsent, handle) => {
                    command = unsent;
                    handle.has_room().await;
                }
                Sent::Gone(unsent) => command = unsent,
            }
        }
    }

    fn try_command(&self, peer: PeerId, context: &Arc<Context>, command: Command) -> Result<Sent, OpenError> {
        let mut peers = self.peers();
        if context.is_closing() {
            return Err(OpenError::ShuttingDown);
        }
        if !peers.contains_key(&peer) && peers.len() >= PEERS_MAX {
            return Err(OpenError::StreamLimit);
        }
        let handle = peers.entry(peer).or_insert_with(|| peer::start(peer, context.clone()));
        match handle.try_send(command) {
            Ok(()) => Ok(Sent::Yes),
            Err(TrySendError::Full(unsent)) => Ok(Sent::Full(unsent, handle.clone())),
            // A task that failed is replaced at the next try.
            Err(TrySendError::Closed(unsent)) => {
                peers.remove(&peer);
                Ok(Sent::Gone(unsent))
            }
        }
    }

    /// The task of `peer`, if there is one.
    pub(crate) fn existing(&self, peer: &PeerId) -> Option<PeerHandle> {
        self.peers().get(peer).cloned()
    }

    /// All tasks, by PeerId.
    pub(crate) fn all(&self) -> Vec<(PeerId, PeerHandle)> {
        self.peers().iter().map(|(peer, handle)| (*peer, handle.clone())).collect()
    }

    /// Forgets a task that wants to end, unless a command waits for it.
    pub(crate) fn forget(&self, peer: &PeerId, commands: &mpsc::Receiver<Command>) -> bool {
        let mut peers = self.peers();
        let may_end = commands.is_empty();
        if may_end {
            peers.remove(peer);
        }
        may_end
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<PeerId, PeerHandle>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicBool, time::Duration};

    use p2pos_discovery::Resolver;
    use p2pos_identity::SecretKey;
    use p2pos_transport::{Config, Endpoint};
    use tokio::time::timeout;

    use super::*;
    use crate::reach::Reach;
    use crate::relays::Relays;

    fn context() -> Arc<Context> {
        let mut config = Config::new(Arc::new(SecretKey::from_seed([1; 32])));
        config.ipv4 = Some(std::net::Ipv4Addr::LOCALHOST);
        config.ipv6 = None;
        let endpoint = Endpoint::bind(&config).unwrap();
        let policy = Arc::new(crate::config::Everyone);
        let key = Arc::new(SecretKey::from_seed([1; 32]));
        let (relays, _) = Relays::new(&endpoint, (key, policy), crate::config::RelayConfig::default());
        Arc::new(Context {
            relays,
            reach: Reach::start(endpoint.clone(), false, tokio::sync::watch::channel(false).1),
            endpoint,
            resolver: Resolver::new(),
            incoming: mpsc::channel(1).0,
            events: Mutex::new(None),
            registry: Registry::default(),
            closing: AtomicBool::new(false),
        })
    }

    /// Time stands still while anybody spins, so a busy wait would never end here.
    #[tokio::test(start_paused = true)]
    async fn a_command_for_a_busy_task_waits_without_spinning() {
        let (context, peer) = (context(), SecretKey::from_seed([2; 32]).peer_id());
        let (commands, mut task) = mpsc::channel(1);
        context.registry.peers().insert(peer, PeerHandle::to(commands));
        let send = || context.registry.command(peer, &context, Command::NetworkChanged);
        send().await.unwrap();
        assert!(timeout(Duration::from_secs(1), send()).await.is_err(), "the queue is full");
        let (sent, ()) = tokio::join!(send(), async {
            task.recv().await.unwrap();
        });
        sent.unwrap();
        assert!(task.try_recv().is_ok());
    }
}
