//! Port mapping: asking the routers before us to let packets in.
//!
//! All routers are asked by all protocols at once (DESIGN section 7), and each question is kept by a task of its own
//! (`keeper`); this task starts and stops them as the network changes, and publishes one report. Where the address that a
//! router gave us is not the one that the world sees, a second router stands before the first, and is asked in its name:
//! the cascade.
//!
//! ```text
//!  mapper --starts--> keeper --asks--> asker: natpmp | pcp | igd --> router
//!     |  <--updates--    |
//!     +-- hops: who is the second router? --> more keepers, on behalf of the first router
//! ```
//!
//! A mapping is a promise of a device that nobody has checked: it is `is_verified` only after the floor above has seen a
//! packet from outside come through ([`Mapper::verified`]).
//!
//! Refuses to know: peers, and who is told of the mapping. RFC 6886, RFC 6887, UPnP IGD 1 and 2.

mod announce;
mod ask;
mod asker;
mod grant;
mod igd;
mod keeper;
mod mapper;
mod natpmp;
mod pcp;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

pub use self::grant::{MappingProtocol, MappingReport, MappingState, Question};
use self::{
    grant::LEASE,
    mapper::{Command, Task},
};

/// Commands waiting for the mapper; whoever sends more waits for it.
const COMMANDS_QUEUE: usize = 16;

/// Asks routers for mappings until it is stopped. Dropping it stops it, too, but leaves mappings to their leases.
#[derive(Debug)]
pub struct Mapper {
    commands: mpsc::Sender<Command>,
    reports: watch::Receiver<Vec<MappingReport>>,
    task: JoinHandle<()>,
}

impl Mapper {
    /// Begins to ask all gateways of this machine for mappings to UDP `port` of ours. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(port: u16) -> Self {
        Self::start_for(port, LEASE)
    }

    /// The same, for so long at a time; mappings are renewed at half of it. Meant for tests: a lease of seconds loads routers.
    #[must_use]
    pub fn start_for(port: u16, lease: Duration) -> Self {
        let (commands, received) = mpsc::channel(COMMANDS_QUEUE);
        let (publish, reports) = watch::channel(Vec::new());
        let task = tokio::spawn(Task::new(port, lease, publish).run(received));
        Self { commands, reports, task }
    }

    /// What each router said so far, question by question; changes wake the receiver.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<Vec<MappingReport>> {
        self.reports.clone()
    }

    /// Tells that the machine's addresses or gateways may have changed: everything is asked again. Cancel-safe.
    pub async fn network_changed(&self) {
        self.tell(Command::NetworkChanged).await;
    }

    /// Tells which address of ours a peer at `observer` sees. One that no router named betrays a router behind the router,
    /// which is then sought on the way to `observer` with packets that die before they get there. Cancel-safe.
    pub async fn observed(&self, external: IpAddr, observer: Ipv4Addr) {
        self.tell(Command::Observed { external, observer }).await;
    }

    /// Tells whether a packet from outside came through a mapping. Cancel-safe.
    pub async fn verified(&self, external: SocketAddr, came_through: bool) {
        self.tell(Command::Verified { external, came_through }).await;
    }

    /// Gives all mappings back and ends, within some 2 s.
    pub async fn stop(self) {
        self.tell(Command::Stop).await;
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the port mapper did not end well");
        }
    }

    async fn tell(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::debug!("the port mapper has ended");
        }
    }
}
