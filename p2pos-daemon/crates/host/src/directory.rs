//! Who serves which protocol. Owns the table of registrations: exact names, one owner each, and what a peer is told
//! when the owner is away.
//!
//! A name is never taken from its owner silently (plugin-host.md B19): a second plugin gets 204. While the owner is
//! being restarted its names stay reserved as *away*, and peers hear "not ready, try again in n seconds" (306); once
//! it is stopped or disabled they hear 304, as if it had never been.
//!
//! Refuses to know: sessions and commands (the type parameter `L` links to them), grants, frames. Pure.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use p2pos_identity::ProtocolName;
use p2pos_plugin_protocol::message::{Kind, Trust};

/// What an owner says about one of its protocols.
#[derive(Clone, Debug)]
pub(crate) struct Entry<L> {
    pub(crate) protocol: ProtocolName,
    pub(crate) kind: Kind,
    pub(crate) trust: Trust,
    /// Streams at once; `None`: no limit of its own.
    pub(crate) concurrent_max: Option<u32>,
    pub(crate) link: L,
}

#[derive(Debug)]
struct Registration<L> {
    owner: String,
    kind: Kind,
    trust: Trust,
    concurrent_max: u32,
    active: Arc<AtomicU32>,
    presence: Presence<L>,
}

#[derive(Debug)]
enum Presence<L> {
    Here(L),
    Away { back_at: Instant },
}

/// The table.
#[derive(Debug)]
pub(crate) struct Directory<L> {
    served: BTreeMap<ProtocolName, Registration<L>>,
}

/// The name is taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Clash {
    pub(crate) protocol: ProtocolName,
    pub(crate) owner: String,
}

/// What is there for a peer.
#[derive(Debug)]
pub(crate) enum Found<L> {
    Here {
        protocol: ProtocolName,
        link: L,
        slot: Slot,
    },
    /// The owner takes no more streams of this protocol.
    Full {
        protocol: ProtocolName,
    },
    Away {
        protocol: ProtocolName,
        retry_after: Duration,
    },
    /// Nothing; these the peer could open.
    NotServed {
        offered: Vec<ProtocolName>,
    },
}

