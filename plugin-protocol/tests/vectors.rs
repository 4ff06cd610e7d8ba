//! The golden vectors, judged by this crate: what vectors/*.json says is said here too, byte for byte.
//!
//! Those of each release of the protocol (releases/*/vectors) are replayed beside the present ones: what was golden once stays so.
//!
//! `frames.json`: decoding and encoding. `malformed.json`: what is answered to every wrong thing, through a real session.
//! `handshake.json`: the proofs, and the first exchange of SPEC.md. A few cases are the host's to judge (it owns the
//! registrations); they are named in [`JUDGED_BY_THE_HOST`], so that none is silently nobody's.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may panic, its helpers too, and looks for one case among many"
)]

use std::{fs, path::Path, time::Duration};

use bytes::{Bytes, BytesMut};
use p2pos_plugin_protocol::{
    code::{Class, Code, End},
    driver::{self, GreetError, Inbox, RecvHalf, SendHalf, Session, Settings},
    frame,
    hello::{Acceptor, AcceptorConfig, Caller, Credential, EndpointSecret, Opening},
    limits::{self, Limits, PREFIX_BYTES},
    message::{
        Body, Frame, Handshake, Hello, LaunchToken, Message, Refused, Rid, StreamMessage, Ticket, Welcome,
    },
};
use proptest::prelude::*;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};

/// Codes of one request that tell of a broken rule; the others tell of circumstances.
const CITING_REQUEST_CODES: [Code; 3] = [Code::BAD_REQUEST, Code::UNKNOWN_METHOD, Code::LIMIT];

/// They need to know what is registered, or the size that fits a path.
const JUDGED_BY_THE_HOST: [&str; 4] =
    ["datagram-too-big", "register-again", "register-over-protocols-max", "unregister-unknown"];

#[test]
fn every_golden_frame_is_read_and_written_back() {
    for case in load("frames.json").iter().flat_map(|vectors| list(&vectors["frames"])) {
        let (id, bytes) = (text(&case["id"]), hex(&case["hex"]));
        assert_eq!(
            frame::measure(&bytes, limits::FRAME_BYTES_HARD_MAX),
            Ok(Some(bytes.len() - PREFIX_BYTES)),
            "{id}"
        );
        // Frames with ids of 0 or names that are none are golden too: as protobuf they are right. The protocol refuses
        // them, and `malformed.json` says how.
        let Ok(read) = Frame::decode(bytes.slice(PREFIX_BYTES..)) else { continue };
        assert_eq!(u64::from(read.rid.map_or(0, Rid::number)), case["rid"].as_u64().unwrap(), "{id}");
        assert_eq!(name(&read.message), text(&case["message"]), "{id}");
        check_fields(id, &read, &case["body"]);
        let again = read.clone().to_bytes();
        assert_eq!(Frame::decode(again.slice(PREFIX_BYTES..)).as_ref(), Ok(&read), "{id}");
    }
}

#[test]
fn frames_in_another_spelling_mean_the_same() {
    for case in load("frames.json").iter().flat_map(|vectors| list(&vectors["decode_only"])) {
        let (id, bytes) = (text(&case["id"]), hex(&case["hex"]));
        let read = match Frame::decode(bytes.slice(PREFIX_BYTES..)) {
            Ok(read) => read,
            // Right as protobuf, but a Welcome without a PeerId is none.
            Err(_) if id == "limits-split" => continue,
            Err(error) => panic!("{id}: {error}"),
        };
        assert_eq!(name(&read.message), case["message"].as_str().unwrap_or("unknown"), "{id}");
        check_fields(id, &read, &case["body"]);
        if let Some(fast) = frame::parse_data(&bytes[PREFIX_BYTES..]) {
            let Message::Stream(StreamMessage::Data { stream, payload, fin }) = read.message else {
                panic!("{id}")
            };
            assert_eq!((fast.stream, fast.fin), (stream.number(), fin), "{id}");
            assert_eq!(bytes.slice(PREFIX_BYTES..).slice(fast.payload), payload, "{id}");
        }
    }
}

