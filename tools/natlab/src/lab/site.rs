//! A built [`Site`]: its routers and hosts, and what may happen to them while somebody is talking.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::addresses::{Subnet, host_number, is_outside_of};
use super::{Lab, Plug, addresses, default_routes, join, make_namespaces};
use crate::ledger::remove_namespaces;
use crate::namespace::Namespace;
use crate::rules::{self, LAN, WAN};
use crate::topology::{Inner, Lifetimes, Router, Site, Stack};
use crate::wire::{End, Wire, WireSpec};

/// Towards the Internet on a host that has no router before it.
const HOST_INTERFACE: &str = "eth0";
/// The end of a subnet that is nearer to the Internet.
const NEAR: u8 = 1;
/// The other end, where it is a router or a host with a line of its own.
const FAR: u8 = 2;

/// A site that stands. Dropping it removes its namespaces and ends what runs in them.
#[derive(Debug)]
pub struct BuiltSite {
    lab: Lab,
    plan: Site,
    number: u8,
    /// How often its address has changed.
    epoch: u8,
    routers: Vec<BuiltRouter>,
    hosts: Vec<Host>,
    /// The long wire, if its line is one.
    line: Option<Wire>,
    /// What all its namespaces begin with.
    prefix: String,
}

/// A router that stands.
#[derive(Debug)]
pub struct BuiltRouter {
    /// Where it runs.
    pub namespace: Namespace,
    plan: Router,
    /// Its address towards the Internet.
    wan: Ipv4Addr,
    /// Its address towards the hosts.
    lan: Ipv4Addr,
    /// The router behind it, if that has an address of its own kind.
    customer: Option<Ipv4Addr>,
}

/// A host at the end of a site.
#[derive(Clone, Debug)]
pub struct Host {
    /// Where it runs.
    pub namespace: Namespace,
    /// Its IPv4 address, if it has one.
    pub v4: Option<IpAddr>,
    /// Its IPv6 address, if it has one.
    pub v6: Option<IpAddr>,
}

impl BuiltSite {
    pub(super) fn build(lab: &Lab, plan: &Site) -> Result<Self> {
        let is_possible = plan.hosts == 1 || (!plan.routers.is_empty() && plan.stack == Stack::V4);
        ensure!(is_possible, "several hosts need a router before them, and IPv4");
        let number = lab.take_number()?;
        let prefix = format!("{}-", lab.namespace(&plan.name).name());
        let lan = Subnet::lan(number, plan.routers.iter().any(Router::translates));
        let routers: Vec<_> = (0_u8..)
            .zip(&plan.routers)
            .map(|(depth, router)| {
                let is_last = usize::from(depth) + 1 == plan.routers.len();
                let (outside, inside) =
                    (outside_of(number, depth), if is_last { lan } else { outside_of(number, depth + 1) });
                let namespace = Namespace::named(format!("{prefix}r{depth}"));
                let borrowed = |above: u8| match plan.inner {
                    Inner::Shared => None,
                    Inner::LooksPublic => Some(Subnet::borrowed(number, above)),
                };
                let wan = depth.checked_sub(1).and_then(borrowed).unwrap_or_else(|| outside.v4(FAR));
                let customer = if is_last { None } else { borrowed(depth) };
                BuiltRouter { namespace, plan: *router, wan, lan: inside.v4(NEAR), customer }
            })
            .collect();
        let hosts = (0..plan.hosts).map(|index| {
            let is_alone = routers.is_empty();
            let (subnet, host) =
                if is_alone { (outside_of(number, 0), FAR) } else { (lan, host_number(index)) };
            Host {
                namespace: Namespace::named(format!("{prefix}h{index}")),
                v4: plan.stack.has_v4().then(|| subnet.v4(host).into()),
                v6: plan.stack.has_v6().then(|| subnet.v6(host).into()),
            }
        });
        let hosts = hosts.collect();
        // Whole before anything is made: what fails half-way is removed by its drop.
        let mut site = Self {
            lab: lab.clone(),
            plan: plan.clone(),
            number,
            epoch: 0,
            routers,
            hosts,
            line: None,
            prefix,
        };
        site.make(&lan)?;
        Ok(site)
    }

