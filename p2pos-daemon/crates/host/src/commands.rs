//! The stream commands of one plugin while they are offered. Owns their registration and their common end.
//!
//! Refuses to know: how one command runs (`serve`), when to offer them (`plugin`).

use std::{
    ffi::OsString,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use p2pos_identity::ProtocolName;
use p2pos_plugin_protocol::message::Kind;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    directory::Entry,
    log::PluginLog,
    manifest::Manifest,
    plugin_id::PluginId,
    serve::Command,
    shared::{Link, Shared},
    throttle::Throttle,
};

/// How long the commands of a plugin that is stopped may take, all together: SIGTERM, 2 s, SIGKILL, and the sweep.
const END_WITHIN: Duration = Duration::from_secs(10);

/// Stream commands on offer.
#[derive(Debug)]
pub(crate) struct Commands {
    shared: Arc<Shared>,
    owner: PluginId,
    names: Vec<ProtocolName>,
    stop: CancellationToken,
    running: TaskTracker,
}

impl Commands {
    /// Registers the commands of a manifest. A name that another plugin has already is left out, with a line in the log.
    pub(crate) fn offer(
        shared: &Arc<Shared>,
        manifest: &Manifest,
        (dir, env): (PathBuf, Vec<(OsString, OsString)>),
        log: &Arc<PluginLog>,
    ) -> Self {
        let mut commands = Self {
            shared: shared.clone(),
            owner: manifest.id.clone(),
            names: Vec::new(),
            stop: CancellationToken::new(),
            running: TaskTracker::new(),
        };
        // One for all of a plugin's commands: more names do not buy more starts.
        let throttle = Arc::new(Mutex::new(Throttle::new(Instant::now())));
        for serve in &manifest.serve {
            let command = Command {
                serve: serve.clone(),
                guard_exec: shared.config.guard_exec.clone(),
                adopts_orphans: shared.config.adopts_orphans,
                dir: dir.clone(),
                env: env.clone(),
                limits: manifest.limits.into(),
                log: log.clone(),
                throttle: throttle.clone(),
                stop: commands.stop.clone(),
                running: commands.running.clone(),
            };
            let entry = Entry {
                protocol: serve.protocol.clone(),
                kind: Kind::Stream,
                trust: serve.trust,
                concurrent_max: Some(u32::from(serve.copies_max)),
                link: Link::Command(Arc::new(command)),
            };
            match shared.directory().register(manifest.id.as_str(), vec![entry]) {
                Ok(()) => commands.names.push(serve.protocol.clone()),
                Err(clash) => log.life(&format!("{} is not served: {} has it", clash.protocol, clash.owner)),
            }
        }
        commands
    }

    /// Counts the commands that run now, also from elsewhere.
    pub(crate) fn running(&self) -> TaskTracker {
        self.running.clone()
    }

    /// Offers them no more and ends those that run; returns when none is left.
    pub(crate) async fn end(self) {
        for name in &self.names {
            self.shared.directory().unregister(self.owner.as_str(), name);
        }
        self.stop.cancel();
        self.running.close();
        if tokio::time::timeout(END_WITHIN, self.running.wait()).await.is_err() {
            tracing::warn!(plugin = %self.owner, "a stream command does not end");
        }
    }
}
