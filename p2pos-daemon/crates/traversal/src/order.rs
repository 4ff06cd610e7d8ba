//! In which order the candidates of a peer are tried.
//!
//! Near ones come first: an answer from the same network is the best path there is and arrives before the next attempt
//! starts. Relayed ones come last, except that the first of them starts no later than fifth: it is the one that surely
//! answers, and data shall not wait for it behind a list of dead addresses ([`RELAYED_AT`]). Between candidates that are equally near, IPv6 and IPv4 take turns, beginning with
//! IPv6 (RFC 8421 s4, RFC 8305 s4): a family that is broken on the way then costs one stagger and not all of them.
//!
//! Refuses to know: time (`dial` has it), and which path is kept in the end (that is measured, not guessed).

use std::cmp::Reverse;

use crate::{Candidate, CandidateKind, Scope, candidate::scope_of};

/// The place at which the first relayed candidate starts at the latest, counted from 0: 40 ms after the first of all,
/// and always among the attempts that run at once ([`crate::ATTEMPTS_AT_ONCE_MAX`]).
pub const RELAYED_AT: usize = 4;

/// Sorts candidates for dialling. Among those with nothing to choose between, what came first stays first.
#[must_use]
pub fn in_dial_order(candidates: &[Candidate]) -> Vec<Candidate> {
    let mut by_nearness = candidates.to_vec();
    by_nearness.sort_by_key(|candidate| (nearness(candidate), candidate.kind));
    let mut ordered = Vec::with_capacity(by_nearness.len());
    for group in by_nearness.chunk_by(|a, b| nearness(a) == nearness(b)) {
        interleave(group, &mut ordered);
    }
    if let Some(first_relayed) = ordered.iter().position(|one| one.kind == CandidateKind::Relayed)
        && first_relayed > RELAYED_AT
    {
        ordered[RELAYED_AT..=first_relayed].rotate_right(1);
    }
    ordered
}

/// What tells groups apart: everything within one is tried family by family in turn.
fn nearness(candidate: &Candidate) -> (bool, Scope) {
    (candidate.kind == CandidateKind::Relayed, scope_of(candidate.addr.ip()))
}

fn interleave(group: &[Candidate], ordered: &mut Vec<Candidate>) {
    let start = ordered.len();
    let mut turns: Vec<(usize, Reverse<bool>, Candidate)> = Vec::with_capacity(group.len());
    for is_ipv6 in [true, false] {
        let family = group.iter().filter(|candidate| candidate.addr.is_ipv6() == is_ipv6);
        turns.extend(family.enumerate().map(|(turn, candidate)| (turn, Reverse(is_ipv6), *candidate)));
    }
    turns.sort_by_key(|(turn, family, _)| (*turn, *family));
    ordered.extend(turns.into_iter().map(|(_, _, candidate)| candidate));
    debug_assert_eq!(ordered.len() - start, group.len(), "a candidate was lost or doubled");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn near_candidates_come_first_and_relayed_ones_last() {
        let ordered = order(&[
            ("203.0.113.9:1", CandidateKind::Relayed),
            ("203.0.113.5:1", CandidateKind::Observed),
            ("192.168.1.7:1", CandidateKind::Host),
            ("127.0.0.1:1", CandidateKind::Manual),
        ]);
        assert_eq!(ordered, ["127.0.0.1:1", "192.168.1.7:1", "203.0.113.5:1", "203.0.113.9:1"]);
    }

    #[test]
    fn a_relay_does_not_wait_behind_a_list_of_dead_addresses() {
        let mut given: Vec<(String, CandidateKind)> =
            (1..=12).map(|host| (format!("45.0.0.{host}:1"), CandidateKind::Observed)).collect();
        given.push(("45.9.9.9:1".into(), CandidateKind::Relayed));
        given.push(("45.9.9.8:1".into(), CandidateKind::Relayed));
        let given: Vec<(&str, CandidateKind)> =
            given.iter().map(|(text, kind)| (text.as_str(), *kind)).collect();
        let ordered = order(&given);
        assert_eq!((&ordered[RELAYED_AT][..], &ordered[13][..]), ("45.9.9.9:1", "45.9.9.8:1"));
        assert_eq!(&ordered[5], "45.0.0.5:1", "the others keep their order");
    }

    #[test]
    fn the_families_take_turns_beginning_with_ipv6() {
        let ordered = order(&[
            ("203.0.113.1:1", CandidateKind::Host),
            ("203.0.113.2:1", CandidateKind::Host),
            ("203.0.113.3:1", CandidateKind::Host),
            ("[2001:db8::1]:1", CandidateKind::Host),
            ("[2001:db8::2]:1", CandidateKind::Host),
        ]);
        assert_eq!(
            ordered,
            ["[2001:db8::1]:1", "203.0.113.1:1", "[2001:db8::2]:1", "203.0.113.2:1", "203.0.113.3:1"]
        );
    }

    #[test]
    fn what_the_user_typed_comes_before_what_others_saw() {
        let ordered = order(&[
            ("203.0.113.1:1", CandidateKind::Observed),
            ("203.0.113.2:1", CandidateKind::Mapped),
            ("203.0.113.3:1", CandidateKind::Manual),
        ]);
        assert_eq!(ordered, ["203.0.113.3:1", "203.0.113.2:1", "203.0.113.1:1"]);
    }

    proptest! {
        #[test]
        fn ordering_loses_and_invents_nothing(addresses: Vec<(std::net::IpAddr, u16, bool)>) {
            let candidates: Vec<Candidate> = addresses.into_iter().map(|(ip, port, is_relayed)| {
                let kind = if is_relayed { CandidateKind::Relayed } else { CandidateKind::Host };
                Candidate { addr: (ip, port).into(), kind }
            }).collect();
            let mut ordered = in_dial_order(&candidates);
            let mut given = candidates;
            let key = |candidate: &Candidate| (candidate.addr, candidate.kind);
            ordered.sort_by_key(key);
            given.sort_by_key(key);
            prop_assert_eq!(ordered, given);
        }
    }

    fn order(given: &[(&str, CandidateKind)]) -> Vec<String> {
        let candidates: Vec<Candidate> =
            given.iter().map(|(text, kind)| Candidate { addr: text.parse().unwrap(), kind: *kind }).collect();
        in_dial_order(&candidates).iter().map(|candidate| candidate.addr.to_string()).collect()
    }
}
