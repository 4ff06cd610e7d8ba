//! Sessions over real sockets, and over in-memory ones where time is virtual.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use p2pos_identity::{PeerId, ProtocolName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};

use super::*;
use crate::{
    frame,
    hello::{self, Acceptor, AcceptorConfig, Caller, Credential, EndpointSecret, Opening},
    limits::{self, PREFIX_BYTES},
    message::{
        Accept, Attachment, Cause, ErrorReply, Frame, Handshake, Incoming, Kind, LaunchToken, Level, Log,
        Message, Open, Opened, PathKind, Refused, Reject, RelayUse, StreamMessage, Ticket,
    },
    streams::How,
};

const SOON: Duration = Duration::from_secs(20);

// ---- Streams ----

#[tokio::test]
async fn bytes_travel_both_ways_and_the_daemon_has_the_last_word() {
    let mut pair = Pair::new();
    let (mut here, mut there) = pair.stream().await;
    here.0.write(Bytes::from_static(b"question")).await.unwrap();
    here.0.finish().unwrap();
    assert_eq!(read_all(&mut there.1).await, b"question");
    there.0.write(Bytes::from(vec![7; 100_000])).await.unwrap();
    there.0.finish().unwrap();
    assert_eq!(read_all(&mut here.1).await, vec![7; 100_000]);
    let facts = soon(here.0.closed()).await.unwrap();
    assert_eq!(facts, StreamClosed { cause: Cause::Finished, end: None, bytes_in: 100_000, bytes_out: 8 });
    drop((here, there));
    assert_eq!((pair.plugin.0.stats().streams, pair.daemon.0.stats().streams), (0, 0));
}

#[tokio::test]
async fn a_stream_that_the_daemon_opens_works_before_it_is_accepted() {
    let mut pair = Pair::new();
    let mut opening = pair.daemon.0.open_stream(|id| Body::Incoming(incoming(id))).unwrap();
    opening.send.write(Bytes::from_static(b"early")).await.unwrap();
    let inbound = soon(pair.plugin.1.recv()).await.unwrap();
    let (mut send, mut recv) = pair.plugin.0.adopt_stream(opening.id).unwrap();
    assert!(pair.plugin.0.adopt_stream(opening.id).is_none(), "taken once");
    assert_eq!(soon(recv.read_chunk()).await.unwrap().unwrap(), "early");
    send.write(Bytes::from_static(b"answer")).await.unwrap();
    assert_eq!(soon(opening.recv.read_chunk()).await.unwrap().unwrap(), "answer");
    pair.plugin.0.reply(inbound.rid.unwrap(), Body::Accept(Accept { stream: opening.id }));
    assert_eq!(soon(opening.answer).await, Ok(Body::Accept(Accept { stream: opening.id })));
}

#[tokio::test]
async fn a_refused_stream_ends_for_its_opener_and_costs_nothing() {
    let mut pair = Pair::new();
    let mut opening = pair.plugin.0.open_stream(|id| Body::Open(open(id))).unwrap();
    opening.send.write(Bytes::from_static(b"in vain")).await.unwrap();
    let inbound = soon(pair.daemon.1.recv()).await.unwrap();
    pair.daemon.0.reply(inbound.rid.unwrap(), Body::Error(ErrorReply::new(Code::OFFLINE, "not there")));
    assert_eq!(soon(opening.answer).await.unwrap_err().code(), Code::OFFLINE);
    let end = soon(opening.recv.read_chunk()).await.unwrap_err();
    assert_eq!((end.how, end.end.code), (How::Refused, Code::OFFLINE));
    assert_eq!(pair.daemon.0.stats().streams, 0);
    assert_eq!(pair.plugin.0.stats().streams, 0);

    let mut opening = pair.daemon.0.open_stream(|id| Body::Incoming(incoming(id))).unwrap();
    let inbound = soon(pair.plugin.1.recv()).await.unwrap();
    let reject = Reject { stream: opening.id, code: Code::NOT_READY, reason: "later".to_owned() };
    pair.plugin.0.reply(inbound.rid.unwrap(), Body::Reject(reject));
    assert_eq!(soon(opening.answer).await.unwrap_err().code(), Code::NOT_READY);
    assert_eq!(soon(opening.recv.read_chunk()).await.unwrap_err().end.code, Code::NOT_READY);
    assert_eq!(pair.daemon.0.stats().streams, 0);
}

#[tokio::test]
async fn a_reader_who_stops_reading_stops_its_writer_and_nobody_else() {
    let mut pair = Pair::new();
    let (mut stalled, _unread) = pair.stream().await;
    let written = write_until_stuck(&mut stalled.0).await;
    assert_eq!(written, limits::STREAM_WINDOW_BYTES as usize);
    let (mut here, mut there) = pair.stream().await;
    let big = Bytes::from(vec![1; 3_000_000]);
    let writer = tokio::spawn(async move {
        here.0.write(big).await.unwrap();
        here.0.finish().unwrap();
        here
    });
    assert_eq!(read_all(&mut there.1).await.len(), 3_000_000);
    writer.await.unwrap();
    assert_eq!(stalled.0.credit_available(), 0);
}

#[tokio::test]
async fn credit_comes_back_when_the_reader_says_that_it_is_done() {
    let mut pair = Pair::new();
    let (mut here, mut there) = pair.stream().await;
    there.1.set_manual_credit();
    let window = write_until_stuck(&mut here.0).await;
    let mut read = 0;
    while read < window {
        read += soon(there.1.read_chunk()).await.unwrap().unwrap().len();
    }
    assert_eq!(here.0.credit_available(), 0, "read is not yet consumed");
    there.1.consumed(window);
    assert!(soon(here.0.write_chunks(&mut [Bytes::from_static(b"more")])).await.is_ok());
    there.1.consumed(window * 10);
    let more = write_until_stuck(&mut here.0).await;
    assert!(more + 4 <= window, "nobody can give credit for what never came: {more}");
}

