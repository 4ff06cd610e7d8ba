//! Dialling the peer: look its addresses up, race them, and wait longer after every failure.

use std::{pin::Pin, sync::Arc};

use p2pos_discovery::ResolveError;
use p2pos_identity::PeerId;
use p2pos_peer_protocol::EndCode;
use p2pos_transport::{Connection, Timeline};
use p2pos_traversal::{Backoff, Candidate, CandidateKind};
use tokio::time::Instant;

use crate::{error::OpenError, limits::REDIAL, peer::Context};

/// What becomes of a dial.
type Dialed = Result<Connection, OpenError>;

/// A dial in progress and the patience between dials. The dial runs within the peer's task: what follows from a connection
/// follows in the same turn of the scheduler.
pub(super) struct Dialler {
    running: Option<Pin<Box<dyn Future<Output = Dialed> + Send>>>,
    timeline: Timeline,
    backoff: Backoff,
}

impl Default for Dialler {
    fn default() -> Self {
        Self { running: None, timeline: Timeline::default(), backoff: Backoff::new(REDIAL) }
    }
}

impl Dialler {
    /// Starts a dial, unless one runs or must wait.
    pub(super) fn dial(&mut self, peer: PeerId, context: &Arc<Context>) {
        if self.running.is_some() || !self.backoff.may_try(now()) {
            return;
        }
        self.timeline = Timeline::default();
        self.running = Some(Box::pin(look_up_and_dial(peer, context.clone(), self.timeline.clone())));
    }

    pub(super) fn is_dialling(&self) -> bool {
        self.running.is_some()
    }

    /// When the next dial may begin, if that is still to come.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        self.backoff.poll_timeout().filter(|due| *due > now()).map(Instant::from_std)
    }

    /// What the present dial, or the last one, has tried.
    pub(super) fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Waits for the dial in progress; for ever if there is none. Cancel-safe.
    pub(super) async fn done(&mut self) -> Dialed {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let dialed = running.await;
        self.running = None;
        dialed
    }

    /// A dial has failed, or a connection did not last: the next dial must wait, each time longer.
    pub(super) fn back_off(&mut self) {
        self.backoff.handle_failed(now(), rand::random());
    }

    /// A connection stands.
    pub(super) fn succeeded(&mut self) {
        self.backoff.handle_connected(now());
    }

    /// Stops the dial in progress.
    pub(super) fn give_up(&mut self) {
        self.running = None;
    }

    /// There is reason to hope again: the network has changed, or the peer has just shown that it lives.
    pub(super) fn hope_again(&mut self) {
        self.backoff = Backoff::new(REDIAL);
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

async fn look_up_and_dial(peer: PeerId, context: Arc<Context>, timeline: Timeline) -> Dialed {
    let direct = dial_directly(peer, &context, &timeline);
    let relayed = dial_over_relay(peer, &context, &timeline);
    tokio::pin!(direct, relayed);
    let mut failure = None;
    let mut has_relay = true;
    // Whoever connects first carries data; `reach` finds what is better. Of two failures the direct one is told.
    loop {
        tokio::select! {
            biased;
            dialed = &mut direct, if failure.is_none() => match dialed {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = Some(error),
            },
            dialed = &mut relayed, if has_relay => match dialed {
                Some(connection) => return Ok(connection),
                None => has_relay = false,
            },
        }
        if let Some(error) = failure.take_if(|_| !has_relay) {
            // What the relays' attempts came to stands in the timeline meanwhile.
            return Err(
                error.with_all_that_was_tried(timeline.attempts(), context.relays.are_forbidden(peer))
            );
        }
    }
}

async fn dial_directly(peer: PeerId, context: &Context, timeline: &Timeline) -> Dialed {
    let resolved = context.resolver.resolve(&peer).await.map_err(|error| unresolved(&error))?;
    context.endpoint.dial(peer, &resolved.candidates, timeline).await.map_err(OpenError::of_dial)
}

/// Dials a peer where it can be called through a relay, or a relay by TCP.
async fn dial_over_relay(peer: PeerId, context: &Context, timeline: &Timeline) -> Option<Connection> {
    let line = context.relays.line_to(peer);
    let (way, timeline) = match line {
        Some(line) => (line, timeline.clone()),
        None => {
            let (way, relay) = context.relays.way_to(peer, timeline, &[]).await?;
            (way, timeline.through(relay))
        }
    };
    let candidate = Candidate { addr: way.socket_addr(), kind: CandidateKind::Relayed };
    let dialed = context.endpoint.dial(peer, &[candidate], &timeline).await;
    match dialed {
        // The user forbade it meanwhile.
        Ok(connection) if context.relays.forbids(&connection) => {
            connection.close(EndCode::REFUSED);
            None
        }
        Ok(connection) => Some(connection),
        Err(_) => {
            context.relays.let_go(way);
            None
        }
    }
}

fn unresolved(error: &ResolveError) -> OpenError {
    tracing::debug!(%error, "a peer could not be looked up");
    if matches!(error, ResolveError::Unknown(_)) { OpenError::UnknownPeer } else { OpenError::Offline }
}