#[tokio::test]
async fn every_malformed_case_gets_its_coded_answer() {
    for vectors in load("malformed.json") {
        let mut failures = Vec::new();
        let mut judged = 0;
        for case in list(&vectors["cases"]).filter(|case| !JUDGED_BY_THE_HOST.contains(&text(&case["id"]))) {
            judged += 1;
            let outcome = timeout(SOON, judge(&vectors, case)).await;
            if let Err(what) = outcome.unwrap_or_else(|_| Err("neither an answer nor an end".to_owned())) {
                failures.push(format!("{}: {what} ({})", text(&case["id"]), text(&case["why"])));
            }
        }
        assert!(failures.is_empty(), "{} of {judged}:\n{}", failures.len(), failures.join("\n"));
        assert!(judged > 250, "only {judged} cases");
    }
}

#[test]
fn the_proofs_are_those_of_the_vectors() {
    for proof in load("handshake.json").iter().flat_map(|vectors| list(&vectors["proofs"])) {
        let secret = EndpointSecret::new(array(&proof["secret"]));
        let (client_nonce, server_nonce) = (array(&proof["client_nonce"]), array(&proof["server_nonce"]));
        let mut caller =
            Caller::new(Hello::default(), Credential::Secret { secret: secret.clone(), client_nonce });
        let mut acceptor = Acceptor::new(AcceptorConfig { endpoint_secret: Some(secret), server_nonce });
        let mut buffer = BytesMut::from(&caller.poll_transmit().unwrap()[..]);
        assert_eq!(acceptor.handle(&mut buffer), Ok(None));
        let challenge = acceptor.poll_transmit().unwrap();
        let Message::Handshake(Handshake::Challenge { server_proof, .. }) = decode(&challenge).message else {
            panic!("no Challenge")
        };
        assert_eq!(server_proof, array::<32>(&proof["server_proof"]));
        assert_eq!(caller.handle(&mut BytesMut::from(&challenge[..])), Ok(None));
        let answer = caller.poll_transmit().unwrap();
        let Message::Handshake(Handshake::AuthProof { client_proof }) = decode(&answer).message else {
            panic!("no AuthProof")
        };
        assert_eq!(client_proof, array::<32>(&proof["client_proof"]));
        assert_eq!(
            acceptor.handle(&mut BytesMut::from(&answer[..])),
            Ok(Some(Opening::Proven { hello: Hello::default() }))
        );
    }
}

#[test]
fn every_frame_of_the_first_exchange_is_one_that_we_understand() {
    for step in load("handshake.json").iter().flat_map(|vectors| list(&vectors["first_exchange"])) {
        let read = decode(&hex(&step["hex"]));
        assert!(!matches!(read.message, Message::Unknown), "{step}");
    }
}

#[test]
fn no_cut_of_a_golden_frame_and_no_wrong_byte_in_it_harms_a_decoder() {
    for case in load("frames.json").iter().flat_map(|vectors| list(&vectors["frames"])) {
        let body = hex(&case["hex"]).slice(PREFIX_BYTES..);
        for cut in 0..body.len() {
            look_at(&body.slice(..cut));
            for wrong in [0x00, 0x7f, 0x80, 0xff] {
                let mut bytes = body.to_vec();
                bytes[cut] = wrong;
                look_at(&bytes.into());
            }
        }
    }
}

proptest! {
    #[test]
    fn gibberish_harms_no_decoder_and_no_handshake(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        look_at(&bytes.into());
    }
}

/// Shows bytes to everything that strangers can reach; it must only not panic, and not let anybody in.
fn look_at(body: &Bytes) {
    let is_known = Frame::decode(body.clone()).is_ok();
    if let Some(data) = frame::parse_data(body) {
        assert!(is_known || data.stream == 0);
        assert!(data.payload.end <= body.len());
    }
    let mut framed = BytesMut::new();
    framed.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
    framed.extend_from_slice(body);
    let secret = EndpointSecret::new([1; 32]);
    let config = AcceptorConfig { endpoint_secret: Some(secret.clone()), server_nonce: [2; 32] };
    let outcome = Acceptor::new(config).handle(&mut framed.clone());
    assert!(!matches!(outcome, Ok(Some(Opening::Proven { .. }))));
    let credential = Credential::Secret { secret, client_nonce: [3; 32] };
    assert!(!matches!(Caller::new(Hello::default(), credential).handle(&mut framed), Ok(Some(_))));
}

