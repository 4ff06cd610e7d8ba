//! What a supervisor lets everybody see. Owns the making of [`Facts`].
//!
//! Refuses to know: who looks.

use std::{collections::BTreeSet, time::Instant};

use super::Supervisor;
use crate::{
    commands::Commands,
    manifest::{Loaded, Manifest, Problem},
    permissions::Permissions,
    plugin_id::PluginId,
    snapshot::{Facts, HostEvent},
    supervise::{Policy, ProcessPolicy, State},
};

impl Supervisor {
    /// Lets everybody see how it stands.
    pub(super) fn publish(&mut self) {
        let facts = self.facts_now();
        let told = Some((facts.state, facts.reason.clone()));
        // How it begins is no news; whatever comes of it is.
        let is_first_rest = self.told.is_none() && facts.state == State::Stopped;
        if self.told != told && !is_first_rest {
            let reason = if facts.reason.is_empty() { String::new() } else { format!(": {}", facts.reason) };
            self.log.life(&format!("{}{reason}", facts.state));
            tracing::info!(plugin = %self.id, state = %facts.state, reason = facts.reason, "plugin state");
            let event =
                HostEvent { id: self.id.to_string(), state: facts.state, reason: facts.reason.clone() };
            if self.shared.host_events.send(event).is_err() {
                // Nobody listens.
            }
            self.told = told;
        }
        self.facts.send_replace(facts);
    }

    pub(super) fn facts_now(&self) -> Facts {
        let granted: Permissions =
            self.shared.grants().of(&self.id).map(|grant| grant.permissions.clone()).unwrap_or_default();
        Facts {
            state: self.machine.state(),
            since: self.machine.since(),
            reason: self.machine.reason().to_owned(),
            next_try: self.machine.next_try(),
            status: self.status.clone(),
            pid: self.process.as_ref().map(|process| process.guarded.pid()),
            restarts: self.machine.restarts(),
            last_exit: self.machine.last_exit(),
            granted: granted.to_texts(),
            new_permissions: self.new_permissions(),
            session: self.session.clone(),
            commands: self.commands.as_ref().map(Commands::running),
            ..first_facts(&self.id, &self.loaded)
        }
    }
}

/// Log lines that a snapshot or an error carries.
pub(crate) const RECENT_LINES: usize = 20;

pub(super) fn first_facts(id: &PluginId, loaded: &Loaded) -> Facts {
    let manifest = loaded.manifest.as_ref();
    let text = |part: fn(&Manifest) -> &String| manifest.map(|manifest| part(manifest).clone());
    Facts {
        name: text(|manifest| &manifest.name).unwrap_or_else(|| id.to_string()),
        version: text(|manifest| &manifest.version).unwrap_or_default(),
        description: text(|manifest| &manifest.description).unwrap_or_default(),
        dir: loaded.dir.clone(),
        state: State::Stopped,
        since: Instant::now(),
        reason: String::new(),
        next_try: None,
        status: String::new(),
        pid: None,
        restarts: 0,
        last_exit: None,
        permissions: manifest.map(|manifest| manifest.permissions.to_texts()).unwrap_or_default(),
        granted: Vec::new(),
        new_permissions: Vec::new(),
        warnings: texts(&loaded.warnings),
        errors: texts(&loaded.errors),
        exec_hash: loaded.exec_hash.clone(),
        session: None,
        commands: None,
    }
}

pub(super) fn texts(problems: &[Problem]) -> Vec<String> {
    let unique: BTreeSet<String> = problems.iter().map(ToString::to_string).collect();
    unique.into_iter().collect()
}

pub(super) fn policy_of(manifest: Option<&Manifest>) -> Policy {
    let run = manifest.and_then(|manifest| manifest.run.as_ref());
    Policy {
        process: run.map(|run| ProcessPolicy {
            restart: run.restart,
            start_timeout: run.start_timeout,
            stop_timeout: run.stop_timeout,
        }),
    }
}
