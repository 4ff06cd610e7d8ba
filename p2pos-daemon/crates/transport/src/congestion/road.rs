//! Tests of the machine on a simulated road: flows that share a slow hop with a queue, in virtual time.
//!
//! A flow that takes every loss for congestion is CUBIC as everybody has it, and the one to be fair to.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use super::machine::{Acked, Machine};

const MS: Duration = Duration::from_millis(1);
const PACKET: u64 = 1_500;
/// 100 Mbit/s.
const RATE: f64 = 12_500_000.0;
const ROUND_TRIP: Duration = Duration::from_millis(40);
/// One bandwidth-delay product.
const PRODUCT: u64 = 500_000;

struct Flow {
    machine: Machine,
    /// Whether every loss is taken for congestion.
    is_plain_cubic: bool,
    begins: Duration,
    in_flight: u64,
    smoothed: Duration,
    best: Duration,
    may_send_at: Duration,
    is_waiting: bool,
    delivered: u64,
    lost: u64,
}

impl Flow {
    fn new(is_plain_cubic: bool, begins: Duration) -> Self {
        let machine = Machine::new(14_720, 1_500);
        let (smoothed, best) = (100 * MS, Duration::MAX);
        Self {
            machine,
            is_plain_cubic,
            begins,
            in_flight: 0,
            smoothed,
            best,
            may_send_at: begins,
            is_waiting: false,
            delivered: 0,
            lost: 0,
        }
    }

    fn ours() -> Self {
        Self::new(false, Duration::ZERO)
    }

    fn cubic() -> Self {
        Self::new(true, Duration::ZERO)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    MaySend { flow: usize },
    Acked { flow: usize, sent: Duration, held: Duration },
    Lost { flow: usize, sent: Duration },
}

struct Road {
    queue_bytes: u64,
    loss: f64,
    seed: u64,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    count: u64,
    free_at: Duration,
    start: Instant,
}

impl Road {
    fn new(queue_bytes: u64, loss: f64, seed: u64) -> Self {
        println!("queue {queue_bytes}, loss {loss}, seed {seed}");
        let (events, start) = (BinaryHeap::new(), Instant::now());
        Self { queue_bytes, loss, seed, events, count: 0, free_at: Duration::ZERO, start }
    }

    /// Lets the flows run, and gives for each what arrived after `skip`, as part of what the road can carry.
    fn run(&mut self, flows: &mut [Flow], time: Duration, skip: Duration) -> Vec<f64> {
        for (flow, begins) in flows.iter().map(|flow| flow.begins).enumerate() {
            self.at(begins, Event::MaySend { flow });
        }
        let mut before = vec![0; flows.len()];
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            if now > time {
                break;
            }
            if now < skip {
                before = flows.iter().map(|flow| flow.delivered).collect();
            }
            self.happen(flows, now, event);
        }
        let capacity = RATE * (time - skip).as_secs_f64();
        flows.iter().zip(before).map(|(flow, before)| (flow.delivered - before) as f64 / capacity).collect()
    }

    fn happen(&mut self, flows: &mut [Flow], now: Duration, event: Event) {
        let index = match event {
            Event::MaySend { flow } | Event::Acked { flow, .. } | Event::Lost { flow, .. } => flow,
        };
        let flow = &mut flows[index];
        match event {
            Event::MaySend { .. } => flow.is_waiting = false,
            Event::Acked { sent, held, .. } => {
                let took = now - sent - held;
                flow.in_flight -= PACKET;
                flow.delivered += PACKET;
                flow.best = flow.best.min(took);
                flow.smoothed = if flow.delivered == PACKET { took } else { (flow.smoothed * 7 + took) / 8 };
                flow.machine.handle_acked(Acked {
                    now: self.start + now,
                    sent: self.start + sent,
                    bytes: PACKET,
                    is_limited_by_application: false,
                    smoothed: flow.smoothed,
                    best: flow.best,
                });
            }
            Event::Lost { sent, .. } => {
                flow.in_flight -= PACKET;
                flow.lost += 1;
                flow.machine.handle_lost();
                let (now, sent) = (self.start + now, self.start + sent);
                if flow.is_plain_cubic {
                    flow.machine.handle_congestion_mark(now, sent);
                } else {
                    flow.machine.handle_loss_event(now, sent, flow.best);
                }
            }
        }
        while flow.in_flight + PACKET <= flow.machine.window() && flow.may_send_at <= now {
            self.send(flow, index, now);
        }
        if flow.in_flight + PACKET <= flow.machine.window() && !flow.is_waiting {
            flow.is_waiting = true;
            self.at(flow.may_send_at, Event::MaySend { flow: index });
        }
    }

