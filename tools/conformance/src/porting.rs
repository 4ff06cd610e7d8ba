//! The port guide: what an implementation in a new language needs, in the order in which it is best written, with the bytes.
//!
//! Made of the tables that the rest of the project uses: the golden vectors, the states of a stream, the cases. So nothing in it can be
//! out of date; a test compares plugin-protocol/PORTING.md with it.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use p2pos_plugin_protocol::streams::table::STATES;
use serde_json::Value as Json;

use crate::case::{self, Judged, Level};

const FRAMES: &str = include_str!("../../../plugin-protocol/vectors/frames.json");
const HANDSHAKE: &str = include_str!("../../../plugin-protocol/vectors/handshake.json");

/// One piece of work.
struct Part {
    level: Level,
    what: &'static str,
    how: &'static str,
    rules: &'static [&'static str],
}

/// Everything, in order.
const PARTS: &[Part] = &[
    Part {
        level: Level::Bronze,
        what: "Find the daemon",
        how: "`P2POS_ENDPOINT` is `unix:PATH` or `tcp:127.0.0.1:PORT`; `P2POS_TOKEN` is text that goes into Hello as it is. Whatever you write to stderr is the plugin's log.",
        rules: &["S-HELLO-3"],
    },
    Part {
        level: Level::Bronze,
        what: "Frames",
        how: "Four bytes of length, big end first, then so many bytes of protobuf. Read what comes into a buffer, cut whole frames off it.",
        rules: &["S-FRAME-1", "S-FRAME-2", "S-FRAME-5"],
    },
    Part {
        level: Level::Bronze,
        what: "Protobuf, as far as needed",
        how: "A field is `number * 8 + type` as a varint; type 0 is a varint, type 2 a length and bytes. Skip what you do not know; the last one of a field counts. SPEC.md, section 11, has it in 25 lines.",
        rules: &["S-MSG-1", "S-MSG-2", "S-MSG-3"],
    },
    Part {
        level: Level::Bronze,
        what: "Hello, Welcome, Register, Ready",
        how: "The exchange below. Take the limits from Welcome. Refused says what is wrong, for a person; then end, with an exit code other than 0. Know your protocols before you send Register: Incoming may come right behind Done.",
        rules: &["S-HELLO-1", "S-HELLO-2", "S-LIMIT-1"],
    },
    Part {
        level: Level::Bronze,
        what: "Read all the time; answer Ping",
        how: "Reading never waits for writing: a thread, a task, an event loop. Ping gets Pong with the same nonce and rid.",
        rules: &["S-FRAME-6", "S-PING-1"],
    },
    Part {
        level: Level::Bronze,
        what: "Requests",
        how: "Count rids of your own from 1. Keep a table of those that wait; ignore answers to others. Each request of the daemon gets one answer. Hello is a request, too: what you ask next has another rid.",
        rules: &["S-REQ-1", "S-REQ-3", "S-REQ-4"],
    },
    Part {
        level: Level::Bronze,
        what: "Streams",
        how: "Yours are odd, the daemon's even, each higher than the one before. Data in order, `fin` ends a direction, Reset both, StreamClosed is the last word. Enter a stream in your table when Open is sent and when Incoming comes, for Data may be right behind; leave it there until StreamClosed, Error or Reject. What comes for an id that is not there crossed its end. The table of states is below.",
        rules: &[
            "S-STREAM-1",
            "S-STREAM-3",
            "S-STREAM-4",
            "S-STREAM-5",
            "S-STREAM-7",
            "S-STREAM-9",
            "S-STREAM-11",
        ],
    },
    Part {
        level: Level::Bronze,
        what: "Credit that you have",
        how: "Start each stream with `Welcome.limits.stream_window_bytes`, subtract what you send, add what Window gives, wait at 0. Wait for the socket, too, else a fast program fills your memory. One queue for all frames keeps fin and Reset behind the Data before them.",
        rules: &["S-FLOW-1", "S-FLOW-2", "S-FLOW-3"],
    },
    Part {
        level: Level::Silver,
        what: "Credit that you give",
        how: "Say Window when the program has *read* bytes, at the latest at half of the window; none once fin has come. (`Hello.auto_window` saves this, and one slow stream then stops all.)",
        rules: &["S-FLOW-4", "S-FLOW-6"],
    },
    Part {
        level: Level::Silver,
        what: "All ends",
        how: "StopSending both ways, Reject with 305, StreamClosed for the program to ask (it may come without a Reset before it). When the session ends, everything that waits ends with 105.",
        rules: &["S-STREAM-6", "S-STREAM-8", "S-STREAM-10", "S-END-1"],
    },
    Part {
        level: Level::Silver,
        what: "Your own end",
        how: "End with exit code 0 on Shutdown, on end of file of the session, and on the end of stdin if `P2POS_EXIT_ON_STDIN_CLOSE` is 1. An Error with rid 0 and a code of 1xx is the last that is read. Write what you have promised, then close.",
        rules: &["S-END-2", "S-END-3"],
    },
    Part {
        level: Level::Silver,
        what: "Detached streams",
        how: "A second connection to the same endpoint, Attach, Attached, then raw bytes. Read four bytes, then the length, and not one more. Close that socket when StreamClosed has come, not before: two sockets have no order between them.",
        rules: &["S-ATTACH-1", "S-ATTACH-2", "S-ATTACH-3"],
    },
    Part {
        level: Level::Gold,
        what: "Datagrams, events, contacts, log, status",
        how: "Plain messages. A queue for each flow that drops its oldest.",
        rules: &["S-DGRAM-1", "S-DGRAM-2", "S-REQ-9"],
    },
    Part {
        level: Level::Gold,
        what: "Leaving by yourself, and distrust",
        how: "GoAway before you leave. End the session with 100 for what no daemon may say.",
        rules: &["S-END-4", "S-MSG-4", "S-MSG-5", "S-MSG-6"],
    },
];

