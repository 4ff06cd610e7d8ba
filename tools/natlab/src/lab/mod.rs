//! Builds a [`Site`] out of namespaces, cables and rules, and lets things happen to it in the middle of a run.
//!
//! In the middle stands one router that is the Internet (`core`). Each site hangs on it by one line, each [`Landmark`] by another. Cables are
//! routed pairs of virtual interfaces, never bridges: many machines let bridged packets pass through the host's own rules. A line with
//! delay, loss or a rate is a [`crate::wire`] instead. Everything carries the lab's name and goes with it ([`crate::ledger`]).

pub(crate) mod addresses;
mod site;

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use self::addresses::{LANDMARKS_MAX, SITES_MAX, Subnet, host_number};
pub use self::site::{BuiltRouter, BuiltSite, Host};
use crate::capability::{self, BASE};
use crate::ledger::{self, Claim};
use crate::namespace::Namespace;
use crate::program;
use crate::topology::{Site, Stack};

/// A cable is noticed within milliseconds; the kernel's queue of such news has been seen to take a second.
const PLUGGED_IN_WITHIN: Duration = Duration::from_secs(10);
/// How often we look.
const PLUGGED_IN_POLL: Duration = Duration::from_millis(2);
/// `IFA_F_TENTATIVE`: an address that may not be used yet.
const TENTATIVE: u8 = 0x40;

/// A network of real routers on this machine. Cloned handles share it; it is gone with the last of them and of its sites.
#[derive(Clone, Debug)]
pub struct Lab {
    inside: Arc<Inside>,
}

#[derive(Debug)]
struct Inside {
    claim: Claim,
    core: Namespace,
    numbers: Mutex<Numbers>,
    landmarks: Mutex<u8>,
}

/// Sites' numbers: which are taken, and which came last. A number rests as long as possible, for packets of its last bearer may be on
/// their way.
#[derive(Debug)]
struct Numbers {
    taken: [bool; SITES_MAX as usize],
    last: u8,
}

/// A public host that peers know: an observer, a relay, a judge. It has two addresses of each IP.
#[derive(Clone, Debug)]
pub struct Landmark {
    /// Where it runs.
    pub namespace: Namespace,
    /// Its IPv4 addresses.
    pub v4: [IpAddr; 2],
    /// Its IPv6 addresses.
    pub v6: [IpAddr; 2],
}

impl Lab {
    /// Clears up after labs that died, and starts one that has nothing but the Internet.
    ///
    /// # Errors
    /// Names the capability that this machine lacks.
    pub fn new() -> Result<Self> {
        capability::require(&[BASE])?;
        let claim = Claim::new()?;
        let core = Namespace::named(format!("{}-core", claim.name()));
        // From here on, dropping the claim removes whatever was made.
        make_namespaces(&[(&core, true)])?;
        // Nobody routes these: where nothing is, say so at once instead of going round.
        core.ip(&["route add unreachable default".to_owned(), "route add unreachable ::/0".to_owned()])?;
        let inside = Inside {
            claim,
            core,
            numbers: Mutex::new(Numbers { taken: [false; SITES_MAX as usize], last: 0 }),
            landmarks: Mutex::new(0),
        };
        Ok(Self { inside: Arc::new(inside) })
    }

    /// A folder for logs, sockets and keys; it goes with the lab.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.inside.claim.folder()
    }

    /// The router that is the Internet.
    #[must_use]
    pub fn core(&self) -> &Namespace {
        &self.inside.core
    }

    /// Adds a public host.
    ///
    /// # Errors
    /// The kernel or a program refused; or there are too many already.
    pub fn landmark(&self, name: &str) -> Result<Landmark> {
        let number = {
            let mut landmarks = self.inside.landmarks.lock().unwrap_or_else(PoisonError::into_inner);
            *landmarks += 1;
            *landmarks - 1
        };
        anyhow::ensure!(number < LANDMARKS_MAX, "{LANDMARKS_MAX} landmarks stand already");
        let namespace = self.namespace(name);
        make_namespaces(&[(&namespace, false)])?;
        let subnet = Subnet::landmark(number);
        let hosts = [host_number(0), host_number(1)];
        join(
            &Plug { namespace: self.core(), interface: &format!("l{number}"), hosts: &[1] },
            &Plug { namespace: &namespace, interface: "eth0", hosts: &hosts },
            &subnet,
            Stack::Dual,
        )?;
        namespace.ip(&default_routes(&subnet, 1, Stack::Dual))?;
        let v4 = hosts.map(|host| subnet.v4(host).into());
        let v6 = hosts.map(|host| subnet.v6(host).into());
        Ok(Landmark { namespace, v4, v6 })
    }

    /// Builds a site. It is gone when what this returns is dropped.
    ///
    /// # Errors
    /// The kernel or a program refused; or there are too many sites already.
    pub fn site(&self, plan: &Site) -> Result<BuiltSite> {
        BuiltSite::build(self, plan).with_context(|| format!("build site {}", plan.name))
    }

    /// Lets no packet pass between two sites, whatever way they found.
    ///
    /// # Errors
    /// The rules were refused.
    pub fn cut(&self, a: &BuiltSite, b: &BuiltSite) -> Result<()> {
        let (a, b) = (a.number(), b.number());
        let mut rules =
            String::from("table inet cut {\n  chain forward { type filter hook forward priority filter;\n");
        for (from, to) in [(a, b), (b, a)] {
            rules += &format!("    ip saddr 45.{from}.0.0/16 ip daddr 45.{to}.0.0/16 drop\n");
            rules += &format!("    ip6 saddr 2a01:{from:x}::/32 ip6 daddr 2a01:{to:x}::/32 drop\n");
        }
        self.core().nft(&(rules + "  }\n}\n"))
    }

    /// Takes back every cut.
    ///
    /// # Errors
    /// The rules were refused.
    pub fn heal(&self) -> Result<()> {
        self.core().nft("table inet cut { }\ndelete table inet cut\n")
    }

    /// A namespace that goes with the lab.
    fn namespace(&self, name: &str) -> Namespace {
        Namespace::named(format!("{}-{name}", self.inside.claim.name()))
    }

    fn take_number(&self) -> Result<u8> {
        let mut numbers = self.inside.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        // Number 0 stays free: an address with it looks like a network's own.
        let mut in_turn = (numbers.last + 1..SITES_MAX).chain(1..=numbers.last);
        let free = in_turn.find(|&number| !numbers.taken[usize::from(number)]);
        let number = free.with_context(|| format!("{SITES_MAX} sites stand already"))?;
        numbers.taken[usize::from(number)] = true;
        numbers.last = number;
        Ok(number)
    }

    fn give_back_number(&self, number: u8) {
        let mut numbers = self.inside.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.taken[usize::from(number)] = false;
    }
}

