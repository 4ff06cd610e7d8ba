//! Tier 0: a command for each stream, judged over its stdin and stdout (ORDERS.md, "Tier 0").

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::agent::{Launch, StreamCommand};
use crate::case::{Case, Judged, Level};
use crate::pattern;
use crate::play::BO;
use crate::session::SOON;
use crate::verdict::{Outcome, judge};

/// More than a pipe holds, so that whoever writes before it reads is found.
const MANY: usize = 300_000;
const PROTOCOL: &str = "/p2pos/conformance/1";
/// How long one stream may take: an interpreter starts and moves 300 KB. A command that never ends must not hold the kit for ever.
const STREAM_MAX: Duration = Duration::from_secs(20);

type Check = fn(&Launch) -> Result<()>;

const CHECKS: &[(&str, &str, Check)] = &[
    ("t0-environment", "the environment says who is there and what for", environment),
    ("t0-echo", "bytes of all kinds come back, and the end is the end", echo),
    ("t0-echo-many", "more bytes than all pipes hold come back", echo_many),
    ("t0-count", "stdin ends when the other plugin has finished", count),
    ("t0-lines", "an answer does not wait for the next line", lines),
    ("t0-source", "bytes are written without being asked for more", source),
    ("t0-exit-code", "the exit code travels", exit_code),
];

/// Runs all of them.
#[must_use]
pub fn run(launch: &Launch) -> Vec<(Case, Outcome)> {
    let mut ran = Vec::new();
    for (id, about, check) in CHECKS {
        let case = Case {
            id: (*id).to_owned(),
            judges: Judged::Plugin,
            level: Level::Bronze,
            section: 11,
            rules: Vec::new(),
            states: Vec::new(),
            ends: Vec::new(),
            about: (*about).to_owned(),
            is_slow: false,
            is_unscored: false,
            steps: String::new(),
        };
        let started = Instant::now();
        let verdict = judge(&check(launch));
        ran.push((case, Outcome::new(id, verdict, started.elapsed())));
    }
    ran
}

/// One stream: writes `input` while it reads, closes stdin, and gives what came and the exit code.
fn stream(launch: &Launch, petname: &str, input: Vec<u8>) -> Result<(Vec<u8>, Option<i32>)> {
    let mut command = StreamCommand::start(launch, PROTOCOL, BO, petname)?;
    let mut stdin = command.stdin.take().context("it was just made")?;
    let mut stdout = command.stdout.take().context("it was just made")?;
    std::thread::spawn(move || {
        // Whoever does not read on may have gone: what counts is what it says and how it ends.
        drop(stdin.write_all(&input));
    });
    let (sender, all) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut output = Vec::new();
        let read = stdout.read_to_end(&mut output).map(|_| output);
        // Whoever waited may have given up; the command is killed then, and so this thread ends.
        drop(sender.send(read));
    });
    let output = all.recv_timeout(STREAM_MAX).context("its output does not end")??;
    let status = command.exit(SOON)?;
    Ok((output, status.code()))
}

fn environment(launch: &Launch) -> Result<()> {
    for petname in ["bo", ""] {
        let (output, code) = stream(launch, petname, b"env\n".to_vec())?;
        let wanted = format!("protocol {PROTOCOL}\npeer {BO}\npetname {petname}\n");
        let is = String::from_utf8_lossy(&output).into_owned();
        ensure!(
            is == wanted && code == Some(0),
            "it wrote {is:?} and ended with {code:?}, not {wanted:?} and 0"
        );
    }
    Ok(())
}

fn echo(launch: &Launch) -> Result<()> {
    let all: Vec<u8> = (0..=255).chain([0, 0, 255, 255, b'\n']).collect();
    let (output, code) = stream(launch, "bo", [b"echo\n", &all[..]].concat())?;
    ensure!(output == all, "{} bytes came back, not the {} that were sent", output.len(), all.len());
    ensure!(code == Some(0), "it ended with {code:?}");
    Ok(())
}

fn echo_many(launch: &Launch) -> Result<()> {
    let all = pattern::bytes(MANY, 3);
    let (output, code) = stream(launch, "bo", [b"echo\n", &all[..]].concat())?;
    ensure!(
        output == all && code == Some(0),
        "{} bytes of {MANY} came back, exit code {code:?}",
        output.len()
    );
    Ok(())
}

fn count(launch: &Launch) -> Result<()> {
    let (output, code) = stream(launch, "bo", [b"count\n", &pattern::bytes(MANY, 0)[..]].concat())?;
    let is = String::from_utf8_lossy(&output).trim().to_owned();
    ensure!(
        is == MANY.to_string() && code == Some(0),
        "it counted {is:?}, not {MANY}, and ended with {code:?}"
    );
    Ok(())
}

fn lines(launch: &Launch) -> Result<()> {
    let mut command = StreamCommand::start(launch, PROTOCOL, BO, "bo")?;
    let mut stdin = command.stdin.take().context("it was just made")?;
    let mut stdout = command.stdout.take().context("it was just made")?;
    let (sender, answers) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut byte = [0];
        while stdout.read_exact(&mut byte).is_ok() && sender.send(byte[0]).is_ok() {}
    });
    let answer = |wanted: &[u8]| -> Result<()> {
        for byte in wanted {
            let is = answers.recv_timeout(SOON).context("an answer waits for something")?;
            ensure!(is == *byte, "another line came back");
        }
        Ok(())
    };
    stdin.write_all(b"lines\n")?;
    for line in ["one\n", "two words\n", "\n", "  spaces, and a \\, stay \n"] {
        stdin.write_all(line.as_bytes())?;
        answer(line.as_bytes())?;
    }
    stdin.write_all(b"no end")?;
    drop(stdin);
    answer(b"no end")?;
    ensure!(answers.recv_timeout(SOON).is_err(), "more came back than was sent");
    let status = command.exit(SOON + Duration::from_secs(1))?;
    ensure!(status.code() == Some(0), "it ended with {status}");
    Ok(())
}

fn source(launch: &Launch) -> Result<()> {
    let (output, code) = stream(launch, "bo", format!("source {MANY}\n").into_bytes())?;
    let is_right = output.len() == MANY && output.iter().all(|byte| *byte == b'x');
    ensure!(is_right && code == Some(0), "{} bytes came, not {MANY}; exit code {code:?}", output.len());
    Ok(())
}

fn exit_code(launch: &Launch) -> Result<()> {
    for wanted in [0, 3, 75] {
        let (output, code) = stream(launch, "bo", format!("fail {wanted}\n").into_bytes())?;
        ensure!(output.is_empty() && code == Some(wanted), "it ended with {code:?}, not {wanted}");
    }
    Ok(())
}
