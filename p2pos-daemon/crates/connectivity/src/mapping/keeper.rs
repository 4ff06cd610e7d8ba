//! Keeps one mapping: asks, renews at half of the lease, asks again after a refusal, gives back at the end.
//!
//! One task per question. It is told three things by a watch channel: go on, ask again now, stop.
//!
//! Refuses to know: the other questions, what a mapping is for.

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    time,
};

use super::{
    asker::Asker,
    grant::{Denied, Grant, MappingState, Question},
};

/// How long a router may take to hear that a mapping is not needed any more. The daemon's own end waits for it.
const RELEASE_WAIT: Duration = Duration::from_secs(1);
/// The pause after a first refusal; it doubles.
const RETRY_FIRST: Duration = Duration::from_secs(30);
/// The longest pause after refusals, and the pause where nobody answers: a network whose router learns to map ports is
/// rare, and a change of the network asks at once.
const RETRY_MAX: Duration = Duration::from_secs(30 * 60);

/// What a keeper is to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// Raised to have the question asked again at once.
    pub(crate) asked: u64,
    /// Give the mapping back and end.
    pub(crate) is_over: bool,
}

/// What a keeper reports.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) question: Question,
    pub(crate) state: MappingState,
    /// How long the router says it has kept its mappings, in s.
    pub(crate) epoch_s: Option<u32>,
}

/// Runs until told to stop, or until nobody listens.
pub(crate) async fn keep(
    question: Question,
    mut asker: Asker,
    mut orders: watch::Receiver<Orders>,
    updates: mpsc::Sender<Update>,
) {
    let mut refusals = 0;
    loop {
        orders.mark_unchanged();
        let outcome = tokio::select! {
            biased;
            _ = orders.wait_for(|orders| orders.is_over) => break,
            outcome = asker.obtain() => outcome,
        };
        let pause = match &outcome {
            Ok(grant) => {
                refusals = 0;
                grant.lease / 2
            }
            Err(denied) => {
                refusals += 1;
                pause_after(denied, refusals)
            }
        };
        if updates.send(update(question, outcome)).await.is_err() {
            break;
        }
        let is_over = tokio::select! {
            biased;
            changed = orders.changed() => changed.is_err() || orders.borrow().is_over,
            () = time::sleep(pause) => false,
        };
        if is_over {
            break;
        }
    }
    if time::timeout(RELEASE_WAIT, asker.release()).await.is_err() {
        tracing::debug!(
            protocol = question.protocol.name(),
            "the router was too slow to hear that a mapping is over; its lease ends it"
        );
    }
}

fn update(question: Question, outcome: Result<Grant, Denied>) -> Update {
    match outcome {
        Ok(Grant { external, lease, epoch_s }) => {
            Update { question, state: MappingState::Mapped { external, lease, is_verified: false }, epoch_s }
        }
        Err(denied) if denied.is_absence() => {
            Update { question, state: MappingState::Absent { why: denied.to_string() }, epoch_s: None }
        }
        Err(denied) => {
            Update { question, state: MappingState::Refused { said: denied.to_string() }, epoch_s: None }
        }
    }
}

fn pause_after(denied: &Denied, refusals: u32) -> Duration {
    if denied.is_absence() {
        return RETRY_MAX;
    }
    let doubled = RETRY_FIRST.saturating_mul(1 << refusals.saturating_sub(1).min(16));
    doubled.max(denied.holds().unwrap_or_default()).min(RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::{ask::AskError, natpmp, pcp};

    #[test]
    fn refusals_are_asked_again_after_pauses_that_double_up_to_half_an_hour() {
        let refused = Denied::NatPmp(natpmp::Refusal::OutOfResources);
        let pauses: Vec<u64> = (1..9).map(|refusals| pause_after(&refused, refusals).as_secs()).collect();
        assert_eq!(pauses, [30, 60, 120, 240, 480, 960, 1800, 1800]);
        assert_eq!(pause_after(&refused, u32::MAX), RETRY_MAX);
    }

    #[test]
    fn a_router_that_says_for_how_long_it_refuses_is_taken_at_its_word_within_reason() {
        let refused = |holds_s| Denied::Pcp { refusal: pcp::Refusal::NoResources, holds_s };
        assert_eq!(pause_after(&refused(300), 1).as_secs(), 300);
        assert_eq!(pause_after(&refused(u32::MAX), 1), RETRY_MAX);
        assert_eq!(pause_after(&refused(1), 1), RETRY_FIRST);
    }

    #[test]
    fn where_nobody_answers_we_seldom_ask() {
        assert_eq!(pause_after(&AskError::Silent.into(), 1), RETRY_MAX);
        assert_eq!(pause_after(&AskError::SwitchedOff.into(), 1), RETRY_MAX);
    }
}
