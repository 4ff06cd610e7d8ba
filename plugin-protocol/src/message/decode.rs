//! From protobuf to our own types: the one door, where everything that one frame can get wrong is caught.
//!
//! Two kinds of wrong: what no correct sender can ever send ends the session; a bad value in a request is answered by
//! 200 BAD_REQUEST and hurts nobody else.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use p2pos_identity::{PeerId, ProtocolName};
use prost::Message as _;

use super::{
    Accept, Attachment, Auth, Body, Cause, Contact, ErrorReply, Event, EventKind, Frame, GoAway, Handshake,
    Health, Hello, Incoming, Kind, LaunchToken, Level, Log, Message, Open, Opened, PathKind, Refused,
    Register, Registration, Reject, RelayUse, Rid, Shutdown, Status, StreamClosed, StreamId, StreamMessage,
    Subscribe, Ticket, Trust, Unregister, Violation, Welcome, peers,
};
use crate::{
    code::{Code, End},
    hello,
    limits::{self, Limits},
    pb::plugin_v1 as pb,
};

/// Says what is wrong with a frame.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// No correct sender sends this: the session ends.
    #[error("{violation}")]
    Violation {
        /// The frame's number, as far as it could be read; a refused handshake echoes it.
        rid: Option<Rid>,
        /// Which rule was broken.
        violation: Violation,
    },
    /// A request with a bad value: 200 BAD_REQUEST, and life goes on.
    #[error("{}", reply.message)]
    BadRequest {
        /// Whom to answer; `None`: as a complaint.
        rid: Option<Rid>,
        /// The id that a bad Open has used up.
        opens: Option<StreamId>,
        /// The answer.
        reply: Box<ErrorReply>,
    },
}

/// What the converters of one message can find wrong.
enum Wrong {
    Rule(Violation),
    Value(String),
}

impl From<Violation> for Wrong {
    fn from(violation: Violation) -> Self {
        Self::Rule(violation)
    }
}

type Checked<T> = Result<T, Wrong>;

impl Frame {
    /// Reads the body of one frame (without its length prefix). Payloads are slices of `body`, not copies.
    ///
    /// # Errors
    /// [`DecodeError`] says what to answer.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let unreadable = Violation::protocol("a frame that is not a protobuf Frame [S-MSG-4]");
        let frame = pb::Frame::decode(body)
            .map_err(|_| DecodeError::Violation { rid: None, violation: unreadable })?;
        let rid = Rid::new(frame.rid);
        let Some(body) = frame.body else {
            return Ok(Self { rid, message: Message::Unknown });
        };
        let opens = if let pb::frame::Body::Open(open) = &body { StreamId::new(open.stream) } else { None };
        match message(body) {
            Ok(Message::Body(Body::Open(_))) if rid.is_none() => {
                Err(bad_request(rid, opens, "an Open needs a rid [S-REQ-2]".to_owned()))
            }
            Ok(message) => Ok(Self { rid, message }),
            Err(Wrong::Rule(violation)) => Err(DecodeError::Violation { rid, violation }),
            Err(Wrong::Value(what)) => Err(bad_request(rid, opens, what)),
        }
    }
}

fn bad_request(rid: Option<Rid>, opens: Option<StreamId>, what: String) -> DecodeError {
    let mut reply = ErrorReply::new(Code::BAD_REQUEST, format!("{what} [S-REQ-8]"));
    reply.stream = opens;
    DecodeError::BadRequest { rid, opens, reply: Box::new(reply) }
}

