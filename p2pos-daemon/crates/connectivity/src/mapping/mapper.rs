//! The mapper's task: which questions there are, what came of them, and when there are more.
//!
//! Owns the reports; keepers send updates, the handle sends commands. At most [`QUESTIONS_MAX`] questions exist.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    announce::Ear,
    asker::Asker,
    grant::{MappingProtocol, MappingReport, MappingState, Question, is_public},
    keeper::{self, Orders, Update},
};
use crate::{
    gateways::{GATEWAYS_MAX, Gateway, gateways},
    hops,
};

/// Questions at a time: all gateways by all protocols, and as many again for the routers behind them.
const QUESTIONS_MAX: usize = GATEWAYS_MAX * MappingProtocol::ALL.len() * 2;
/// Updates of keepers waiting for the mapper: each keeper has one at a time.
const UPDATES_QUEUE: usize = QUESTIONS_MAX;
/// The hop behind our own router.
const SECOND_HOP: u8 = 2;

/// What the handle asks for.
#[derive(Debug)]
pub(crate) enum Command {
    NetworkChanged,
    Observed { external: IpAddr, observer: Ipv4Addr },
    Verified { external: SocketAddr, came_through: bool },
    Stop,
}

/// A question that is being kept.
#[derive(Debug)]
struct Kept {
    orders: watch::Sender<Orders>,
    state: MappingState,
    epoch_s: Option<u32>,
}

/// What the world sees of us, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    external: IpAddr,
    observer: Ipv4Addr,
}

/// The task behind a [`super::Mapper`].
#[derive(Debug)]
pub(crate) struct Task {
    port: u16,
    lease: Duration,
    questions: BTreeMap<Question, Kept>,
    keepers: JoinSet<()>,
    updates: (mpsc::Sender<Update>, mpsc::Receiver<Update>),
    publish: watch::Sender<Vec<MappingReport>>,
    seen: Option<Seen>,
    /// The search for the second router on behalf of a mapping of the first, at most one at a time.
    search: JoinSet<(SocketAddr, Option<Ipv4Addr>)>,
    searched_for: Option<(SocketAddr, Ipv4Addr)>,
}

