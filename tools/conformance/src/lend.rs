//! How the kit becomes a plugin of a running daemon: it has the daemon (or whatever starts plugins for it) start this very program with the
//! word `lend`; that hands its endpoint and its token to the kit, and stays until the kit lets it go. So the kit may have as many
//! sessions as a case needs, each with a fresh token, and nothing of the daemon has to be known but how it starts a plugin.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

/// How long a launcher may take to start a plugin.
const LEND_MAX: Duration = Duration::from_secs(20);
/// How long it may take to end once it is let go.
const END_MAX: Duration = Duration::from_secs(5);

/// Two daemons whose users are contacts of each other.
#[derive(Clone, Debug)]
pub struct Daemons {
    /// Starts a plugin of the first daemon, if a command follows: `p2pos plugins run DIR --`.
    pub here: Vec<String>,
    /// The same for the second.
    pub there: Vec<String>,
    /// endpoint.json of the first daemon, if sessions of tools are to be judged.
    pub endpoint_file: Option<PathBuf>,
    /// The kit's own program; the launchers start it.
    pub program: PathBuf,
}

/// A plugin's environment, borrowed from a process that the daemon knows as this plugin. Dropping it ends that process.
#[derive(Debug)]
pub struct Loan {
    /// As P2POS_ENDPOINT.
    pub endpoint: String,
    /// As P2POS_TOKEN.
    pub token: String,
    launcher: Child,
    line: Option<UnixStream>,
    _folder: tempfile::TempDir,
}

impl Loan {
    /// Has a plugin started, and takes its environment.
    ///
    /// # Errors
    /// If the launcher does not start it.
    pub fn take(launcher: &[String], program: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("p2pos-kit").tempdir()?;
        let path = folder.path().join("lend");
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        let (command, arguments) = launcher.split_first().context("a launcher is missing")?;
        let mut launcher = Command::new(command)
            .args(arguments)
            .arg(program)
            .arg("lend")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        let line = match wait_for(&listener, &mut launcher) {
            Ok(line) => line,
            Err(error) => {
                end(&mut launcher);
                return Err(error);
            }
        };
        line.set_nonblocking(false)?;
        line.set_read_timeout(Some(LEND_MAX))?;
        let mut reader = BufReader::new(line.try_clone()?);
        let mut word = || -> Result<String> {
            let mut text = String::new();
            reader.read_line(&mut text)?;
            Ok(text.trim_end().to_owned())
        };
        let (endpoint, token) = (word()?, word()?);
        Ok(Self { endpoint, token, launcher, line: Some(line), _folder: folder })
    }
}

fn wait_for(listener: &UnixListener, launcher: &mut Child) -> Result<UnixStream> {
    let deadline = Instant::now() + LEND_MAX;
    loop {
        if let Ok((line, _)) = listener.accept() {
            return Ok(line);
        }
        if let Some(status) = launcher.try_wait()? {
            let mut said = String::new();
            if let Some(stderr) = &mut launcher.stderr {
                stderr.read_to_string(&mut said)?;
            }
            bail!("the launcher ended ({status}) and started nothing: {}", said.trim());
        }
        ensure!(Instant::now() < deadline, "the launcher started nothing within {} s", LEND_MAX.as_secs());
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.line = None;
        let deadline = Instant::now() + END_MAX;
        while Instant::now() < deadline {
            if matches!(self.launcher.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        end(&mut self.launcher);
    }
}

fn end(launcher: &mut Child) {
    if let Some(group) = i32::try_from(launcher.id()).ok().and_then(Pid::from_raw) {
        // Gone already is gone.
        kill_process_group(group, Signal::KILL).ok();
    }
    drop(launcher.wait());
}

/// What a plugin may print without harm to anybody: a NUL, no UTF-8, a control sequence for terminals.
const GARBAGE: &[u8] = b"\0\xff\xfe\x1b[2J\r";
/// Bytes of a line without end behind it: more than a daemon keeps of a line.
const ENDLESS_LINE_BYTES: usize = 100_000;

/// The borrowed process: tells what the daemon told it, and waits to be let go. It prints garbage, as bad plugins do: every case shows
/// that its daemon puts up with it.
///
/// # Errors
/// If it was not started as a plugin, or nobody waits for it.
pub fn lend(path: &Path) -> Result<ExitCode> {
    let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let mut line = UnixStream::connect(path).context("find the kit")?;
    writeln!(line, "{}\n{}", variable("P2POS_ENDPOINT")?, variable("P2POS_TOKEN")?)?;
    let mut out = std::io::stdout();
    out.write_all(GARBAGE)
        .and_then(|()| out.write_all(&[b'x'; ENDLESS_LINE_BYTES]))
        .and_then(|()| out.flush())?;
    // Until the kit hangs up.
    line.read_to_end(&mut Vec::new())?;
    Ok(ExitCode::SUCCESS)
}
