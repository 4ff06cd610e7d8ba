//! Ping: round trips on a stream of its own, answered by every node without a plugin.
//!
//! Eight bytes there, the same eight bytes back; the stream may be used for many. What is measured is the whole way
//! through both daemons' transports, not only the path.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use p2pos_identity::PeerId;
use p2pos_transport::{PathInfo, RecvStream, SendStream};
use tokio::time::{Instant, timeout};

use crate::{
    limits::{PING_STREAM_MAX, PONG_MAX},
    stream::PeerStream,
};

/// Bytes of one ping.
const PING_BYTES: usize = 8;

/// What a series of pings found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pings {
    /// The path they took.
    pub path: Option<PathInfo>,
    /// Who carries the path, if it goes through a relay.
    pub relay: Option<PeerId>,
    /// One round trip for each ping; `None` where no answer came in time.
    pub rtts: Vec<Option<Duration>>,
}

/// Sends `count` pings and waits for each answer.
pub(crate) async fn send_pings(stream: PeerStream, count: u32, interval: Duration) -> Vec<Option<Duration>> {
    let PeerStream { mut send, mut recv } = stream;
    let mut unread = BytesMut::new();
    let mut rtts = Vec::new();
    for number in 0..count {
        let started = Instant::now();
        let ping = Bytes::copy_from_slice(&u64::from(number).to_be_bytes());
        if send.write(ping).await.is_err() {
            break;
        }
        let pong = async {
            // Late answers to earlier pings are passed over.
            loop {
                while unread.len() < PING_BYTES {
                    unread.extend_from_slice(&recv.read_chunk().await.ok()??);
                }
                if unread.get_u64() == u64::from(number) {
                    return Some(started.elapsed());
                }
            }
        };
        rtts.push(timeout(PONG_MAX, pong).await.ok().flatten());
        if number + 1 < count {
            tokio::time::sleep_until(started + interval).await;
        }
    }
    send.finish();
    rtts.resize(count as usize, None);
    rtts
}

/// Sends back whatever comes, until the peer has finished or a very long time has passed.
pub(crate) async fn answer_pings(mut send: SendStream, mut recv: RecvStream) {
    let echo = async {
        while let Ok(Some(chunk)) = recv.read_chunk().await {
            if send.write_chunks(&mut [chunk]).await.is_err() {
                return;
            }
        }
        send.finish();
    };
    if timeout(PING_STREAM_MAX, echo).await.is_err() {
        tracing::debug!("a ping stream lasted too long");
    }
}
