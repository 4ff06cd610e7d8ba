//! Rules of SPEC.md about single streams, each against the machine alone.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use p2pos_plugin_protocol::{
    code::{Code, End},
    limits,
    message::{Role, StreamId, StreamMessage},
    streams::{Admission, Config, Credit, Read, Sort, Streams},
};

/// The machine of `role`, with a stream that the other side opened.
fn opened_at(role: Role) -> (Streams, StreamId) {
    let credit = Credit::Counted(limits::STREAM_WINDOW_BYTES);
    let config = Config { role, send: credit, recv: credit, data_bytes_max: 1024, streams_max: 8 };
    let mut machine = Streams::new(config);
    let id = StreamId::new(if role == Role::Daemon { 1 } else { 2 }).unwrap();
    assert_eq!(machine.handle_open(id, Sort::Stream).unwrap(), Admission::Admitted);
    assert!(machine.adopt(id, Sort::Stream));
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
