//! What a dial tried, as the steps of a plan: for peers whom no connection ever reached.
//!
//! A connection's plan writes a timeline of its own (`p2pos_traversal::plan`); before there is one, only dials are known, and what follows
//! from them: whom nobody reached, nobody could ask to punch back. Like every timeline it holds no address.

use std::time::Duration;

use p2pos_transport::{Attempt, AttemptOutcome};
use p2pos_traversal::timeline::{Entry, Outcome, Step, Way};

/// The steps of which these attempts are the record, in the order in which they ended; none without an attempt.
#[must_use]
pub fn tried(attempts: &[Attempt]) -> Vec<Entry> {
    if attempts.is_empty() {
        return Vec::new();
    }
    let entry = |after, step, way, outcome| Entry { after, step, way, outcome };
    let mut steps: Vec<Entry> = attempts.iter().map(step_of).collect();
    steps.sort_by_key(|step| step.after);
    let last = steps.last().map(|step| step.after).unwrap_or_default();
    steps.insert(0, entry(Duration::ZERO, Step::Lookup, None, Outcome::Worked));
    let is_connected = attempts.iter().any(|attempt| attempt.outcome == AttemptOutcome::Connected);
    let is_running = attempts.iter().any(|attempt| attempt.outcome == AttemptOutcome::Running);
    if is_connected {
        steps.push(entry(last, Step::Connect, None, Outcome::Worked));
    } else if !is_running {
        steps.push(entry(last, Step::Connect, None, Outcome::Failed));
        // Nothing goes to a peer's addresses before it has proven who it is (`p2pos_traversal::ProbeBudget`).
        steps.push(entry(last, Step::Punch, None, Outcome::Refused));
    }
    steps
}

fn step_of(attempt: &Attempt) -> Entry {
    let (step, way) = match attempt.relay {
        None => (Step::Dial, Some(Way::to(attempt.address))),
        Some(_) => (Step::Relay, None),
    };
    let outcome = match attempt.outcome {
        AttemptOutcome::Running => Outcome::Began,
        AttemptOutcome::Connected => Outcome::Worked,
        AttemptOutcome::NoAnswer
        | AttemptOutcome::Refused(_)
        | AttemptOutcome::Unroutable(_)
        | AttemptOutcome::Abandoned => Outcome::Failed,
    };
    Entry { after: attempt.started + attempt.took, step, way, outcome }
}

#[cfg(test)]
mod tests {
    use p2pos_identity::SecretKey;

    use super::*;

    #[test]
    fn a_peer_whom_nobody_reached_was_looked_up_dialled_called_and_not_punched() {
        let relay = Some(SecretKey::from_seed([1; 32]).peer_id());
        let attempts = [
            attempt("203.0.113.7:4000", None, 900, AttemptOutcome::NoAnswer),
            attempt("198.51.100.1:443", relay, 40, AttemptOutcome::Refused("no lease".to_owned())),
            attempt("192.168.1.7:4000", None, 2, AttemptOutcome::Unroutable("no route".to_owned())),
        ];
        let lines: Vec<_> = tried(&attempts)
            .into_iter()
            .map(|entry| (entry.after.as_millis(), entry.step, entry.way, entry.outcome))
            .collect();
        assert_eq!(
            lines,
            [
                (0, Step::Lookup, None, Outcome::Worked),
                (2, Step::Dial, Some(Way::Lan), Outcome::Failed),
                (40, Step::Relay, None, Outcome::Failed),
                (900, Step::Dial, Some(Way::V4), Outcome::Failed),
                (900, Step::Connect, None, Outcome::Failed),
                (900, Step::Punch, None, Outcome::Refused),
            ]
        );
        assert!(tried(&[]).is_empty(), "nothing was tried");
    }

    #[test]
    fn what_still_runs_has_not_failed_yet() {
        let steps = tried(&[attempt("203.0.113.7:4000", None, 900, AttemptOutcome::Running)]);
        assert_eq!(steps.len(), 2);
        assert_eq!(steps[1].outcome, Outcome::Began);
        let steps = tried(&[attempt("203.0.113.7:4000", None, 30, AttemptOutcome::Connected)]);
        assert_eq!((steps[2].step, steps[2].outcome), (Step::Connect, Outcome::Worked));
    }

    fn attempt(
        address: &str,
        relay: Option<p2pos_identity::PeerId>,
        ms: u64,
        outcome: AttemptOutcome,
    ) -> Attempt {
        let address = address.parse().expect("an address");
        Attempt { address, relay, started: Duration::ZERO, took: Duration::from_millis(ms), outcome }
    }
}
