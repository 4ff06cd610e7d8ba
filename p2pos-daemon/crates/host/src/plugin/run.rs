//! One run of a plugin: its launch, its surroundings, its clearing up, and the run by its author. Owns what a run is given.
//!
//! Refuses to know: when to run (the life machine says), what the session is told.

use std::{
    ffi::OsString,
    sync::Arc,
    time::{Duration, Instant},
};

use p2pos_plugin_protocol::code::{Code, End};
use tokio_util::task::TaskTracker;

use super::{DevRun, Process, Retirement, START_TAKES, Supervisor, texts};
use crate::{
    commands::Commands,
    launch::{self, LogPipe, Pipes},
    log::LogSource,
    manifest::{Loaded, Manifest, SocketKind},
    shared::{Bearer, PluginLink},
    snapshot::{CommandError, DevLaunch},
    spawner::{self, Launch},
    supervise::{State, Verdict},
};

impl Supervisor {
    /// What belonged to the run that is over goes with it.
    pub(super) async fn clear_up(&mut self) {
        self.status.clear();
        self.end_session();
        if let Some(commands) = self.commands.take() {
            commands.end().await;
        }
        let back_at = match self.machine.state() {
            State::Backoff => self.machine.next_try().map(|next| next + START_TAKES),
            State::Starting => Some(Instant::now() + START_TAKES),
            State::Invalid
            | State::Disabled
            | State::NeedsApproval
            | State::Stopped
            | State::Running
            | State::Degraded
            | State::WaitingNetwork
            | State::Stopping
            | State::Failed
            | State::Dev => None,
        };
        let mut directory = self.shared.directory();
        match back_at {
            Some(back_at) => directory.set_away(self.id.as_str(), &[], back_at),
            None => directory.withdraw(self.id.as_str()),
        }
    }

    /// Ends the session, if there is one, and says whose doing it is: 107 is for what the user took back, and anything
    /// else is no reproach.
    pub(super) fn end_session(&mut self) {
        let Some(session) = self.session.take() else { return };
        if self.is_revoked() {
            session.close(End::new(Code::REVOKED), "the user has disabled or removed the plugin");
        } else {
            session.close(End::new(Code::SHUTTING_DOWN), "this run of the plugin is over");
        }
    }

    pub(super) fn is_revoked(&self) -> bool {
        self.retiring == Some(Retirement::Removed) || self.machine.is_to_be(State::Disabled)
    }

    /// Starts the process, after a last look at what is there.
    pub(super) async fn launch(&mut self) -> Result<(), String> {
        self.reload().await?;
        match self.verdict() {
            Verdict::Allowed => {}
            Verdict::Disabled => return Err("it was disabled".to_owned()),
            Verdict::NeedsApproval(reason) | Verdict::Invalid(reason) => return Err(reason),
        }
        self.launched_hash.clone_from(&self.loaded.exec_hash);
        let manifest = self.loaded.manifest.clone().ok_or("its manifest is gone")?;
        let run = manifest.run.clone().ok_or("its manifest names no program any more")?;
        let instance = self.shared.next_instance();
        let session_env = self.session_env(&manifest, instance, run.start_timeout).await?;
        let mut env = self.base_env().await?;
        env.extend(session_env.map(|(key, value)| (key.into(), value.into())));
        env.push(("P2POS_EXIT_ON_STDIN_CLOSE".into(), "1".into()));
        let pipes = Pipes::new().map_err(|error| error.to_string())?;
        // Before the process is there: a quick one has registered by the time we hear that it was started.
        self.shared.directory().set_away(self.id.as_str(), &manifest.provides, Instant::now() + START_TAKES);
        let config = &self.shared.config;
        let guarded = spawner::launch(Launch {
            guard_exec: config.guard_exec.clone(),
            exec: run.exec,
            dir: self.loaded.dir.clone(),
            env,
            limits: manifest.limits.into(),
            stdio: pipes.theirs,
            adopts_orphans: config.adopts_orphans,
        });
        let guarded = guarded.await.map_err(|error| error.to_string())?;
        self.log.life(&format!("started, process {}", guarded.pid()));
        let pumps = TaskTracker::new();
        for (pipe, source) in [(pipes.stdout, LogSource::Stdout), (pipes.stderr, LogSource::Stderr)] {
            pumps.spawn(LogPipe::new(pipe, self.log.clone(), source).run());
        }
        self.process = Some(Process { instance, guarded, stdin: Some(pipes.stdin), pumps });
        self.serve_commands();
        Ok(())
    }