fn message(body: pb::frame::Body) -> Checked<Message> {
    use pb::frame::Body as Wire;
    Ok(match body {
        Wire::Data(data) => Message::Stream(StreamMessage::Data {
            stream: stream(data.stream)?,
            payload: data.payload,
            fin: data.fin,
        }),
        Wire::Window(window) => {
            Message::Stream(StreamMessage::Window { stream: stream(window.stream)?, bytes: window.bytes })
        }
        Wire::Datagram(datagram) => Message::Stream(StreamMessage::Datagram {
            flow: stream(datagram.flow)?,
            payload: datagram.payload,
        }),
        Wire::Reset(reset) => {
            let end = end(reset.code, reset.app_code);
            Message::Stream(StreamMessage::Reset { stream: stream(reset.stream)?, end })
        }
        Wire::StopSending(stop) => {
            let end = end(stop.code, stop.app_code);
            Message::Stream(StreamMessage::StopSending { stream: stream(stop.stream)?, end })
        }
        Wire::StreamClosed(closed) => {
            let facts = stream_closed(&closed);
            Message::Stream(StreamMessage::StreamClosed { stream: stream(closed.stream)?, facts })
        }
        Wire::Ping(ping) => Message::Ping(ping.nonce),
        Wire::Pong(pong) => Message::Pong(pong.nonce),
        Wire::Hello(hello) => Message::Handshake(hello_message(hello)?),
        Wire::Welcome(welcome) => Message::Handshake(Handshake::Welcome(Box::new(welcome_message(welcome)?))),
        Wire::Challenge(challenge) => Message::Handshake(challenge_message(&challenge)?),
        Wire::AuthProof(proof) => Message::Handshake(auth_proof_message(&proof)?),
        Wire::Refused(refused) => Message::Handshake(Handshake::Refused(refused_message(refused))),
        Wire::Attach(attach) => Message::Handshake(attach_message(&attach)?),
        Wire::Attached(pb::Attached {}) => Message::Handshake(Handshake::Attached),
        Wire::Open(open) => Message::Body(Body::Open(open_body(&open)?)),
        Wire::Opened(opened) => Message::Body(Body::Opened(opened_body(&opened)?)),
        Wire::Incoming(incoming) => Message::Body(Body::Incoming(incoming_body(incoming)?)),
        Wire::Accept(accept) => Message::Body(Body::Accept(Accept { stream: stream(accept.stream)? })),
        Wire::Reject(reject) => Message::Body(Body::Reject(reject_body(reject)?)),
        Wire::Error(error) => Message::Body(Body::Error(error_body(error))),
        Wire::Done(pb::Done {}) => Message::Body(Body::Done),
        Wire::Register(register) => Message::Body(Body::Register(register_body(&register)?)),
        Wire::Unregister(unregister) => Message::Body(Body::Unregister(unregister_body(&unregister)?)),
        Wire::Cancel(cancel) => Message::Body(cancel_body(cancel)?),
        Wire::Ready(pb::Ready {}) => Message::Body(Body::Ready),
        Wire::Status(status) => Message::Body(Body::Status(status_body(status))),
        Wire::Log(log) => Message::Body(Body::Log(log_body(log))),
        Wire::Subscribe(subscribe) => Message::Body(Body::Subscribe(subscribe_body(&subscribe)?)),
        Wire::Event(event) => Message::Body(Body::Event(event_body(event)?)),
        Wire::ContactList(pb::ContactList {}) => Message::Body(Body::ContactList),
        Wire::Contacts(contacts) => Message::Body(contacts_body(contacts)?),
        Wire::GoAway(away) => {
            Message::Body(Body::GoAway(GoAway { code: Code::from_number(away.code), reason: away.reason }))
        }
        Wire::Shutdown(shutdown) => {
            let deadline = Duration::from_millis(u64::from(shutdown.deadline_ms));
            Message::Body(Body::Shutdown(Shutdown { deadline, reason: shutdown.reason }))
        }
    })
}

fn stream_closed(closed: &pb::StreamClosed) -> StreamClosed {
    let end = Some(end(closed.code, closed.app_code));
    let (cause, end) = match closed.cause() {
        pb::stream_closed::Cause::Finished => (Cause::Finished, None),
        pb::stream_closed::Cause::ResetLocal => (Cause::ResetLocal, end),
        pb::stream_closed::Cause::ResetRemote | pb::stream_closed::Cause::Unspecified => {
            (Cause::ResetRemote, end)
        }
    };
    StreamClosed { cause, end, bytes_in: closed.bytes_in, bytes_out: closed.bytes_out }
}

