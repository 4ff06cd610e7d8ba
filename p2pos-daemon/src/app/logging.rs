//! What the daemon says: lines on stderr, at the level of the setting `log.level`.
//!
//! `P2POS_LOG` takes a filter in tracing's own words for a closer look (`warn,p2pos_node=trace`). Addresses of people
//! are logged at debug and below only; keys, tokens and payloads never.

use std::io::{self, IsTerminal as _};
use std::panic;

use p2pos_control::Failure;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// The filter for a closer look.
const FILTER_VARIABLE: &str = "P2POS_LOG";

/// Begins to log. Once per process.
pub(super) fn start(level: LevelFilter) -> Result<(), Failure> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text)
            .map_err(|error| Failure::usage(format!("{FILTER_VARIABLE}={text}: {error}")))?,
        Ok(_) | Err(_) => EnvFilter::default().add_directive(level.into()),
    };
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    // Under systemd the journal stamps every line itself.
    let is_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let logger = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !is_plain)
        .with_env_filter(filter);
    let started = if is_journal { logger.without_time().try_init() } else { logger.try_init() };
    started.map_err(|error| Failure::failed(format!("cannot start the log: {error}")))?;
    log_panics();
    Ok(())
}

/// A panic ends only its task; the log keeps what and where.
fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let what = panic.payload_as_str().unwrap_or("no words");
        tracing::error!(%place, "a task broke off, which is a bug in p2pOS: {what}");
    }));
}
