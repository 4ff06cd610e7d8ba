//! How cases write frames: `data stream=1 payload="hi" fin=true`, and how they say what they expect.
//!
//! A word is `field=value`. Values: a number; `true`; an enum's value by its name; `"text with \n"`; bare text; `0x` and hex digits for bytes;
//! `pattern:N:SEED` for bytes of the pattern; `{field=value,field=value}` for a message. A repeated field stands there several times. `$name`
//! anywhere is replaced by a variable. In an expectation a value may also be `*` (there, and not the default), `?name` (anything; remember it)
//! and `N..M` (a number in between, both included); a field that is not mentioned may be anything.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};

use crate::codec::{Fields, Frame, Value};
use crate::pattern;
use crate::schema::{Field, Kind, Schema};

/// What a case has given names to.
#[derive(Clone, Debug, Default)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// Remembers.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// What was remembered.
    ///
    /// # Errors
    /// If nothing was.
    pub fn get(&self, name: &str) -> Result<&str> {
        self.0.get(name).map(String::as_str).with_context(|| format!("nothing is called ${name} here"))
    }

    /// Replaces each `$name` in a text.
    ///
    /// # Errors
    /// If nothing has that name.
    pub fn fill(&self, text: &str) -> Result<String> {
        let mut parts = text.split('$');
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end =
                part.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').unwrap_or(part.len());
            out.push_str(self.get(&part[..end])?);
            out.push_str(&part[end..]);
        }
        Ok(out)
    }
}

/// Cuts a line into words at spaces outside of quotes.
#[must_use]
pub fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for c in line.chars() {
        is_quoted ^= c == '"';
        match words.last_mut() {
            Some(word) if c != ' ' || is_quoted => word.push(c),
            _ => words.push(String::new()),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Makes a frame of a message's name and `field=value` words; `rid=` is the frame's own.
///
/// # Errors
/// If there is no such message, field or value.
pub fn frame(words: &[String]) -> Result<Frame> {
    let (name, words) = words.split_first().context("a message's name is missing")?;
    let message = message_of(name)?;
    let mut frame = Frame::new(0, name, Fields::default());
    for word in words {
        let (field, value) = word.split_once('=').with_context(|| format!("{word:?} is no field=value"))?;
        match field {
            "rid" => frame.rid = value.parse().context("a rid is a number")?,
            _ => frame.fields.0.push((field.to_owned(), read(&message, field, value)?)),
        }
    }
    Ok(frame)
}

fn message_of(name: &str) -> Result<String> {
    match Schema::of_the_protocol().field("Frame", name).map(|field| &field.kind) {
        Some(Kind::Message(message)) => Ok(message.clone()),
        _ => bail!("no message is called {name:?}"),
    }
}

fn field_of(message: &str, name: &str) -> Result<&'static Field> {
    Schema::of_the_protocol().field(message, name).with_context(|| format!("{message} has no field {name:?}"))
}

fn read(message: &str, field: &str, value: &str) -> Result<Value> {
    Ok(match &field_of(message, field)?.kind {
        Kind::Number => Value::Number(number(value)?),
        Kind::Enum(name) => match Schema::of_the_protocol().number_of(name, value) {
            Some(number) => Value::Number(number),
            None => Value::Number(value.parse().with_context(|| format!("{name} has no value {value:?}"))?),
        },
        Kind::Text | Kind::Bytes => Value::Bytes(bytes(value)?),
        Kind::Message(kind) => {
            let mut fields = Fields::default();
            for (field, value) in inner(value)? {
                fields.0.push((field.to_owned(), read(kind, field, value)?));
            }
            Value::Fields(fields)
        }
    })
}

fn inner(value: &str) -> Result<Vec<(&str, &str)>> {
    let inside = value.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let inside = inside.with_context(|| format!("{value:?} is no {{field=value,...}}"))?;
    let fields = inside.split(',').filter(|word| !word.is_empty());
    fields.map(|word| word.split_once('=').with_context(|| format!("{word:?} is no field=value"))).collect()
}

fn number(value: &str) -> Result<u64> {
    match value {
        "true" => Ok(1),
        "false" => Ok(0),
        _ => value.parse().with_context(|| format!("{value:?} is no number")),
    }
}

fn bytes(value: &str) -> Result<Vec<u8>> {
    if let Some(text) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        return Ok(text.replace("\\n", "\n").into_bytes());
    }
    if let Some(digits) = value.strip_prefix("0x") {
        return unhex(digits);
    }
    match value.strip_prefix("pattern:").and_then(|rest| rest.split_once(':')) {
        Some((count, seed)) => Ok(pattern::bytes(count.parse()?, seed.parse()?)),
        None => Ok(value.as_bytes().to_vec()),
    }
}

