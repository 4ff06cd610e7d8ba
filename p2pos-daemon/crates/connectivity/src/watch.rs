//! Watches for changes of the machine's network: addresses that come and go, another gateway.
//!
//! On Linux the kernel's routing socket wakes us; what it says is not read, since the present state is one cheap look away
//! and cannot be out of date. Changes come in bursts (a laptop that wakes gets link, addresses and routes one by one), so
//! the look is taken when the burst is over. Everywhere else, and beside it, we look every [`LOOK_EVERY`].
//!
//! Refuses to know: what a change is good or bad for.

use std::{io, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{self, Instant},
};

use crate::{
    gateways::{Gateway, gateways},
    interfaces::{InterfaceAddress, interface_addresses},
};

/// A burst of changes is over after so long without another one.
const QUIET_FOR: Duration = Duration::from_millis(200);
/// ... or after so long in any case: an interface that flaps all the time must not keep us from looking.
const BURST_MAX: Duration = Duration::from_secs(2);
/// How often we look without being told: the kernel's message may have been lost, or the system has none.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The machine's network at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkState {
    /// All addresses of interfaces that are up, sorted.
    pub addresses: Vec<InterfaceAddress>,
    /// The ways out.
    pub gateways: Vec<Gateway>,
}

impl NetworkState {
    /// Looks at the machine. Takes well under a millisecond, and blocks that long.
    #[must_use]
    pub fn look() -> Self {
        let mut addresses = interface_addresses().unwrap_or_else(|error| {
            tracing::debug!(%error, "the interfaces cannot be listed");
            Vec::new()
        });
        addresses.retain(|own| own.is_up);
        addresses.sort_by(|a, b| (a.ip, &a.interface).cmp(&(b.ip, &b.interface)));
        Self { addresses, gateways: gateways() }
    }
}

/// A watch over the network; ends when dropped.
#[derive(Debug)]
pub struct NetworkWatch {
    states: watch::Receiver<NetworkState>,
    task: JoinHandle<()>,
}

impl NetworkWatch {
    /// Begins to watch. Must be called within a tokio runtime.
    #[must_use]
    pub fn start() -> Self {
        // The ear is opened before the first look, so that nothing between the two is missed.
        let ear = Ear::open();
        let (publish, states) = watch::channel(NetworkState::look());
        Self { states, task: tokio::spawn(run(ear, publish)) }
    }

    /// The present state; changes wake the receiver.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<NetworkState> {
        self.states.clone()
    }
}

impl Drop for NetworkWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(mut ear: Ear, publish: watch::Sender<NetworkState>) {
    while !publish.is_closed() {
        if time::timeout(LOOK_EVERY, ear.hear()).await.is_ok() {
            let over_at = Instant::now() + BURST_MAX;
            while Instant::now() < over_at && time::timeout(QUIET_FOR, ear.hear()).await.is_ok() {}
        }
        let now = NetworkState::look();
        publish.send_if_modified(|before| {
            let has_changed = *before != now;
            if has_changed {
                tracing::debug!(
                    addresses = now.addresses.len(),
                    gateways = now.gateways.len(),
                    "the network changed"
                );
                *before = now;
            }
            has_changed
        });
    }
}

/// Hears that something changed; deaf where the system has no such thing.
#[derive(Debug)]
struct Ear {
    #[cfg(target_os = "linux")]
    socket: Option<linux::RouteSocket>,
}

impl Ear {
    #[cfg(target_os = "linux")]
    fn open() -> Self {
        let socket = linux::RouteSocket::open()
            .inspect_err(|error: &io::Error| tracing::warn!(%error, "network changes are noticed late"))
            .ok();
        Self { socket }
    }

    #[cfg(not(target_os = "linux"))]
    fn open() -> Self {
        Self {}
    }

    /// Waits for the next change. Cancel-safe.
    async fn hear(&mut self) {
        #[cfg(target_os = "linux")]
        if let Some(socket) = &self.socket {
            match socket.changed().await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, "network changes are noticed late from now on");
                    self.socket = None;
                }
            }
        }
        std::future::pending::<()>().await;
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{io, net, os::fd::AsRawFd};

    use nix::{
        libc::ENOBUFS,
        sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket},
    };
    use tokio::net::UdpSocket;

    /// rtnetlink(7): links, addresses and routes of both families.
    const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

    /// The kernel's routing socket. It is held as if it were one of UDP, of which it needs only what all datagram sockets
    /// have: that one waits for a message and receives it.
    #[derive(Debug)]
    pub(super) struct RouteSocket(UdpSocket);

    impl RouteSocket {
        pub(super) fn open() -> io::Result<Self> {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
            bind(fd.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
            Ok(Self(UdpSocket::from_std(net::UdpSocket::from(fd))?))
        }

        /// Waits for a message, and throws it away. Cancel-safe.
        pub(super) async fn changed(&self) -> io::Result<()> {
            match self.0.recv(&mut [0; 16]).await {
                Ok(_) => Ok(()),
                // The kernel had more to tell than fits its buffer: that, too, is a change.
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => Ok(()),
                Err(error) => Err(error),
            }
        }
    }
}
