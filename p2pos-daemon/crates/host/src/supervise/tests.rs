//! The policy in virtual time: no process, no clock.

use super::*;

struct Bench {
    machine: Machine,
    now: Instant,
}

const EVEN: Jitter = Jitter(0.0);

impl Bench {
    fn with(restart: Restart) -> Self {
        let process = ProcessPolicy {
            restart,
            start_timeout: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(5),
        };
        let now = Instant::now();
        Self { machine: Machine::new(Policy { process: Some(process) }, now), now }
    }

    fn new() -> Self {
        Self::with(Restart::OnFailure)
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.machine.poll_action()).collect()
    }

    fn start(&mut self) {
        assert!(self.machine.handle_start(self.now));
        assert!(self.actions().contains(&Action::Launch));
    }

    fn ready(&mut self) {
        self.machine.handle_session_up();
        self.machine.handle_ready(self.now);
        assert_eq!(self.machine.state(), State::Running);
    }

    fn exit(&mut self, code: i32) {
        self.machine.handle_gone(self.now, Exit::Code(code), EVEN);
    }

    /// Jumps to the machine's next deadline and returns how far that was.
    fn jump(&mut self) -> Duration {
        let due = self.machine.poll_timeout().expect("something is due");
        let jumped = due - self.now;
        self.now = due;
        self.machine.handle_timeout(self.now);
        jumped
    }
}

#[test]
fn a_start_waits_for_ready_and_a_late_one_is_stopped_and_counted() {
    let mut bench = Bench::new();
    bench.start();
    bench.machine.handle_session_up();
    assert_eq!(bench.machine.state(), State::Starting);
    assert_eq!(bench.jump(), Duration::from_secs(60));
    assert_eq!(bench.machine.state(), State::Stopping);
    assert_eq!(bench.actions(), [Action::Shutdown(Duration::from_secs(5))]);
    bench.machine.handle_gone(bench.now, Exit::Signal(9), EVEN);
    assert_eq!(bench.machine.state(), State::Backoff);
    assert!(bench.machine.reason().contains("not ready in time"));
}

#[test]
fn five_deaths_before_ready_are_final_and_come_ever_slower() {
    let mut bench = Bench::new();
    bench.start();
    let mut pauses = Vec::new();
    for _ in 0..4 {
        bench.exit(1);
        assert_eq!(bench.machine.state(), State::Backoff);
        pauses.push(bench.jump().as_secs());
        assert_eq!(bench.machine.state(), State::Starting);
    }
    bench.exit(1);
    assert_eq!(pauses, [1, 2, 4, 8]);
    assert_eq!(bench.machine.state(), State::Failed);
    assert!(
        bench.machine.reason().contains("gave up after 5 tries: exit code 1"),
        "{}",
        bench.machine.reason()
    );
    assert_eq!(bench.machine.poll_timeout(), None);
    assert_eq!(bench.machine.restarts(), 4);
}

#[test]
fn crashes_of_a_plugin_that_was_ready_are_retried_for_ever_at_the_cap() {
    let mut bench = Bench::new();
    bench.start();
    let mut last = Duration::ZERO;
    for _ in 0..20 {
        bench.ready();
        bench.exit(1);
        last = bench.jump();
    }
    assert_eq!(last, Duration::from_secs(60));
    assert_eq!(bench.machine.state(), State::Starting);
}

#[test]
fn sixty_healthy_seconds_forget_every_failure() {
    let mut bench = Bench::new();
    bench.start();
    for _ in 0..3 {
        bench.ready();
        bench.exit(1);
        bench.jump();
    }
    bench.ready();
    assert_eq!(bench.jump(), Duration::from_secs(60));
    assert_eq!(bench.machine.state(), State::Running);
    bench.exit(1);
    assert_eq!(bench.jump(), Duration::from_secs(1), "a first crash again");
}

#[test]
fn the_pause_varies_by_a_fifth_and_no_more() {
    for (jitter, wanted_ms) in [(-1.0, 800), (1.0, 1200), (7.0, 1200)] {
        let mut bench = Bench::new();
        bench.start();
        bench.machine.handle_gone(bench.now, Exit::Code(1), Jitter(jitter));
        assert_eq!(bench.jump().as_millis(), wanted_ms);
    }
}

