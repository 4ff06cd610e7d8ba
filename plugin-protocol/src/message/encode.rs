//! From our own types to protobuf.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;

use super::{
    Attachment, Auth, Body, Cause, ErrorReply, Event, EventKind, Frame, Handshake, Health, Hello, Incoming,
    Kind, Level, Message, Open, Opened, PathKind, Refused, Registration, RelayUse, Rid, Status, StreamClosed,
    StreamMessage, Subscribe, Ticket, Trust, Welcome,
};
use crate::{
    code::{Code, End},
    hello,
    limits::{self, PREFIX_BYTES},
    pb::plugin_v1 as pb,
};

impl Frame {
    /// Appends this frame to `out`, length prefix included.
    pub fn encode(self, out: &mut BytesMut) {
        let frame = pb::Frame { rid: self.rid.map_or(0, Rid::number), body: message(self.message) };
        let length = frame.encoded_len();
        out.reserve(PREFIX_BYTES + length);
        out.put_u32(u32::try_from(length).expect("what we say in one frame is far under 4 GiB"));
        frame.encode(out).expect("the space was reserved");
    }

    /// This frame alone, length prefix included.
    #[must_use]
    pub fn to_bytes(self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode(&mut out);
        out.freeze()
    }
}

fn message(message: Message) -> Option<pb::frame::Body> {
    Some(match message {
        Message::Stream(message) => stream_message(message),
        Message::Handshake(handshake) => handshake_message(handshake),
        Message::Ping(nonce) => pb::frame::Body::Ping(pb::Ping { nonce }),
        Message::Pong(nonce) => pb::frame::Body::Pong(pb::Pong { nonce }),
        Message::Body(body) => body_message(body),
        Message::Unknown => return None,
    })
}

fn stream_message(message: StreamMessage) -> pb::frame::Body {
    use pb::frame::Body as Wire;
    match message {
        StreamMessage::Data { stream, payload, fin } => {
            Wire::Data(pb::Data { stream: stream.number(), payload, fin })
        }
        StreamMessage::Window { stream, bytes } => {
            Wire::Window(pb::Window { stream: stream.number(), bytes })
        }
        StreamMessage::Datagram { flow, payload } => {
            Wire::Datagram(pb::Datagram { flow: flow.number(), payload })
        }
        StreamMessage::Reset { stream, end } => {
            Wire::Reset(pb::Reset { stream: stream.number(), code: end.code.number(), app_code: end.app })
        }
        StreamMessage::StopSending { stream, end } => Wire::StopSending(pb::StopSending {
            stream: stream.number(),
            code: end.code.number(),
            app_code: end.app,
        }),
        StreamMessage::StreamClosed { stream, facts } => {
            Wire::StreamClosed(stream_closed(stream.number(), &facts))
        }
    }
}

fn stream_closed(stream: u32, facts: &StreamClosed) -> pb::StreamClosed {
    let end = facts.end.unwrap_or(End::new(Code::from_number(0)));
    pb::StreamClosed {
        stream,
        cause: match facts.cause {
            Cause::Finished => pb::stream_closed::Cause::Finished,
            Cause::ResetLocal => pb::stream_closed::Cause::ResetLocal,
            Cause::ResetRemote => pb::stream_closed::Cause::ResetRemote,
        }
        .into(),
        code: end.code.number(),
        app_code: end.app,
        bytes_in: facts.bytes_in,
        bytes_out: facts.bytes_out,
    }
}

fn handshake_message(handshake: Handshake) -> pb::frame::Body {
    use pb::frame::Body as Wire;
    match handshake {
        Handshake::Hello(hello, auth) => Wire::Hello(hello_message(hello, &auth)),
        Handshake::Challenge { server_nonce, server_proof } => Wire::Challenge(pb::Challenge {
            server_nonce: Bytes::copy_from_slice(&server_nonce),
            server_proof: Bytes::copy_from_slice(&server_proof),
        }),
        Handshake::AuthProof { client_proof } => {
            Wire::AuthProof(pb::AuthProof { client_proof: Bytes::copy_from_slice(&client_proof) })
        }
        Handshake::Welcome(welcome) => Wire::Welcome(welcome_message(*welcome)),
        Handshake::Refused(Refused { code, message, hint, min_version, max_version }) => {
            Wire::Refused(pb::Refused { code: code.number(), message, hint, min_version, max_version })
        }
        Handshake::Attach(ticket) => Wire::Attach(pb::Attach { ticket: ticket_bytes(Some(&ticket)) }),
        Handshake::Attached => Wire::Attached(pb::Attached {}),
    }
}

