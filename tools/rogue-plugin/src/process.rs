//! Misdeeds of the process rather than of the protocol: leaving, staying, shouting, hiding. Their answers cannot be seen from
//! here; the test looks at the daemon's list of plugins, at its log, and at the machine's processes.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::stage::Stage;
use crate::wire::{Message, body, frame};
use crate::{Answer, Misdeed, ORPHAN_ARGUMENTS, ORPHAN_FILE};

/// Longer than any deadline of the daemon, shorter than a forgotten test machine's patience.
const FOR_EVER: Duration = Duration::from_secs(600);

pub(crate) const MISDEEDS: &[Misdeed] = &[
    Misdeed {
        name: "leave-before-hello",
        story: "exits at once with code 3",
        answer: Answer::Unseen,
        commit: |_| std::process::exit(3),
    },
    Misdeed {
        name: "never-connects",
        story: "runs and does nothing",
        answer: Answer::Unseen,
        commit: |_| sleep_for_ever(),
    },
    Misdeed {
        name: "connects-only",
        story: "connects and says nothing",
        answer: Answer::Unseen,
        commit: |stage| stage.connect().and_then(|()| sleep_for_ever()),
    },
    Misdeed {
        name: "hello-then-silence",
        story: "says Hello and never Ready",
        answer: Answer::Unseen,
        commit: hello_then_silence,
    },
    Misdeed {
        name: "dies-in-frame",
        story: "exits in the middle of a frame",
        answer: Answer::Unseen,
        commit: |stage| {
            stage.enter()?;
            stage.send([0, 0, 1, 0, 8]);
            std::process::exit(1)
        },
    },
    Misdeed {
        name: "crash",
        story: "exits with code 1 once it is ready",
        answer: Answer::Unseen,
        commit: |stage| ready_then_exit(stage, 1),
    },
    Misdeed {
        name: "exit-tempfail",
        story: "exits with 75: try again later",
        answer: Answer::Unseen,
        commit: |stage| ready_then_exit(stage, 75),
    },
    Misdeed {
        name: "exit-config",
        story: "exits with 78: somebody must change the configuration",
        answer: Answer::Unseen,
        commit: |stage| ready_then_exit(stage, 78),
    },
    Misdeed {
        name: "never-reads",
        story: "is ready, and then reads nothing any more",
        answer: Answer::Unseen,
        commit: |stage| stage.enter().and_then(|()| sleep_for_ever()),
    },
    Misdeed {
        name: "ignores-shutdown",
        story: "ignores Shutdown, the end of stdin and SIGTERM",
        answer: Answer::Unseen,
        commit: ignores_shutdown,
    },
    Misdeed {
        name: "freezes",
        story: "stops itself by SIGSTOP",
        answer: Answer::Unseen,
        commit: |stage| {
            stage.enter()?;
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP)?;
            sleep_for_ever()
        },
    },
    Misdeed {
        name: "fork-away",
        story: "leaves a grandchild in a session of its own behind, and stays itself",
        answer: Answer::Unseen,
        commit: fork_away,
    },
    Misdeed {
        name: "log-flood",
        story: "prints to stdout and stderr as fast as it can",
        answer: Answer::Unseen,
        commit: log_flood,
    },
    Misdeed {
        name: "log-frame-flood",
        story: "sends Log frames as fast as it can",
        answer: Answer::Unseen,
        commit: log_frame_flood,
    },
    Misdeed {
        name: "endless-line",
        story: "prints a line that never ends",
        answer: Answer::Unseen,
        commit: |stage| stage.enter().and_then(|()| shout(&[b'e'; 64 * 1024])),
    },
    Misdeed {
        name: "binary-stdout",
        story: "behaves, but prints escape codes and gibberish",
        answer: Answer::Lives,
        commit: binary_stdout,
    },
];

/// Plays the grandchild's parents, if the arguments say so; returns otherwise.
pub(crate) fn play_hidden_part(arguments: &[String]) {
    let [parent, orphan] = ORPHAN_ARGUMENTS;
    match arguments.first().map(String::as_str) {
        Some(first) if first == parent => {
            let is_away = rustix::process::setsid().is_ok()
                && own_program(&[orphan]).and_then(|mut it| Ok(it.spawn()?)).is_ok();
            std::process::exit(i32::from(!is_away));
        }
        Some(first) if first == orphan => {
            let has_told = Stage::from_environment(None)
                .and_then(|stage| stage.write_file(ORPHAN_FILE, &format!("{}\n", std::process::id())));
            std::thread::sleep(FOR_EVER);
            std::process::exit(i32::from(has_told.is_err()));
        }
        Some(_) | None => {}
    }
}

fn own_program(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("find our own program")?);
    command.args(arguments);
    Ok(command)
}

fn sleep_for_ever() -> Result<Answer> {
    std::thread::sleep(FOR_EVER);
    Ok(Answer::Unseen)
}

fn hello_then_silence(stage: &mut Stage) -> Result<Answer> {
    stage.connect()?;
    let hello = frame(1, body::HELLO, &stage.hello());
    stage.send(hello);
    sleep_for_ever()
}

fn ready_then_exit(stage: &mut Stage, code: i32) -> Result<Answer> {
    stage.enter()?;
    std::process::exit(code)
}

/// A shell switches the signals off and becomes us again: what is ignored stays ignored across exec.
fn ignores_shutdown(stage: &mut Stage) -> Result<Answer> {
    const IS_DEAF: &str = "ROGUE_IS_DEAF";
    if std::env::var_os(IS_DEAF).is_none() {
        let error = Command::new("sh")
            .args(["-c", "trap '' TERM INT HUP; exec \"$@\"", "sh"])
            .arg(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .env(IS_DEAF, "1")
            .exec();
        return Err(error.into());
    }
    stage.enter()?;
    stage.report(Answer::Unseen)?;
    stage.stay()?;
    sleep_for_ever()
}

fn fork_away(stage: &mut Stage) -> Result<Answer> {
    let [parent, _] = ORPHAN_ARGUMENTS;
    own_program(&[parent])?.status().context("start the grandchild")?;
    stage.enter()?;
    stage.stay()?;
    Ok(Answer::Unseen)
}

fn log_flood(stage: &mut Stage) -> Result<Answer> {
    stage.enter()?;
    std::thread::spawn(|| {
        let mut stderr = std::io::stderr().lock();
        while stderr.write_all(b"the rogue shouts on stderr\n").is_ok() {}
    });
    shout(b"the rogue shouts on stdout\n")
}

fn shout(words: &[u8]) -> Result<Answer> {
    let mut stdout = std::io::stdout().lock();
    while stdout.write_all(words).is_ok() {}
    Ok(Answer::Unseen)
}

fn log_frame_flood(stage: &mut Stage) -> Result<Answer> {
    stage.enter()?;
    let words = frame(0, body::LOG, &Message::new().bytes(2, "the rogue shouts in frames")).repeat(1_000);
    while stage.send(&words) {}
    Ok(Answer::Unseen)
}

fn binary_stdout(stage: &mut Stage) -> Result<Answer> {
    stage.enter()?;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(b"\x1b]0;owned\x07\x1b[2J\x00\xff\xfe no newline at the end \x80")?;
    stdout.flush()?;
    stage.judge()
}
