//! The relay's side: who holds a lease, who may call whom, and what passes.
//!
//! A user reserves a lease and gives its token to those who may call. A caller shows the token and gets one half of a
//! flow; the other half goes to the lease's holder as [`Notice::Incoming`]. From then on frames pass ([`Service::forward`],
//! `forward.rs`) until one side hangs up, nothing passed for five minutes, or the relay drains. Without a lease nobody
//! is called; a full relay still introduces peers, on flows that carry no more than signalling.
//!
//! Whose guest a caller is: in mode `contacts`, a contact's lease would be of little use if only common contacts could
//! call. So a caller with a contact's token is that contact's guest, and the contact's account pays for both.
//!
//! A pure machine: `handle_*` says what happened, `poll_event` and `poll_answer` what to do, `poll_timeout` when to call
//! [`Service::handle_timeout`]. Refuses to know: sockets, connections, the wire of requests, wall-clock time, and what
//! is inside a packet.

mod account;
mod answer;
mod circuit;
mod forward;
mod month;
mod settings;
mod status;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use p2pos_identity::PeerId;
use siphasher::sip::SipHasher24;
use subtle::ConstantTimeEq as _;

use self::{
    account::{AccountId, Accounts, Now, Source},
    circuit::{Circuit, Circuits, Role, Seat, Side},
    month::Month,
    settings::{
        CALL_RETRY, DAY, FLOW_IDLE, FLOWS_MAX, FULL_RETRY, INTRODUCTION_FLOWS_MAX, LEASE_GRACE,
        PREFIX_LEASES_MAX, SWEEP,
    },
};
pub use self::{
    answer::{
        Asker, Call, Class, ENTROPY_BYTES, Entropy, Flow, FlowEnding, Lease, Limits, Notice, Refusal,
        ServiceEvent, TOKEN_BYTES,
    },
    forward::{Ahead, Dropped, Verdict},
    settings::{LEASE_TIME, RelaySettings, Tariff},
    status::{FlowUse, PeerUse, RelayStatus, Traffic},
};
use crate::{
    Via,
    address::{Place, Prefix, place_of},
    bucket::Bucket,
    frame::{ControlFrame, Vni},
    mac::{FlowKey, Tag},
    stamp::{CHALLENGE_BYTES, Stamp},
};

/// How long a stamp's challenge is good: it was made in this stretch of time or the one before. Time for a slow phone.
const STAMP_EPOCH_NS: u64 = 600_000_000_000;

/// Stands for the end of a drain that is over.
const DRAINED: u64 = u64::MAX;

/// A relay.
#[derive(Debug)]
pub struct Service {
    settings: RelaySettings,
    secret: [u8; 16],
    started: Instant,
    leases: BTreeMap<PeerId, Held>,
    /// The place of each caller's circuit to each callee.
    pairs: BTreeMap<(PeerId, PeerId), u32>,
    circuits: Circuits,
    introductions: u32,
    accounts: Accounts,
    total: Bucket,
    month: Month,
    events: VecDeque<ServiceEvent>,
    answers: VecDeque<(Via, ControlFrame)>,
    forwarded: Traffic,
    dropped: [u64; Dropped::COUNT],
    /// When the drain ends.
    drained_at: Option<u64>,
    next_sweep: Option<u64>,
}

/// A lease as the relay keeps it.
#[derive(Debug)]
struct Held {
    token: [u8; TOKEN_BYTES],
    ends_at: u64,
    account: AccountId,
    prefix: Option<AccountId>,
    asker: Asker,
    is_connected: bool,
}

impl Service {
    /// Starts a relay. `secret` is fresh and random; `month_used` is what was forwarded this month before.
    #[must_use]
    pub fn new(now: Instant, settings: RelaySettings, secret: [u8; 16], month_used: u64) -> Self {
        let mut service = Self {
            settings,
            secret,
            started: now,
            leases: BTreeMap::new(),
            pairs: BTreeMap::new(),
            circuits: Circuits::default(),
            introductions: 0,
            accounts: Accounts::default(),
            total: Bucket::default(),
            month: Month::new(month_used, settings.month_bytes_max),
            events: VecDeque::new(),
            answers: VecDeque::new(),
            forwarded: Traffic::default(),
            dropped: [0; Dropped::COUNT],
            drained_at: None,
            next_sweep: None,
        };
        service.month.count(0, &mut service.events);
        service
    }

