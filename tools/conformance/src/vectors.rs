//! The golden vectors: that this kit's codec and the Rust one read and write them alike, byte for byte.
//!
//! Implementations in other languages read the same three files in their own tests (SPEC.md, section 12); this mode shows what such a test
//! has to look at, and that the kit judges by the truth.

use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use p2pos_plugin_protocol::frame as rust_frame;
use p2pos_plugin_protocol::limits::{FRAME_BYTES_MAX, HELLO_BYTES_MAX};
use p2pos_plugin_protocol::message;
use serde_json::Value as Json;

use crate::case::{Case, Judged, Level};
use crate::codec::{Fields, Frame, Value};
use crate::notation::{self, unhex};
use crate::schema::{Kind, Schema};
use crate::verdict::{Outcome, judge};

const FRAMES: &str = include_str!("../../../plugin-protocol/vectors/frames.json");
const MALFORMED: &str = include_str!("../../../plugin-protocol/vectors/malformed.json");
const HANDSHAKE: &str = include_str!("../../../plugin-protocol/vectors/handshake.json");
const PREFIX: usize = 4;

/// Reads one of the files.
///
/// # Errors
/// If it is no JSON.
pub fn malformed() -> Result<Json> {
    serde_json::from_str(MALFORMED).context("read malformed.json")
}

/// Runs all vectors that can be judged without a session.
///
/// # Errors
/// If a file cannot be read.
pub fn run() -> Result<Vec<(Case, Outcome)>> {
    let frames: Json = serde_json::from_str(FRAMES).context("read frames.json")?;
    let handshake: Json = serde_json::from_str(HANDSHAKE).context("read handshake.json")?;
    let malformed = malformed()?;
    let mut ran = Vec::new();
    for vector in list(&frames["frames"]) {
        ran.push(judged("frame", vector, || encodes(vector).and_then(|()| decodes(vector))));
    }
    for vector in list(&frames["decode_only"]) {
        ran.push(judged("decode", vector, || decodes(vector)));
    }
    for vector in list(&malformed["cases"]).filter(|vector| vector["layer"] == "frame") {
        ran.push(judged("malformed", vector, || is_no_frame(vector)));
    }
    let of_messages = |vector: &&Json| vector["layer"] == "message" && vector["answer"] == "error";
    for vector in list(&malformed["cases"]).filter(of_messages) {
        ran.push(judged("malformed", vector, || is_refused(vector)));
    }
    for part in ["token", "hmac", "first_exchange"] {
        for vector in list(&handshake[part]) {
            ran.push(judged(part, vector, || reads_in_both(&bytes(vector)?).map(|_| ())));
        }
    }
    Ok(ran)
}

fn judged(group: &str, vector: &Json, check: impl FnOnce() -> Result<()>) -> (Case, Outcome) {
    let name = vector["id"].as_str().or_else(|| vector["name"].as_str()).unwrap_or_default();
    let id = format!("{group}-{name}");
    let about = vector["why"].as_str().unwrap_or("a frame that both codecs read and write alike").to_owned();
    let case = Case {
        id: id.clone(),
        judges: Judged::Plugin,
        level: Level::Bronze,
        section: 12,
        rules: vec!["S-MSG-1".to_owned()],
        states: Vec::new(),
        ends: Vec::new(),
        about,
        is_slow: false,
        is_unscored: false,
        steps: String::new(),
    };
    let started = Instant::now();
    let verdict = judge(&check());
    (case, Outcome::new(&id, verdict, started.elapsed()))
}

fn list(value: &Json) -> impl Iterator<Item = &Json> {
    value.as_array().into_iter().flatten()
}

fn bytes(vector: &Json) -> Result<Vec<u8>> {
    unhex(vector["hex"].as_str().context("a vector without hex")?)
}

/// Both codecs make exactly these bytes.
fn encodes(vector: &Json) -> Result<()> {
    let wanted = bytes(vector)?;
    let name = vector["message"].as_str().context("a vector without a message")?;
    let kind = match &Schema::of_the_protocol().field("Frame", name).context("an unknown message")?.kind {
        Kind::Message(kind) => kind.clone(),
        Kind::Number | Kind::Text | Kind::Bytes | Kind::Enum(_) => bail!("{name} is no message"),
    };
    let fields = from_json(&kind, &vector["body"])?;
    let ours = Frame::new(vector["rid"].as_u64().unwrap_or(0), name, fields).to_bytes()?;
    ensure!(ours == wanted, "the kit writes {}", notation::hex(&ours));
    // The Rust codec may write defaults out; what it writes must read as the same. A message that no good sender sends it need not take.
    if let Ok(frame) = message::Frame::decode(wanted[PREFIX..].to_vec().into()) {
        let theirs = frame.clone().to_bytes();
        let again = message::Frame::decode(theirs.slice(PREFIX..));
        ensure!(again.as_ref() == Ok(&frame), "the Rust codec writes {}", notation::hex(&theirs));
    }
    Ok(())
}

