//! A plugin's Open on its way to the network and back. Owns the answer: it is given exactly once, whatever happens, and
//! the plugin's end of the stream is handed over with it.
//!
//! Refuses to know: grants (checked before), how peers are reached.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use p2pos_identity::ProtocolName;
use p2pos_plugin_protocol::{
    code::{Code, End},
    driver::{Detached, Flow, RecvHalf, SendHalf, Session},
    limits::TICKET_TTL,
    message::{Body, Cause, ErrorReply, Kind, Opened, Rid, StreamClosed, StreamId, Ticket},
};
use tokio::sync::{oneshot, watch};

use crate::{
    network::{OpenFailure, OpenedInfo},
    shared::{Shared, random},
    stream::{Closed, Ended, Fate, PluginEnd, PluginFlow, PluginReader, PluginStream, RawEnd},
    tickets::AttachedSocket,
};

/// How much later than asked the network may answer. It keeps the time itself and can say what it tried (302); we only see
/// to it that the plugin gets an answer at all, and must not speak first.
const NETWORK_LATE_MAX: Duration = Duration::from_secs(2);

/// The plugin does not want the stream any more, or is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the plugin gave the stream up: {0}")]
pub struct PluginGone(pub End);

/// The plugin's end before the answer.
#[derive(Debug)]
pub(crate) enum Pending {
    Mux(PluginReader, SendHalf),
    Flow(Flow),
    Detached(Detached),
}

impl Pending {
    pub(crate) fn mux((send, recv): (SendHalf, RecvHalf)) -> Self {
        Self::Mux(PluginReader::mux(recv), send)
    }
}

/// The slot for the answer to a plugin's Open. Dropped without an answer it says so to the plugin.
#[derive(Debug)]
pub struct OpenAnswer {
    inner: Option<Inner>,
}

/// What the plugin asked for, for the words of a refusal.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) protocols: Vec<ProtocolName>,
    pub(crate) kind: Kind,
}

impl Wanted {
    /// A peer that serves a name that was asked for, and refuses it all the same, serves it in the other kind: the name
    /// alone would send the author looking for a slip that is not there.
    fn explain(&self, failure: &mut OpenFailure) {
        let is_offered =
            |name: &&ProtocolName| failure.details.iter().any(|offered| *offered == name.as_str());
        if failure.code == Code::PROTOCOL_NOT_SUPPORTED
            && let Some(name) = self.protocols.iter().find(is_offered)
        {
            let (theirs, ours) = match self.kind {
                Kind::Stream => ("datagrams", "a stream"),
                Kind::Datagram => ("streams", "datagrams"),
            };
            failure.message = format!("the peer serves {name} for {theirs}, and was asked for {ours}");
        }
    }
}

/// Why an open is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    /// The plugin does not want it any more, or its time is up.
    Cancelled,
    /// The plugin's session is over.
    PluginGone,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    session: Session,
    rid: Rid,
    stream: StreamId,
    wanted: Wanted,
    pending: Pending,
    cancelled: watch::Receiver<bool>,
    deadline: Instant,
}

impl OpenAnswer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        session: Session,
        (rid, stream, wanted): (Rid, StreamId, Wanted),
        pending: Pending,
        (cancelled, deadline): (watch::Receiver<bool>, Instant),
    ) -> Self {
        Self { inner: Some(Inner { shared, session, rid, stream, wanted, pending, cancelled, deadline }) }
    }

    /// A future of its own that resolves when trying on is of no use, and tells why. Drop the answer then.
    pub fn given_up(&self) -> impl Future<Output = GivenUp> + Send + use<> {
        let watched =
            self.inner.as_ref().map(|inner| (inner.cancelled.clone(), inner.session.clone(), inner.deadline));
        async move {
            let Some((mut cancelled, session, deadline)) = watched else { return GivenUp::Cancelled };
            tokio::select! {
                biased;
                // An error means that the session's task is over.
                word = cancelled.wait_for(|is_cancelled| *is_cancelled) => match word {
                    Ok(_) => GivenUp::Cancelled,
                    Err(_) => GivenUp::PluginGone,
                },
                _ = session.ended() => GivenUp::PluginGone,
                () = tokio::time::sleep_until(tokio::time::Instant::from_std(deadline) + NETWORK_LATE_MAX) => {
                    GivenUp::Cancelled
                }
            }
        }
    }

    /// What the plugin has written already: it need not wait for the answer, and neither need the bridge. `None` for
    /// flows and detached streams.
    pub fn early_reader(&mut self) -> Option<&mut PluginReader> {
        match self.inner.as_mut().map(|inner| &mut inner.pending) {
            Some(Pending::Mux(reader, _)) => Some(reader),
            Some(Pending::Flow(_) | Pending::Detached(_)) | None => None,
        }
    }

    /// Tells the plugin that its stream is open, and hands over its end. For a detached stream this waits until the
    /// plugin has connected, 10 s at most.
    ///
    /// # Errors
    /// When the plugin is gone or did not connect.
    pub async fn opened(mut self, info: OpenedInfo) -> Result<PluginEnd, PluginGone> {
        let inner = self.inner.take().ok_or(PluginGone(End::new(Code::INTERNAL)))?;
        let Inner { shared, session, rid, stream, pending, .. } = inner;
        let opened = |ticket| {
            Body::Opened(Opened {
                stream,
                protocol: info.protocol.clone(),
                path: info.path,
                ticket,
                datagram_max: info.datagram_max,
            })
        };
        if let Some(end) = session.end() {
            return Err(PluginGone(end));
        }
        match pending {
            Pending::Mux(reader, send) => {
                session.reply(rid, opened(None));
                Ok(PluginEnd::Stream(PluginStream::from_parts(reader, send)))
            }
            Pending::Flow(flow) => {
                session.reply(rid, opened(None));
                Ok(PluginEnd::Flow(PluginFlow::new(flow)))
            }
            Pending::Detached(detached) => {
                let ticket = Ticket::from_random(random());
                let Some(given) = shared.tickets().expect(&ticket, Instant::now()) else {
                    session.reply(
                        rid,
                        Body::Error(ErrorReply::new(Code::LIMIT, "too many tickets wait").about(stream)),
                    );
                    return Err(PluginGone(End::new(Code::STREAM_LIMIT)));
                };
                session.reply(rid, opened(Some(ticket)));
                let end = await_socket(&shared, detached, given).await.map_err(PluginGone)?;
                Ok(PluginEnd::Stream(PluginStream::raw(end)))
            }
        }
    }

    /// Tells the plugin why its stream does not open.
    pub fn failed(mut self, failure: OpenFailure) {
        if let Some(inner) = self.inner.take() {
            inner.fail(failure);
        }
    }
}

