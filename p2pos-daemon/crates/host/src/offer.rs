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
    driver::{Answer, RequestError, Session},
    limits::ANSWER_TIMEOUT,
    message::{Attachment, Body, Incoming, Kind, StreamId, Ticket},
};

use crate::{
    directory::{Found, Slot},
    network::{Accepted, Offer, Refusal},
    open::await_socket,
    shared::{Link, Shared, random},
    stream::{PluginEnd, PluginFlow, PluginStream},
};

/// What a peer is told to wait when a plugin did not answer.
const RETRY_AFTER: Duration = Duration::from_secs(2);

fn refusal(code: Code, reason: impl Into<String>) -> Refusal {
    let retry_after = (code == Code::NOT_READY).then_some(RETRY_AFTER);
    Refusal { code, retry_after, offered: Vec::new(), reason: reason.into() }
}

/// Asks whoever serves one of the offered protocols.
pub(crate) async fn offer(shared: &Arc<Shared>, offer: Offer) -> Result<Accepted, Refusal> {
    let found = shared.directory().find(&offer.protocols, offer.kind, offer.is_contact, Instant::now());
    match found {
        Found::Here { protocol, link: Link::Session { session, attachment }, slot } => {
            ask(shared, &session, attachment, (protocol, slot), offer).await
        }
        Found::Here { protocol, link: Link::Command(command), slot } => {
            let stream = command.open(&offer).await?;
            Ok(Accepted { protocol, end: PluginEnd::Stream(stream.hold(slot)) })
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

async fn ask(
    shared: &Arc<Shared>,
    session: &Session,
    attachment: Attachment,
    (protocol, slot): (ProtocolName, Slot),
    offer: Offer,
) -> Result<Accepted, Refusal> {
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
    let end = match (offer.kind, attachment) {
        (Kind::Datagram, _) => {
            let opening = session.open_flow(|id| incoming(id, None)).map_err(not_asked)?;
            wait(opening.answer, |end| opening.flow.reset(end)).await?;
            PluginEnd::Flow(PluginFlow::new(opening.flow).hold(slot))
        }
        (Kind::Stream, Attachment::Mux) => {
            let mut opening = session.open_stream(|id| incoming(id, None)).map_err(not_asked)?;
            wait(opening.answer, |end| opening.send.reset(end)).await?;
            PluginEnd::Stream(PluginStream::mux(opening.recv, opening.send).hold(slot))
        }
        (Kind::Stream, Attachment::Socket) => {
            let ticket = Ticket::from_random(random());
            let given = shared.tickets().expect(&ticket, Instant::now());
            let given = given.ok_or_else(|| refusal(Code::STREAM_LIMIT, "too many tickets wait"))?;
            let opening = session.open_detached(|id| incoming(id, Some(ticket))).map_err(not_asked)?;
            wait(opening.answer, |end| opening.detached.reset(end)).await?;
            let raw = await_socket(shared, opening.detached, given).await;
            let raw =
                raw.map_err(|end| refusal(Code::NOT_READY, format!("its socket did not come: {end}")))?;
            PluginEnd::Stream(PluginStream::raw(raw).hold(slot))
        }
    };
    Ok(Accepted { protocol, end })
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
