//! What the demo sets up and must take down again: a folder and daemons.

use std::path::Path;

use p2pos_control::{Failure, Status};

use super::Orders;
use super::daemons::Daemon;
use super::place::{Folder, Found};
use crate::cli::Output;

/// The daemons' names; they are each other's petnames too.
const NAMES: [&str; 3] = ["a", "b", "c"];

/// Folder and daemons. Dropped without [`Stage::strike`], it kills instead of asking, and leaves as little.
#[derive(Debug)]
pub(super) struct Stage {
    // Before the folder: whoever works in it must be gone first.
    daemons: Vec<Daemon>,
    folder: Folder,
    found: Found,
}

impl Stage {
    /// Makes the folder and starts the daemons.
    pub(super) fn set(orders: Orders) -> Result<Self, Failure> {
        let mut stage = Self { daemons: Vec::new(), folder: Folder::make()?, found: Found::look()? };
        for name in NAMES.into_iter().take(orders.peers.into()) {
            stage.daemons.push(Daemon::start(name, &stage.found, &stage.folder, orders.keep)?);
        }
        Ok(stage)
    }

    /// Waits until all are ready, and gives their first words in the order of their names.
    pub(super) async fn ready(&mut self) -> Result<Vec<Status>, Failure> {
        let mut statuses = Vec::new();
        for daemon in &mut self.daemons {
            statuses.push(daemon.ready().await?);
        }
        Ok(statuses)
    }

    pub(super) fn daemons(&self) -> &[Daemon] {
        &self.daemons
    }

    /// Where the bundled plugins lie.
    pub(super) fn plugins(&self) -> &Path {
        &self.found.plugins
    }

    /// Ends everything and removes it.
    pub(super) async fn strike(&mut self, output: Output) {
        for daemon in &self.daemons {
            daemon.ask_to_end();
        }
        for daemon in &mut self.daemons {
            daemon.ended().await;
        }
        self.daemons.clear();
        if let Err(error) = self.folder.remove() {
            output.say(&format!("{} could not be removed: {error}", self.folder.path().display()));
        }
    }

    /// Leaves everything as it is, and says how to use and end it.
    pub(super) fn leave_standing(mut self, output: Output) {
        self.folder.keep();
        let p2pos = |name: &str| {
            format!("{} --data-dir {}", self.found.p2pos.display(), self.folder.path().join(name).display())
        };
        let pids: Vec<String> =
            self.daemons.iter().filter_map(Daemon::pid).map(|pid| pid.to_string()).collect();
        output.say("The daemons go on. Talk to them:");
        for daemon in &self.daemons {
            output.say(&format!("  {} status", p2pos(daemon.name)));
        }
        output.say(&format!("  echo you | {} dial b /hello-sh/1", p2pos("a")));
        output.say("End them, and remove what they kept:");
        output.say(&format!("  kill {}; sleep 1; rm -r {}", pids.join(" "), self.folder.path().display()));
    }
}