    fn make(&mut self, lan: &Subnet) -> Result<()> {
        let mut namespaces: Vec<_> = self.routers.iter().map(|router| (&router.namespace, true)).collect();
        namespaces.extend(self.hosts.iter().map(|host| (&host.namespace, false)));
        make_namespaces(&namespaces)?;
        self.line = self.join_to_core()?;
        self.join_routers(lan)?;
        for router in &self.routers {
            router.obey(router.plan.lifetimes)?;
            router.namespace.nft(&rules::ruleset(&router.plan, router.wan))?;
        }
        Ok(())
    }

    /// Hangs the outermost namespace on the Internet, by a cable or by a long wire.
    fn join_to_core(&self) -> Result<Option<Wire>> {
        let (outermost, interface) = self.outermost();
        let subnet = Subnet::line(self.number, self.epoch);
        let ours = self.interface_in_core();
        let core = Plug { namespace: self.lab.core(), interface: &ours, hosts: &[NEAR] };
        let site = Plug { namespace: outermost, interface, hosts: &[FAR] };
        let wire = match self.plan.line {
            None => {
                join(&core, &site, &subnet, self.plan.stack)?;
                None
            }
            Some((down, up)) => {
                let end = |plug: &Plug<'_>| End::in_namespace(plug.namespace.name(), plug.interface, &[]);
                let link = WireSpec {
                    there: down,
                    back: up,
                    ..WireSpec::new(end(&core), end(&site), down, self.number.into())
                };
                let wire = Wire::start(&link).context("start the long wire")?;
                for plug in [&core, &site] {
                    plug.namespace.ip(&addresses(plug.interface, plug.hosts, &subnet, self.plan.stack))?;
                }
                Some(wire)
            }
        };
        outermost.ip(&default_routes(&subnet, NEAR, self.plan.stack))?;
        self.route_from_core(&subnet)?;
        Ok(wire)
    }

    /// Tells the Internet where the site's public networks are.
    fn route_from_core(&self, line: &Subnet) -> Result<()> {
        if self.routers.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::new();
        let lan = Subnet::lan(self.number, false);
        if self.plan.stack.has_v4() && !self.is_translated() {
            lines.push(format!("route replace {} via {}", lan.v4_net(), line.v4(FAR)));
        }
        if self.plan.stack.has_v6() {
            lines.push(format!("route replace {} via {}", lan.v6_net(), line.v6(FAR)));
        }
        self.lab.core().ip(&lines)
    }

    /// Joins each router to the next one, and the last one to the hosts.
    fn join_routers(&self, lan: &Subnet) -> Result<()> {
        let stack = self.plan.stack;
        for (depth, pair) in (0_u8..).zip(self.routers.windows(2)) {
            let [outer, inner] = pair else { continue };
            let subnet = Subnet::between_routers(self.number, depth);
            let near = Plug { namespace: &outer.namespace, interface: LAN, hosts: &[NEAR] };
            let far = Plug { namespace: &inner.namespace, interface: WAN, hosts: &[FAR] };
            join(&near, &far, &subnet, stack)?;
            if let Some(customer) = outer.customer {
                number_apart(outer, inner, customer)?;
            }
            inner.namespace.ip(&default_routes(&subnet, NEAR, stack))?;
            if stack.has_v6() {
                outer.namespace.ip(&[format!("route add {} via {}", lan.v6_net(), subnet.v6(FAR))])?;
            }
        }
        let Some(last) = self.routers.last() else { return Ok(()) };
        // One cable for each host; with more than one, each gets a route of its own.
        for (index, host) in (0_u8..).zip(&self.hosts) {
            let interface = if index == 0 { LAN.to_owned() } else { format!("{LAN}{index}") };
            let far =
                Plug { namespace: &host.namespace, interface: HOST_INTERFACE, hosts: &[host_number(index)] };
            if index == 0 {
                join(&Plug { namespace: &last.namespace, interface: LAN, hosts: &[NEAR] }, &far, lan, stack)?;
            } else {
                join_further_host(last, &interface, &far, lan)?;
            }
            host.namespace.ip(&default_routes(lan, NEAR, stack))?;
        }
        Ok(())
    }

