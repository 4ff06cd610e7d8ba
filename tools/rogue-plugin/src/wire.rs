//! Protobuf and frames by hand, writing whatever one wants and reading only what a report needs. Knows the numbers of
//! plugin.proto; checks nothing.

/// Numbers of the Frame's bodies.
pub(crate) mod body {
    pub(crate) const DATA: u32 = 2;
    pub(crate) const WINDOW: u32 = 3;
    pub(crate) const RESET: u32 = 5;
    pub(crate) const OPEN: u32 = 8;
    pub(crate) const INCOMING: u32 = 10;
    pub(crate) const ACCEPT: u32 = 11;
    pub(crate) const PING: u32 = 13;
    pub(crate) const PONG: u32 = 14;
    pub(crate) const ERROR: u32 = 15;
    pub(crate) const HELLO: u32 = 16;
    pub(crate) const WELCOME: u32 = 17;
    pub(crate) const REFUSED: u32 = 20;
    pub(crate) const ATTACH: u32 = 21;
    pub(crate) const DONE: u32 = 24;
    pub(crate) const REGISTER: u32 = 25;
    pub(crate) const READY: u32 = 28;
    pub(crate) const LOG: u32 = 30;
    pub(crate) const SHUTDOWN: u32 = 36;
    /// No message has this number.
    pub(crate) const UNKNOWN: u32 = 99;
}

/// A message in the making.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn number(mut self, field: u32, value: u64) -> Self {
        self.varint(u64::from(field) << 3);
        self.varint(value);
        self
    }

    pub(crate) fn bytes(mut self, field: u32, value: impl AsRef<[u8]>) -> Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.as_ref().len() as u64);
        self.0.extend_from_slice(value.as_ref());
        self
    }

    pub(crate) fn message(self, field: u32, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }

    fn varint(&mut self, mut value: u64) {
        loop {
            let [low, ..] = value.to_le_bytes();
            value >>= 7;
            if value == 0 {
                self.0.push(low & 0x7f);
                return;
            }
            self.0.push(low | 0x80);
        }
    }
}

/// One whole frame: length, rid, body.
pub(crate) fn frame(rid: u64, body: u32, message: &Message) -> Vec<u8> {
    let head = if rid == 0 { Message::new() } else { Message::new().number(1, rid) };
    framed(&head.message(body, message).0)
}

/// Any bytes behind their true length.
pub(crate) fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("misdeeds are far shorter than 4 GiB");
    [&length.to_be_bytes(), bytes].concat()
}

/// What one field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

/// A message taken apart: field numbers and values, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<(u32, Value)>);

impl Fields {
    /// Takes a message apart. `None` if it is no protobuf; the daemon never sends such a thing.
    pub(crate) fn read(mut bytes: &[u8]) -> Option<Self> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = take_varint(&mut bytes)?;
            let field = u32::try_from(key >> 3).ok()?;
            let value = take_varint(&mut bytes)?;
            fields.push(match key & 7 {
                0 => (field, Value::Number(value)),
                2 => {
                    let (taken, rest) = bytes.split_at_checked(usize::try_from(value).ok()?)?;
                    bytes = rest;
                    (field, Value::Bytes(taken.to_vec()))
                }
                _ => return None,
            });
        }
        Some(Self(fields))
    }

    /// A number field, or 0.
    pub(crate) fn number(&self, field: u32) -> u64 {
        let found = self.0.iter().find_map(|(number, value)| match value {
            Value::Number(value) if *number == field => Some(*value),
            Value::Number(_) | Value::Bytes(_) => None,
        });
        found.unwrap_or(0)
    }

    /// A bytes, text or message field, or nothing.
    pub(crate) fn bytes(&self, field: u32) -> &[u8] {
        let found = self.0.iter().find_map(|(number, value)| match value {
            Value::Bytes(value) if *number == field => Some(value.as_slice()),
            Value::Number(_) | Value::Bytes(_) => None,
        });
        found.unwrap_or_default()
    }

    /// The Frame's body: its number and its fields.
    pub(crate) fn body(&self) -> Option<(u32, Self)> {
        let (number, bytes) = self.0.iter().find_map(|(number, value)| match value {
            Value::Bytes(value) if *number > 1 => Some((*number, value)),
            Value::Number(_) | Value::Bytes(_) => None,
        })?;
        Some((number, Self::read(bytes)?))
    }
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reads_back_as_it_was_written() {
        let bytes = frame(300, body::DATA, &Message::new().number(1, 5).bytes(2, "hi").number(3, 1));
        assert_eq!(bytes, [0, 0, 0, 13, 8, 0xac, 2, 0x12, 8, 8, 5, 0x12, 2, b'h', b'i', 0x18, 1]);
        let fields = Fields::read(&bytes[4..]).unwrap();
        let (number, data) = fields.body().unwrap();
        assert_eq!(
            (fields.number(1), number, data.number(1), data.bytes(2)),
            (300, body::DATA, 5, &b"hi"[..])
        );
    }

    #[test]
    fn the_numbers_are_those_of_the_protocol() {
        use p2pos_plugin_protocol::message::{Body, Frame, Message as Theirs, StreamMessage};
        let read = |body, message: &Message| {
            Frame::decode(frame(0, body, message)[4..].to_vec().into()).unwrap().message
        };
        assert_eq!(read(body::PING, &Message::new().number(1, 5)), Theirs::Ping(5));
        assert_eq!(read(body::PONG, &Message::new().number(1, 5)), Theirs::Pong(5));
        assert_eq!(read(body::READY, &Message::new()), Theirs::Body(Body::Ready));
        assert!(matches!(read(body::LOG, &Message::new().bytes(2, "x")), Theirs::Body(Body::Log(_))));
        assert!(matches!(read(body::ERROR, &Message::new().number(1, 100)), Theirs::Body(Body::Error(_))));
        let on_stream = Message::new().number(1, 1);
        assert!(matches!(read(body::DATA, &on_stream), Theirs::Stream(StreamMessage::Data { .. })));
        assert!(matches!(read(body::WINDOW, &on_stream), Theirs::Stream(StreamMessage::Window { .. })));
        assert!(matches!(read(body::RESET, &on_stream), Theirs::Stream(StreamMessage::Reset { .. })));
        assert!(matches!(read(body::ACCEPT, &on_stream), Theirs::Body(Body::Accept(_))));
        assert_eq!(read(body::UNKNOWN, &Message::new()), Theirs::Unknown);
    }

    #[test]
    fn gibberish_is_no_message() {
        assert_eq!(Fields::read(&[0xff; 20]), None);
        assert_eq!(Fields::read(&[0x12, 200]), None);
    }
}