    /// Grants or renews the lease of whoever asks. The asker chooses the token, so that what its friends hold survives
    /// the relay's restart; a renewal may bring another one.
    ///
    /// # Errors
    /// [`Refusal`], to be told to the asker.
    pub fn handle_reserve(
        &mut self,
        now: Instant,
        asker: &Asker,
        token: [u8; TOKEN_BYTES],
        stamp: Option<Stamp>,
    ) -> Result<Lease, Refusal> {
        let now = self.nanos(now);
        self.admit(asker)?;
        if !self.settings.mode.serves(asker.is_contact) {
            return Err(Refusal::NotServed);
        }
        if !self.leases.contains_key(&asker.peer) {
            self.add_lease(now, asker, token, stamp)?;
        }
        let ends_at = now + nanos_of(LEASE_TIME);
        let held = self.leases.get_mut(&asker.peer).expect("it was there, or was added");
        held.asker = *asker;
        held.ends_at = ends_at;
        held.is_connected = true;
        held.token = token;
        let (account, prefix) = (held.account, held.prefix);
        self.wake(now);
        let limits = self.limits(now, asker.is_contact, account, prefix);
        Ok(Lease { lasts: LEASE_TIME, token, limits, seen: asker.address })
    }

    /// Makes a flow between whoever asks and the holder of a lease. The holder hears of it by [`Notice::Incoming`].
    ///
    /// # Errors
    /// [`Refusal`], to be told to the asker.
    pub fn handle_connect(
        &mut self,
        now: Instant,
        asker: &Asker,
        call: &Call,
        entropy: &Entropy,
    ) -> Result<Flow, Refusal> {
        let now = self.nanos(now);
        self.admit(asker)?;
        let held = self.callable(call)?;
        let (callee, callee_payer, callee_prefix) = (held.asker, held.account, held.prefix);
        if asker.peer == callee.peer {
            return Err(Refusal::NoLease);
        }
        check_reach(asker, &callee)?;
        let (payer, prefix) = self.payer(now, asker, callee_payer, callee_prefix)?;
        let at = self.moment(now);
        if !self.accounts.get_mut(payer).call(at) {
            return Err(Refusal::Full { retry_after: CALL_RETRY });
        }
        self.end_pair(asker.peer, callee.peer);
        let is_guest = payer == callee_payer;
        let is_contact = asker.is_contact || (is_guest && callee.is_contact);
        let is_introduction = self.place_for_flow(is_contact, payer)?;

        let (caller_key, rest) = entropy.0.split_first_chunk::<16>().expect("48 bytes of entropy");
        let (callee_key, rest) = rest.split_first_chunk::<16>().expect("32 are left");
        let (caller_accept, rest) = rest.split_first_chunk::<8>().expect("16 are left");
        let callee_accept = rest.first_chunk::<8>().expect("8 are left");
        let mut caller_side = side_of(asker, (payer, prefix), *caller_key, *caller_accept);
        caller_side.is_contact = is_contact;
        let callee_side = side_of(&callee, (callee_payer, callee_prefix), *callee_key, *callee_accept);
        self.accounts.get_mut(payer).calls += 1;
        self.keep_accounts([&caller_side, &callee_side]);
        self.introductions += u32::from(is_introduction);
        let place = self.circuits.add(Circuit::new(caller_side, callee_side, now, is_introduction));
        self.pairs.insert((asker.peer, callee.peer), place);
        self.wake(now);
        let flow = self.half(now, Seat { place, role: Role::Callee });
        let notice = Notice::Incoming { from: asker.peer, flow };
        self.events.push_back(ServiceEvent::Tell { peer: callee.peer, notice });
        Ok(self.half(now, Seat { place, role: Role::Caller }))
    }

