//! Who is said to be where. Keeps the addresses that the user gave, and turns them into candidates when asked.
//!
//! Host names are looked up by the system's resolver, all of them at once, under one deadline; once something to dial is
//! known, the rest gets only a short grace, so that the slowest name never holds up a peer that is reachable otherwise.
//! What has not answered by then is named as a problem. The system's lookup cannot be cancelled, so each one holds a permit
//! until it truly ends, and a dead name server blocks [`LOOKUPS_AT_ONCE_MAX`] threads and no more.
//!
//! A name may lead to a loopback address only if it says so itself (`localhost`): whoever controls some other name
//! could otherwise make us knock at this machine's own services. Refuses to know: which address works, and how the
//! addresses got here.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use p2pos_identity::PeerId;
use p2pos_traversal::{Candidate, CandidateKind, CandidateSet, LoopbackPolicy, Rejected, in_dial_order};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::{
    host_port::{Host, HostPort},
    relay_address::RelayAddress,
};

/// Peers whose addresses are kept; as many as there can be contacts.
pub const PEERS_MAX: usize = 10_000;

/// Addresses kept for one peer.
pub const ADDRESSES_PER_PEER_MAX: usize = 16;

/// Addresses taken from the answer for one name. Big names have dozens; a person's has two, one of each family.
pub const ADDRESSES_PER_NAME_MAX: usize = 8;

/// Lookups that run at once in this daemon; each holds a thread for as long as the name server keeps it waiting.
pub const LOOKUPS_AT_ONCE_MAX: usize = 8;

/// Time for one resolution. The system's resolver repeats its question after 5 s: by then the answer to the first is
/// lost, and the dial goes on with what there is.
pub const RESOLVE_DEADLINE: Duration = Duration::from_secs(4);

/// Time for the other names once something to dial is known. Most lookups end well within it; half of it would leave
/// out names behind a slow home router, double would be felt at every dial of a peer with one stale name.
pub const RESOLVE_GRACE: Duration = Duration::from_millis(500);

/// Keeps addresses by PeerId and resolves them. A clone is another handle to the same addresses.
#[derive(Clone)]
pub struct Resolver {
    peers: Arc<Mutex<BTreeMap<PeerId, Known>>>,
    lookups: Arc<Semaphore>,
    lookup: Arc<Lookup>,
}

/// What was said about one peer.
#[derive(Debug, Clone, Default)]
struct Known {
    /// By the user.
    addresses: Vec<HostPort>,
    /// By the user: where it can be called.
    relays: Vec<RelayAddress>,
    /// By somebody who uses it as a relay, or in the settings.
    noted: Vec<HostPort>,
}

/// Looks a name up, on a thread that may block.
type Lookup = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// What resolving gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// At least one candidate, in dial order.
    pub candidates: Vec<Candidate>,
    /// What did not work beside that.
    pub problems: Vec<Problem>,
}

/// An address that gave no candidate. Its text holds a person's address: show it to the user, log it at debug only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which.
    pub address: HostPort,
    /// Why.
    pub reason: Reason,
}

/// Why an address gave no candidate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The system's resolver said no.
    #[error("the name was not found ({0})")]
    NotFound(String),
    /// No answer within [`RESOLVE_DEADLINE`], or [`RESOLVE_GRACE`] if another address was usable.
    #[error("the name server did not answer in time")]
    NoAnswer,
    /// The address must not be sent to.
    #[error(transparent)]
    Rejected(#[from] Rejected),
}

/// Why there is nothing to dial.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// Nobody said where the peer is.
    #[error("no address of {short} is known; add one: p2pos contacts add {0} --addr HOST:PORT", short = .0.short())]
    Unknown(PeerId),
    /// Addresses are known, and none gave a candidate.
    #[error("none of the addresses can be used: {}", listed(problems))]
    Nothing {
        /// What is wrong with each.
        problems: Vec<Problem>,
    },
}

/// Why addresses were not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetError {
    /// More than [`ADDRESSES_PER_PEER_MAX`].
    #[error("{found} addresses are given, the limit is {ADDRESSES_PER_PEER_MAX}")]
    TooManyAddresses {
        /// How many.
        found: usize,
    },
    /// More than [`PEERS_MAX`].
    #[error("addresses of {PEERS_MAX} peers are kept, which is the limit")]
    TooManyPeers,
}

impl Resolver {
    /// Starts without any address.
    #[must_use]
    pub fn new() -> Self {
        Self::with_lookup(|name, port| {
            Ok((name, port).to_socket_addrs()?.take(ADDRESSES_PER_NAME_MAX).collect())
        })
    }

