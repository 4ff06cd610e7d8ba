//! `lab matrix`: runs cells, shows each as it ends, and says loudly how many promises were not even tried.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use p2pos_natlab::matrix::{
    self, CELLS_AT_ONCE, CellReport, GUESSED_AGAIN_PERCENT_MAX, Measured, Outcome, Pair, Plan, Report,
};
use p2pos_natlab::people::Program;
use p2pos_natlab::promise::word;
use p2pos_natlab::wire::Link;
use tokio::sync::mpsc;

use super::{Kinds, data, kinds_or_all, words};

/// Cells that may end before they are shown; showing takes microseconds.
const CELLS_UNSHOWN_MAX: usize = 16;

/// Of a reason for failure in the table.
const REASON_CHARS_MAX: usize = 160;

#[derive(Debug, Args)]
pub(crate) struct MatrixArguments {
    /// Only these kinds with each other, with commas between
    #[arg(long, value_name = "KINDS", conflicts_with = "pairs")]
    kinds: Option<Kinds>,
    /// Only these cells: DIALS:ACCEPTS, with commas between
    #[arg(long, value_name = "PAIRS", value_delimiter = ',', value_parser = pair)]
    pairs: Vec<Pair>,
    /// Also try cells that rest on parts which are not built: they will fail
    #[arg(long)]
    all: bool,
    /// Run each cell so often
    #[arg(long, default_value_t = 1, value_name = "N")]
    repeat: usize,
    /// Put a long wire before every site: delay=20ms,jitter=2ms,loss=1%,rate=20mbit; delay is one way
    #[arg(long, value_name = "LINK")]
    line: Option<Link>,
    /// Cells that may fail, in percent of those tried: for repeated guesses, which nobody can promise always
    #[arg(long, default_value_t = 0, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    may_fail: u8,
    /// Cells at the same time
    #[arg(long, default_value_t = CELLS_AT_ONCE, value_name = "N")]
    at_once: usize,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Draw the result into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The program to try, instead of target/release/p2pos
    #[arg(long, value_name = "PATH")]
    p2pos: Option<PathBuf>,
}

/// Runs the cells. Fails if one failed; missing ones are counted apart and are no passes.
pub(crate) async fn run(arguments: MatrixArguments) -> Result<ExitCode> {
    let program = Program::find(arguments.p2pos)?;
    let pairs = if arguments.pairs.is_empty() {
        matrix::pairs_of(&kinds_or_all(arguments.kinds))
    } else {
        arguments.pairs
    };
    let pairs = pairs.repeat(arguments.repeat);
    let (tell, mut told) = mpsc::channel(CELLS_UNSHOWN_MAX);
    let plan = Plan {
        program,
        pairs,
        tries_all: arguments.all,
        guesses_again: true,
        at_once: arguments.at_once,
        line: arguments.line,
    };
    let running = tokio::spawn(matrix::run(plan, tell));
    if !arguments.json {
        data(&head());
    }
    while let Some(cell) = told.recv().await {
        if !arguments.json && !matches!(cell.outcome, Outcome::Missing { .. }) {
            data(&row(&cell));
        }
    }
    let report = running.await??;
    if arguments.json {
        data(&serde_json::to_string_pretty(&report)?);
    }
    if let Some(file) = arguments.svg {
        fs::write(&file, matrix::svg(&report)).with_context(|| format!("write {}", file.display()))?;
    }
    words(&summary(&report));
    Ok(if report.score().is_good(arguments.may_fail.into()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn pair(text: &str) -> Result<Pair> {
    let (from, to) = text.split_once(':').context("a cell is DIALS:ACCEPTS, as home:public")?;
    Ok(Pair { from: from.parse()?, to: to.parse()? })
}

pub(super) fn head() -> String {
    format!(
        "{:18} {:18} {:19} {:>10} {:>10} {:>7} {:>8} {:>12} {}",
        "dials", "accepts", "promise", "first byte", "direct", "probes", "openers", "entries", "verdict"
    )
}

pub(super) fn row(cell: &CellReport) -> String {
    let (measured, verdict) = match &cell.outcome {
        Outcome::Passed(measured) => {
            let late = measured.lateness(cell.expected);
            let kept =
                if late.is_empty() { "kept".to_owned() } else { format!("kept, LATE: {}", late.join("; ")) };
            (Some(measured), if cell.is_second { format!("{kept}, by a second run") } else { kept })
        }
        Outcome::Failed { why, measured } => (measured.as_ref(), format!("BROKEN: {}", cut(&why.join("; ")))),
        Outcome::Missing { part } => (None, format!("NOT BUILT: {part}")),
    };
    let figure = |take: &dyn Fn(&Measured) -> Option<String>| {
        measured.and_then(take).unwrap_or_else(|| "-".to_owned())
    };
    let entries = |measured: &Measured| {
        let all: Vec<_> =
            measured.entries_from.iter().chain(&measured.entries_to).map(u64::to_string).collect();
        if all.is_empty() { "-".to_owned() } else { all.join("+") }
    };
    format!(
        "{:18} {:18} {:19} {:>10} {:>10} {:>7} {:>8} {:>12} {verdict}",
        cell.pair.from,
        cell.pair.to,
        word(cell.expected),
        figure(&|measured| Some(format!("{:.1} ms", measured.first_byte_ms))),
        figure(&|measured| measured.direct_ms.map(|direct| format!("{direct:.1} ms"))),
        figure(&|measured| Some(measured.seen.probes.to_string())),
        figure(&|measured| Some(measured.seen.openers.to_string())),
        figure(&|measured| Some(entries(measured))),
    )
}

/// The beginning of a reason: logs are long, and the JSON has them whole.
fn cut(why: &str) -> String {
    let mut short: String = why.chars().take(REASON_CHARS_MAX).collect();
    if short.len() < why.len() {
        short += "...";
    }
    short
}

fn summary(report: &Report) -> String {
    let score = report.score();
    let mut lines = vec![format!(
        "{} cells: {} kept, {} broken, {} NOT TRIED because a part is not built; {:.1} s",
        report.cells.len(),
        score.passed,
        score.failed,
        score.missing,
        Duration::from_millis(u64::try_from(report.took_ms).unwrap_or(u64::MAX)).as_secs_f64()
    )];
    if score.guessed > 0 {
        lines.push(format!(
            "  by a guess: {} cells, of which {} needed a second run; allowed are {GUESSED_AGAIN_PERCENT_MAX} % and two",
            score.guessed, score.guessed_again
        ));
    }
    let mut missing = BTreeMap::<_, usize>::new();
    for cell in &report.cells {
        if let Outcome::Missing { part } = cell.outcome {
            *missing.entry(part).or_default() += 1;
        }
    }
    lines.extend(
        missing
            .iter()
            .map(|(part, cells)| format!("  not built: {part}: {cells} cells that nobody has kept yet")),
    );
    lines.join("\n")
}