/// Both codecs read it, and the kit's finds the fields that stand there.
fn decodes(vector: &Json) -> Result<()> {
    let frame = reads_in_both(&bytes(vector)?)?;
    let name = vector["message"].as_str().unwrap_or_default();
    ensure!(frame.name == name, "it reads as {:?}", frame.name);
    ensure!(frame.rid == vector["rid"].as_u64().unwrap_or(0), "its rid reads as {}", frame.rid);
    let kind = match Schema::of_the_protocol().field("Frame", name).map(|field| &field.kind) {
        Some(Kind::Message(kind)) => kind.clone(),
        _ => return Ok(()),
    };
    let wanted = from_json(&kind, &vector["body"])?;
    ensure!(
        without_defaults(&frame.fields) == without_defaults(&wanted),
        "it reads as {}",
        notation::show(&frame)
    );
    Ok(())
}

fn reads_in_both(bytes: &[u8]) -> Result<Frame> {
    let length = rust_frame::measure(bytes, FRAME_BYTES_MAX)?;
    ensure!(length == Some(bytes.len() - PREFIX), "the length is not that of the frame");
    let ours = Frame::from_body(&bytes[PREFIX..])?;
    let theirs = message::Frame::decode(bytes[PREFIX..].to_vec().into());
    match theirs {
        Err(message::DecodeError::Violation { violation, .. }) if violation.what.contains("[S-MSG-4]") => {
            bail!("the Rust codec says: {violation}")
        }
        Ok(_) | Err(_) => Ok(ours),
    }
}

fn from_json(message: &str, body: &Json) -> Result<Fields> {
    let schema = Schema::of_the_protocol();
    let mut fields = Fields::default();
    for field in schema.message(message) {
        let value = &body[&field.name];
        let values: Vec<&Json> = match value {
            Json::Null => Vec::new(),
            Json::Array(values) if field.is_repeated => values.iter().collect(),
            Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) | Json::Object(_) => {
                vec![value]
            }
        };
        for value in values {
            let value = match (&field.kind, value) {
                (Kind::Number, Json::Bool(is)) => Value::Number(u64::from(*is)),
                (Kind::Number | Kind::Enum(_), Json::Number(number)) => {
                    Value::Number(number.as_u64().context("too large")?)
                }
                (Kind::Enum(name), Json::String(value)) => Value::Number(
                    schema.number_of(name, value).with_context(|| format!("{name} has no {value}"))?,
                ),
                (Kind::Text, Json::String(text)) => Value::Bytes(text.clone().into_bytes()),
                (Kind::Bytes, Json::String(hex)) => Value::Bytes(unhex(hex)?),
                (Kind::Message(kind), value @ Json::Object(_)) => Value::Fields(from_json(kind, value)?),
                (_, value) => bail!("{message}.{} cannot be {value}", field.name),
            };
            fields = fields.with(&field.name, value);
        }
    }
    Ok(fields)
}

/// What stands there beside defaults, in the order of the names.
fn without_defaults(fields: &Fields) -> Fields {
    let mut kept: Vec<(String, Value)> = Vec::new();
    for (name, value) in &fields.0 {
        match value {
            Value::Number(0) => {}
            Value::Bytes(bytes) if bytes.is_empty() => {}
            Value::Fields(inner) => kept.push((name.clone(), Value::Fields(without_defaults(inner)))),
            Value::Number(_) | Value::Bytes(_) => kept.push((name.clone(), value.clone())),
        }
    }
    kept.sort_by(|one, other| one.0.cmp(&other.0));
    Fields(kept)
}

/// The four bytes alone show that it is none.
fn is_no_frame(vector: &Json) -> Result<()> {
    let mut bytes = bytes(vector)?;
    let max = if vector["phase"] == "pre" { HELLO_BYTES_MAX } else { 65_536 };
    // Good frames may stand before it.
    while let Ok(Some(length)) = rust_frame::measure(&bytes, max) {
        bytes.drain(..PREFIX + length);
    }
    let Err(error) = rust_frame::measure(&bytes, max) else { bail!("it is taken for the start of a frame") };
    let code = u64::from(error.code().number());
    let is_right = Some(code) == vector["code"].as_u64() || vector["answer"] == "silence";
    ensure!(is_right, "the Rust codec says {code}");
    Ok(())
}

/// The Rust codec says that it breaks a rule.
fn is_refused(vector: &Json) -> Result<()> {
    let bytes = bytes(vector)?;
    match message::Frame::decode(bytes[PREFIX..].to_vec().into()) {
        Err(message::DecodeError::Violation { violation, .. }) => {
            let code = u64::from(violation.code.number());
            ensure!(Some(code) == vector["code"].as_u64(), "the Rust codec says {code}");
            Ok(())
        }
        other => bail!("the Rust codec says {other:?}"),
    }
}
