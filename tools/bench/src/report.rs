//! The order of a run, the medians, the ratios and the budgets they are held against.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::{
    crowd, far,
    place::Place,
    processes::{self, Serving},
    relaying, sdks,
    systems::p2pos::Pair,
    work::Measured,
};

#[derive(Args)]
pub struct Options {
    /// How often each system does each job; the systems take turns.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// One JSON document on stdout instead of tables.
    #[arg(long)]
    json: bool,
    /// Only these jobs, by name.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Only these systems, by name.
    #[arg(long, value_delimiter = ',')]
    pub systems: Vec<String>,
    /// The p2pos binary, built in release mode.
    #[arg(long)]
    pub p2pos: PathBuf,
}

/// Those of them that the design has budgets for.
const OURS: [&str; 2] = ["p2pos", "p2pos-detached"];
const SYSTEMS: [&str; 6] = ["p2pos", "p2pos-detached", "iroh", "libp2p", "tcp", "chain"];

/// Name, amount (seconds for bulk, else a count), what a larger figure means, unit.
struct JobKind {
    name: &'static str,
    amount: &'static str,
    unit: &'static str,
}

const JOBS: [JobKind; 7] = [
    JobKind { name: "bulk", amount: "3", unit: "MiB/s" },
    JobKind { name: "round-trip", amount: "10000", unit: "us (p50)" },
    JobKind { name: "messages-batched", amount: "3000000", unit: "messages/s" },
    JobKind { name: "messages-flushed", amount: "500000", unit: "messages/s" },
    JobKind { name: "open", amount: "2000", unit: "us (p50)" },
    JobKind { name: "connect", amount: "30", unit: "us (p50)" },
    JobKind { name: "connect-first", amount: "1", unit: "us" },
];

/// What a daemon without plugins costs, and how soon it is there.
const IDLE_JOBS: [(&str, &str); 4] = [
    ("start-up", "ms to ready"),
    ("command-line", "ms for `p2pos status`"),
    ("idle-memory", "MiB resident"),
    ("idle-wakeups", "wake-ups/s"),
];

/// How long an idle process is watched.
const IDLE_WATCH: Duration = Duration::from_secs(10);
/// Idle processes are left alone this long first: start-up work is not idling, and looking for routers that map ports takes 8 s.
const IDLE_SETTLE: Duration = Duration::from_secs(12);

/// A line of the design's budget table.
pub struct Budget {
    pub job: &'static str,
    /// Compared with this system, or with nothing: then the limit is absolute.
    pub beside: Option<&'static str>,
    pub limit: f64,
    pub more_is_better: bool,
}

const BUDGETS: [Budget; 16] = [
    Budget { job: "bulk", beside: Some("iroh"), limit: 1.1, more_is_better: true },
    Budget { job: "round-trip", beside: Some("iroh"), limit: 1.6, more_is_better: false },
    Budget { job: "messages-batched", beside: None, limit: 3e6, more_is_better: true },
    Budget { job: "messages-flushed", beside: None, limit: 5e5, more_is_better: true },
    Budget { job: "open", beside: Some("iroh"), limit: 1.8, more_is_better: false },
    Budget { job: "connect", beside: Some("iroh"), limit: 1.0, more_is_better: false },
    Budget { job: "connect-first", beside: Some("iroh"), limit: 1.0, more_is_better: false },
    Budget { job: "wire", beside: Some("iroh"), limit: 4.0, more_is_better: true },
    Budget { job: "wire-loss-0.1%", beside: Some("iroh"), limit: 10.0, more_is_better: true },
    Budget { job: "wire-loss-1%", beside: Some("iroh"), limit: 10.0, more_is_better: true },
    Budget { job: "fairness-skew", beside: None, limit: 15.0, more_is_better: false },
    Budget { job: "idle-connections", beside: Some("iroh"), limit: 0.75, more_is_better: false },
    Budget { job: "start-up", beside: None, limit: 100.0, more_is_better: false },
    Budget { job: "command-line", beside: None, limit: 15.0, more_is_better: false },
    Budget { job: "idle-memory", beside: None, limit: 12.0, more_is_better: false },
    Budget { job: "idle-wakeups", beside: None, limit: 1.0, more_is_better: false },
];

