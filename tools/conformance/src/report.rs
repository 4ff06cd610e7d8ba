//! How a run went: a table for people, JSON for programs, JUnit's XML for CI. Owns the list of expected failures, too.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::case::{Case, Level, PROTOCOL_VERSION};
use crate::verdict::{Outcome, Verdict};

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Human,
    /// One document, schema `p2pos.conformance/1`.
    Json,
    /// What CI servers read.
    Junit,
}

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    schema: &'static str,
    /// Whose requirements these are.
    protocol_version: u32,
    /// Who was judged, in the words of the command line.
    subject: String,
    /// The highest level of which nothing failed or was unsupported, and all below it too.
    level_reached: Option<Level>,
    is_good: bool,
    cases: Vec<Row>,
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    level: Level,
    about: String,
    rules: Vec<String>,
    is_scored: bool,
    #[serde(flatten)]
    outcome: Outcome,
}

/// Reads a list of cases that are known to fail: an id a line; `#` begins a comment.
///
/// # Errors
/// If it names a case that does not exist.
pub fn expected_failures(text: &str, cases: &[Case]) -> Result<BTreeSet<String>> {
    let known: BTreeSet<&str> = cases.iter().map(|case| case.id.as_str()).collect();
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let ids: BTreeSet<String> = lines.filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let unknown: Vec<&String> = ids.iter().filter(|id| !known.contains(id.as_str())).collect();
    ensure!(unknown.is_empty(), "no case is called {unknown:?}, see `list`");
    Ok(ids)
}

impl Report {
    /// Puts outcomes together with their cases.
    #[must_use]
    pub fn new(subject: &str, ran: Vec<(Case, Outcome)>) -> Self {
        let rows: Vec<Row> = ran
            .into_iter()
            .map(|(case, outcome)| Row {
                level: case.level,
                about: case.about,
                rules: case.rules,
                is_scored: !case.is_unscored,
                outcome,
            })
            .collect();
        let level_reached = [Level::Bronze, Level::Silver, Level::Gold]
            .into_iter()
            .take_while(|level| rows.iter().filter(|row| row.level == *level).all(Row::does_reach))
            .filter(|level| rows.iter().any(|row| row.level == *level))
            .last();
        let is_good = rows.iter().all(|row| !row.is_scored || row.outcome.is_good());
        Self {
            schema: "p2pos.conformance/1",
            protocol_version: PROTOCOL_VERSION,
            subject: subject.to_owned(),
            level_reached,
            is_good,
            cases: rows,
        }
    }

    /// Whether all is as it should be, the expected failures considered.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.is_good
    }

    /// The verdict on one case.
    #[must_use]
    pub fn verdict(&self, id: &str) -> Option<&Verdict> {
        self.cases.iter().find(|row| row.outcome.id == id).map(|row| &row.outcome.verdict)
    }

    /// The highest level that was reached.
    #[must_use]
    pub const fn level_reached(&self) -> Option<Level> {
        self.level_reached
    }

    /// The report as text.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn text(&self, format: Format) -> Result<String> {
        Ok(match format {
            Format::Human => self.human(),
            Format::Json => serde_json::to_string_pretty(self).context("write JSON")? + "\n",
            Format::Junit => self.junit(),
        })
    }

    fn human(&self) -> String {
        let mut text = String::new();
        let width = self.cases.iter().map(|row| row.outcome.id.len()).max().unwrap_or(0);
        for row in &self.cases {
            let outcome = &row.outcome;
            let (word, why) = word(outcome);
            let later = if row.is_scored { "" } else { " (not scored)" };
            let line =
                format!("{:6} {:width$} {:>6} ms  {word}{later}", row.level, outcome.id, outcome.took_ms);
            text.push_str(&line);
            text.push_str(&if why.is_empty() { "\n".to_owned() } else { format!(": {why}\n") });
            if !outcome.is_good() {
                let indented: String =
                    outcome.trace.iter().map(|line| format!("           {line}\n")).collect();
                let about = format!("           {} [{}]\n", row.about, row.rules.join("] ["));
                text.push_str(&about);
                text.push_str(&indented);
            }
        }
        text + &self.score()
    }

    fn score(&self) -> String {
        let count = |wanted: fn(&Verdict) -> bool| {
            self.cases.iter().filter(|row| wanted(&row.outcome.verdict)).count()
        };
        let level = self.level_reached.map_or_else(|| "no level".to_owned(), |level| level.to_string());
        format!(
            "{}: {level}, protocol {}: {} passed, {} failed, {} unsupported, {} not applicable\n",
            self.subject,
            self.protocol_version,
            count(|verdict| *verdict == Verdict::Passed),
            count(|verdict| matches!(verdict, Verdict::Failed(_))),
            count(|verdict| matches!(verdict, Verdict::Unsupported(_))),
            count(|verdict| matches!(verdict, Verdict::NotApplicable(_))),
        )
    }

    fn junit(&self) -> String {
        let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let bad = self.cases.iter().filter(|row| row.is_scored && !row.outcome.is_good()).count();
        let head = format!(
            "<testsuite name=\"{}\" tests=\"{}\" failures=\"{bad}\">\n",
            escaped(&self.subject),
            self.cases.len()
        );
        text.push_str(&head);
        for row in &self.cases {
            let outcome = &row.outcome;
            let seconds = format!("{}.{:03}", outcome.took_ms / 1000, outcome.took_ms % 1000);
            let open = format!(
                "  <testcase classname=\"{}\" name=\"{}\" time=\"{seconds}\">",
                row.level,
                escaped(&outcome.id)
            );
            let (_, why) = word(outcome);
            let inside = match (&outcome.verdict, outcome.is_good() || !row.is_scored) {
                (Verdict::Passed, true) => String::new(),
                (_, true) => format!("<skipped message=\"{}\"/>", escaped(&why)),
                (_, false) => format!(
                    "<failure message=\"{}\">{}</failure>",
                    escaped(&why),
                    escaped(&outcome.trace.join("\n"))
                ),
            };
            text.push_str(&format!("{open}{inside}</testcase>\n"));
        }
        text.push_str("</testsuite>\n");
        text
    }
}

