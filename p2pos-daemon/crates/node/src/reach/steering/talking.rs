//! What is said to the peer over the signal stream, and what follows from its words. Part of `steering`, which says when.

use std::net::SocketAddr;

use p2pos_peer_protocol::signal::SignalMessage;
use p2pos_traversal::signal::{Role, Signal};

use super::{Steering, now};
use crate::reach::{
    guessing::Told,
    signals::{SignalStream, Signals},
    words,
};

impl Steering {
    pub(super) fn send(&self, signal: &Signal) {
        if let Some(signals) = &self.signals {
            signals.send(words::to_wire(signal));
        }
    }

    pub(super) fn take_stream(&mut self, stream: SignalStream) {
        if self.role == Role::Accepter && self.signals.is_none() {
            self.signals = Some(Signals::accept(stream));
            // What the plan said before there was a stream was lost.
            let own = self.reach.own().picture().borrow().clone();
            self.send(&Signal::Candidates(own.candidates));
            self.send(&Signal::NatReport(own.report));
            self.tell_places();
        }
    }

    /// Tells the peer where it can call us, so that it can when nothing else leads here any more.
    pub(super) fn tell_places(&mut self) {
        let places = self.places.borrow_and_update().clone();
        if let Some(signals) = &self.signals
            && self.relays.may_relay(self.live.connection.peer())
        {
            signals.send(SignalMessage::Relays(places));
        }
    }

    pub(super) fn message(&mut self, message: SignalMessage) {
        if let SignalMessage::Relays(places) = message {
            return self.relays.note_places(self.live.connection.peer(), places);
        }
        let Some(signal) = words::from_wire(message) else { return };
        if let Signal::Candidates(candidates) = &signal {
            self.scout(candidates);
        }
        if let (Signal::GuessHit { attempt: number }, Some(attempt)) = (&signal, &self.attempt) {
            attempt.tell(Told::Hit { attempt: *number });
        }
        self.plan.handle_signal(signal, now());
    }

    /// Tells noq where the peer may punch us.
    pub(super) fn tell_candidates(&mut self, wanted: Vec<SocketAddr>) {
        for gone in self.told.iter().filter(|told| !wanted.contains(told)) {
            if let Err(error) = self.paths.remove_local_candidate(*gone) {
                tracing::trace!(%error, "a candidate was not taken back");
            }
        }
        for new in wanted.iter().filter(|wanted| !self.told.contains(wanted)) {
            if let Err(error) = self.paths.add_local_candidate(*new) {
                tracing::debug!(%error, "a candidate was not told");
            }
        }
        self.told = wanted;
    }
}
