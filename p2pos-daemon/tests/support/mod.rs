//! Runs the real binary in a data directory of its own, and daemons that end with the test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Long enough for a loaded machine; nothing waits for it when all is well.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A data directory that is gone with the test.
pub(crate) struct Home {
    dir: tempfile::TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("p2pos-test").tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command in a clean environment, with nothing on stdin.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_p2pos"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        // Tests leave nothing at anybody's router.
        command.env("P2POS_NETWORK_PORT_MAPPING", "off");
        command.env("HOME", self.path()).arg("--data-dir").arg(self.path()).args(words).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        ran(self.command(words).output().unwrap())
    }

    /// The same with something on stdin.
    pub(crate) fn run_with(&self, words: &[&str], stdin: &str) -> Ran {
        let mut child = self
            .command(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        ran(child.wait_with_output().unwrap())
    }

    /// The document that a command prints with `--json`.
    pub(crate) fn json(&self, words: &[&str]) -> serde_json::Value {
        let ran = self.run(&[words, &["--json"]].concat());
        assert_eq!(ran.code, 0, "{words:?}: {}", ran.stderr);
        serde_json::from_str(&ran.stdout).unwrap()
    }

    pub(crate) fn peer_id(&self) -> String {
        self.json(&["id"])["peer_id"].as_str().unwrap().to_owned()
    }
}

fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A daemon that runs; killed if the test does not end it.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Daemon {
    /// Starts one and waits until it says that it is ready.
    pub(crate) fn start(home: &Home) -> Self {
        Self::start_with(home.command(&["up"]))
    }

    pub(crate) fn start_with(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut daemon = Self { child, stderr };
        let mut said = String::new();
        while !said.lines().any(|line| line.starts_with("ready: ")) {
            let read = daemon.stderr.read_line(&mut said).unwrap();
            assert!(read > 0, "the daemon ended before it was ready: {said}");
        }
        daemon
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end, and gives exit code and what it still said.
    pub(crate) fn ended(&mut self) -> (i32, String) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let mut said = String::new();
                self.stderr.read_to_string(&mut said).unwrap();
                return (status.code().unwrap_or(-1), said);
            }
            assert!(begun.elapsed() < SOON, "the daemon does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