/// Which frames of frames.json show the bytes of which message.
const SHOWN: &[&str] = &[
    "data",
    "window",
    "reset",
    "stop_sending",
    "stream_closed",
    "open",
    "opened",
    "attach",
    "datagram",
    "ping",
];

/// The whole page.
///
/// # Errors
/// If the vectors cannot be read.
pub fn guide() -> Result<String> {
    let mut page = String::from(
        "# The plugin protocol in a new language\n\n\
         Made by `p2pos-conformance porting` from the golden vectors, the table of stream states and the conformance cases; a test compares. \
         [SPEC.md](SPEC.md) is the contract; this page is the order in which to write it. After each part, run the kit with \
         the part's level: `p2pos-conformance plugin --level bronze -- CMD`, where CMD is an agent as \
         [ORDERS.md](../tools/conformance/ORDERS.md) describes it. `vectors/` holds the bytes of every message for your codec's own tests.\n\n\
         | # | level | write | rules | cases |\n|---|---|---|---|---|\n",
    );
    let cases = case::all()?;
    for (index, part) in PARTS.iter().enumerate() {
        let shows = |rule: &str| {
            cases
                .iter()
                .filter(|case| case.judges == Judged::Plugin && case.rules.iter().any(|is| is == rule))
                .count()
        };
        let rules: Vec<String> = part.rules.iter().map(|rule| format!("[{rule}]")).collect();
        let count: usize = part.rules.iter().map(|rule| shows(rule)).sum();
        writeln!(
            page,
            "| {} | {} | **{}.** {} | {} | {count} |",
            index + 1,
            part.level,
            part.what,
            part.how,
            rules.join(" ")
        )?;
    }
    page.push_str("\n## The first bytes\n\n`>` plugin, `<` daemon.\n\n```\n");
    let handshake: Json = serde_json::from_str(HANDSHAKE).context("read handshake.json")?;
    for frame in handshake["first_exchange"].as_array().context("no first exchange")? {
        let side = if frame["from"] == "plugin" { '>' } else { '<' };
        let text = frame["text"].as_str().context("a frame without a text")?;
        writeln!(page, "{side} {text}")?;
        writeln!(page, "    {}", frame["hex"].as_str().context("a frame without hex")?)?;
    }
    page.push_str("```\n\n## One frame of each kind that matters\n\n| message | bytes |\n|---|---|\n");
    let frames: Json = serde_json::from_str(FRAMES).context("read frames.json")?;
    for message in SHOWN {
        let all = frames["frames"].as_array().context("no frames")?;
        let is_it = |frame: &&Json| {
            frame["message"] == *message && frame["body"].as_object().is_some_and(|body| !body.is_empty())
        };
        let shortest = all.iter().filter(is_it).min_by_key(|frame| frame["hex"].as_str().map_or(0, str::len));
        let frame = shortest.with_context(|| format!("no vector shows {message}"))?;
        let rid = match frame["rid"].as_u64() {
            Some(0) | None => String::new(),
            Some(rid) => format!(", rid {rid}"),
        };
        writeln!(
            page,
            "| {message} {}{rid} | `{}` |",
            frame["body"],
            frame["hex"].as_str().unwrap_or_default()
        )?;
    }
    page.push_str(
        "\n## A stream's states\n\n| state | may come | may be sent | leaves by |\n|---|---|---|---|\n",
    );
    put_states(&mut page)?;
    Ok(page)
}

fn put_states(page: &mut String) -> Result<()> {
    for row in &STATES {
        let list = |said: &[p2pos_plugin_protocol::streams::table::Said]| {
            said.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let leaves: Vec<String> = row.leaves.iter().map(|(by, to)| format!("{by} → {to}")).collect();
        writeln!(
            page,
            "| {} | {} | {} | {} |",
            row.state,
            list(row.may_come),
            list(row.may_send),
            leaves.join("; ")
        )?;
    }
    Ok(())
}
