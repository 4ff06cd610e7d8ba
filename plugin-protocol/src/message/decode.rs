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
    Subscribe, Ticket, Trust, Unregister, Violation, Welcome,
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
    #[error(transparent)]
    Violation(#[from] Violation),
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
        let frame = pb::Frame::decode(body)
            .map_err(|_| Violation::protocol("a frame that is not a protobuf Frame"))?;
        let rid = Rid::new(frame.rid);
        let Some(body) = frame.body else {
            return Ok(Self { rid, message: Message::Unknown });
        };
        let opens = match &body {
            pb::frame::Body::Open(open) => StreamId::new(open.stream),
            _ => None,
        };
        match message(body) {
            Ok(Message::Body(Body::Open(_))) if rid.is_none() => {
                Err(bad_request(rid, opens, "an Open needs a rid".to_owned()))
            }
            Ok(message) => Ok(Self { rid, message }),
            Err(Wrong::Rule(violation)) => Err(violation.into()),
            Err(Wrong::Value(what)) => Err(bad_request(rid, opens, what)),
        }
    }
}

fn bad_request(rid: Option<Rid>, opens: Option<StreamId>, what: String) -> DecodeError {
    let mut reply = ErrorReply::new(Code::BAD_REQUEST, what);
    reply.stream = opens;
    DecodeError::BadRequest { rid, opens, reply: Box::new(reply) }
}

fn message(body: pb::frame::Body) -> Checked<Message> {
    use pb::frame::Body as Wire;
    Ok(match body {
        Wire::Data(data) => stream_message(StreamMessage::Data {
            stream: stream(data.stream)?,
            payload: data.payload,
            fin: data.fin,
        }),
        Wire::Window(window) => {
            stream_message(StreamMessage::Window { stream: stream(window.stream)?, bytes: window.bytes })
        }
        Wire::Datagram(datagram) => stream_message(StreamMessage::Datagram {
            flow: stream(datagram.flow)?,
            payload: datagram.payload,
        }),
        Wire::Reset(reset) => stream_message(StreamMessage::Reset {
            stream: stream(reset.stream)?,
            end: end(reset.code, reset.app_code),
        }),
        Wire::StopSending(stop) => stream_message(StreamMessage::StopSending {
            stream: stream(stop.stream)?,
            end: end(stop.code, stop.app_code),
        }),
        Wire::StreamClosed(closed) => stream_message(StreamMessage::StreamClosed {
            stream: stream(closed.stream)?,
            facts: stream_closed(&closed),
        }),
        Wire::Ping(ping) => Message::Ping(ping.nonce),
        Wire::Pong(pong) => Message::Pong(pong.nonce),
        Wire::Hello(_)
        | Wire::Welcome(_)
        | Wire::Challenge(_)
        | Wire::AuthProof(_)
        | Wire::Refused(_)
        | Wire::Attach(_)
        | Wire::Attached(_) => Message::Handshake(handshake(body)?),
        Wire::Open(_)
        | Wire::Opened(_)
        | Wire::Incoming(_)
        | Wire::Accept(_)
        | Wire::Reject(_)
        | Wire::Contacts(_)
        | Wire::Register(_)
        | Wire::Unregister(_)
        | Wire::ContactList(_) => Message::Body(about_streams_and_names(body)?),
        Wire::Event(event) => match event_body(event)? {
            Some(event) => Message::Body(Body::Event(event)),
            None => Message::Unknown,
        },
        Wire::Error(_)
        | Wire::Done(_)
        | Wire::Cancel(_)
        | Wire::Ready(_)
        | Wire::Status(_)
        | Wire::Log(_)
        | Wire::Subscribe(_)
        | Wire::GoAway(_)
        | Wire::Shutdown(_) => Message::Body(about_life(body)?),
    })
}

