//! Keeps our leases: runs [`LeaseKeeper`], which decides, with links, which do.
//!
//! One task. What takes time (connecting, asking, working for a stamp) runs beside it and comes back as an input. Refuses to
//! know: flows, and how a relay is reached.

use std::{sync::Arc, time::Duration};

use p2pos_identity::PeerId;
use p2pos_peer_protocol::{Hidden, relay::RelayExchange};
use p2pos_relay::{
    Refusal, Search, Stamp,
    lease::{LeaseEvent, LeaseKeeper, token_for},
};
use tokio::{
    sync::mpsc,
    time::{Instant, interval, sleep_until},
};

use super::{Relays, link::Link, words};

/// Inputs that wait. Each relay has a handful.
pub(super) const INPUTS: usize = 64;

/// How often links and flows that nobody needs are looked for.
const SWEEP: Duration = Duration::from_secs(30);

/// When a relay of the settings whose name was not found is looked up again.
const LOOKUP_RETRY: Duration = Duration::from_secs(60);

/// What the task is told.
#[derive(Debug)]
pub(super) enum Input {
    /// A relay that may be used, and where it is.
    Known(PeerId, std::net::IpAddr),
    Connected(PeerId, Duration),
    Lost(PeerId),
    Leased(PeerId, Duration),
    Refused(PeerId, Refusal),
    Drains(PeerId, Duration),
    NetworkChanged,
}

/// Keeps leases until the node ends.
pub(super) async fn run(relays: Arc<Relays>, mut inputs: mpsc::Receiver<Input>) {
    let mut keeper = LeaseKeeper::new();
    let mut sweep = interval(SWEEP);
    loop {
        while let Some(event) = keeper.poll_event() {
            obey(&relays, event);
        }
        let due = keeper.poll_timeout().map(Instant::from_std);
        tokio::select! {
            input = inputs.recv() => match input {
                Some(input) => hand(&mut keeper, input),
                None => return,
            },
            () = sleep_until_some(due) => keeper.handle_timeout(now()),
            _ = sweep.tick() => relays.sweep(),
        }
    }
}

fn hand(keeper: &mut LeaseKeeper, input: Input) {
    tracing::trace!(?input, "about a relay");
    match input {
        Input::Known(relay, address) => keeper.handle_known(now(), relay, address, None),
        Input::Connected(relay, rtt) => keeper.handle_connected(now(), relay, rtt),
        Input::Lost(relay) => keeper.handle_lost(now(), relay),
        Input::Leased(relay, lasts) => {
            keeper.handle_alive(relay);
            keeper.handle_leased(now(), relay, lasts);
        }
        Input::Refused(relay, refusal) => keeper.handle_refused(now(), relay, &refusal),
        Input::Drains(relay, grace) => keeper.handle_drain(now(), relay, grace),
        Input::NetworkChanged => keeper.handle_network_changed(now()),
    }
}

fn obey(relays: &Arc<Relays>, event: LeaseEvent) {
    let relays = relays.clone();
    match event {
        LeaseEvent::Connect(relay) => {
            tokio::spawn(async move {
                match relays.link_to(relay).await {
                    Ok(link) => {
                        relays.input(Input::Connected(relay, link.rtt())).await;
                        link.closed().await;
                    }
                    Err(error) => {
                        tracing::debug!(relay = %relay.short(), %error, "a relay cannot be used now");
                    }
                }
                relays.input(Input::Lost(relay)).await;
            });
        }
        // A check is a renewal: it proves the way there and back, and that the lease is known.
        LeaseEvent::Reserve(relay) | LeaseEvent::Check(relay) => {
            tokio::spawn(async move {
                if let Some(link) = relays.standing_link(relay)
                    && let Some(input) = reserve(&relays, &link).await
                {
                    relays.input(input).await;
                }
            });
        }
        LeaseEvent::Release(relay) => relays.let_go_of(relay),
        LeaseEvent::Publish(list) => relays.publish(&list),
    }
}

/// Asks for a lease; `None` if the relay does not answer, which closes the link and so tells by itself.
async fn reserve(relays: &Relays, link: &Link) -> Option<Input> {
    let relay = link.relay();
    let token = Hidden(token_for(&relays.secret(), &relay));
    let mut stamp = None;
    loop {
        match link.ask(RelayExchange::Reserve { token, stamp }).await? {
            RelayExchange::Lease(lease) => {
                return Some(Input::Leased(relay, Duration::from_secs(lease.lasts_s.into())));
            }
            RelayExchange::Refuse(refusal) => {
                let refusal = words::refusal_from_wire(refusal);
                let Refusal::StampNeeded { challenge, bits } = refusal else {
                    return Some(Input::Refused(relay, refusal));
                };
                // Whoever asked for work, got it, and asks again does not want us.
                let found = if stamp.is_none() { work(relays.us(), challenge, bits).await } else { None };
                let Some(found) = found else { return Some(Input::Refused(relay, Refusal::NotServed)) };
                stamp = Some(words::stamp_to_wire(found));
            }
            RelayExchange::Reserve { .. } | RelayExchange::Connect { .. } | RelayExchange::Flow(_) => {
                return Some(Input::Refused(relay, Refusal::NotServed));
            }
        }
    }
}

/// Works for a stamp, on a thread of its own; `None` if the relay asks for too much.
async fn work(us: PeerId, challenge: [u8; 8], bits: u32) -> Option<Stamp> {
    let mut search = Search::new(&us, challenge, bits)?;
    let working = move || loop {
        if let Some(stamp) = search.step() {
            return stamp;
        }
    };
    tokio::task::spawn_blocking(working).await.ok()
}

/// Finds out where a relay of the settings is, however long that takes.
pub(super) async fn introduce(relays: Arc<Relays>, relay: PeerId) {
    loop {
        let Some(context) = relays.context() else { return };
        match context.resolver.resolve(&relay).await {
            Ok(resolved) => {
                if let Some(candidate) = resolved.candidates.first() {
                    return relays.input(Input::Known(relay, candidate.addr.ip())).await;
                }
            }
            Err(error) => tracing::warn!(relay = %relay.short(), %error, "a relay was not found"),
        }
        drop(context);
        tokio::time::sleep(LOOKUP_RETRY).await;
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

async fn sleep_until_some(alarm: Option<Instant>) {
    match alarm {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