pub type Samples = BTreeMap<(String, String), Vec<f64>>;

/// Runs everything asked for and prints the report.
pub fn run(options: &Options) -> Result<()> {
    let mut samples = Samples::new();
    for round in 0..options.rounds {
        for job in &JOBS {
            if !wanted(&options.only, job.name) {
                continue;
            }
            for turn in 0..SYSTEMS.len() {
                let system = SYSTEMS[(turn + round) % SYSTEMS.len()];
                if !wanted(&options.systems, system) {
                    continue;
                }
                eprint!("\rround {} of {}: {} {}          ", round + 1, options.rounds, job.name, system);
                match measure(options, system, job) {
                    Ok(measured) => {
                        push(&mut samples, job.name, system, measured.value);
                        if let Some(p99) = measured.p99 {
                            push(&mut samples, &format!("{} p99", job.name), system, p99);
                        }
                    }
                    Err(error) => failed(job.name, system, &error),
                }
            }
        }
        crowd::run(options, &mut samples)?;
        far::run(options, &mut samples, round)?;
        relaying::run(options, &mut samples, round);
        sdks::run(options, &mut samples, round);
        if wanted(&options.only, "idle") {
            eprint!("\rround {} of {}: idle                    ", round + 1, options.rounds);
            idle(options, &mut samples)?;
        }
    }
    eprintln!();
    print(options, &samples)?;
    let failed = FAILED.load(Ordering::Relaxed);
    ensure!(failed == 0, "{failed} measurements failed, see above: the report lacks them");
    Ok(())
}

/// Measurements that gave an error instead of a figure.
static FAILED: AtomicUsize = AtomicUsize::new(0);

/// Tells of one; the others go on.
pub fn failed(job: &str, system: &str, error: &anyhow::Error) {
    FAILED.fetch_add(1, Ordering::Relaxed);
    eprintln!("\n{job} {system}: {error:#}");
}

