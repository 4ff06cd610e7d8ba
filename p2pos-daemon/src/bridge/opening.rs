//! A plugin asks for "ProtocolName at PeerId": the way out.
//!
//! What the plugin writes behind its Open travels with the request: it need not wait for the answer, and a reply comes
//! after one round trip instead of two.
//!
//! An open that is given up before its answer ends at the peer as SPEC.md's disconnect table says: 400 APP when the plugin does
//! not want it any more, 403 PLUGIN_GONE when the plugin is gone.

use std::{
    future::{Future, pending},
    pin::pin,
};

use p2pos_host::{GivenUp, Kind, OpenAnswer, OpenRequest, OpenedInfo, PathKind, PluginEnd, RelayUse};
use p2pos_node::{Answer, Answered, Channel, EndCode, Node, OpenError, Opened, Opening};
use tracing::debug;

use super::{
    flow,
    pump::{self, Inbound, Outbound},
    words,
};
use crate::vigil::Pulse;

/// Opens at the node, answers the plugin, and carries until the end. Runs as a task of its own.
///
pub(super) async fn open(node: Node, request: OpenRequest, mut answer: OpenAnswer, pulse: Pulse) {
    pulse.beat();
    let (peer, kind) = (request.peer, request.kind);
    let mut wanted = p2pos_node::OpenRequest::new(peer, request.protocols)
        .kind(words::kind_to_peer(kind))
        .timeout(request.timeout);
    let wants_no_relay = request.relay == RelayUse::Never;
    if wants_no_relay {
        wanted = wanted.without_relay();
    }
    let forbidden = async { if wants_no_relay { node.lost_own_path(peer).await } else { pending().await } };
    let given_up = answer.given_up();
    let failed = match kind {
        Kind::Stream => match open_stream(&node, wanted, (&mut answer, given_up), &pulse).await {
            None => return,
            Some(Ok((answered, outbound))) => {
                return join_stream(answered, outbound, (answer, forbidden), pulse).await;
            }
            Some(Err(error)) => error,
        },
        Kind::Datagram => {
            let opened = tokio::select! {
                opened = node.open(wanted) => opened,
                _ = given_up => return,
            };
            match opened {
                Ok(opened) => return join_flow(opened, (answer, forbidden), &pulse).await,
                Err(error) => error,
            }
        }
    };
    debug!(peer = %peer.short(), plugin = request.plugin, code = failed.code(), "open failed");
    answer.failed(words::open_failure(&failed));
}

/// `None`: the plugin does not want it any more.
async fn open_stream(
    node: &Node,
    wanted: p2pos_node::OpenRequest,
    (answer, given_up): (&mut OpenAnswer, impl Future<Output = GivenUp>),
    pulse: &Pulse,
) -> Option<Result<(Answered, Outbound), OpenError>> {
    let mut given_up = pin!(given_up);
    let opening = tokio::select! {
        opening = node.begin(wanted) => opening,
        // The node tells the peer that its question was given up.
        _ = &mut given_up => return None,
    };
    let Opening { send, answer: theirs } = match opening {
        Ok(opening) => opening,
        Err(error) => return Some(Err(error)),
    };
    let mut outbound = Outbound::new(send, pulse.clone());
    let answered = tokio::select! {
        answered = wait_and_carry(theirs, &mut outbound, answer) => answered,
        why = given_up => {
            outbound.reset(match why {
                GivenUp::Cancelled => words::CANCELLED,
                GivenUp::PluginGone => words::PLUGIN_GONE,
            });
            return None;
        }
    };
    Some(answered.map(|answered| (answered, outbound)))
}

/// Waits for the peer's answer and lets the plugin's bytes go meanwhile.
async fn wait_and_carry(
    theirs: Answer,
    outbound: &mut Outbound,
    answer: &mut OpenAnswer,
) -> Result<Answered, OpenError> {
    let mut answered = pin!(theirs.wait());
    let Some(reader) = answer.early_reader() else { return answered.await };
    tokio::select! {
        biased;
        answered = &mut answered => answered,
        // The plugin has said all that it has to say, or has given up; how that went is told when the stream is joined.
        _ = outbound.run(reader) => answered.await,
    }
}

/// `forbidden` comes when the stream must not go on: its path became one that the plugin does not want.
async fn join_stream(
    answered: Answered,
    mut outbound: Outbound,
    (answer, forbidden): (OpenAnswer, impl Future<Output = ()>),
    pulse: Pulse,
) {
    let Answered { protocol, path, mut recv } = answered;
    match answer.opened(info(protocol, path, 0)).await {
        Ok(PluginEnd::Stream(plugin)) => {
            pump::pump(plugin, outbound, (recv, Inbound::new(pulse)), forbidden).await;
        }
        // The plugin has left meanwhile (a flow never comes here): the peer hears that its owner is gone.
        Ok(PluginEnd::Flow(_)) | Err(_) => {
            outbound.reset(words::PLUGIN_GONE);
            recv.stop(EndCode::PLUGIN_GONE);
        }
    }
}

async fn join_flow(
    opened: Opened,
    (answer, forbidden): (OpenAnswer, impl Future<Output = ()>),
    pulse: &Pulse,
) {
    let Opened { protocol, path, channel } = opened;
    // A stream never comes here; dropping it would tell the peer 403.
    let Channel::Flow(peer) = channel else { return };
    let datagram_max = u32::try_from(peer.bytes_max()).unwrap_or(u32::MAX);
    match answer.opened(info(protocol, path, datagram_max)).await {
        Ok(PluginEnd::Flow(plugin)) => flow::carry(plugin, peer, pulse, forbidden).await,
        Ok(PluginEnd::Stream(_)) | Err(_) => peer.close(Some(EndCode::PLUGIN_GONE)),
    }
}

fn info(
    protocol: p2pos_identity::ProtocolName,
    path: Option<p2pos_node::PathInfo>,
    datagram_max: u32,
) -> OpenedInfo {
    OpenedInfo { protocol, path: path.map_or(PathKind::Unknown, |path| words::path(path.kind)), datagram_max }
}
