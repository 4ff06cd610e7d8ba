//! How fast a relay is, ours and iroh's beside a bare UDP forwarder, and what its idle circuits cost.
//!
//! Three places: two ends, and the relay's machine between them, which forwards nothing by itself. `relay-bulk` is what users get: the bulk
//! job through the relay. `relay-core` is what the relay can: one processor is the forwarder's alone, on the other somebody sends more than
//! it can carry and somebody receives without looking, and what counts is what was forwarded for each second of the forwarder's processor
//! time.
//!
//! | module | what it is |
//! |---|---|
//! | `user` | users of a p2pOS relay: leases, circuits and frames by its own protocol |
//! | `iroh` | iroh's relay, and who floods it |
//! | `udp` | trains of datagrams, and the bare forwarder |

pub mod iroh;
pub mod udp;
pub mod user;

use std::{fs::File, os::unix::fs::FileExt as _, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{
    place::Between,
    processes::{self, Serving},
    report::{Budget, Options, Samples, drive, push, wanted},
    systems::p2pos::{Alone, Pair},
};

const SYSTEMS: [&str; 3] = ["p2pos", "p2pos-detached", "iroh"];
/// Who forwards a flood.
const FORWARDERS: [&str; 3] = ["p2pos", "iroh", "udp"];
/// Name, and bytes that a user wants carried in each packet: as QUIC fills them, and as a game or a voice does.
const FLOODS: [(&str, usize); 2] = [("relay-core", 1_452), ("relay-core-small", 64)];
/// Seconds of bulk.
const BULK_SECONDS: &str = "3";
/// A flood runs so long before it counts, and then so long.
const FLOOD_BEGINS: Duration = Duration::from_millis(800);
const FLOOD_LASTS: Duration = Duration::from_secs(3);
/// The forwarder's processor, and everybody else's.
const FORWARDING_CORE: usize = 0;
const FLOODING_CORE: usize = 1;
/// Callers of the idle circuits, and callees: each caller calls each callee, which is what one source may do at once.
pub const CALLERS: u16 = 640;
pub const CALLEES: u16 = 16;
/// After the last circuit was made.
const SETTLE: Duration = Duration::from_secs(3);

/// Units for the report.
pub const UNITS: [(&str, &str); 9] = [
    ("relay-bulk", "MiB/s through a relay"),
    ("relay-bulk-cpu", "relay's CPU s per GiB carried"),
    ("relay-core", "MiB carried per CPU s"),
    ("relay-core-packets", "packets per CPU s"),
    ("relay-core-load", "% of its processor used"),
    ("relay-core-small", "MiB carried per CPU s"),
    ("relay-core-small-packets", "packets per CPU s"),
    ("relay-core-small-load", "% of its processor used"),
    ("relay-circuits", "MiB resident"),
];

/// What is promised of a relay.
pub const BUDGETS: [Budget; 4] = [
    Budget { job: "relay-bulk", beside: Some("iroh"), limit: 4.0, more_is_better: true },
    Budget { job: "relay-core", beside: Some("udp"), limit: 0.6, more_is_better: true },
    Budget { job: "relay-core-small-packets", beside: Some("udp"), limit: 0.6, more_is_better: true },
    Budget { job: "relay-circuits", beside: None, limit: 200.0, more_is_better: false },
];

/// What a forwarder has sent on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forwarded {
    pub bytes: u64,
    pub packets: u64,
}

impl Forwarded {
    /// Leaves it for whoever started this process.
    pub fn write(self, to: &File) -> Result<()> {
        // Of fixed width, so that no reader ever sees a part of it, or an earlier count behind it.
        Ok(to.write_all_at(format!("{:020} {:020}", self.bytes, self.packets).as_bytes(), 0)?)
    }

    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let (bytes, packets) = text.split_once(' ').with_context(|| format!("counts are {text:?}"))?;
        Ok(Self { bytes: bytes.parse()?, packets: packets.parse()? })
    }
}