/// Bytes from hex digits.
///
/// # Errors
/// If they are none.
pub fn unhex(digits: &str) -> Result<Vec<u8>> {
    ensure!(digits.len().is_multiple_of(2) && digits.is_ascii(), "{digits:?} are no pairs of hex digits");
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
}

/// Hex digits of bytes.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares a frame with an expectation, and remembers what it asks to be remembered if all of it fits.
///
/// # Errors
/// If the expectation itself makes no sense.
pub fn fits(words: &[String], frame: &Frame, variables: &mut Variables) -> Result<bool> {
    let (name, words) = words.split_first().context("a message's name is missing")?;
    let message = message_of(name)?;
    if frame.name != *name {
        return Ok(false);
    }
    let mut found = Vec::new();
    for word in words {
        let (field, wanted) = word.split_once('=').with_context(|| format!("{word:?} is no field=value"))?;
        let does_fit = match field {
            "rid" => one_fits(&Kind::Number, wanted, &Value::Number(frame.rid), &mut found)?,
            _ => field_fits(&message, field, wanted, &frame.fields, &mut found)?,
        };
        if !does_fit {
            return Ok(false);
        }
    }
    for (name, value) in found {
        variables.set(&name, value);
    }
    Ok(true)
}

type Found = Vec<(String, String)>;

fn field_fits(message: &str, field: &str, wanted: &str, fields: &Fields, found: &mut Found) -> Result<bool> {
    let shape = field_of(message, field)?;
    for value in fields.all(field) {
        if one_fits(&shape.kind, wanted, value, found)? {
            return Ok(true);
        }
    }
    let default = match shape.kind {
        Kind::Number | Kind::Enum(_) => Value::Number(0),
        Kind::Text | Kind::Bytes => Value::Bytes(Vec::new()),
        Kind::Message(_) => Value::Fields(Fields::default()),
    };
    Ok(fields.get(field).is_none() && one_fits(&shape.kind, wanted, &default, found)?)
}

fn one_fits(kind: &Kind, wanted: &str, value: &Value, found: &mut Found) -> Result<bool> {
    if wanted == "*" {
        return Ok(*value != Value::Number(0) && *value != Value::Bytes(Vec::new()));
    }
    if let Some(name) = wanted.strip_prefix('?') {
        found.push((name.to_owned(), shown(kind, value)));
        return Ok(true);
    }
    Ok(match (kind, value) {
        (Kind::Number, Value::Number(number)) => in_range(wanted, *number)?,
        (Kind::Enum(name), Value::Number(number)) => {
            Schema::of_the_protocol().number_of(name, wanted) == Some(*number) || wanted == number.to_string()
        }
        (Kind::Text | Kind::Bytes, Value::Bytes(is)) => bytes(wanted)? == *is,
        (Kind::Message(kind), Value::Fields(fields)) => {
            for (field, wanted) in inner(wanted)? {
                if !field_fits(kind, field, wanted, fields, found)? {
                    return Ok(false);
                }
            }
            true
        }
        _ => false,
    })
}

