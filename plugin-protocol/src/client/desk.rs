//! Where what the daemon says is handed on to whoever waits for it: listeners, events, the wish to end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use p2pos_identity::ProtocolName;
use tokio::sync::{mpsc, watch};

use super::{
    Client, Error,
    stream::{Datagrams, RawStream, Stream, StreamInfo},
};
use crate::{
    code::Code,
    driver::{Inbound, Inbox},
    limits,
    message::{self, Accept, Body, ErrorReply, Event, EventKind, Kind, Reject, Rid, Shutdown, Unregister},
};

/// Incoming streams that may wait for [`Listener::accept`]; more are told 306 NOT_READY. At half, a burst of peers
/// after a restart would be turned away; at double, a busy plugin lets them wait past their ten seconds.
pub(super) const INCOMING_MAX: usize = 64;

/// Events that may wait for [`Events::next`]; more are dropped, and the next one tells how many.
pub(super) const EVENTS_MAX: usize = 1024;

/// Where what arrives is handed on to whoever waits for it.
#[derive(Debug, Default)]
pub(super) struct Desk {
    state: Mutex<DeskState>,
}

/// Brings a peer that asks to the listener of its protocol.
pub(super) type PeerSender = mpsc::Sender<(Rid, message::Incoming)>;

#[derive(Debug, Default)]
pub(super) struct DeskState {
    pub(super) listeners: BTreeMap<ProtocolName, PeerSender>,
    pub(super) events: Option<mpsc::Sender<Event>>,
    events_missed: u32,
}

impl Desk {
    pub(super) fn lock(&self) -> MutexGuard<'_, DeskState> {
        self.state.lock().expect("nobody panics while holding the desk")
    }
}

/// A protocol that is served. Dropping it unregisters.
#[derive(Debug)]
pub struct Listener {
    pub(super) client: Client,
    pub(super) name: ProtocolName,
    pub(super) sender: mpsc::WeakSender<(Rid, message::Incoming)>,
    pub(super) incoming: mpsc::Receiver<(Rid, message::Incoming)>,
}

impl Listener {
    /// Waits for the next peer that opens the protocol; `None` once the session is over. Cancel-safe.
    pub async fn accept(&mut self) -> Option<Incoming> {
        let (rid, incoming) = self.incoming.recv().await?;
        Some(Incoming { client: self.client.clone(), rid: Some(rid), incoming })
    }

    /// What is served.
    #[must_use]
    pub const fn protocol(&self) -> &ProtocolName {
        &self.name
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut desk = self.client.inner.desk.lock();
        // A later `register` of the same name may have taken the place; then the protocol is still served.
        let is_ours =
            |sender: &PeerSender| self.sender.upgrade().is_some_and(|ours| ours.same_channel(sender));
        if desk.listeners.get(&self.name).is_some_and(is_ours) {
            desk.listeners.remove(&self.name);
            drop(desk);
            let names = vec![self.name.clone()];
            self.client.inner.session.notify(Body::Unregister(Unregister { names }));
        }
        // Who waits here already is owed an answer: dropping it says no.
        self.incoming.close();
        while let Ok((rid, incoming)) = self.incoming.try_recv() {
            drop(Incoming { client: self.client.clone(), rid: Some(rid), incoming });
        }
    }
}

/// A peer that asks. Dropping it says 305 REFUSED.
#[derive(Debug)]
pub struct Incoming {
    client: Client,
    rid: Option<Rid>,
    incoming: message::Incoming,
}

impl Incoming {
    /// Who asks, for what, by which path.
    #[must_use]
    pub fn info(&self) -> StreamInfo {
        StreamInfo {
            peer: self.incoming.peer,
            petname: self.incoming.petname.clone(),
            is_contact: self.incoming.is_contact,
            protocol: self.incoming.protocol.clone(),
            path: self.incoming.path,
        }
    }

    /// Takes it as a muxed stream. If the peer has given up meanwhile, using the stream tells how, as if that had come a
    /// moment later.
    ///
    /// # Errors
    /// [`Error::NotHere`] if it is something else.
    pub fn accept_stream(mut self) -> Result<Stream, Error> {
        if self.incoming.kind == Kind::Datagram || self.incoming.ticket.is_some() {
            return Err(Error::NotHere);
        }
        let session = &self.client.inner.session;
        let id = self.incoming.stream;
        let (send, recv) = session.adopt_stream(id).ok_or(Error::NotHere)?;
        self.say_accept();
        Ok(Stream::new(&self.client, send, recv, self.info()))
    }

