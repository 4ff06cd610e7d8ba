//! `p2pos ping`: round trips to a peer's daemon, shown as they come.

use p2pos_control::{Document, Exit, Failure, Request, Step};

use super::Context;
use super::args::Ping;

/// Does the round trips. None answered is a failure; some is the user's to judge.
pub(crate) async fn run(context: &Context, ping: Ping) -> Result<(), Failure> {
    let mut daemon = context.daemon().await?;
    let who = ping.peer.clone();
    let request = Request::Ping { who: ping.peer, count: ping.count, interval_ms: ping.interval };
    let mut answers = daemon.ask(request).await?;
    let report = loop {
        match answers.next().await? {
            Step::Item(round) => context.output.document(&round)?,
            Step::Done(report) => break report,
        }
    };
    context.output.document(&report)?;
    let is_silent = matches!(report, Document::Ping(report) if report.received == 0);
    if is_silent { Err(Failure::new(Exit::TimedOut, format!("{who} did not answer"))) } else { Ok(()) }
}