#[tokio::test]
async fn several_chunks_leave_as_one_frame_and_small_writes_are_gathered() {
    let (mut raw, session, _inbox) = raw_plugin();
    let opening = session.open_stream(|id| Body::Incoming(incoming(id))).unwrap();
    let mut send = opening.send;
    let mut pieces =
        [Bytes::from(vec![1; 3000]), Bytes::new(), Bytes::from(vec![2; 10]), Bytes::from(vec![3; 3000])];
    assert_eq!(send.write_chunks(&mut pieces).await.unwrap(), 6010);
    assert!(pieces.iter().all(Bytes::is_empty));
    for _ in 0..100 {
        send.write(Bytes::from_static(b"tiny")).await.unwrap();
    }
    send.finish().unwrap();
    assert!(matches!(raw.next().await.message, Message::Body(Body::Incoming(_))));
    let Message::Stream(StreamMessage::Data { payload, fin, .. }) = raw.next().await.message else {
        panic!("no Data");
    };
    assert_eq!((payload.len(), fin), (6410, true));
}

#[tokio::test]
async fn a_reset_is_seen_on_both_halves_with_its_number() {
    let mut pair = Pair::new();
    let (mut here, mut there) = pair.stream().await;
    here.0.write(Bytes::from_static(b"half of it")).await.unwrap();
    here.0.reset(End::app(42));
    let end = soon(there.0.stopped()).await;
    assert_eq!((end.how, end.end), (How::Reset, End::app(42)));
    assert_eq!(soon(there.1.read_chunk()).await.unwrap_err().end, End::app(42));
    assert_eq!(soon(here.1.read_chunk()).await.unwrap_err().how, How::Local);
    let facts = soon(here.0.closed()).await.unwrap();
    assert_eq!((facts.cause, facts.end), (Cause::ResetLocal, Some(End::app(42))));
}

#[tokio::test]
async fn stopping_a_sender_leaves_the_other_direction_alone() {
    let mut pair = Pair::new();
    let (mut here, mut there) = pair.stream().await;
    there.1.stop(End::app(9));
    let end = soon(here.0.stopped()).await;
    assert_eq!((end.how, end.end), (How::Stopped, End::app(9)));
    assert_eq!(here.0.write(Bytes::from_static(b"x")).await.unwrap_err().how, How::Stopped);
    there.0.write(Bytes::from_static(b"still")).await.unwrap();
    there.0.finish().unwrap();
    assert_eq!(read_all(&mut here.1).await, b"still");
    let facts = soon(here.1.closed()).await.unwrap();
    assert_eq!((facts.cause, facts.end), (Cause::ResetRemote, Some(End::app(9))));
}

#[tokio::test]
async fn a_half_that_is_dropped_is_never_taken_for_a_good_end() {
    let mut pair = Pair::new();
    let (here, mut there) = pair.stream().await;
    drop(here);
    assert_eq!(soon(there.1.read_chunk()).await.unwrap_err().end.code, Code::APP);
    drop(there);
    settled(|| pair.plugin.0.stats().streams == 0 && pair.daemon.0.stats().streams == 0).await;
}

#[tokio::test]
async fn who_no_longer_waits_for_the_end_of_a_session_leaves_nothing_behind() {
    let pair = Pair::new();
    for _ in 0..1_000 {
        assert!(timeout(Duration::ZERO, pair.plugin.0.ended()).await.is_err());
    }
    assert_eq!(pair.plugin.0.shared.lock().ended.receiver_count(), 0);
    pair.plugin.0.close(End::new(Code::SHUTTING_DOWN), "done");
    assert_eq!(soon(pair.plugin.0.ended()).await.code, Code::SHUTTING_DOWN);
}

#[tokio::test]
async fn a_datagram_that_went_nowhere_is_complained_about_and_the_flow_lives() {
    let mut pair = Pair::new();
    let opening =
        pair.plugin.0.open_flow(|id| Body::Open(Open { kind: Kind::Datagram, ..open(id) })).unwrap();
    let inbound = soon(pair.daemon.1.recv()).await.unwrap();
    let there = pair.daemon.0.adopt_flow(opening.id).unwrap();
    pair.daemon.0.reply(inbound.rid.unwrap(), opened(opening.id));
    there.complain(Code::TOO_BIG, "a datagram has 9000 bytes, the path carries 1200 bytes");
    let Body::Error(error) = soon(pair.plugin.1.recv()).await.unwrap().body else { panic!("not an Error") };
    assert_eq!((error.code, error.stream), (Code::TOO_BIG, Some(opening.id)));
    opening.flow.send(Bytes::from_static(b"one")).unwrap();
    assert_eq!(soon(there.recv()).await.unwrap(), "one");
}

