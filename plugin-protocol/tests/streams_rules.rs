//! Rules of SPEC.md about single streams, each against the machine alone.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use bytes::Bytes;
use p2pos_plugin_protocol::{
    code::{Code, End},
    limits,
    message::{Cause, Role, StreamClosed, StreamId, StreamMessage},
    streams::{Admission, Config, Credit, How, Read, Sort, Streams, Transmit},
};

/// The machine of `role`, with a stream that the other side opened.
fn opened_at(role: Role) -> (Streams, StreamId) {
    let (mut machine, id) = offered_to(role);
    assert!(machine.adopt(id, Sort::Stream));
    (machine, id)
}

/// The same before it is taken.
fn offered_to(role: Role) -> (Streams, StreamId) {
    let credit = Credit::Counted(limits::STREAM_WINDOW_BYTES);
    let config = Config { role, send: credit, recv: credit, data_bytes_max: 1024, streams_max: 8 };
    let mut machine = Streams::new(config);
    let id = StreamId::new(if role == Role::Daemon { 1 } else { 2 }).unwrap();
    assert_eq!(machine.handle_open(id, Sort::Stream).unwrap(), Admission::Admitted);
    (machine, id)
}

/// [S-STREAM-8]: else a plugin could make the other one believe that the path was lost, or the daemon at fault.
#[test]
fn a_plugin_that_forges_a_daemons_code_is_heard_as_its_own() {
    for forged in Code::ALL.iter().copied().chain([Code::from_number(499)]) {
        let end = End { code: forged, app: 7 };
        let (mut daemon, id) = opened_at(Role::Daemon);
        daemon.handle(StreamMessage::StopSending { stream: id, end }).unwrap();
        assert_eq!(daemon.ended(id).unwrap().end, End::app(7), "StopSending with {forged}");
        let (mut daemon, id) = opened_at(Role::Daemon);
        daemon.handle(StreamMessage::Reset { stream: id, end }).unwrap();
        let Read::Ended(heard) = daemon.read(id) else { panic!("it goes on") };
        assert_eq!(heard.end, End::app(7), "Reset with {forged}");
    }
}

#[test]
fn a_daemons_codes_reach_its_plugin_unchanged() {
    let (mut plugin, id) = opened_at(Role::Plugin);
    plugin.handle(StreamMessage::Reset { stream: id, end: End::new(Code::PATH_LOST) }).unwrap();
    let Read::Ended(heard) = plugin.read(id) else { panic!("it goes on") };
    assert_eq!(heard.end, End::new(Code::PATH_LOST));
}

/// [S-END-1]: the end of the session is the end of its streams. What becomes of them here meanwhile is no word of the
/// other plugin, and must not sound like one.
#[test]
fn a_session_that_ends_says_nothing_of_its_streams_one_by_one() {
    let (mut daemon, id) = opened_at(Role::Daemon);
    daemon.write(id, &mut [Bytes::from_static(b"the last bytes")]).unwrap();
    daemon.leave();
    let mut payload = Vec::new();
    assert!(matches!(daemon.poll_transmit(&mut payload), Some(Transmit::Data { .. })), "they may still go");
    daemon.stop(id, End::app(0));
    daemon.reset(id, End::app(0));
    payload.clear();
    assert_eq!(daemon.poll_transmit(&mut payload), None);
}

/// [S-REQ-3]: a plugin may be asked, do something else, and look only when the peer has given up. It shall hear of that as if it
/// had looked in time, not that there never was such a stream.
#[test]
fn an_offer_that_ended_before_it_was_taken_tells_how() {
    let end = End::new(Code::PATH_LOST);
    let (mut plugin, id) = offered_to(Role::Plugin);
    plugin.handle(StreamMessage::Reset { stream: id, end }).unwrap();
    let facts = StreamClosed { cause: Cause::ResetRemote, end: Some(end), bytes_in: 0, bytes_out: 0 };
    plugin.handle(StreamMessage::StreamClosed { stream: id, facts }).unwrap();
    assert_eq!(plugin.live_count(), 0, "its place is free");
    assert!(plugin.adopt(id, Sort::Stream));
    let Read::Ended(heard) = plugin.read(id) else { panic!("it goes on") };
    assert_eq!((heard.how, heard.end), (How::Reset, end));
    assert_eq!(plugin.closed(id), Some(facts));
    plugin.release(id);
    plugin.release(id);
    assert_eq!(plugin.slot_count(), 0);
}

#[test]
fn an_offer_that_is_refused_after_its_end_is_forgotten() {
    let (mut plugin, id) = offered_to(Role::Plugin);
    plugin.handle(StreamMessage::Reset { stream: id, end: End::app(0) }).unwrap();
    plugin.abandon(id, End::new(Code::REFUSED));
    let facts = StreamClosed { cause: Cause::ResetRemote, end: None, bytes_in: 0, bytes_out: 0 };
    plugin.handle(StreamMessage::StreamClosed { stream: id, facts }).unwrap();
    assert_eq!(plugin.slot_count(), 0);
    assert!(!plugin.adopt(id, Sort::Stream));
}