/// One round of all the jobs asked for.
pub fn run(options: &Options, samples: &mut Samples, round: usize) {
    if wanted(&options.only, "relay-bulk") {
        for turn in 0..SYSTEMS.len() {
            let system = SYSTEMS[(turn + round) % SYSTEMS.len()];
            attempt(options, ("relay-bulk", system, round), || bulk(options, samples, system));
        }
    }
    for (job, packet_bytes) in FLOODS.into_iter().filter(|(job, _)| wanted(&options.only, job)) {
        for turn in 0..FORWARDERS.len() {
            let system = FORWARDERS[(turn + round) % FORWARDERS.len()];
            attempt(options, (job, system, round), || flood(options, samples, system, (job, packet_bytes)));
        }
    }
    if wanted(&options.only, "relay-circuits") {
        attempt(options, ("relay-circuits", "p2pos", round), || circuits(options, samples));
    }
}

/// Does one job of one system, if it is wanted; one that fails is told, and the others go on.
fn attempt(options: &Options, (job, system, round): (&str, &str, usize), work: impl FnOnce() -> Result<()>) {
    if wanted(&options.systems, system) {
        eprint!("\rround {}: {job} {system}          ", round + 1);
        if let Err(error) = work() {
            crate::report::failed(job, system, &error);
        }
    }
}

/// Bulk from one end to the other through the relay, and what the relay's process used for it.
fn bulk(options: &Options, samples: &mut Samples, system: &str) -> Result<()> {
    let between = Between::new()?;
    let (measured, used, carried) = if system == "iroh" {
        let relay = Serving::start_at(&between.middle, &["relay-iroh"])?;
        let server = Serving::start_at(&between.b, &["serve", "iroh", "--relay", &relay.target])?;
        let before = processes::cpu_seconds(relay.pid())?;
        let measured = drive(&between.a, system, &server.target, &["bulk", BULK_SECONDS])?;
        (measured, processes::cpu_seconds(relay.pid())? - before, None)
    } else {
        let (pair, relay) = Pair::start_through(&options.p2pos, &between)?;
        let (before, forwarded) = (processes::cpu_seconds(relay.pid())?, relay.forwarded()?);
        let measured = pair.drive(system, &["bulk", BULK_SECONDS])?;
        let carried = relay.forwarded()?.bytes - forwarded.bytes;
        (measured, processes::cpu_seconds(relay.pid())? - before, Some(carried))
    };
    let mib = measured.value * BULK_SECONDS.parse::<f64>()?;
    if let Some(carried) = carried {
        let carried_mib = carried as f64 / f64::from(1 << 20);
        ensure!(
            carried_mib >= mib,
            "{mib:.0} MiB arrived, but only {carried_mib:.0} MiB went through the relay"
        );
    }
    push(samples, "relay-bulk", system, measured.value);
    push(samples, "relay-bulk-cpu", system, used / (mib / 1024.0));
    Ok(())
}

/// The processes of one flood. The forwarder goes last.
struct Flood {
    _flooder: Serving,
    _receiver: Option<Serving>,
    forwarder: Forwarder,
}

enum Forwarder {
    Daemon(Alone),
    Process(Serving, tempfile::NamedTempFile),
}

impl Forwarder {
    fn pid(&self) -> u32 {
        match self {
            Self::Daemon(daemon) => daemon.pid(),
            Self::Process(process, _) => process.pid(),
        }
    }

    fn forwarded(&self) -> Result<Forwarded> {
        match self {
            Self::Daemon(daemon) => daemon.forwarded(),
            Self::Process(_, counts) => Forwarded::read(counts.path()),
        }
    }
}

fn flood(
    options: &Options,
    samples: &mut Samples,
    system: &str,
    (job, packet_bytes): (&str, usize),
) -> Result<()> {
    let between = Between::new()?;
    let flood = start_flood(options, system, &between, packet_bytes)?;
    std::thread::sleep(FLOOD_BEGINS);
    let pid = flood.forwarder.pid();
    let (cpu, before) = (processes::cpu_seconds(pid)?, flood.forwarder.forwarded()?);
    std::thread::sleep(FLOOD_LASTS);
    let (used, after) = (processes::cpu_seconds(pid)? - cpu, flood.forwarder.forwarded()?);
    let packets = (after.packets - before.packets) as f64;
    ensure!(packets > 0.0 && used > 0.0, "nothing was forwarded");
    // What users wanted carried: without anybody's heads.
    push(samples, job, system, packets * packet_bytes as f64 / f64::from(1 << 20) / used);
    push(samples, &format!("{job}-packets"), system, packets / used);
    push(samples, &format!("{job}-load"), system, 100.0 * used / FLOOD_LASTS.as_secs_f64());
    Ok(())
}