/// One end of a cable.
struct Plug<'a> {
    namespace: &'a Namespace,
    interface: &'a str,
    /// Its numbers within the subnet.
    hosts: &'a [u8],
}

/// Makes namespaces with a loopback, as routers or as hosts.
fn make_namespaces(wanted: &[(&Namespace, bool)]) -> Result<()> {
    let names: Vec<_> = wanted.iter().map(|(namespace, _)| namespace.name()).collect();
    ledger::make_namespaces(&names)?;
    for (namespace, forwards) in wanted {
        namespace.ip(&["link set dev lo up".to_owned()])?;
        namespace.enter(|| {
            let set = |key: &str, value: &str| {
                let file = Path::new("/proc/sys/net").join(key);
                std::fs::write(&file, value).with_context(|| format!("write {value} to {}", file.display()))
            };
            let forwards = if *forwards { "1" } else { "0" };
            set("ipv4/ip_forward", forwards)?;
            set("ipv6/conf/all/disable_ipv6", "0")?;
            set("ipv6/conf/default/disable_ipv6", "0")?;
            set("ipv6/conf/all/forwarding", forwards)?;
            // Addresses work at once: nobody else can have them.
            set("ipv6/conf/default/accept_dad", "0")?;
            // New namespaces begin with the host's values, and a strict one drops roaming hosts' packets.
            set("ipv4/conf/all/rp_filter", "0")?;
            set("ipv4/conf/default/rp_filter", "0")
        })?;
    }
    Ok(())
}

/// Lays a cable between two namespaces, and gives both ends their addresses.
fn join(a: &Plug<'_>, b: &Plug<'_>, subnet: &Subnet, stack: Stack) -> Result<()> {
    let line = format!(
        "link add {} netns {} type veth peer name {} netns {}\n",
        a.interface,
        a.namespace.name(),
        b.interface,
        b.namespace.name()
    );
    program::run("ip", &["-batch", "-"], &line)?;
    for plug in [a, b] {
        let mut lines = addresses(plug.interface, plug.hosts, subnet, stack);
        lines.push(format!("link set dev {} up", plug.interface));
        plug.namespace.ip(&lines)?;
    }
    if stack.has_v6() {
        await_ipv6(a)?;
        await_ipv6(b)?;
    }
    Ok(())
}

/// Waits until the kernel has noticed that the cable is plugged in: before that it drops neighbours' solicitations, and whoever sends first
/// waits a second for his next one.
fn await_ipv6(plug: &Plug<'_>) -> Result<()> {
    let until = Instant::now() + PLUGGED_IN_WITHIN;
    // Address, interface number, bits, scope, flags, interface. Its link-local address (scope 20) comes with the carrier.
    let is_ready = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        matches!(fields[..], [_, _, _, "20", flags, name] if name == plug.interface
            && u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & TENTATIVE == 0))
    };
    plug.namespace.enter(|| {
        loop {
            let list =
                std::fs::read_to_string("/proc/thread-self/net/if_inet6").context("list IPv6 addresses")?;
            if list.lines().any(is_ready) {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < until, "{} does not come up:\n{list}", plug.interface);
            std::thread::sleep(PLUGGED_IN_POLL);
        }
    })
}

/// Lines for `ip` that give an interface its addresses.
fn addresses(interface: &str, hosts: &[u8], subnet: &Subnet, stack: Stack) -> Vec<String> {
    let mut lines = Vec::new();
    for &host in hosts {
        if stack.has_v4() {
            lines.push(format!("addr add {} dev {interface}", subnet.v4_with_bits(host)));
        }
        if stack.has_v6() {
            lines.push(format!("addr add {} dev {interface} nodad", subnet.v6_with_bits(host)));
        }
    }
    lines
}

/// Lines for `ip` that send everything else to that host.
fn default_routes(subnet: &Subnet, via: u8, stack: Stack) -> Vec<String> {
    let mut lines = Vec::new();
    if stack.has_v4() {
        lines.push(format!("route replace default via {}", subnet.v4(via)));
    }
    if stack.has_v6() {
        lines.push(format!("route replace ::/0 via {}", subnet.v6(via)));
    }
    lines
}
