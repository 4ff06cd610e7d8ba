//! What a plugin's process is born with: environment, pipes, limits. Owns the launch contract (plugin-host.md C3) and the
//! copying of what it prints into its log.
//!
//! The environment is made from nothing: what a program needs to find its way (an allow list), and what the contract
//! says. Nothing of the daemon's own environment leaks. Refuses to know: when to launch, the session.

use std::{
    ffi::OsString,
    fs::DirBuilder,
    io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{io::AsyncReadExt, net::unix::pipe};

use crate::{
    log::{LineCutter, LogSource, PluginLog},
    manifest::Limits,
    plugin_id::PluginId,
    sandbox::ProcessLimits,
};

/// Variables of the daemon's environment that every program may see: where things are, and how to speak.
const INHERITED: [&str; 8] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TERM"];
/// Prefix of further inherited variables: the parts of the locale.
const INHERITED_PREFIX: &str = "LC_";
/// PATH where the daemon has none.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";
/// Bytes of one read from a plugin's output.
const OUTPUT_READ_BYTES: usize = 16 * 1024;
/// Pause after a read whose lines were dropped: a plugin that floods its log costs at most 8 MiB a second of reading,
/// and is slowed down by its own pipe.
const FLOOD_PAUSE: Duration = Duration::from_millis(2);

impl From<Limits> for ProcessLimits {
    fn from(limits: Limits) -> Self {
        Self { files: limits.files, memory_bytes: limits.memory_bytes }
    }
}

/// The part of the environment that all processes of a plugin have.
pub(crate) fn base_env(id: &PluginId, data_dir: &Path) -> Vec<(OsString, OsString)> {
    let is_inherited = |key: &str| INHERITED.contains(&key) || key.starts_with(INHERITED_PREFIX);
    let mut env: Vec<(OsString, OsString)> =
        std::env::vars_os().filter(|(key, _)| key.to_str().is_some_and(is_inherited)).collect();
    if !env.iter().any(|(key, _)| key == "PATH") {
        env.push(("PATH".into(), PATH_DEFAULT.into()));
    }
    env.push(("P2POS_PLUGIN_ID".into(), id.as_str().into()));
    env.push(("P2POS_DATA_DIR".into(), data_dir.into()));
    env
}

/// What a process that opens a session needs on top.
pub(crate) fn session_env(endpoint: &str, token: &str) -> [(&'static str, String); 3] {
    [
        ("P2POS_ENDPOINT", endpoint.to_owned()),
        ("P2POS_TOKEN", token.to_owned()),
        ("P2POS_PROTOCOL_VERSIONS", "1".to_owned()),
    ]
}

/// Makes the directory that belongs to a plugin alone. Blocks on the disk.
pub(crate) fn make_data_dir(parent: &Path, id: &PluginId) -> io::Result<PathBuf> {
    let path = parent.join(id.as_str());
    DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
    Ok(path)
}

/// The three pipes of a process: its ends, and ours.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) theirs: [OwnedFd; 3],
    pub(crate) stdin: pipe::Sender,
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
}

impl Pipes {
    pub(crate) fn new() -> io::Result<Self> {
        let (their_stdin, stdin) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stdout, their_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, their_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok(Self {
            theirs: [their_stdin, their_stdout, their_stderr],
            stdin: pipe::Sender::from_owned_fd(stdin)?,
            stdout: pipe::Receiver::from_owned_fd(stdout)?,
            stderr: pipe::Receiver::from_owned_fd(stderr)?,
        })
    }
}

/// Copies what a process prints into its log, until it ends.
#[derive(Debug)]
pub(crate) struct LogPipe {
    pipe: pipe::Receiver,
    log: Arc<PluginLog>,
    source: LogSource,
}

impl LogPipe {
    pub(crate) fn new(pipe: pipe::Receiver, log: Arc<PluginLog>, source: LogSource) -> Self {
        Self { pipe, log, source }
    }

    pub(crate) async fn run(mut self) {
        let mut buffer = BytesMut::with_capacity(OUTPUT_READ_BYTES);
        let mut cutter = LineCutter::default();
        loop {
            buffer.clear();
            match self.pipe.read_buf(&mut buffer).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "a plugin's output cannot be read");
                    break;
                }
            }
            let mut is_flood = false;
            cutter.feed(&buffer, |line| is_flood |= !self.log.push(self.source, line));
            if is_flood {
                tokio::time::sleep(FLOOD_PAUSE).await;
            }
        }
        cutter.finish(|line| {
            self.log.push(self.source, line);
        });
    }
}
