//! A peer's wish on its way to the plugin that serves it. Owns the question to the plugin and the translation of its
//! answer; the peer hears within 10 s (plugin-host.md C4, C5).
//!
//! Refuses to know: QUIC, who the peer is beyond what the bridge says.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use p2pos_identity::ProtocolName;
use p2pos_plugin_protocol::{
    code::{Code, End},
    driver::{Answer, Detached, Flow, RequestError, Session},
    limits::ANSWER_TIMEOUT,
    message::{Attachment, Body, Incoming, Kind, StreamId, Ticket},
};
use tokio::sync::oneshot;

use crate::{
    directory::{Found, Slot},
    network::{Accepted, Offer, Refusal},
    open::await_socket,
    shared::{Link, Shared, random},
    stream::{PluginEnd, PluginFlow, PluginStream, PluginWriter},
    tickets::AttachedSocket,
};

/// What a peer is told to wait when a plugin did not answer.
const RETRY_AFTER: Duration = Duration::from_secs(2);

fn refusal(code: Code, reason: impl Into<String>) -> Refusal {
    let retry_after = (code == Code::NOT_READY).then_some(RETRY_AFTER);
    Refusal { code, retry_after, offered: Vec::new(), reason: reason.into() }
}

/// A plugin was asked; its answer is on the way.
#[derive(Debug)]
pub struct Offered {
    /// The protocol that it is asked for.
    pub protocol: ProtocolName,
    /// The answer to come.
    pub answer: OfferAnswer,
    /// The plugin's end of the stream, good for what the protocol lets go before the answer.
    pub end: OfferedEnd,
}

/// A plugin's answer to an offer, to come.
#[derive(Debug)]
pub struct OfferAnswer(Option<Asked>);

#[derive(Debug)]
struct Asked {
    session: Session,
    stream: StreamId,
    answer: Answer,
}

impl OfferAnswer {
    /// Waits for the answer, 10 s at most; a stream command has given it already. Dropping the future leaves the plugin's
    /// answer unheard; drop the end, too.
    ///
    /// # Errors
    /// What to tell the peer.
    pub async fn wait(self) -> Result<(), Refusal> {
        match self.0 {
            Some(Asked { session, stream, answer }) => {
                wait(answer, |end| session.reset_stream(stream, end)).await
            }
            None => Ok(()),
        }
    }
}

/// The plugin's end of a stream before its answer. Dropped, it ends the stream.
#[derive(Debug)]
pub struct OfferedEnd {
    place: Place,
    slot: Slot,
}

#[derive(Debug)]
enum Place {
    /// Data frames, or a command's pipes.
    Stream(PluginStream),
    Flow(Flow),
    Detached(Arc<Shared>, Detached, oneshot::Receiver<AttachedSocket>),
}

impl OfferedEnd {
    /// Where the peer's first bytes can go while the plugin makes up its mind: the protocol lets Data follow Incoming at
    /// once, within the plugin's first window. `None` for flows and detached streams.
    pub fn early_writer(&mut self) -> Option<&mut PluginWriter> {
        match &mut self.place {
            Place::Stream(stream) => Some(stream.writer()),
            Place::Flow(_) | Place::Detached(..) => None,
        }
    }

    /// The end as it is once the plugin has said yes. For a detached stream this waits until the plugin has connected,
    /// 10 s at most.
    ///
    /// # Errors
    /// What to tell the peer if it did not.
    pub async fn accepted(self) -> Result<PluginEnd, Refusal> {
        match self.place {
            Place::Stream(stream) => Ok(PluginEnd::Stream(stream.hold(self.slot))),
            Place::Flow(flow) => Ok(PluginEnd::Flow(PluginFlow::new(flow).hold(self.slot))),
            Place::Detached(shared, detached, given) => match await_socket(&shared, detached, given).await {
                Ok(raw) => Ok(PluginEnd::Stream(PluginStream::raw(raw).hold(self.slot))),
                Err(end) => Err(refusal(Code::NOT_READY, format!("its socket did not come: {end}"))),
            },
        }
    }
}

