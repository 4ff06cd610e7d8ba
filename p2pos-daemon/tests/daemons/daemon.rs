//! A real daemon on a real data directory, for as long as a test needs it.
//!
//! It is the binary that users run, told things by its own command line. It dies with the test: its standard input is a pipe that we hold
//! (`--until-stdin-closes`), and dropping kills it.

use std::{
    ffi::OsStr,
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use p2pos_identity::PeerId;
use serde_json::Value;
use tempfile::TempDir;

/// A daemon that is not ready by then never will be; the budget is 100 ms, the machine may be busy.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// One user: a data directory, and perhaps a running daemon on it.
pub(crate) struct User {
    dir: TempDir,
    running: Option<Running>,
    pub(crate) peer: String,
    port: Option<u16>,
}

struct Running {
    child: Child,
    _stdin: ChildStdin,
    /// What the daemon wrote to standard error so far, for failures.
    _stderr: thread::JoinHandle<()>,
}

impl User {
    /// A fresh identity, its daemon running.
    pub(crate) fn up() -> Self {
        Self::up_in(tempfile::Builder::new().prefix("p2p").tempdir().unwrap())
    }

    /// The same in a directory that exists already.
    pub(crate) fn up_in(dir: TempDir) -> Self {
        let mut user = Self { dir, running: None, peer: String::new(), port: None };
        user.start();
        user.peer = user.json(&["id"])["peer_id"].as_str().unwrap().to_owned();
        user
    }

    /// Starts the daemon (again, on the same port) and waits until it says that it is ready.
    pub(crate) fn start(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        let mut command = self.command(["up", "--until-stdin-closes"]);
        if let Some(port) = self.port {
            command.args(["--port", &port.to_string()]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let (ready, is_ready) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap());
        let stderr = thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                if line.contains("ready:") {
                    ready.send(()).unwrap_or_default();
                }
                if std::env::var_os("P2POS_TEST_VERBOSE").is_some() {
                    drop(writeln!(io::stderr(), "[daemon] {line}"));
                }
            }
        });
        is_ready.recv_timeout(READY_WITHIN).expect("the daemon is not ready; P2POS_TEST_VERBOSE=1 shows why");
        self.running = Some(Running { child, _stdin: stdin, _stderr: stderr });
        self.port = Some(u16::try_from(self.json(&["status"])["udp_port"].as_u64().unwrap()).unwrap());
    }

    /// The daemon is gone at once, as in a power cut.
    pub(crate) fn kill(&mut self) {
        let mut running = self.running.take().expect("it runs");
        running.child.kill().unwrap();
        running.child.wait().unwrap();
    }

    /// The daemon is asked to end, and does.
    pub(crate) fn stop(&mut self) {
        let Running { mut child, _stdin: stdin, .. } = self.running.take().expect("it runs");
        drop(stdin);
        let status = child.wait().unwrap();
        assert!(status.success(), "the daemon ended with {status}");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.as_ref().expect("it runs").child.id()
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where peers reach it.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port.expect("it has run")))
    }

    /// `p2pos --data-dir ... ARGS`.
    pub(crate) fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_p2pos"));
        // Tests leave nothing at anybody's router.
        command.env("P2POS_NETWORK_PORT_MAPPING", "off");
        command.arg("--data-dir").arg(self.dir.path()).args(args).env("NO_COLOR", "1");
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a command that must succeed, and returns what it printed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "p2pos {args:?}: {}\n{stderr}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command with `--json`.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let mut with_json = vec!["--json"];
        with_json.extend(args);
        serde_json::from_str(&self.ok(&with_json)).unwrap()
    }

    /// Makes `other` a contact called `name` that is reached at its address.
    pub(crate) fn knows(&self, other: &Self, name: &str) {
        self.ok(&["contacts", "add", &other.peer, name, "--addr", &other.address().to_string()]);
    }

    /// Puts a plugin into the plugins directory: its manifest below `[manifest head]`, and its files.
    pub(crate) fn add_plugin(&self, id: &str, manifest: &str, files: &[(&str, &str)]) -> PathBuf {
        let dir = self.data_dir().join("plugins").join(id);
        write_plugin(&dir, id, manifest, files);
        dir
    }

    /// Adds a plugin, allows what it asks, and waits until it runs.
    pub(crate) fn run_plugin(&self, id: &str, manifest: &str, files: &[(&str, &str)]) {
        self.add_plugin(id, manifest, files);
        self.enable(id);
        self.ok(&["plugins", "start", id]);
    }

    /// Allows a plugin, as soon as the daemon has seen it.
    pub(crate) fn enable(&self, id: &str) {
        eventually("the plugin is found", || self.run(&["plugins", "info", id]).status.success());
        self.ok(&["plugins", "enable", id, "--yes"]);
    }

    /// The same without waiting for the plugin's start, which may be slow or fail.
    pub(crate) fn begin_to_enable(&self, id: &str) -> Child {
        eventually("the plugin is found", || self.run(&["plugins", "info", id]).status.success());
        let mut command = self.command(["plugins", "enable", id, "--yes"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Two users who know each other.
    pub(crate) fn pair() -> (Self, Self) {
        let (a, b) = (Self::up(), Self::up());
        a.knows(&b, "b");
        b.knows(&a, "a");
        (a, b)
    }

    pub(crate) fn id(&self) -> PeerId {
        self.peer.parse().unwrap()
    }

    /// A file or socket of the daemon.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.data_dir().join(name)
    }

    /// Runs the echo plugin, which serves `/echo/1`, `/sink/1` and `/source/1`, as a plugin called `id`.
    pub(crate) fn run_echo(&self) {
        let exec = env!("CARGO_BIN_EXE_p2pos");
        self.run_plugin("echo", &echo_manifest(exec), &[]);
        eventually("the echo plugin runs", || self.plugin_state("echo") == "running");
    }

    /// The process id of a plugin that runs.
    pub(crate) fn plugin_pid(&self, id: &str) -> u32 {
        u32::try_from(self.json(&["plugins", "info", id])["pid"].as_u64().expect("it runs")).unwrap()
    }

    /// Streams that the daemon counts with all its peers.
    pub(crate) fn streams(&self) -> u64 {
        let status = self.json(&["status"]);
        status["peers"].as_array().unwrap().iter().map(|peer| peer["streams"].as_u64().unwrap()).sum()
    }

    /// The state that `plugins list` shows.
    pub(crate) fn plugin_state(&self, id: &str) -> String {
        self.json(&["plugins", "info", id])["state"].as_str().unwrap_or_default().to_owned()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.kill();
        }
    }
}

