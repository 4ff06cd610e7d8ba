//! Frames of the plugin protocol. Promises: however the bytes are cut into reads, the same frames come out; what can be read can be
//! written and reads back the same; the quick look at Data frames sees what the full decoder sees.

use bytes::{Bytes, BytesMut};
use p2pos_plugin_protocol::frame::{self, FrameError};
use p2pos_plugin_protocol::limits::{FRAME_BYTES_MAX, HELLO_BYTES_MAX, PREFIX_BYTES};
use p2pos_plugin_protocol::message::{Frame, Message, StreamMessage};

use crate::input::Input;

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (max, step) =
        if input.byte().is_multiple_of(2) { (FRAME_BYTES_MAX, 1) } else { (HELLO_BYTES_MAX, 7) };
    let at_once = split(input.0, max, input.0.len().max(1));
    let in_steps = split(input.0, max, step);
    assert_eq!(at_once, in_steps, "the cutting into reads must not matter");
    at_once.0.iter().for_each(decode);
}

/// All frames of the bytes, read in steps of this size, and what ended them.
fn split(bytes: &[u8], max: u32, step: usize) -> (Vec<Bytes>, Option<FrameError>) {
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    for read in bytes.chunks(step) {
        buffer.extend_from_slice(read);
        loop {
            match frame::measure(&buffer, max) {
                Ok(Some(length)) => frames.push(frame::take_body(&mut buffer, length)),
                Ok(None) => {
                    assert!(
                        frame::missing(&buffer, max).is_ok_and(|count| count > 0),
                        "an unfinished frame needs more bytes"
                    );
                    break;
                }
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fn decode(body: &Bytes) {
    let decoded = Frame::decode(body.clone());
    if let (Some(quick), Ok(frame)) = (frame::parse_data(body), &decoded) {
        let Message::Stream(StreamMessage::Data { stream, payload, fin }) = &frame.message else {
            panic!("a quick look says Data, the decoder {frame:?}");
        };
        assert_eq!((quick.stream, &body[quick.payload], quick.fin), (stream.number(), &payload[..], *fin));
    }
    match decoded {
        Ok(Frame { message: Message::Unknown, .. }) => {}
        Ok(frame) => {
            let again = frame.clone().to_bytes();
            assert_eq!(Frame::decode(again.slice(PREFIX_BYTES..)).as_ref(), Ok(&frame));
        }
        Err(error) => drop(error.to_string()),
    }
}