impl Inner {
    fn fail(self, mut failure: OpenFailure) {
        self.wanted.explain(&mut failure);
        let error = ErrorReply {
            message: failure.message,
            retry_after: failure.retry_after,
            details: failure.details,
            ..ErrorReply::new(failure.code, "")
        };
        self.session.reply(self.rid, Body::Error(error.about(self.stream)));
    }
}

impl Drop for OpenAnswer {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        let (code, message) = if *inner.cancelled.borrow() || inner.cancelled.has_changed().is_err() {
            (Code::CANCELLED, "the plugin cancelled")
        } else if inner.deadline <= Instant::now() {
            (Code::TIMEOUT, "no way to the peer was found in time")
        } else {
            (Code::INTERNAL, "the daemon lost the request")
        };
        inner.fail(OpenFailure { code, message: message.to_owned(), details: Vec::new(), retry_after: None });
    }
}

/// Waits for the socket of a detached stream, and starts its minder.
pub(crate) async fn await_socket(
    shared: &Shared,
    detached: Detached,
    given: oneshot::Receiver<AttachedSocket>,
) -> Result<RawEnd, End> {
    let came = tokio::select! {
        given = tokio::time::timeout(TICKET_TTL, given) => given.ok().and_then(Result::ok),
        ended = detached.ended() => {
            let end = ended.end;
            detached.close(facts(Closed { ended: Ended::ResetByPlugin(end), bytes_in: 0, bytes_out: 0 }));
            return Err(end);
        }
    };
    let Some(AttachedSocket { io, leftover }) = came else {
        let end = End::new(Code::TIMEOUT);
        detached.close(facts(Closed { ended: Ended::ResetByRemote(end), bytes_in: 0, bytes_out: 0 }));
        return Err(end);
    };
    let (tell, fate) = watch::channel(None);
    let (closed, is_closed) = oneshot::channel();
    shared.tasks.spawn(mind(detached, tell, is_closed));
    Ok(RawEnd { io, leftover, fate, closed })
}

/// Knows how a detached stream ended: by the plugin's word on the session, or by the closer's.
async fn mind(
    detached: Detached,
    tell: watch::Sender<Option<Fate>>,
    mut is_closed: oneshot::Receiver<Closed>,
) {
    let closed = tokio::select! {
        closed = &mut is_closed => closed,
        ended = detached.ended() => {
            let end = ended.end;
            tell.send_replace(Some(Fate::Ended(end)));
            // The bridge meets the end now, and closes.
            match tokio::time::timeout(CLOSE_WITHIN, is_closed).await {
                Ok(closed) => closed,
                Err(_) => Ok(Closed { ended: Ended::ResetByPlugin(end), bytes_in: 0, bytes_out: 0 }),
            }
        }
    };
    let lost = Closed { ended: Ended::ResetByRemote(End::new(Code::PATH_LOST)), bytes_in: 0, bytes_out: 0 };
    detached.close(facts(closed.unwrap_or(lost)));
}

/// How long the bridge may take to meet the end of a stream that the plugin has ended.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

fn facts(closed: Closed) -> StreamClosed {
    let (cause, end) = match closed.ended {
        Ended::Finished => (Cause::Finished, None),
        Ended::ResetByPlugin(end) => (Cause::ResetLocal, Some(end)),
        Ended::ResetByRemote(end) => (Cause::ResetRemote, Some(end)),
    };
    StreamClosed { cause, end, bytes_in: closed.bytes_in, bytes_out: closed.bytes_out }
}