/// The manifest of the echo plugin that is compiled into the program `exec`.
fn echo_manifest(exec: &str) -> String {
    let names = ["/echo/1", "/sink/1", "/source/1"];
    let mut manifest = format!("[run]\nexec = [{exec:?}, \"__echo\"]\n");
    for name in names {
        manifest += &format!("[[provides]]\nprotocol = {name:?}\n");
    }
    manifest += "[[provides]]\nprotocol = \"/echo-datagram/1\"\nkind = \"datagram\"\n";
    manifest + &format!("[permissions]\nnet.accept = {:?}\n", [&names[..], &["/echo-datagram/1"]].concat())
}

/// Sends a signal by its name.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().unwrap();
    assert!(sent.success());
}

/// Whether a process is there, and not only its remains.
pub(crate) fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Writes a plugin's directory; files beginning with `#!` become executable.
pub(crate) fn write_plugin(dir: &Path, id: &str, manifest: &str, files: &[(&str, &str)]) {
    fs::create_dir_all(dir).unwrap();
    for (name, text) in files {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        if text.starts_with("#!") {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let head = format!("manifest = 1\nid = {id:?}\nname = {id:?}\nversion = \"1.0.0\"\n");
    fs::write(dir.join("plugin.toml"), head + manifest).unwrap();
}

/// Waits until `is_so`, for at most 20 s.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Processes whose command line contains `mark`.
pub(crate) fn processes_with(mark: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let mut line = Vec::new();
        let Ok(mut file) = fs::File::open(entry.path().join("cmdline")) else { continue };
        if file.read_to_end(&mut line).is_ok() && String::from_utf8_lossy(&line).contains(mark) {
            found.push(pid);
        }
    }
    found
}

/// Resident memory, KiB.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
