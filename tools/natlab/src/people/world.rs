//! A small world: the Internet, a relay (or two) and two observers on it, and whoever moves in.
//!
//! How people come to know each other stands here and nowhere else ([`World::introduce`]): they tell each other the addresses at which
//! anybody reaches them, if there are any, and at which relay they can be called.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::{sleep, timeout};

use super::daemon::{Daemon, Home, Program};
use super::plugin::Plugin;
use crate::evil::Evil;
use crate::gateway::Gateway;
use crate::lab::{BuiltSite, Lab, Landmark};
use crate::topology::{Kind, Site};
use crate::watch;
use crate::wire::Link;

/// The relay's port, UDP and TCP: the one that is let out last.
const RELAY_PORT: &str = "443";
/// What the relay's settings are: it knows everybody, and nobody waits for its rates.
const RELAY_SETTINGS: &[(&str, &str)] = &[
    ("P2POS_RELAY_MODE", "contacts"),
    ("P2POS_NETWORK_PORT", RELAY_PORT),
    ("P2POS_RELAY_CONTACT_MBIT", "1000"),
    ("P2POS_RELAY_TOTAL_MBIT", "10000"),
    ("P2POS_RELAY_TCP_PORTS", RELAY_PORT),
];
/// How long a newcomer may take to be callable: where UDP is blocked, that is found out first.
const CALLABLE_WITHIN: Duration = Duration::from_secs(15);
/// How often we look whether it is.
const CALLABLE_POLL: Duration = Duration::from_millis(20);
/// A newcomer's first words to the landmarks: where UDP is blocked nobody answers, and the test goes on without.
const GREETING_WITHIN: Duration = Duration::from_secs(2);

/// The Internet with those whom everybody knows.
#[derive(Debug)]
pub struct World {
    lab: Lab,
    program: Program,
    /// Forwards for anybody.
    relay: Known,
    /// Does so too, in a world where relays go down or are evil.
    spare: Option<Known>,
    /// Tell others how they are seen; unrelated to each other and to the relay.
    observers: [Known; 2],
    /// What each newcomer's line does, both ways; `None`: nothing.
    line: Option<Link>,
}

/// A daemon at a landmark.
#[derive(Debug)]
pub struct Known {
    /// Where it stands.
    pub at: Landmark,
    /// The daemon.
    pub daemon: Daemon,
    /// Where others are told that it is, if not where it is.
    told_at: Option<SocketAddr>,
}

/// Somebody with a site, a daemon and a plugin.
#[derive(Debug)]
pub struct Person {
    /// The plugin, which goes first.
    pub plugin: Plugin,
    /// The daemon.
    pub daemon: Daemon,
    /// Where they live.
    pub site: BuiltSite,
    kind: Option<Kind>,
}

impl World {
    /// Builds it.
    ///
    /// # Errors
    /// The lab cannot be built, or a daemon does not start.
    pub async fn new(program: &Program) -> Result<Self> {
        let lab = Lab::new()?;
        let relay = Known::settle(&lab, program, "relay", RELAY_SETTINGS);
        let (relay, one, other) = tokio::try_join!(
            relay,
            Known::settle(&lab, program, "observer1", &[]),
            Known::settle(&lab, program, "observer2", &[]),
        )?;
        Ok(Self { lab, program: program.clone(), relay, spare: None, observers: [one, other], line: None })
    }

    /// The same with a long wire before every site that has none of its own.
    #[must_use]
    pub fn with_lines(self, line: Link) -> Self {
        Self { line: Some(line), ..self }
    }

    /// The same with a second relay, which everybody knows and keeps a lease at.
    ///
    /// # Errors
    /// Its daemon does not start.
    pub async fn with_spare_relay(self) -> Result<Self> {
        let spare = Known::settle(&self.lab, &self.program, "spare", RELAY_SETTINGS).await?;
        Ok(Self { spare: Some(spare), ..self })
    }

