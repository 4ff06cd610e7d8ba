//! At which of our addresses others speak with us: a machine has several, and a NAT lets in answers from the one it knows.
//!
//! QUIC keeps that for each path; frames that a relay forwards have no path, so it is kept here. Refuses to know: frames.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

/// Remotes whose door is known: more than a relay has users. Beyond, all are forgotten, and learned again from their next packets;
/// meanwhile the system chooses the address, which is right wherever there is only one.
const DOORS_MAX: usize = 8_192;

/// Our address for each remote.
#[derive(Debug, Default)]
pub(super) struct Doors(HashMap<SocketAddr, IpAddr>);

impl Doors {
    /// Notes that `from` spoke to our address `at`.
    pub(super) fn note(&mut self, from: SocketAddr, at: IpAddr) {
        if self.0.len() >= DOORS_MAX && !self.0.contains_key(&from) {
            self.0.clear();
        }
        self.0.insert(from, at);
    }

    /// From which of our addresses `to` expects to hear.
    pub(super) fn of(&self, to: SocketAddr) -> Option<IpAddr> {
        self.0.get(&to).copied()
    }

    /// Our addresses are other ones now.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_is_answered_from_the_address_that_it_spoke_to_last() {
        let mut doors = Doors::default();
        let remote = ([45, 0, 0, 7], 9).into();
        let [one, other] = [IpAddr::from([45, 1, 0, 1]), IpAddr::from([45, 1, 0, 2])];
        assert_eq!(doors.of(remote), None);
        doors.note(remote, one);
        doors.note(remote, other);
        assert_eq!(doors.of(remote), Some(other));
        doors.forget();
        assert_eq!(doors.of(remote), None);
    }

    #[test]
    fn remotes_without_number_are_not_all_remembered() {
        let mut doors = Doors::default();
        for number in 0..2 * u32::try_from(DOORS_MAX).unwrap() {
            doors.note((std::net::Ipv4Addr::from_bits(number), 9).into(), [45, 1, 0, 1].into());
        }
        assert!(doors.0.len() <= DOORS_MAX);
    }
}
