//! Every pair of kinds, in both directions: two real daemons behind real NATs, a stream between their plugins, and the path that it must take.
//!
//! A cell passes only if the path is the one promised ([`crate::promise`]), by the counters of the hosts and by the daemon's own word; that
//! bytes came through proves nothing. A cell whose promise rests on a part that is not built is reported as missing, and is no pass.

mod cell;
mod picture;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use p2pos_traversal::predict::Expected;
use serde::{Serialize, Serializer};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

pub use self::cell::{Measured, Seen, SeenPath};
pub use self::picture::svg;
use crate::people::{Program, World};
use crate::promise::{self, BUILT, Part};
use crate::topology::Kind;
use crate::wire::Link;

/// Cells at the same time on two cores: most of a cell is waiting. More make first bytes late; fewer leave cores idle.
pub const CELLS_AT_ONCE: usize = 8;

/// Guessed cells that may need a second run, in percent: one attempt in fifty misses by the odds (decision 0015), and a run of the matrix
/// has some sixty.
pub const GUESSED_AGAIN_PERCENT_MAX: usize = 10;

/// Who dials whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Pair {
    /// The one who opens the stream.
    pub from: Kind,
    /// The one who accepts it.
    pub to: Kind,
}

/// How a cell ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The promise was kept.
    Passed(Measured),
    /// It was not.
    Failed {
        /// In which way.
        why: Vec<String>,
        /// What was measured, as far as the cell came.
        measured: Option<Measured>,
    },
    /// It was not tried, because a part that it rests on is not built.
    Missing {
        /// That part.
        part: Part,
    },
}

/// One cell with its result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CellReport {
    /// Who dials whom.
    #[serde(flatten)]
    pub pair: Pair,
    /// What is promised.
    #[serde(serialize_with = "expected_word")]
    pub expected: Expected,
    /// Whether it was run a second time, because the first guess missed.
    pub is_second: bool,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// All cells.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Names this form: members are only added.
    pub schema: &'static str,
    /// In the order in which they were asked for.
    pub cells: Vec<CellReport>,
    /// The whole run, in milliseconds.
    pub took_ms: u128,
}

/// How many cells ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// The promise was kept.
    pub passed: usize,
    /// It was not.
    pub failed: usize,
    /// It was not tried.
    pub missing: usize,
    /// Promised by a guess, and tried.
    pub guessed: usize,
    /// Of these, run a second time.
    pub guessed_again: usize,
}

/// What to run.
#[derive(Debug)]
pub struct Plan {
    /// The program that users run.
    pub program: Program,
    /// The cells.
    pub pairs: Vec<Pair>,
    /// Also tries cells that rest on parts which are not built; they will fail.
    pub tries_all: bool,
    /// Whether a guess that missed is tried a second time.
    pub guesses_again: bool,
    /// Cells at the same time.
    pub at_once: usize,
    /// What every line does, both ways; `None`: nothing.
    pub line: Option<Link>,
}

/// Every pair of these, in both directions, and each with itself.
#[must_use]
pub fn pairs_of(kinds: &[Kind]) -> Vec<Pair> {
    kinds.iter().flat_map(|&from| kinds.iter().map(move |&to| Pair { from, to })).collect()
}

/// Runs the cells and tells of each as it ends.
///
/// # Errors
/// The world cannot be built. What fails in a cell is that cell's result.
pub async fn run(plan: Plan, tell: mpsc::Sender<CellReport>) -> Result<Report> {
    let begun = Instant::now();
    let world = World::new(&plan.program).await?;
    let world = Arc::new(match plan.line {
        Some(line) => world.with_lines(line),
        None => world,
    });
    let places = Arc::new(Semaphore::new(plan.at_once.max(1)));
    let mut running = JoinSet::new();
    for (number, pair) in plan.pairs.into_iter().enumerate() {
        let (world, places, tell) = (Arc::clone(&world), Arc::clone(&places), tell.clone());
        let (tries_all, guesses_again) = (plan.tries_all, plan.guesses_again);
        running.spawn(async move {
            let part = promise::needs(pair.from, pair.to);
            let expected = promise::expected(pair.from, pair.to);
            let mut is_second = false;
            let outcome = if tries_all || BUILT.contains(&part) {
                let place = places.acquire().await;
                let mut outcome = cell::run(&world, pair, &number.to_string()).await;
                // Nobody can promise that a guess hits; what is promised is how often it does.
                is_second = guesses_again
                    && expected == Expected::DirectByGuess
                    && matches!(outcome, Outcome::Failed { .. });
                if is_second {
                    outcome = cell::run(&world, pair, &format!("{number}x")).await;
                }
                drop(place);
                outcome
            } else {
                Outcome::Missing { part }
            };
            let report = CellReport { pair, expected, is_second, outcome };
            // Whoever was listening may have left; the report is complete without.
            tell.send(report.clone()).await.ok();
            (number, report)
        });
    }
    let mut cells = Vec::new();
    while let Some(ended) = running.join_next().await {
        cells.push(ended?);
    }
    cells.sort_by_key(|(number, _)| *number);
    let cells = cells.into_iter().map(|(_, cell)| cell).collect();
    Ok(Report { schema: "p2pos.natlab-matrix/1", cells, took_ms: begun.elapsed().as_millis() })
}