/// One running stream of a registration; dropping it makes room.
#[derive(Debug)]
pub(crate) struct Slot(Arc<AtomicU32>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<L: Clone> Directory<L> {
    pub(crate) fn new() -> Self {
        Self { served: BTreeMap::new() }
    }

    /// Registers all entries or none. An owner that was away takes its own names back.
    pub(crate) fn register(&mut self, owner: &str, entries: Vec<Entry<L>>) -> Result<(), Clash> {
        for entry in &entries {
            if let Some(taken) = self.served.get(&entry.protocol)
                && (taken.owner != owner || matches!(taken.presence, Presence::Here(_)))
            {
                return Err(Clash { protocol: entry.protocol.clone(), owner: taken.owner.clone() });
            }
        }
        for entry in entries {
            let registration = Registration {
                owner: owner.to_owned(),
                kind: entry.kind,
                trust: entry.trust,
                concurrent_max: entry.concurrent_max.unwrap_or(u32::MAX),
                active: Arc::default(),
                presence: Presence::Here(entry.link),
            };
            self.served.insert(entry.protocol, registration);
        }
        Ok(())
    }

    /// How many names the owner has, away ones included.
    pub(crate) fn count(&self, owner: &str) -> usize {
        self.served.values().filter(|registration| registration.owner == owner).count()
    }

    /// Removes one name. `false`: it was not the owner's.
    pub(crate) fn unregister(&mut self, owner: &str, protocol: &ProtocolName) -> bool {
        let is_owned = self.served.get(protocol).is_some_and(|registration| registration.owner == owner);
        if is_owned {
            self.served.remove(protocol);
        }
        is_owned
    }

    /// The owner is gone for good.
    pub(crate) fn withdraw(&mut self, owner: &str) {
        self.served.retain(|_, registration| registration.owner != owner);
    }

    /// The owner serves some of its names no more.
    pub(crate) fn withdraw_if(&mut self, owner: &str, is_meant: impl Fn(&L) -> bool) {
        self.served.retain(|_, registration| {
            let is_gone = matches!(&registration.presence, Presence::Here(link) if is_meant(link));
            registration.owner != owner || !is_gone
        });
    }

    /// The owner will be back: keeps its names, and reserves those it has `promised`.
    pub(crate) fn set_away(&mut self, owner: &str, promised: &[ProtocolName], back_at: Instant) {
        for registration in self.served.values_mut().filter(|registration| registration.owner == owner) {
            registration.presence = Presence::Away { back_at };
        }
        for protocol in promised {
            self.served.entry(protocol.clone()).or_insert_with(|| Registration {
                owner: owner.to_owned(),
                kind: Kind::Stream,
                trust: Trust::Contacts,
                concurrent_max: u32::MAX,
                active: Arc::default(),
                presence: Presence::Away { back_at },
            });
        }
    }

    /// The owner is back and has registered what it serves: drops the names it did not come back for.
    pub(crate) fn settle(&mut self, owner: &str) {
        self.served.retain(|_, registration| {
            registration.owner != owner || matches!(registration.presence, Presence::Here(_))
        });
    }

    /// Finds the first of a peer's wishes that is served for it.
    pub(crate) fn find(
        &self,
        wishes: &[ProtocolName],
        kind: Kind,
        is_contact: bool,
        now: Instant,
    ) -> Found<L> {
        let is_visible = |registration: &Registration<L>| is_contact || registration.trust == Trust::Anyone;
        let mut second_best = None;
        for protocol in wishes {
            let Some(registration) = self.served.get(protocol).filter(|found| is_visible(found)) else {
                continue;
            };
            match &registration.presence {
                Presence::Here(_) if registration.kind != kind => {}
                Presence::Here(link) => match registration.slot() {
                    Some(slot) => {
                        return Found::Here { protocol: protocol.clone(), link: link.clone(), slot };
                    }
                    None => second_best = second_best.or(Some(Found::Full { protocol: protocol.clone() })),
                },
                Presence::Away { back_at } => {
                    let retry_after = back_at.saturating_duration_since(now).max(RETRY_AFTER_MIN);
                    let away = Found::Away { protocol: protocol.clone(), retry_after };
                    second_best = second_best.or(Some(away));
                }
            }
        }
        second_best.unwrap_or_else(|| Found::NotServed {
            offered: self
                .served
                .iter()
                .filter(|(_, found)| matches!(found.presence, Presence::Here(_)) && is_visible(found))
                .map(|(protocol, _)| protocol.clone())
                .collect(),
        })
    }

    /// What is served now, by one owner or by all.
    pub(crate) fn served(&self, owner: Option<&str>) -> Vec<ProtocolName> {
        let is_meant = |found: &Registration<L>| {
            matches!(found.presence, Presence::Here(_)) && owner.is_none_or(|owner| found.owner == owner)
        };
        self.served
            .iter()
            .filter(|(_, found)| is_meant(found))
            .map(|(protocol, _)| protocol.clone())
            .collect()
    }
}

/// Shortest "try again in": sooner would only be another refusal.
const RETRY_AFTER_MIN: Duration = Duration::from_millis(500);

impl<L> Registration<L> {
    fn slot(&self) -> Option<Slot> {
        let before = self.active.fetch_add(1, Ordering::Relaxed);
        let slot = Slot(self.active.clone());
        (before < self.concurrent_max).then_some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ProtocolName {
        ProtocolName::parse(text).unwrap()
    }

    fn entry(protocol: &str, trust: Trust, concurrent_max: Option<u32>) -> Entry<u8> {
        Entry { protocol: name(protocol), kind: Kind::Stream, trust, concurrent_max, link: 1 }
    }

    #[test]
    fn a_name_has_one_owner_and_a_clash_registers_nothing() {
        let mut directory = Directory::new();
        directory.register("a", vec![entry("/chess/1", Trust::Contacts, None)]).unwrap();
        let both = vec![entry("/go/1", Trust::Contacts, None), entry("/chess/1", Trust::Contacts, None)];
        let clash = directory.register("b", both).unwrap_err();
        assert_eq!(clash, Clash { protocol: name("/chess/1"), owner: "a".into() });
        assert!(directory.register("a", vec![entry("/chess/1", Trust::Contacts, None)]).is_err(), "twice");
        assert_eq!(directory.served(None), [name("/chess/1")]);
        assert!(!directory.unregister("b", &name("/chess/1")));
        assert!(directory.unregister("a", &name("/chess/1")));
    }

    #[test]
    fn strangers_neither_reach_nor_learn_what_is_for_contacts() {
        let mut directory = Directory::new();
        let entries = vec![entry("/chess/1", Trust::Contacts, None), entry("/pub/1", Trust::Anyone, None)];
        directory.register("a", entries).unwrap();
        let wishes = [name("/chess/1")];
        let now = Instant::now();
        assert!(matches!(directory.find(&wishes, Kind::Stream, true, now), Found::Here { .. }));
        match directory.find(&wishes, Kind::Stream, false, now) {
            Found::NotServed { offered } => assert_eq!(offered, [name("/pub/1")]),
            found @ (Found::Here { .. } | Found::Full { .. } | Found::Away { .. }) => panic!("{found:?}"),
        }
    }

    #[test]
    fn an_owner_that_comes_back_keeps_its_names_meanwhile() {
        let mut directory = Directory::new();
        let now = Instant::now();
        let wishes = [name("/chess/1")];
        directory.register("a", vec![entry("/chess/1", Trust::Contacts, None)]).unwrap();
        directory.set_away("a", &[name("/go/1")], now + Duration::from_secs(4));
        match directory.find(&wishes, Kind::Stream, true, now) {
            Found::Away { retry_after, .. } => assert_eq!(retry_after.as_secs(), 4),
            found @ (Found::Here { .. } | Found::Full { .. } | Found::NotServed { .. }) => {
                panic!("{found:?}")
            }
        }
        assert!(directory.register("b", vec![entry("/go/1", Trust::Contacts, None)]).is_err(), "reserved");
        assert!(directory.served(None).is_empty());
        directory.register("a", vec![entry("/chess/1", Trust::Contacts, None)]).unwrap();
        directory.settle("a");
        assert_eq!((directory.count("a"), directory.served(Some("a"))), (1, vec![name("/chess/1")]));
        directory.withdraw("a");
        let found = directory.find(&wishes, Kind::Stream, true, now);
        assert!(matches!(found, Found::NotServed { offered } if offered.is_empty()));
    }

    #[test]
    fn the_second_wish_is_taken_when_the_first_is_full() {
        let mut directory = Directory::new();
        let entries =
            vec![entry("/chess/2", Trust::Contacts, Some(1)), entry("/chess/1", Trust::Contacts, None)];
        directory.register("a", entries).unwrap();
        let wishes = [name("/chess/2"), name("/chess/1")];
        let now = Instant::now();
        let find = |wishes: &[ProtocolName]| directory.find(wishes, Kind::Stream, true, now);
        let Found::Here { protocol, slot, .. } = find(&wishes) else { panic!() };
        assert_eq!(protocol, wishes[0]);
        assert!(matches!(find(&wishes), Found::Here { protocol, .. } if protocol == wishes[1]));
        assert!(matches!(find(&wishes[..1]), Found::Full { .. }));
        drop(slot);
        assert!(matches!(find(&wishes[..1]), Found::Here { .. }));
        assert!(matches!(directory.find(&wishes, Kind::Datagram, true, now), Found::NotServed { .. }));
    }
}
