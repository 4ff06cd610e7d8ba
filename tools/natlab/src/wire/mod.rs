//! A wire between two network namespaces: two interfaces, and a link of chosen delay, jitter, loss, rate and queue between them.
//!
//! Linux can shape packets by itself (netem), but not every kernel is built with it. Here each end is a TUN device; one thread per
//! direction reads at one end, keeps each packet as long as the link says, and writes it at the other. Trains of UDP datagrams travel
//! uncut as long as all their datagrams share one fate, which is what makes the wire fast; loss and rate always count single datagrams.
//!
//! Owns the devices and the threads. Refuses to know who talks over them. `link` decides about packets, `train` cuts trains,
//! `device` makes interfaces, `direction` is the thread, `cli` the command line.

pub mod cli;
mod device;
mod direction;
mod link;
mod train;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
};

pub use self::{
    direction::Counters,
    link::{Bottleneck, Link, LinkTextError},
};
use self::{direction::Shared, link::Line};

/// The Ethernet MTU, bytes: what most of the Internet carries.
pub const MTU_BYTES: u16 = 1_500;

/// One end of a wire.
#[derive(Debug, Clone, Default)]
pub struct End {
    /// The network namespace's file (`/run/netns/NAME`); `None` is ours.
    pub namespace: Option<PathBuf>,
    /// Name of the interface to make, at most 15 bytes.
    pub interface: String,
    /// Addresses to give it, as `10.0.0.1/24`. The caller may also give them, and routes, later.
    pub addresses: Vec<String>,
}

impl End {
    /// An end in a named namespace (`ip netns add`).
    #[must_use]
    pub fn in_namespace(name: &str, interface: &str, addresses: &[&str]) -> Self {
        Self {
            namespace: Some(PathBuf::from("/run/netns").join(name)),
            interface: interface.to_owned(),
            addresses: addresses.iter().map(|&address| address.to_owned()).collect(),
        }
    }
}

/// What a wire is made of.
#[derive(Debug, Clone)]
pub struct WireSpec {
    /// Where it begins.
    pub a: End,
    /// Where it ends.
    pub b: End,
    /// From a to b.
    pub there: Link,
    /// From b to a.
    pub back: Link,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// What random loss and jitter are drawn from: the same seed loses the same packets.
    pub seed: u64,
}

impl WireSpec {
    /// A wire that does the same in both directions, with an MTU of [`MTU_BYTES`].
    #[must_use]
    pub fn new(a: End, b: End, link: Link, seed: u64) -> Self {
        Self { a, b, there: link, back: link, mtu: MTU_BYTES, seed }
    }
}

/// A direction of a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From a to b.
    There,
    /// From b to a.
    Back,
}

/// Why there is no wire.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The namespace is not there, or is not ours to enter.
    #[error("cannot enter the network namespace {path} (needs CAP_SYS_ADMIN)")]
    Namespace {
        /// The namespace's file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The device could not be made.
    #[error("cannot make the interface {interface} through /dev/net/tun (needs CAP_NET_ADMIN and Linux 6.2)")]
    Device {
        /// The interface's name.
        interface: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// `ip` or `nsenter` is not installed.
    #[error("cannot run `ip` (packages iproute2 and util-linux)")]
    Ip {
        /// What the system said.
        source: std::io::Error,
    },
    /// `ip` did not do what it was told.
    #[error("`ip {arguments}`: {words}")]
    IpSaid {
        /// What it was told.
        arguments: String,
        /// What it answered.
        words: String,
    },
    /// A thread could not be started, or ended.
    #[error("a thread of the wire could not be started, or ended")]
    Thread,
}

/// A running wire. It is gone, interfaces and all, when this is dropped or the process dies.
#[derive(Debug)]
pub struct Wire {
    there: Running,
    back: Running,
}

#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// Makes both interfaces, up and with their addresses, and begins to carry packets.
    ///
    /// # Errors
    /// [`WireError`] names what is missing: nearly always a capability.
    pub fn start(spec: &WireSpec) -> Result<Self, WireError> {
        let a = Arc::new(device::open(&spec.a, spec.mtu)?);
        let b = Arc::new(device::open(&spec.b, spec.mtu)?);
        // Different luck for the two directions, from one seed.
        let there = Running::start(Line::new(spec.there, spec.seed), Arc::clone(&a), Arc::clone(&b))?;
        let back = Running::start(Line::new(spec.back, !spec.seed), b, a)?;
        Ok(Self { there, back })
    }

    /// Changes what one direction does, within a hundredth of a second. Packets on their way keep their time of arrival.
    pub fn set(&self, direction: Direction, link: Link) {
        self.running(direction).shared.set(link);
    }

    /// Changes both directions.
    pub fn set_both(&self, link: Link) {
        self.set(Direction::There, link);
        self.set(Direction::Back, link);
    }

    /// What one direction has done so far.
    #[must_use]
    pub fn counters(&self, direction: Direction) -> Counters {
        self.running(direction).shared.counters()
    }

    fn running(&self, direction: Direction) -> &Running {
        match direction {
            Direction::There => &self.there,
            Direction::Back => &self.back,
        }
    }
}

impl Running {
    fn start(
        line: Line,
        from: Arc<std::os::fd::OwnedFd>,
        to: Arc<std::os::fd::OwnedFd>,
    ) -> Result<Self, WireError> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("wire".to_owned())
            .spawn(move || direction::run(&theirs, line, &from, &to))
            .map_err(|_| WireError::Thread)?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            debug_assert!(std::thread::panicking(), "a thread of the wire panicked");
        }
    }
}
