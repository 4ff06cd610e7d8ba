//! The loop of a peer's task: take in one thing at a time, then set everything right.
//!
//! Whatever happened, [`Actor::settle`] derives what follows from what is: it forgets lost connections, closes those that
//! are due, fulfils wishes, begins a dial if one is wanted, and publishes. No path through the loop can forget a step.

use std::sync::Arc;

use p2pos_identity::PeerId;
use p2pos_peer_protocol::EndCode;
use p2pos_transport::{Connection, Lost};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    accept,
    error::OpenError,
    limits::FORGET,
    node::Event,
    peer::{
        Command, Context, Live, PeerState, Status, Welcome, connections::Connections, dial::Dialler,
        wishes::Wishes,
    },
    reach,
};

/// A peer's task.
pub(super) struct Actor {
    peer: PeerId,
    context: Arc<Context>,
    commands: mpsc::Receiver<Command>,
    publish: watch::Sender<Status>,
    connections: Connections,
    /// One acceptor of streams per connection; each ends with its connection.
    acceptors: JoinSet<Lost>,
    /// One per connection, which improves its path; each ends with its connection.
    steerings: JoinSet<()>,
    /// A connection has become unused.
    given_back: Arc<Notify>,
    dialler: Dialler,
    wishes: Wishes,
    /// How the last connection ended, to tell it when none is left.
    last_loss: Option<Lost>,
    /// Whether the user knows the peer; then its next handshake is prepared for.
    is_contact: bool,
    /// Since when there is nothing to do.
    idle_since: Option<Instant>,
}

