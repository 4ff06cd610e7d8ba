//! Misdeeds of somebody who was let in: frames out of turn, too long, too many, or in strange pieces.

use std::time::Duration;

use anyhow::Result;
use p2pos_plugin_protocol::limits::FRAME_BYTES_MAX;

use crate::before_hello::gibberish;
use crate::stage::{RID_DEED, Stage};
use crate::wire::{Message, body, frame, framed};
use crate::{Answer, Misdeed, PROTOCOL};

/// Pause between the bytes of `one-byte-writes`: long enough that the daemon reads most of them alone, short enough that a Hello is
/// through long before its deadline.
const BYTE_PAUSE: Duration = Duration::from_micros(500);

pub(crate) const MISDEEDS: &[Misdeed] = &[
    Misdeed {
        name: "one-byte-writes",
        story: "behaves, but sends each byte on its own",
        answer: Answer::Lives,
        commit: one_byte_writes,
    },
    Misdeed {
        name: "glued-frames",
        story: "behaves, but sends a hundred frames in one write",
        answer: Answer::Lives,
        commit: |stage| inside(stage, |_| frame(0, body::LOG, &Message::new().bytes(2, "glued")).repeat(100)),
    },
    Misdeed {
        name: "length-max",
        story: "sends a frame of the largest size there is",
        answer: Answer::Lives,
        commit: |stage| inside(stage, |_| largest_frame()),
    },
    Misdeed {
        name: "length-over",
        story: "announces a frame one byte larger than that",
        answer: Answer::Fatal(103),
        commit: |stage| inside(stage, |_| (FRAME_BYTES_MAX + 1).to_be_bytes().to_vec()),
    },
    Misdeed {
        name: "length-zero",
        story: "sends an empty frame",
        answer: Answer::Fatal(100),
        commit: |stage| inside(stage, |_| vec![0; 4]),
    },
    Misdeed {
        name: "late-http",
        story: "turns into a browser after Welcome",
        answer: Answer::Fatal(103),
        commit: |stage| inside(stage, |_| b"POST / HTTP/1.1\r\n\r\n".to_vec()),
    },
    Misdeed {
        name: "late-garbage",
        story: "sends a frame with gibberish in it",
        answer: Answer::Fatal(100),
        commit: |stage| inside(stage, |_| framed(&gibberish(100))),
    },
    Misdeed {
        name: "second-hello",
        story: "says Hello twice",
        answer: Answer::Fatal(100),
        commit: |stage| inside(stage, |stage| frame(RID_DEED, body::HELLO, &stage.hello())),
    },
    Misdeed {
        name: "late-attach",
        story: "asks for a detached stream on the session's own socket",
        answer: Answer::Fatal(100),
        commit: |stage| inside(stage, |_| frame(RID_DEED, body::ATTACH, &Message::new().bytes(1, [7; 16]))),
    },
    Misdeed {
        name: "welcomes-the-daemon",
        story: "sends what only a daemon may send",
        answer: Answer::Fatal(100),
        commit: |stage| inside(stage, |_| frame(0, body::WELCOME, &Message::new().number(1, 1))),
    },
    Misdeed {
        name: "unknown-request",
        story: "asks for something that is not invented yet",
        answer: Answer::Reply(201),
        commit: |stage| asking(stage, |_| frame(RID_DEED, body::UNKNOWN, &Message::new())),
    },
    Misdeed {
        name: "unknown-notice",
        story: "tells something that is not invented yet",
        answer: Answer::Lives,
        commit: |stage| inside(stage, |_| frame(0, body::UNKNOWN, &Message::new())),
    },
    Misdeed {
        name: "registers-again",
        story: "registers the protocol that it has registered",
        answer: Answer::Reply(204),
        commit: |stage| asking(stage, |_| register(PROTOCOL)),
    },
    Misdeed {
        name: "registers-ungranted",
        story: "registers a protocol that the user did not grant",
        answer: Answer::Reply(202),
        commit: |stage| asking(stage, |_| register("/somebody-elses/1")),
    },
    Misdeed {
        name: "registers-nonsense",
        story: "registers a name that is none",
        answer: Answer::Reply(200),
        commit: |stage| asking(stage, |_| register("no slash")),
    },
    Misdeed {
        name: "token-reuse",
        story: "says Hello on a second connection, with the token that it has used",
        answer: Answer::Refused(102),
        commit: token_reuse,
    },
    Misdeed {
        name: "ping-flood",
        story: "asks without end and reads no answer",
        answer: Answer::Fatal(106),
        commit: ping_flood,
    },
];

/// Enters like an honest plugin, does one thing, and waits for the answer.
pub(crate) fn inside(stage: &mut Stage, bytes: impl FnOnce(&Stage) -> Vec<u8>) -> Result<Answer> {
    stage.enter()?;
    let bytes = bytes(stage);
    stage.send(bytes);
    stage.judge()
}

/// Enters like an honest plugin, asks for something with the rid of misdeeds, and waits for the answer to that: the daemon may take its
/// time, so a Ping would overtake it.
pub(crate) fn asking(stage: &mut Stage, bytes: impl FnOnce(&Stage) -> Vec<u8>) -> Result<Answer> {
    stage.enter()?;
    let bytes = bytes(stage);
    stage.send(bytes);
    stage.listen()
}

fn register(name: &str) -> Vec<u8> {
    frame(RID_DEED, body::REGISTER, &Message::new().message(1, &Message::new().bytes(1, name).number(2, 1)))
}

fn one_byte_writes(stage: &mut Stage) -> Result<Answer> {
    stage.connect()?;
    for byte in stage.opening() {
        stage.send([byte]);
        std::thread::sleep(BYTE_PAUSE);
    }
    stage.judge()
}

/// A notice with an unknown body, padded so that the frame's length is exactly the limit.
fn largest_frame() -> Vec<u8> {
    let room = FRAME_BYTES_MAX as usize;
    // Tag and length of the body and of its padding take some bytes: found by trying, for varints grow in steps.
    let padded = |padding: usize| frame(0, body::UNKNOWN, &Message::new().bytes(1, vec![0; padding]));
    let overhead = padded(room).len() - 4 - room;
    padded(room - overhead)
}

fn token_reuse(stage: &mut Stage) -> Result<Answer> {
    let mut second = Stage::from_environment(None)?;
    stage.enter()?;
    second.connect()?;
    let opening = second.opening();
    second.send(opening);
    second.listen()
}

/// More Pings than any queue for their Pongs may hold; then reads what came, up to the last word.
fn ping_flood(stage: &mut Stage) -> Result<Answer> {
    const PINGS_AT_ONCE: usize = 1_000;
    const ROUNDS_MAX: usize = 20_000;
    stage.enter()?;
    let pings = frame(0, body::PING, &Message::new().number(1, 1)).repeat(PINGS_AT_ONCE);
    for _ in 0..ROUNDS_MAX {
        if !stage.send(&pings) {
            break;
        }
    }
    stage.listen()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_frame_is_as_large_as_may_be() {
        let frame = largest_frame();
        assert_eq!(frame[..4], FRAME_BYTES_MAX.to_be_bytes());
        assert_eq!(frame.len() - 4, FRAME_BYTES_MAX as usize);
    }
}