    /// The same with a second relay, and with somebody evil before the first, whom newcomers are told to be the relay. They use both.
    ///
    /// # Errors
    /// The relay's daemon does not start, or the evil one finds no place.
    pub async fn with_evil_relay(mut self) -> Result<(Self, Evil)> {
        self = self.with_spare_relay().await?;
        let evil = Evil::before(&self.relay.at, self.relay.daemon.port)?;
        self.relay.told_at = Some(evil.address);
        Ok((self, evil))
    }

    /// The round trip between two newcomers that their lines make.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        self.line.map_or(Duration::ZERO, |line| 4 * line.delay)
    }

    /// The lab below.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Builds a site of that kind, with somebody in it.
    ///
    /// # Errors
    /// The site cannot be built, or the daemon does not start.
    pub async fn person(&self, name: &str, kind: Kind) -> Result<Person> {
        let person = self.person_at(&kind.site(name)).await?;
        Ok(Person { kind: Some(kind), ..person })
    }

    /// The same at a site of one's own design. The person knows the landmarks, and has greeted them: routers that want to have been called
    /// have been.
    ///
    /// # Errors
    /// The same.
    pub async fn person_at(&self, plan: &Site) -> Result<Person> {
        let site = self.build(plan)?;
        self.move_in(plan, site).await
    }

    /// The same behind routers of which each maps ports when it is asked.
    ///
    /// # Errors
    /// The same, and a gateway that does not start.
    pub async fn person_behind_gateways(&self, plan: &Site) -> Result<(Person, Vec<Gateway>)> {
        let site = self.build(plan)?;
        let gateways = site.routers().iter().map(|router| Gateway::start(&self.lab, router));
        let gateways = gateways.collect::<Result<_>>()?;
        Ok((self.move_in(plan, site).await?, gateways))
    }

    fn build(&self, plan: &Site) -> Result<BuiltSite> {
        let line = plan.line.or_else(|| self.line.map(|line| (line, line)));
        let site = self.lab.site(&Site { line, ..plan.clone() })?;
        watch::start(&site.host().namespace)?;
        Ok(site)
    }

    async fn move_in(&self, plan: &Site, site: BuiltSite) -> Result<Person> {
        let home = Home::make(&self.lab, &plan.name)?;
        let mut relays = Vec::new();
        for relay in self.relays() {
            let at = relay.addresses(plan.stack.has_v4(), plan.stack.has_v6());
            relays.extend(at.first().map(|at| format!("{}@{at}", relay.daemon.peer_id)));
            relay.daemon.expects(&home).await?;
        }
        let relays = relays.join(",");
        let settings = [("P2POS_RELAY_USE", relays.as_str())];
        let daemon = Daemon::start(&self.program, home, &site.host().namespace, &settings).await?;
        let plugin = Plugin::at(&daemon).await?;
        plugin.serve_echo().await?;
        for known in self.landmarks().into_iter().chain(&self.spare) {
            let addresses = known.addresses(plan.stack.has_v4(), plan.stack.has_v6());
            daemon.knows(&known.daemon, &texts(&addresses)).await?;
        }
        let [relay, one, other] = self.landmarks();
        let greetings = async {
            tokio::join!(
                daemon.reaches(&relay.daemon),
                daemon.reaches(&one.daemon),
                daemon.reaches(&other.daemon)
            )
        };
        if let Ok((a, b, c)) = timeout(GREETING_WITHIN, greetings).await {
            // Whether anybody answered is the site's affair; that our own daemon works is ours.
            for answered in [a, b, c] {
                answered?;
            }
        }
        Ok(Person { plugin, daemon, site, kind: None })
    }

    /// Makes two people know each other as their users would: each gets the addresses of the other that are good from anywhere, and
    /// where the other can be called.
    ///
    /// # Errors
    /// A daemon said no, or cannot be called.
    pub async fn introduce(&self, a: &Person, b: &Person) -> Result<()> {
        let (of_a, of_b) = tokio::try_join!(self.addresses_of(a), self.addresses_of(b))?;
        a.daemon.knows(&b.daemon, &of_b).await?;
        b.daemon.knows(&a.daemon, &of_a).await
    }

    async fn addresses_of(&self, person: &Person) -> Result<Vec<String>> {
        let wanted = self.relays().count();
        let callable = async {
            loop {
                let addresses = person.daemon.callable_at().await?;
                if addresses.len() >= wanted {
                    return anyhow::Ok(addresses);
                }
                sleep(CALLABLE_POLL).await;
            }
        };
        let through_relays = timeout(CALLABLE_WITHIN, callable).await;
        let mut through_relays = through_relays.with_context(|| {
            format!(
                "{} cannot be called through every relay: {}",
                person.daemon.name,
                person.daemon.last_words()
            )
        })??;
        let mut addresses = texts(&person.open_addresses());
        // The first relay's first.
        let first = self.relay.daemon.peer_id.to_string();
        through_relays.sort_by_key(|address| !address.contains(&first));
        addresses.append(&mut through_relays);
        Ok(addresses)
    }

    /// Whether an address is a relay's.
    #[must_use]
    pub fn is_relay(&self, ip: IpAddr) -> bool {
        self.relays().any(|relay| relay.is_at(ip))
    }

    /// Whether an address is the spare relay's.
    #[must_use]
    pub fn is_spare_relay(&self, ip: IpAddr) -> bool {
        self.spare.iter().any(|relay| relay.is_at(ip))
    }

    /// The relays.
    pub fn relays(&self) -> impl Iterator<Item = &Known> {
        std::iter::once(&self.relay).chain(&self.spare)
    }

    fn landmarks(&self) -> [&Known; 3] {
        let [one, other] = &self.observers;
        [&self.relay, one, other]
    }
}