impl Row {
    /// Unscored cases decide nothing; expected failures are failures all the same.
    const fn does_reach(&self) -> bool {
        match self.outcome.verdict {
            Verdict::Passed | Verdict::NotApplicable(_) => true,
            Verdict::Failed(_) | Verdict::Unsupported(_) => !self.is_scored,
        }
    }
}

fn word(outcome: &Outcome) -> (&'static str, String) {
    match (&outcome.verdict, outcome.is_expected_to_fail) {
        (Verdict::Passed, false) => ("passed", String::new()),
        (Verdict::Passed, true) => {
            ("PASSED UNEXPECTEDLY", "take it off the list of expected failures".to_owned())
        }
        (Verdict::Failed(why), false) => ("FAILED", why.clone()),
        (Verdict::Failed(why), true) => ("failed as expected", why.clone()),
        (Verdict::Unsupported(what), _) => ("unsupported", what.clone()),
        (Verdict::NotApplicable(what), _) => ("not applicable", what.clone()),
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() && c != '\n' && c != '\t' => {
                // XML 1.0 has no way to write these.
                let written = write!(out, "\\x{:02x}", u32::from(c));
                debug_assert!(written.is_ok(), "a String takes everything");
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::case;

    fn report(verdicts: &[(Level, Verdict, bool)]) -> Report {
        let mut base = case::all().unwrap().remove(0);
        let ran = verdicts.iter().map(|(level, verdict, is_expected)| {
            base.level = *level;
            let mut outcome = Outcome::new("x", verdict.clone(), Duration::from_millis(1234));
            outcome.is_expected_to_fail = *is_expected;
            (base.clone(), outcome)
        });
        Report::new("a <test>", ran.collect())
    }

    #[test]
    fn a_level_is_reached_only_with_those_below_it() {
        let failed = || Verdict::Failed("why".to_owned());
        let gold_alone = report(&[(Level::Bronze, failed(), false), (Level::Silver, Verdict::Passed, false)]);
        assert_eq!((gold_alone.level_reached(), gold_alone.is_good()), (None, false));
        let bronze = report(&[(Level::Bronze, Verdict::Passed, false), (Level::Silver, failed(), true)]);
        assert_eq!((bronze.level_reached(), bronze.is_good()), (Some(Level::Bronze), true));
    }

    #[test]
    fn an_unexpected_pass_fails_too() {
        let report = report(&[(Level::Bronze, Verdict::Passed, true)]);
        assert!(!report.is_good());
        assert!(report.text(Format::Human).unwrap().contains("PASSED UNEXPECTEDLY"));
        assert!(report.text(Format::Junit).unwrap().contains("<failure "));
    }

    #[test]
    fn a_list_of_expected_failures_names_cases_that_exist() {
        let cases = case::all().unwrap();
        let text = format!("# why\n{}  # because\n\n", cases[0].id);
        assert_eq!(expected_failures(&text, &cases).unwrap().len(), 1);
        assert!(expected_failures("no-such-case", &cases).is_err());
    }

    #[test]
    fn json_names_its_schema_and_xml_is_escaped() {
        let report = report(&[(Level::Gold, Verdict::Failed("a < b & \"c\"".to_owned()), false)]);
        let json: serde_json::Value = serde_json::from_str(&report.text(Format::Json).unwrap()).unwrap();
        assert_eq!(json["schema"], "p2pos.conformance/1");
        assert_eq!(
            (&json["cases"][0]["verdict"], &json["cases"][0]["took_ms"]),
            (&"failed".into(), &1234.into())
        );
        let xml = report.text(Format::Junit).unwrap();
        assert!(xml.contains("a &lt; b &amp; &quot;c&quot;") && xml.contains("time=\"1.234\""), "{xml}");
    }
}
