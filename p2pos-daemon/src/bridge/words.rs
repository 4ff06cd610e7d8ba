//! The same thing in the host's words and in the node's: codes, kinds and paths.

use p2pos_host::{Code, End, OpenFailure};
use p2pos_node::{Attempt, AttemptOutcome, EndCode, Kind, OpenError, PathKind, Refusal, RefusalCode, tried};
use p2pos_traversal::timeline::{Entry, Outcome};

/// Codes of a stream's end that a plugin may hear of, and the peer of a plugin: class 4xx of the registry.
const STREAM_CODES: std::ops::Range<u16> = 400..500;

/// The plugin that a stream belonged to is not there any more.
pub(super) const PLUGIN_GONE: End = End::new(Code::PLUGIN_GONE);

/// The plugin has given up an open. What it was about is nobody's business: an application's code, 0.
pub(super) const CANCELLED: End = End::app(0);

/// What a plugin is told when the peer ended a stream with `code`. What is not about this stream is, for the plugin, a
/// lost path.
pub(super) fn end_from_peer(code: EndCode) -> End {
    if STREAM_CODES.contains(&code.code) {
        End { code: Code::from_number(u32::from(code.code)), app: code.app }
    } else {
        End::new(Code::PATH_LOST)
    }
}

/// What the peer is told when a plugin (or the host for it) ended a stream. What happened to the plugin's session is its
/// own affair: for the peer, the plugin is gone.
pub(super) fn end_to_peer(end: End) -> EndCode {
    match u16::try_from(end.code.number()) {
        Ok(code) if STREAM_CODES.contains(&code) => EndCode { code, app: end.app },
        Ok(_) | Err(_) => EndCode::PLUGIN_GONE,
    }
}

pub(super) fn path(kind: PathKind) -> p2pos_host::PathKind {
    match kind {
        PathKind::Loopback => p2pos_host::PathKind::Loopback,
        PathKind::Lan => p2pos_host::PathKind::Lan,
        PathKind::Direct => p2pos_host::PathKind::Direct,
        PathKind::Relayed | PathKind::TcpRelayed => p2pos_host::PathKind::Relayed,
    }
}

pub(super) fn kind_to_peer(kind: p2pos_host::Kind) -> Kind {
    match kind {
        p2pos_host::Kind::Stream => Kind::Stream,
        p2pos_host::Kind::Datagram => Kind::Datagram,
    }
}

pub(super) fn kind_from_peer(kind: Kind) -> p2pos_host::Kind {
    match kind {
        Kind::Stream => p2pos_host::Kind::Stream,
        Kind::Datagram => p2pos_host::Kind::Datagram,
    }
}

/// What the peer is told when no plugin here took its stream. Anything the registry does not let travel is a plain REFUSED.
pub(super) fn refusal(refusal: &p2pos_host::Refusal) -> Refusal {
    let code = RefusalCode::from_number(refusal.code.number()).unwrap_or(RefusalCode::REFUSED);
    let mut told = Refusal::new(code).with_offered(refusal.offered.clone());
    if let Some(after) = refusal.retry_after {
        told = told.with_retry_after_ms(u32::try_from(after.as_millis()).unwrap_or(u32::MAX));
    }
    told
}

/// What a plugin is told when its Open failed: the code, and for a person what was tried and what the peer serves instead.
pub(super) fn open_failure(error: &OpenError) -> OpenFailure {
    let code = Code::from_number(u32::from(error.code()));
    let mut failure =
        OpenFailure { code, message: error.to_string(), details: Vec::new(), retry_after: None };
    match error {
        OpenError::NotSupported { offered } => {
            failure.details = offered.iter().map(ToString::to_string).collect();
        }
        OpenError::Unreachable { attempts }
        | OpenError::NeedsRelay { attempts }
        | OpenError::LocalOffline { attempts } => {
            failure.details = timeline(attempts);
            failure.details.extend(tried(attempts).iter().map(step));
        }
        OpenError::NotReady { retry_after } => failure.retry_after = *retry_after,
        OpenError::UnknownPeer
        | OpenError::Offline
        | OpenError::Refused { .. }
        | OpenError::Timeout { .. }
        | OpenError::ConnectionLost(_)
        | OpenError::StreamLimit
        | OpenError::ShuttingDown
        | OpenError::Misuse(_) => {}
    }
    failure
}

/// Addresses and relays stay on this side of the border: a plugin hears how each attempt ended, not where it went.
fn timeline(attempts: &[Attempt]) -> Vec<String> {
    let (mut addresses, mut relays) = (0, 0);
    let line = |attempt: &Attempt| {
        let (what, count) = match attempt.relay {
            None => ("address", &mut addresses),
            Some(_) => ("relay", &mut relays),
        };
        *count += 1;
        let word = match attempt.outcome {
            AttemptOutcome::Running => "still running",
            AttemptOutcome::Connected => "connected",
            AttemptOutcome::NoAnswer => "no answer",
            AttemptOutcome::Refused(_) => "refused",
            AttemptOutcome::Unroutable(_) => "no route",
            AttemptOutcome::Abandoned => "abandoned",
        };
        format!("{what} {count}: {word} after {} ms", attempt.took.as_millis())
    };
    attempts.iter().map(line).collect()
}

/// A step of the plan in a line.
fn step(entry: &Entry) -> String {
    let way = entry.way.map(|way| format!(" by {way}")).unwrap_or_default();
    let outcome = match entry.outcome {
        Outcome::Refused => "not tried without a connection".to_owned(),
        Outcome::Began | Outcome::Worked | Outcome::Failed | Outcome::Again(_) => entry.outcome.to_string(),
    };
    format!("{}{way}: {outcome} after {} ms", entry.step, entry.after.as_millis())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use p2pos_identity::SecretKey;

    use super::*;

    #[test]
    fn a_plugin_hears_what_became_of_each_address_and_relay_and_where_none_is() {
        let attempt = |relay, outcome| Attempt {
            address: "192.0.2.7:4000".parse().unwrap(),
            relay,
            started: Duration::ZERO,
            took: Duration::from_millis(250),
            outcome,
        };
        let relay = Some(SecretKey::from_seed([1; 32]).peer_id());
        let attempts = vec![
            attempt(None, AttemptOutcome::NoAnswer),
            attempt(relay, AttemptOutcome::Refused("the peer cannot be called through 192.0.2.7".into())),
            attempt(None, AttemptOutcome::Abandoned),
            attempt(relay, AttemptOutcome::NoAnswer),
        ];
        let lines = [
            "address 1: no answer after 250 ms",
            "relay 1: refused after 250 ms",
            "address 2: abandoned after 250 ms",
            "relay 2: no answer after 250 ms",
            "look up: worked after 0 ms",
            "dial by IPv4: failed after 250 ms",
            "call relay: failed after 250 ms",
            "dial by IPv4: failed after 250 ms",
            "call relay: failed after 250 ms",
            "connect: failed after 250 ms",
            "punch: not tried without a connection after 250 ms",
        ];
        for (error, code) in [
            (OpenError::Unreachable { attempts: attempts.clone() }, Code::UNREACHABLE),
            (OpenError::NeedsRelay { attempts }, Code::NEEDS_RELAY),
        ] {
            let failure = open_failure(&error);
            assert_eq!((failure.code, failure.details.as_slice()), (code, &lines.map(str::to_owned)[..]));
            assert!(!failure.message.contains("192.0.2.7"), "{}", failure.message);
        }
    }
}
