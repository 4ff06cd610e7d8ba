//! Whether a plugin may run: what lies on the disk held against what the user allowed. Owns the user's decisions.
//!
//! Refuses to know: processes and sessions.

use std::time::{Duration, Instant};

use super::{Supervisor, policy_of};
use crate::{
    grants::Grant,
    manifest,
    snapshot::CommandError,
    supervise::{State, Verdict},
};

/// How long reading a plugin's directory may take (a sleeping disk, a network share) before a start fails.
const LOAD_WITHIN: Duration = Duration::from_secs(10);

impl Supervisor {
    /// The user approves the plugin as it lies there now.
    pub(super) async fn enable(&mut self) -> Result<(), CommandError> {
        self.reload().await.map_err(|reason| self.failed(reason))?;
        self.apply_verdict().await;
        let (Some(manifest), Some(exec_hash)) = (&self.loaded.manifest, &self.loaded.exec_hash) else {
            return Err(self.why_not());
        };
        if self.machine.state() == State::Invalid {
            return Err(self.why_not());
        }
        let grant = Grant { exec_hash: exec_hash.clone(), permissions: manifest.permissions.clone() };
        self.remember(Some(grant)).await?;
        self.restart_if_changed();
        self.autostart();
        Ok(())
    }

    /// What runs is what was approved before; the user has just approved what lies there now.
    fn restart_if_changed(&mut self) {
        if self.process.is_some() && self.launched_hash != self.loaded.exec_hash {
            let now = Instant::now();
            self.machine.handle_stop(now, "restarted: its files changed and were approved");
            self.machine.handle_start(now);
        }
    }

    pub(super) async fn remember(&mut self, grant: Option<Grant>) -> Result<(), CommandError> {
        let (shared, id) = (self.shared.clone(), self.id.clone());
        let written = tokio::task::spawn_blocking(move || shared.grants().set(&id, grant)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                return Err(self.failed(format!("the decision cannot be written down: {error}")));
            }
            Err(error) => return Err(self.failed(error.to_string())),
        }
        self.apply_verdict().await;
        Ok(())
    }

    pub(super) async fn reload(&mut self) -> Result<(), String> {
        let dir = self.loaded.dir.clone();
        let reading = tokio::task::spawn_blocking(move || manifest::load(&dir));
        match tokio::time::timeout(LOAD_WITHIN, reading).await {
            Ok(Ok(loaded)) => {
                self.loaded = loaded;
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("its directory cannot be read in time".to_owned()),
        }
    }

    pub(super) async fn apply_verdict(&mut self) {
        let verdict = self.verdict();
        if verdict != Verdict::Allowed
            && let Some(commands) = self.commands.take()
        {
            // Their files may have changed, and each stream would run them anew.
            commands.end().await;
        }
        self.machine.set_policy(policy_of(self.loaded.manifest.as_ref()));
        self.machine.handle_verdict(Instant::now(), verdict);
    }

    pub(super) fn verdict(&self) -> Verdict {
        let Some(manifest) = &self.loaded.manifest else {
            return Verdict::Invalid(self.loaded.errors.first().map(ToString::to_string).unwrap_or_default());
        };
        if manifest.id != self.id {
            return Verdict::Invalid(format!(
                "its manifest says id = \"{}\", its directory {}",
                manifest.id, self.id
            ));
        }
        let granted = self.shared.grants().of(&self.id).cloned();
        let Some(granted) = granted else { return Verdict::Disabled };
        let beyond = manifest.permissions.beyond(&granted.permissions);
        if !beyond.is_empty() {
            let list: Vec<String> = beyond.iter().map(ToString::to_string).collect();
            return Verdict::NeedsApproval(format!("it asks for more: {}", list.join(", ")));
        }
        if self.loaded.exec_hash.as_deref() != Some(&granted.exec_hash) {
            return Verdict::NeedsApproval("its files changed since you enabled it".to_owned());
        }
        Verdict::Allowed
    }

    pub(super) fn new_permissions(&self) -> Vec<String> {
        let granted =
            self.shared.grants().of(&self.id).map(|grant| grant.permissions.clone()).unwrap_or_default();
        let wanted = self.loaded.manifest.as_ref().map(|manifest| manifest.permissions.beyond(&granted));
        wanted.unwrap_or_default().iter().map(ToString::to_string).collect()
    }
}