    /// What hangs on the Internet: the carrier's router, or the host itself.
    fn outermost(&self) -> (&Namespace, &'static str) {
        self.routers
            .first()
            .map_or((&self.hosts[0].namespace, HOST_INTERFACE), |router| (&router.namespace, WAN))
    }

    fn interface_in_core(&self) -> String {
        format!("s{}", self.number)
    }

    fn is_translated(&self) -> bool {
        self.plan.routers.iter().any(Router::translates)
    }

    /// Its number: the second one of its addresses.
    pub(crate) fn number(&self) -> u8 {
        self.number
    }

    /// What it was built from.
    #[must_use]
    pub fn plan(&self) -> &Site {
        &self.plan
    }

    /// Its routers, that of the carrier first.
    #[must_use]
    pub fn routers(&self) -> &[BuiltRouter] {
        &self.routers
    }

    /// Its first host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.hosts[0]
    }

    /// All its hosts.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The IPv4 address that strangers see: of the outermost router that translates, else of the host itself.
    #[must_use]
    pub fn outside_v4(&self) -> Option<IpAddr> {
        if !self.plan.stack.has_v4() {
            return None;
        }
        let translating = self.routers.iter().find(|router| router.plan.translates());
        translating.map_or(self.hosts[0].v4, |router| Some(router.wan.into()))
    }

    /// Whether strangers see packets of this site come from `ip`.
    #[must_use]
    pub fn is_seen_at(&self, ip: IpAddr) -> bool {
        is_outside_of(self.number, ip)
    }

    /// The long wire, if the line is one.
    #[must_use]
    pub fn line(&self) -> Option<&Wire> {
        self.line.as_ref()
    }

    /// All routers forget all bindings, as after a power cut.
    ///
    /// # Errors
    /// A router refused.
    pub fn reboot(&self) -> Result<()> {
        self.routers.iter().try_for_each(BuiltRouter::reboot)
    }

    /// All routers' bindings live so long from now on.
    ///
    /// # Errors
    /// A router refused.
    pub fn set_lifetimes(&mut self, fresh: Duration, stream: Duration) -> Result<()> {
        for router in &mut self.routers {
            router.plan.lifetimes = Lifetimes { fresh, stream };
            router.obey(router.plan.lifetimes)?;
            router.namespace.nft(&rules::ruleset(&router.plan, router.wan))?;
        }
        Ok(())
    }

    /// The line gets another public address, and the old one reaches nobody: another network was joined, or the provider cut the line
    /// as some do every night.
    ///
    /// # Errors
    /// The site has a public network behind a router, which would have to be numbered anew; or the kernel refused.
    pub fn change_address(&mut self) -> Result<()> {
        ensure!(
            self.routers.is_empty() || (self.is_translated() && self.plan.stack == Stack::V4),
            "only hosts with a line of their own and translated sites change their address"
        );
        let stack = self.plan.stack;
        self.epoch += 1;
        let subnet = Subnet::line(self.number, self.epoch);
        let ours = self.interface_in_core();
        let (outermost, interface) = self.outermost();
        let renumber = |interface: &str, host: u8| {
            let mut lines = vec![format!("addr flush dev {interface} scope global")];
            lines.extend(addresses(interface, &[host], &subnet, stack));
            lines
        };
        self.lab.core().ip(&renumber(&ours, NEAR))?;
        let mut lines = renumber(interface, FAR);
        lines.extend(default_routes(&subnet, NEAR, stack));
        outermost.ip(&lines)?;
        let wan = subnet.v4(FAR);
        if let Some(router) = self.routers.first_mut() {
            router.wan = wan;
            router.namespace.nft(&rules::ruleset(&router.plan, wan))?;
            router.reboot()?;
        } else {
            let host = &mut self.hosts[0];
            host.v4 = stack.has_v4().then(|| wan.into());
            host.v6 = stack.has_v6().then(|| subnet.v6(FAR).into());
        }
        Ok(())
    }
}