fn hello_message(hello: Hello, auth: &Auth) -> pb::Hello {
    pb::Hello {
        magic: hello::MAGIC.to_owned(),
        min_version: hello.min_version,
        max_version: hello.max_version,
        features: hello.features,
        sdk: hello.sdk,
        frame_bytes_max: or_zero(hello.frame_bytes_max, limits::FRAME_BYTES_MAX),
        stream_window_bytes: or_zero(hello.stream_window_bytes, limits::STREAM_WINDOW_BYTES),
        auto_window: hello.auto_window,
        auth: match auth {
            Auth::None => None,
            Auth::LaunchToken(token) => Some(pb::hello::Auth::LaunchToken(token.as_env_text().to_owned())),
            Auth::ClientNonce(nonce) => Some(pb::hello::Auth::ClientNonce(Bytes::copy_from_slice(nonce))),
        },
    }
}

fn welcome_message(welcome: Welcome) -> pb::Welcome {
    pb::Welcome {
        version: welcome.version,
        features: welcome.features,
        daemon: welcome.daemon,
        plugin_id: welcome.plugin_id,
        instance_id: welcome.instance_id,
        peer_id: welcome.peer_id.to_string(),
        grants: welcome.grants,
        limits: Some(pb::Limits {
            frame_bytes_max: welcome.limits.frame_bytes_max,
            data_bytes_max: welcome.limits.data_bytes_max,
            stream_window_bytes: welcome.limits.stream_window_bytes,
            streams_max: welcome.limits.streams_max,
            protocols_max: welcome.limits.protocols_max,
            requests_max: welcome.limits.requests_max,
            log_line_bytes_max: welcome.limits.log_line_bytes_max,
        }),
    }
}

fn body_message(body: Body) -> pb::frame::Body {
    use pb::frame::Body as Wire;
    match body {
        Body::Open(open) => Wire::Open(open_message(open)),
        Body::Opened(opened) => Wire::Opened(opened_message(&opened)),
        Body::Incoming(incoming) => Wire::Incoming(incoming_message(incoming)),
        Body::Accept(accept) => Wire::Accept(pb::Accept { stream: accept.stream.number() }),
        Body::Reject(reject) => Wire::Reject(pb::Reject {
            stream: reject.stream.number(),
            code: reject.code.number(),
            reason: reject.reason,
        }),
        Body::Error(error) => Wire::Error(error_message(error)),
        Body::Done => Wire::Done(pb::Done {}),
        Body::Register(register) => {
            Wire::Register(pb::Register { protocols: register.protocols.iter().map(registration).collect() })
        }
        Body::Unregister(unregister) => Wire::Unregister(pb::Unregister {
            names: unregister.names.iter().map(ToString::to_string).collect(),
        }),
        Body::Cancel(target) => Wire::Cancel(pb::Cancel { target: target.number() }),
        Body::Ready => Wire::Ready(pb::Ready {}),
        Body::Status(status) => Wire::Status(status_message(status)),
        Body::Log(log) => Wire::Log(pb::Log { level: level(log.level).into(), text: log.text }),
        Body::Subscribe(Subscribe { kinds }) => Wire::Subscribe(pb::Subscribe {
            kinds: kinds.into_iter().map(|kind| event_kind(kind).into()).collect(),
        }),
        Body::Event(event) => Wire::Event(event_message(event)),
        Body::ContactList => Wire::ContactList(pb::ContactList {}),
        Body::Contacts(contacts) => Wire::Contacts(pb::Contacts {
            contacts: contacts
                .into_iter()
                .map(|contact| pb::Contact {
                    peer: contact.peer.to_string(),
                    petname: contact.petname,
                    is_connected: contact.is_connected,
                })
                .collect(),
        }),
        Body::GoAway(away) => Wire::GoAway(pb::GoAway { code: away.code.number(), reason: away.reason }),
        Body::Shutdown(shutdown) => Wire::Shutdown(pb::Shutdown {
            deadline_ms: milliseconds(Some(shutdown.deadline)),
            reason: shutdown.reason,
        }),
    }
}

fn open_message(open: Open) -> pb::Open {
    pb::Open {
        stream: open.stream.number(),
        peer: open.peer.to_string(),
        protocols: open.protocols.iter().map(ToString::to_string).collect(),
        kind: kind(open.kind).into(),
        attachment: attachment(open.attachment).into(),
        timeout_ms: milliseconds(open.timeout),
        relay: match open.relay {
            RelayUse::Allow => pb::RelayUse::Unspecified,
            RelayUse::Never => pb::RelayUse::RelayNever,
        }
        .into(),
    }
}

