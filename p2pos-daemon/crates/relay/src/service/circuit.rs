//! The table of circuits: two sides, found by the flow number in a frame without hashing.
//!
//! A flow number is `generation (11 bits) | place in the table (20) | side (1)`. Each side has a number of its own, so
//! a frame says at once whose it is. The generation changes when a place is used again: numbers of ended flows name
//! nobody for 2,047 uses of the place, and their keys never.
//!
//! Refuses to know: limits, and what an address must prove.

use super::account::AccountId;
use crate::{
    Via,
    frame::Vni,
    mac::{FlowKey, Tag},
    window::ReplayWindow,
};
use p2pos_identity::PeerId;

const SIDE_BITS: u32 = 1;
const PLACE_BITS: u32 = 20;
const GENERATION_MAX: u16 = (1 << (u32::BITS - SIDE_BITS - PLACE_BITS)) - 1;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Caller,
    Callee,
}

/// One side of one circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) place: u32,
    pub(super) role: Role,
}

/// What the relay keeps of one side.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) peer: PeerId,
    /// Who pays for what this side sends: its own account, or the callee's if the caller is the callee's guest.
    pub(super) payer: AccountId,
    /// A stranger's /24 or /56.
    pub(super) prefix: Option<AccountId>,
    pub(super) is_contact: bool,
    /// Its connection to us came from a private address: only then may the side be at one.
    pub(super) is_private: bool,
    pub(super) key: FlowKey,
    pub(super) accept: Tag,
    /// Where the side proved to be.
    pub(super) bound: Option<Via>,
    /// Before this no further challenge goes out.
    pub(super) next_challenge_at: u64,
    pub(super) window: ReplayWindow,
    /// When a frame of this side last came, and how many were sent to it since.
    pub(super) heard_at: u64,
    pub(super) unanswered: u32,
    pub(super) sending: crate::bucket::Bucket,
    pub(super) bytes: u64,
    pub(super) packets: u64,
}

/// Two sides.
#[derive(Debug)]
pub(super) struct Circuit {
    pub(super) caller: Side,
    pub(super) callee: Side,
    /// When something last passed.
    pub(super) used_at: u64,
    /// Beyond the tariff's number of flows: carries signalling only.
    pub(super) is_introduction: bool,
    generation: u16,
}

/// All circuits. A place that was used once stays allocated.
#[derive(Debug, Default)]
pub(super) struct Circuits {
    places: Vec<Place>,
    free: Vec<u32>,
}

#[derive(Debug)]
enum Place {
    Used(Box<Circuit>),
    /// The generation of the last circuit here.
    Free(u16),
}

impl Role {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Caller => Self::Callee,
            Self::Callee => Self::Caller,
        }
    }
}

impl Circuit {
    pub(super) fn new(mut caller: Side, mut callee: Side, now: u64, is_introduction: bool) -> Self {
        // Both have just spoken with the relay.
        (caller.heard_at, callee.heard_at) = (now, now);
        Self { caller, callee, used_at: now, is_introduction, generation: 0 }
    }

    /// Takes note of a genuine frame of a side.
    pub(super) fn hear(&mut self, role: Role, now: u64) {
        let side = self.side_mut(role);
        side.heard_at = now;
        side.unanswered = 0;
    }

    pub(super) fn side(&self, role: Role) -> &Side {
        match role {
            Role::Caller => &self.caller,
            Role::Callee => &self.callee,
        }
    }

    pub(super) fn side_mut(&mut self, role: Role) -> &mut Side {
        match role {
            Role::Caller => &mut self.caller,
            Role::Callee => &mut self.callee,
        }
    }

    pub(super) fn vni(&self, seat: Seat) -> Vni {
        let side = match seat.role {
            Role::Caller => 0,
            Role::Callee => 1,
        };
        let number = u32::from(self.generation) << (PLACE_BITS + SIDE_BITS) | seat.place << SIDE_BITS | side;
        Vni::new(number).expect("generations begin with 1")
    }
}

impl Circuits {
    /// Puts a circuit at a free place.
    pub(super) fn add(&mut self, mut circuit: Circuit) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::Free(0));
            u32::try_from(self.places.len() - 1).expect("settings allow fewer than 2^20 flows")
        });
        let slot = &mut self.places[place as usize];
        let Place::Free(last) = *slot else {
            unreachable!("only free places are in the list of free places")
        };
        circuit.generation = if last == GENERATION_MAX { 1 } else { last + 1 };
        *slot = Place::Used(Box::new(circuit));
        place
    }

    pub(super) fn remove(&mut self, place: u32) -> Option<Box<Circuit>> {
        let slot = self.places.get_mut(place as usize)?;
        let Place::Used(circuit) = slot else { return None };
        let free = Place::Free(circuit.generation);
        let Place::Used(circuit) = std::mem::replace(slot, free) else {
            unreachable!("matched two lines above")
        };
        self.free.push(place);
        Some(circuit)
    }

    pub(super) fn get(&self, place: u32) -> Option<&Circuit> {
        match self.places.get(place as usize)? {
            Place::Used(circuit) => Some(circuit),
            Place::Free(_) => None,
        }
    }

    /// Finds the circuit and the side that a number names.
    pub(super) fn find(&self, vni: Vni) -> Option<(Seat, &Circuit)> {
        let seat = seat_of(vni);
        let circuit = self.get(seat.place)?;
        (circuit.vni(seat) == vni).then_some((seat, circuit))
    }

    pub(super) fn find_mut(&mut self, vni: Vni) -> Option<(Seat, &mut Circuit)> {
        let seat = seat_of(vni);
        match self.places.get_mut(seat.place as usize)? {
            Place::Used(circuit) if circuit.vni(seat) == vni => Some((seat, circuit)),
            Place::Used(_) | Place::Free(_) => None,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Circuit)> {
        (0_u32..).zip(&self.places).filter_map(|(place, slot)| match slot {
            Place::Used(circuit) => Some((place, &**circuit)),
            Place::Free(_) => None,
        })
    }

    /// Makes the introduction at the lowest place an ordinary flow.
    pub(super) fn promote_one(&mut self) {
        let introduction = self.places.iter_mut().find_map(|slot| match slot {
            Place::Used(circuit) if circuit.is_introduction => Some(circuit),
            Place::Used(_) | Place::Free(_) => None,
        });
        if let Some(circuit) = introduction {
            circuit.is_introduction = false;
        }
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.places.len() - self.free.len()).expect("settings allow fewer than 2^20 flows")
    }
}

fn seat_of(vni: Vni) -> Seat {
    let number = vni.value();
    let role = if number & 1 == 0 { Role::Caller } else { Role::Callee };
    Seat { place: (number >> SIDE_BITS) & ((1 << PLACE_BITS) - 1), role }
}