    fn with_lookup(
        lookup: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        let lookups = Arc::new(Semaphore::new(LOOKUPS_AT_ONCE_MAX));
        Self { peers: Arc::default(), lookups, lookup: Arc::new(lookup) }
    }

    /// Keeps these addresses for a peer in place of those kept before. None at all forgets the peer.
    ///
    /// # Errors
    /// [`SetError`] if a limit is reached; then nothing changes.
    pub fn set(&self, peer: PeerId, addresses: Vec<HostPort>) -> Result<(), SetError> {
        self.change(peer, addresses.len(), |known| known.addresses = addresses)
    }

    /// Keeps where the user says that a peer can be called through relays, in place of what was kept before.
    ///
    /// # Errors
    /// As [`Resolver::set`].
    pub fn set_relays(&self, peer: PeerId, relays: Vec<RelayAddress>) -> Result<(), SetError> {
        self.change(peer, relays.len(), |known| known.relays = relays)
    }

    /// Keeps where somebody else, or the settings, say that a relay is, beside what the user says about it as a contact.
    ///
    /// # Errors
    /// As [`Resolver::set`].
    pub fn note(&self, peer: PeerId, addresses: Vec<HostPort>) -> Result<(), SetError> {
        self.change(peer, addresses.len(), |known| known.noted = addresses)
    }

    fn change(&self, peer: PeerId, found: usize, change: impl FnOnce(&mut Known)) -> Result<(), SetError> {
        let mut peers = self.lock();
        if found > ADDRESSES_PER_PEER_MAX {
            return Err(SetError::TooManyAddresses { found });
        }
        if peers.len() >= PEERS_MAX && !peers.contains_key(&peer) {
            return Err(SetError::TooManyPeers);
        }
        let known = peers.entry(peer).or_default();
        change(known);
        if known.addresses.is_empty() && known.relays.is_empty() && known.noted.is_empty() {
            peers.remove(&peer);
        }
        Ok(())
    }

    /// Returns the addresses that are kept for a peer.
    #[must_use]
    pub fn addresses_of(&self, peer: &PeerId) -> Vec<HostPort> {
        self.lock().get(peer).map(|known| known.addresses.clone()).unwrap_or_default()
    }

    /// Returns where the user says that a peer can be called through relays.
    #[must_use]
    pub fn relays_of(&self, peer: &PeerId) -> Vec<RelayAddress> {
        self.lock().get(peer).map(|known| known.relays.clone()).unwrap_or_default()
    }

    /// All addresses of the peer itself, the user's first.
    fn own_addresses(&self, peer: &PeerId) -> Vec<HostPort> {
        let known = self.lock().get(peer).cloned().unwrap_or_default();
        let mut addresses = known.addresses;
        for noted in known.noted {
            if !addresses.contains(&noted) && addresses.len() < ADDRESSES_PER_PEER_MAX {
                addresses.push(noted);
            }
        }
        addresses
    }

    /// Finds candidates for a peer, within [`RESOLVE_DEADLINE`]. Dropping the future is safe at any point: lookups
    /// that run go on to their end by themselves, those that wait do not begin.
    ///
    /// # Errors
    /// [`ResolveError`] if there is nothing to dial, with every reason.
    pub async fn resolve(&self, peer: &PeerId) -> Result<Resolved, ResolveError> {
        let addresses = self.own_addresses(peer);
        if addresses.is_empty() {
            return Err(ResolveError::Unknown(*peer));
        }
        let answers = self.look_up_all(&addresses).await;
        let mut set = CandidateSet::new();
        let mut problems = Vec::new();
        for (address, answer) in addresses.into_iter().zip(answers) {
            if let Err(reason) = answer.and_then(|found| add_all(&mut set, &address, &found)) {
                problems.push(Problem { address, reason });
            }
        }
        if set.is_empty() {
            return Err(ResolveError::Nothing { problems });
        }
        Ok(Resolved { candidates: in_dial_order(set.as_slice()), problems })
    }