#[tokio::test]
async fn datagrams_keep_their_boundaries_and_a_flow_ends_by_reset() {
    let mut pair = Pair::new();
    let opening =
        pair.plugin.0.open_flow(|id| Body::Open(Open { kind: Kind::Datagram, ..open(id) })).unwrap();
    let inbound = soon(pair.daemon.1.recv()).await.unwrap();
    let there = pair.daemon.0.adopt_flow(opening.id).unwrap();
    pair.daemon.0.reply(inbound.rid.unwrap(), opened(opening.id));
    opening.flow.send(Bytes::from_static(b"one")).unwrap();
    opening.flow.send(Bytes::new()).unwrap();
    assert_eq!(soon(there.recv()).await.unwrap(), "one");
    assert_eq!(soon(there.recv()).await.unwrap(), "");
    there.send(Bytes::from_static(b"back")).unwrap();
    assert_eq!(soon(opening.flow.recv()).await.unwrap(), "back");
    there.reset(End::new(Code::PATH_LOST));
    assert_eq!(soon(opening.flow.recv()).await.unwrap_err().end.code, Code::PATH_LOST);
    let facts = soon(opening.flow.closed()).await.unwrap();
    assert_eq!((facts.cause, facts.bytes_in, facts.bytes_out), (Cause::ResetRemote, 4, 3));
}

#[tokio::test]
async fn a_detached_stream_is_opened_and_ended_here_though_its_bytes_go_elsewhere() {
    let mut pair = Pair::new();
    let request = |id| Body::Open(Open { attachment: Attachment::Socket, ..open(id) });
    let opening = pair.plugin.0.open_detached(request).unwrap();
    let inbound = soon(pair.daemon.1.recv()).await.unwrap();
    assert!(pair.daemon.0.adopt_stream(opening.id).is_none(), "it is no muxed stream");
    let there = pair.daemon.0.adopt_detached(opening.id).unwrap();
    pair.daemon.0.reply(inbound.rid.unwrap(), opened(opening.id));
    assert!(soon(opening.answer).await.is_ok());
    let facts = StreamClosed { cause: Cause::Finished, end: None, bytes_in: 5, bytes_out: 6 };
    there.close(facts);
    assert_eq!(soon(opening.detached.closed()).await, Ok(facts));
}

// ---- Ends ----

#[tokio::test]
async fn when_the_daemon_dies_everything_that_waits_in_the_plugin_gets_105() {
    let (client, daemon) = UnixStream::pair().unwrap();
    let (session, mut inbox) = spawn_plugin(client);
    let mut opening = session.open_stream(|id| Body::Open(open(id))).unwrap();
    let asked = session.request(Body::ContactList);
    let stuck = tokio::spawn(async move { write_until_error(&mut opening.send).await });
    drop(daemon);
    assert_eq!(soon(stuck).await.unwrap().end.code, Code::SHUTTING_DOWN);
    assert_eq!(soon(opening.recv.read_chunk()).await.unwrap_err().end.code, Code::SHUTTING_DOWN);
    assert_eq!(soon(opening.answer).await, Err(RequestError::Ended(End::new(Code::SHUTTING_DOWN))));
    assert_eq!(soon(asked).await, Err(RequestError::Ended(End::new(Code::SHUTTING_DOWN))));
    assert_eq!(soon(inbox.recv()).await, None);
    assert_eq!(soon(session.ended()).await.code, Code::SHUTTING_DOWN);
    assert!(session.open_stream(|id| Body::Open(open(id))).is_err());
}

#[tokio::test]
async fn when_the_plugin_dies_its_streams_end_with_403_but_finished_ones_stay_readable() {
    let mut pair = Pair::new();
    let (mut finished, mut finished_there) = pair.stream().await;
    let (mut open_here, mut open_there) = pair.stream().await;
    finished.0.write(Bytes::from_static(b"the whole")).await.unwrap();
    finished.0.finish().unwrap();
    open_here.0.write(Bytes::from_static(b"a piece")).await.unwrap();
    pair.plugin.0.close(End::new(Code::SHUTTING_DOWN), "done");
    soon(pair.daemon.0.ended()).await;
    assert_eq!(read_all(&mut finished_there.1).await, b"the whole");
    let mut got = Vec::new();
    let end = loop {
        match soon(open_there.1.read_chunk()).await {
            Ok(bytes) => got.extend_from_slice(&bytes.expect("there was no fin")),
            Err(end) => break end,
        }
    };
    assert_eq!((end.how, end.end.code), (How::Session, Code::PLUGIN_GONE));
    assert!(got.is_empty() || got == b"a piece");
}

/// Four frames and more of them than a read takes at once: a Ping that wants an answer, an Open, 4 MiB with the fin.
fn last_words() -> Vec<u8> {
    const MIB: usize = 1024 * 1024;
    let mut words = Frame { rid: None, message: Message::Ping(1) }.to_bytes().to_vec();
    let request = Message::Body(Body::Open(open(sid(1))));
    words.extend(Frame { rid: Rid::new(1), message: request }.to_bytes());
    for n in 1..=64 {
        let data =
            StreamMessage::Data { stream: sid(1), payload: Bytes::from(vec![7; MIB / 16]), fin: n == 64 };
        words.extend(Frame { rid: None, message: Message::Stream(data) }.to_bytes());
    }
    words
}

/// A daemon's session that lets a plugin send 4 MiB before it must wait.
fn spawn_patient_daemon(
    read: impl AsyncRead + Unpin + Send + 'static,
    write: impl AsyncWrite + Unpin + Send + 'static,
) -> (Session, Inbox) {
    let limits = Limits { stream_window_bytes: 8 * 1024 * 1024, ..Limits::default() };
    spawn(read, write, BytesMut::new(), Settings::daemon(&limits, &Hello::default()))
}

