//! The messages' shapes, read from plugin.proto itself, so that no message has to be written down here a second time.
//!
//! Knows as much of the proto3 language as that file uses: messages, enums beside and inside them, `oneof`, `repeated`. Refuses
//! to know bytes; those are [`crate::codec`]'s.

use std::collections::BTreeMap;
use std::sync::OnceLock;

/// The contract's shapes.
const PROTO: &str = include_str!("../../../plugin-protocol/proto/plugin.proto");

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An unsigned integer, or a bool.
    Number,
    /// UTF-8.
    Text,
    /// Anything.
    Bytes,
    /// One of an enum's values, by the enum's name.
    Enum(String),
    /// A message, by its name.
    Message(String),
}

/// One field of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// As plugin.proto calls it.
    pub name: String,
    /// Its number on the wire.
    pub number: u64,
    /// What it holds.
    pub kind: Kind,
    /// Whether there may be several.
    pub is_repeated: bool,
    /// Of a number: 1 for a bool, 32, or 64.
    pub bits: u32,
    /// The `oneof` that it belongs to, if any: of its members only the last counts.
    pub one_of: Option<String>,
}

/// All shapes.
#[derive(Debug, Default)]
pub struct Schema {
    messages: BTreeMap<String, Vec<Field>>,
    enums: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Schema {
    /// The shapes of plugin.proto.
    pub fn of_the_protocol() -> &'static Self {
        static SCHEMA: OnceLock<Schema> = OnceLock::new();
        SCHEMA.get_or_init(|| Self::parse(PROTO))
    }

    /// The fields of a message.
    #[must_use]
    pub fn message(&self, name: &str) -> &[Field] {
        self.messages.get(name).map_or(&[], Vec::as_slice)
    }

    /// A field by its name.
    #[must_use]
    pub fn field(&self, message: &str, name: &str) -> Option<&Field> {
        self.message(message).iter().find(|field| field.name == name)
    }

    /// A field by its number.
    #[must_use]
    pub fn numbered(&self, message: &str, number: u64) -> Option<&Field> {
        self.message(message).iter().find(|field| field.number == number)
    }

    /// The number of an enum's value.
    #[must_use]
    pub fn number_of(&self, enumeration: &str, value: &str) -> Option<u64> {
        self.enums.get(enumeration)?.get(value).copied()
    }

    /// The name of an enum's value.
    #[must_use]
    pub fn name_of(&self, enumeration: &str, number: u64) -> Option<&str> {
        let values = self.enums.get(enumeration)?;
        values.iter().find(|(_, value)| **value == number).map(|(name, _)| name.as_str())
    }

    fn parse(text: &str) -> Self {
        let tokens = tokens(text);
        let mut schema = Self::default();
        let mut names = Vec::new();
        let mut fields = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            let rest: Vec<&str> = tokens[at..].iter().take(6).map(String::as_str).collect();
            at += match rest.as_slice() {
                ["message", name, "{", ..] => {
                    names.push(Scope::Message((*name).to_owned()));
                    schema.messages.insert((*name).to_owned(), Vec::new());
                    3
                }
                ["enum", name, "{", ..] => {
                    names.push(Scope::Enum((*name).to_owned()));
                    schema.enums.insert((*name).to_owned(), BTreeMap::new());
                    3
                }
                ["oneof", name, "{", ..] => {
                    names.push(Scope::OneOf((*name).to_owned()));
                    3
                }
                ["}", ..] => {
                    names.pop();
                    1
                }
                ["repeated", kind, name, "=", number, ";"] => {
                    let field = Field { is_repeated: true, ..raw_field(&names, kind, name, number) };
                    fields.push((owner(&names), field));
                    6
                }
                [name, "=", number, ";", ..] if matches!(names.last(), Some(Scope::Enum(_))) => {
                    schema.add_value(&names, name, number);
                    4
                }
                [kind, name, "=", number, ";", ..] => {
                    fields.push((owner(&names), raw_field(&names, kind, name, number)));
                    5
                }
                // `syntax`, `package`, `reserved`: up to their semicolon.
                _ => 1 + tokens[at..].iter().position(|token| token == ";").unwrap_or(0),
            };
        }
        for (message, mut field) in fields {
            if let Kind::Message(kind) = &field.kind
                && schema.enums.contains_key(kind)
            {
                field.kind = Kind::Enum(kind.clone());
            }
            schema.messages.entry(message).or_default().push(field);
        }
        schema
    }

    fn add_value(&mut self, names: &[Scope], name: &str, number: &str) {
        if let Some(Scope::Enum(enumeration)) = names.last()
            && let Some(values) = self.enums.get_mut(enumeration)
        {
            values.insert(name.to_owned(), number.parse().unwrap_or(0));
        }
    }
}

enum Scope {
    Message(String),
    Enum(String),
    OneOf(String),
}

fn owner(names: &[Scope]) -> String {
    let innermost = names.iter().rev().find_map(|scope| match scope {
        Scope::Message(name) => Some(name.clone()),
        Scope::Enum(_) | Scope::OneOf(_) => None,
    });
    innermost.unwrap_or_default()
}

fn raw_field(names: &[Scope], kind: &str, name: &str, number: &str) -> Field {
    let bits = match kind {
        "bool" => 1,
        "uint64" => 64,
        _ => 32,
    };
    let one_of = if let Some(Scope::OneOf(name)) = names.last() { Some(name.clone()) } else { None };
    let kind = match kind {
        "uint32" | "uint64" | "bool" => Kind::Number,
        "string" => Kind::Text,
        "bytes" => Kind::Bytes,
        other => Kind::Message(other.to_owned()),
    };
    Field {
        name: name.to_owned(),
        number: number.parse().unwrap_or(0),
        kind,
        is_repeated: false,
        bits,
        one_of,
    }
}

fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    for line in text.lines() {
        let code = line.split("//").next().unwrap_or_default();
        let spaced: String =
            code.chars().flat_map(|c| if "{}=;".contains(c) { vec![' ', c, ' '] } else { vec![c] }).collect();
        tokens.extend(spaced.split_whitespace().map(str::to_owned));
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_whole() {
        let schema = Schema::of_the_protocol();
        assert_eq!(schema.message("Frame").len(), 35);
        let data = schema.field("Frame", "data").unwrap();
        assert_eq!((data.number, &data.kind), (2, &Kind::Message("Data".to_owned())));
        assert_eq!(schema.field("Data", "payload").unwrap().kind, Kind::Bytes);
        assert!(schema.field("Register", "protocols").unwrap().is_repeated);
        assert_eq!(schema.field("Hello", "client_nonce").unwrap().number, 7, "inside a oneof");
        let cause = &schema.field("StreamClosed", "cause").unwrap().kind;
        assert_eq!(cause, &Kind::Enum("Cause".to_owned()), "an enum inside a message");
        assert_eq!(schema.number_of("Cause", "RESET_REMOTE"), Some(3));
        assert_eq!(schema.name_of("Kind", 2), Some("DATAGRAM"));
    }
}
