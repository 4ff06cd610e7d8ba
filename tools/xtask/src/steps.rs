//! Runs named steps one after the other, keeps their times, and prints the score.
//!
//! A failed step does not stop the next one: a newcomer should see everything that is wrong in one run. A step that cannot run
//! because this machine lacks something is never counted as passed: it is named loudly, and under `CI=true` it has failed.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::say;

/// The machine lacks something that a step needs.
#[derive(Debug)]
pub(crate) struct Missing(pub(crate) String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot run here: {}", self.0)
    }
}

impl std::error::Error for Missing {}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed(String),
    Missing(String),
}

#[derive(Debug)]
struct Row {
    name: &'static str,
    verdict: Verdict,
    took: Duration,
}

/// The steps of one chore and how they went.
#[derive(Debug)]
pub(crate) struct Steps {
    rows: Vec<Row>,
    only: Option<String>,
    /// On a CI machine nothing may be missing: it exists to run everything.
    is_missing_a_failure: bool,
}

impl Steps {
    pub(crate) fn new(only: Option<&str>) -> Self {
        let is_ci = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
        Self { rows: Vec::new(), only: only.map(str::to_owned), is_missing_a_failure: is_ci }
    }

    /// Runs one step, unless the caller asked for others only. Steps marked as set-up always run.
    pub(crate) fn run(&mut self, name: &'static str, step: impl FnOnce() -> Result<()>) {
        if self.only.as_deref().is_some_and(|part| !name.contains(part)) {
            return;
        }
        self.set_up(name, step);
    }

    /// Runs one step that others build upon, whatever was asked for.
    pub(crate) fn set_up(&mut self, name: &'static str, step: impl FnOnce() -> Result<()>) {
        say::line(format!("\n=== {name}"));
        let started = Instant::now();
        let verdict = match step() {
            Ok(()) => Verdict::Passed,
            Err(error) => match error.downcast_ref::<Missing>() {
                Some(missing) => Verdict::Missing(missing.0.clone()),
                None => Verdict::Failed(format!("{error:#}")),
            },
        };
        match &verdict {
            Verdict::Passed => {}
            Verdict::Failed(why) => say::line(format!("!!! {name}: {why}")),
            Verdict::Missing(what) => say::line(format!("!!! {name} CANNOT RUN HERE: {what}")),
        }
        self.rows.push(Row { name, verdict, took: started.elapsed() });
    }

    /// Prints the table and, as the last line, `N passed, N failed`. True if nothing failed.
    pub(crate) fn finish(self) -> bool {
        for line in self.table() {
            say::line(line);
        }
        let (passed, failed) = self.score();
        say::line(format!("{passed} passed, {failed} failed"));
        failed == 0
    }

    fn table(&self) -> Vec<String> {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        let mut lines = vec![String::new(), format!("{:width$}  seconds  result", "step")];
        for row in &self.rows {
            let result = match &row.verdict {
                Verdict::Passed => "passed".to_owned(),
                Verdict::Failed(why) => format!("FAILED   {}", first_line(why)),
                Verdict::Missing(what) => format!("MISSING  {}", first_line(what)),
            };
            lines.push(format!("{:width$}  {:>7.1}  {result}", row.name, row.took.as_secs_f64()));
        }
        lines.push(String::new());
        lines
    }

    fn score(&self) -> (usize, usize) {
        let has_failed = |row: &&Row| match &row.verdict {
            Verdict::Passed => false,
            Verdict::Failed(_) => true,
            Verdict::Missing(_) => self.is_missing_a_failure,
        };
        let passed = self.rows.iter().filter(|row| row.verdict == Verdict::Passed).count();
        (passed, self.rows.iter().filter(has_failed).count())
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_failed_step_does_not_hide_the_next_one() {
        let mut steps = steps(false);
        steps.run("first", || Err(anyhow!("broken\nin detail")));
        steps.run("second", || Ok(()));
        assert_eq!(steps.score(), (1, 1));
        assert!(
            steps.table().iter().any(|line| line.contains("FAILED   broken") && !line.contains("detail"))
        );
    }

    #[test]
    fn what_cannot_run_is_never_counted_as_passed() {
        let mut at_home = steps(false);
        at_home.run("needs tcl", || Err(Missing("tclsh".to_owned()).into()));
        assert_eq!(at_home.score(), (0, 0));
        assert!(at_home.table().iter().any(|line| line.contains("MISSING  tclsh")));

        let mut in_ci = steps(true);
        in_ci.run("needs tcl", || Err(Missing("tclsh".to_owned()).into()));
        assert_eq!(in_ci.score(), (0, 1));
    }

    #[test]
    fn a_part_chooses_steps_by_name_but_never_leaves_out_the_set_up() {
        let mut steps = Steps { only: Some("tcl".to_owned()), ..steps(false) };
        steps.set_up("machine", || Ok(()));
        steps.run("plugins: tcl", || Ok(()));
        steps.run("rust: units", || Err(anyhow!("must not run")));
        assert_eq!(steps.score(), (2, 0));
    }

    fn steps(is_missing_a_failure: bool) -> Steps {
        Steps { rows: Vec::new(), only: None, is_missing_a_failure }
    }
}
