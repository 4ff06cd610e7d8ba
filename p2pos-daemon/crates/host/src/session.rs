//! One session: what a plugin or tool asks for, and what it is told. Owns the answers to its requests and their grants.
//!
//! The driver below does the frames, the streams and the liveness; the supervisor above does the process. Here stands
//! what a request means and whether it is allowed. The task never waits for the network: an Open is handed over
//! together with its answer slot. Refuses to know: processes, IP addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use p2pos_plugin_protocol::{
    code::{Class, Code, End},
    driver::{Inbox, Session},
    limits::{PROTOCOLS_MAX, REQUESTS_MAX},
    message::{
        Attachment, Body, Contact, ErrorReply, Event, EventKind, Health, Kind, Log, Open, Register, Rid,
        Subscribe, Trust, Unregister,
    },
};
use tokio::sync::{broadcast, watch};

use crate::{
    directory::Entry,
    log::LogSource,
    network::{NetworkEvent, OpenRequest},
    open::{OpenAnswer, Pending, Wanted},
    plugin::{Message, SessionNote},
    shared::{Bearer, Link, Shared},
    supervise,
};

/// How long an open may take if the plugin does not say: the user has given up by then.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time that an open may ask for.
const OPEN_TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// Bytes of control frames that may wait in the session before events are held back: a plugin that does not read misses
/// events, and is told how many, instead of being closed with 106. Far under the session's own limit of 2 MiB.
const EVENT_BACKLOG_BYTES: usize = 64 * 1024;
/// How often held-back events look whether there is room again.
const EVENT_RETRY: Duration = Duration::from_millis(50);

/// Serves a session until it ends.
pub(crate) async fn run(shared: Arc<Shared>, bearer: Bearer, session: Session, mut inbox: Inbox) {
    let mut task = SessionTask {
        events: None,
        opens: BTreeMap::new(),
        shared: shared.clone(),
        bearer: bearer.clone(),
        session: session.clone(),
    };
    task.tell_supervisor(SessionNote::Up(session.clone())).await;
    loop {
        tokio::select! {
            inbound = inbox.recv() => match inbound {
                Some(inbound) => task.handle(inbound.rid, inbound.body).await,
                None => break,
            },
            event = next_event(&mut task.events, &session) => task.forward(event),
            () = shared.ending.cancelled(), if bearer.plugin.is_none() => {
                session.close(End::new(Code::SHUTTING_DOWN), "the daemon ends");
            }
        }
    }
    let end = session.ended().await;
    task.tell_end(end);
    task.leave(end).await;
}

struct SessionTask {
    shared: Arc<Shared>,
    bearer: Bearer,
    session: Session,
    /// Opens under way; the value says "cancelled" to whoever tries.
    opens: BTreeMap<Rid, watch::Sender<bool>>,
    events: Option<Subscription>,
}

struct Subscription {
    kinds: BTreeSet<EventKind>,
    receiver: broadcast::Receiver<NetworkEvent>,
    seq: u64,
    missed: u32,
}

/// The next event that the session has asked for, once there is room for it. Cancel-safe: an event is taken last.
async fn next_event(
    events: &mut Option<Subscription>,
    session: &Session,
) -> Result<NetworkEvent, broadcast::error::RecvError> {
    let Some(subscription) = events else { return std::future::pending().await };
    while session.stats().control_bytes_waiting > EVENT_BACKLOG_BYTES {
        tokio::time::sleep(EVENT_RETRY).await;
    }
    subscription.receiver.recv().await
}

