//! One network namespace: a host or a router of the lab. Owns entering it: sockets are opened and programs started by a thread that has moved
//! there, and both stay there when the thread has ended. Does not know what the namespace is for.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::program;

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";

/// A namespace by its name. A name, not an owner: the lab removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// The namespace of that name, which somebody makes.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Its name, as `ip netns list` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(NAMES).join(&self.name)
    }

    /// Does something inside, on a thread of its own. What it opens or starts stays inside.
    ///
    /// # Errors
    /// The namespace is gone, or `work` failed.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let inside = || {
            let door = File::open(self.path()).with_context(|| format!("namespace {}", self.name))?;
            move_into_link_name_space(door.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("enter namespace {}", self.name))?;
            work()
        };
        thread::scope(|scope| {
            scope.spawn(inside).join().map_err(|_| anyhow!("a thread in namespace {} panicked", self.name))?
        })
    }

    /// Starts a program inside.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        self.enter(|| command.spawn().with_context(|| format!("start {:?}", command.get_program())))
    }

    /// Runs a program of milliseconds inside, and gives back what it printed.
    ///
    /// # Errors
    /// It ended badly; the error quotes it.
    pub fn run(&self, name: &str, arguments: &[&str], input: &str) -> Result<String> {
        self.enter(|| program::run(name, arguments, input)).with_context(|| format!("in {}", self.name))
    }

    /// Gives a batch of lines to `ip`, all of them inside.
    ///
    /// # Errors
    /// One of the lines was refused; those before it hold.
    pub fn ip(&self, lines: &[String]) -> Result<()> {
        let input = lines.join("\n") + "\n";
        program::run("ip", &["-n", &self.name, "-batch", "-"], &input)
            .map(drop)
            .with_context(|| format!("in {}: {}", self.name, lines.join("; ")))
    }

    /// Loads rules in one transaction.
    ///
    /// # Errors
    /// A rule was refused; then none of them holds.
    pub fn nft(&self, rules: &str) -> Result<()> {
        self.run("nft", &["-f", "-"], rules).map(drop).with_context(|| format!("rules:\n{rules}"))
    }

    /// Reads the rules of a chain inside.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn nft_list(&self, table: &str, chain: &str) -> Result<String> {
        self.run("nft", &["list", "chain", "inet", table, chain], "")
    }

    /// Sets a value under `/proc/sys/net` inside.
    ///
    /// # Errors
    /// The kernel has no such value, or refuses this one.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let file = Path::new("/proc/sys/net").join(key);
        self.enter(|| fs::write(&file, value).with_context(|| format!("write {value} to {}", file.display())))
    }

    /// Reads a number under `/proc/sys/net` inside.
    ///
    /// # Errors
    /// The kernel has no such value, or it is no number.
    pub fn sysctl_number(&self, key: &str) -> Result<u64> {
        let file = Path::new("/proc/sys/net").join(key);
        let text = self.enter(|| fs::read_to_string(&file).with_context(|| file.display().to_string()))?;
        text.trim().parse().with_context(|| format!("{} says {text:?}", file.display()))
    }

    /// A UDP socket inside, on any free port of that address.
    ///
    /// # Errors
    /// The address is not one of the namespace.
    pub fn udp(&self, ip: IpAddr) -> Result<UdpSocket> {
        let at = SocketAddr::new(ip, 0);
        self.enter(|| UdpSocket::bind(at).with_context(|| format!("bind {at}")))
    }
}
