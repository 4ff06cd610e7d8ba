//! Who waits for a connection to the peer.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::oneshot;

use crate::{error::OpenError, limits::OPENS_WAITING_MAX, peer::Live};

type Reply = oneshot::Sender<Result<Arc<Live>, OpenError>>;

/// The opens that wait, in order. An open that was given up counts until the next look.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    waiting: VecDeque<Reply>,
}

impl Wishes {
    /// Lets an open wait, or tells it that too many do.
    pub(super) fn add(&mut self, reply: Reply) {
        self.forget_given_up();
        if self.waiting.len() >= OPENS_WAITING_MAX {
            answer(reply, Err(OpenError::StreamLimit));
        } else {
            self.waiting.push_back(reply);
        }
    }

    /// Whether anybody still waits.
    pub(super) fn is_empty(&mut self) -> bool {
        self.forget_given_up();
        self.waiting.is_empty()
    }

    /// Gives everyone what they waited for.
    pub(super) fn fulfil(&mut self, live: &Arc<Live>) {
        for reply in self.waiting.drain(..) {
            answer(reply, Ok(live.clone()));
        }
    }

    /// Tells everyone that it is in vain.
    pub(super) fn fail(&mut self, error: &OpenError) {
        for reply in self.waiting.drain(..) {
            answer(reply, Err(error.clone()));
        }
    }

    fn forget_given_up(&mut self) {
        self.waiting.retain(|reply| !reply.is_closed());
    }
}

/// An open may be given up at any moment; then nobody needs the answer.
fn answer(reply: Reply, result: Result<Arc<Live>, OpenError>) {
    reply.send(result).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_open_too_many_is_told_at_once() {
        let mut wishes = Wishes::default();
        let mut kept = Vec::new();
        for _ in 0..OPENS_WAITING_MAX {
            let (reply, connected) = oneshot::channel();
            wishes.add(reply);
            kept.push(connected);
        }
        let (reply, mut connected) = oneshot::channel();
        wishes.add(reply);
        assert!(matches!(connected.try_recv(), Ok(Err(OpenError::StreamLimit))));

        // An open that was given up makes room.
        drop(kept.pop());
        let (reply, mut connected) = oneshot::channel();
        wishes.add(reply);
        assert!(connected.try_recv().is_err());
        wishes.fail(&OpenError::ShuttingDown);
        assert!(matches!(connected.try_recv(), Ok(Err(OpenError::ShuttingDown))));
        assert!(wishes.is_empty());
    }
}