    /// Ends a flow that one of its two sides no longer wants, or never did. The other side is told.
    ///
    /// # Errors
    /// [`Refusal::NoFlow`] if it is not this peer's.
    pub fn handle_hang_up(&mut self, peer: PeerId, vni: Vni) -> Result<(), Refusal> {
        let (seat, circuit) = self.circuits.find(vni).ok_or(Refusal::NoFlow)?;
        if circuit.side(seat.role).peer != peer {
            return Err(Refusal::NoFlow);
        }
        self.end_flow(seat.place, FlowEnding::HungUp, Some(peer));
        Ok(())
    }

    /// Takes note that a peer's connection ended. Its flows go on; its lease waits a minute for its return.
    pub fn handle_gone(&mut self, now: Instant, peer: PeerId) {
        let ends_at = self.nanos(now) + nanos_of(LEASE_GRACE);
        if let Some(held) = self.leases.get_mut(&peer) {
            held.is_connected = false;
            held.ends_at = held.ends_at.min(ends_at);
        }
    }

    /// Takes note that a peer took its leave: nobody will call it here, and its flows are over. Others need the places.
    pub fn handle_left(&mut self, peer: PeerId) {
        if let Some(held) = self.leases.get_mut(&peer) {
            held.ends_at = 0;
            self.remove_leases(|held| held.ends_at == 0);
        }
        let of_peer: Vec<u32> = self
            .circuits
            .iter()
            .filter(|(_, circuit)| [circuit.caller.peer, circuit.callee.peer].contains(&peer))
            .map(|(place, _)| place)
            .collect();
        for place in of_peer {
            self.end_flow(place, FlowEnding::HungUp, Some(peer));
        }
        self.promote();
    }

    /// Takes note that a peer's connection moved to another address. Flows move by themselves.
    pub fn handle_moved(&mut self, asker: &Asker) {
        if let Some(held) = self.leases.get_mut(&asker.peer) {
            held.asker = *asker;
        }
    }

    /// Gives a peer its day's share twice today, because it carried as much for us or for a contact: the caller has
    /// checked the receipt.
    pub fn handle_receipt(&mut self, now: Instant, peer: PeerId) {
        let at = self.moment(self.nanos(now));
        if let Some(account) = self.accounts.find(&Source::Peer(peer)) {
            self.accounts.get_mut(account).double_today(at);
        }
    }

    /// Takes new settings. Who is no longer served loses lease and flows.
    pub fn handle_settings(&mut self, settings: RelaySettings) {
        self.settings = settings;
        self.month = Month::new(self.month.used, settings.month_bytes_max);
        let mode = settings.mode;
        self.remove_leases(|held| !mode.serves(held.asker.is_contact));
        let unserved = |side: &Side| !mode.serves(side.is_contact);
        self.end_flows(FlowEnding::NotServed, |circuit| {
            unserved(&circuit.caller) || unserved(&circuit.callee)
        });
    }

    /// Takes note that a new month began.
    pub fn handle_month_started(&mut self) {
        self.month = Month::new(0, self.settings.month_bytes_max);
    }

    /// Begins to go down in good order: nothing new, everybody is told, forwarding goes on for `grace`.
    pub fn handle_drain(&mut self, now: Instant, grace: Duration) {
        let now = self.nanos(now);
        self.drained_at = Some(now + nanos_of(grace));
        let mut told: Vec<PeerId> = self.leases.keys().copied().collect();
        told.extend(self.circuits.iter().flat_map(|(_, circuit)| [circuit.caller.peer, circuit.callee.peer]));
        told.sort_unstable();
        told.dedup();
        let tell = |peer| ServiceEvent::Tell { peer, notice: Notice::Drain { grace } };
        self.events.extend(told.into_iter().map(tell));
        self.next_sweep = Some(now);
    }

