//! Plays a case: reads its steps line by line and does them. README.md, "Steps", is the language; each kind of step has its file.
//!
//! Knows sessions by name: a plugin that is judged is the session `plugin`, a daemon is seen from sessions that a case names itself.

mod bulk;
mod daemon;
mod frames;
mod orders;
mod plugin;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::agent::{Agent, Launch};
use crate::case::{Case, Judged};
use crate::lend::{Daemons, Loan};
use crate::notation::{self, Variables};
use crate::session::Session;
use crate::verdict::{Outcome, judge};
use crate::wire::Wire;

/// A PeerId for the user of a judged plugin, and two of people they know; from `vectors/`.
const OWN: &str = "p2p1q6adfsqvzky9t042tlmfujeq88g8wzuhnm2nzxfd0qgdx3ac82ydqvcayly";
pub(crate) const BO: &str = "p2p1q84qp0slggwy44y4hp2n56xm7hjwfstx09mzfdrxqe42lz2h5vcxqqhq6ac";

/// Whom the kit judges, and how it gets at them.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A plugin, started for each case.
    Plugin(Launch),
    /// Two running daemons, whose users know each other.
    Daemons(Daemons),
}

/// How long a case may take in all. What it waits for has deadlines of its own, but whoever meets each of them late could make a case of many steps
/// last for ever. Half would fail a sanitizer's build on a busy machine; double would only let people wait.
const CASE_MAX: Duration = Duration::from_secs(60);
/// The same for cases that are slow by nature: thousands of streams, the protocol's own deadlines.
const SLOW_CASE_MAX: Duration = Duration::from_secs(180);

/// The state of one case.
#[derive(Debug)]
pub(crate) struct Play<'a> {
    subject: &'a Subject,
    variables: Variables,
    sessions: BTreeMap<String, Session>,
    /// The sockets of detached streams.
    raws: BTreeMap<String, Wire>,
    agent: Option<Agent>,
    loans: BTreeMap<String, Loan>,
    registered: Vec<String>,
    /// When the case is given up.
    until: Instant,
}

/// Runs one case.
#[must_use]
pub fn run(subject: &Subject, case: &Case) -> Outcome {
    let started = Instant::now();
    let mut play = Play::new(subject, started + if case.is_slow { SLOW_CASE_MAX } else { CASE_MAX });
    play.variables.set("own", OWN);
    play.variables.set("bo", BO);
    let lines: Vec<&str> = case.steps.lines().collect();
    let ran = play.lines(&lines, case.judges).and_then(|()| play.conclude());
    let mut outcome = Outcome::new(&case.id, judge(&ran), started.elapsed());
    if ran.is_err() {
        outcome.trace = play.story();
    }
    outcome
}

impl<'a> Play<'a> {
    fn new(subject: &'a Subject, until: Instant) -> Self {
        Self {
            subject,
            variables: Variables::default(),
            sessions: BTreeMap::new(),
            raws: BTreeMap::new(),
            agent: None,
            loans: BTreeMap::new(),
            registered: Vec::new(),
            until,
        }
    }
}

impl Play<'_> {
    fn lines(&mut self, lines: &[&str], judged: Judged) -> Result<()> {
        let mut at = 0;
        while let Some(line) = lines.get(at) {
            at += 1;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(times) = line.strip_prefix("repeat ") {
                let end =
                    lines[at..].iter().position(|line| line.trim() == "end").context("repeat without end")?;
                let times: usize = times.parse().context("repeat N")?;
                for turn in 0..times {
                    self.variables.set("i", turn.to_string());
                    self.variables.set("odd", (2 * turn + 1).to_string());
                    self.lines(&lines[at..at + end], judged)?;
                }
                at += end + 1;
                continue;
            }
            ensure!(Instant::now() < self.until, "the case takes too long, and is given up before `{line}`");
            self.line(line, judged).with_context(|| format!("`{line}`"))?;
        }
        Ok(())
    }

    fn line(&mut self, line: &str, judged: Judged) -> Result<()> {
        let filled = self.variables.fill(line)?;
        let words = notation::words(&filled);
        let (first, rest) = words.split_first().context("an empty step")?;
        let (session, verb, rest) = match first.strip_suffix(':') {
            Some(session) => (session, rest.first().context("a step is missing")?.as_str(), &rest[1..]),
            None => (if judged == Judged::Plugin { "plugin" } else { "a" }, first.as_str(), rest),
        };
        let text = filled.split_once(verb).map_or("", |(_, text)| text.trim());
        let is_known = self.frame_step(session, verb, rest)?
            || self.bulk_step(session, verb, rest)?
            || match judged {
                Judged::Plugin => self.plugin_step(verb, rest)? || self.order_step(verb, rest, text)?,
                Judged::Daemon => self.daemon_step(verb, rest)?,
            };
        ensure!(is_known, "no step is called {verb:?}");
        Ok(())
    }

    fn session(&mut self, name: &str) -> Result<&mut Session> {
        self.sessions.get_mut(name).with_context(|| format!("there is no session {name:?} yet"))
    }

    /// What must hold at the end of every case: nobody has complained, and a plugin that is judged has not died.
    fn conclude(&mut self) -> Result<()> {
        for (name, session) in &mut self.sessions {
            // What lies there already; nobody waits for more.
            while session.pump(Instant::now())? {}
            let complaint = session.queue.iter().find(|frame| frame.name == "error" && frame.rid == 0);
            if let Some(frame) = complaint {
                bail!("{name} ended with a complaint that nobody expected: {}", notation::show(frame));
            }
        }
        Ok(())
    }

    /// What was said, for whoever has to find the mistake.
    fn story(&mut self) -> Vec<String> {
        let mut story = Vec::new();
        for (name, session) in &self.sessions {
            story.extend(session.trace.iter().map(|line| format!("{name}: {line}")));
        }
        if let Some(agent) = &mut self.agent {
            story.extend(agent.output().lines().map(|line| format!("it printed: {line}")));
        }
        story
    }
}

/// Parses a number of a step.
fn number<T: std::str::FromStr>(words: &[String], at: usize, what: &str) -> Result<T> {
    let word = words.get(at).with_context(|| format!("{what} is missing"))?;
    word.parse().ok().with_context(|| format!("{what} is a number, not {word:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_that_takes_too_long_is_given_up_by_name() {
        let subject = Subject::Plugin(Launch { command: Vec::new(), folder: ".".into(), is_tcp: false });
        let mut play = Play::new(&subject, Instant::now());
        let error = play.lines(&["# words", "repeat 3", "alive", "end"], Judged::Plugin).unwrap_err();
        assert!(error.to_string().contains("given up before `alive`"), "{error:#}");
    }
}