fn hello_message(hello: pb::Hello) -> Checked<Handshake> {
    if hello.magic != hello::MAGIC {
        return broken("Hello.magic must be \"p2pOS\" [S-HELLO-2]");
    }
    if hello.features.len() > limits::FEATURES_MAX
        || hello.features.iter().any(|feature| feature.len() > limits::FEATURE_BYTES_MAX)
    {
        return broken("Hello.features holds at most 32 names of at most 64 bytes [S-HELLO-6]");
    }
    if hello.sdk.len() > limits::SDK_BYTES_MAX {
        return broken("Hello.sdk holds at most 128 bytes [S-HELLO-6]");
    }
    let frame_bytes_max = or_default(hello.frame_bytes_max, limits::FRAME_BYTES_MAX);
    if !(limits::FRAME_BYTES_HARD_MIN..=limits::FRAME_BYTES_HARD_MAX).contains(&frame_bytes_max) {
        return broken("Hello.frame_bytes_max must be 0, or 4096 to 16777215 [S-HELLO-6]");
    }
    let stream_window_bytes = or_default(hello.stream_window_bytes, limits::STREAM_WINDOW_BYTES);
    if stream_window_bytes > limits::CREDIT_BYTES_MAX {
        return broken("Hello.stream_window_bytes is at most 16777216 [S-HELLO-6]");
    }
    let auth = match hello.auth {
        None => Auth::None,
        Some(pb::hello::Auth::LaunchToken(text)) => {
            LaunchToken::from_env_text(&text).map_or(Auth::None, Auth::LaunchToken)
        }
        Some(pb::hello::Auth::ClientNonce(nonce)) => {
            Auth::ClientNonce(bytes32(&nonce, "Hello.client_nonce must have 32 bytes [S-HELLO-6]")?)
        }
    };
    let hello = Hello {
        min_version: hello.min_version,
        max_version: hello.max_version,
        features: hello.features,
        sdk: hello.sdk,
        frame_bytes_max,
        stream_window_bytes,
        auto_window: hello.auto_window,
    };
    Ok(Handshake::Hello(hello, auth))
}

fn welcome_message(welcome: pb::Welcome) -> Checked<Welcome> {
    let told = welcome.limits.unwrap_or_default();
    let usual = Limits::default();
    let frame_bytes_max =
        or_default(told.frame_bytes_max, usual.frame_bytes_max).min(limits::FRAME_BYTES_HARD_MAX);
    Ok(Welcome {
        version: welcome.version,
        features: welcome.features,
        daemon: welcome.daemon,
        plugin_id: welcome.plugin_id,
        instance_id: welcome.instance_id,
        peer_id: answered_peer(&welcome.peer_id)?,
        grants: welcome.grants,
        limits: Limits {
            frame_bytes_max,
            data_bytes_max: or_default(told.data_bytes_max, usual.data_bytes_max),
            stream_window_bytes: or_default(told.stream_window_bytes, usual.stream_window_bytes),
            streams_max: or_default(told.streams_max, usual.streams_max),
            protocols_max: or_default(told.protocols_max, usual.protocols_max),
            requests_max: or_default(told.requests_max, usual.requests_max),
            log_line_bytes_max: or_default(told.log_line_bytes_max, usual.log_line_bytes_max),
        },
    })
}

fn challenge_message(challenge: &pb::Challenge) -> Checked<Handshake> {
    Ok(Handshake::Challenge {
        server_nonce: bytes32(
            &challenge.server_nonce,
            "Challenge.server_nonce must have 32 bytes [S-HELLO-4]",
        )?,
        server_proof: bytes32(
            &challenge.server_proof,
            "Challenge.server_proof must have 32 bytes [S-HELLO-4]",
        )?,
    })
}

fn auth_proof_message(proof: &pb::AuthProof) -> Checked<Handshake> {
    match proof.client_proof.as_ref().try_into() {
        Ok(client_proof) => Ok(Handshake::AuthProof { client_proof }),
        Err(_) => rule(Violation {
            code: Code::AUTH,
            what: "AuthProof.client_proof must have 32 bytes [S-HELLO-4]",
        }),
    }
}

fn refused_message(refused: pb::Refused) -> Refused {
    Refused {
        code: Code::from_number(refused.code),
        message: refused.message,
        hint: refused.hint,
        min_version: refused.min_version,
        max_version: refused.max_version,
    }
}

fn attach_message(attach: &pb::Attach) -> Checked<Handshake> {
    match Ticket::from_bytes(&attach.ticket) {
        Some(ticket) => Ok(Handshake::Attach(ticket)),
        None => rule(Violation { code: Code::AUTH, what: "Attach.ticket must have 16 bytes [S-ATTACH-1]" }),
    }
}

fn opened_body(opened: &pb::Opened) -> Checked<Opened> {
    Ok(Opened {
        stream: stream(opened.stream)?,
        protocol: answered_name(&opened.protocol)?,
        path: path_kind(opened.path),
        ticket: ticket(&opened.ticket)?,
        datagram_max: opened.datagram_max,
    })
}

fn incoming_body(incoming: pb::Incoming) -> Checked<Incoming> {
    Ok(Incoming {
        stream: stream(incoming.stream)?,
        peer: answered_peer(&incoming.peer)?,
        protocol: answered_name(&incoming.protocol)?,
        kind: kind(incoming.kind)
            .or_else(|_| broken("an Incoming of a Kind that was not agreed [S-MSG-7]"))?,
        path: path_kind(incoming.path),
        petname: some_text(incoming.petname),
        is_contact: incoming.is_contact,
        ticket: ticket(&incoming.ticket)?,
        datagram_max: incoming.datagram_max,
    })
}