#[test]
fn exit_codes_speak() {
    let after = |restart, code, is_ready| {
        let mut bench = Bench::with(restart);
        bench.start();
        if is_ready {
            bench.ready();
        }
        bench.exit(code);
        bench.machine.state()
    };
    assert_eq!(after(Restart::OnFailure, 0, true), State::Stopped);
    assert_eq!(after(Restart::OnFailure, 0, false), State::Stopped);
    assert_eq!(after(Restart::OnFailure, 78, true), State::Failed);
    assert_eq!(after(Restart::OnFailure, 75, false), State::Backoff);
    assert_eq!(after(Restart::OnFailure, 1, true), State::Backoff);
    assert_eq!(after(Restart::Always, 0, true), State::Backoff);
    assert_eq!(after(Restart::Never, 1, true), State::Failed);
    assert_eq!(after(Restart::Never, 0, true), State::Stopped);
    assert_eq!(after(Restart::Never, 75, true), State::Failed);
}

#[test]
fn trying_again_later_is_never_counted_as_a_death() {
    let mut bench = Bench::new();
    bench.start();
    for _ in 0..20 {
        bench.exit(75);
        assert_eq!(bench.machine.state(), State::Backoff);
        bench.jump();
    }
}

#[test]
fn a_plugin_that_waits_for_the_network_is_not_blamed_for_ending() {
    let mut bench = Bench::new();
    bench.start();
    bench.ready();
    bench.machine.handle_health(bench.now, Health::WaitingNetwork);
    assert_eq!(bench.machine.state(), State::WaitingNetwork);
    bench.exit(1);
    assert_eq!(bench.machine.state(), State::Backoff);
}

#[test]
fn the_stop_ladder_has_four_rungs_and_fifteen_seconds() {
    let mut bench = Bench::new();
    bench.machine.set_policy(Policy {
        process: Some(ProcessPolicy {
            restart: Restart::OnFailure,
            start_timeout: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(10),
        }),
    });
    bench.start();
    bench.ready();
    let began = bench.now;
    bench.machine.handle_stop(bench.now, "stopped by the user");
    assert_eq!(bench.actions(), [Action::Shutdown(Duration::from_secs(10))]);
    bench.jump();
    assert_eq!(bench.actions(), [Action::CloseStdin]);
    bench.jump();
    assert_eq!(bench.actions(), [Action::Terminate]);
    bench.jump();
    assert_eq!(bench.actions(), [Action::Kill]);
    bench.jump();
    assert!(bench.now - began <= Duration::from_secs(15));
    assert_eq!(bench.machine.state(), State::Stopping, "not stopped while a process lives");
    bench.machine.handle_gone(bench.now, Exit::Signal(9), EVEN);
    assert_eq!(bench.machine.state(), State::Stopped);
    assert_eq!(bench.machine.reason(), "stopped by the user");
}

#[test]
fn a_plugin_that_never_connected_is_not_asked_to_shut_down() {
    let mut bench = Bench::new();
    bench.start();
    bench.machine.handle_stop(bench.now, "stopped by the user");
    assert_eq!(bench.actions(), [Action::CloseStdin]);
}

#[test]
fn a_lost_session_ends_the_process_and_counts_as_a_crash() {
    let mut bench = Bench::new();
    bench.start();
    bench.ready();
    bench.machine.handle_session_lost(bench.now, Some("broke the protocol"));
    assert_eq!(bench.actions(), [Action::CloseStdin]);
    bench.machine.handle_gone(bench.now, Exit::Code(0), EVEN);
    assert_eq!(bench.machine.state(), State::Backoff);
    assert_eq!(bench.machine.reason(), "broke the protocol");
}

#[test]
fn a_plugin_that_leaves_in_order_is_judged_by_its_exit_code() {
    for (code, state) in [(0, State::Stopped), (78, State::Failed), (1, State::Backoff)] {
        let mut bench = Bench::new();
        bench.start();
        bench.ready();
        bench.machine.handle_session_lost(bench.now, None);
        bench.exit(code);
        assert_eq!(bench.machine.state(), state);
    }
    let mut bench = Bench::new();
    bench.start();
    bench.ready();
    bench.machine.handle_session_lost(bench.now, None);
    bench.jump();
    assert!(bench.actions().contains(&Action::Terminate));
    bench.exit(0);
    assert_eq!(bench.machine.state(), State::Backoff, "we ended it, so its 0 does not count");
}