#[tokio::test]
async fn what_a_plugin_said_before_it_left_is_read_though_it_hears_no_answer() {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    let (session, mut inbox) = spawn_patient_daemon(ours, Deaf);
    tokio::spawn(async move { theirs.write_all(&last_words()).await });
    let inbound = soon(inbox.recv()).await.unwrap();
    let (_send, mut recv) = session.adopt_stream(sid(1)).unwrap();
    assert_eq!(inbound.rid, Rid::new(1));
    assert_eq!(read_all(&mut recv).await.len(), 4 * 1024 * 1024);
    assert_eq!(soon(session.ended()).await.code, Code::PLUGIN_GONE);
}

#[tokio::test]
async fn a_plugin_that_writes_4_mib_with_its_fin_and_exits_at_once_is_heard_out() {
    let (plugin, daemon) = UnixStream::pair().unwrap();
    let (read, write) = tokio::io::split(daemon);
    let (session, mut inbox) = spawn_patient_daemon(read, write);
    let plugin = plugin.into_std().unwrap();
    plugin.set_nonblocking(false).unwrap();
    // It reads nothing, so its end is a broken pipe to whoever writes to it.
    let plugin = std::thread::spawn(move || std::io::Write::write_all(&mut { plugin }, &last_words()));
    soon(inbox.recv()).await.unwrap();
    let (_send, mut recv) = session.adopt_stream(sid(1)).unwrap();
    assert_eq!(read_all(&mut recv).await.len(), 4 * 1024 * 1024);
    assert_eq!(soon(session.ended()).await.code, Code::PLUGIN_GONE);
    plugin.join().unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_hears_nothing_and_says_nothing_is_not_listened_to_for_ever() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let (session, _inbox) = spawn_patient_daemon(ours, Deaf);
    let started = tokio::time::Instant::now();
    session.notify(Body::Done);
    assert_eq!(soon(session.ended()).await.code, Code::PLUGIN_GONE);
    assert_eq!(started.elapsed(), limits::CLOSE_LINGER);
    drop(theirs);
}

#[tokio::test]
async fn nothing_follows_stop_sending_not_even_the_fin() {
    let (mut raw, session, mut inbox) = raw_plugin();
    raw.say(Some(1), Message::Body(Body::Open(open(sid(1))))).await;
    let inbound = soon(inbox.recv()).await.unwrap();
    let (mut send, _recv) = session.adopt_stream(sid(1)).unwrap();
    session.reply(inbound.rid.unwrap(), opened(sid(1)));
    raw.next().await;
    let stop = StreamMessage::StopSending { stream: sid(1), end: End::app(5) };
    raw.say(None, Message::Stream(stop)).await;
    assert_eq!(soon(send.stopped()).await.end, End::app(5));
    assert!(send.finish().is_err());
    assert!(send.write(Bytes::from_static(b"more")).await.is_err());
    raw.say(Some(2), Message::Ping(1)).await;
    assert_eq!(raw.next().await.message, Message::Pong(1), "S-STREAM-6: the direction is over");
}

#[tokio::test]
async fn data_after_fin_is_a_fault_until_the_stream_is_closed_and_late_from_then_on() {
    let fin = || {
        let data = StreamMessage::Data { stream: sid(1), payload: Bytes::new(), fin: true };
        Message::Stream(data)
    };
    for is_closed in [false, true] {
        let (mut raw, session, mut inbox) = raw_plugin();
        raw.say(Some(1), Message::Body(Body::Open(open(sid(1))))).await;
        let inbound = soon(inbox.recv()).await.unwrap();
        let (mut send, mut recv) = session.adopt_stream(sid(1)).unwrap();
        session.reply(inbound.rid.unwrap(), opened(sid(1)));
        raw.next().await;
        raw.say(None, fin()).await;
        assert_eq!(soon(recv.read_chunk()).await, Ok(None));
        if is_closed {
            send.finish().unwrap();
            assert!(matches!(raw.next().await.message, Message::Stream(StreamMessage::Data { .. })));
            assert!(matches!(raw.next().await.message, Message::Stream(StreamMessage::StreamClosed { .. })));
        }
        raw.say(None, fin()).await;
        raw.say(Some(2), Message::Ping(1)).await;
        match is_closed {
            true => assert_eq!(raw.next().await.message, Message::Pong(1), "S-STREAM-9"),
            false => raw.expect_error(None, Code::PROTOCOL).await,
        }
    }
}

#[tokio::test]
async fn closing_hands_over_what_was_written_before() {
    let mut pair = Pair::new();
    let (mut here, mut there) = pair.stream().await;
    here.0.write(Bytes::from(vec![3; 200_000])).await.unwrap();
    here.0.finish().unwrap();
    pair.plugin.0.close(End::new(Code::SHUTTING_DOWN), "done");
    assert_eq!(here.0.write(Bytes::from_static(b"x")).await.unwrap_err().how, How::Session);
    assert_eq!(read_all(&mut there.1).await.len(), 200_000);
}

#[tokio::test]
async fn dropping_the_inbox_ends_the_session() {
    let pair = Pair::new();
    drop(pair.daemon.1);
    assert_eq!(soon(pair.plugin.0.ended()).await.code, Code::SHUTTING_DOWN);
}

#[tokio::test]
async fn a_request_that_is_given_up_is_cancelled() {
    let mut pair = Pair::new();
    drop(pair.plugin.0.request(Body::ContactList));
    let asked = soon(pair.daemon.1.recv()).await.unwrap();
    let cancel = soon(pair.daemon.1.recv()).await.unwrap();
    assert_eq!(cancel, Inbound { rid: None, body: Body::Cancel(asked.rid.unwrap()) });
    pair.daemon.0.reply(asked.rid.unwrap(), Body::Error(ErrorReply::new(Code::CANCELLED, "as you wish")));
}

