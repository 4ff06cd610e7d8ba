//! `p2pos demo`: real daemons on this machine, real plugins in them, real traffic between those, every byte checked.
//!
//! Nothing is simulated: the daemons are processes of this program with fresh identities in a folder of their own, they
//! become each other's contacts as people's would, and the demo speaks through them as any plugin does. Whatever way it
//! ends, processes and folder go with it; with `--keep` both stay, and the demo says how to use and end them.

mod chat;
mod daemons;
mod echo;
mod place;
mod report;
mod show;
mod stage;
mod traffic;

use std::process::ExitCode;
use std::time::Instant;

use p2pos_control::{DemoReport, Document, Failure, Status};
use tokio::signal::unix::{SignalKind, signal};

use self::chat::FrontEnd;
pub(crate) use self::report::render;
use self::show::Show;
use self::stage::Stage;
use self::traffic::Traffic;
use crate::cli::Output;

/// The hidden word under which this program is the echo plugin.
pub(crate) const ECHO_WORD: &str = "__echo";

/// The plugin that moves bytes for measuring.
const ECHO: &str = "echo";
/// The plugin that is one line of shell.
const HELLO: &str = "hello-sh";
/// The plugin that people talk with; it needs Python.
const CHAT: &str = "chat";

/// Is the echo plugin, in a process that a demo's daemon has started.
pub(crate) fn echo_plugin() -> ExitCode {
    match p2pos_plugin_echo::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Its daemon keeps what it writes there, for `plugins logs`.
            tracing_subscriber::fmt().with_writer(std::io::stderr).init();
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Orders {
    pub(crate) peers: u8,
    pub(crate) bytes: u64,
    pub(crate) keep: bool,
}

/// Shows it all.
pub(crate) async fn run(orders: Orders, output: Output) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut interrupted = Interrupted::watch()?;
    let mut stage = Stage::set(orders)?;
    let played = tokio::select! {
        played = play(&mut stage, orders, output) => played,
        signal = interrupted.comes() => Err(Failure::failed(format!("ended by {signal}"))),
    };
    let keeps = orders.keep && played.is_ok();
    if !keeps {
        stage.strike(output).await;
    }
    let told = tell(played, begun, output);
    if keeps {
        stage.leave_standing(output);
    }
    told
}

fn tell(played: Result<DemoReport, Failure>, begun: Instant, output: Output) -> Result<(), Failure> {
    let mut report = played?;
    report.took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let is_verified = report.is_verified;
    output.document(&Document::Demo(Box::new(report)))?;
    if is_verified { Ok(()) } else { Err(Failure::failed("not every byte arrived as it was sent")) }
}

/// The performance itself. Dropping it at any await is fine: what it started belongs to the stage.
async fn play(stage: &mut Stage, orders: Orders, output: Output) -> Result<DemoReport, Failure> {
    let begun = Instant::now();
    let statuses = stage.ready().await?;
    output.say(&format!(
        "{} daemons with fresh identities are up after {} ms",
        statuses.len(),
        begun.elapsed().as_millis()
    ));
    introduce(stage, &statuses).await?;
    let mut report = DemoReport { peers: orders.peers.into(), ..DemoReport::default() };
    let has_python = place::has_python();
    if !has_python {
        report.skipped.push("chat: it needs python3 of version 3.11 or newer, which is not there".to_owned());
    }
    for daemon in stage.daemons() {
        for plugin in [ECHO, HELLO].into_iter().chain(has_python.then_some(CHAT)) {
            daemon.enable(plugin).await?;
        }
    }
    output.say("they are each other's contacts, and their plugins run");
    let mut is_verified = true;
    if has_python {
        is_verified &= talk(stage, &mut report).await?;
        output.say("their chat plugins have talked");
    }
    let mut traffic = Traffic::begin(stage.daemons(), &statuses, Show::to(output)).await?;
    traffic.hello(&mut report).await?;
    traffic.round_trips(&mut report).await?;
    traffic.datagrams(&mut report).await?;
    traffic.bulk(orders.bytes, &mut report).await?;
    report.is_verified = is_verified && traffic.is_verified();
    Ok(report)
}

/// A with each of the others, both ways, as the people of 2011 did. Whether every line arrived.
async fn talk(stage: &Stage, report: &mut DemoReport) -> Result<bool, Failure> {
    let front_end = FrontEnd::of(stage.plugins());
    let [first, others @ ..] = stage.daemons() else { return Ok(true) };
    let mut is_verified = true;
    for other in others {
        for (from, to) in [(first, other), (other, first)] {
            let (line, has_arrived) = front_end.exchange(from, to).await?;
            report.chat.push(line);
            is_verified &= has_arrived;
        }
    }
    Ok(is_verified)
}

/// Everybody gets everybody else as a contact, by a petname and the address of this machine.
async fn introduce(stage: &Stage, statuses: &[Status]) -> Result<(), Failure> {
    for (here, daemon) in stage.daemons().iter().enumerate() {
        for (there, other) in stage.daemons().iter().enumerate() {
            if here != there {
                daemon.add_contact(other.name, &statuses[there]).await?;
            }
        }
    }
    Ok(())
}

/// The signals that end the demo in order.
struct Interrupted {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Interrupted {
    fn watch() -> Result<Self, Failure> {
        let on = |kind| {
            signal(kind).map_err(|error| Failure::failed(format!("cannot watch for signals: {error}")))
        };
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hang_up: on(SignalKind::hangup())?,
        })
    }

    async fn comes(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hang_up.recv() => "SIGHUP",
        }
    }
}