impl Report {
    /// Counts.
    #[must_use]
    pub fn score(&self) -> Score {
        let mut score = Score::default();
        for cell in &self.cells {
            let is_tried = !matches!(cell.outcome, Outcome::Missing { .. });
            score.guessed += usize::from(is_tried && cell.expected == Expected::DirectByGuess);
            score.guessed_again += usize::from(cell.is_second);
            match cell.outcome {
                Outcome::Passed(_) => score.passed += 1,
                Outcome::Failed { .. } => score.failed += 1,
                Outcome::Missing { .. } => score.missing += 1,
            }
        }
        score
    }
}

impl Score {
    /// Whether so few failed, in percent, and as few guesses had to be repeated as the odds allow: two more than the share, for a
    /// handful of cells is no sample.
    #[must_use]
    pub fn is_good(&self, may_fail_percent: usize) -> bool {
        let tried = self.passed + self.failed;
        let again_max = 2 + self.guessed * GUESSED_AGAIN_PERCENT_MAX / 100;
        self.failed * 100 <= tried * may_fail_percent && self.guessed_again <= again_max
    }
}

/// By when a path must be there. Targets are tighter (`docs/natlab.md`); these are where patience ends on a loaded machine.
fn deadline(expected: Expected) -> Duration {
    match expected {
        Expected::Direct | Expected::DirectWithOpener => Duration::from_secs(10),
        Expected::DirectByGuess => Duration::from_secs(25),
        // So long it must stay as promised: an upgrade that comes later is still an upgrade, but punching is over by then.
        Expected::Relayed | Expected::TcpRelayed => Duration::from_secs(4),
    }
}

fn expected_word<S: Serializer>(expected: &Expected, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(promise::word(*expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_tried_is_never_a_pass() {
        let pair = Pair { from: Kind::Home, to: Kind::Random };
        let outcome = Outcome::Missing { part: Part::Guessing };
        let cell = CellReport { pair, expected: Expected::DirectByGuess, is_second: false, outcome };
        let report = Report { schema: "p2pos.natlab-matrix/1", cells: vec![cell], took_ms: 0 };
        assert_eq!(report.score(), Score { missing: 1, ..Score::default() });
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["cells"][0]["outcome"], "missing");
        assert_eq!(json["cells"][0]["from"], "home");
        assert_eq!(json["cells"][0]["expected"], "direct-by-guess");
    }

    #[test]
    fn every_pair_is_there_in_both_directions() {
        let pairs = pairs_of(&[Kind::Home, Kind::Public]);
        assert_eq!(pairs.len(), 4);
        assert!(pairs.contains(&Pair { from: Kind::Home, to: Kind::Public }));
        assert!(pairs.contains(&Pair { from: Kind::Public, to: Kind::Home }));
        assert_eq!(pairs_of(&Kind::ALL).len(), Kind::ALL.len() * Kind::ALL.len());
    }

    #[test]
    fn more_second_guesses_than_the_odds_allow_are_a_failure() {
        let score = |guessed_again| Score { passed: 60, guessed: 60, guessed_again, ..Score::default() };
        assert!(score(8).is_good(0) && !score(9).is_good(0));
        assert!(!Score { failed: 1, ..score(0) }.is_good(0) && Score { failed: 1, ..score(0) }.is_good(2));
    }
}
