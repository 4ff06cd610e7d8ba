//! Bytes from fields and back, by the schema: the kit's own protobuf, so that the codecs it judges cannot hide their faults in it.
//!
//! Strict where [S-MSG-4] is: what is no protobuf, or has a known field of the wrong wire type, is an error. Encodes what it is told,
//! in the order in which it is told, defaults too: a case may want that.

use anyhow::{Context as _, Result, bail, ensure};

use crate::schema::{Field, Kind, Schema};

/// What a field holds. Texts are bytes, bools and enum values are numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number, a bool, an enum's value.
    Number(u64),
    /// Text or bytes.
    Bytes(Vec<u8>),
    /// A message.
    Fields(Fields),
}

/// A message's fields, in the order of the wire; a repeated one stands there several times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, Value)>);

impl Fields {
    /// All values of this field.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |(field, _)| field == name).map(|(_, value)| value)
    }

    /// The value of this field, if it is there.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().rev().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    /// A number; 0 if it is not there.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        if let Some(Value::Number(number)) = self.get(name) { *number } else { 0 }
    }

    /// Text or bytes; empty if they are not there.
    #[must_use]
    pub fn bytes(&self, name: &str) -> &[u8] {
        if let Some(Value::Bytes(bytes)) = self.get(name) { bytes } else { &[] }
    }

    /// Text.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(self.bytes(name)).into_owned()
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.0.push((name.to_owned(), value));
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn and(self, name: &str, number: u64) -> Self {
        self.with(name, Value::Number(number))
    }

    /// Adds text or bytes.
    #[must_use]
    pub fn and_bytes(self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.with(name, Value::Bytes(bytes.into()))
    }
}

/// One frame: who waits for an answer, and one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// 0: nobody.
    pub rid: u64,
    /// As the field of Frame is called: `data`, `stream_closed`; empty for a body that this version does not know.
    pub name: String,
    /// The message.
    pub fields: Fields,
}

impl Frame {
    /// A frame with this message.
    #[must_use]
    pub fn new(rid: u64, name: &str, fields: Fields) -> Self {
        Self { rid, name: name.to_owned(), fields }
    }

    /// The whole frame, its length before it.
    ///
    /// # Errors
    /// If plugin.proto knows no such message or field.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut frame = Fields::default();
        if self.rid > 0 {
            frame = frame.and("rid", self.rid);
        }
        let body = encode("Frame", &frame.with(&self.name, Value::Fields(self.fields.clone())))?;
        let length = u32::try_from(body.len()).context("a frame of more than 4 GiB")?;
        Ok([&length.to_be_bytes()[..], &body].concat())
    }

    /// Reads the body of a frame, without its length.
    ///
    /// # Errors
    /// Says what [S-MSG-4] forbids and is there.
    pub fn from_body(body: &[u8]) -> Result<Self> {
        let fields = decode("Frame", body)?;
        let rid = fields.number("rid");
        let last = fields.0.into_iter().rev().find(|(name, _)| name != "rid");
        Ok(match last {
            Some((name, Value::Fields(fields))) => Self { rid, name, fields },
            Some(_) | None => Self { rid, ..Self::default() },
        })
    }
}

/// Encodes a message.
///
/// # Errors
/// If plugin.proto has no such field, or one of another kind.
pub fn encode(message: &str, fields: &Fields) -> Result<Vec<u8>> {
    let schema = Schema::of_the_protocol();
    let mut out = Vec::new();
    let mut at = 0;
    while let Some((name, value)) = fields.0.get(at) {
        let field =
            schema.field(message, name).with_context(|| format!("{message} has no field {name:?}"))?;
        at += 1;
        match (&field.kind, value) {
            (Kind::Enum(_), Value::Number(_)) if field.is_repeated => {
                let run: Vec<u64> = fields.all(name).map(as_number).collect();
                at += run.len() - 1;
                let packed: Vec<u8> = run.iter().flat_map(|number| varint(*number)).collect();
                put_bytes(&mut out, field, &packed);
            }
            (Kind::Number | Kind::Enum(_), Value::Number(number)) => {
                out.extend(varint(field.number << 3));
                out.extend(varint(*number));
            }
            (Kind::Text | Kind::Bytes, Value::Bytes(bytes)) => put_bytes(&mut out, field, bytes),
            (Kind::Message(kind), Value::Fields(inner)) => put_bytes(&mut out, field, &encode(kind, inner)?),
            _ => bail!("{message}.{name} does not hold {value:?}"),
        }
    }
    Ok(out)
}

fn as_number(value: &Value) -> u64 {
    if let Value::Number(number) = value { *number } else { 0 }
}

fn put_bytes(out: &mut Vec<u8>, field: &Field, bytes: &[u8]) {
    out.extend(varint(field.number << 3 | 2));
    out.extend(varint(bytes.len() as u64));
    out.extend_from_slice(bytes);
}