    /// Ends what has come to its end.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.nanos(now);
        self.remove_leases(|held| held.ends_at <= now);
        self.end_flows(FlowEnding::Idle, |circuit| circuit.used_at + nanos_of(FLOW_IDLE) <= now);
        if let Some(at) = self.drained_at.filter(|at| *at != DRAINED)
            && (at <= now || self.circuits.count() == 0)
        {
            self.end_flows(FlowEnding::Drained, |_| true);
            self.remove_leases(|_| true);
            self.events.push_back(ServiceEvent::Drained);
            self.drained_at = Some(DRAINED);
        }
        self.promote();
        let at = self.moment(now);
        self.accounts.forget_idle(at);
        self.next_sweep = None;
        if !self.leases.is_empty() || self.circuits.count() > 0 {
            self.wake(now);
        }
    }

    /// Returns what to do next, until there is nothing. Drain it after each `handle_*` and each batch of frames.
    pub fn poll_event(&mut self) -> Option<ServiceEvent> {
        self.events.pop_front()
    }

    /// Returns when to call [`Service::handle_timeout`]; `None` while nobody has anything here.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_sweep.map(|at| self.started + Duration::from_nanos(at))
    }

    /// Refuses whom no mode serves.
    fn admit(&self, asker: &Asker) -> Result<(), Refusal> {
        if self.settings.mode == crate::RelayMode::Off {
            return Err(Refusal::NotServed);
        }
        if self.drained_at.is_some() {
            return Err(Refusal::Draining);
        }
        if asker.is_relayed {
            return Err(Refusal::Relayed);
        }
        match place_of(asker.address) {
            Place::Open | Place::Private => Ok(()),
            Place::Loopback if self.settings.allows_loopback => Ok(()),
            Place::Loopback | Place::Nobody => Err(Refusal::Address),
        }
    }

    fn add_lease(
        &mut self,
        now: u64,
        asker: &Asker,
        token: [u8; TOKEN_BYTES],
        stamp: Option<Stamp>,
    ) -> Result<(), Refusal> {
        let at = self.moment(now);
        let full = Refusal::Full { retry_after: FULL_RETRY };
        let of_kind = self.leases.values().filter(|held| held.asker.is_contact == asker.is_contact).count();
        let leases_max = self.tariff(asker.is_contact).leases_max as usize;
        if of_kind >= leases_max {
            return Err(full);
        }
        if !asker.is_contact && of_kind * 2 >= leases_max {
            self.check_stamp(now, &asker.peer, stamp)?;
        }
        let prefix = self.open_prefix(at, asker)?;
        if prefix.is_some_and(|prefix| self.accounts.get(prefix).leases >= PREFIX_LEASES_MAX) {
            return Err(full);
        }
        let account = self.accounts.open(Source::Peer(asker.peer), at).ok_or(full)?;
        self.accounts.get_mut(account).leases += 1;
        if let Some(prefix) = prefix {
            self.accounts.get_mut(prefix).leases += 1;
        }
        let held = Held { token, ends_at: now, account, prefix, asker: *asker, is_connected: true };
        self.leases.insert(asker.peer, held);
        Ok(())
    }

    fn check_stamp(&self, now: u64, peer: &PeerId, stamp: Option<Stamp>) -> Result<(), Refusal> {
        let epoch = now / STAMP_EPOCH_NS;
        let challenge = self.stamp_challenge(peer, epoch);
        let bits = self.settings.stamp_bits;
        let needed = Refusal::StampNeeded { challenge, bits };
        let stamp = stamp.ok_or(needed)?;
        let is_ours = stamp.challenge == challenge
            || epoch.checked_sub(1).is_some_and(|last| stamp.challenge == self.stamp_challenge(peer, last));
        if is_ours && stamp.is_of(peer, bits) { Ok(()) } else { Err(needed) }
    }

    fn stamp_challenge(&self, peer: &PeerId, epoch: u64) -> [u8; CHALLENGE_BYTES] {
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        std::hash::Hasher::write(&mut hasher, b"stamp");
        std::hash::Hasher::write(&mut hasher, peer.as_bytes());
        std::hash::Hasher::write(&mut hasher, &epoch.to_be_bytes());
        std::hash::Hasher::finish(&hasher).to_le_bytes()
    }

    /// Finds the lease that a caller names and has the token of.
    fn callable(&self, call: &Call) -> Result<&Held, Refusal> {
        let held = self.leases.get(&call.callee).ok_or(Refusal::NoLease)?;
        let is_right: bool = held.token.ct_eq(&call.token).into();
        if is_right && held.is_connected { Ok(held) } else { Err(Refusal::NoLease) }
    }

    /// Decides who pays for a caller: itself if it is served, else the holder of the lease whose token it has.
    fn payer(
        &mut self,
        now: u64,
        asker: &Asker,
        callee: AccountId,
        callee_prefix: Option<AccountId>,
    ) -> Result<(AccountId, Option<AccountId>), Refusal> {
        if !self.settings.mode.serves(asker.is_contact) {
            return Ok((callee, callee_prefix));
        }
        let at = self.moment(now);
        let prefix = self.open_prefix(at, asker)?;
        let full = Refusal::Full { retry_after: FULL_RETRY };
        Ok((self.accounts.open(Source::Peer(asker.peer), at).ok_or(full)?, prefix))
    }

    fn open_prefix(&mut self, at: Now, asker: &Asker) -> Result<Option<AccountId>, Refusal> {
        if asker.is_contact {
            return Ok(None);
        }
        let prefix = Source::Prefix(Prefix::of(asker.address.ip()));
        self.accounts.open(prefix, at).map(Some).ok_or(Refusal::Full { retry_after: FULL_RETRY })
    }

    /// Tells whether a new flow is for introductions only. Contacts have their own places and those of strangers.
    fn place_for_flow(&self, of_contact: bool, payer: AccountId) -> Result<bool, Refusal> {
        if self.accounts.get(payer).calls >= self.tariff(of_contact).source_flows_max {
            return Err(Refusal::TooManyFlows);
        }
        let full = Refusal::Full { retry_after: FULL_RETRY };
        let count = self.circuits.count();
        if count >= FLOWS_MAX {
            return Err(full);
        }
        let (contacts, community) = (self.settings.contacts.flows_max, self.settings.community.flows_max);
        let flows_max = if of_contact { contacts.saturating_add(community) } else { community };
        if count - self.introductions < flows_max {
            return Ok(false);
        }
        if self.introductions < INTRODUCTION_FLOWS_MAX { Ok(true) } else { Err(full) }
    }

    fn half(&self, now: u64, seat: Seat) -> Flow {
        let circuit = self.circuits.get(seat.place).expect("the circuit was just added");
        let side = circuit.side(seat.role);
        let mut limits = self.limits(now, side.is_contact, side.payer, side.prefix);
        limits.is_introduction_only |= circuit.is_introduction;
        Flow { vni: circuit.vni(seat), key: side.key.clone(), accept: side.accept, limits }
    }

    fn limits(&self, now: u64, is_contact: bool, account: AccountId, prefix: Option<AccountId>) -> Limits {
        let at = self.moment(now);
        let tariff = self.tariff(is_contact);
        let left = |id| self.accounts.get(id).day_bytes_left(at, tariff);
        let day_bytes_left = [Some(account), prefix].into_iter().flatten().filter_map(left).min();
        Limits {
            flow_bytes_per_s: tariff.flow.bytes_per_s(),
            flow_burst_bytes: tariff.flow.burst_bytes(),
            source_bytes_per_s: tariff.source.bytes_per_s(),
            day_bytes_left,
            flows_max: tariff.source_flows_max,
            is_introduction_only: day_bytes_left == Some(0)
                || !self.month.has_room(1, settings::MONTH_PAYLOAD_PERCENT),
        }
    }

    fn tariff(&self, is_contact: bool) -> &Tariff {
        if is_contact { &self.settings.contacts } else { &self.settings.community }
    }

    fn end_pair(&mut self, caller: PeerId, callee: PeerId) {
        if let Some(place) = self.pairs.get(&(caller, callee)) {
            self.end_flow(*place, FlowEnding::Replaced, Some(caller));
        }
    }

    fn end_flows(&mut self, why: FlowEnding, ends: impl Fn(&Circuit) -> bool) {
        let ended: Vec<u32> =
            self.circuits.iter().filter(|(_, circuit)| ends(circuit)).map(|(place, _)| place).collect();
        for place in ended {
            self.end_flow(place, why, None);
        }
    }

    /// Ends a circuit and tells both sides, but not the one who knows.
    fn end_flow(&mut self, place: u32, why: FlowEnding, knows: Option<PeerId>) {
        let numbers = self.circuits.get(place).map(|circuit| {
            [Role::Caller, Role::Callee]
                .map(|role| (circuit.side(role).peer, circuit.vni(Seat { place, role })))
        });
        let (Some(numbers), Some(circuit)) = (numbers, self.circuits.remove(place)) else { return };
        self.pairs.remove(&(circuit.caller.peer, circuit.callee.peer));
        self.introductions -= u32::from(circuit.is_introduction);
        self.accounts.get_mut(circuit.caller.payer).calls -= 1;
        for side in [&circuit.caller, &circuit.callee] {
            for account in [Some(side.payer), side.prefix].into_iter().flatten() {
                self.accounts.get_mut(account).flows -= 1;
            }
        }
        for (peer, vni) in numbers.into_iter().filter(|(peer, _)| Some(*peer) != knows) {
            let notice = Notice::Ended { vni, why };
            self.events.push_back(ServiceEvent::Tell { peer, notice });
        }
    }

    fn remove_leases(&mut self, ends: impl Fn(&Held) -> bool) {
        let accounts = &mut self.accounts;
        self.leases.retain(|_, held| {
            let is_kept = !ends(held);
            if !is_kept {
                for account in [Some(held.account), held.prefix].into_iter().flatten() {
                    accounts.get_mut(account).leases -= 1;
                }
            }
            is_kept
        });
    }

    fn keep_accounts(&mut self, sides: [&Side; 2]) {
        for account in sides.into_iter().flat_map(|side| [Some(side.payer), side.prefix]).flatten() {
            self.accounts.get_mut(account).flows += 1;
        }
    }

    /// Lets introductions carry payload where places have become free.
    fn promote(&mut self) {
        let flows_max = match self.settings.mode {
            crate::RelayMode::Community => self.settings.community.flows_max,
            crate::RelayMode::Contacts | crate::RelayMode::Off => self.settings.contacts.flows_max,
        };
        while self.introductions > 0 && self.circuits.count() - self.introductions < flows_max {
            self.circuits.promote_one();
            self.introductions -= 1;
        }
    }

    fn wake(&mut self, now: u64) {
        let due = (now + nanos_of(SWEEP)).min(self.drained_at.unwrap_or(u64::MAX));
        self.next_sweep = Some(self.next_sweep.map_or(due, |at| at.min(due)));
    }

    fn nanos(&self, now: Instant) -> u64 {
        nanos_of(now.saturating_duration_since(self.started))
    }

    fn moment(&self, nanos: u64) -> Now {
        let day = u32::try_from(nanos / nanos_of(DAY)).expect("2^64 nanoseconds are 213,000 days");
        Now { nanos, day }
    }
}

fn nanos_of(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn side_of(
    asker: &Asker,
    (payer, prefix): (AccountId, Option<AccountId>),
    key: [u8; 16],
    accept: [u8; 8],
) -> Side {
    Side {
        peer: asker.peer,
        payer,
        prefix,
        is_contact: asker.is_contact,
        is_private: is_private(asker.address),
        key: FlowKey::new(key),
        accept: Tag(accept),
        bound: Some(asker.via),
        next_challenge_at: 0,
        window: crate::window::ReplayWindow::default(),
        heard_at: 0,
        unanswered: 0,
        sending: Bucket::default(),
        bytes: 0,
        packets: 0,
    }
}

/// Refuses a flow that would join the open network with the relay's own one, unless the owner knows both sides.
fn check_reach(caller: &Asker, callee: &Asker) -> Result<(), Refusal> {
    let is_mixed = is_private(caller.address) != is_private(callee.address);
    let both_are_known = caller.is_contact && callee.is_contact;
    if is_mixed && !both_are_known { Err(Refusal::Address) } else { Ok(()) }
}

fn is_private(address: SocketAddr) -> bool {
    place_of(address) == Place::Private
}
