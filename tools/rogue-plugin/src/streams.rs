//! Misdeeds upon streams: wrong ids, bytes after the end, more than the credit. The peer that they open need not be there: data may
//! follow an Open at once, so everything here happens before anybody could answer.

use p2pos_plugin_protocol::limits::{DATA_BYTES_MAX, STREAM_WINDOW_BYTES};

use crate::session::{asking, inside};
use crate::stage::{RID_DEED, RID_OPEN, Stage};
use crate::wire::{Message, body, frame};
use crate::{Answer, Misdeed, PROTOCOL};

pub(crate) const MISDEEDS: &[Misdeed] = &[
    Misdeed {
        name: "data-on-unknown-stream",
        story: "writes on a stream that nobody opened",
        answer: Answer::Fatal(100),
        commit: |stage| inside(stage, |_| data(41, 1, false)),
    },
    Misdeed {
        name: "data-on-stream-zero",
        story: "writes on the stream that cannot be",
        answer: Answer::Fatal(100),
        commit: |stage| inside(stage, |_| data(0, 1, false)),
    },
    Misdeed {
        name: "open-even-id",
        story: "opens a stream with one of the daemon's ids",
        answer: Answer::Fatal(100),
        commit: |stage| inside(stage, |stage| open(stage, RID_OPEN, 2)),
    },
    Misdeed {
        name: "open-twice",
        story: "opens two streams with the same id",
        answer: Answer::Fatal(100),
        commit: |stage| {
            inside(stage, |stage| [open(stage, RID_OPEN, 1), open(stage, RID_OPEN + 1, 1)].concat())
        },
    },
    Misdeed {
        name: "open-nobody",
        story: "opens a protocol at somebody who is no PeerId",
        answer: Answer::Reply(200),
        commit: |stage| asking(stage, |_| open_at("bob", RID_DEED, 1)),
    },
    Misdeed {
        name: "data-after-fin",
        story: "goes on writing after it said that it was done",
        answer: Answer::Fatal(100),
        commit: |stage| {
            inside(stage, |stage| [open(stage, RID_OPEN, 1), data(1, 3, true), data(1, 3, false)].concat())
        },
    },
    Misdeed {
        name: "data-too-long",
        story: "puts more into one Data than may be",
        answer: Answer::Fatal(103),
        commit: |stage| {
            inside(stage, |stage| [open(stage, RID_OPEN, 1), data(1, DATA_BYTES_MAX + 1, false)].concat())
        },
    },
    Misdeed {
        name: "credit-overflow",
        story: "writes more than the daemon gave credit for",
        answer: Answer::Reset(402),
        commit: |stage| inside(stage, credit_overflow),
    },
    Misdeed {
        name: "window-overflow",
        story: "gives more credit than there may be",
        answer: Answer::Reset(402),
        commit: |stage| inside(stage, |stage| [open(stage, RID_OPEN, 1), window(1, u32::MAX)].concat()),
    },
];

fn open(stage: &Stage, rid: u64, stream: u64) -> Vec<u8> {
    open_at(&stage.peer, rid, stream)
}

fn open_at(peer: &str, rid: u64, stream: u64) -> Vec<u8> {
    let message = Message::new().number(1, stream).bytes(2, peer).bytes(3, PROTOCOL).number(4, 1);
    frame(rid, body::OPEN, &message)
}

fn data(stream: u64, bytes: u32, is_last: bool) -> Vec<u8> {
    let payload = vec![b'r'; bytes as usize];
    frame(0, body::DATA, &Message::new().number(1, stream).bytes(2, payload).number(3, is_last.into()))
}

fn window(stream: u64, bytes: u32) -> Vec<u8> {
    frame(0, body::WINDOW, &Message::new().number(1, stream).number(2, bytes.into()))
}

/// In one write, so that the whole of it is there before an answer to the Open could end the stream.
fn credit_overflow(stage: &Stage) -> Vec<u8> {
    let frames = STREAM_WINDOW_BYTES / DATA_BYTES_MAX + 1;
    let mut bytes = open(stage, RID_OPEN, 1);
    for _ in 0..frames {
        bytes.extend(data(1, DATA_BYTES_MAX, false));
    }
    bytes
}
