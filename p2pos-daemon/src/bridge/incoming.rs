//! A peer asks for a protocol that a plugin here serves: the way in.

use p2pos_host::{Accepted, Host, Offer, PathKind, PluginEnd};
use p2pos_node::{Channel, EndCode, Incoming};

use super::{
    flow,
    pump::{self, Outbound},
    words,
};

/// Largest datagram payload that every path of ours carries, bytes: QUIC's smallest packet (1,200) less its overhead. What
/// the path really carries is known to the opener; the accepting plugin may send this much from the first moment.
const DATAGRAM_BYTES_SAFE: u32 = 1_100;

/// Offers the peer's stream to the plugins and carries it if one takes it. Runs as a task of its own.
pub(super) async fn serve(host: Host, incoming: Incoming, petname: Option<String>) {
    let kind = words::kind_from_peer(incoming.kind());
    let offer = Offer {
        peer: incoming.peer(),
        is_contact: petname.is_some(),
        petname,
        protocols: incoming.protocols().to_vec(),
        kind,
        path: incoming.path().map_or(PathKind::Unknown, |path| words::path(path.kind)),
        datagram_max: match kind {
            p2pos_host::Kind::Stream => 0,
            p2pos_host::Kind::Datagram => DATAGRAM_BYTES_SAFE,
        },
    };
    let Accepted { protocol, end } = match host.offer(offer).await {
        Ok(accepted) => accepted,
        Err(refusal) => return incoming.refuse(words::refusal(&refusal)),
    };
    match (end, incoming.accept(protocol).await) {
        (PluginEnd::Stream(plugin), Ok(Channel::Stream(stream))) => {
            pump::pump(plugin, Outbound::new(stream.send), stream.recv).await;
        }
        (PluginEnd::Flow(plugin), Ok(Channel::Flow(peer))) => flow::carry(plugin, peer).await,
        // The peer has gone while the plugin made up its mind: dropping the plugin's end tells it 404.
        (_, Err(_)) => {}
        // The host answers in the kind it was asked for; were it otherwise, dropping both ends tells both sides.
        (PluginEnd::Stream(_), Ok(Channel::Flow(peer))) => peer.close(Some(EndCode::INTERNAL)),
        (PluginEnd::Flow(_), Ok(Channel::Stream(stream))) => drop(stream),
    }
}
