//! Where the sockets and the relay's hands meet: batches go to the [`Forwarder`], runs come back to be sent, and one task for
//! each family waits when a socket is full.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
};

use noq_udp::Transmit;
use p2pos_relay::Service;

use crate::{
    forward::{Backlog, Forwarder, Outlet},
    mux::routes::Origin,
};

use super::{Shared, is_sendable, lock, now, sender::send_run};

impl Outlet for Shared {
    fn send_run(&self, to: SocketAddr, stride: usize, run: &[u8]) -> usize {
        let Some(family) = self.family_for(to.ip()).filter(|_| is_sendable(to)) else {
            self.counters.unsendable.count();
            return run.len();
        };
        let segment_size = (run.len() > stride).then_some(stride);
        let src_ip = lock(&self.doors).of(to);
        send_run(&family, &Transmit { destination: to, ecn: None, contents: run, segment_size, src_ip })
    }
}

impl Shared {
    pub(crate) fn set_forwarder(&self, service: Service) -> Option<Arc<Forwarder>> {
        let forwarder = Arc::new(Forwarder::new(service));
        self.forwarder.set(forwarder.clone()).is_ok().then_some(forwarder)
    }

    pub(super) fn forwarder(&self) -> Option<&Arc<Forwarder>> {
        self.forwarder.get()
    }

    /// Notes that a remote spoke to our address `at`.
    pub(super) fn note_door(&self, from: SocketAddr, at: Option<IpAddr>) {
        if let Some(at) = at {
            lock(&self.doors).note(from, at);
        }
    }

    /// Sends on what others want forwarded, which came to `at` of ours; how many bytes of the batch are left, at its front.
    pub(super) fn forward_batch(
        self: &Arc<Self>,
        (from, at): (SocketAddr, Option<IpAddr>),
        stride: usize,
        batch: &mut [u8],
    ) -> usize {
        let Some(forwarder) = self.forwarder() else { return batch.len() };
        if !batch.chunks(stride.max(1)).any(|datagram| datagram[0] == p2pos_relay::FIRST_BYTE) {
            return batch.len();
        }
        self.note_door(from, at);
        let has_flows = self.routes().has_flows();
        let is_ours = |frame: &[u8]| {
            let flow = has_flows.then(|| self.flow_of(Origin::Udp(from), frame)).flatten();
            flow.is_some_and(|flow| flow.recognises(frame))
        };
        let (left, backlog) = forwarder.take_batch(&**self, (from, now()), (batch, stride), is_ours);
        self.flush_later(backlog);
        left
    }

    /// Sends on a frame that a user sent by TCP; whether we are a relay at all.
    pub(super) fn forward_from_line(self: &Arc<Self>, line: u64, frame: &[u8]) -> bool {
        let Some(forwarder) = self.forwarder() else { return false };
        let backlog = forwarder.take_from_line(&**self, (line, now()), &mut frame.to_vec());
        self.flush_later(backlog);
        true
    }

    fn flush_later(self: &Arc<Self>, backlog: Backlog) {
        for (is_v4, has_some) in [(true, backlog.v4), (false, backlog.v6)] {
            let flushing = &self.flushing[usize::from(!is_v4)];
            if has_some && !flushing.swap(true, Ordering::SeqCst) {
                tokio::spawn(flush(self.clone(), is_v4));
            }
        }
    }
}

/// Sends what waits for a family's socket whenever that has room, until nothing waits.
async fn flush(shared: Arc<Shared>, is_v4: bool) {
    while let Some(forwarder) = shared.forwarder() {
        let family = {
            let families = shared.families();
            if is_v4 { families.v4.clone() } else { families.v6.clone() }
        };
        // Without a socket, or with one that was just replaced, the next try says what becomes of the frames.
        if let Some(family) = family
            && let Err(error) = family.writable().await
        {
            tracing::trace!(%error, "a full socket was replaced");
        }
        let flushing = &shared.flushing[usize::from(!is_v4)];
        if forwarder.send_waiting(&*shared, is_v4) {
            continue;
        }
        flushing.store(false, Ordering::SeqCst);
        // Frames that came since the look above found this task awake, and waked nobody.
        if !forwarder.is_waiting(is_v4) || flushing.swap(true, Ordering::SeqCst) {
            return;
        }
    }
}
