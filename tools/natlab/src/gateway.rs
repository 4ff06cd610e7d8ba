//! A router that maps ports when it is asked: miniupnpd, which answers UPnP IGD, NAT-PMP and PCP as most home routers do.
//!
//! Of two routers in a row the inner one maps only if its public address looks like one ([`Inner::LooksPublic`](crate::topology::Inner)):
//! this version of miniupnpd has no setting that makes it map behind a private one.
//!
//! Its rules go into chains that every router of the lab keeps ready for it (`rules`), so that what it maps is let in and what it forgets is
//! not. A router whose own public address is private says so, as real ones do: behind two routers each of them has to be asked.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::{Context as _, Result, bail};

use crate::capability::{self, MINIUPNPD};
use crate::lab::{BuiltRouter, Lab};
use crate::rules::{LAN, MAPPED_FORWARD, MAPPED_POSTROUTING, MAPPED_PREROUTING, TABLE, WAN};

/// The port of NAT-PMP and PCP (RFC 6886, RFC 6887).
pub const PORT_MAPPING_PORT: u16 = 5_351;
/// The port at which UPnP's descriptions lie here; SSDP tells it.
pub const UPNP_PORT: u16 = 5_000;
/// It answers within milliseconds; a loaded machine gets its time.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How often we look.
const READY_POLL: Duration = Duration::from_millis(10);
/// Lines of its log that an error quotes.
const LAST_WORDS: usize = 4;

/// A gateway daemon on a router. Dropping it kills it, and leaves its mappings as a crash would.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    config: PathBuf,
    log: PathBuf,
    router: crate::namespace::Namespace,
    /// Where it answers.
    pub address: SocketAddr,
}

impl Gateway {
    /// Starts one on a router.
    ///
    /// # Errors
    /// It is not installed, or does not answer.
    pub fn start(lab: &Lab, router: &BuiltRouter) -> Result<Self> {
        capability::require(&[MINIUPNPD])?;
        let name = router.namespace.name();
        let config = lab.folder().join(format!("{name}.gateway.conf"));
        let log = lab.folder().join(format!("{name}.gateway.log"));
        let lan = router.lan_address();
        fs::write(&config, configuration(name, &served(router)))
            .with_context(|| format!("write {}", config.display()))?;
        // Discovery is multicast, and a router's own way out leads to the Internet.
        router.namespace.ip(&[format!("route replace 239.0.0.0/8 dev {LAN}")])?;
        let child = spawn(&router.namespace, &config, &log)?;
        let address = SocketAddr::new(lan.into(), PORT_MAPPING_PORT);
        let mut gateway = Self { child, config, log, router: router.namespace.clone(), address };
        gateway.await_ready()?;
        Ok(gateway)
    }

    /// Ends it, forgets what it mapped, and starts it again: what a router does after a power cut. Gives how many mappings it had
    /// before, and while it was down.
    ///
    /// # Errors
    /// It does not answer again.
    pub fn restart(&mut self) -> Result<(usize, usize)> {
        let before = self.mappings()?;
        self.stop()?;
        let flush = [MAPPED_FORWARD, MAPPED_PREROUTING, MAPPED_POSTROUTING]
            .map(|chain| format!("flush chain inet {TABLE} {chain}\n"));
        self.router.nft(&flush.concat())?;
        let after = self.mappings()?;
        self.child = spawn(&self.router, &self.config, &self.log)?;
        self.await_ready()?;
        Ok((before, after))
    }

    /// How many mappings stand, by its router's rules and not by its word.
    ///
    /// # Errors
    /// The rules cannot be read.
    pub fn mappings(&self) -> Result<usize> {
        let rules = self.router.nft_list(TABLE, MAPPED_PREROUTING)?;
        Ok(rules.lines().filter(|line| line.contains("dnat")).count())
    }

    fn stop(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Waits until somebody listens for NAT-PMP, by the kernel's list: to ask would be to be answered late.
    fn await_ready(&mut self) -> Result<()> {
        let until = Instant::now() + READY_WITHIN;
        let port = format!(":{PORT_MAPPING_PORT:04X}");
        loop {
            let list = self.router.enter(|| Ok(fs::read_to_string("/proc/thread-self/net/udp")?))?;
            if list
                .lines()
                .filter_map(|line| line.split_whitespace().nth(1))
                .any(|local| local.ends_with(&port))
            {
                return Ok(());
            }
            let has_ended = self.child.try_wait()?.is_some();
            if has_ended || Instant::now() > until {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                let lines: Vec<_> = said.lines().collect();
                bail!(
                    "miniupnpd does not answer: {}",
                    lines[lines.len().saturating_sub(LAST_WORDS)..].join(" | ")
                );
            }
            thread::sleep(READY_POLL);
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself; its namespace's end would end it too.
        self.stop().ok();
    }
}

fn spawn(
    router: &crate::namespace::Namespace,
    config: &std::path::Path,
    log: &std::path::Path,
) -> Result<Child> {
    let words = File::create(log)?;
    let mut command = Command::new("miniupnpd");
    command.arg("-d").arg("-f").arg(config).arg("-P").arg(config.with_extension("pid"));
    command.stdin(Stdio::null()).stdout(words.try_clone()?).stderr(words);
    router.spawn(&mut command)
}

/// Whom it serves: the network that its interface is in. A customer who is in no network with it is served where the network is said
/// to be wide enough for both addresses; nobody else is let in to ask.
fn served(router: &BuiltRouter) -> String {
    if router.has_customer_apart() { format!("{}/1", router.lan_address()) } else { LAN.to_owned() }
}

fn configuration(name: &str, served: &str) -> String {
    let bytes = name.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    [
        format!("ext_ifname={WAN}"),
        format!("listening_ip={served}"),
        format!("port={UPNP_PORT}"),
        "enable_upnp=yes".to_owned(),
        "enable_natpmp=yes".to_owned(),
        // Nobody maps a port to somebody else.
        "secure_mode=yes".to_owned(),
        format!("upnp_table_name={TABLE}"),
        format!("upnp_nat_table_name={TABLE}"),
        format!("upnp_forward_chain={MAPPED_FORWARD}"),
        format!("upnp_nat_chain={MAPPED_PREROUTING}"),
        format!("upnp_nat_postrouting_chain={MAPPED_POSTROUTING}"),
        format!("uuid=00000000-0000-4000-8000-{:012x}", bytes & 0xffff_ffff_ffff),
        "friendly_name=lab".to_owned(),
        "allow 1024-65535 0.0.0.0/0 1024-65535".to_owned(),
        "deny 0-65535 0.0.0.0/0 0-65535\n".to_owned(),
    ]
    .join("\n")
}
