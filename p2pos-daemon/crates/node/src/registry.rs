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
                None => return Ok(()),
                Some(unsent) => command = unsent,
            }
            tokio::task::yield_now().await;
        }
    }

    fn try_command(
        &self,
        peer: PeerId,
        context: &Arc<Context>,
        command: Command,
    ) -> Result<Option<Command>, OpenError> {
        let mut peers = self.peers();
        if context.is_closing() {
            return Err(OpenError::ShuttingDown);
        }
        if !peers.contains_key(&peer) && peers.len() >= PEERS_MAX {
            return Err(OpenError::StreamLimit);
        }
        let handle = peers.entry(peer).or_insert_with(|| peer::start(peer, context.clone()));
        match handle.try_send(command) {
            Ok(()) => Ok(None),
            Err(TrySendError::Full(unsent)) => Ok(Some(unsent)),
            // A task that failed is replaced at the next try.
            Err(TrySendError::Closed(unsent)) => {
                peers.remove(&peer);
                Ok(Some(unsent))
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
