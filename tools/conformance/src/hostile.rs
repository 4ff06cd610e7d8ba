//! The malformed frames of `vectors/malformed.json`, said to a living daemon: a case is made of each that needs nothing before it but the
//! handshake. Those with another past are for tests of the session machine, which set it up (SPEC.md, section 12).

use anyhow::{Context as _, Result};
use serde_json::Value as Json;

use crate::case::{Case, Judged, Level};
use crate::vectors;

/// Vectors that a daemon with limits of its own answers otherwise: they are about the limits that malformed.json supposes.
const OF_OTHER_LIMITS: &[&str] = &["length-65537"];

/// A case for each vector.
///
/// # Errors
/// If malformed.json cannot be read.
pub fn cases() -> Result<Vec<Case>> {
    let malformed = vectors::malformed()?;
    let all = malformed["cases"].as_array().context("malformed.json has no cases")?;
    all.iter().filter(|vector| is_for_any_daemon(vector)).map(case).collect()
}

fn is_for_any_daemon(vector: &Json) -> bool {
    let id = vector["id"].as_str().unwrap_or_default();
    vector["judge"] == "daemon" && vector["given"] == "fresh" && !OF_OTHER_LIMITS.contains(&id)
}

fn case(vector: &Json) -> Result<Case> {
    let text =
        |name: &str| vector[name].as_str().with_context(|| format!("a vector without {name}: {vector}"));
    Ok(Case {
        id: format!("d-malformed-{}", text("id")?),
        judges: Judged::Daemon,
        level: Level::Gold,
        section: 12,
        rules: vec!["S-MSG-1".to_owned()],
        states: Vec::new(),
        ends: Vec::new(),
        about: text("why")?.to_owned(),
        is_slow: false,
        is_unscored: false,
        steps: steps(vector, text("hex")?, text("answer")?, text("phase")? == "pre")?,
    })
}

fn steps(vector: &Json, hex: &str, answer: &str, is_before_handshake: bool) -> Result<String> {
    let number = |name: &str| vector[name].as_u64().with_context(|| format!("a vector without {name}"));
    let begin = if is_before_handshake { "lend a here\nconnect a" } else { "join a here" };
    let (code, rid) = (number("code")?, number("rid")?);
    let end = match answer {
        "silence" => "a: silence".to_owned(),
        "refused" => format!("a: next refused code={code}\na: eof"),
        "error" => format!("a: expect error rid=0 code={code}\na: eof"),
        "reply" => format!("a: expect error rid={rid} code={code}\na: settle"),
        "complaint" => {
            format!("a: expect error rid=0 stream={} code={code}\na: settle", number("stream")?)
        }
        _ => "a: settle".to_owned(),
    };
    Ok(format!("{begin}\na: bytes {hex}\n{end}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_vectors_for_daemons_are_said_to_them() {
        let cases = cases().unwrap();
        assert!(cases.len() >= 200, "{}", cases.len());
        assert!(cases.iter().all(|case| case.steps.contains("a: bytes ")));
    }
}
