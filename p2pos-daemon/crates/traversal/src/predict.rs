//! What two NATs allow each other, before anything is tried; and what would have to change.
//!
//! ```text
//!        P   FC  R   H   O   Q   B   S   X        P   public, or a verified mapping    Q  symmetric, in steps
//!   P    D   D   D   D   D   D   D   D   t        FC  full cone                        B  symmetric, in a block
//!   FC       D   D   D   D   D   D   D   t        R   address-restricted               S  symmetric, anywhere
//!   R            D   D   D   D   D   D   t        H   port-restricted, or a firewall   X  no UDP
//!   H                D   d   g   g   g   t        O   H that collides (see `opener`)
//!   O                    d   g   g   g   t
//!   Q                        g   r   r   t        D direct, d with the opener, g by guessing,
//!   B                            r   r   t        r relayed, t relayed over TCP
//!   S                                r   t
//!   X                                    t
//! ```
//!
//! Why: an open side (P, FC, R) is reached by anybody, and learns the other's port from its first packet. Two that keep
//! their ports reach each other once both have sent. One that keeps and one that changes need a guess (`guess`). Two
//! that change know nothing of each other, unless both go in steps. Without UDP there is TCP to a relay.
//!
//! Refuses to know: this peer; the lab asserts the table cell by cell.

use crate::{nat::NatClass, signal::NatReport};

/// What two NATs allow each other, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expected {
    /// Directly, by plain punching or less.
    Direct,
    /// Directly, if both open their NAT first.
    DirectWithOpener,
    /// Directly, after guessing a port.
    DirectByGuess,
    /// Over a relay.
    Relayed,
    /// Over a relay, by TCP.
    TcpRelayed,
}

impl Expected {
    /// Tells whether a direct path is expected.
    #[must_use]
    pub fn is_direct(self) -> bool {
        self <= Self::DirectByGuess
    }
}

/// Which of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The first of the two reports: usually ours.
    Ours,
    /// The second.
    Theirs,
}

/// The one change that would make the path direct.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Advice {
    /// Forward a UDP port in the router of that side, by hand or by allowing UPnP, NAT-PMP or PCP.
    ForwardPort(Side),
    /// Let UDP through in the firewall of that side.
    AllowUdp(Side),
    /// Let UDP through on both sides: one alone does not help.
    AllowUdpOnBoth,
    /// Find out what the NAT of that side does: it needs two connections to unrelated peers.
    Measure(Side),
}

/// Says what two NATs allow each other; `None` if too little is known of one of them.
#[must_use]
pub fn predict(ours: &NatReport, theirs: &NatReport) -> Option<Expected> {
    Some(predict_classes(NatClass::of(ours)?, NatClass::of(theirs)?))
}

/// Says what two classes of NAT allow each other: the table above.
#[must_use]
pub fn predict_classes(ours: NatClass, theirs: NatClass) -> Expected {
    use NatClass::{CollisionProne, PortRestricted, Sequential, UdpBlocked};
    let any = |class| ours == class || theirs == class;
    if any(UdpBlocked) {
        return Expected::TcpRelayed;
    }
    if ours.is_open() || theirs.is_open() {
        return Expected::Direct;
    }
    match (ours.is_hard(), theirs.is_hard()) {
        (false, false) if ours == PortRestricted && theirs == PortRestricted => Expected::Direct,
        (false, false) => {
            debug_assert!(any(CollisionProne), "what is neither open nor hard nor H is O");
            Expected::DirectWithOpener
        }
        (true, false) | (false, true) => Expected::DirectByGuess,
        (true, true) if ours == Sequential && theirs == Sequential => Expected::DirectByGuess,
        (true, true) => Expected::Relayed,
    }
}

