//! The life of one plugin as a pure machine: when to start, how to stop, when to try again, when to give up. Owns the
//! states and the policy of plugin-host.md C11.
//!
//! ```text
//!                     start              Ready              (degraded, waiting-network: by Status)
//!  disabled ─ stopped ─────> starting ─────────> running
//!  needs-approval      <──┐     │ ends, times out    │ ends
//!  invalid                │     v                    v
//!                 stopping┴── backoff ──> starting ... (5 deaths before Ready, or exit 78: failed)
//! ```
//!
//! Restart: 1 s, doubled each time, +-20 %, at most 60 s; forgotten after 60 s of health. Exit 0 is done, 75 ("try again
//! later") is not counted, 78 ("configuration") is final. Stop: Shutdown, close stdin, SIGTERM to the group, kill
//! everything; together at most 15 s.
//!
//! Refuses to know: processes, sockets, the clock and randomness; the shell in `plugin` brings them. Speaks the language
//! of all our machines: `handle_*`, then `poll_action` until `None`, then `poll_timeout`.

mod state;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

pub use self::state::State;
use crate::{manifest::Restart, spawner::Exit};

/// First pause before a restart; with doubling, five quick deaths take half a minute.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest pause before a restart: a plugin whose cause has gone is back within a minute, and costs nothing meanwhile.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Health for this long clears all counts: the next crash is a first crash.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// Deaths before Ready until we give up. Three could be a slow disk at boot; ten would take ten minutes to tell.
const EARLY_DEATHS_MAX: u32 = 5;
/// After Shutdown's own deadline, how long closing stdin may take to help.
const STDIN_PATIENCE: Duration = Duration::from_secs(1);
/// How long a program may take to obey SIGTERM.
const TERM_PATIENCE: Duration = Duration::from_secs(2);
/// How long the kernel may take to kill what cannot refuse; longer means a process hangs in a driver.
const KILL_PATIENCE: Duration = Duration::from_secs(2);

/// sysexits.h EX_TEMPFAIL: "try again later", not counted as a failure.
const EXIT_TEMPFAIL: i32 = 75;
/// sysexits.h EX_CONFIG: trying again is of no use.
const EXIT_CONFIG: i32 = 78;

/// What disk and grants say about a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    Disabled,
    NeedsApproval(String),
    Invalid(String),
}

/// What the plugin says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Ok,
    Degraded,
    WaitingNetwork,
}

/// What the shell must do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Launch the process; answer with `handle_launch_failed` if that does not work.
    Launch,
    /// No process to launch: the stream commands may be served now.
    Serve,
    /// Tell the plugin to end within this time.
    Shutdown(Duration),
    CloseStdin,
    Terminate,
    Kill,
    /// It is over (stopped, failed, or about to be restarted): withdraw what belongs to this run.
    Ended,
}

/// The part of a manifest that decides a plugin's life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// `None`: only stream commands, no process of its own.
    pub(crate) process: Option<ProcessPolicy>,
}

/// See [`Policy`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessPolicy {
    pub(crate) restart: Restart,
    pub(crate) start_timeout: Duration,
    pub(crate) stop_timeout: Duration,
}

/// A random number from -1 to 1 for the pause of the next restart, so that many plugins do not come back at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Jitter(pub(crate) f64);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// No process: `State` tells why.
    Resting(State),
    Starting {
        until: Instant,
    },
    Up {
        health: Health,
        healthy_since: Option<Instant>,
    },
    Stopping {
        rung: Rung,
        until: Instant,
        then: Then,
    },
    Backoff {
        until: Instant,
    },
    Dev,
}

/// The rungs of the stop ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    Shutdown,
    Stdin,
    Term,
    Kill,
}

