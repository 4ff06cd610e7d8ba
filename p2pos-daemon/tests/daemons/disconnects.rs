//! How streams end (SPEC.md, section 7) when both plugins and both daemons live on: every cell with two real daemons.

use std::time::Duration;

use bytes::Bytes;
use p2pos_plugin_protocol::{
    client::Error,
    code::{Code, End},
    message::Cause,
    streams::How,
};
use tokio::time::timeout;

use crate::plugin::{PROTOCOL, Pair, Plugin, assert_closed, break_of, read_all, read_exactly, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_finish_in_either_order_and_all_bytes_are_there() {
    let mut pair = Pair::up().await;
    for opener_is_first in [true, false] {
        let (opener, server) = pair.stream().await;
        let (mut first, mut second) = if opener_is_first { (opener, server) } else { (server, opener) };
        first.write(&b"all that I have to say"[..]).await.unwrap();
        first.close_write().unwrap();
        assert_eq!(read_all(&mut second).await, b"all that I have to say");
        // The other direction goes on after the first one has ended.
        second.write(&b"and I "[..]).await.unwrap();
        assert_eq!(read_exactly(&mut first, 6).await, b"and I ");
        second.write(&b"too"[..]).await.unwrap();
        second.close_write().unwrap();
        assert_eq!(read_all(&mut first).await, b"too");
        for (stream, bytes_in, bytes_out) in [(first, 9, 22), (second, 22, 9)] {
            let closed = soon(stream.closed()).await.unwrap();
            assert_closed(&closed, Cause::Finished, None);
            assert_eq!((closed.bytes_in, closed.bytes_out), (bytes_in, bytes_out));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_carries_the_plugins_own_number_to_the_other_side() {
    let mut pair = Pair::up().await;
    for (opener_resets, app) in [(true, 7), (false, u32::MAX)] {
        let (opener, server) = pair.stream().await;
        let (resetting, mut other) = if opener_resets { (opener, server) } else { (server, opener) };
        let (mut send, recv) = resetting.split();
        send.reset(End::app(app));
        assert_eq!(break_of(&mut other).await, (How::Reset, End::app(app)));
        assert_closed(&soon(other.closed()).await.unwrap(), Cause::ResetRemote, Some(End::app(app)));
        assert_closed(&soon(recv.closed()).await.unwrap(), Cause::ResetLocal, Some(End::app(app)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_reading_stops_the_writer_and_may_go_on_writing() {
    let mut pair = Pair::up().await;
    for opener_stops in [true, false] {
        let (opener, server) = pair.stream().await;
        let (stopping, mut writing) = if opener_stops { (opener, server) } else { (server, opener) };
        let (mut send, mut recv) = stopping.split();
        recv.stop(End::app(5));
        let stopped = async {
            loop {
                match writing.write(Bytes::from_static(&[0; 1000])).await {
                    Ok(()) => tokio::time::sleep(Duration::from_millis(5)).await,
                    Err(Error::Stream(end)) => return (end.how, end.end),
                    Err(error) => panic!("{error}"),
                }
            }
        };
        assert_eq!(soon(stopped).await, (How::Stopped, End::app(5)));
        send.write(Bytes::from_static(b"I still have something to say")).await.unwrap();
        send.finish().unwrap();
        assert_eq!(read_all(&mut writing).await, b"I still have something to say");
        assert_closed(&soon(writing.closed()).await.unwrap(), Cause::ResetRemote, Some(End::app(5)));
        assert_closed(&soon(recv.closed()).await.unwrap(), Cause::ResetLocal, Some(End::app(5)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_may_end_a_stream_at_the_same_moment() {
    let mut pair = Pair::up().await;
    for _ in 0..20 {
        let (mut one, mut other) = pair.stream().await;
        one.close_write().unwrap();
        other.close_write().unwrap();
        assert_eq!((read_all(&mut one).await, read_all(&mut other).await), (Vec::new(), Vec::new()));
        assert_closed(&soon(one.closed()).await.unwrap(), Cause::Finished, None);
        assert_closed(&soon(other.closed()).await.unwrap(), Cause::Finished, None);

        let ((mut one, first), (mut other, second)) = {
            let (one, other) = pair.stream().await;
            (one.split(), other.split())
        };
        one.reset(End::app(1));
        other.reset(End::app(2));
        for (recv, own, theirs) in [(first, 1, 2), (second, 2, 1)] {
            let closed = soon(recv.closed()).await.unwrap();
            let is_true = closed.cause == Cause::ResetLocal && closed.end == Some(End::app(own))
                || closed.cause == Cause::ResetRemote && closed.end == Some(End::app(theirs));
            assert!(is_true, "{closed:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_may_leave_right_after_fin_and_the_last_byte_still_arrives() {
    const BYTES: usize = 200 << 10;
    let mut pair = Pair::up().await;
    for opener_leaves in [false, true] {
        let (opener, server) = pair.stream().await;
        let (mut leaving, mut staying) = if opener_leaves { (opener, server) } else { (server, opener) };
        staying.close_write().unwrap();
        assert_eq!(read_all(&mut leaving).await, b"");
        leaving.write(vec![7; BYTES]).await.unwrap();
        leaving.close_write().unwrap();
        leaving.client().session().close(End::new(Code::SHUTTING_DOWN), "I have said all");
        assert_eq!(read_all(&mut staying).await.len(), BYTES);
        let closed = soon(staying.closed()).await.unwrap();
        assert_closed(&closed, Cause::Finished, None);
        assert_eq!(closed.bytes_in, BYTES as u64);
        if !opener_leaves {
            drop(leaving);
            pair.replace_there().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_does_not_read_only_makes_its_writer_wait() {
    let mut pair = Pair::up().await;
    let (mut writer, mut slow) = pair.stream().await;
    let writing = tokio::spawn(async move {
        writer.write(vec![1; 16 << 20]).await.unwrap();
        writer.close_write().unwrap();
        writer
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!writing.is_finished(), "16 MiB went to somebody who does not read");
    let (mut one, mut other) = pair.stream().await;
    one.write(&b"others go on"[..]).await.unwrap();
    assert_eq!(read_exactly(&mut other, 12).await, b"others go on");
    assert_eq!(read_all(&mut slow).await.len(), 16 << 20);
    slow.close_write().unwrap();
    let mut writer = soon(writing).await.unwrap();
    assert_eq!(read_all(&mut writer).await, b"");
    assert_closed(&soon(writer.closed()).await.unwrap(), Cause::Finished, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_that_is_given_up_resets_what_had_got_there() {
    let mut pair = Pair::up().await;
    let here = pair.here.client.clone();
    let peer = pair.b.id();
    let opening = tokio::spawn(async move { here.open(peer, PROTOCOL).await.map(drop) });
    let asked = soon(pair.listener.accept()).await.unwrap();
    opening.abort();
    assert!(opening.await.unwrap_err().is_cancelled());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut stream = asked.accept_stream().unwrap();
    let (how, end) = break_of(&mut stream).await;
    // Its reset came before anybody had taken the stream, and whoever takes it hears of that.
    assert_eq!((how, end), (How::Reset, End::app(0)));
    // The session is as good as before.
    let (mut one, mut other) = pair.stream().await;
    one.write(&b"x"[..]).await.unwrap();
    assert_eq!(read_exactly(&mut other, 1).await, b"x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offer_is_refused_by_the_plugin_or_after_ten_seconds_by_its_daemon() {
    let mut pair = Pair::up().await;
    for (may_try_again, expected) in [(false, Code::REFUSED), (true, Code::NOT_READY)] {
        let opened = pair.here.open(&pair.b, PROTOCOL);
        let refused =
            async { soon(pair.listener.accept()).await.unwrap().reject(may_try_again, "not today") };
        let (opened, ()) = tokio::join!(opened, refused);
        assert_eq!(opened.unwrap_err().code(), Some(expected));
    }
    // It takes the offer and never answers.
    let opened = pair.here.open(&pair.b, PROTOCOL);
    let (opened, asked) = tokio::join!(opened, async { soon(pair.listener.accept()).await.unwrap() });
    assert_eq!(opened.unwrap_err().code(), Some(Code::NOT_READY));
    drop(asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_serves_is_304_and_what_is_not_allowed_202() {
    let pair = Pair::up().await;
    assert_eq!(
        pair.here.open(&pair.b, "/echo/1").await.unwrap_err().code(),
        Some(Code::PROTOCOL_NOT_SUPPORTED)
    );
    assert_eq!(pair.here.open(&pair.b, "/other/1").await.unwrap_err().code(), Some(Code::PERMISSION_DENIED));
    let twice = Plugin::at(&pair.b, "twice").await;
    assert_eq!(twice.client.register(PROTOCOL).await.unwrap_err().code(), Some(Code::ALREADY_REGISTERED));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_a_plugin_whose_session_ends_is_403_for_the_other() {
    let mut pair = Pair::up().await;
    let (mut here, there) = pair.stream().await;
    drop(there);
    let (mut here_too, mut there) = pair.stream().await;
    // Dropping a stream in the middle is the plugin's own reset; closing the session with streams on it is not.
    assert_eq!(break_of(&mut here).await, (How::Reset, End::app(0)));
    pair.there.client.session().close(End::new(Code::SHUTTING_DOWN), "I go");
    assert_eq!(break_of(&mut here_too).await, (How::Reset, End::new(Code::PLUGIN_GONE)));
    assert_closed(
        &soon(here_too.closed()).await.unwrap(),
        Cause::ResetRemote,
        Some(End::new(Code::PLUGIN_GONE)),
    );
    assert_eq!(break_of(&mut there).await.0, How::Session);
    let nobody = timeout(Duration::from_secs(5), pair.listener.accept()).await;
    assert!(nobody.unwrap().is_none());
}