/// Names the one change that would make the path direct; `None` if it is to be direct anyway. Where either side could
/// make it, it is ours: we can ask our user.
#[must_use]
pub fn advice(ours: &NatReport, theirs: &NatReport) -> Option<Advice> {
    match (NatClass::of(ours), NatClass::of(theirs)) {
        (Some(NatClass::UdpBlocked), Some(NatClass::UdpBlocked)) => Some(Advice::AllowUdpOnBoth),
        (Some(NatClass::UdpBlocked), _) => Some(Advice::AllowUdp(Side::Ours)),
        (_, Some(NatClass::UdpBlocked)) => Some(Advice::AllowUdp(Side::Theirs)),
        (None, _) => Some(Advice::Measure(Side::Ours)),
        (_, None) => Some(Advice::Measure(Side::Theirs)),
        (Some(our_class), Some(their_class)) => {
            let is_direct = predict_classes(our_class, their_class).is_direct();
            (!is_direct).then_some(Advice::ForwardPort(Side::Ours))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        predict::Expected::{
            Direct as D, DirectByGuess as G, DirectWithOpener as O, Relayed as R, TcpRelayed as T,
        },
        testing::{CLASSES, report_of},
    };

    /// Written out whole, so that a change of any cell is seen.
    const MATRIX: [[Expected; 9]; 9] = [
        [D, D, D, D, D, D, D, D, T],
        [D, D, D, D, D, D, D, D, T],
        [D, D, D, D, D, D, D, D, T],
        [D, D, D, D, O, G, G, G, T],
        [D, D, D, O, O, G, G, G, T],
        [D, D, D, G, G, G, R, R, T],
        [D, D, D, G, G, R, R, R, T],
        [D, D, D, G, G, R, R, R, T],
        [T, T, T, T, T, T, T, T, T],
    ];

    #[test]
    fn every_cell_of_the_matrix_is_as_promised_in_both_directions() {
        for (row, ours) in CLASSES.into_iter().enumerate() {
            for (column, theirs) in CLASSES.into_iter().enumerate() {
                let (a, b) = (report_of(ours), report_of(theirs));
                assert_eq!(
                    predict(&a, &b),
                    Some(MATRIX[row][column]),
                    "{} x {}",
                    ours.letter(),
                    theirs.letter()
                );
                assert_eq!(predict(&a, &b), predict(&b, &a));
            }
        }
    }

    #[test]
    fn a_report_of_each_class_is_recognised() {
        for class in CLASSES {
            assert_eq!(NatClass::of(&report_of(class)), Some(class));
        }
    }

    #[test]
    fn following_the_advice_makes_every_cell_direct() {
        for (ours, theirs) in CLASSES.into_iter().flat_map(|a| CLASSES.map(|b| (a, b))) {
            let (mut a, mut b) = (report_of(ours), report_of(theirs));
            // Letting UDP through shows the NAT behind; then there may be one more thing to do.
            for _ in 0..3 {
                match advice(&a, &b) {
                    None => break,
                    Some(Advice::ForwardPort(Side::Ours)) => a.mapped = true,
                    Some(Advice::ForwardPort(Side::Theirs)) => b.mapped = true,
                    Some(Advice::AllowUdp(Side::Ours)) => a = report_of(NatClass::Random),
                    Some(Advice::AllowUdp(Side::Theirs)) => b = report_of(NatClass::Random),
                    Some(Advice::AllowUdpOnBoth) => {
                        (a, b) = (report_of(NatClass::PortRestricted), report_of(NatClass::PortRestricted));
                    }
                    Some(Advice::Measure(side)) => panic!("{side:?} is known"),
                }
            }
            let (ours, theirs) = (ours.letter(), theirs.letter());
            assert!(predict(&a, &b).unwrap().is_direct(), "{ours} x {theirs}");
        }
    }

    #[test]
    fn what_is_not_known_is_to_be_measured_and_nothing_is_promised() {
        let (unknown, home) = (NatReport::default(), report_of(NatClass::PortRestricted));
        assert_eq!((predict(&unknown, &home), predict(&home, &unknown)), (None, None));
        assert_eq!(advice(&unknown, &home), Some(Advice::Measure(Side::Ours)));
        assert_eq!(advice(&home, &unknown), Some(Advice::Measure(Side::Theirs)));
    }
}
