//! Congestion control: how many bytes may be in flight on a path.
//!
//! `machine` decides; here it is given noq's shape. It judges by what it sees on the path and by nothing else, so that a
//! path through a mislabelled network gets what it deserves. Decision 0013 says why it is not noq's CUBIC or BBRv3.

mod machine;
#[cfg(test)]
mod road;

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use noq::congestion::{Controller, ControllerFactory, ControllerMetrics};
use noq_proto::RttEstimator;

use self::machine::{Acked, Machine};

/// Makes a controller for each path of a connection.
#[derive(Debug)]
pub(crate) struct Doubting {
    /// Bytes that may be sent before the first acknowledgement.
    pub(crate) initial_window: u64,
}

impl ControllerFactory for Doubting {
    fn build(self: Arc<Self>, _now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Doubter {
            machine: Machine::new(self.initial_window, current_mtu),
            initial_window: self.initial_window,
            best: Duration::MAX,
        })
    }
}

/// The controller of one path.
#[derive(Debug, Clone)]
struct Doubter {
    machine: Machine,
    initial_window: u64,
    /// The path's best round trip so far.
    best: Duration,
}

impl Controller for Doubter {
    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        _pn: u64,
        is_limited_by_application: bool,
        rtt: &RttEstimator,
    ) {
        self.best = rtt.min();
        let (smoothed, best) = (rtt.get(), rtt.min());
        self.machine.handle_acked(Acked { now, sent, bytes, is_limited_by_application, smoothed, best });
    }

    fn on_packet_lost(&mut self, _lost_bytes: u16, _pn: u64, _now: Instant) {
        self.machine.handle_lost();
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        is_ecn: bool,
        _lost_bytes: u64,
        _largest_lost_pn: u64,
    ) {
        if is_persistent_congestion {
            self.machine.handle_persistent_congestion(now);
        } else if is_ecn {
            self.machine.handle_congestion_mark(now, sent);
        } else {
            self.machine.handle_loss_event(now, sent, self.best);
        }
    }

    fn on_spurious_congestion_event(&mut self) {
        self.machine.handle_losses_were_none();
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.machine.handle_packet_bytes(new_mtu);
    }

    fn window(&self) -> u64 {
        self.machine.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.machine.window();
        metrics.ssthresh = Some(self.machine.slow_start_until());
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.initial_window
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