impl SessionTask {
    async fn handle(&mut self, rid: Option<Rid>, body: Body) {
        match body {
            Body::Open(open) => self.open(rid, open),
            Body::Register(register) => {
                let answer = self.register(register);
                self.answer(rid, answer.map(|()| Body::Done));
            }
            Body::Unregister(unregister) => {
                let answer = self.unregister(&unregister);
                self.answer(rid, answer.map(|()| Body::Done));
            }
            Body::Cancel(target) => {
                if let Some(cancel) = self.opens.remove(&target) {
                    cancel.send_replace(true);
                }
                if rid.is_some() {
                    self.answer(rid, Ok(Body::Done));
                }
            }
            Body::Ready => {
                self.tell_supervisor(SessionNote::Ready).await;
                self.answer(rid, Ok(Body::Done));
            }
            Body::Status(status) => {
                let health = match status.health {
                    Health::Ok => supervise::Health::Ok,
                    Health::Degraded => supervise::Health::Degraded,
                    Health::WaitingNetwork => supervise::Health::WaitingNetwork,
                };
                self.tell_supervisor(SessionNote::Status(health, status.text)).await;
                self.answer(rid, Ok(Body::Done));
            }
            Body::Log(log) => {
                self.log(&log);
                self.answer(rid, Ok(Body::Done));
            }
            Body::Subscribe(subscribe) => {
                let answer = self.subscribe(&subscribe);
                let is_new = answer.is_ok() && !subscribe.kinds.is_empty();
                self.answer(rid, answer.map(|()| Body::Done));
                if is_new {
                    self.tell_what_is();
                }
            }
            Body::ContactList => {
                let answer = self.contacts();
                self.answer(rid, answer);
            }
            Body::GoAway(_) => {
                self.serve_no_more();
                self.answer(rid, Ok(Body::Done));
            }
            // The driver matches answers to our requests itself; what else comes here is out of place.
            Body::Opened(_)
            | Body::Incoming(_)
            | Body::Accept(_)
            | Body::Reject(_)
            | Body::Error(_)
            | Body::Done
            | Body::Event(_)
            | Body::Contacts(_)
            | Body::Shutdown(_) => {
                let error = ErrorReply::new(
                    Code::BAD_REQUEST,
                    "this message is not for the daemon, or answers nothing [S-MSG-5]",
                );
                self.answer(rid, Err(error));
            }
        }
    }

    /// Answers a request; a note (no rid) is only told what was wrong with it.
    fn answer(&self, rid: Option<Rid>, answer: Result<Body, ErrorReply>) {
        match (rid, answer) {
            (Some(rid), Ok(body)) => self.session.reply(rid, body),
            (Some(rid), Err(error)) => self.session.reply(rid, Body::Error(error)),
            (None, Ok(_)) => {}
            (None, Err(error)) => self.session.notify(Body::Error(error)),
        }
    }

    fn register(&self, register: Register) -> Result<(), ErrorReply> {
        let permissions = &self.bearer.permissions;
        for registration in &register.protocols {
            if !permissions.may_accept(&registration.name) {
                let text = format!(
                    "{} is not granted: the manifest must ask for it in net.accept",
                    registration.name
                );
                return Err(ErrorReply::new(Code::PERMISSION_DENIED, text));
            }
            if registration.trust == Trust::Anyone && !permissions.may_meet_strangers() {
                let text = format!(
                    "{} for anyone is not granted: the manifest must ask for peers.any",
                    registration.name
                );
                return Err(ErrorReply::new(Code::PERMISSION_DENIED, text));
            }
            if registration.kind == Kind::Datagram && registration.attachment == Attachment::Socket {
                return Err(ErrorReply::new(
                    Code::BAD_REQUEST,
                    "datagrams cannot have a socket of their own [S-ATTACH-1]",
                ));
            }
        }
        let mut directory = self.shared.directory();
        if directory.count(&self.bearer.owner) + register.protocols.len() > PROTOCOLS_MAX as usize {
            return Err(ErrorReply::new(
                Code::LIMIT,
                format!("a plugin may register {PROTOCOLS_MAX} protocols"),
            ));
        }
        let entries = register.protocols.into_iter().map(|registration| Entry {
            protocol: registration.name,
            kind: registration.kind,
            trust: registration.trust,
            concurrent_max: registration.concurrent_max,
            link: Link::Session { session: self.session.clone(), attachment: registration.attachment },
        });
        directory.register(&self.bearer.owner, entries.collect()).map_err(|clash| {
            let text = format!("{} is registered by {}", clash.protocol, clash.owner);
            ErrorReply::new(Code::ALREADY_REGISTERED, text)
        })
    }

    fn log(&self, log: &Log) {
        if let Some(plugin) = &self.bearer.plugin {
            plugin.log.push(LogSource::from(log.level), &log.text);
        }
    }