/// Asks whoever serves one of the offered protocols.
pub(crate) async fn ask(shared: &Arc<Shared>, offer: Offer) -> Result<Offered, Refusal> {
    let found = shared.directory().find(&offer.protocols, offer.kind, offer.is_contact, Instant::now());
    match found {
        Found::Here { protocol, link: Link::Session { session, attachment }, slot } => {
            ask_session(shared, &session, attachment, (protocol, slot), offer)
        }
        Found::Here { protocol, link: Link::Command(command), slot } => {
            let place = Place::Stream(command.open(&offer).await?);
            Ok(Offered { protocol, answer: OfferAnswer(None), end: OfferedEnd { place, slot } })
        }
        Found::Full { protocol } => {
            Err(refusal(Code::STREAM_LIMIT, format!("{protocol} has as many streams as it allows")))
        }
        Found::Away { protocol, retry_after } => Err(Refusal {
            retry_after: Some(retry_after),
            ..refusal(Code::NOT_READY, format!("the plugin that serves {protocol} is being restarted"))
        }),
        Found::NotServed { offered } => {
            Err(Refusal { offered, ..refusal(Code::PROTOCOL_NOT_SUPPORTED, "no plugin serves it") })
        }
    }
}

/// Asks and waits for the answer, with nothing to say before it.
pub(crate) async fn offer(shared: &Arc<Shared>, offer: Offer) -> Result<Accepted, Refusal> {
    let Offered { protocol, answer, end } = ask(shared, offer).await?;
    answer.wait().await?;
    Ok(Accepted { protocol, end: end.accepted().await? })
}

fn ask_session(
    shared: &Arc<Shared>,
    session: &Session,
    attachment: Attachment,
    (protocol, slot): (ProtocolName, Slot),
    offer: Offer,
) -> Result<Offered, Refusal> {
    let incoming = |stream: StreamId, ticket: Option<Ticket>| {
        Body::Incoming(Incoming {
            stream,
            peer: offer.peer,
            protocol: protocol.clone(),
            kind: offer.kind,
            path: offer.path,
            petname: offer.petname.clone(),
            is_contact: offer.is_contact,
            ticket,
            datagram_max: offer.datagram_max,
        })
    };
    let (stream, answer, place) = match (offer.kind, attachment) {
        (Kind::Datagram, _) => {
            let opening = session.open_flow(|id| incoming(id, None)).map_err(not_asked)?;
            (opening.id, opening.answer, Place::Flow(opening.flow))
        }
        (Kind::Stream, Attachment::Mux) => {
            let opening = session.open_stream(|id| incoming(id, None)).map_err(not_asked)?;
            let stream = PluginStream::mux(opening.recv, opening.send);
            (opening.id, opening.answer, Place::Stream(stream))
        }
        (Kind::Stream, Attachment::Socket) => {
            let ticket = Ticket::from_random(random());
            let given = shared.tickets().expect(&ticket, Instant::now());
            let given = given.ok_or_else(|| refusal(Code::STREAM_LIMIT, "too many tickets wait"))?;
            let opening = session.open_detached(|id| incoming(id, Some(ticket))).map_err(not_asked)?;
            (opening.id, opening.answer, Place::Detached(shared.clone(), opening.detached, given))
        }
    };
    let answer = OfferAnswer(Some(Asked { session: session.clone(), stream, answer }));
    Ok(Offered { protocol, answer, end: OfferedEnd { place, slot } })
}

fn not_asked(error: RequestError) -> Refusal {
    match error {
        RequestError::Refused(error) => refusal(Code::STREAM_LIMIT, error.message),
        RequestError::Ended(end) => refusal(Code::NOT_READY, format!("the plugin has just ended: {end}")),
    }
}

/// Waits for Accept. A plugin that is silent has its stream ended by `reset`, and is told why.
async fn wait(answer: Answer, reset: impl FnOnce(End)) -> Result<(), Refusal> {
    match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
        Err(_) => {
            reset(End::new(Code::TIMEOUT));
            Err(refusal(Code::NOT_READY, "the plugin did not answer in time"))
        }
        Ok(Err(RequestError::Ended(end))) => {
            Err(refusal(Code::NOT_READY, format!("the plugin ended before it answered: {end}")))
        }
        Ok(Err(RequestError::Refused(error))) => Err(refusal(refused_code(error.code), error.message)),
        Ok(Ok(Body::Accept(_))) => Ok(()),
        Ok(Ok(Body::Reject(reject))) => Err(refusal(refused_code(reject.code), reject.reason)),
        Ok(Ok(_)) => Err(refusal(Code::REFUSED, "the plugin gave an answer that is none")),
    }
}

/// 305 or 306; anything else is told as 305.
fn refused_code(code: Code) -> Code {
    if code == Code::NOT_READY { code } else { Code::REFUSED }
}
