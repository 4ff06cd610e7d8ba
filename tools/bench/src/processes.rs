//! Child processes of one measurement: started, waited for until ready, looked at, and gone at the end whatever happens.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::place::Place;

/// A serving process; killed and reaped when dropped.
pub struct Serving {
    child: Child,
    /// What it printed behind `READY `.
    pub target: String,
    /// From the start of the process to its ready line.
    pub ready_after: Duration,
    /// Read on, so that the process never waits for us, nor ends because nobody reads.
    _words: JoinHandle<()>,
}

impl Serving {
    /// Starts this program again on loopback as `arguments` say and waits for its ready line.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        Self::start_at(&Place::here(), arguments)
    }

    /// The same at some place.
    pub fn start_at(place: &Place, arguments: &[&str]) -> Result<Self> {
        let mut command = place.command(std::env::current_exe()?);
        command.args(["--ip", &place.ip.to_string()]).args(arguments).stdout(Stdio::piped());
        let began = Instant::now();
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let words = child.stdout.take().context("stdout was piped")?;
        Self::wait(child, words, began, |line| line.strip_prefix("READY ").map(str::to_owned))
    }

    /// Starts a daemon, which says on standard error that it is ready.
    pub fn start_daemon(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let began = Instant::now();
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let words = child.stderr.take().context("stderr was piped")?;
        Self::wait(child, words, began, |line| line.contains("ready:").then(|| line.to_owned()))
    }

    fn wait(
        mut child: Child,
        words: impl Read + Send + 'static,
        began: Instant,
        parse: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let mut words = BufReader::new(words);
        loop {
            let mut line = String::new();
            if words.read_line(&mut line)? == 0 {
                let status = child.wait()?;
                anyhow::bail!("it ended with {status} before it was ready");
            }
            if let Some(target) = parse(line.trim_end()) {
                let ready_after = began.elapsed();
                let words = std::thread::spawn(move || drop(std::io::copy(&mut words, &mut std::io::sink())));
                return Ok(Self { child, target, ready_after, _words: words });
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Already gone is fine: it is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs `command` to its end and returns its standard output; its words are shown only if it fails.
pub fn output(mut command: Command) -> Result<String> {
    let out = command.output().with_context(|| format!("run {command:?}"))?;
    let words = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{command:?} ended with {}: {}", out.status, words.trim());
    Ok(String::from_utf8(out.stdout)?)
}

/// Resident memory of a process, KiB.
pub fn resident_kib(pid: u32) -> Result<f64> {
    status_field(pid, "VmRSS:")
}

/// Processor time that a process has used, seconds: its own and the kernel's for it. Resolution 10 ms.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name, in brackets, and may hold anything.
    let (_, fields) = stat.rsplit_once(") ").context("no name in /proc/PID/stat")?;
    let ticks: Vec<f64> = fields.split(' ').skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / rustix::param::clock_ticks_per_second() as f64)
}

/// How often each thread of a process was put to sleep and woken since its start.
pub struct Wakeups(BTreeMap<OsString, f64>);

impl Wakeups {
    pub fn of(pid: u32) -> Result<Self> {
        let mut threads = BTreeMap::new();
        for task in std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"))? {
            let task = task?;
            // A thread may end between being listed and being read.
            let Ok(status) = std::fs::read_to_string(task.path().join("status")) else { continue };
            threads.insert(task.file_name(), field(&status, "voluntary_ctxt_switches:")?);
        }
        Ok(Self(threads))
    }

    /// Wake-ups after an earlier look. A thread that ended in between takes its count along; one that began brings its own.
    pub fn since(&self, earlier: &Self) -> f64 {
        self.0.iter().map(|(thread, count)| count - earlier.0.get(thread).copied().unwrap_or(0.0)).sum()
    }
}

fn status_field(pid: u32, key: &str) -> Result<f64> {
    field(&std::fs::read_to_string(format!("/proc/{pid}/status"))?, key)
}

fn field(status: &str, key: &str) -> Result<f64> {
    let line =
        status.lines().find(|line| line.starts_with(key)).with_context(|| format!("no {key} in /proc"))?;
    Ok(line.split_whitespace().nth(1).context("no value")?.parse()?)
}