fn texts(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

impl Known {
    async fn settle(lab: &Lab, program: &Program, name: &str, settings: &[(&str, &str)]) -> Result<Self> {
        let at = lab.landmark(name)?;
        let daemon = Daemon::start(program, Home::make(lab, name)?, &at.namespace, settings).await?;
        Ok(Self { at, daemon, told_at: None })
    }

    fn is_at(&self, ip: IpAddr) -> bool {
        self.at.v4.contains(&ip) || self.at.v6.contains(&ip)
    }

    fn addresses(&self, has_v4: bool, has_v6: bool) -> Vec<SocketAddr> {
        if let Some(told_at) = self.told_at {
            return vec![told_at];
        }
        let [v4, v6] = [(self.at.v4[0], has_v4), (self.at.v6[0], has_v6)];
        [v4, v6]
            .into_iter()
            .filter(|(_, has)| *has)
            .map(|(ip, _)| SocketAddr::new(ip, self.daemon.port))
            .collect()
    }
}

impl Person {
    /// Addresses at which strangers reach this person without any preparation. A full cone keeps ports and is open to all once its
    /// host has called anybody.
    fn open_addresses(&self) -> Vec<SocketAddr> {
        let at = |ip: Option<IpAddr>| ip.map(|ip| SocketAddr::new(ip, self.daemon.port));
        let is_public = self.site.routers().is_empty();
        if is_public {
            let host = self.site.host();
            return at(host.v4).into_iter().chain(at(host.v6)).collect();
        }
        if self.kind == Some(Kind::FullCone) {
            at(self.site.outside_v4()).into_iter().collect()
        } else {
            Vec::new()
        }
    }

    /// Leaves in good order: daemon first, then the site.
    ///
    /// # Errors
    /// The daemon does not end by itself.
    pub async fn leave(self) -> Result<()> {
        self.end_daemon().await.map(drop)
    }

    /// Ends the daemon in good order, and gives back the site, so that one can see what it left behind.
    ///
    /// # Errors
    /// The daemon does not end by itself.
    pub async fn end_daemon(self) -> Result<BuiltSite> {
        let Self { plugin, daemon, site, .. } = self;
        drop(plugin);
        daemon.end().await?;
        Ok(site)
    }

    /// What this person's host has sent so far.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn sent(&self) -> Result<watch::Tally> {
        watch::read(&self.site.host().namespace).context("read what a host has sent")
    }
}
