//! What each source used: a user by PeerId, and for strangers also the /24 or /56 that they come from.
//!
//! Both accounts must have room for a stranger's packet, so neither new keys at one address nor new addresses for one
//! key get a second share. An account lives until its day is over, else whoever leaves and returns would start afresh.
//!
//! Refuses to know: flows, frames.

use std::collections::HashMap;

use p2pos_identity::PeerId;

use super::{
    answer::Class,
    settings::{ACCOUNTS_MAX, CALLS, INTERACTIVE, SIGNALLING, Tariff},
};
use crate::{
    address::Prefix,
    bucket::{Bucket, Rate, WHOLE_PERCENT},
};

/// Names an account as long as something refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AccountId(u32);

/// Whose account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Peer(PeerId),
    Prefix(Prefix),
}

/// One source's use.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) source: Source,
    /// Leases and flows that refer to it: it stays as long as one does.
    pub(super) leases: u16,
    pub(super) flows: u16,
    /// Of these flows, those that it made, or its guests.
    pub(super) calls: u16,
    pub(super) bytes: u64,
    day: u32,
    day_bytes: u64,
    /// The day on which this source showed that it had relayed for us.
    doubled_on: Option<u32>,
    sending: Bucket,
    signalling: Bucket,
    interactive: Bucket,
    calling: Bucket,
}

/// All accounts.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    all: Vec<Option<Account>>,
    free: Vec<u32>,
    by_source: HashMap<Source, AccountId>,
}

/// The moment, in the two units that accounts count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) nanos: u64,
    pub(super) day: u32,
}

/// Why a source has no room for a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    Rate,
    Day,
}

impl Account {
    fn new(source: Source) -> Self {
        Self {
            source,
            leases: 0,
            flows: 0,
            calls: 0,
            bytes: 0,
            day: 0,
            day_bytes: 0,
            doubled_on: None,
            sending: Bucket::default(),
            signalling: Bucket::default(),
            interactive: Bucket::default(),
            calling: Bucket::default(),
        }
    }

    /// What the source sent today.
    pub(super) fn day_bytes(&self, now: Now) -> u64 {
        if self.day == now.day { self.day_bytes } else { 0 }
    }

    /// What is left of today's share; `None` is without end.
    pub(super) fn day_bytes_left(&self, now: Now, tariff: &Tariff) -> Option<u64> {
        let share = tariff.day_bytes_max?;
        let share = if self.doubled_on == Some(now.day) { share.saturating_mul(2) } else { share };
        Some(share.saturating_sub(self.day_bytes(now)))
    }

    pub(super) fn double_today(&mut self, now: Now) {
        self.doubled_on = Some(now.day);
    }

    /// Tells whether the source may make one more call now, and counts it.
    pub(super) fn call(&mut self, now: Now) -> bool {
        let rate = const { Rate::new(CALLS.0, CALLS.1) };
        let may = self.calling.holds(rate, now.nanos, 1, WHOLE_PERCENT);
        if may {
            self.calling.take(rate, now.nanos, 1);
        }
        may
    }

    /// The class that a packet of this source has now.
    pub(super) fn class(&self, now: Now, bytes: usize) -> Class {
        if self.signalling.holds(signalling(), now.nanos, bytes, WHOLE_PERCENT) {
            Class::Signalling
        } else if self.interactive.holds(interactive(), now.nanos, bytes, WHOLE_PERCENT) {
            Class::Interactive
        } else {
            Class::Bulk
        }
    }

    /// Tells whether a packet beyond signalling has room.
    pub(super) fn check(&self, now: Now, tariff: &Tariff, bytes: usize) -> Result<(), NoRoom> {
        if self.day_bytes_left(now, tariff).is_some_and(|left| left < bytes as u64) {
            return Err(NoRoom::Day);
        }
        if !self.sending.holds(tariff.source, now.nanos, bytes, WHOLE_PERCENT) {
            return Err(NoRoom::Rate);
        }
        Ok(())
    }

    /// Counts a packet that is forwarded.
    pub(super) fn charge(&mut self, now: Now, tariff: &Tariff, class: Class, bytes: usize) {
        match class {
            Class::Signalling => self.signalling.take(signalling(), now.nanos, bytes),
            Class::Interactive => self.interactive.take(interactive(), now.nanos, bytes),
            Class::Bulk => {}
        }
        if class != Class::Signalling {
            self.sending.take(tariff.source, now.nanos, bytes);
        }
        self.day_bytes = self.day_bytes(now) + bytes as u64;
        self.day = now.day;
        self.bytes += bytes as u64;
    }

    fn is_forgettable(&self, now: Now) -> bool {
        self.leases == 0 && self.flows == 0 && self.day_bytes(now) == 0
    }
}

fn signalling() -> Rate {
    const { Rate::new(SIGNALLING.0, SIGNALLING.1) }
}

fn interactive() -> Rate {
    const { Rate::new(INTERACTIVE.0, INTERACTIVE.1) }
}

impl Accounts {
    /// Finds or opens an account; `None` if there are as many as we remember, and none is of yesterday.
    pub(super) fn open(&mut self, source: Source, now: Now) -> Option<AccountId> {
        if let Some(id) = self.by_source.get(&source) {
            return Some(*id);
        }
        if self.by_source.len() >= ACCOUNTS_MAX {
            self.forget_idle(now);
        }
        if self.by_source.len() >= ACCOUNTS_MAX {
            return None;
        }
        let at = match self.free.pop() {
            Some(at) => at,
            None => {
                self.all.push(None);
                u32::try_from(self.all.len() - 1).expect("at most 65,536 accounts")
            }
        };
        self.all[at as usize] = Some(Account::new(source));
        self.by_source.insert(source, AccountId(at));
        Some(AccountId(at))
    }

    pub(super) fn find(&self, source: &Source) -> Option<AccountId> {
        self.by_source.get(source).copied()
    }

    pub(super) fn get(&self, id: AccountId) -> &Account {
        self.all[id.0 as usize].as_ref().expect("an account that something refers to is not forgotten")
    }

    pub(super) fn get_mut(&mut self, id: AccountId) -> &mut Account {
        self.all[id.0 as usize].as_mut().expect("an account that something refers to is not forgotten")
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Account> {
        self.all.iter().flatten()
    }

    pub(super) fn forget_idle(&mut self, now: Now) {
        for (at, slot) in self.all.iter_mut().enumerate() {
            if let Some(account) = slot.take_if(|account| account.is_forgettable(now)) {
                self.by_source.remove(&account.source);
                self.free.push(u32::try_from(at).expect("at most 65,536 accounts"));
            }
        }
    }
}