const fn stream_message(message: StreamMessage) -> Message {
    Message::Stream(message)
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

fn handshake(body: pb::frame::Body) -> Checked<Handshake> {
    use pb::frame::Body as Wire;
    Ok(match body {
        Wire::Hello(hello) => hello_message(hello)?,
        Wire::Welcome(welcome) => Handshake::Welcome(Box::new(welcome_message(welcome)?)),
        Wire::Challenge(challenge) => Handshake::Challenge {
            server_nonce: bytes32(&challenge.server_nonce, "Challenge.server_nonce must have 32 bytes")?,
            server_proof: bytes32(&challenge.server_proof, "Challenge.server_proof must have 32 bytes")?,
        },
        Wire::AuthProof(proof) => Handshake::AuthProof {
            client_proof: match proof.client_proof.as_ref().try_into() {
                Ok(proof) => proof,
                Err(_) => {
                    return rule(Violation {
                        code: Code::AUTH,
                        what: "AuthProof.client_proof must have 32 bytes",
                    });
                }
            },
        },
        Wire::Refused(refused) => Handshake::Refused(Refused {
            code: Code::from_number(refused.code),
            message: refused.message,
            hint: refused.hint,
            min_version: refused.min_version,
            max_version: refused.max_version,
        }),
        Wire::Attach(attach) => match Ticket::from_bytes(&attach.ticket) {
            Some(ticket) => Handshake::Attach(ticket),
            None => return rule(Violation { code: Code::AUTH, what: "Attach.ticket must have 16 bytes" }),
        },
        Wire::Attached(_) => Handshake::Attached,
        _ => unreachable!("`message` sends only the handshake here"),
    })
}

fn hello_message(hello: pb::Hello) -> Checked<Handshake> {
    if hello.magic != hello::MAGIC {
        return broken("Hello.magic must be \"p2pOS\"");
    }
    if hello.features.len() > limits::FEATURES_MAX
        || hello.features.iter().any(|feature| feature.len() > limits::FEATURE_BYTES_MAX)
    {
        return broken("Hello.features holds at most 32 names of at most 64 bytes");
    }
    if hello.sdk.len() > limits::SDK_BYTES_MAX {
        return broken("Hello.sdk holds at most 128 bytes");
    }
    let frame_bytes_max = or_default(hello.frame_bytes_max, limits::FRAME_BYTES_MAX);
    if !(limits::FRAME_BYTES_HARD_MIN..=limits::FRAME_BYTES_HARD_MAX).contains(&frame_bytes_max) {
        return broken("Hello.frame_bytes_max must be 0, or 4096 to 16777215");
    }
    let stream_window_bytes = or_default(hello.stream_window_bytes, limits::STREAM_WINDOW_BYTES);
    if stream_window_bytes > limits::CREDIT_BYTES_MAX {
        return broken("Hello.stream_window_bytes is at most 16777216");
    }
    let auth = match hello.auth {
        None => Auth::None,
        Some(pb::hello::Auth::LaunchToken(text)) => {
            LaunchToken::from_env_text(&text).map_or(Auth::None, Auth::LaunchToken)
        }
        Some(pb::hello::Auth::ClientNonce(nonce)) => {
            Auth::ClientNonce(bytes32(&nonce, "Hello.client_nonce must have 32 bytes")?)
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

fn about_streams_and_names(body: pb::frame::Body) -> Checked<Body> {
    use pb::frame::Body as Wire;
    Ok(match body {
        Wire::Open(open) => Body::Open(open_body(&open)?),
        Wire::Opened(opened) => Body::Opened(Opened {
            stream: stream(opened.stream)?,
            protocol: answered_name(&opened.protocol)?,
            path: path_kind(opened.path),
            ticket: ticket(&opened.ticket)?,
            datagram_max: opened.datagram_max,
        }),
        Wire::Incoming(incoming) => Body::Incoming(Incoming {
            stream: stream(incoming.stream)?,
            peer: answered_peer(&incoming.peer)?,
            protocol: answered_name(&incoming.protocol)?,
            kind: kind(incoming.kind).or_else(|_| broken("an Incoming of a Kind that was not agreed"))?,
            path: path_kind(incoming.path),
            petname: some_text(incoming.petname),
            is_contact: incoming.is_contact,
            ticket: ticket(&incoming.ticket)?,
            datagram_max: incoming.datagram_max,
        }),
        Wire::Accept(accept) => Body::Accept(Accept { stream: stream(accept.stream)? }),
        Wire::Reject(reject) => Body::Reject(Reject {
            stream: stream(reject.stream)?,
            code: match Code::from_number(reject.code) {
                Code::NOT_READY => Code::NOT_READY,
                _ => Code::REFUSED,
            },
            reason: reject.reason,
        }),
        Wire::Contacts(contacts) => {
            Body::Contacts(contacts.contacts.into_iter().map(contact).collect::<Checked<_>>()?)
        }
        Wire::Register(register) => Body::Register(register_body(&register)?),
        Wire::Unregister(unregister) => Body::Unregister(Unregister {
            names: unregister.names.iter().map(|text| name(text)).collect::<Checked<_>>()?,
        }),
        Wire::ContactList(_) => Body::ContactList,
        _ => unreachable!("`message` sends only these here"),
    })
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
        peer: open.peer.parse::<PeerId>().map_err(|error| Wrong::Value(error.to_string()))?,
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

fn contact(contact: pb::Contact) -> Checked<Contact> {
    Ok(Contact {
        peer: answered_peer(&contact.peer)?,
        petname: contact.petname,
        is_connected: contact.is_connected,
    })
}

fn event_body(event: pb::Event) -> Checked<Option<Event>> {
    let Some(kind) = pb::EventKind::try_from(event.kind).ok().and_then(event_kind) else {
        return Ok(None);
    };
    Ok(Some(Event {
        seq: event.seq,
        kind,
        missed: event.missed,
        peer: answered_peer(&event.peer)?,
        petname: some_text(event.petname),
        what: event.what,
    }))
}

const fn event_kind(kind: pb::EventKind) -> Option<EventKind> {
    match kind {
        pb::EventKind::Unspecified => None,
        pb::EventKind::Peer => Some(EventKind::Peer),
        pb::EventKind::Contact => Some(EventKind::Contact),
        pb::EventKind::Path => Some(EventKind::Path),
    }
}

fn about_life(body: pb::frame::Body) -> Checked<Body> {
    use pb::frame::Body as Wire;
    Ok(match body {
        Wire::Error(error) => Body::Error(ErrorReply {
            code: Code::from_number(error.code),
            message: error.message,
            hint: error.hint,
            retry_after: milliseconds(error.retry_after_ms),
            stream: StreamId::new(error.stream),
            details: error.details,
        }),
        Wire::Done(_) => Body::Done,
        Wire::Cancel(cancel) => match Rid::new(cancel.target) {
            Some(target) => Body::Cancel(target),
            None => return value("a Cancel needs a target".to_owned()),
        },
        Wire::Ready(_) => Body::Ready,
        Wire::Status(status) => Body::Status(Status {
            health: match status.health() {
                pb::status::Health::Unspecified | pb::status::Health::Ok => Health::Ok,
                pb::status::Health::Degraded => Health::Degraded,
                pb::status::Health::WaitingNetwork => Health::WaitingNetwork,
            },
            text: status.text,
        }),
        Wire::Log(log) => Body::Log(Log {
            level: match log.level() {
                pb::log::Level::Unspecified | pb::log::Level::Info => Level::Info,
                pb::log::Level::Debug => Level::Debug,
                pb::log::Level::Warn => Level::Warn,
                pb::log::Level::Error => Level::Error,
            },
            text: log.text,
        }),
        Wire::Subscribe(subscribe) => Body::Subscribe(Subscribe {
            kinds: subscribe
                .kinds
                .iter()
                .map(|&number| {
                    pb::EventKind::try_from(number)
                        .ok()
                        .and_then(event_kind)
                        .ok_or_else(|| Wrong::Value(format!("EventKind {number} is not known here")))
                })
                .collect::<Checked<_>>()?,
        }),
        Wire::GoAway(away) => {
            Body::GoAway(GoAway { code: Code::from_number(away.code), reason: away.reason })
        }
        Wire::Shutdown(shutdown) => Body::Shutdown(Shutdown {
            deadline: Duration::from_millis(u64::from(shutdown.deadline_ms)),
            reason: shutdown.reason,
        }),
        _ => unreachable!("`message` sends only these here"),
    })
}

fn stream(number: u32) -> Checked<StreamId> {
    StreamId::new(number).map_or_else(|| broken("a stream with id 0"), Ok)
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
    ProtocolName::parse(text).or_else(|_| broken("a ProtocolName against its grammar"))
}

/// A PeerId that a daemon wrote.
fn answered_peer(text: &str) -> Checked<PeerId> {
    text.parse().or_else(|_| broken("a PeerId that is none"))
}

fn ticket(bytes: &[u8]) -> Checked<Option<Ticket>> {
    match (bytes, Ticket::from_bytes(bytes)) {
        ([], _) => Ok(None),
        (_, Some(ticket)) => Ok(Some(ticket)),
        (_, None) => broken("a ticket must have 16 bytes"),
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
