//! The program `p2pos-conformance`: see the library beside it, and README.md.

#![expect(clippy::print_stdout, reason = "a report goes to stdout")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use p2pos_conformance::agent::Launch;
use p2pos_conformance::case::{self, Case, Judged, Level};
use p2pos_conformance::lend::{self, Daemons};
use p2pos_conformance::report::{self, Format, Report};
use p2pos_conformance::verdict::{Outcome, Verdict};
use p2pos_conformance::{Subject, hostile, manifest, porting, run, tier0, vectors};

/// Judges implementations of the p2pOS plugin protocol, version 1. Needs no daemon and no network, but for `daemon`.
#[derive(Debug, Parser)]
#[command(name = "p2pos-conformance", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Judge a plugin: start CMD for each case, and order it about as ORDERS.md says
    Plugin {
        #[command(flatten)]
        choice: Choice,
        /// The endpoint is TCP on the loopback instead of a unix socket
        #[arg(long)]
        tcp: bool,
        /// CMD is a stream command (tier 0): stdin and stdout are the stream
        #[arg(long, conflicts_with = "tcp")]
        tier0: bool,
        /// Where CMD is started
        #[arg(long, value_name = "DIR", default_value = ".")]
        folder: PathBuf,
        /// Program and arguments
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Judge running daemons: attach to two whose users know each other, as README.md says
    Daemon {
        #[command(flatten)]
        choice: Choice,
        /// Starts a plugin of the daemon that is judged, if a command follows (cut at spaces): "p2pos plugins run DIR --"
        #[arg(long, value_name = "LAUNCHER")]
        here: String,
        /// The same for the daemon of the other user
        #[arg(long, value_name = "LAUNCHER")]
        there: String,
        /// endpoint.json of the daemon that is judged, for the cases about tools
        #[arg(long, value_name = "FILE")]
        endpoint_file: Option<PathBuf>,
    },
    /// Check the golden vectors
    Wire {
        /// How to report
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
    /// List the cases: who is judged, level, id, rules, what it shows
    List,
    /// Print the manifest of the plugin as which `daemon` attaches itself
    Manifest {
        /// The plugin's id
        #[arg(default_value = "conformance")]
        id: String,
    },
    /// Print the port guide (plugin-protocol/PORTING.md)
    Porting,
    /// The other end of `daemon`: started by a daemon as a plugin, hands its environment on
    #[command(hide = true)]
    Lend {
        /// Where the kit waits
        socket: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Choice {
    /// The highest level that is asked for; gold if none is named
    #[arg(long, value_enum)]
    level: Option<Level>,
    /// Let cases that are later than the frozen requirements decide as well
    #[arg(long)]
    strict: bool,
    /// Only cases whose id contains this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Leave out cases that wait for the protocol's own deadlines (5 to 20 s each)
    #[arg(long)]
    quick: bool,
    /// Cases that are known to fail, one id a line; one that passes then fails the run
    #[arg(long, value_name = "FILE")]
    expected_failures: Option<PathBuf>,
    /// How to report
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// Cases at the same time; only for plugins
    #[arg(long, default_value_t = 4)]
    jobs: usize,
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().mode {
        Mode::Plugin { choice, tcp, tier0, folder, command } => {
            let name = command.join(" ");
            let launch = Launch { command, folder, is_tcp: tcp };
            if tier0 {
                if let Some(level @ (Level::Silver | Level::Gold)) = choice.level {
                    Arguments::command().error(ErrorKind::ArgumentConflict, beyond_tier_0(level)).exit();
                }
                return tell(&Report::new(&name, tier0::run(&launch)), choice.format);
            }
            judge(&Subject::Plugin(launch), Judged::Plugin, &name, &choice)
        }
        Mode::Daemon { choice, here, there, endpoint_file } => {
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
            let program = std::env::current_exe().context("find our own program")?;
            let daemons = Daemons { here: words(&here), there: words(&there), endpoint_file, program };
            judge(&Subject::Daemons(daemons), Judged::Daemon, "daemon", &choice)
        }
        Mode::Wire { format } => tell(&Report::new("vectors", vectors::run()?), format),
        Mode::List => {
            for case in case::all()? {
                println!(
                    "{} {:6} {} [{}] {}",
                    case.judges,
                    case.level,
                    case.id,
                    case.rules.join("] ["),
                    case.about
                );
            }
            Ok(ExitCode::SUCCESS)
        }
        Mode::Manifest { id } => {
            print!("{}", manifest(&id));
            Ok(ExitCode::SUCCESS)
        }
        Mode::Porting => {
            print!("{}", porting::guide()?);
            Ok(ExitCode::SUCCESS)
        }
        Mode::Lend { socket } => lend::lend(&socket),
    }
}

fn beyond_tier_0(level: Level) -> String {
    format!(
        "tier 0 has bronze cases only, nothing can reach {level} in it: leave --level out, or judge a plugin that speaks the protocol"
    )
}

fn judge(subject: &Subject, judged: Judged, name: &str, choice: &Choice) -> Result<ExitCode> {
    let mut cases = case::all()?;
    cases.extend(hostile::cases()?);
    let expected = match &choice.expected_failures {
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
            report::expected_failures(&text, &cases)?
        }
        None => BTreeSet::new(),
    };
    let is_asked_for = |case: &Case| {
        case.judges == judged
            && case.level <= choice.level.unwrap_or(Level::Gold)
            && !(choice.quick && case.is_slow)
            && choice.only.as_ref().is_none_or(|part| case.id.contains(part))
    };
    let mut cases: Vec<Case> = cases.into_iter().filter(is_asked_for).collect();
    if choice.strict {
        cases.iter_mut().for_each(|case| case.is_unscored = false);
    }
    // The slow ones first, so that nobody waits for them alone.
    cases.sort_by_key(|case| !case.is_slow);
    let jobs = if judged == Judged::Daemon { 1 } else { choice.jobs.max(1) };
    let mut ran = in_parallel(subject, &cases, jobs);
    for (_, outcome) in &mut ran {
        outcome.is_expected_to_fail = expected.contains(&outcome.id);
    }
    ran.sort_by(|(one, _), (other, _)| (one.level, &one.id).cmp(&(other.level, &other.id)));
    tell(&Report::new(name, ran), choice.format)
}

fn in_parallel(subject: &Subject, cases: &[Case], jobs: usize) -> Vec<(Case, Outcome)> {
    let next = AtomicUsize::new(0);
    let ran = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run(subject, case);
                    if let Ok(mut ran) = ran.lock() {
                        ran.push((case.clone(), outcome));
                    }
                }
            });
        }
    });
    let mut ran = ran.into_inner().unwrap_or_default();
    // A case whose thread has died was not passed.
    for case in cases {
        if !ran.iter().any(|(done, _)| done.id == case.id) {
            let lost = Verdict::Failed("the kit itself failed in this case".to_owned());
            ran.push((case.clone(), Outcome::new(&case.id, lost, std::time::Duration::ZERO)));
        }
    }
    ran
}

fn tell(report: &Report, format: Format) -> Result<ExitCode> {
    print!("{}", report.text(format)?);
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
