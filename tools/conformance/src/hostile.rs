//! The malformed frames of `vectors/malformed.json`, said to a living daemon or plugin: a case is made of each. What a vector takes for granted
//! (its `given`) is brought about by steps first; what a living one does not grant is listed, with the reason.

use anyhow::{Context as _, Result};
use serde_json::Value as Json;

use crate::case::{Case, Judged, Level};
use crate::vectors;

/// Vectors that only a session with the limits of malformed.json can meet (SPEC.md, section 12): a living daemon has others. All of
/// them are tried against the session machine, in plugin-protocol/tests/vectors.rs.
const OF_OTHER_LIMITS: &[(&str, &str)] = &[
    ("length-65537", "frame_bytes_max"),
    ("data-over-data-bytes-max", "data_bytes_max"),
    ("credit-exceeded-by-one", "stream_window_bytes"),
    ("credit-exceeded-in-steps", "stream_window_bytes"),
    ("credit-exceeded-before-opened", "stream_window_bytes"),
    ("credit-exceeded-on-an-incoming-stream", "stream_window_bytes"),
    ("open-over-streams-max", "streams_max"),
    ("one-request-too-many", "requests_max"),
    ("register-over-protocols-max", "protocols_max"),
    ("register-again", "the names that a plugin may serve"),
    ("datagram-too-big", "datagram_max, which is the path's"),
];

/// What a plugin of the judged daemon serves and opens.
const PROTOCOL: &str = "protocols=/p2pos/conformance-stream/1";

/// A case for each vector.
///
/// # Errors
/// If malformed.json cannot be read, or supposes what no step here brings about.
pub fn cases() -> Result<Vec<Case>> {
    let malformed = vectors::malformed()?;
    let all = malformed["cases"].as_array().context("malformed.json has no cases")?;
    all.iter().filter(|vector| is_for_anybody(vector)).map(case).collect()
}

fn is_for_anybody(vector: &Json) -> bool {
    OF_OTHER_LIMITS.iter().all(|(id, _)| vector["id"] != *id)
}

fn case(vector: &Json) -> Result<Case> {
    let text =
        |name: &str| vector[name].as_str().with_context(|| format!("a vector without {name}: {vector}"));
    let (judges, prefix) = match text("judge")? {
        "daemon" => (Judged::Daemon, "d-malformed"),
        _ => (Judged::Plugin, "malformed"),
    };
    let given = text("given")?;
    Ok(Case {
        id: format!("{prefix}-{}", text("id")?),
        judges,
        level: Level::Gold,
        section: 12,
        rules: vec!["S-MSG-1".to_owned()],
        states: Vec::new(),
        ends: Vec::new(),
        about: text("why")?.to_owned(),
        is_slow: false,
        // Those with a past, and those for plugins, came after version 1 was frozen.
        is_unscored: judges == Judged::Plugin || given != "fresh",
        steps: match judges {
            Judged::Daemon => said_to_a_daemon(vector, given, text("phase")? == "pre")?,
            Judged::Plugin => said_to_a_plugin(vector, given)?,
        },
    })
}

fn said_to_a_daemon(vector: &Json, given: &str, is_before_handshake: bool) -> Result<String> {
    let past = match given {
        "fresh" if is_before_handshake => "lend a here\nconnect a".to_owned(),
        _ => past_at_a_daemon(given).with_context(|| format!("no steps for the past {given:?}"))?,
    };
    said(vector, &past, "a: ")
}

/// Steps after which the session `a` is as the vector supposes.
fn past_at_a_daemon(given: &str) -> Option<String> {
    let serving = |server: &str| {
        format!(
            "join a here\njoin b there\n\
             {server}: send register rid=2 protocols={{name=/p2pos/conformance-stream/1}}\n{server}: expect done rid=2"
        )
    };
    let offered = || {
        let ask =
            format!("b: send open rid=3 stream=1 peer=$a {PROTOCOL}\na: expect incoming rid=?r stream=?t");
        format!("{}\n{ask}", serving("a"))
    };
    Some(match given {
        "fresh" => "join a here".to_owned(),
        "ready" => "join a here\na: send ready".to_owned(),
        "challenged" => "challenge a".to_owned(),
        "open" => "pair".to_owned(),
        "flow" => "pair datagram".to_owned(),
        "open-and-finished-by-plugin" => "pair\na: send data stream=1 payload=hi fin=true".to_owned(),
        "closed-by-plugin-reset" => {
            "pair\na: send reset stream=1 code=400\na: expect stream_closed stream=1".to_owned()
        }
        "registered" => serving("a"),
        "opening" => {
            format!("{}\na: send open rid=1 stream=1 peer=$b {PROTOCOL}\nb: expect incoming", serving("b"))
        }
        "open-failed" => format!(
            "join a here\njoin b there\na: send open rid=1 stream=1 peer=$b {PROTOCOL}\na: expect error rid=1 stream=1"
        ),
        // Four, so that the last id is 7.
        "four-streams" => format!(
            "{}\nrepeat 4\na: send open rid=$odd stream=$odd peer=$b {PROTOCOL}\nb: expect incoming\nend",
            serving("b")
        ),
        "offered" => offered(),
        "accepted" => {
            format!("{}\na: send accept rid=$r stream=$t\nb: expect opened rid=3 stream=1", offered())
        }
        "withdrawn" => format!(
            "{}\nb: send reset stream=1 code=400\na: expect reset stream=$t\na: expect stream_closed stream=$t",
            offered()
        ),
        _ => return None,
    })
}

fn said_to_a_plugin(vector: &Json, given: &str) -> Result<String> {
    let past = match given {
        "fresh" | "registered" => "launch",
        "open" => "launch\nopen ?s o",
        "open-and-finished-by-daemon" => "launch\nopen ?s o\nsend data stream=$s payload=hi fin=true",
        "accepted" => "launch\ntake ?s o",
        _ => anyhow::bail!("no steps for the past {given:?}"),
    };
    said(vector, past, "")
}

/// The past, then the bytes, then what must follow.
fn said(vector: &Json, past: &str, who: &str) -> Result<String> {
    let number = |name: &str| vector[name].as_u64().with_context(|| format!("a vector without {name}"));
    let text = |name: &str| vector[name].as_str().with_context(|| format!("a vector without {name}"));
    let (code, rid, stream) = (number("code")?, number("rid")?, number("stream")?);
    let end = match text("answer")? {
        "silence" => format!("{who}silence"),
        "refused" => format!("{who}next refused code={code}\n{who}eof"),
        "error" => format!("{who}expect error rid=0 code={code}\n{who}eof"),
        "reply" => format!("{who}expect error rid={rid} code={code}\n{who}settle"),
        "complaint" => format!("{who}expect error rid=0 stream={stream} code={code}\n{who}settle"),
        "reset" => format!("{who}expect reset stream={stream} code={code}\n{who}settle"),
        _ => format!("{who}settle"),
    };
    Ok(format!("{past}\n{who}bytes {}\n{end}\n", text("hex")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_vectors_but_those_of_other_limits_are_said_to_somebody() {
        let vectors = vectors::malformed().unwrap();
        let all = vectors["cases"].as_array().unwrap();
        let cases = cases().unwrap();
        assert_eq!(cases.len() + OF_OTHER_LIMITS.len(), all.len());
        assert!(cases.iter().all(|case| case.steps.contains("bytes ")));
        for (id, _) in OF_OTHER_LIMITS {
            assert!(all.iter().any(|vector| vector["id"] == *id), "{id} is no vector any more");
        }
    }
}