    fn send(&mut self, flow: &mut Flow, index: usize, now: Duration) {
        flow.in_flight += PACKET;
        // Paced as noq does it: a quarter faster than one window each round trip.
        let pace = flow.machine.window() as f64 * 1.25 / flow.smoothed.as_secs_f64();
        flow.may_send_at = flow.may_send_at.max(now - MS.min(now))
            + Duration::from_secs_f64(PACKET as f64 / pace * (0.5 + self.chance()));
        let waiting = self.free_at.saturating_sub(now).as_secs_f64() * RATE;
        let is_lost = self.chance() < self.loss;
        if waiting + PACKET as f64 > self.queue_bytes as f64 + PACKET as f64 || is_lost {
            // Noticed when the packets behind it are acknowledged.
            let queued = self.free_at.saturating_sub(now);
            self.at(now + queued + ROUND_TRIP + MS, Event::Lost { flow: index, sent: now });
            return;
        }
        self.free_at = self.free_at.max(now) + Duration::from_secs_f64(PACKET as f64 / RATE);
        // A receiver holds back the acknowledgement of few packets, in the hope of more.
        let held = if flow.in_flight < 10 * PACKET { 25 * MS } else { Duration::ZERO };
        self.at(self.free_at + ROUND_TRIP + held, Event::Acked { flow: index, sent: now, held });
    }

    fn at(&mut self, time: Duration, event: Event) {
        self.count += 1;
        self.events.push(Reverse((time, self.count, event)));
    }

    fn chance(&mut self) -> f64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

const S: Duration = Duration::from_secs(1);

#[test]
fn alone_it_fills_the_road_whatever_the_queue() {
    for queue in [PRODUCT / 10, PRODUCT / 2, PRODUCT, 4 * PRODUCT] {
        let used = Road::new(queue, 0.0, 1).run(&mut [Flow::ours()], 30 * S, 2 * S)[0];
        println!("used {used:.2}");
        assert!(used > 0.85, "it used {used:.2} of the road with a queue of {queue}");
    }
}

#[test]
fn losses_without_a_queue_cost_no_more_than_the_lost() {
    for (loss, least) in [(0.001, 0.9), (0.01, 0.7), (0.02, 0.5)] {
        for seed in 1..4 {
            let used = Road::new(PRODUCT, loss, seed).run(&mut [Flow::ours()], 20 * S, 2 * S)[0];
            let plain = Road::new(PRODUCT, loss, seed).run(&mut [Flow::cubic()], 20 * S, 2 * S)[0];
            println!("used {used:.2}, plain {plain:.2}");
            assert!(used > least, "it used {used:.2} of the road at a loss of {loss}");
            assert!(plain < used / 3.0);
        }
    }
}

#[test]
fn beside_a_cubic_flow_both_get_their_share() {
    let together = (Duration::ZERO, Duration::ZERO);
    let orders = [(PRODUCT / 2, (2 * S, Duration::ZERO)), (PRODUCT, (2 * S, Duration::ZERO))];
    let orders = orders
        .into_iter()
        .chain([(PRODUCT / 2, (Duration::ZERO, 2 * S)), (PRODUCT, (Duration::ZERO, 2 * S))]);
    // With a very long queue a CUBIC flow that comes late waits longer than this test for its share, beside its own kind too.
    let queues = [PRODUCT / 2, PRODUCT, 4 * PRODUCT].map(|queue| (queue, together));
    for (queue, (ours, cubic)) in orders.chain(queues) {
        let mut flows = [Flow::new(false, ours), Flow::new(true, cubic)];
        let used = Road::new(queue, 0.0, 1).run(&mut flows, 90 * S, 20 * S);
        let share = used[0] / (used[0] + used[1]);
        println!("share {share:.2} of {:.2}", used[0] + used[1]);
        assert!((0.35..0.65).contains(&share), "its share is {share:.2} with a queue of {queue}");
        assert!(used[0] + used[1] > 0.85);
    }
}

#[test]
fn two_of_its_kind_get_equal_shares() {
    for begins in [Duration::ZERO, 3 * S] {
        let mut flows = [Flow::ours(), Flow::new(false, begins)];
        let used = Road::new(PRODUCT, 0.0, 1).run(&mut flows, 90 * S, 20 * S);
        let share = used[0] / (used[0] + used[1]);
        println!("share {share:.2}");
        assert!((0.35..0.65).contains(&share), "the first one's share is {share:.2}");
    }
}

#[test]
fn a_short_queue_is_not_flooded_for_long() {
    let mut flows = [Flow::ours()];
    let used = Road::new(PRODUCT / 20, 0.0, 1).run(&mut flows, 30 * S, 2 * S)[0];
    let lost = flows[0].lost as f64 / (flows[0].delivered / PRODUCT.min(PACKET)) as f64;
    println!("used {used:.2}, lost {lost:.3}");
    assert!(lost < 0.05, "{lost:.3} of the packets were lost");
}