impl Actor {
    pub(super) fn new(
        peer: PeerId,
        context: Arc<Context>,
        commands: mpsc::Receiver<Command>,
        publish: watch::Sender<Status>,
    ) -> Self {
        let connections = Connections::new(context.us(), peer);
        Self {
            peer,
            context,
            commands,
            publish,
            connections,
            acceptors: JoinSet::new(),
            steerings: JoinSet::new(),
            given_back: Arc::default(),
            dialler: Dialler::default(),
            wishes: Wishes::default(),
            last_loss: None,
            is_contact: false,
            idle_since: Some(Instant::now()),
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let alarm = self.next_alarm();
            tokio::select! {
                command = self.commands.recv() => match command {
                    None | Some(Command::Shutdown) => return self.shut_down(),
                    Some(command) => self.obey(command),
                },
                dialed = self.dialler.done() => self.dialed(dialed),
                Some(ended) = self.acceptors.join_next() => self.connection_ended(ended.ok()),
                Some(ended) = self.steerings.join_next() => if let Err(error) = ended && error.is_panic() {
                    tracing::error!(%error, "the steering of a connection failed");
                },
                () = self.given_back.notified() => {}
                () = sleep_until_some(alarm) => {}
            }
            self.settle();
            if self.is_forgettable() && self.context.registry.forget(&self.peer, &self.commands) {
                return;
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Connect(reply) => self.wishes.add(reply),
            Command::Adopt(connection, welcome) => self.adopt(*connection, welcome),
            Command::Disconnect => self.disconnect(),
            Command::Redial => {
                self.dialler.give_up();
                self.dialler.hope_again();
            }
            Command::NetworkChanged => {
                self.connections.nudge_all();
                self.dialler.hope_again();
            }
            Command::Shutdown => self.shut_down(),
        }
    }

    /// Ends all that we have with the peer, as if it had never been; a dial in progress too.
    fn disconnect(&mut self) {
        self.dialler.give_up();
        self.wishes.fail(&OpenError::Refused { code: EndCode::REFUSED.code });
        self.connections.close_all(EndCode::REFUSED);
        self.last_loss = Some(Lost::Local);
    }

    /// Takes a connection, whoever dialled it, and begins to accept its streams.
    fn adopt(&mut self, connection: Connection, welcome: Welcome) {
        let is_contact = matches!(welcome, Welcome::Contact);
        if is_contact {
            self.is_contact = true;
            connection.widen();
        }
        let (live, helm) = Live::new(connection, self.given_back.clone());
        let reach = self.context.reach.clone();
        let (helper, relays) = (reach.helper(), self.context.relays.clone());
        self.steerings.spawn(reach::steer(live.clone(), helm, (reach, relays), is_contact));
        self.connections.add(live.clone(), welcome);
        let (incoming, relays) = (self.context.incoming.clone(), self.context.relays.clone());
        self.acceptors.spawn(accept::run(live, incoming, helper, relays));
        self.dialler.succeeded();
    }

    fn dialed(&mut self, result: Result<Connection, OpenError>) {
        match result {
            // Whom we call, we know.
            Ok(connection) => self.adopt(connection, Welcome::Contact),
            Err(error) => {
                self.dialler.back_off();
                if !error.is_worth_another_dial() {
                    self.wishes.fail(&error);
                }
            }
        }
    }

    /// A peer that was restarted, or that hung up in good order, may be dialled at once; one that fell silent must wait.
    fn connection_ended(&mut self, lost: Option<Lost>) {
        match &lost {
            Some(Lost::Restarted | Lost::Local) => self.dialler.hope_again(),
            Some(Lost::Closed(code)) if [EndCode::IDLE, EndCode::DUPLICATE].contains(code) => {
                self.dialler.hope_again();
            }
            Some(Lost::Closed(_) | Lost::TimedOut | Lost::Protocol(_)) | None => self.dialler.back_off(),
        }
        self.last_loss = lost.or_else(|| self.last_loss.take());
        if self.is_contact {
            // Now, and not while somebody waits for the next connection.
            self.context.endpoint.expect(&self.peer);
        }
    }

    /// Makes everything follow from what is.
    fn settle(&mut self) {
        self.connections.settle_doubts(Instant::now());
        self.connections.close_due(Instant::now());
        if let Some(live) = self.connections.chosen() {
            self.wishes.fulfil(live);
        } else if !self.wishes.is_empty() {
            self.dialler.dial(self.peer, &self.context);
        }
        self.publish();
        let has_nothing_to_do = self.state() == PeerState::Idle && self.acceptors.is_empty();
        self.idle_since = has_nothing_to_do.then(|| self.idle_since.unwrap_or_else(Instant::now));
    }

    fn publish(&mut self) {
        let live = self.connections.chosen().cloned();
        let was_connected = self.publish.borrow().live.is_some();
        let timeline = self.dialler.timeline().clone();
        let connections = self.connections.count();
        let status = Status { state: self.state(), live: live.clone(), connections, timeline };
        // Before the event: whoever lost events looks here, and must not find less than they told.
        self.publish.send_replace(status);
        match (&live, was_connected) {
            (Some(live), false) => {
                let path = live.connection.path();
                tracing::info!(peer = %self.peer.short(), path = path.map(|path| path.kind.to_string()), "connected");
                self.context.tell(Event::Connected { peer: self.peer, path });
            }
            (None, true) => {
                let reason = self.last_loss.take().unwrap_or(Lost::Local);
                tracing::info!(peer = %self.peer.short(), %reason, "disconnected");
                self.context.tell(Event::Disconnected { peer: self.peer, reason });
            }
            (Some(_), true) | (None, false) => {}
        }
    }

    fn state(&self) -> PeerState {
        if self.connections.count() > 0 {
            PeerState::Connected
        } else if self.dialler.is_dialling() {
            PeerState::Dialing
        } else if self.dialler.waits_until().is_some() {
            PeerState::Backoff
        } else {
            PeerState::Idle
        }
    }

    /// When something is due without anybody's doing.
    fn next_alarm(&self) -> Option<Instant> {
        let forget = self.idle_since.map(|since| since + FORGET);
        [self.connections.next_due(), self.dialler.waits_until(), forget].into_iter().flatten().min()
    }

    fn is_forgettable(&self) -> bool {
        self.idle_since.is_some_and(|since| since.elapsed() >= FORGET)
    }

    fn shut_down(&mut self) {
        self.wishes.fail(&OpenError::ShuttingDown);
        self.connections.close_all(EndCode::SHUTTING_DOWN);
        self.publish();
    }
}

async fn sleep_until_some(alarm: Option<Instant>) {
    match alarm {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