fn in_range(wanted: &str, is: u64) -> Result<bool> {
    Ok(match wanted.split_once("..") {
        Some((least, most)) => (number(least)?..=number(most)?).contains(&is),
        None => number(wanted)? == is,
    })
}

/// A value as a case writes it: bytes in hex.
fn shown(kind: &Kind, value: &Value) -> String {
    match (kind, value) {
        (Kind::Enum(name), Value::Number(number)) => {
            Schema::of_the_protocol().name_of(name, *number).map_or_else(|| number.to_string(), str::to_owned)
        }
        (_, Value::Number(number)) => number.to_string(),
        (Kind::Bytes, Value::Bytes(bytes)) => format!("0x{}", hex(bytes)),
        (_, Value::Bytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        (_, Value::Fields(_)) => String::new(),
    }
}

/// Longest piece of one value that a trace shows, in characters: a line must stay a line.
const SHOWN_MAX: usize = 72;

/// A frame in one line, for traces.
#[must_use]
pub fn show(frame: &Frame) -> String {
    let mut line = if frame.name.is_empty() { "(unknown body)".to_owned() } else { frame.name.clone() };
    if frame.rid > 0 {
        line.push_str(&format!(" rid={}", frame.rid));
    }
    let message = message_of(&frame.name).unwrap_or_default();
    line.push_str(&show_fields(&message, &frame.fields, ' '));
    line
}

fn show_fields(message: &str, fields: &Fields, before: char) -> String {
    let mut line = String::new();
    for (name, value) in &fields.0 {
        let kind = Schema::of_the_protocol().field(message, name).map_or(&Kind::Number, |field| &field.kind);
        let text = match (kind, value) {
            (Kind::Message(inner), Value::Fields(fields)) => {
                format!("{{{}}}", show_fields(inner, fields, ',').trim_start_matches(','))
            }
            (Kind::Bytes, Value::Bytes(bytes)) if bytes.len() > 24 => {
                format!("0x{}... ({} bytes)", hex(&bytes[..8]), bytes.len())
            }
            (Kind::Text, value) => format!("{:?}", shown(kind, value)),
            _ => shown(kind, value),
        };
        let text = match text.char_indices().nth(SHOWN_MAX) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text,
        };
        line.push_str(&format!("{before}{name}={text}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(line: &str, frame: &Frame) -> bool {
        fits(&words(line), frame, &mut Variables::default()).unwrap()
    }

    #[test]
    fn a_frame_reads_as_it_is_written() {
        let line =
            r#"incoming rid=1 stream=2 protocol="/chat/1" kind=STREAM petname="bo or so" is_contact=1"#;
        let frame = frame(&words(line)).unwrap();
        assert_eq!(frame.fields.text("petname"), "bo or so");
        assert_eq!(show(&frame), line);
    }

    #[test]
    fn an_expectation_names_what_matters() {
        let data = frame(&words("data stream=1 payload=0x6869 fin=true")).unwrap();
        assert!(says("data", &data) && says("data stream=1 payload=hi fin=true", &data));
        assert!(says("data stream=1..3 payload=* rid=0", &data));
        assert!(
            !says("data fin=false", &data) && !says("window stream=1", &data) && !says("data rid=*", &data)
        );
        let register =
            frame(&words("register protocols={name=/a/1} protocols={name=/b/1,kind=DATAGRAM}")).unwrap();
        assert!(says("register protocols={name=/b/1,kind=DATAGRAM}", &register));
        assert!(!says("register protocols={name=/a/1,kind=DATAGRAM}", &register));
    }

    #[test]
    fn what_is_remembered_can_be_used() {
        let mut variables = Variables::default();
        let opened = frame(&words("opened stream=7 ticket=0x00ff")).unwrap();
        assert!(fits(&words("opened stream=?s ticket=?t"), &opened, &mut variables).unwrap());
        assert_eq!(variables.fill("attach ticket=$t, $s.").unwrap(), "attach ticket=0x00ff, 7.");
        assert!(variables.fill("$nobody").is_err());
    }
}