    /// Takes it as a datagram flow, as [`Incoming::accept_stream`].
    ///
    /// # Errors
    /// [`Error::NotHere`] if it is something else.
    pub fn accept_datagrams(mut self) -> Result<Datagrams, Error> {
        let flow = self.client.inner.session.adopt_flow(self.incoming.stream).ok_or(Error::NotHere)?;
        self.say_accept();
        Ok(Datagrams::new(&self.client, flow, self.info(), self.incoming.datagram_max))
    }

    /// Takes it as a stream with a socket of its own, if the protocol was registered so.
    ///
    /// # Errors
    /// As [`Incoming::accept_datagrams`], and what may happen to the second socket.
    pub async fn accept_raw(mut self) -> Result<RawStream, Error> {
        let ticket = self.incoming.ticket.clone().ok_or(Error::NotHere)?;
        let detached =
            self.client.inner.session.adopt_detached(self.incoming.stream).ok_or(Error::NotHere)?;
        self.say_accept();
        let socket = self.client.attach(ticket).await?;
        Ok(RawStream::new(&self.client, socket, detached, self.info()))
    }

    /// Refuses: 306 NOT_READY if the peer may try again, 305 REFUSED otherwise.
    pub fn reject(mut self, may_try_again: bool, reason: impl Into<String>) {
        let code = if may_try_again { Code::NOT_READY } else { Code::REFUSED };
        self.say_reject(code, reason.into());
    }

    fn say_accept(&mut self) {
        if let Some(rid) = self.rid.take() {
            self.client.inner.session.reply(rid, Body::Accept(Accept { stream: self.incoming.stream }));
        }
    }

    fn say_reject(&mut self, code: Code, reason: String) {
        if let Some(rid) = self.rid.take() {
            let reject = Reject { stream: self.incoming.stream, code, reason };
            self.client.inner.session.reply(rid, Body::Reject(reject));
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.say_reject(Code::REFUSED, "the plugin does not want it".to_owned());
    }
}

/// What [`Client::subscribe`] hears.
#[derive(Debug)]
pub struct Events {
    pub(super) _client: Client,
    pub(super) events: mpsc::Receiver<Event>,
}

impl Events {
    /// Waits for the next event; `None` once the session is over, or somebody has subscribed anew. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

/// Hands on what arrives, until the session is over.
pub(super) async fn hand_on(mut inbox: Inbox, desk: Arc<Desk>, shutdown: watch::Sender<Option<Shutdown>>) {
    while let Some(Inbound { rid, body }) = inbox.recv().await {
        if let (Some(rid), Body::Incoming(incoming)) = (rid, &body) {
            let sender = desk.lock().listeners.get(&incoming.protocol).cloned();
            if let Some(code) = offer(sender, rid, incoming) {
                let reject =
                    Reject { stream: incoming.stream, code, reason: "nobody takes it now".to_owned() };
                inbox.session().reply(rid, Body::Reject(reject));
            }
        } else if let Body::Event(event) = body {
            desk.lock().hand_on_event(event);
        } else if let Body::Shutdown(told) = body {
            shutdown.send_replace(Some(told));
        } else if let Body::Error(error) = &body {
            tracing::warn!(code = %error.code, message = error.message, "the daemon complains");
        } else if let Body::GoAway(away) = &body {
            tracing::info!(code = %away.code, reason = away.reason, "the daemon opens no more streams");
        } else if let Some(rid) = rid {
            let what = "this plugin does not know the request";
            inbox.session().reply(rid, Body::Error(ErrorReply::new(Code::UNKNOWN_METHOD, what)));
        }
    }
    // Whoever still waits for peers or events learns that none will come.
    let mut desk = desk.lock();
    desk.listeners.clear();
    desk.events = None;
}

/// Gives a peer to its listener; a code if that does not work.
fn offer(listener: Option<PeerSender>, rid: Rid, incoming: &message::Incoming) -> Option<Code> {
    match listener.map(|listener| listener.try_send((rid, incoming.clone()))) {
        Some(Ok(())) => None,
        Some(Err(mpsc::error::TrySendError::Full(_))) => Some(Code::NOT_READY),
        Some(Err(mpsc::error::TrySendError::Closed(_))) | None => Some(Code::REFUSED),
    }
}

impl DeskState {
    fn hand_on_event(&mut self, mut event: Event) {
        let Some(events) = &self.events else {
            return;
        };
        if event.kind == EventKind::Unknown {
            return;
        }
        event.missed = event.missed.saturating_add(self.events_missed);
        self.events_missed = match events.try_send(event) {
            Ok(()) => 0,
            Err(_) => self.events_missed.saturating_add(1),
        };
    }
}

const _: () =
    assert!(INCOMING_MAX < limits::STREAMS_MAX as usize, "a listener's backlog fits the session's streams");