fn opened_message(opened: &Opened) -> pb::Opened {
    pb::Opened {
        stream: opened.stream.number(),
        protocol: opened.protocol.to_string(),
        path: path_kind(opened.path).into(),
        ticket: ticket_bytes(opened.ticket.as_ref()),
        datagram_max: opened.datagram_max,
    }
}

fn incoming_message(incoming: Incoming) -> pb::Incoming {
    pb::Incoming {
        stream: incoming.stream.number(),
        peer: incoming.peer.to_string(),
        protocol: incoming.protocol.to_string(),
        kind: kind(incoming.kind).into(),
        path: path_kind(incoming.path).into(),
        petname: incoming.petname.unwrap_or_default(),
        is_contact: incoming.is_contact,
        ticket: ticket_bytes(incoming.ticket.as_ref()),
        datagram_max: incoming.datagram_max,
    }
}

fn error_message(error: ErrorReply) -> pb::Error {
    pb::Error {
        code: error.code.number(),
        name: error.code.name().to_owned(),
        message: error.message,
        hint: error.hint,
        retry_after_ms: milliseconds(error.retry_after),
        stream: error.stream.map_or(0, super::StreamId::number),
        details: error.details,
    }
}

fn registration(registration: &Registration) -> pb::Protocol {
    pb::Protocol {
        name: registration.name.to_string(),
        kind: kind(registration.kind).into(),
        trust: match registration.trust {
            Trust::Contacts => pb::Trust::Contacts,
            Trust::Anyone => pb::Trust::Anyone,
        }
        .into(),
        concurrent_max: registration.concurrent_max.unwrap_or(0),
        attachment: attachment(registration.attachment).into(),
    }
}

fn status_message(status: Status) -> pb::Status {
    pb::Status {
        health: match status.health {
            Health::Ok => pb::status::Health::Ok,
            Health::Degraded => pb::status::Health::Degraded,
            Health::WaitingNetwork => pb::status::Health::WaitingNetwork,
        }
        .into(),
        text: status.text,
    }
}

fn event_message(event: Event) -> pb::Event {
    pb::Event {
        seq: event.seq,
        kind: event_kind(event.kind).into(),
        missed: event.missed,
        peer: event.peer.to_string(),
        petname: event.petname.unwrap_or_default(),
        what: event.what,
    }
}

const fn level(level: Level) -> pb::log::Level {
    match level {
        Level::Debug => pb::log::Level::Debug,
        Level::Info => pb::log::Level::Info,
        Level::Warn => pb::log::Level::Warn,
        Level::Error => pb::log::Level::Error,
    }
}

const fn event_kind(kind: EventKind) -> pb::EventKind {
    match kind {
        EventKind::Unknown => pb::EventKind::Unspecified,
        EventKind::Peer => pb::EventKind::Peer,
        EventKind::Contact => pb::EventKind::Contact,
        EventKind::Path => pb::EventKind::Path,
    }
}

const fn kind(kind: Kind) -> pb::Kind {
    match kind {
        Kind::Stream => pb::Kind::Stream,
        Kind::Datagram => pb::Kind::Datagram,
    }
}

const fn attachment(attachment: Attachment) -> pb::Attachment {
    match attachment {
        Attachment::Mux => pb::Attachment::Mux,
        Attachment::Socket => pb::Attachment::Socket,
    }
}

const fn path_kind(path: PathKind) -> pb::PathKind {
    match path {
        PathKind::Unknown => pb::PathKind::Unspecified,
        PathKind::Direct => pb::PathKind::Direct,
        PathKind::Lan => pb::PathKind::Lan,
        PathKind::Loopback => pb::PathKind::Loopback,
        PathKind::Relayed => pb::PathKind::Relayed,
    }
}

fn ticket_bytes(ticket: Option<&Ticket>) -> Bytes {
    ticket.map_or_else(Bytes::new, |ticket| Bytes::copy_from_slice(ticket.as_bytes()))
}

/// Rounds up, so that a short but real time never becomes "none"; longer than 49 days is 49 days.
fn milliseconds(time: Option<Duration>) -> u32 {
    time.map_or(0, |time| u32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u32::MAX))
}

/// Leaves a default unsaid: the other side knows it.
const fn or_zero(value: u32, usual: u32) -> u32 {
    if value == usual { 0 } else { value }
}
