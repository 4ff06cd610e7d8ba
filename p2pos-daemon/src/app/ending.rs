//! When to end: a signal, or the end of stdin if whoever started us asked for that. A second signal ends at once.

use std::process;

use p2pos_control::Failure;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

/// The shell's code for "ended by SIGINT"; a second Ctrl-C deserves no politer one.
const EXIT_INTERRUPTED: i32 = 130;

/// Watches for the end.
#[derive(Debug)]
pub(super) struct Ending {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    until_stdin_closes: bool,
}

impl Ending {
    /// Begins to watch: from here on a signal no longer kills the process by itself.
    pub(super) fn watch(until_stdin_closes: bool) -> Result<Self, Failure> {
        let on = |kind| {
            signal(kind).map_err(|error| Failure::failed(format!("cannot watch for signals: {error}")))
        };
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hang_up: on(SignalKind::hangup())?,
            until_stdin_closes,
        })
    }

    /// Waits for the first reason to end.
    pub(super) async fn comes(&mut self) {
        let is_bound = self.until_stdin_closes;
        tokio::select! {
            signal = self.signal() => info!(signal, "ending"),
            () = stdin_closes(), if is_bound => info!("ending, as whoever started this daemon has ended"),
        }
    }

    /// Waits for one more signal while the orderly end takes its time, and then ends at once. The plugins' guard sees
    /// that we are gone and ends them.
    pub(super) async fn insisted_on(mut self) {
        let signal = self.signal().await;
        warn!(signal, "ending at once");
        process::exit(EXIT_INTERRUPTED);
    }

    async fn signal(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hang_up.recv() => "SIGHUP",
        }
    }
}

async fn stdin_closes() {
    let mut rest = [0; 256];
    let mut stdin = tokio::io::stdin();
    // What stands there is nobody's business; only its end matters, and an error is an end.
    while matches!(stdin.read(&mut rest).await, Ok(1..)) {}
}
