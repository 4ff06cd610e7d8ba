//! Jobs over a wire: bulk over 40 ms with and without loss, and a bottleneck shared with a TCP flow.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use p2pos_natlab::wire::Link;

use crate::{
    place::Stretch,
    processes::Serving,
    report::{Options, Samples, drive, push, wanted},
    systems::p2pos::Pair,
    work::Measured,
};

/// One way; the round trip is 40 ms.
const DELAY: Duration = Duration::from_millis(20);
/// Name, and part of the packets lost in each direction.
const WIRES: [(&str, f64); 3] = [("wire", 0.0), ("wire-loss-0.1%", 0.001), ("wire-loss-1%", 0.01)];
const WIRE_SYSTEMS: [&str; 3] = ["p2pos", "p2pos-detached", "iroh"];
/// Seconds of one run; all of it counts, a start is part of a transfer.
const WIRE_SECONDS: f64 = 8.0;

const FAIRNESS_SYSTEMS: [&str; 2] = ["p2pos", "iroh"];
/// 100 Mbit/s, and a queue of one bandwidth-delay product.
const BOTTLENECK_BITS_PER_S: u64 = 100_000_000;
const BOTTLENECK_QUEUE_BYTES: u64 = 500_000;
/// Seconds of one run, and of its beginning that does not count.
const FAIRNESS_SECONDS: f64 = 40.0;
const FAIRNESS_SKIP: f64 = 10.0;
/// Both flows begin together, so long after the first process was started: whoever comes late to a CUBIC flow waits half a minute for
/// its share, whatever it is.
const FAIRNESS_BEGINS: Duration = Duration::from_secs(5);

/// Units for the report.
pub const UNITS: [(&str, &str); 6] = [
    ("wire", "MiB/s, 40 ms"),
    ("wire-loss-0.1%", "MiB/s, 40 ms"),
    ("wire-loss-1%", "MiB/s, 40 ms"),
    ("fairness", "% of the two flows' bytes"),
    ("fairness-skew", "points from one half"),
    ("fairness-used", "% of the bottleneck"),
];

/// One round of all the jobs asked for.
pub fn run(options: &Options, samples: &mut Samples, round: usize) -> Result<()> {
    let plan = Plan { at_ms: 0, seconds: WIRE_SECONDS, skip: 0.0 };
    for (job, loss) in WIRES.into_iter().filter(|(job, _)| wanted(&options.only, job)) {
        for turn in 0..WIRE_SYSTEMS.len() {
            let system = WIRE_SYSTEMS[(turn + round) % WIRE_SYSTEMS.len()];
            if wanted(&options.systems, system) {
                eprint!("\rround {}: {job} {system}          ", round + 1);
                let stretch = Stretch::new(Link::delay(DELAY).with_loss(loss), round as u64)?;
                match bulk(options, &stretch, system, plan) {
                    Ok(measured) => push(samples, job, system, measured.value),
                    Err(error) => crate::report::failed(job, system, &error),
                }
            }
        }
    }
    if wanted(&options.only, "fairness") {
        for system in FAIRNESS_SYSTEMS.into_iter().filter(|system| wanted(&options.systems, system)) {
            eprint!("\rround {}: fairness {system}          ", round + 1);
            if let Err(error) = fairness(options, samples, system, round) {
                crate::report::failed("fairness", system, &error);
            }
        }
    }
    Ok(())
}

/// When a bulk transfer begins, how long it lasts, and how much of its beginning does not count, seconds.
#[derive(Clone, Copy)]
struct Plan {
    at_ms: u64,
    seconds: f64,
    skip: f64,
}

/// MiB/s at the receiver.
fn bulk(options: &Options, stretch: &Stretch, system: &str, plan: Plan) -> Result<Measured> {
    let (amount, skip, at_ms) = (plan.seconds.to_string(), plan.skip.to_string(), plan.at_ms.to_string());
    let arguments = ["watched-bulk", &amount, &skip, "--at-ms", &at_ms];
    if system.starts_with("p2pos") {
        return Pair::start_at(&options.p2pos, &stretch.a, &stretch.b)?.drive(system, &arguments);
    }
    let server = Serving::start_at(&stretch.b, &["serve", system])?;
    drive(&stretch.a, system, &server.target, &arguments)
}

fn fairness(options: &Options, samples: &mut Samples, system: &str, round: usize) -> Result<()> {
    let link = Link::delay(DELAY).with_bottleneck(BOTTLENECK_BITS_PER_S, BOTTLENECK_QUEUE_BYTES);
    let stretch = Stretch::new(link, round as u64)?;
    let begin = SystemTime::now() + FAIRNESS_BEGINS;
    let at_ms = u64::try_from(begin.duration_since(UNIX_EPOCH)?.as_millis())?;
    let plan = Plan { at_ms, seconds: FAIRNESS_SECONDS, skip: FAIRNESS_SKIP };
    let (ours, tcp) = std::thread::scope(|scope| {
        let tcp = scope.spawn(|| bulk(options, &stretch, "tcp", plan));
        let ours = bulk(options, &stretch, system, plan);
        (ours, tcp.join())
    });
    let ours = ours?.value;
    let tcp = tcp.map_err(|_| anyhow!("the TCP flow panicked"))??.value;
    let share = 100.0 * ours / (ours + tcp);
    push(samples, "fairness", system, share);
    push(samples, "fairness-skew", system, (share - 50.0).abs());
    let capacity = BOTTLENECK_BITS_PER_S as f64 / 8.0 / f64::from(1 << 20);
    push(samples, "fairness-used", system, 100.0 * (ours + tcp) / capacity);
    Ok(())
}