    pub(super) async fn base_env(&self) -> Result<Vec<(OsString, OsString)>, String> {
        let (parent, id) = (self.shared.config.data_dir.clone(), self.id.clone());
        let made = tokio::task::spawn_blocking(move || launch::make_data_dir(&parent, &id)).await;
        let data_dir = made
            .map_err(|error| error.to_string())?
            .map_err(|error| format!("its data directory cannot be made: {error}"))?;
        Ok(launch::base_env(&self.id, &data_dir))
    }

    /// Endpoint and a fresh token for one run.
    pub(super) async fn session_env(
        &self,
        manifest: &Manifest,
        instance: u64,
        good_for: Duration,
    ) -> Result<[(&'static str, String); 3], String> {
        let endpoint = match manifest.socket {
            SocketKind::Unix => self.shared.endpoint.unix_text(),
            SocketKind::Tcp => self
                .shared
                .tcp_text()
                .await
                .map_err(|error| format!("no TCP port can be opened on 127.0.0.1: {error}"))?,
        };
        let bearer = Bearer {
            owner: self.id.as_str().into(),
            instance,
            permissions: Arc::new(manifest.permissions.clone()),
            streams_max: u32::from(manifest.limits.streams),
            plugin: Some(PluginLink { supervisor: self.messages.clone(), log: self.log.clone() }),
        };
        let token =
            self.shared.issue_token(bearer, good_for).ok_or("too many plugins are starting at once")?;
        Ok(launch::session_env(&endpoint, token.as_env_text()))
    }

    /// Offers the stream commands of the manifest, if it has any.
    pub(super) fn serve_commands(&mut self) {
        let Some(manifest) = &self.loaded.manifest else { return };
        if manifest.serve.is_empty() {
            return;
        }
        let data_dir = self.shared.config.data_dir.join(self.id.as_str());
        let env = launch::base_env(&self.id, &data_dir);
        let dir = self.loaded.dir.clone();
        let commands = Commands::offer(&self.shared, manifest, (dir, env), &self.log);
        self.commands = Some(commands);
    }

    pub(super) async fn begin_dev(&mut self, loaded: Loaded) -> Result<DevLaunch, CommandError> {
        self.end_dev().await;
        self.was_dev = true;
        let Some(manifest) = loaded.manifest.clone() else {
            return Err(CommandError::Invalid { id: self.id.to_string(), errors: texts(&loaded.errors) });
        };
        let now = Instant::now();
        if !self.machine.handle_dev(now) {
            return Err(self.failed(format!("it is {} already: stop it first", self.machine.state())));
        }
        let installed = std::mem::replace(&mut self.loaded, loaded);
        let prepared = self.prepare_dev(&manifest).await;
        if let Err(reason) = prepared {
            self.loaded = installed;
            self.end_dev_now(now).await;
            return Err(self.failed(reason));
        }
        let launch = prepared.map_err(|reason| self.failed(reason))?;
        self.serve_commands();
        Ok(launch)
    }

    pub(super) async fn prepare_dev(&mut self, manifest: &Manifest) -> Result<DevLaunch, String> {
        let instance = self.shared.next_instance();
        let good_for = manifest.run.as_ref().map(|run| run.start_timeout);
        self.dev = Some(DevRun { instance, until: good_for.map(|good_for| Instant::now() + good_for) });
        let mut env: Vec<(String, String)> = Vec::new();
        for (key, value) in self.base_env().await? {
            let is_ours = key.to_str().is_some_and(|key| key.starts_with("P2POS_"));
            if let (true, Ok(key), Ok(value)) = (is_ours, key.into_string(), value.into_string()) {
                env.push((key, value));
            }
        }
        if let Some(good_for) = good_for {
            let session = self.session_env(manifest, instance, good_for).await?;
            env.extend(session.map(|(key, value)| (key.to_owned(), value)));
        }
        Ok(DevLaunch {
            id: self.id.to_string(),
            env,
            dir: self.loaded.dir.clone(),
            exec: manifest.run.as_ref().map(|run| run.exec.clone()).unwrap_or_default(),
            warnings: self.loaded.warnings.clone(),
        })
    }

    pub(super) async fn end_dev(&mut self) {
        if self.dev.is_some() {
            self.end_dev_now(Instant::now()).await;
        }
    }

    pub(super) async fn end_dev_now(&mut self, now: Instant) {
        if let Some(dev) = self.dev.take() {
            self.shared.tokens().revoke(dev.instance);
        }
        self.machine.handle_dev_end(now);
        self.act().await;
        if self.is_installed {
            self.loaded.dir = self.shared.config.plugins_dir.join(self.id.as_str());
            if let Err(reason) = self.reload().await {
                tracing::debug!(plugin = %self.id, reason, "the installed plugin cannot be read");
            }
            self.apply_verdict().await;
        }
    }
}
