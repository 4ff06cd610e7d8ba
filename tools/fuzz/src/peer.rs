//! What another daemon sends at the start of a stream, on the streams of the daemons themselves, and in datagrams. Promises: the
//! cutting into reads does not matter, what follows a message is left alone, what reads can be written and reads back the same.

use bytes::Bytes;
use p2pos_peer_protocol::datagram::{self, FlowId};
use p2pos_peer_protocol::{
    Decoder, EndCode, Message, MessageError, StreamAnswer, StreamHello, relay::RelayMessage,
    signal::SignalMessage,
};

use crate::input::Input;

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let step = input.below(64) + 1;
    message::<StreamHello>(input.0, step);
    message::<StreamAnswer>(input.0, step);
    message::<SignalMessage>(input.0, step);
    message::<RelayMessage>(input.0, step);
    datagrams(input.0);
    let code = u64::from(input.number()) << 32 | u64::from(input.number());
    let end = EndCode::from_quic(code);
    assert_eq!(EndCode::from_quic(end.to_quic()), end);
}

fn message<M: Message + PartialEq + std::fmt::Debug>(bytes: &[u8], step: usize) {
    let whole = read::<M>(bytes, bytes.len().max(1));
    assert_eq!(whole, read::<M>(bytes, step), "the cutting into reads must not matter");
    if let Ok(Some((message, _))) = whole {
        let written = message.encode();
        assert_eq!(read::<M>(&written, written.len()), Ok(Some((message, 0))));
    }
}

/// The first message, and how many bytes follow it.
fn read<M: Message>(bytes: &[u8], step: usize) -> Result<Option<(M, usize)>, MessageError> {
    let mut decoder = Decoder::<M>::new();
    let mut taken = 0;
    for piece in bytes.chunks(step) {
        taken += piece.len();
        let mut piece = Bytes::copy_from_slice(piece);
        if let Some(message) = decoder.feed(&mut piece)? {
            return Ok(Some((message, bytes.len() - taken + piece.len())));
        }
        assert!(piece.is_empty(), "an unfinished message takes all there is");
    }
    Ok(None)
}

fn datagrams(bytes: &[u8]) {
    if let Ok((flow, payload)) = datagram::decode(Bytes::copy_from_slice(bytes)) {
        assert!(bytes.ends_with(&payload));
        assert_eq!(FlowId::new(flow.value()), Some(flow));
        assert_eq!(datagram::decode(datagram::encode(flow, &payload)), Ok((flow, payload)));
    }
}
