//! `lab scenario`: plays what happens to people in the middle of a conversation.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use p2pos_natlab::people::Program;
use p2pos_natlab::scenario::{self, Outcome, Scenario, ScenarioReport};
use tokio::task::JoinSet;

use super::{data, words};

#[derive(Debug, Args)]
pub(crate) struct ScenarioArguments {
    /// Names, with commas between, or `all`
    #[arg(required = true, value_name = "NAMES", value_parser = names)]
    names: Names,
    /// Also try those that rest on parts which are not built: they will fail
    #[arg(long)]
    all: bool,
    /// Print one JSON document for each, one a line
    #[arg(long)]
    json: bool,
    /// The program to try, instead of target/release/p2pos
    #[arg(long, value_name = "PATH")]
    p2pos: Option<PathBuf>,
}

/// What was asked for.
#[derive(Clone, Debug)]
struct Names(Vec<Scenario>);

/// Plays quiet ones beside all others, and the others one after the other: each measures how long somebody waits, and would feel a busy
/// neighbour.
pub(crate) async fn run(arguments: ScenarioArguments) -> Result<ExitCode> {
    let program = Program::find(arguments.p2pos)?;
    let (quiet, busy): (Vec<_>, Vec<_>) =
        arguments.names.0.into_iter().partition(|scenario| scenario.is_quiet());
    let mut playing = JoinSet::new();
    for scenario in quiet {
        let program = program.clone();
        playing.spawn(async move { scenario::play(&program, scenario, arguments.all).await });
    }
    let (mut passed, mut failed, mut missing, mut repeated) = (0, 0, 0, 0);
    let mut tell = |report: ScenarioReport| {
        repeated += report.failed_before.len();
        match report.outcome {
            Outcome::Passed { .. } => passed += 1,
            Outcome::Failed { .. } => failed += 1,
            Outcome::Missing { .. } => missing += 1,
        }
        data(&if arguments.json { serde_json::to_string(&report)? } else { row(&report) });
        anyhow::Ok(())
    };
    for scenario in busy {
        tell(scenario::play(&program, scenario, arguments.all).await)?;
    }
    while let Some(report) = playing.join_next().await {
        tell(report?)?;
    }
    words(&format!(
        "{passed} passed, {failed} failed, {missing} NOT TRIED because a part is not built; {repeated} runs were REPEATED because they failed"
    ));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn names(text: &str) -> Result<Names> {
    if text == "all" {
        return Ok(Names(Scenario::ALL.to_vec()));
    }
    text.split(',').map(str::parse).collect::<Result<_>>().map(Names)
}

fn row(report: &ScenarioReport) -> String {
    let what = match &report.outcome {
        Outcome::Passed { figures } => {
            let figures: Vec<_> = figures.iter().map(|(name, figure)| format!("{name} {figure}")).collect();
            format!("passed: {}", figures.join(", "))
        }
        Outcome::Failed { why } => format!("FAILED: {why}"),
        Outcome::Missing { part } => format!("NOT BUILT: {part}"),
    };
    let before: String = report.failed_before.iter().map(|why| format!(" (a run before: {why})")).collect();
    format!("{:18} {:6.1} s  {what}{before}", report.scenario, report.took_s)
}