#[test]
fn stream_commands_stop_when_their_files_change() {
    let now = Instant::now();
    let mut machine = Machine::new(Policy { process: None }, now);
    assert!(machine.handle_start(now));
    machine.handle_verdict(now, Verdict::NeedsApproval("changed".into()));
    assert_eq!(machine.state(), State::NeedsApproval);
}

#[test]
fn a_stop_during_backoff_or_after_giving_up_rests() {
    let mut bench = Bench::new();
    bench.start();
    bench.exit(1);
    bench.machine.handle_stop(bench.now, "stopped by the user");
    assert_eq!(bench.machine.state(), State::Stopped);
    bench.start();
    bench.exit(78);
    assert_eq!(bench.machine.state(), State::Failed);
    assert!(bench.machine.handle_start(bench.now), "the user may try again");
}

#[test]
fn a_start_during_stopping_starts_again_afterwards() {
    let mut bench = Bench::new();
    bench.start();
    bench.ready();
    bench.machine.handle_stop(bench.now, "restart");
    assert!(bench.machine.handle_start(bench.now));
    bench.actions();
    bench.exit(0);
    assert_eq!(bench.actions(), [Action::Ended, Action::Launch]);
    assert_eq!(bench.machine.state(), State::Starting);
}

#[test]
fn what_may_not_run_does_not_start_and_what_is_disabled_stops() {
    for (verdict, state) in [
        (Verdict::Disabled, State::Disabled),
        (Verdict::NeedsApproval("changed".into()), State::NeedsApproval),
        (Verdict::Invalid("plugin.toml:1:1: bad".into()), State::Invalid),
    ] {
        let mut bench = Bench::new();
        bench.machine.handle_verdict(bench.now, verdict);
        assert_eq!(bench.machine.state(), state);
        assert!(!bench.machine.handle_start(bench.now));
        bench.machine.handle_verdict(bench.now, Verdict::Allowed);
        assert_eq!(bench.machine.state(), State::Stopped);
    }
    let mut bench = Bench::new();
    bench.start();
    bench.ready();
    bench.machine.handle_verdict(bench.now, Verdict::NeedsApproval("changed".into()));
    assert_eq!(bench.machine.state(), State::Running, "what runs was approved as it is");
    bench.machine.handle_verdict(bench.now, Verdict::Disabled);
    assert_eq!(bench.machine.state(), State::Stopping);
    bench.exit(0);
    assert_eq!(bench.machine.state(), State::Disabled);
}

#[test]
fn a_plugin_of_stream_commands_is_up_and_down_at_once() {
    let now = Instant::now();
    let mut machine = Machine::new(Policy { process: None }, now);
    assert!(machine.handle_start(now));
    assert_eq!((machine.poll_action(), machine.state()), (Some(Action::Serve), State::Running));
    machine.handle_stop(now, "stopped by the user");
    assert_eq!((machine.poll_action(), machine.state()), (Some(Action::Ended), State::Stopped));
    assert_eq!(machine.poll_timeout(), None);
}

#[test]
fn a_failed_launch_is_a_death_before_ready() {
    let mut bench = Bench::new();
    bench.start();
    bench.machine.handle_launch_failed(bench.now, "no such file".into(), EVEN);
    assert_eq!((bench.machine.state(), bench.machine.reason()), (State::Backoff, "no such file"));
}

#[test]
fn an_author_takes_the_place_of_a_resting_plugin_only() {
    let mut bench = Bench::new();
    bench.machine.handle_verdict(bench.now, Verdict::Disabled);
    assert!(bench.machine.handle_dev(bench.now));
    assert_eq!(bench.machine.state(), State::Dev);
    bench.machine.handle_dev_end(bench.now);
    assert_eq!(bench.machine.state(), State::Stopped);
    bench.start();
    assert!(!bench.machine.handle_dev(bench.now));
}
