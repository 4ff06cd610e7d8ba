//! Whether a port mapping lets anybody in: a peer is asked to knock at it, and only the knock's arrival proves it.
//!
//! The peer knocks from a socket that it has never used, so that no binding of the connection lets the knock in. One thing
//! this cannot tell apart: a router that maps nothing, and lets in everybody from an address that was called (decision 0025).

use std::{net::SocketAddr, time::Duration};

use p2pos_peer_protocol::measure::MeasureQuestion;
use p2pos_traversal::Probe;
use tokio::time::timeout;

use super::ask;
use crate::{peer::Live, reach::Reach};

/// How long we wait for a knock after the peer has promised it: its three tries and a satellite.
const KNOCK_WAIT: Duration = Duration::from_secs(4);

/// Asks once. `None` if the peer does not help, so that nothing is known.
pub(super) async fn run(reach: &Reach, live: &Live, external: SocketAddr) -> Option<bool> {
    let token = rand::random();
    let mut reader = reach.desk().read(token)?;
    let _granted = ask(live, MeasureQuestion::DialBack { token, port: external.port() }).await?;
    let knocked = async {
        while let Some(arrived) = reader.next().await {
            if matches!(arrived.probe, Probe::Knock { .. }) {
                return true;
            }
        }
        false
    };
    let came_through = timeout(KNOCK_WAIT, knocked).await.unwrap_or(false);
    tracing::debug!(%external, came_through, "a port mapping was looked at from outside");
    Some(came_through)
}