    /// It takes no new streams; those that run may end. Its stream commands are not its session's.
    fn serve_no_more(&self) {
        let is_session = |link: &Link| matches!(link, Link::Session { .. });
        self.shared.directory().withdraw_if(&self.bearer.owner, is_session);
    }

    fn unregister(&self, unregister: &Unregister) -> Result<(), ErrorReply> {
        let mut directory = self.shared.directory();
        for name in &unregister.names {
            if !directory.unregister(&self.bearer.owner, name) {
                return Err(ErrorReply::new(
                    Code::NOT_REGISTERED,
                    format!("{name} is not registered by this plugin"),
                ));
            }
        }
        Ok(())
    }

    fn open(&mut self, rid: Option<Rid>, open: Open) {
        // Without a rid there is no one to tell how it went; the protocol has no such Open.
        let Some(rid) = rid else {
            let error = ErrorReply::new(Code::BAD_REQUEST, "Open needs a rid [S-REQ-2]").about(open.stream);
            return self.session.notify(Body::Error(error));
        };
        let pending = match self.may_open(&open).and_then(|()| self.adopt(&open)) {
            Ok(pending) => pending,
            Err(error) => return self.session.reply(rid, Body::Error(error.about(open.stream))),
        };
        let timeout = open.timeout.unwrap_or(OPEN_TIMEOUT).min(OPEN_TIMEOUT_MAX);
        let (cancel, cancelled) = watch::channel(false);
        if self.opens.len() >= REQUESTS_MAX as usize / 16 {
            self.opens.retain(|_, cancel| !cancel.is_closed());
        }
        self.opens.insert(rid, cancel);
        let wanted = Wanted { protocols: open.protocols.clone(), kind: open.kind };
        let request = OpenRequest {
            plugin: self.bearer.owner.to_string(),
            peer: open.peer,
            protocols: open.protocols,
            kind: open.kind,
            timeout,
            relay: open.relay,
        };
        let answer = OpenAnswer::new(
            self.shared.clone(),
            self.session.clone(),
            (rid, open.stream, wanted),
            pending,
            (cancelled, Instant::now() + timeout),
        );
        self.shared.network.open(request, answer);
    }

    fn may_open(&self, open: &Open) -> Result<(), ErrorReply> {
        let permissions = &self.bearer.permissions;
        if let Some(denied) = open.protocols.iter().find(|protocol| !permissions.may_open(protocol)) {
            let text = format!("{denied} is not granted: the manifest must ask for it in net.open");
            return Err(ErrorReply::new(Code::PERMISSION_DENIED, text));
        }
        if !permissions.may_meet_strangers() && self.shared.network.contact(&open.peer).is_none() {
            let text = format!("{} is no contact, and the plugin is not granted peers.any", open.peer);
            return Err(ErrorReply::new(Code::PERMISSION_DENIED, text));
        }
        Ok(())
    }

    fn adopt(&self, open: &Open) -> Result<Pending, ErrorReply> {
        let session = &self.session;
        let adopted = match (open.kind, open.attachment) {
            (Kind::Stream, Attachment::Mux) => session.adopt_stream(open.stream).map(Pending::mux),
            (Kind::Stream, Attachment::Socket) => session.adopt_detached(open.stream).map(Pending::Detached),
            (Kind::Datagram, Attachment::Mux) => session.adopt_flow(open.stream).map(Pending::Flow),
            (Kind::Datagram, Attachment::Socket) => {
                return Err(ErrorReply::new(
                    Code::BAD_REQUEST,
                    "datagrams cannot have a socket of their own [S-ATTACH-1]",
                ));
            }
        };
        adopted.ok_or_else(|| ErrorReply::new(Code::CANCELLED, "the stream was reset before it was opened"))
    }

    fn may_see_peers(&self) -> Result<(), ErrorReply> {
        if self.bearer.permissions.may_read_contacts() {
            return Ok(());
        }
        let text = "contacts.read is not granted: the manifest must ask for it";
        Err(ErrorReply::new(Code::PERMISSION_DENIED, text))
    }