/// The network towards the Internet of what stands at that depth: 0 is the carrier's router, or a host without one.
fn outside_of(site: u8, depth: u8) -> Subnet {
    depth.checked_sub(1).map_or_else(|| Subnet::line(site, 0), |above| Subnet::between_routers(site, above))
}

impl BuiltRouter {
    /// Forgets all bindings.
    ///
    /// # Errors
    /// `conntrack` or `nft` refused.
    pub fn reboot(&self) -> Result<()> {
        self.namespace.run("conntrack", &["-F"], "")?;
        let forget = rules::forget(&self.plan);
        if forget.is_empty() { Ok(()) } else { self.namespace.nft(&forget) }
    }

    /// Connections that it remembers now.
    ///
    /// # Errors
    /// The kernel does not count.
    pub fn entries(&self) -> Result<u64> {
        self.namespace.sysctl_number("netfilter/nf_conntrack_count")
    }

    /// Its address towards the Internet.
    #[must_use]
    pub fn wan(&self) -> Ipv4Addr {
        self.wan
    }

    /// Its address towards the hosts.
    #[must_use]
    pub fn lan_address(&self) -> Ipv4Addr {
        self.lan
    }

    /// Whether the router behind it is in no network with it: gateways answer their neighbours only, unless told better.
    #[must_use]
    pub fn has_customer_apart(&self) -> bool {
        self.customer.is_some()
    }

    /// What it was built from.
    #[must_use]
    pub fn plan(&self) -> &Router {
        &self.plan
    }

    fn obey(&self, lifetimes: Lifetimes) -> Result<()> {
        let seconds = |lifetime: Duration| lifetime.as_secs().max(1).to_string();
        self.namespace.sysctl("netfilter/nf_conntrack_udp_timeout", &seconds(lifetimes.fresh))?;
        self.namespace.sysctl("netfilter/nf_conntrack_udp_timeout_stream", &seconds(lifetimes.stream))
    }
}

impl Drop for BuiltSite {
    fn drop(&mut self) {
        // The wire holds its interfaces: it goes first. What cannot be removed now is the lab's to remove.
        self.line = None;
        // A cable dies with its namespace, but some time later; the next site of this number wants the name at once.
        drop(self.lab.core().ip(&[format!("link del {}", self.interface_in_core())]));
        drop(remove_namespaces(&self.prefix));
        self.lab.give_back_number(self.number);
    }
}

/// A router behind another gets an address that is in no network with it, and each of the two a route to the other.
fn number_apart(outer: &BuiltRouter, inner: &BuiltRouter, customer: Ipv4Addr) -> Result<()> {
    inner.namespace.ip(&[
        format!("addr flush dev {WAN} scope global"),
        format!("addr add {customer} peer {} dev {WAN}", outer.lan),
    ])?;
    outer.namespace.ip(&[format!("route add {customer}/32 dev {LAN}")])
}

/// A further host has the router's address on a cable of its own; the router knows it by a host route, and neighbours reach each other
/// through the router, which answers for them (proxy ARP) as a switch would pass frames on.
fn join_further_host(last: &BuiltRouter, interface: &str, far: &Plug<'_>, lan: &Subnet) -> Result<()> {
    let near = Plug { namespace: &last.namespace, interface, hosts: &[] };
    join(&near, far, lan, Stack::V4)?;
    let route = |host: &u8| format!("route add {}/32 dev {interface} src {}", lan.v4(*host), lan.v4(NEAR));
    last.namespace.ip(&far.hosts.iter().map(route).collect::<Vec<_>>())?;
    for name in [LAN, interface] {
        last.namespace.sysctl(&format!("ipv4/conf/{name}/proxy_arp"), "1")?;
    }
    Ok(())
}
