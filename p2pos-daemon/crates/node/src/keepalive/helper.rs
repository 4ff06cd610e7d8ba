//! Helping others to measure their NAT: pongs and knocks, for whoever asked over the encrypted connection.
//!
//! Nobody makes us send to a third party: a knock goes where a ping with an announced token came from, or to the address of the
//! connection that the question came by. Nobody makes us send much: every peer has so many questions in ten minutes, a token
//! so many uses, and no packet is longer than the one that caused it.
//!
//! Refuses to know: what the other side learns from it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use p2pos_identity::PeerId;
use p2pos_peer_protocol::{
    Message as _,
    measure::{MeasureAnswer, MeasureQuestion},
};
use p2pos_transport::{Endpoint, PathKind, RecvStream, SendStream};
use p2pos_traversal::{
    Probe, Scope,
    keepalive::{Knocker, MEASURE_RETRY},
    scope_of,
};
use tokio::{
    net::UdpSocket,
    time::{Instant, sleep, timeout},
};

use super::now;
use crate::{hello::read_message, peer::Live};

/// Measurements that a peer may begin in [`MEASURE_RETRY`]: its own pause between two is as long; one more for a restart.
const LIFETIMES_MAX: u8 = 2;
/// Knocks that a peer may ask for in [`MEASURE_RETRY`]: three protocols at two routers, and a second look at each.
const DIAL_BACKS_MAX: u8 = 12;
/// Peers whose questions are counted at a time; beyond, nobody new is helped.
const ASKING_MAX: usize = 256;
/// Packets of one dial-back, so that two may be lost.
const KNOCKS: usize = 3;
/// The time between them.
const KNOCK_SPACING: Duration = Duration::from_millis(500);
/// How long the stream of a question is kept: the longest measurement, with the warming before and the asking after it.
const STREAM_MAX: Duration = Duration::from_secs(340);
/// How long the question may take behind the hello.
const QUESTION_WAIT: Duration = Duration::from_secs(5);

/// Helps all peers.
#[derive(Debug, Default)]
pub(crate) struct Helper {
    knocker: Mutex<Knocker>,
    asked: Mutex<BTreeMap<PeerId, Asked>>,
}

/// What a peer has asked in its present window.
#[derive(Debug, Clone, Copy)]
struct Asked {
    window_ends: Instant,
    lifetimes: u8,
    dial_backs: u8,
}

impl Helper {
    /// Answers a small packet, if somebody announced it.
    pub(crate) fn packet(&self, endpoint: &Endpoint, probe: Probe, from: SocketAddr) {
        let Some(reply) = self.knocker().handle_probe(probe, from, now()) else { return };
        for (to, probe) in std::iter::once((from, reply.answer)).chain(reply.knock) {
            if let Err(error) = endpoint.send_probe(&probe.encode(), to, None) {
                tracing::trace!(%error, "an answer to a measurement was not sent");
            }
        }
    }

    /// Serves the stream of one question, whose hello was accepted; holds it until the asker is done.
    pub(crate) async fn serve(&self, live: Arc<Live>, (mut send, mut recv): (SendStream, RecvStream)) {
        let Ok(Ok(question)) = timeout(QUESTION_WAIT, read_message::<MeasureQuestion>(&mut recv)).await
        else {
            return;
        };
        let (peer, path) = (live.connection.peer(), live.connection.path());
        let seen_at = path.filter(|path| path.kind == PathKind::Direct).map(|path| path.remote.ip());
        let knock_at = match question {
            MeasureQuestion::DialBack { port, .. } => knock_address(seen_at, port),
            MeasureQuestion::Lifetime { .. } | MeasureQuestion::Unknown => None,
        };
        let is_granted = match question {
            MeasureQuestion::Lifetime { first_token, count } => {
                let is_due = self.may(peer, |asked| (&mut asked.lifetimes, LIFETIMES_MAX));
                if is_due {
                    self.knocker().handle_announced(first_token, count, now());
                }
                is_due
            }
            MeasureQuestion::DialBack { .. } => {
                knock_at.is_some() && self.may(peer, |asked| (&mut asked.dial_backs, DIAL_BACKS_MAX))
            }
            MeasureQuestion::Unknown => false,
        };
        if send.write_chunks(&mut [MeasureAnswer { is_granted }.encode()]).await.is_err() || !is_granted {
            return send.finish();
        }
        if let (MeasureQuestion::DialBack { token, .. }, Some(to)) = (question, knock_at) {
            knock(to, token).await;
        }
        let gone = async { while let Ok(Some(_)) = recv.read_chunk().await {} };
        if timeout(STREAM_MAX, gone).await.is_err() {
            tracing::debug!("a measurement lasted too long");
        }
        send.finish();
    }