// ---- The judge ----

async fn judge(vectors: &Value, case: &Value) -> Result<(), String> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut stranger = Stranger { socket: theirs, buffer: BytesMut::new() };
    let given = &vectors["givens"][text(&case["given"])];
    if text(&case["phase"]) == "pre" {
        let connection = tokio::spawn(answer_hello(vectors["daemon"].clone(), ours));
        for step in list(given).filter(|step| text(&step["from"]) == "plugin") {
            stranger.say(&hex(&step["hex"])).await;
            stranger.next().await.ok_or("the given ended early")?;
        }
        stranger.say(&hex(&case["hex"])).await;
        let outcome = stranger.expect(case).await;
        connection.abort();
        return outcome;
    }
    let mut judge = Judge::new(vectors, text(&case["judge"]) == "daemon", ours);
    for step in list(given) {
        judge.step(step, &mut stranger).await?;
    }
    stranger.say(&hex(&case["hex"])).await;
    let outcome = stranger.expect(case).await;
    if outcome.is_ok() && text(&case["answer"]) == "error" {
        let end = timeout(SOON, judge.session.ended()).await.map_err(|_| "the session lives on")?;
        if u64::from(end.code.number()) != case["code"].as_u64().unwrap() {
            return Err(format!("the session ended with {end}"));
        }
    }
    outcome
}

const SOON: Duration = Duration::from_secs(10);

/// What a daemon does with a fresh connection, as the vectors' daemon is configured.
async fn answer_hello(daemon: Value, socket: UnixStream) {
    let (mut read, mut write) = socket.into_split();
    let mut acceptor = Acceptor::new(AcceptorConfig {
        endpoint_secret: Some(EndpointSecret::new(array(&daemon["secret"]))),
        server_nonce: array(&daemon["server_nonce"]),
    });
    let mut buffer = BytesMut::new();
    let opening = match driver::greet(&mut read, &mut write, &mut buffer, &mut acceptor).await {
        Ok(opening) => opening,
        Err(GreetError::Rejected(_) | GreetError::Timeout | GreetError::Closed | GreetError::Io(_)) => return,
    };
    let good_token = LaunchToken::from_env_text(text(&daemon["launch_token"])).unwrap();
    let is_good_ticket =
        |ticket: &Ticket| list(&daemon["tickets"]).any(|good| ticket.as_bytes() == &array::<16>(good));
    let answer = match opening {
        Opening::Token { token, hello } if token.matches(&good_token) => {
            acceptor.welcome(&hello, welcome(&daemon))
        }
        Opening::Proven { hello } => acceptor.welcome(&hello, welcome(&daemon)),
        Opening::Attach { ticket } if is_good_ticket(&ticket) => acceptor.attached(),
        Opening::Token { .. } | Opening::Attach { .. } => {
            acceptor.refuse(Refused::new(Code::AUTH, "not known here [S-HELLO-3] [S-ATTACH-2]"))
        }
    };
    write.write_all(&answer).await.unwrap();
    write.shutdown().await.unwrap();
    read.read_to_end(&mut Vec::new()).await.unwrap();
}

/// The side that is judged: a session, and what its owner does to bring about what a case takes for given.
struct Judge {
    session: Session,
    _inbox: Inbox,
    is_daemon: bool,
    halves: Vec<(SendHalf, RecvHalf)>,
    answers: Vec<driver::Answer>,
    flows: Vec<driver::Flow>,
}

impl Judge {
    fn new(vectors: &Value, is_daemon: bool, socket: UnixStream) -> Self {
        let hello = Hello::default();
        let settings = match is_daemon {
            true => Settings::daemon(&limits_of(&vectors["daemon"]), &hello),
            false => Settings::plugin(&hello, &welcome(&vectors["daemon"])),
        };
        let (read, write) = socket.into_split();
        let (session, inbox) = driver::spawn(read, write, BytesMut::new(), settings);
        Self { session, _inbox: inbox, is_daemon, halves: Vec::new(), answers: Vec::new(), flows: Vec::new() }
    }

