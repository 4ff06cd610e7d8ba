//! A peer asks for a protocol that a plugin here serves: the way in.
//!
//! What came behind the peer's hello goes to the plugin behind the question, and need not wait for its answer: a reply can
//! come back together with it.

use std::{future::pending, pin::pin};

use p2pos_host::{Host, Offer, OfferAnswer, Offered, OfferedEnd, PathKind, PluginEnd, Refusal};
use p2pos_node::{Channel, EndCode, Incoming};

use super::{
    flow,
    pump::{self, Inbound, Outbound},
    words,
};
use crate::vigil::Pulse;

/// Largest datagram payload that every path of ours carries, bytes: QUIC's smallest packet (1,200) less its overhead. What
/// the path really carries is known to the opener; the accepting plugin may send this much from the first moment.
const DATAGRAM_BYTES_SAFE: u32 = 1_100;

/// Offers the peer's stream to the plugins and carries it if one takes it. Runs as a task of its own.
pub(super) async fn serve(host: Host, mut incoming: Incoming, petname: Option<String>, pulse: Pulse) {
    pulse.beat();
    let Offered { protocol, answer, mut end } = match host.ask(offer(&incoming, petname)).await {
        Ok(offered) => offered,
        Err(refusal) => return incoming.refuse(words::refusal(&refusal)),
    };
    let mut inbound = Inbound::new(pulse.clone());
    if let Err(refusal) = wait_and_carry(answer, &mut end, (&mut incoming, &mut inbound)).await {
        return incoming.refuse(words::refusal(&refusal));
    }
    // Two daemons and two plugins with sockets of their own to connect: at the same time, not one behind the other.
    match tokio::join!(end.accepted(), incoming.accept(protocol)) {
        (Ok(PluginEnd::Stream(plugin)), Ok(Channel::Stream(stream))) => {
            pump::pump(plugin, Outbound::new(stream.send, pulse), (stream.recv, inbound), pending()).await;
        }
        (Ok(PluginEnd::Flow(plugin)), Ok(Channel::Flow(peer))) => {
            flow::carry(plugin, peer, &pulse, pending()).await;
        }
        // One of the two has gone meanwhile: dropping the other's end tells it.
        (_, Err(_)) | (Err(_), Ok(_)) => {}
        // The host answers in the kind it was asked for; were it otherwise, dropping both ends tells both sides.
        (Ok(PluginEnd::Stream(_)), Ok(Channel::Flow(peer))) => peer.close(Some(EndCode::INTERNAL)),
        (Ok(PluginEnd::Flow(_)), Ok(Channel::Stream(stream))) => drop(stream),
    }
}

fn offer(incoming: &Incoming, petname: Option<String>) -> Offer {
    let kind = words::kind_from_peer(incoming.kind());
    Offer {
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
    }
}

/// Waits for the plugin's answer and lets the peer's bytes go meanwhile.
async fn wait_and_carry(
    answer: OfferAnswer,
    end: &mut OfferedEnd,
    (incoming, inbound): (&mut Incoming, &mut Inbound),
) -> Result<(), Refusal> {
    let mut answered = pin!(answer.wait());
    let (Some(recv), Some(writer)) = (incoming.early(), end.early_writer()) else { return answered.await };
    tokio::select! {
        biased;
        answered = &mut answered => answered,
        // The peer has said all that it has to say, or has given up; how that went is told when the stream is joined.
        _ = inbound.run(recv, writer) => answered.await,
    }
}