pub fn wanted(list: &[String], name: &str) -> bool {
    list.is_empty()
        || list.iter().any(|entry| {
            name.strip_prefix(entry.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        })
}

pub fn push(samples: &mut Samples, job: &str, system: &str, value: f64) {
    samples.entry((job.to_owned(), system.to_owned())).or_default().push(value);
}

fn measure(options: &Options, system: &str, job: &JobKind) -> Result<Measured> {
    let mut kept = Vec::new();
    let target = match system {
        "p2pos" | "p2pos-detached" => {
            return Pair::start(&options.p2pos)?.drive(system, &[job.name, job.amount]);
        }
        "chain" => {
            let server = Serving::start(&["serve", "tcp"])?;
            let far = Serving::start(&["proxy", &server.target])?;
            let near = Serving::start(&["proxy", &far.target])?;
            let target = near.target.clone();
            kept.extend([server, far, near]);
            target
        }
        direct => {
            let server = Serving::start(&["serve", direct])?;
            let target = server.target.clone();
            kept.push(server);
            target
        }
    };
    drive(&Place::here(), system, &target, &[job.name, job.amount])
}

/// Has a process at `place` drive a job against a serving end.
pub fn drive(place: &Place, system: &str, target: &str, order: &[&str]) -> Result<Measured> {
    let mut command = place.command(std::env::current_exe()?);
    command.args(["--ip", &place.ip.to_string(), "drive", system, target]).args(order);
    let out = processes::output(command)?;
    serde_json::from_str(out.trim()).with_context(|| format!("{system} printed {out:?}"))
}

fn idle(options: &Options, samples: &mut Samples) -> Result<()> {
    let pair = Pair::start(&options.p2pos)?;
    for _ in 0..5 {
        push(samples, "command-line", "p2pos", pair.time_status()?.as_secs_f64() * 1e3);
    }
    drop(pair);
    let alone = Pair::start_alone(&options.p2pos)?;
    push(samples, "start-up", "p2pos", alone.ready_after().as_secs_f64() * 1e3);
    watch_idle(samples, "p2pos", alone.pid())?;
    drop(alone);
    let iroh = Serving::start(&["serve", "iroh"])?;
    push(samples, "start-up", "iroh", iroh.ready_after.as_secs_f64() * 1e3);
    watch_idle(samples, "iroh", iroh.pid())
}

fn watch_idle(samples: &mut Samples, system: &str, pid: u32) -> Result<()> {
    std::thread::sleep(IDLE_SETTLE);
    let before = processes::Wakeups::of(pid)?;
    std::thread::sleep(IDLE_WATCH);
    let woken = processes::Wakeups::of(pid)?.since(&before);
    push(samples, "idle-wakeups", system, woken / IDLE_WATCH.as_secs_f64());
    push(samples, "idle-memory", system, processes::resident_kib(pid)? / 1024.0);
    Ok(())
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    rounds: usize,
    medians: Vec<Median>,
    budgets: Vec<Verdict>,
}

#[derive(Serialize)]
struct Median {
    job: String,
    system: String,
    unit: String,
    median: f64,
    min: f64,
    max: f64,
    samples: usize,
}

#[derive(Serialize)]
struct Verdict {
    job: &'static str,
    system: String,
    beside: Option<&'static str>,
    measured: f64,
    limit: f64,
    is_met: bool,
}

fn print(options: &Options, samples: &Samples) -> Result<()> {
    let medians: Vec<Median> =
        samples.iter().map(|((job, system), values)| summarise(job, system, values)).collect();
    let budgets = verdicts(&medians);
    if options.json {
        let report = Report { schema: "p2pos.bench/1", rounds: options.rounds, medians, budgets };
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!("{:<26}{:<21}{:>14}{:>14}{:>14}  unit", "job", "system", "median", "min", "max");
    for m in &medians {
        println!("{:<26}{:<21}{:>14.2}{:>14.2}{:>14.2}  {}", m.job, m.system, m.median, m.min, m.max, m.unit);
    }
    println!("\n{:<26}{:<21}{:<15}{:>14}{:>14}", "budget", "system", "beside", "measured", "limit");
    for v in &budgets {
        let word = if v.is_met { "met" } else { "MISSED" };
        let beside = v.beside.unwrap_or("-");
        println!("{:<26}{:<21}{:<15}{:>14.2}{:>14.2}  {word}", v.job, v.system, beside, v.measured, v.limit);
    }
    Ok(())
}

fn summarise(job: &str, system: &str, values: &[f64]) -> Median {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let base = job.trim_end_matches(" p99");
    let unit = JOBS
        .iter()
        .map(|kind| (kind.name, kind.unit))
        .chain(IDLE_JOBS)
        .chain(far::UNITS)
        .chain(crowd::UNITS)
        .chain(relaying::UNITS)
        .chain(sdks::UNITS)
        .find(|(name, _)| *name == base);
    Median {
        job: job.to_owned(),
        system: system.to_owned(),
        unit: unit.map_or("", |(_, unit)| unit).replace("p50", if job == base { "p50" } else { "p99" }),
        median: sorted[sorted.len() / 2],
        min: sorted[0],
        max: sorted[sorted.len() - 1],
        samples: sorted.len(),
    }
}

fn verdicts(medians: &[Median]) -> Vec<Verdict> {
    let of = |job: &str, system: &str| {
        medians.iter().find(|m| m.job == job && m.system == system).map(|m| m.median)
    };
    let mut verdicts = Vec::new();
    let all: [(&[Budget], &[&str]); 4] = [
        (&BUDGETS, &OURS),
        (&relaying::BUDGETS, &OURS),
        (&sdks::BUDGETS, &sdks::SYSTEMS),
        (&sdks::PYTHON_BUDGETS, &sdks::PYTHON_DETACHED),
    ];
    for (budget, systems) in
        all.iter().flat_map(|(budgets, systems)| budgets.iter().map(move |budget| (budget, systems)))
    {
        for &system in *systems {
            let Some(ours) = of(budget.job, system) else { continue };
            let base = match budget.beside {
                None => 1.0,
                Some(other) => match of(budget.job, other) {
                    Some(theirs) => theirs,
                    None => continue,
                },
            };
            let measured = ours / base;
            let is_met =
                if budget.more_is_better { measured >= budget.limit } else { measured <= budget.limit };
            let (job, beside, limit) = (budget.job, budget.beside, budget.limit);
            verdicts.push(Verdict { job, system: system.to_owned(), beside, measured, limit, is_met });
        }
    }
    verdicts
}