    fn contacts(&self) -> Result<Body, ErrorReply> {
        self.may_see_peers()?;
        let contacts = self.shared.network.contacts().into_iter().map(|contact| Contact {
            peer: contact.peer,
            petname: contact.petname,
            is_connected: contact.is_connected,
        });
        Ok(Body::Contacts(contacts.collect()))
    }

    fn subscribe(&mut self, subscribe: &Subscribe) -> Result<(), ErrorReply> {
        self.may_see_peers()?;
        let seq = self.events.as_ref().map_or(0, |events| events.seq);
        self.events = (!subscribe.kinds.is_empty()).then(|| Subscription {
            kinds: subscribe.kinds.iter().copied().collect(),
            receiver: self.shared.network_events.subscribe(),
            seq,
            missed: 0,
        });
        Ok(())
    }

    /// First what is, then what changes.
    fn tell_what_is(&mut self) {
        let Some(events) = &self.events else { return };
        let kinds = events.kinds.clone();
        let mut now = Vec::new();
        if kinds.contains(&EventKind::Contact) {
            now.extend(self.shared.network.contacts().into_iter().map(|contact| NetworkEvent {
                kind: EventKind::Contact,
                peer: contact.peer,
                petname: Some(contact.petname),
                what: "added",
            }));
        }
        for connected in self.shared.network.connected() {
            let event = |kind, what| NetworkEvent {
                kind,
                peer: connected.peer,
                petname: connected.petname.clone(),
                what,
            };
            if kinds.contains(&EventKind::Peer) {
                now.push(event(EventKind::Peer, "connected"));
            }
            if kinds.contains(&EventKind::Path) {
                now.push(event(EventKind::Path, crate::network::path_word(connected.path)));
            }
        }
        for event in now {
            self.forward(Ok(event));
        }
    }

    fn forward(&mut self, event: Result<NetworkEvent, broadcast::error::RecvError>) {
        let may_meet_strangers = self.bearer.permissions.may_meet_strangers();
        let Some(events) = &mut self.events else { return };
        match event {
            Ok(event) if !events.kinds.contains(&event.kind) => {}
            // Whoever may not deal with strangers does not learn who they are.
            Ok(event) if event.petname.is_none() && !may_meet_strangers => {}
            Ok(event) => {
                events.seq += 1;
                let body = Body::Event(Event {
                    seq: events.seq,
                    kind: event.kind,
                    missed: std::mem::take(&mut events.missed),
                    peer: event.peer,
                    petname: event.petname,
                    what: event.what.to_owned(),
                });
                self.session.notify(body);
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                events.missed = events.missed.saturating_add(u32::try_from(missed).unwrap_or(u32::MAX));
            }
            Err(broadcast::error::RecvError::Closed) => self.events = None,
        }
    }

    async fn tell_supervisor(&self, note: SessionNote) {
        if let Some(plugin) = &self.bearer.plugin {
            let message = Message::Session { instance: self.bearer.instance, note };
            if plugin.supervisor.send(message).await.is_err() {
                tracing::debug!(owner = &*self.bearer.owner, "the supervisor is gone before its session");
            }
        }
    }

    /// Whose fault it was decides who hears of it: the plugin's author reads its log, and the daemon's log has the rest.
    fn tell_end(&self, end: End) {
        let (owner, instance) = (&*self.bearer.owner, self.bearer.instance);
        let is_quiet = matches!(end.code, Code::SHUTTING_DOWN | Code::REVOKED | Code::PLUGIN_GONE);
        if is_quiet || end.code.class() != Class::Session {
            tracing::debug!(owner, instance, %end, "session over");
            return;
        }
        let why = self.session.last_word();
        tracing::info!(owner, instance, %end, why, "a plugin's session was ended for its fault");
        if let Some(plugin) = &self.bearer.plugin {
            plugin.log.life(&format!("its session was ended: {end}: {why}; {}", end.code.hint()));
        }
    }

    /// The session is over: tools take their registrations along, a plugin's are its supervisor's to decide.
    async fn leave(&self, end: End) {
        match &self.bearer.plugin {
            Some(_) => self.tell_supervisor(SessionNote::Down(end)).await,
            None => self.shared.directory().withdraw(&self.bearer.owner),
        }
    }
}