/// Whatever code but 306 the plugin chose, the peer is told 305.
fn reject_body(reject: pb::Reject) -> Checked<Reject> {
    let code = if reject.code == Code::NOT_READY.number() { Code::NOT_READY } else { Code::REFUSED };
    Ok(Reject { stream: stream(reject.stream)?, code, reason: reject.reason })
}

fn open_body(open: &pb::Open) -> Checked<Open> {
    let id = stream(open.stream)?;
    if open.protocols.is_empty() || open.protocols.len() > limits::OPEN_PROTOCOLS_MAX {
        return value(format!(
            "an Open names 1 to {} protocols, not {}",
            limits::OPEN_PROTOCOLS_MAX,
            open.protocols.len()
        ));
    }
    Ok(Open {
        stream: id,
        peer: peers::parse(&open.peer).map_err(|error| Wrong::Value(error.to_string()))?,
        protocols: open.protocols.iter().map(|text| name(text)).collect::<Checked<_>>()?,
        kind: kind(open.kind)?,
        attachment: attachment(open.attachment)?,
        timeout: milliseconds(open.timeout_ms),
        relay: match pb::RelayUse::try_from(open.relay) {
            Ok(pb::RelayUse::Unspecified | pb::RelayUse::RelayAllow) => RelayUse::Allow,
            Ok(pb::RelayUse::RelayNever) => RelayUse::Never,
            Err(_) => return value(format!("RelayUse {} is not known here", open.relay)),
        },
    })
}

fn register_body(register: &pb::Register) -> Checked<Register> {
    if register.protocols.is_empty() {
        return value("a Register names at least one protocol".to_owned());
    }
    let protocols = register.protocols.iter().map(registration).collect::<Checked<Vec<_>>>()?;
    let mut seen = BTreeSet::new();
    match protocols.iter().find(|protocol| !seen.insert(&protocol.name)) {
        Some(twice) => value(format!("the Register names {} twice", twice.name)),
        None => Ok(Register { protocols }),
    }
}

fn registration(protocol: &pb::Protocol) -> Checked<Registration> {
    Ok(Registration {
        name: name(&protocol.name)?,
        kind: kind(protocol.kind)?,
        trust: match pb::Trust::try_from(protocol.trust) {
            Ok(pb::Trust::Unspecified | pb::Trust::Contacts) => Trust::Contacts,
            Ok(pb::Trust::Anyone) => Trust::Anyone,
            Err(_) => return value(format!("Trust {} is not known here", protocol.trust)),
        },
        concurrent_max: (protocol.concurrent_max > 0).then_some(protocol.concurrent_max),
        attachment: attachment(protocol.attachment)?,
    })
}

fn unregister_body(unregister: &pb::Unregister) -> Checked<Unregister> {
    if unregister.names.is_empty() {
        return value("an Unregister names at least one protocol".to_owned());
    }
    let names = unregister.names.iter().map(|text| name(text)).collect::<Checked<_>>()?;
    Ok(Unregister { names })
}

fn cancel_body(cancel: pb::Cancel) -> Checked<Body> {
    Rid::new(cancel.target)
        .map_or_else(|| value("a Cancel needs a target".to_owned()), |target| Ok(Body::Cancel(target)))
}

fn contacts_body(contacts: pb::Contacts) -> Checked<Body> {
    contacts
        .contacts
        .into_iter()
        .map(|contact| {
            let peer = answered_peer(&contact.peer)?;
            Ok(Contact { peer, petname: contact.petname, is_connected: contact.is_connected })
        })
        .collect::<Checked<_>>()
        .map(Body::Contacts)
}

fn event_body(event: pb::Event) -> Checked<Event> {
    Ok(Event {
        seq: event.seq,
        kind: pb::EventKind::try_from(event.kind).ok().and_then(event_kind).unwrap_or(EventKind::Unknown),
        missed: event.missed,
        peer: answered_peer(&event.peer)?,
        petname: some_text(event.petname),
        what: event.what,
    })
}

const fn event_kind(kind: pb::EventKind) -> Option<EventKind> {
    match kind {
        pb::EventKind::Unspecified => None,
        pb::EventKind::Peer => Some(EventKind::Peer),
        pb::EventKind::Contact => Some(EventKind::Contact),
        pb::EventKind::Path => Some(EventKind::Path),
    }
}

