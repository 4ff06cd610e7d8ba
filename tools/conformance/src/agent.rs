//! The process that is judged: started by the real environment contract (SPEC.md, "Three ways to write a plugin"), in a process group of its
//! own, and gone with this value, whatever it does.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::notation::hex;
use crate::wire::{Listener, Wire};

/// How often the kit looks whether a process has ended; std has no wait with a deadline.
const LOOK_EVERY: Duration = Duration::from_millis(3);
/// How long a fresh process may take until it connects: an interpreter on a loaded machine takes seconds.
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// Bytes of its output that a failure shows.
const OUTPUT_BYTES_SHOWN: u64 = 4 * 1024;
/// What a plugin inherits of the daemon's own environment, beside LC_*.
const INHERITED: &[&str] = &["PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TERM"];

/// How to start whoever is judged.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it is started.
    pub folder: PathBuf,
    /// By TCP instead of a unix socket.
    pub is_tcp: bool,
}

impl Launch {
    /// The command in an environment made from nothing, plus these variables.
    #[must_use]
    pub fn command(&self, variables: &[(&str, String)]) -> Command {
        let (program, arguments) = self.command.split_first().map_or(("", &[][..]), |(p, a)| (p.as_str(), a));
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.folder).env_clear().process_group(0);
        for (name, value) in std::env::vars_os() {
            let is_inherited =
                name.to_str().is_some_and(|name| INHERITED.contains(&name) || name.starts_with("LC_"));
            if is_inherited {
                command.env(name, value);
            }
        }
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    stdin: Option<ChildStdin>,
    listener: Listener,
    output: File,
    /// The token that it was given.
    pub token: String,
    /// Where it was told to connect.
    pub endpoint: String,
    _folder: tempfile::TempDir,
}

impl Agent {
    /// Starts it.
    ///
    /// # Errors
    /// If there is no such program.
    pub fn start(launch: &Launch) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("p2pos-kit").tempdir()?;
        let (listener, endpoint) = Listener::bind(folder.path(), launch.is_tcp)?;
        let data = folder.path().join("data");
        fs::create_dir(&data)?;
        let token = random_hex(32)?;
        let output =
            File::options().create(true).read(true).append(true).open(folder.path().join("output"))?;
        let mut child = launch
            .command(&[
                ("P2POS_PLUGIN_ID", "conformance".to_owned()),
                ("P2POS_DATA_DIR", path_text(&data)),
                ("P2POS_ENDPOINT", endpoint.clone()),
                ("P2POS_TOKEN", token.clone()),
                ("P2POS_PROTOCOL_VERSIONS", "1".to_owned()),
                ("P2POS_EXIT_ON_STDIN_CLOSE", "1".to_owned()),
            ])
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?)
            .spawn()
            .with_context(|| format!("start {:?}", launch.command))?;
        let stdin = child.stdin.take();
        Ok(Self { child, stdin, listener, output, token, endpoint, _folder: folder })
    }

    /// Waits for its next connection.
    ///
    /// # Errors
    /// If it ends before, or takes too long.
    pub fn connection(&mut self) -> Result<Wire> {
        let deadline = Instant::now() + CONNECT_MAX;
        while Instant::now() < deadline {
            // In short turns, to see a process that has ended.
            let turn = Instant::now() + Duration::from_millis(50);
            if let Some(wire) = self.listener.accept(turn)? {
                return Ok(wire);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended ({status}) instead of connecting");
            }
        }
        bail!("{} s without a connection", CONNECT_MAX.as_secs())
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Closes its stdin, as the end of its daemon does.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it goes on.
    pub fn exit(&mut self, within: Duration) -> Result<ExitStatus> {
        exit(&mut self.child, within)
    }

    /// The end of what it has printed.
    #[must_use]
    pub fn output(&mut self) -> String {
        let mut text = Vec::new();
        let length = self.output.metadata().map_or(0, |meta| meta.len());
        let from = length.saturating_sub(OUTPUT_BYTES_SHOWN);
        let read = self.output.seek(SeekFrom::Start(from)).and_then(|_| self.output.read_to_end(&mut text));
        read.map_or_else(
            |error| format!("(its output cannot be read: {error})"),
            |_| String::from_utf8_lossy(&text).into_owned(),
        )
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn exit(child: &mut Child, within: Duration) -> Result<ExitStatus> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        ensure!(Instant::now() < deadline, "it still runs after {:.0} s", within.as_secs_f64());
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Kills a process and all that it started.
fn end(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Gone already is gone.
        kill_process_group(group, Signal::KILL).ok();
    }
    drop(child.wait());
}

/// A command of tier 0, for one stream.
#[derive(Debug)]
pub struct StreamCommand {
    child: Child,
    /// What it reads.
    pub stdin: Option<ChildStdin>,
    /// What it writes.
    pub stdout: Option<ChildStdout>,
    _folder: tempfile::TempDir,
}

impl StreamCommand {
    /// Starts it as `[[serve]]` does.
    ///
    /// # Errors
    /// If there is no such program.
    pub fn start(launch: &Launch, protocol: &str, peer: &str, petname: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("p2pos-kit").tempdir()?;
        let mut child = launch
            .command(&[
                ("P2POS_PLUGIN_ID", "conformance".to_owned()),
                ("P2POS_DATA_DIR", path_text(folder.path())),
                ("P2POS_PROTOCOL", protocol.to_owned()),
                ("P2POS_REMOTE_PEER", peer.to_owned()),
                ("P2POS_REMOTE_PETNAME", petname.to_owned()),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {:?}", launch.command))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        Ok(Self { child, stdin, stdout, _folder: folder })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it goes on.
    pub fn exit(&mut self, within: Duration) -> Result<ExitStatus> {
        exit(&mut self.child, within)
    }
}

impl Drop for StreamCommand {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Random bytes in hex.
///
/// # Errors
/// If the system has none.
pub fn random_hex(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random).context("ask the system for random bytes")?;
    Ok(hex(&random))
}
