//! One datagram flow between a plugin and a peer. Nothing waits for anybody here: what does not fit is dropped, oldest
//! first, and counted where it is dropped.

use std::pin::pin;

use p2pos_host::{Code, End, Ended, PluginFlow};
use p2pos_node::{Flow, FlowEnd, Lost, SendDatagramError};
use tracing::debug;

use super::words::{end_from_peer, end_to_peer};
use crate::vigil::Pulse;

/// Carries datagrams both ways until either side ends the flow.
///
/// `forbidden` comes when it must not go on: then, for both sides, the path is lost.
pub(super) async fn carry(
    plugin: PluginFlow,
    peer: Flow,
    pulse: &Pulse,
    forbidden: impl Future<Output = ()>,
) {
    let (reader, writer, closer) = plugin.split();
    let mut forbidden = pin!(forbidden);
    let ended = loop {
        pulse.beat();
        tokio::select! {
            () = &mut forbidden => {
                let lost = End::new(Code::PATH_LOST);
                peer.close(Some(end_to_peer(lost)));
                break Ended::ResetByRemote(lost);
            }
            datagram = reader.recv() => match datagram {
                Ok(datagram) => match peer.send(&datagram) {
                    Ok(()) => {}
                    Err(SendDatagramError::TooBig { size, max }) => writer.too_big(size, max),
                    Err(SendDatagramError::Ended(lost)) => break path_lost(&lost),
                },
                Err(end) => {
                    peer.close(Some(end_to_peer(end)));
                    return closer.close(Ended::ResetByPlugin(end));
                }
            },
            datagram = peer.recv() => match datagram {
                Some(datagram) => if let Err(end) = writer.send(datagram) {
                    peer.close(Some(end_to_peer(end)));
                    return closer.close(Ended::ResetByPlugin(end));
                },
                None => break match peer.ended().await {
                    FlowEnd::Finished => Ended::Finished,
                    FlowEnd::Reset(code) => Ended::ResetByRemote(end_from_peer(code)),
                    FlowEnd::Lost(lost) => path_lost(&lost),
                },
            },
        }
    };
    closer.close(ended);
}

fn path_lost(lost: &Lost) -> Ended {
    debug!(?lost, "the peer of a datagram flow is gone");
    Ended::ResetByRemote(End::new(Code::PATH_LOST))
}