fn error_body(error: pb::Error) -> ErrorReply {
    ErrorReply {
        code: Code::from_number(error.code),
        message: error.message,
        hint: error.hint,
        retry_after: milliseconds(error.retry_after_ms),
        stream: StreamId::new(error.stream),
        details: error.details,
    }
}

fn status_body(status: pb::Status) -> Status {
    let health = match status.health() {
        pb::status::Health::Unspecified | pb::status::Health::Ok => Health::Ok,
        pb::status::Health::Degraded => Health::Degraded,
        pb::status::Health::WaitingNetwork => Health::WaitingNetwork,
    };
    Status { health, text: status.text }
}

fn log_body(log: pb::Log) -> Log {
    let level = match log.level() {
        pb::log::Level::Debug => Level::Debug,
        pb::log::Level::Unspecified | pb::log::Level::Info => Level::Info,
        pb::log::Level::Warn => Level::Warn,
        pb::log::Level::Error => Level::Error,
    };
    Log { level, text: log.text }
}

fn subscribe_body(subscribe: &pb::Subscribe) -> Checked<Subscribe> {
    let known = |&number: &i32| {
        let kind = pb::EventKind::try_from(number).ok().and_then(event_kind);
        kind.ok_or_else(|| Wrong::Value(format!("EventKind {number} is not known here")))
    };
    Ok(Subscribe { kinds: subscribe.kinds.iter().map(known).collect::<Checked<_>>()? })
}

fn stream(number: u32) -> Checked<StreamId> {
    StreamId::new(number).map_or_else(|| broken("a stream with id 0 [S-STREAM-1]"), Ok)
}

const fn end(code: u32, app: u32) -> End {
    End { code: Code::from_number(code), app }
}

fn kind(number: i32) -> Checked<Kind> {
    match pb::Kind::try_from(number) {
        Ok(pb::Kind::Unspecified | pb::Kind::Stream) => Ok(Kind::Stream),
        Ok(pb::Kind::Datagram) => Ok(Kind::Datagram),
        Err(_) => value(format!("Kind {number} is not known here")),
    }
}

fn attachment(number: i32) -> Checked<Attachment> {
    match pb::Attachment::try_from(number) {
        Ok(pb::Attachment::Unspecified | pb::Attachment::Mux) => Ok(Attachment::Mux),
        Ok(pb::Attachment::Socket) => Ok(Attachment::Socket),
        Err(_) => value(format!("Attachment {number} is not known here")),
    }
}

fn path_kind(number: i32) -> PathKind {
    match pb::PathKind::try_from(number) {
        Ok(pb::PathKind::Direct) => PathKind::Direct,
        Ok(pb::PathKind::Lan) => PathKind::Lan,
        Ok(pb::PathKind::Loopback) => PathKind::Loopback,
        Ok(pb::PathKind::Relayed) => PathKind::Relayed,
        Ok(pb::PathKind::Unspecified) | Err(_) => PathKind::Unknown,
    }
}

/// A name in a request, where a mistake is answered.
fn name(text: &str) -> Checked<ProtocolName> {
    ProtocolName::parse(text).map_err(|error| Wrong::Value(error.to_string()))
}

/// A name that a daemon wrote, where a mistake ends the session.
fn answered_name(text: &str) -> Checked<ProtocolName> {
    ProtocolName::parse(text).or_else(|_| broken("a ProtocolName against its grammar [S-REQ-8]"))
}

/// A PeerId that a daemon wrote.
fn answered_peer(text: &str) -> Checked<PeerId> {
    peers::parse(text).or_else(|_| broken("a PeerId that is none [S-REQ-8]"))
}

fn ticket(bytes: &[u8]) -> Checked<Option<Ticket>> {
    match (bytes, Ticket::from_bytes(bytes)) {
        ([], _) => Ok(None),
        (_, Some(ticket)) => Ok(Some(ticket)),
        (_, None) => broken("a ticket must have 16 bytes [S-ATTACH-1]"),
    }
}

fn bytes32(bytes: &[u8], what: &'static str) -> Checked<[u8; 32]> {
    bytes.try_into().or_else(|_| broken(what))
}

fn some_text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn milliseconds(ms: u32) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(u64::from(ms)))
}

const fn or_default(told: u32, usual: u32) -> u32 {
    if told == 0 { usual } else { told }
}

const fn rule<T>(violation: Violation) -> Checked<T> {
    Err(Wrong::Rule(violation))
}

const fn broken<T>(what: &'static str) -> Checked<T> {
    rule(Violation::protocol(what))
}

const fn value<T>(what: String) -> Checked<T> {
    Err(Wrong::Value(what))
}