#[tokio::test(start_paused = true)]
async fn a_silent_session_is_asked_after_15_seconds_and_given_up_after_45() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (session, _inbox) = spawn_daemon(ours);
    let mut raw = Raw { socket: theirs, buffer: BytesMut::new() };
    let started = tokio::time::Instant::now();
    assert!(matches!(raw.next().await.message, Message::Ping(_)));
    assert_eq!(started.elapsed().as_secs(), limits::PING_AFTER.as_secs());
    assert_eq!(session.ended().await.code, Code::PLUGIN_GONE);
    assert_eq!(started.elapsed().as_secs(), limits::DEAD_AFTER.as_secs());
    let Message::Body(Body::Error(error)) = raw.next().await.message else { panic!("no last word") };
    assert_eq!(error.code, Code::TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn two_silent_sessions_keep_each_other_alive_for_ever() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (daemon, _one) = spawn_daemon(ours);
    let (plugin, _two) = spawn_plugin(theirs);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!((daemon.end(), plugin.end()), (None, None));
}

// ---- Misdeeds ----

#[tokio::test]
async fn every_misdeed_has_its_coded_answer() {
    let data = |stream: u32, payload: &'static [u8], fin| {
        Message::Stream(StreamMessage::Data { stream: sid(stream), payload: payload.into(), fin })
    };
    let cases: [(&str, Message, Code); 6] = [
        ("data for a stream never opened", data(1, b"x", false), Code::PROTOCOL),
        ("a second hello", Message::Handshake(Handshake::Attached), Code::PROTOCOL),
        ("the daemon's words", opened_message(), Code::PROTOCOL),
        (
            "an id of the other side's",
            Message::Body(Body::Open(Open { stream: sid(2), ..open(sid(2)) })),
            Code::PROTOCOL,
        ),
        ("an accept of nothing", Message::Body(Body::Accept(Accept { stream: sid(8) })), Code::PROTOCOL),
        (
            "window for nothing",
            Message::Stream(StreamMessage::Window { stream: sid(9), bytes: 1 }),
            Code::PROTOCOL,
        ),
    ];
    for (what, message, code) in cases {
        let (mut raw, session, _inbox) = raw_plugin();
        raw.say(Some(1), message).await;
        let Message::Body(Body::Error(error)) = raw.next().await.message else { panic!("{what}: no Error") };
        assert_eq!(error.code, code, "{what}");
        assert_eq!(raw.end().await, 0, "{what}");
        assert_eq!(session.end().map(|end| end.code), Some(code), "{what}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_frame_end_the_session() {
    let huge = (limits::FRAME_BYTES_MAX + 1).to_be_bytes();
    let cases: [(&[u8], Code); 4] = [
        (&[0, 0, 0, 0], Code::PROTOCOL),
        (&huge, Code::FRAME_TOO_LARGE),
        (b"GET / HTTP/1.1\r\n\r\n", Code::FRAME_TOO_LARGE),
        (&[0, 0, 0, 3, 0xff, 0xff, 0xff], Code::PROTOCOL),
    ];
    for (bytes, code) in cases {
        let (mut raw, _session, _inbox) = raw_plugin();
        raw.socket.write_all(bytes).await.unwrap();
        let Message::Body(Body::Error(error)) = raw.next().await.message else { panic!("no Error") };
        assert_eq!(error.code, code, "{bytes:?}");
    }
}

#[tokio::test]
async fn requests_that_cannot_be_are_answered_and_the_session_lives() {
    let (mut raw, session, mut inbox) = raw_plugin();
    raw.say_bytes(&[8, 9, 0xba, 3, 0]).await; // rid 9, body 55, which version 1 does not have
    raw.expect_error(Some(9), Code::UNKNOWN_METHOD).await;
    raw.say_bytes(&[8, 10, 0x42, 4, 8, 1, 0x12, 0]).await; // Open{stream 1, peer ""}
    raw.expect_error(Some(10), Code::BAD_REQUEST).await;
    let late = StreamMessage::Data { stream: sid(1), payload: Bytes::from_static(b"late"), fin: false };
    raw.say(None, Message::Stream(late)).await; // its id is used up, so this is a race, no misdeed
    raw.say(Some(11), Message::Ping(77)).await;
    assert_eq!(raw.next().await.message, Message::Pong(77));
    raw.say(Some(12), Message::Body(Body::ContactList)).await;
    assert_eq!(soon(inbox.recv()).await.unwrap().body, Body::ContactList);
    assert_eq!(session.end(), None);
    raw.say(Some(12), Message::Body(Body::ContactList)).await;
    raw.expect_error(None, Code::PROTOCOL).await;
}

#[tokio::test]
async fn more_than_the_credit_resets_the_stream_and_nothing_else() {
    let (mut raw, session, mut inbox) = raw_plugin();
    raw.say(Some(1), Message::Body(Body::Open(open(sid(1))))).await;
    soon(inbox.recv()).await.unwrap();
    let (_send, mut recv) = session.adopt_stream(sid(1)).unwrap();
    for _ in 0..=limits::STREAM_WINDOW_BYTES / limits::DATA_BYTES_MAX {
        let payload = Bytes::from(vec![0; limits::DATA_BYTES_MAX as usize]);
        raw.say(None, Message::Stream(StreamMessage::Data { stream: sid(1), payload, fin: false })).await;
    }
    let reset = StreamMessage::Reset { stream: sid(1), end: End::new(Code::FLOW_CONTROL) };
    assert_eq!(raw.next().await.message, Message::Stream(reset));
    assert!(matches!(raw.next().await.message, Message::Stream(StreamMessage::StreamClosed { .. })));
    assert_eq!(soon(recv.read_chunk()).await.unwrap_err().end.code, Code::FLOW_CONTROL);
    assert_eq!(session.end(), None);
}

#[tokio::test]
async fn too_many_streams_are_refused_one_by_one() {
    let (mut raw, session, mut inbox) = raw_plugin();
    let reader = tokio::spawn(async move {
        let mut streams = Vec::new();
        while let Some(inbound) = inbox.recv().await {
            if let Body::Open(open) = inbound.body {
                streams.push(inbox.session().adopt_stream(open.stream).unwrap());
                inbox.session().reply(inbound.rid.unwrap(), opened(open.stream));
            }
        }
    });
    for n in 0..=limits::STREAMS_MAX {
        raw.say(Some(n + 1), Message::Body(Body::Open(open(sid(2 * n + 1))))).await;
        match n < limits::STREAMS_MAX {
            true => assert!(matches!(raw.next().await.message, Message::Body(Body::Opened(_)))),
            false => raw.expect_error(Some(n + 1), Code::STREAM_LIMIT).await,
        }
    }
    assert_eq!(session.stats().streams, limits::STREAMS_MAX);
    reader.abort();
}

#[tokio::test]
async fn who_asks_and_never_reads_is_closed_with_106() {
    let (mut raw, session, _inbox) = raw_plugin();
    let ping = Frame { rid: None, message: Message::Ping(u64::MAX) }.to_bytes().repeat(4096);
    while session.end().is_none() {
        if timeout(SOON, raw.socket.write_all(&ping)).await.unwrap().is_err() {
            break;
        }
    }
    assert_eq!(soon(session.ended()).await.code, Code::SLOW_CONSUMER);
}

#[tokio::test]
async fn who_talks_on_after_the_end_is_cut_off() {
    let (mut raw, session, _inbox) = raw_plugin();
    let chatter = Frame { rid: None, message: Message::Ping(1) }.to_bytes().repeat(4096);
    raw.say_bytes(&[0xff; 3]).await;
    let started = tokio::time::Instant::now();
    while timeout(SOON, raw.socket.write_all(&chatter)).await.unwrap().is_ok() {
        assert!(started.elapsed() < SOON, "the socket is never closed");
    }
    assert_eq!(soon(session.ended()).await.code, Code::PROTOCOL);
}

#[tokio::test]
async fn a_flood_of_log_lines_never_hides_a_request() {
    let (mut raw, session, mut inbox) = raw_plugin();
    let line = Body::Log(Log { level: Level::Info, text: "again".to_owned() });
    for _ in 0..limits::INBOX_FRAMES_MAX {
        raw.say(None, Message::Body(line.clone())).await;
    }
    raw.say(None, Message::Body(Body::Ready)).await;
    raw.say(Some(1), Message::Ping(1)).await;
    assert_eq!(raw.next().await.message, Message::Pong(1));
    let dropped = session.stats().notifications_dropped;
    assert_eq!(dropped, (limits::INBOX_FRAMES_MAX - limits::INBOX_LOGS_MAX) as u64);
    for _ in 0..limits::INBOX_LOGS_MAX {
        assert!(matches!(soon(inbox.recv()).await.unwrap().body, Body::Log(_)));
    }
    assert_eq!(soon(inbox.recv()).await.unwrap().body, Body::Ready);
}

#[tokio::test]
async fn frames_cut_into_single_bytes_or_glued_together_mean_the_same() {
    let (mut raw, _session, mut inbox) = raw_plugin();
    let mut bytes = Vec::new();
    for n in 1..=3 {
        bytes.extend(Frame { rid: Rid::new(n), message: Message::Body(Body::ContactList) }.to_bytes());
    }
    raw.socket.write_all(&bytes).await.unwrap();
    let last = Frame { rid: Rid::new(4), message: Message::Body(Body::ContactList) };
    for byte in last.to_bytes() {
        raw.socket.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    for n in 1..=4 {
        assert_eq!(soon(inbox.recv()).await.unwrap().rid, Rid::new(n));
    }
}

// ---- The handshake over sockets ----

#[tokio::test]
async fn a_launch_token_leads_to_a_session() {
    let (client, daemon) = UnixStream::pair().unwrap();
    let token = LaunchToken::from_random([9; 32]);
    let caller = Caller::new(Hello::default(), Credential::Token(token.clone()));
    let (welcome, opening) = tokio::join!(shake_hands(client, caller), answer(daemon, None));
    assert_eq!(opening, Opening::Token { token, hello: Hello::default() });
    assert_eq!(welcome.unwrap().plugin_id, "org.example.test");
}

#[tokio::test]
async fn both_sides_prove_that_they_know_the_secret() {
    let secret = EndpointSecret::new([5; 32]);
    let credential = |secret| Credential::Secret { secret, client_nonce: [1; 32] };
    let (client, daemon) = UnixStream::pair().unwrap();
    let caller = Caller::new(Hello::default(), credential(secret.clone()));
    let (welcome, opening) = tokio::join!(shake_hands(client, caller), answer(daemon, Some(secret)));
    assert_eq!(opening, Opening::Proven { hello: Hello::default() });
    assert!(welcome.is_ok());

    let (client, daemon) = UnixStream::pair().unwrap();
    let caller = Caller::new(Hello::default(), credential(EndpointSecret::new([6; 32])));
    let squatter = tokio::spawn(async move {
        let (mut read, mut write) = daemon.into_split();
        let mut acceptor = acceptor(Some(EndpointSecret::new([5; 32])));
        greet(&mut read, &mut write, &mut BytesMut::new(), &mut acceptor).await
    });
    let failure = shake_hands(client, caller).await.unwrap_err();
    assert!(matches!(failure, CallFailure::Call(hello::CallError::Impostor)), "{failure}");
    assert!(matches!(squatter.await.unwrap(), Err(GreetError::Closed)));
}

#[tokio::test]
async fn strangers_get_not_one_byte() {
    for words in [&b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"[..], &[0x16, 3, 1, 2, 0], b"{\"a\":1}\n"] {
        let (mut client, daemon) = UnixStream::pair().unwrap();
        client.write_all(words).await.unwrap();
        let (mut read, mut write) = daemon.into_split();
        let error =
            greet(&mut read, &mut write, &mut BytesMut::new(), &mut acceptor(None)).await.unwrap_err();
        assert!(matches!(error, GreetError::Rejected(hello::Rejection { answer: None, spoke: Some(_), .. })));
        drop((read, write));
        let mut answer = Vec::new();
        assert!(client.read_to_end(&mut answer).await.is_err() || answer.is_empty());
        assert!(answer.is_empty());
    }
}

#[tokio::test]
async fn a_plugin_of_a_far_future_is_told_which_versions_there_are() {
    let (client, daemon) = UnixStream::pair().unwrap();
    let hello = Hello { min_version: 7, max_version: 9, ..Hello::default() };
    let caller = Caller::new(hello, Credential::Token(LaunchToken::from_random([9; 32])));
    let (mut read, mut write) = daemon.into_split();
    let mut acceptor = acceptor(None);
    let mut buffer = BytesMut::new();
    let (failure, greeted) =
        tokio::join!(shake_hands(client, caller), greet(&mut read, &mut write, &mut buffer, &mut acceptor));
    let CallFailure::Call(hello::CallError::Refused(refused)) = failure.unwrap_err() else {
        panic!("not refused")
    };
    assert_eq!((refused.code, refused.min_version, refused.max_version), (Code::VERSION, 1, 1));
    assert!(greeted.is_err());
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_not_waited_for() {
    let (client, daemon) = tokio::io::duplex(4096);
    let (mut read, mut write) = tokio::io::split(daemon);
    let started = tokio::time::Instant::now();
    let error = greet(&mut read, &mut write, &mut BytesMut::new(), &mut acceptor(None)).await.unwrap_err();
    assert!(matches!(error, GreetError::Timeout));
    assert_eq!(started.elapsed(), limits::HELLO_TIMEOUT);
    drop(client);
}

#[tokio::test]
async fn a_ticket_makes_a_socket_a_stream() {
    let (mut client, daemon) = UnixStream::pair().unwrap();
    let ticket = Ticket::from_random([3; 16]);
    let shown = ticket.clone();
    let there = tokio::spawn(async move {
        let (mut read, mut write) = daemon.into_split();
        let mut acceptor = acceptor(None);
        let mut buffer = BytesMut::new();
        let opening = greet(&mut read, &mut write, &mut buffer, &mut acceptor).await.unwrap();
        assert_eq!(opening, Opening::Attach { ticket: shown });
        let mut answer = BytesMut::from(&acceptor.attached()[..]);
        answer.extend_from_slice(b"raw bytes");
        write.write_all(&answer).await.unwrap();
    });
    let mut early = BytesMut::new();
    attach(&mut client, &mut early, ticket).await.unwrap();
    there.await.unwrap();
    client.read_buf(&mut early).await.unwrap();
    assert!(early.starts_with(b"raw bytes"), "{early:?}");

    let (mut client, mut daemon) = UnixStream::pair().unwrap();
    let refused = Message::Handshake(Handshake::Refused(Refused::new(Code::AUTH, "used before")));
    daemon.write_all(&Frame { rid: None, message: refused }.to_bytes()).await.unwrap();
    let failure = attach(&mut client, &mut BytesMut::new(), Ticket::from_random([3; 16])).await.unwrap_err();
    assert!(matches!(failure, CallFailure::Call(hello::CallError::Refused(_))));
}

// ---- Helpers ----

async fn soon<F: IntoFuture>(work: F) -> F::Output {
    timeout(SOON, work).await.expect("it must not hang")
}

async fn settled(is_done: impl Fn() -> bool) {
    soon(async {
        while !is_done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

fn sid(number: u32) -> StreamId {
    StreamId::new(number).unwrap()
}

fn peer() -> PeerId {
    // The base point of Ed25519: a well-formed key that nobody needs to know a secret for.
    let mut bytes = [0x66; 32];
    bytes[0] = 0x58;
    PeerId::from_bytes(bytes).unwrap()
}

fn name() -> ProtocolName {
    ProtocolName::parse("/test/1").unwrap()
}

fn open(stream: StreamId) -> Open {
    Open {
        stream,
        peer: peer(),
        protocols: vec![name()],
        kind: Kind::Stream,
        attachment: Attachment::Mux,
        timeout: None,
        relay: RelayUse::Allow,
    }
}

fn opened(stream: StreamId) -> Body {
    Body::Opened(Opened { stream, protocol: name(), path: PathKind::Lan, ticket: None, datagram_max: 0 })
}

fn opened_message() -> Message {
    Message::Body(opened(sid(1)))
}

fn incoming(stream: StreamId) -> Incoming {
    Incoming {
        stream,
        peer: peer(),
        protocol: name(),
        kind: Kind::Stream,
        path: PathKind::Lan,
        petname: None,
        is_contact: false,
        ticket: None,
        datagram_max: 0,
    }
}

fn welcome() -> Welcome {
    Welcome {
        version: 1,
        features: Vec::new(),
        daemon: "test".to_owned(),
        plugin_id: "org.example.test".to_owned(),
        instance_id: "1".to_owned(),
        peer_id: peer(),
        grants: Vec::new(),
        limits: Limits::default(),
    }
}

fn spawn_plugin<S: AsyncRead + AsyncWrite + Send + 'static>(socket: S) -> (Session, Inbox) {
    let (read, write) = tokio::io::split(socket);
    spawn(read, write, BytesMut::new(), Settings::plugin(&Hello::default(), &welcome()))
}

fn spawn_daemon<S: AsyncRead + AsyncWrite + Send + 'static>(socket: S) -> (Session, Inbox) {
    let (read, write) = tokio::io::split(socket);
    spawn(read, write, BytesMut::new(), Settings::daemon(&Limits::default(), &Hello::default()))
}

/// A socket whose other end reads no more.
struct Deaf;

impl AsyncWrite for Deaf {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: std::pin::Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: std::pin::Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A plugin's and a daemon's session, joined by a real socket.
struct Pair {
    plugin: (Session, Inbox),
    daemon: (Session, Inbox),
}

impl Pair {
    fn new() -> Self {
        let (plugin, daemon) = UnixStream::pair().unwrap();
        Self { plugin: spawn_plugin(plugin), daemon: spawn_daemon(daemon) }
    }

    /// A stream that the plugin opened and the daemon took.
    async fn stream(&mut self) -> ((SendHalf, RecvHalf), (SendHalf, RecvHalf)) {
        let opening = self.plugin.0.open_stream(|id| Body::Open(open(id))).unwrap();
        let inbound = soon(self.daemon.1.recv()).await.unwrap();
        let there = self.daemon.0.adopt_stream(opening.id).unwrap();
        self.daemon.0.reply(inbound.rid.unwrap(), opened(opening.id));
        soon(opening.answer).await.unwrap();
        ((opening.send, opening.recv), there)
    }
}

async fn read_all(recv: &mut RecvHalf) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(bytes) = soon(recv.read_chunk()).await.unwrap() {
        all.extend_from_slice(&bytes);
    }
    all
}

/// Writes until no more fits and none is given back for a while; tells how much went.
async fn write_until_stuck(send: &mut SendHalf) -> usize {
    let mut written = 0;
    while let Ok(bytes) =
        timeout(Duration::from_millis(50), send.write_chunks(&mut [Bytes::from(vec![0; 9999])])).await
    {
        written += bytes.unwrap();
    }
    written
}

async fn write_until_error(send: &mut SendHalf) -> crate::streams::StreamEnd {
    loop {
        if let Err(end) = send.write(Bytes::from(vec![0; 9999])).await {
            return end;
        }
    }
}

/// A plugin that speaks in single frames, against a daemon's session.
struct Raw<S> {
    socket: S,
    buffer: BytesMut,
}

fn raw_plugin() -> (Raw<UnixStream>, Session, Inbox) {
    let (plugin, daemon) = UnixStream::pair().unwrap();
    let (session, inbox) = spawn_daemon(daemon);
    (Raw { socket: plugin, buffer: BytesMut::new() }, session, inbox)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    async fn say(&mut self, rid: Option<u32>, message: Message) {
        let bytes = Frame { rid: rid.and_then(Rid::new), message }.to_bytes();
        soon(self.socket.write_all(&bytes)).await.unwrap();
    }

    async fn say_bytes(&mut self, body: &[u8]) {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        soon(self.socket.write_all(&[&length, body].concat())).await.unwrap();
    }

    async fn next(&mut self) -> Frame {
        loop {
            if let Some(length) = frame::measure(&self.buffer, limits::FRAME_BYTES_MAX).unwrap() {
                assert!(self.buffer.len() >= PREFIX_BYTES + length);
                return Frame::decode(frame::take_body(&mut self.buffer, length)).unwrap();
            }
            let bytes = timeout(Duration::from_secs(600), self.socket.read_buf(&mut self.buffer)).await;
            assert!(bytes.expect("it must not hang").unwrap() > 0, "the daemon closed");
        }
    }

    async fn expect_error(&mut self, rid: Option<u32>, code: Code) {
        let frame = self.next().await;
        let Message::Body(Body::Error(error)) = frame.message else { panic!("no Error: {frame:?}") };
        assert_eq!((frame.rid, error.code), (rid.and_then(Rid::new), code));
    }

    /// Reads to the end, and tells how many bytes there were.
    async fn end(&mut self) -> usize {
        let mut rest = Vec::new();
        soon(self.socket.read_to_end(&mut rest)).await.unwrap();
        rest.len()
    }
}

fn acceptor(endpoint_secret: Option<EndpointSecret>) -> Acceptor {
    Acceptor::new(AcceptorConfig { endpoint_secret, server_nonce: [2; 32] })
}

/// The daemon's side of a good handshake.
async fn answer(socket: UnixStream, secret: Option<EndpointSecret>) -> Opening {
    let (mut read, mut write) = socket.into_split();
    let mut acceptor = acceptor(secret);
    let opening = greet(&mut read, &mut write, &mut BytesMut::new(), &mut acceptor).await.unwrap();
    let bytes = acceptor.welcome(&Hello::default(), welcome());
    write.write_all(&bytes).await.unwrap();
    opening
}

async fn shake_hands(socket: UnixStream, mut caller: Caller) -> Result<Welcome, CallFailure> {
    let (mut read, mut write) = socket.into_split();
    call(&mut read, &mut write, &mut BytesMut::new(), &mut caller).await
}
