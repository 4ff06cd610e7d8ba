//! Handshakes that others begin: few at a time and few for each network (`doorkeeper`), each with a deadline, and nobody
//! learns anything before the peer has proven who it is.
//!
//! Strangers do not get here: the socket lets first packets through only if they were made with our PeerId. What gets here
//! may still be a replay, so nothing is believed, told or stored before the handshake is done (reliability-ux.md N11-N15).

use std::{collections::HashMap, sync::Arc};

use p2pos_noise_quic::peer_of;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    connection::Connection,
    doorkeeper::{Doorkeeper, Place, Verdict},
    endpoint::Configs,
    socket::Shared,
    tuning::{HANDSHAKE_MAX, Reach},
};

/// Accepts handshakes until the endpoint closes, and hands out what became a connection.
pub(crate) async fn run(
    endpoint: noq::Endpoint,
    configs: Arc<Configs>,
    shared: Arc<Shared>,
    established: mpsc::Sender<Connection>,
) {
    let mut door = Doorkeeper::default();
    let mut handshakes = JoinSet::new();
    let mut places = HashMap::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { return };
                let Some((connecting, place)) = admit(incoming, &mut door, &configs) else { continue };
                let task = handshakes.spawn(finish(connecting, shared.clone(), established.clone()));
                places.insert(task.id(), place);
            }
            Some(done) = handshakes.join_next_with_id() => {
                let task = match done {
                    Ok((task, ())) => task,
                    Err(error) => {
                        tracing::error!(%error, "a handshake task failed");
                        error.id()
                    }
                };
                if let Some(place) = places.remove(&task) {
                    door.leave(place);
                }
            }
        }
    }
}

/// Decides about a first packet: go on, ask for proof of the address, or stay silent.
fn admit(
    incoming: noq::Incoming,
    door: &mut Doorkeeper,
    configs: &Configs,
) -> Option<(noq::Connecting, Place)> {
    let remote = incoming.remote_address().ip();
    let is_proven = incoming.remote_address_validated();
    let place = match door.knock(remote, is_proven, Instant::now().into_std()) {
        Verdict::Enter(place) => place,
        Verdict::ProveAddress => {
            if let Err(error) = incoming.retry() {
                error.into_incoming().ignore();
            }
            return None;
        }
        Verdict::Ignore => {
            incoming.ignore();
            return None;
        }
    };
    match incoming.accept_with(configs.server(Reach::of(remote))) {
        Ok(connecting) => Some((connecting, place)),
        Err(error) => {
            tracing::debug!(%remote, %error, "ignored an attempt to connect");
            door.leave(place);
            None
        }
    }
}

/// Brings one handshake to its end.
async fn finish(connecting: noq::Connecting, shared: Arc<Shared>, established: mpsc::Sender<Connection>) {
    let connection = match timeout(HANDSHAKE_MAX, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%error, "a handshake of a peer failed"),
        Err(_) => return tracing::debug!("a handshake of a peer took too long"),
    };
    let Some(peer) = connection.peer_identity().and_then(peer_of) else {
        return tracing::error!("a connection was established without a proven peer; it is closed");
    };
    let connection = Connection::new(connection, peer, false, shared);
    if established.send(connection).await.is_err() {
        tracing::debug!("a peer connected while we were shutting down");
    }
}