/// A number as protobuf writes it.
#[must_use]
pub fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number > 0x7f {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
    out
}

/// Decodes a message. Parts of one message are merged, unknown fields are skipped.
///
/// # Errors
/// Says what is no protobuf.
pub fn decode(message: &str, bytes: &[u8]) -> Result<Fields> {
    let schema = Schema::of_the_protocol();
    let mut reader = Reader { bytes, at: 0 };
    // Parts of the same message, joined: reading them in one go merges them.
    let mut parts: Vec<(&Field, Vec<u8>)> = Vec::new();
    let mut fields = Fields::default();
    while reader.at < bytes.len() {
        let tag = reader.varint()?;
        let (number, wire) = (tag >> 3, tag & 7);
        ensure!(number > 0 && tag <= u64::from(u32::MAX), "a field with number {number}");
        let raw = reader.value(wire)?;
        let Some(field) = schema.numbered(message, number) else { continue };
        match (&field.kind, raw) {
            (Kind::Number | Kind::Enum(_), Raw::Number(value)) => {
                let value = match field.bits {
                    1 => u64::from(value != 0),
                    32 => value & u64::from(u32::MAX),
                    _ => value,
                };
                put(message, &mut fields, field, Value::Number(value));
            }
            (Kind::Enum(_), Raw::Bytes(packed)) if field.is_repeated => {
                let mut inner = Reader { bytes: packed, at: 0 };
                while inner.at < packed.len() {
                    put(message, &mut fields, field, Value::Number(inner.varint()?));
                }
            }
            (Kind::Text, Raw::Bytes(text)) => {
                std::str::from_utf8(text).with_context(|| format!("{message}.{} is no UTF-8", field.name))?;
                put(message, &mut fields, field, Value::Bytes(text.to_vec()));
            }
            (Kind::Bytes, Raw::Bytes(data)) => put(message, &mut fields, field, Value::Bytes(data.to_vec())),
            (Kind::Message(kind), Raw::Bytes(data)) if field.is_repeated => {
                put(message, &mut fields, field, Value::Fields(decode(kind, data)?));
            }
            (Kind::Message(_), Raw::Bytes(data)) => match parts.last_mut() {
                Some((last, joined)) if last.number == field.number => joined.extend_from_slice(data),
                Some(_) | None => parts.push((field, data.to_vec())),
            },
            _ => bail!("{message}.{} has wire type {wire}", field.name),
        }
    }
    for (field, joined) in parts {
        if let Kind::Message(kind) = &field.kind {
            fields = fields.with(&field.name, Value::Fields(decode(kind, &joined)?));
        }
    }
    Ok(fields)
}

/// The last one of a field that is there once counts.
fn put(message: &str, fields: &mut Fields, field: &Field, value: Value) {
    if !field.is_repeated {
        let is_replaced = |name: &str| {
            let other = Schema::of_the_protocol().field(message, name);
            name == field.name
                || (field.one_of.is_some() && other.is_some_and(|other| other.one_of == field.one_of))
        };
        fields.0.retain(|(name, _)| !is_replaced(name));
    }
    fields.0.push((field.name.clone(), value));
}

enum Raw<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Skipped,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = *self.bytes.get(self.at).context("cut inside a number")?;
            self.at += 1;
            if shift < 64 {
                value |= u64::from(byte & 0x7f) << shift;
            }
            if byte < 0x80 {
                return Ok(value);
            }
        }
        bail!("a number of more than ten bytes")
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.context("a length that reaches out of its message")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn value(&mut self, wire: u64) -> Result<Raw<'a>> {
        Ok(match wire {
            0 => Raw::Number(self.varint()?),
            1 => self.take(8).map(|_| Raw::Skipped)?,
            2 => {
                let length = usize::try_from(self.varint()?).context("a length beyond all memory")?;
                Raw::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Raw::Skipped)?,
            other => bail!("wire type {other}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_s_example_is_written_and_read() {
        let fields = Fields::default().and("stream", 5).and_bytes("payload", *b"hi").and("fin", 1);
        let frame = Frame::new(0, "data", fields);
        let bytes = [0, 0, 0, 10, 0x12, 8, 8, 5, 0x12, 2, b'h', b'i', 0x18, 1];
        assert_eq!(frame.to_bytes().unwrap(), bytes);
        assert_eq!(Frame::from_body(&bytes[4..]).unwrap(), frame);
    }

    #[test]
    fn what_is_no_protobuf_is_an_error() {
        for bytes in [&[0x12][..], &[0x12, 9, 1], &[0x07], &[0x0b], &[0x0a, 1, 0], &[0x80; 11], &[0, 1]] {
            assert!(Frame::from_body(bytes).is_err(), "{bytes:?}");
        }
    }
}