    /// Counts a question, and tells whether it is one too many.
    fn may(&self, peer: PeerId, count: impl Fn(&mut Asked) -> (&mut u8, u8)) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, asked| Instant::now() < asked.window_ends);
        if !asked.contains_key(&peer) && asked.len() >= ASKING_MAX {
            return false;
        }
        let window_ends = Instant::now() + MEASURE_RETRY;
        let asked = asked.entry(peer).or_insert(Asked { window_ends, lifetimes: 0, dial_backs: 0 });
        let (used, max) = count(asked);
        let is_left = *used < max;
        *used = used.saturating_add(1);
        is_left
    }

    fn knocker(&self) -> MutexGuard<'_, Knocker> {
        self.knocker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where to knock: at the address that the asker's own packets come from, and nowhere else; never within a private network,
/// where the knock would prove nothing.
fn knock_address(seen_at: Option<IpAddr>, port: u16) -> Option<SocketAddr> {
    let ip = seen_at.map(|ip| ip.to_canonical()).filter(|ip| scope_of(*ip) == Scope::Global)?;
    (port != 0).then_some(SocketAddr::new(ip, port))
}

/// Knocks from a socket that nobody has ever sent to.
async fn knock(to: SocketAddr, token: u64) {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let Ok(socket) = UdpSocket::bind((any, 0)).await else {
        return tracing::debug!("no socket for a knock");
    };
    for number in 0..KNOCKS {
        if number > 0 {
            sleep(KNOCK_SPACING).await;
        }
        if let Err(error) = socket.send_to(&Probe::Knock { token }.encode(), to).await {
            tracing::trace!(%error, "a knock was not sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use p2pos_identity::SecretKey;

    use super::*;

    #[test]
    fn nobody_has_us_knock_but_at_his_own_public_address() {
        let at = |ip: &str, port| knock_address(Some(ip.parse().expect("an address")), port);
        assert_eq!(at("45.0.0.7", 4_000), Some(([45, 0, 0, 7], 4_000).into()));
        assert_eq!(at("::ffff:45.0.0.7", 4_000), Some(([45, 0, 0, 7], 4_000).into()));
        for inside in ["192.168.1.7", "127.0.0.1", "10.0.0.1", "169.254.1.1", "fe80::1", "::1", "fd00::1"] {
            assert_eq!(at(inside, 4_000), None, "{inside}");
        }
        assert_eq!(at("45.0.0.7", 0), None);
        assert_eq!(knock_address(None, 4_000), None, "a relayed peer has no address of its own");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_asks_all_the_time_is_helped_twelve_times_in_ten_minutes() {
        let (helper, peer) = (Helper::default(), SecretKey::from_seed([7; 32]).peer_id());
        let ask = || helper.may(peer, |asked| (&mut asked.dial_backs, DIAL_BACKS_MAX));
        assert_eq!((0..1_000).filter(|_| ask()).count(), usize::from(DIAL_BACKS_MAX));
        assert!(
            helper.may(peer, |asked| (&mut asked.lifetimes, LIFETIMES_MAX)),
            "other questions count apart"
        );
        tokio::time::advance(MEASURE_RETRY).await;
        assert!(ask());
    }

    #[tokio::test(start_paused = true)]
    async fn peers_without_number_are_not_all_remembered() {
        let helper = Helper::default();
        let ask = |number: u16| {
            let mut seed = [9; 32];
            seed[..2].copy_from_slice(&number.to_be_bytes());
            let peer = SecretKey::from_seed(seed).peer_id();
            helper.may(peer, |asked| (&mut asked.lifetimes, LIFETIMES_MAX))
        };
        let helped = (0..300).filter(|number| ask(*number)).count();
        assert_eq!(helped, ASKING_MAX);
        assert_eq!(helper.asked.lock().expect("no panic").len(), ASKING_MAX);
    }
}