/// What comes after stopping.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Then {
    Rest(State, String),
    StartAgain,
    /// It has to go because it failed: treat its end like a crash.
    Fail {
        reason: String,
        was_early: bool,
    },
    /// Its session ended first: let its exit code speak, if it ends by itself.
    Judge {
        was_early: bool,
        was_waiting: bool,
    },
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Machine {
    policy: Policy,
    phase: Phase,
    since: Instant,
    reason: String,
    early_deaths: u32,
    failures: u32,
    restarts: u32,
    last_exit: Option<Exit>,
    /// Whether there is somebody to say Shutdown to.
    has_session: bool,
    actions: VecDeque<Action>,
}

impl Machine {
    pub(crate) fn new(policy: Policy, now: Instant) -> Self {
        Self {
            policy,
            phase: Phase::Resting(State::Stopped),
            since: now,
            reason: String::new(),
            early_deaths: 0,
            failures: 0,
            restarts: 0,
            last_exit: None,
            has_session: false,
            actions: VecDeque::new(),
        }
    }

    pub(crate) fn state(&self) -> State {
        match &self.phase {
            Phase::Resting(state) => *state,
            Phase::Starting { .. } => State::Starting,
            Phase::Up { health: Health::Ok, .. } => State::Running,
            Phase::Up { health: Health::Degraded, .. } => State::Degraded,
            Phase::Up { health: Health::WaitingNetwork, .. } => State::WaitingNetwork,
            Phase::Stopping { .. } => State::Stopping,
            Phase::Backoff { .. } => State::Backoff,
            Phase::Dev => State::Dev,
        }
    }

    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }

    pub(crate) fn restarts(&self) -> u32 {
        self.restarts
    }

    pub(crate) fn last_exit(&self) -> Option<Exit> {
        self.last_exit
    }

    /// Whether it rests in this state, or will once it has stopped.
    pub(crate) fn is_to_be(&self, state: State) -> bool {
        match &self.phase {
            Phase::Resting(resting) => *resting == state,
            Phase::Stopping { then: Then::Rest(next, _), .. } => *next == state,
            Phase::Stopping { .. }
            | Phase::Starting { .. }
            | Phase::Up { .. }
            | Phase::Backoff { .. }
            | Phase::Dev => false,
        }
    }

    /// When the next restart is tried.
    pub(crate) fn next_try(&self) -> Option<Instant> {
        match self.phase {
            Phase::Backoff { until } => Some(until),
            Phase::Resting(_)
            | Phase::Starting { .. }
            | Phase::Up { .. }
            | Phase::Stopping { .. }
            | Phase::Dev => None,
        }
    }

    /// Whether a process may be alive.
    pub(crate) fn has_process(&self) -> bool {
        match self.phase {
            Phase::Starting { .. } | Phase::Stopping { .. } => true,
            Phase::Up { .. } => self.policy.process.is_some(),
            Phase::Resting(_) | Phase::Backoff { .. } | Phase::Dev => false,
        }
    }

    /// Takes the policy of a new manifest. It counts from the next start on.
    pub(crate) fn set_policy(&mut self, policy: Policy) {
        if !self.has_process() {
            self.policy = policy;
        }
    }

    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Starting { until } | Phase::Stopping { until, .. } | Phase::Backoff { until } => {
                Some(until)
            }
            Phase::Up { healthy_since: Some(since), .. } if self.failures > 0 || self.early_deaths > 0 => {
                Some(since + HEALTHY_AFTER)
            }
            Phase::Resting(_) | Phase::Up { .. } | Phase::Dev => None,
        }
    }

    /// Disk or grants say something new. A running plugin that may no longer run is stopped.
    pub(crate) fn handle_verdict(&mut self, now: Instant, verdict: Verdict) {
        let (state, reason) = match verdict {
            Verdict::Allowed => {
                if matches!(
                    self.phase,
                    Phase::Resting(State::Invalid | State::Disabled | State::NeedsApproval)
                ) {
                    self.rest(now, State::Stopped, String::new());
                }
                return;
            }
            Verdict::Disabled => (State::Disabled, "not enabled by the user".to_owned()),
            Verdict::NeedsApproval(reason) => (State::NeedsApproval, reason),
            Verdict::Invalid(reason) => (State::Invalid, reason),
        };
        match self.phase {
            // What changed on disk counts at the next start; what runs was approved as it is.
            Phase::Starting { .. } | Phase::Up { .. } if self.has_process() && state != State::Disabled => {}
            Phase::Dev => {}
            Phase::Resting(old) if old == state && self.reason == reason => {}
            Phase::Resting(_) | Phase::Starting { .. } | Phase::Up { .. } | Phase::Backoff { .. } => {
                self.stop(now, Then::Rest(state, reason));
            }
            Phase::Stopping { rung, until, .. } => {
                self.phase = Phase::Stopping { rung, until, then: Then::Rest(state, reason) };
            }
        }
    }

    /// The user (or autostart) wants it to run. Tells whether it will.
    pub(crate) fn handle_start(&mut self, now: Instant) -> bool {
        match &mut self.phase {
            Phase::Resting(State::Stopped | State::Failed) | Phase::Backoff { .. } => {
                self.forget_failures();
                self.start(now);
                true
            }
            Phase::Stopping { then, .. } => {
                if let Then::Rest(State::Stopped, _) = then {
                    *then = Then::StartAgain;
                }
                matches!(then, Then::StartAgain | Then::Fail { .. } | Then::Judge { .. })
            }
            Phase::Starting { .. } | Phase::Up { .. } => true,
            Phase::Resting(_) | Phase::Dev => false,
        }
    }

    /// The user wants it to stop.
    pub(crate) fn handle_stop(&mut self, now: Instant, reason: &str) {
        match self.phase {
            Phase::Resting(State::Failed)
            | Phase::Starting { .. }
            | Phase::Up { .. }
            | Phase::Backoff { .. } => {
                self.stop(now, Then::Rest(State::Stopped, reason.to_owned()));
            }
            Phase::Stopping { rung, until, ref then } => {
                if !matches!(then, Then::Rest(..)) {
                    let then = Then::Rest(State::Stopped, reason.to_owned());
                    self.phase = Phase::Stopping { rung, until, then };
                }
            }
            Phase::Resting(_) | Phase::Dev => {}
        }
    }

    /// The author runs it in a terminal. Only where no process of ours may be alive.
    pub(crate) fn handle_dev(&mut self, now: Instant) -> bool {
        if self.has_process() || self.state().is_up() {
            return false;
        }
        self.enter(now, Phase::Dev, "run by its author".to_owned());
        true
    }

    /// The author's run is over.
    pub(crate) fn handle_dev_end(&mut self, now: Instant) {
        if self.phase == Phase::Dev {
            self.rest(now, State::Stopped, "the author's run is over".to_owned());
        }
    }

    pub(crate) fn handle_launch_failed(&mut self, now: Instant, reason: String, jitter: Jitter) {
        if let Phase::Starting { .. } = self.phase {
            self.fail(now, reason, true, jitter);
        }
    }

    /// The plugin has opened its session.
    pub(crate) fn handle_session_up(&mut self) {
        self.has_session = true;
    }

    /// The plugin said Ready.
    pub(crate) fn handle_ready(&mut self, now: Instant) {
        if let Phase::Starting { .. } = self.phase {
            self.enter(now, Phase::Up { health: Health::Ok, healthy_since: Some(now) }, String::new());
        }
    }

    /// The plugin said how it feels.
    pub(crate) fn handle_health(&mut self, now: Instant, new: Health) {
        if let Phase::Up { health, .. } = self.phase
            && health != new
        {
            let healthy_since = (new == Health::Ok).then_some(now);
            self.enter(now, Phase::Up { health: new, healthy_since }, String::new());
        }
    }

    /// Its session ended while its process may live: without it a plugin is of no use. With `fault` it broke a rule and
    /// its exit code does not count; without, it is probably on its way out.
    pub(crate) fn handle_session_lost(&mut self, now: Instant, fault: Option<&str>) {
        let (was_early, was_waiting) = match self.phase {
            Phase::Starting { .. } => (true, false),
            Phase::Up { health, .. } => (false, health == Health::WaitingNetwork),
            Phase::Resting(_) | Phase::Stopping { .. } | Phase::Backoff { .. } | Phase::Dev => return,
        };
        let then = match fault {
            Some(reason) => Then::Fail { reason: reason.to_owned(), was_early },
            None => Then::Judge { was_early, was_waiting },
        };
        self.has_session = false;
        self.stop(now, then);
    }

    /// The process and all its descendants are gone.
    pub(crate) fn handle_gone(&mut self, now: Instant, exit: Exit, jitter: Jitter) {
        self.last_exit = Some(exit);
        match self.phase.clone() {
            Phase::Stopping { then: Then::Rest(state, reason), .. } => self.rest(now, state, reason),
            Phase::Stopping { then: Then::StartAgain, .. } => {
                self.actions.push_back(Action::Ended);
                self.start(now);
            }
            Phase::Stopping { then: Then::Fail { reason, was_early }, .. } => {
                self.fail(now, reason, was_early, jitter);
            }
            Phase::Stopping { then: Then::Judge { was_early, was_waiting }, .. } => {
                self.judge(now, exit, (was_early, was_waiting), jitter);
            }
            Phase::Starting { .. } => self.judge(now, exit, (true, false), jitter),
            Phase::Up { health, .. } => {
                self.judge(now, exit, (false, health == Health::WaitingNetwork), jitter);
            }
            Phase::Resting(_) | Phase::Backoff { .. } | Phase::Dev => {}
        }
    }

    /// It ended by itself: lets the exit code decide what comes next.
    fn judge(&mut self, now: Instant, exit: Exit, (was_early, was_waiting): (bool, bool), jitter: Jitter) {
        let restart = self.policy.process.map_or(Restart::Never, |process| process.restart);
        let when = if was_early { " before it was ready" } else { "" };
        let reason = format!("{exit}{when}");
        match exit {
            Exit::Code(0) if restart != Restart::Always => self.rest(now, State::Stopped, "done".to_owned()),
            Exit::Code(EXIT_CONFIG) => self.rest(now, State::Failed, reason),
            Exit::Code(EXIT_TEMPFAIL) if restart != Restart::Never => self.back_off(now, reason, jitter),
            Exit::Code(_) | Exit::Signal(_) | Exit::Unseen if was_waiting && restart != Restart::Never => {
                self.back_off(now, reason, jitter);
            }
            Exit::Code(_) | Exit::Signal(_) | Exit::Unseen => self.fail(now, reason, was_early, jitter),
        }
    }

    /// Time has passed; call when `poll_timeout` is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return;
        }
        match self.phase.clone() {
            Phase::Starting { .. } => {
                let reason = "not ready in time (start_timeout)".to_owned();
                self.stop(now, Then::Fail { reason, was_early: true });
            }
            Phase::Up { .. } => self.forget_failures(),
            Phase::Stopping { rung, then, .. } => self.climb(now, rung, then),
            Phase::Backoff { .. } => {
                self.restarts = self.restarts.saturating_add(1);
                self.start(now);
            }
            Phase::Resting(_) | Phase::Dev => {}
        }
    }

    fn forget_failures(&mut self) {
        self.early_deaths = 0;
        self.failures = 0;
    }

    fn start(&mut self, now: Instant) {
        self.has_session = false;
        match self.policy.process {
            Some(process) => {
                self.actions.push_back(Action::Launch);
                let until = now + process.start_timeout;
                self.enter(now, Phase::Starting { until }, String::new());
            }
            None => {
                self.actions.push_back(Action::Serve);
                self.enter(now, Phase::Up { health: Health::Ok, healthy_since: Some(now) }, String::new());
            }
        }
    }

    /// Begins to stop, at the first rung or (without a session to talk to) at the second.
    fn stop(&mut self, now: Instant, then: Then) {
        if !self.has_process() {
            match then {
                Then::Rest(state, reason) => self.rest(now, state, reason),
                Then::StartAgain => self.start(now),
                Then::Fail { reason, .. } => self.rest(now, State::Failed, reason),
                Then::Judge { .. } => self.rest(now, State::Stopped, String::new()),
            }
            return;
        }
        let patience = self.policy.process.map_or(Duration::ZERO, |process| process.stop_timeout);
        let (action, rung, patience) = if self.has_session {
            (Action::Shutdown(patience), Rung::Shutdown, patience)
        } else {
            (Action::CloseStdin, Rung::Stdin, STDIN_PATIENCE)
        };
        self.actions.push_back(action);
        let reason = match &then {
            Then::Rest(_, reason) | Then::Fail { reason, .. } => reason.clone(),
            Then::StartAgain => String::new(),
            Then::Judge { .. } => "its session ended".to_owned(),
        };
        self.enter(now, Phase::Stopping { rung, until: now + patience, then }, reason);
    }

    fn climb(&mut self, now: Instant, rung: Rung, mut then: Then) {
        if let Then::Judge { was_early, .. } = then {
            // It did not end by itself, so its exit code will be our doing.
            then = Then::Fail { reason: "it closed its session and went on running".to_owned(), was_early };
        }
        let (rung, action, patience) = match rung {
            Rung::Shutdown => (Rung::Stdin, Action::CloseStdin, STDIN_PATIENCE),
            Rung::Stdin => (Rung::Term, Action::Terminate, TERM_PATIENCE),
            Rung::Term => (Rung::Kill, Action::Kill, KILL_PATIENCE),
            // The kernel cannot kill it now; keep asking, and keep saying so.
            Rung::Kill => {
                self.reason = "a process does not die even by SIGKILL (it hangs in the kernel)".to_owned();
                (Rung::Kill, Action::Kill, KILL_PATIENCE)
            }
        };
        self.actions.push_back(action);
        self.phase = Phase::Stopping { rung, until: now + patience, then };
    }

    fn fail(&mut self, now: Instant, reason: String, was_early: bool, jitter: Jitter) {
        if was_early {
            self.early_deaths += 1;
        }
        let restart = self.policy.process.map_or(Restart::Never, |process| process.restart);
        if restart == Restart::Never {
            self.rest(now, State::Failed, reason);
        } else if self.early_deaths >= EARLY_DEATHS_MAX {
            let reason = format!("gave up after {EARLY_DEATHS_MAX} tries: {reason}");
            self.rest(now, State::Failed, reason);
        } else {
            self.back_off(now, reason, jitter);
        }
    }

    fn back_off(&mut self, now: Instant, reason: String, jitter: Jitter) {
        let doubled = BACKOFF_FIRST.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MAX);
        let pause = doubled.mul_f64(1.0 + 0.2 * jitter.0.clamp(-1.0, 1.0));
        self.failures = self.failures.saturating_add(1);
        self.actions.push_back(Action::Ended);
        self.enter(now, Phase::Backoff { until: now + pause }, reason);
    }

    fn rest(&mut self, now: Instant, state: State, reason: String) {
        if !matches!(self.phase, Phase::Resting(_)) {
            self.actions.push_back(Action::Ended);
        }
        self.enter(now, Phase::Resting(state), reason);
    }

    fn enter(&mut self, now: Instant, phase: Phase, reason: String) {
        let old = self.state();
        self.phase = phase;
        tracing::trace!(from = %old, to = %self.state(), reason, "plugin state");
        if self.state() != old {
            self.since = now;
        }
        self.reason = reason;
    }
}

#[cfg(test)]
mod tests;