fn start_flood(options: &Options, system: &str, between: &Between, packet_bytes: usize) -> Result<Flood> {
    let (a, b) = (between.a.on_core(FLOODING_CORE), between.b.on_core(FLOODING_CORE));
    let middle = between.middle.on_core(FORWARDING_CORE);
    let size = packet_bytes.to_string();
    let counts = tempfile::NamedTempFile::new()?;
    let path =
        counts.path().to_str().context("the folder for temporary files has a strange name")?.to_owned();
    let (flooder, receiver, forwarder) = match system {
        "p2pos" => {
            let relay = Alone::relay(&options.p2pos, &middle, &[])?;
            for (number, name) in [(user::CALLER, "caller"), (user::CALLEE, "callee")] {
                relay.add_contact(&user::key(number).peer_id().to_string(), name)?;
            }
            let target = relay.target_at(between.middle.ip)?;
            let callee = Serving::start_at(&b, &["relay-callee", &target])?;
            let caller = Serving::start_at(&a, &["relay-flood", &target, &callee.target, &size])?;
            (caller, Some(callee), Forwarder::Daemon(relay))
        }
        "iroh" => {
            let relay = Serving::start_at(&middle, &["relay-iroh", "--counts", &path, "--segment", &size])?;
            let receiver = Serving::start_at(&b, &["relay-iroh-receive", &relay.target])?;
            let sender =
                Serving::start_at(&a, &["relay-iroh-flood", &relay.target, &receiver.target, &size])?;
            (sender, Some(receiver), Forwarder::Process(relay, counts))
        }
        _ => {
            let sink = Serving::start_at(&b, &["udp-sink"])?;
            let forwarder = Serving::start_at(&middle, &["udp-forward", &sink.target, "--counts", &path])?;
            let sender = Serving::start_at(&a, &["udp-flood", &forwarder.target, &size])?;
            (sender, Some(sink), Forwarder::Process(forwarder, counts))
        }
    };
    Ok(Flood { _flooder: flooder, _receiver: receiver, forwarder })
}

/// The memory of a relay: for itself, with users who have no circuits, and with 10,000 idle circuits among the same users.
fn circuits(options: &Options, samples: &mut Samples) -> Result<()> {
    let between = Between::new()?;
    let count = u64::from(CALLERS) * u64::from(CALLEES);
    let flows = count.to_string();
    for (system, arguments, expected) in
        [("p2pos-no-circuits", &["--only-links"][..], 0), ("p2pos", &[][..], count)]
    {
        let settings = [("P2POS_RELAY_FLOWS", flows.as_str())];
        let relay = Alone::relay(&options.p2pos, &between.middle, &settings)?;
        for number in 1..=CALLERS + CALLEES {
            relay.add_contact(&user::key(number).peer_id().to_string(), &format!("user{number}"))?;
        }
        if expected == 0 {
            std::thread::sleep(SETTLE);
            let empty = processes::resident_kib(relay.pid())? / 1024.0;
            push(samples, "relay-circuits", "p2pos-no-users", empty);
        }
        let target = relay.target_at(between.middle.ip)?;
        let _users =
            Serving::start_at(&between.a, &[&["relay-crowd", target.as_str()][..], arguments].concat())?;
        std::thread::sleep(SETTLE);
        let standing = relay.circuits()?;
        ensure!(standing == expected, "{standing} circuits stand, {expected} were asked for");
        push(samples, "relay-circuits", system, processes::resident_kib(relay.pid())? / 1024.0);
    }
    Ok(())
}