    async fn step(&mut self, step: &Value, stranger: &mut Stranger) -> Result<(), String> {
        let bytes = hex(&step["hex"]);
        let is_ours = (text(&step["from"]) == "daemon") == self.is_daemon;
        if !is_ours {
            stranger.say(&bytes).await;
            return Ok(());
        }
        // What the other side said has to be taken before we answer it.
        stranger.ping().await?;
        let wanted = decode(&bytes);
        self.bring_about(wanted.clone());
        let said = stranger.next().await.ok_or("the session ended in the given")?;
        // A stream that its owner ends is reset first, then told about.
        let said = match said.message {
            Message::Stream(StreamMessage::Reset { .. }) => stranger.next().await.ok_or("no StreamClosed")?,
            _ => said,
        };
        if said == wanted { Ok(()) } else { Err(format!("said {said:?} instead of {wanted:?}")) }
    }

    fn bring_about(&mut self, wanted: Frame) {
        let Frame { rid, message } = wanted;
        match message {
            Message::Body(Body::Opened(opened)) => {
                let id = opened.stream;
                match self.session.adopt_stream(id) {
                    Some(halves) => self.halves.push(halves),
                    None => self.flows.push(self.session.adopt_flow(id).unwrap()),
                }
                self.session.reply(rid.unwrap(), Body::Opened(opened));
            }
            Message::Body(Body::Accept(accept)) => {
                self.halves.push(self.session.adopt_stream(accept.stream).unwrap());
                self.session.reply(rid.unwrap(), Body::Accept(accept));
            }
            Message::Body(body) if body.is_answer() => self.session.reply(rid.unwrap(), body),
            Message::Body(Body::Open(open)) => {
                let opening = self.session.open_stream(|_| Body::Open(open)).unwrap();
                self.halves.push((opening.send, opening.recv));
                self.answers.push(opening.answer);
            }
            Message::Body(Body::Incoming(incoming)) => {
                let opening = self.session.open_stream(|_| Body::Incoming(incoming)).unwrap();
                self.halves.push((opening.send, opening.recv));
                self.answers.push(opening.answer);
            }
            Message::Body(body) if rid.is_some() => self.answers.push(self.session.request(body)),
            Message::Body(body) => self.session.notify(body),
            Message::Stream(StreamMessage::StreamClosed { facts, .. }) => {
                // Said by itself after the plugin's reset; otherwise the owner gives up.
                if facts.end == Some(End::new(Code::TIMEOUT)) {
                    self.halves.last_mut().unwrap().0.reset(End::new(Code::TIMEOUT));
                }
            }
            other => panic!("no case needs {other:?}"),
        }
    }
}

/// Whoever is told of a broken rule finds it in SPEC.md: each rule that the message names is there.
fn cites_a_rule(message: &str) -> Result<(), String> {
    let spec = include_str!("../SPEC.md");
    let cited: Vec<&str> = message.split("[S-").skip(1).filter_map(|rest| rest.split(']').next()).collect();
    match cited.iter().find(|rule| !spec.contains(&format!("\n- [S-{rule}] "))) {
        Some(unknown) => Err(format!("it cites S-{unknown}, which SPEC.md does not have")),
        None if cited.is_empty() => Err(format!("it cites no rule: {message:?}")),
        None => Ok(()),
    }
}

/// The side that does wrong.
struct Stranger {
    socket: UnixStream,
    buffer: BytesMut,
}

const PING: u64 = 0x7072_6f62_6521;

impl Stranger {
    async fn say(&mut self, bytes: &[u8]) {
        // Whoever is refused half-way may find the socket closed.
        match self.socket.write_all(bytes).await {
            Ok(()) | Err(_) => {}
        }
    }

    /// The next frame; `None` at the end.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(length) =
                frame::measure(&self.buffer, limits::FRAME_BYTES_HARD_MAX).expect("we speak frames")
            {
                return Some(
                    Frame::decode(frame::take_body(&mut self.buffer, length)).expect("and good ones"),
                );
            }
            match self.socket.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Sees that all which was said before has been taken, and that nothing came of it but what may.
    async fn ping(&mut self) -> Result<(), String> {
        self.say(&Frame { rid: None, message: Message::Ping(PING) }.to_bytes()).await;
        let mut kept = BytesMut::new();
        loop {
            let frame = self.next().await.ok_or("closed")?;
            if frame.message == Message::Pong(PING) {
                break;
            }
            kept.extend_from_slice(&frame.to_bytes());
        }
        kept.extend_from_slice(&self.buffer);
        self.buffer = kept;
        Ok(())
    }