    /// Answers for all addresses, in their order.
    async fn look_up_all(&self, addresses: &[HostPort]) -> Vec<Result<Vec<SocketAddr>, Reason>> {
        let mut answers = vec![Err(Reason::NoAnswer); addresses.len()];
        let mut running = JoinSet::new();
        let mut deadline = Instant::now() + RESOLVE_DEADLINE;
        for (index, address) in addresses.iter().enumerate() {
            match address.host() {
                Host::Ip(addr) => {
                    answers[index] = Ok(vec![addr]);
                    deadline = Instant::now() + RESOLVE_GRACE;
                }
                Host::Name { name, port } => {
                    let (lookups, lookup) = (Arc::clone(&self.lookups), Arc::clone(&self.lookup));
                    let look_up = look_up(lookups, lookup, name.to_owned(), port);
                    running.spawn(async move { (index, look_up.await) });
                }
            }
        }
        while let Ok(Some(joined)) = timeout_at(deadline, running.join_next()).await {
            if let Ok((index, answer)) = joined {
                if answer.is_ok() {
                    deadline = deadline.min(Instant::now() + RESOLVE_GRACE);
                }
                answers[index] = answer;
            }
        }
        answers
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PeerId, Known>> {
        // No code panics while it holds the lock, and the map is whole at every step.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("peers", &self.lock().len()).finish_non_exhaustive()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.address, self.reason)
    }
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

async fn look_up(
    lookups: Arc<Semaphore>,
    lookup: Arc<Lookup>,
    name: String,
    port: u16,
) -> Result<Vec<SocketAddr>, Reason> {
    let permit = lookups.acquire_owned().await.map_err(|_| Reason::NoAnswer)?;
    let blocking = tokio::task::spawn_blocking(move || {
        let found = lookup(&name, port);
        drop(permit);
        found
    });
    match blocking.await {
        Ok(Ok(found)) if found.is_empty() => Err(Reason::NotFound("no address".to_owned())),
        Ok(found) => found.map_err(|error| Reason::NotFound(error.to_string())),
        Err(_) => Err(Reason::NoAnswer),
    }
}

/// Adds what one address led to. It is a problem only if nothing of it could be added.
fn add_all(set: &mut CandidateSet, address: &HostPort, found: &[SocketAddr]) -> Result<(), Reason> {
    let loopback = match address.host() {
        Host::Ip(_) => LoopbackPolicy::TypedByUser,
        Host::Name { name, .. } if is_localhost(name) => LoopbackPolicy::TypedByUser,
        Host::Name { .. } => LoopbackPolicy::Refused,
    };
    let mut first_rejection = None;
    let mut added = 0;
    for addr in found.iter().take(ADDRESSES_PER_NAME_MAX) {
        match set.add(Candidate { addr: *addr, kind: CandidateKind::Manual }, loopback) {
            Ok(()) => added += 1,
            Err(rejected) => {
                first_rejection.get_or_insert(rejected);
            }
        }
    }
    match first_rejection {
        Some(rejected) if added == 0 => Err(rejected.into()),
        Some(_) | None => Ok(()),
    }
}

/// RFC 6761 s6.3: these names mean this machine, whatever a name server says.
fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use p2pos_identity::SecretKey;

    use super::*;

    #[tokio::test]
    async fn typed_addresses_become_candidates_in_dial_order() {
        let resolver = resolver_with(&["203.0.113.5:4000", "192.168.1.7:4000", "127.0.0.1:4000"]);
        let resolved = resolver.resolve(&peer()).await.unwrap();
        assert_eq!(shown(&resolved), ["127.0.0.1:4000", "192.168.1.7:4000", "203.0.113.5:4000"]);
        assert!(resolved.candidates.iter().all(|candidate| candidate.kind == CandidateKind::Manual));
        assert_eq!(resolved.problems, []);
    }

    #[tokio::test]
    async fn the_real_resolver_knows_localhost() {
        let resolver = resolver_with(&["localhost:4000"]);
        let resolved = resolver.resolve(&peer()).await.unwrap();
        assert!(resolved.candidates.iter().all(|candidate| candidate.addr.ip().is_loopback()));
    }

    #[tokio::test]
    async fn a_peer_without_addresses_is_unknown_with_the_command_that_helps() {
        let error = Resolver::new().resolve(&peer()).await.unwrap_err();
        assert_eq!(error, ResolveError::Unknown(peer()));
        assert!(error.to_string().contains(&format!("p2pos contacts add {}", peer())), "{error}");
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_refused_unless_it_is_localhost() {
        let resolver = Resolver::with_lookup(|_, port| Ok(vec![([127, 0, 0, 1], port).into()]));
        resolver.set(peer(), addresses(&["evil.example:22"])).unwrap();
        let ResolveError::Nothing { problems } = resolver.resolve(&peer()).await.unwrap_err() else {
            panic!()
        };
        assert_eq!(problems[0].reason, Reason::Rejected(Rejected::Loopback));
        resolver.set(peer(), addresses(&["box.localhost:4000"])).unwrap();
        assert_eq!(shown(&resolver.resolve(&peer()).await.unwrap()), ["127.0.0.1:4000"]);
    }

    #[tokio::test]
    async fn what_works_is_used_and_what_does_not_is_named() {
        let resolver = Resolver::with_lookup(|name, port| match name {
            "bo.example" => Ok(vec![([203, 0, 113, 5], port).into()]),
            _ => Err(io::Error::other("no such name")),
        });
        resolver.set(peer(), addresses(&["gone.example:1", "bo.example:4000", "224.0.0.1:4000"])).unwrap();
        let resolved = resolver.resolve(&peer()).await.unwrap();
        assert_eq!(shown(&resolved), ["203.0.113.5:4000"]);
        let texts: Vec<String> = resolved.problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["gone.example:1: the name was not found (no such name)", "224.0.0.1:4000: a multicast address"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_name_server_costs_a_short_grace_and_not_the_other_addresses() {
        let (let_go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let resolver = Resolver::with_lookup(move |_, _| {
            wait.lock().unwrap().recv().ok();
            Ok(Vec::new())
        });
        resolver.set(peer(), addresses(&["slow.example:1", "203.0.113.5:4000"])).unwrap();
        let resolving = tokio::spawn({
            let resolver = resolver.clone();
            async move { resolver.resolve(&peer()).await }
        });
        tokio::task::yield_now().await;
        tokio::time::advance(RESOLVE_GRACE).await;
        let resolved = resolving.await.unwrap().unwrap();
        assert_eq!(shown(&resolved), ["203.0.113.5:4000"]);
        assert_eq!(resolved.problems[0].reason, Reason::NoAnswer);
        drop(let_go);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_name_server_never_holds_more_threads_than_the_limit() {
        let (let_go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let begun = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&begun);
        let resolver = Resolver::with_lookup(move |_, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            wait.lock().unwrap().recv().ok();
            Ok(Vec::new())
        });
        let names: Vec<HostPort> = (0..ADDRESSES_PER_PEER_MAX)
            .map(|number| format!("n{number}.example:1").parse().unwrap())
            .collect();
        resolver.set(peer(), names).unwrap();
        for _ in 0..3 {
            let resolving = tokio::spawn({
                let resolver = resolver.clone();
                async move { resolver.resolve(&peer()).await }
            });
            tokio::task::yield_now().await;
            tokio::time::advance(RESOLVE_DEADLINE).await;
            assert!(resolving.await.unwrap().is_err());
        }
        assert!(begun.load(Ordering::SeqCst) <= LOOKUPS_AT_ONCE_MAX);
        drop(let_go);
    }

    #[tokio::test]
    async fn a_name_with_hundreds_of_addresses_gives_only_a_few() {
        let resolver =
            Resolver::with_lookup(|_, port| Ok((1..=200).map(|n| ([203, 0, 113, n], port).into()).collect()));
        resolver.set(peer(), addresses(&["big.example:4000"])).unwrap();
        assert_eq!(resolver.resolve(&peer()).await.unwrap().candidates.len(), ADDRESSES_PER_NAME_MAX);
    }

    #[test]
    fn limits_hold_and_a_refused_change_changes_nothing() {
        let resolver = resolver_with(&["203.0.113.5:4000"]);
        let too_many = vec!["203.0.113.6:1".parse().unwrap(); ADDRESSES_PER_PEER_MAX + 1];
        let found = too_many.len();
        assert_eq!(resolver.set(peer(), too_many), Err(SetError::TooManyAddresses { found }));
        assert_eq!(resolver.addresses_of(&peer()), addresses(&["203.0.113.5:4000"]));
        resolver.set(peer(), Vec::new()).unwrap();
        assert_eq!(resolver.addresses_of(&peer()), []);
    }

    fn resolver_with(texts: &[&str]) -> Resolver {
        let resolver = Resolver::new();
        resolver.set(peer(), addresses(texts)).unwrap();
        resolver
    }

    fn addresses(texts: &[&str]) -> Vec<HostPort> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn shown(resolved: &Resolved) -> Vec<String> {
        resolved.candidates.iter().map(|candidate| candidate.addr.to_string()).collect()
    }

    fn peer() -> PeerId {
        SecretKey::from_seed([1; 32]).peer_id()
    }
}
