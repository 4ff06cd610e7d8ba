//! The handshake's machines, both of them, against any bytes. Promises: the cutting into reads does not matter; a rejection's
//! answer is a frame that reads; and nobody gets in as `Proven` or is welcomed after a Challenge, for that takes a secret.

use bytes::BytesMut;
use p2pos_plugin_protocol::hello::{
    Acceptor, AcceptorConfig, CallError, Caller, Credential, EndpointSecret, Opening, Rejection,
};
use p2pos_plugin_protocol::limits::PREFIX_BYTES;
use p2pos_plugin_protocol::message::{Frame, Hello, LaunchToken, Message, Welcome};

use crate::input::Input;

/// Unlikely enough to be guessed within the life of this project.
const SECRET: [u8; 32] = [0xd7; 32];
const NONCE: [u8; 32] = [0x2e; 32];

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let choice = input.byte();
    let (has_secret, step) = (choice & 1 == 1, usize::from(choice >> 1) + 1);
    let whole = accept(input.0, has_secret, input.0.len().max(1));
    assert_eq!(whole, accept(input.0, has_secret, step), "the cutting into reads must not matter");
    assert!(!matches!(whole, Some(Ok(Opening::Proven { .. }))), "nobody knows the secret");
    if let Some(Err(Rejection { answer: Some(answer), .. })) = whole {
        let frame = Frame::decode(answer.slice(PREFIX_BYTES..)).expect("our own answer must read");
        assert!(matches!(frame.message, Message::Handshake(_)), "a rejection is told by Refused");
    }
    let whole = call(input.0, has_secret, input.0.len().max(1));
    assert_eq!(whole, call(input.0, has_secret, step), "the cutting into reads must not matter");
    assert!(!has_secret || !matches!(whole, Some(Ok(_))), "a daemon that cannot prove itself was believed");
}

/// What the daemon's half makes of the bytes; `None`: it waits for more.
fn accept(bytes: &[u8], has_secret: bool, step: usize) -> Option<Result<Opening, Rejection>> {
    let endpoint_secret = has_secret.then(|| EndpointSecret::new(SECRET));
    let mut acceptor = Acceptor::new(AcceptorConfig { endpoint_secret, server_nonce: NONCE });
    let mut buffer = BytesMut::new();
    for read in bytes.chunks(step) {
        buffer.extend_from_slice(read);
        loop {
            match acceptor.handle(&mut buffer) {
                Ok(Some(opening)) => return Some(Ok(opening)),
                Err(rejection) => return Some(Err(rejection)),
                Ok(None) => {}
            }
            // A Challenge went out; what answers it may be in the buffer already.
            if acceptor.poll_transmit().is_none() {
                break;
            }
        }
    }
    None
}

/// What the plugin's half makes of the bytes.
fn call(bytes: &[u8], has_secret: bool, step: usize) -> Option<Result<Welcome, CallError>> {
    let credential = if has_secret {
        Credential::Secret { secret: EndpointSecret::new(SECRET), client_nonce: NONCE }
    } else {
        Credential::Token(LaunchToken::from_random(SECRET))
    };
    let mut caller = Caller::new(hello(), credential);
    let mut buffer = BytesMut::new();
    for read in bytes.chunks(step) {
        buffer.extend_from_slice(read);
        match caller.handle(&mut buffer) {
            Ok(None) => {}
            Ok(Some(welcome)) => return Some(Ok(welcome)),
            Err(error) => return Some(Err(error)),
        }
    }
    None
}

fn hello() -> Hello {
    Hello {
        min_version: 1,
        max_version: 1,
        features: Vec::new(),
        sdk: String::new(),
        frame_bytes_max: 0,
        stream_window_bytes: 0,
        auto_window: false,
    }
}