impl Task {
    pub(crate) fn new(port: u16, lease: Duration, publish: watch::Sender<Vec<MappingReport>>) -> Self {
        Self {
            port,
            lease,
            questions: BTreeMap::new(),
            keepers: JoinSet::new(),
            updates: mpsc::channel(UPDATES_QUEUE),
            publish,
            seen: None,
            search: JoinSet::new(),
            searched_for: None,
        }
    }

    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut ear = Ear::new();
        self.follow_gateways();
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::NetworkChanged) => self.network_changed(),
                    Some(Command::Observed { external, observer }) => self.observed(Seen { external, observer }),
                    Some(Command::Verified { external, came_through }) => self.verified(external, came_through),
                    Some(Command::Stop) => break,
                    None => return,
                },
                Some(update) = self.updates.1.recv() => self.updated(update),
                Some(Ok((inner, outer))) = self.search.join_next() => self.second_router_found(inner, outer),
                from = ear.hear() => self.ask_again(|question| question.gateway.ip == from),
            }
            self.report();
        }
        self.stop().await;
    }

    fn network_changed(&mut self) {
        self.seen = None;
        self.searched_for = None;
        self.search.abort_all();
        self.drop_questions(|question| question.on_behalf_of.is_some());
        self.follow_gateways();
        self.ask_again(|_| true);
    }

    /// Starts and stops keepers until each gateway that the machine has now is asked.
    fn follow_gateways(&mut self) {
        let present = gateways();
        self.drop_questions(|question| !present.contains(&question.gateway));
        for gateway in present {
            self.ask_router(gateway, None);
        }
    }

    fn ask_router(&mut self, gateway: Gateway, on_behalf_of: Option<SocketAddr>) {
        for protocol in MappingProtocol::ALL {
            let question = Question { gateway, protocol, on_behalf_of };
            if self.questions.len() < QUESTIONS_MAX && !self.questions.contains_key(&question) {
                let orders = watch::Sender::new(Orders::default());
                let asker = Asker::new(question, self.port, self.lease, rand::random());
                let keeper = keeper::keep(question, asker, orders.subscribe(), self.updates.0.clone());
                self.keepers.spawn(keeper);
                self.questions.insert(question, Kept { orders, state: MappingState::Asking, epoch_s: None });
            }
        }
    }

    fn drop_questions(&mut self, is_over: impl Fn(&Question) -> bool) {
        self.questions.retain(|question, kept| {
            let is_over = is_over(question);
            if is_over {
                kept.orders.send_modify(|orders| orders.is_over = true);
            }
            !is_over
        });
    }

    fn ask_again(&self, which: impl Fn(&Question) -> bool) {
        for (_, kept) in self.questions.iter().filter(|(question, _)| which(question)) {
            kept.orders.send_modify(|orders| orders.asked += 1);
        }
    }

    fn updated(&mut self, update: Update) {
        let Some(kept) = self.questions.get_mut(&update.question) else { return };
        let has_forgotten = matches!((kept.epoch_s, update.epoch_s), (Some(then), Some(now)) if now < then);
        kept.epoch_s = update.epoch_s;
        kept.state = match (&kept.state, update.state) {
            // A renewal proves no more and no less than what it renews.
            (
                MappingState::Mapped { external: before, is_verified, .. },
                MappingState::Mapped { external, lease, .. },
            ) if *before == external => {
                MappingState::Mapped { external, lease, is_verified: *is_verified && !has_forgotten }
            }
            (_, state) => state,
        };
        if has_forgotten {
            // RFC 6887 s8.5: a router whose clock went back has lost its mappings, whoever made them.
            let gateway = update.question.gateway;
            self.ask_again(|question| question.gateway == gateway && *question != update.question);
        }
        self.seek_second_router();
    }

    fn observed(&mut self, seen: Seen) {
        self.seen = Some(seen);
        self.seek_second_router();
    }

    fn verified(&mut self, external: SocketAddr, came_through: bool) {
        for kept in self.questions.values_mut() {
            if let MappingState::Mapped { external: mapped, is_verified, .. } = &mut kept.state
                && *mapped == external
            {
                *is_verified = came_through;
            }
        }
    }

    /// If what our router says and what the world sees differ, there is a router behind it.
    fn seek_second_router(&mut self) {
        let Some(seen) = self.seen else { return };
        let Some(inner) = self.inner_mapping() else { return };
        let is_last = is_public(inner.ip()) && inner.ip() == seen.external;
        let wanted = (inner, seen.observer);
        if is_last || !inner.is_ipv4() || self.searched_for == Some(wanted) || !self.search.is_empty() {
            return;
        }
        self.searched_for = Some(wanted);
        self.search.spawn(async move { (inner, hops::router_at(SECOND_HOP, seen.observer).await) });
    }

    /// What our own router granted; of several answers the first protocol's.
    fn inner_mapping(&self) -> Option<SocketAddr> {
        self.questions.iter().find_map(|(question, kept)| match (&kept.state, question.on_behalf_of) {
            (MappingState::Mapped { external, .. }, None) => Some(*external),
            _ => None,
        })
    }

    fn second_router_found(&mut self, inner: SocketAddr, outer: Option<Ipv4Addr>) {
        self.drop_questions(|question| question.on_behalf_of.is_some_and(|behalf| behalf != inner));
        if let Some(ip) = outer {
            tracing::debug!(%ip, "a second router stands before the first; it is asked, too");
            self.ask_router(Gateway { ip: ip.into(), scope: 0 }, Some(inner));
        }
    }

    fn report(&self) {
        let reports = self
            .questions
            .iter()
            .map(|(question, kept)| MappingReport { question: *question, state: kept.state.clone() })
            .collect();
        self.publish.send_if_modified(|published| {
            let has_changed = *published != reports;
            *published = reports;
            has_changed
        });
    }

    async fn stop(mut self) {
        self.drop_questions(|_| true);
        // A keeper that waits to report must not wait for us.
        self.updates.1.close();
        while self.keepers.join_next().await.is_some() {}
    }
}