    async fn expect(&mut self, case: &Value) -> Result<(), String> {
        match text(&case["answer"]) {
            "silence" => match self.is_closed_without_a_byte().await {
                true => Ok(()),
                false => Err("it was answered".to_owned()),
            },
            "refused" => {
                let frame = self.next().await.ok_or("closed without Refused")?;
                let Message::Handshake(Handshake::Refused(refused)) = frame.message else {
                    return Err(format!("answered by {:?}", frame.message));
                };
                same("code", refused.code.number(), &case["code"])?;
                same("rid", frame.rid.map_or(0, Rid::number), &case["rid"])?;
                cites_a_rule(&refused.message)?;
                self.expect_end().await
            }
            "error" => {
                self.expect_error(case).await?;
                self.expect_end().await
            }
            "reply" | "complaint" => {
                self.expect_error(case).await?;
                self.ping().await
            }
            "reset" => {
                let frame = self.next().await.ok_or("closed without Reset")?;
                let Message::Stream(StreamMessage::Reset { stream, end }) = frame.message else {
                    return Err(format!("answered by {:?}", frame.message));
                };
                same("code", end.code.number(), &case["code"])?;
                same("stream", stream.number(), &case["stream"])?;
                self.ping().await
            }
            "none" => {
                self.ping().await?;
                match self.buffer.is_empty() {
                    true => Ok(()),
                    false => Err(format!("answered by {:?}", self.next().await)),
                }
            }
            other => panic!("{other} is no answer"),
        }
    }

    async fn expect_error(&mut self, case: &Value) -> Result<(), String> {
        let mut frame = self.next().await.ok_or("closed without Error")?;
        // Good frames of the case that stand before its bad one are answered.
        while matches!(frame.message, Message::Pong(_)) {
            frame = self.next().await.ok_or("closed without Error")?;
        }
        let Message::Body(Body::Error(error)) = frame.message else {
            return Err(format!("answered by {:?}", frame.message));
        };
        same("code", error.code.number(), &case["code"])?;
        if error.code.class() == Class::Session || CITING_REQUEST_CODES.contains(&error.code) {
            cites_a_rule(&error.message)?;
        }
        same("rid", frame.rid.map_or(0, Rid::number), &case["rid"])?;
        same("stream", error.stream.map_or(0, |id| id.number()), &case["stream"])
    }

    async fn expect_end(&mut self) -> Result<(), String> {
        match self.next().await {
            None => Ok(()),
            Some(frame) => Err(format!("more was said: {:?}", frame.message)),
        }
    }

    async fn is_closed_without_a_byte(&mut self) -> bool {
        matches!(self.socket.read_buf(&mut self.buffer).await, Ok(0) | Err(_)) && self.buffer.is_empty()
    }
}

fn same(what: &str, found: u32, wanted: &Value) -> Result<(), String> {
    match wanted.as_u64() == Some(u64::from(found)) {
        true => Ok(()),
        false => Err(format!("{what} {found} instead of {wanted}")),
    }
}

// ---- What stands in the files ----

/// A file of vectors: as it is now, and as it was in each release.
fn load(file: &str) -> Vec<Value> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![here.join("vectors")];
    for entry in fs::read_dir(here.join("releases")).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            folders.push(entry.path().join("vectors"));
        }
    }
    assert!(folders.len() > 1, "no release");
    let read = |folder: &Path| fs::read_to_string(folder.join(file)).unwrap();
    folders.iter().map(|folder| serde_json::from_str(&read(folder)).unwrap()).collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap().iter()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn hex(value: &Value) -> Bytes {
    let digits = text(value).as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    hex(value).as_ref().try_into().unwrap()
}

