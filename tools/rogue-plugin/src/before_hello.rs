//! Misdeeds of somebody who has not even said Hello: strange protocols, broken frames, wrong or missing proof.

use anyhow::Result;
use p2pos_plugin_protocol::limits::HELLO_BYTES_MAX;

use crate::stage::{RID_HELLO, Stage};
use crate::wire::{Message, body, frame, framed};
use crate::{Answer, Misdeed};

pub(crate) const MISDEEDS: &[Misdeed] = &[
    Misdeed {
        name: "http",
        story: "sends a browser's request",
        answer: Answer::Silence,
        commit: |stage| first(stage, |_| b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".to_vec()),
    },
    Misdeed {
        name: "tls",
        story: "begins a TLS handshake",
        answer: Answer::Silence,
        commit: |stage| {
            first(stage, |_| [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x55; 200]].concat())
        },
    },
    Misdeed {
        name: "garbage",
        story: "sends bytes that mean nothing",
        answer: Answer::Silence,
        commit: |stage| first(stage, |_| gibberish(1_000)),
    },
    Misdeed {
        name: "early-length-zero",
        story: "sends an empty frame instead of Hello",
        answer: Answer::Refused(100),
        commit: |stage| first(stage, |_| vec![0; 4]),
    },
    Misdeed {
        name: "early-length-over",
        story: "announces a Hello one byte longer than may be",
        answer: Answer::Refused(103),
        commit: |stage| first(stage, |_| (HELLO_BYTES_MAX + 1).to_be_bytes().to_vec()),
    },
    Misdeed {
        name: "early-no-protobuf",
        story: "sends a frame with gibberish in it",
        answer: Answer::Refused(100),
        commit: |stage| first(stage, |_| framed(&gibberish(100))),
    },
    Misdeed {
        name: "register-first",
        story: "registers a protocol without Hello",
        answer: Answer::Refused(100),
        commit: |stage| first(stage, |_| frame(1, body::REGISTER, &Message::new())),
    },
    Misdeed {
        name: "wrong-magic",
        story: "says Hello for another project",
        answer: Answer::Refused(100),
        commit: |stage| first(stage, |stage| hello(&stage.hello().bytes(1, "p2pOZ"))),
    },
    Misdeed {
        name: "foreign-version",
        story: "speaks only versions of the future",
        answer: Answer::Refused(101),
        commit: |stage| first(stage, |stage| hello(&stage.hello().number(2, 7).number(3, 9))),
    },
    Misdeed {
        name: "no-proof",
        story: "says Hello without token or nonce",
        answer: Answer::Refused(102),
        commit: |stage| first(stage, |_| hello(&Message::new().bytes(1, "p2pOS").number(2, 1).number(3, 1))),
    },
    Misdeed {
        name: "wrong-token",
        story: "says Hello with a token that nobody gave it",
        answer: Answer::Refused(102),
        commit: |stage| first(stage, |stage| hello(&stage.hello().bytes(6, "5".repeat(64)))),
    },
    Misdeed {
        name: "unknown-ticket",
        story: "wants a detached stream that was never offered",
        answer: Answer::Refused(102),
        commit: |stage| first(stage, |_| frame(1, body::ATTACH, &Message::new().bytes(1, [7; 16]))),
    },
    Misdeed {
        name: "half-a-hello",
        story: "stops in the middle of Hello and waits",
        answer: Answer::Refused(104),
        commit: half_a_hello,
    },
];

/// Connects, sends one thing, and listens.
fn first(stage: &mut Stage, bytes: impl FnOnce(&Stage) -> Vec<u8>) -> Result<Answer> {
    stage.connect()?;
    let bytes = bytes(stage);
    stage.send(bytes);
    stage.listen()
}

fn half_a_hello(stage: &mut Stage) -> Result<Answer> {
    first(stage, |stage| {
        let whole = hello(&stage.hello());
        whole[..whole.len() / 2].to_vec()
    })
}

/// A field written twice counts as written last, so callers may spoil a good Hello by adding to it.
fn hello(message: &Message) -> Vec<u8> {
    frame(RID_HELLO, body::HELLO, message)
}

/// Bytes without sense, the same ones each time; the first is not 0.
pub(crate) fn gibberish(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0] | 1
    };
    (0..count).map(|_| byte()).collect()
}