fn number(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

fn decode(bytes: &Bytes) -> Frame {
    Frame::decode(bytes.slice(PREFIX_BYTES..)).unwrap()
}

fn limits_of(daemon: &Value) -> Limits {
    let told = &daemon["limits"];
    Limits {
        frame_bytes_max: number(&told["frame_bytes_max"]),
        data_bytes_max: number(&told["data_bytes_max"]),
        stream_window_bytes: number(&told["stream_window_bytes"]),
        streams_max: number(&told["streams_max"]),
        protocols_max: number(&told["protocols_max"]),
        requests_max: number(&told["requests_max"]),
        log_line_bytes_max: number(&told["log_line_bytes_max"]),
    }
}

fn welcome(daemon: &Value) -> Welcome {
    Welcome {
        version: 1,
        features: Vec::new(),
        daemon: "p2pos".to_owned(),
        plugin_id: "org.example.test".to_owned(),
        instance_id: "1".to_owned(),
        peer_id: text(&daemon["peer_id"]).parse().unwrap(),
        grants: Vec::new(),
        limits: limits_of(daemon),
    }
}

/// The name of a message as plugin.proto has it.
fn name(message: &Message) -> &'static str {
    match message {
        Message::Stream(message) => match message {
            StreamMessage::Data { .. } => "data",
            StreamMessage::Window { .. } => "window",
            StreamMessage::Datagram { .. } => "datagram",
            StreamMessage::Reset { .. } => "reset",
            StreamMessage::StopSending { .. } => "stop_sending",
            StreamMessage::StreamClosed { .. } => "stream_closed",
        },
        Message::Handshake(handshake) => match handshake {
            Handshake::Hello(..) => "hello",
            Handshake::Challenge { .. } => "challenge",
            Handshake::AuthProof { .. } => "auth_proof",
            Handshake::Welcome(_) => "welcome",
            Handshake::Refused(_) => "refused",
            Handshake::Attach(_) => "attach",
            Handshake::Attached => "attached",
        },
        Message::Ping(_) => "ping",
        Message::Pong(_) => "pong",
        Message::Unknown => "unknown",
        Message::Body(body) => match body {
            Body::Open(_) => "open",
            Body::Opened(_) => "opened",
            Body::Incoming(_) => "incoming",
            Body::Accept(_) => "accept",
            Body::Reject(_) => "reject",
            Body::Error(_) => "error",
            Body::Done => "done",
            Body::Register(_) => "register",
            Body::Unregister(_) => "unregister",
            Body::Cancel(_) => "cancel",
            Body::Ready => "ready",
            Body::Status(_) => "status",
            Body::Log(_) => "log",
            Body::Subscribe(_) => "subscribe",
            Body::Event(_) => "event",
            Body::ContactList => "contact_list",
            Body::Contacts(_) => "contacts",
            Body::GoAway(_) => "go_away",
            Body::Shutdown(_) => "shutdown",
        },
    }
}

/// Compares every number, flag, text and bytes field of `body` with what the debug output of our own type shows under
/// the same name; so no two fields can have changed places on the way.
fn check_fields(id: &str, read: &Frame, body: &Value) {
    let Some(fields) = body.as_object() else { return };
    let shown = format!("{:?}", read.message);
    for (field, value) in fields {
        let number_shown = |n: u64| shown.contains(&n.to_string());
        let is_there = match value {
            // Durations show as such, and ids and codes show their number.
            Value::Number(n) if field.ends_with("_ms") => {
                shown.contains(&format!("{:?}", Duration::from_millis(n.as_u64().unwrap())))
            }
            Value::Number(n) => number_shown(n.as_u64().unwrap()),
            Value::Bool(flag) => !flag || shown.contains(&format!("{field}: true")),
            Value::String(text) if ["magic", "name"].contains(&field.as_str()) => !text.is_empty(),
            Value::String(_) if ["ticket", "launch_token", "client_nonce"].contains(&field.as_str()) => true,
            Value::String(_) if field.ends_with("proof") || field.ends_with("nonce") => true,
            Value::String(text) if field == "payload" => {
                text.is_empty() || matches!(read.message, Message::Stream(_))
            }
            Value::String(text) if field == "peer" || field == "peer_id" => shown.contains(&text[4..8]),
            Value::String(_) => true,
            Value::Array(_) | Value::Object(_) | Value::Null => true,
        };
        assert!(is_there, "{id}: {field} {value} does not show in {shown}");
    }
}
