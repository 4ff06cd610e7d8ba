//! How detached streams end (SPEC.md, sections 7 and 8): the socket may lie, StreamClosed may not.

use p2pos_plugin_protocol::{
    client::RawStream,
    code::{Code, End},
    message::{Cause, StreamClosed},
    streams::How,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::plugin::{Pair, assert_closed, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_of_a_detached_stream_finish_in_either_order() {
    const BYTES: usize = 5 << 20;
    let pair = Pair::up().await;
    for opener_is_first in [true, false] {
        let (opener, server) = pair.raw_stream().await;
        let (mut first, mut second) = if opener_is_first { (opener, server) } else { (server, opener) };
        let writing = tokio::spawn(async move {
            first.write_all(&vec![3; BYTES]).await.unwrap();
            first.shutdown().await.unwrap();
            first
        });
        let mut all = Vec::new();
        soon(second.read_to_end(&mut all)).await.unwrap();
        assert_eq!(all.len(), BYTES);
        second.write_all(b"thanks").await.unwrap();
        second.shutdown().await.unwrap();
        let mut first = writing.await.unwrap();
        let mut thanks = Vec::new();
        soon(first.read_to_end(&mut thanks)).await.unwrap();
        assert_eq!(thanks, b"thanks");
        for (stream, bytes_in, bytes_out) in [(first, 6, BYTES), (second, BYTES, 6)] {
            let closed = closed(&stream).await;
            assert_closed(&closed, Cause::Finished, None);
            assert_eq!((closed.bytes_in, closed.bytes_out), (bytes_in as u64, bytes_out as u64));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_of_a_detached_stream_tells_its_number_on_the_session() {
    let pair = Pair::up().await;
    for opener_resets in [true, false] {
        let (opener, server) = pair.raw_stream().await;
        let (resetting, mut other) = if opener_resets { (opener, server) } else { (server, opener) };
        let own = resetting.closed();
        resetting.reset(9);
        drain(&mut other).await;
        assert_closed(&closed(&other).await, Cause::ResetRemote, Some(End::app(9)));
        assert_closed(&soon(own).await.unwrap(), Cause::ResetLocal, Some(End::app(9)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detached_stream_of_a_plugin_that_is_gone_ends_with_403() {
    let pair = Pair::up().await;
    let (mut here, there) = pair.raw_stream().await;
    let own = there.closed();
    pair.there.client.session().close(End::new(Code::SHUTTING_DOWN), "I go");
    drain(&mut here).await;
    assert_closed(&closed(&here).await, Cause::ResetRemote, Some(End::new(Code::PLUGIN_GONE)));
    let end = soon(own).await.unwrap_err();
    assert_eq!(end.how, How::Session);
    drop(there);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detached_stream_of_a_daemon_that_was_killed_ends_with_105_here_and_404_there() {
    let mut pair = Pair::up().await;
    let (mut here, mut there) = pair.raw_stream().await;
    pair.b.kill();
    drain(&mut there).await;
    let end = soon(there.closed()).await.unwrap_err();
    assert_eq!((how_of(end), end.end), (How::Session, End::new(Code::SHUTTING_DOWN)));
    pair.b.start();
    let noticed = async {
        while here.write_all(b"still there?").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    soon(noticed).await;
    assert_closed(&closed(&here).await, Cause::ResetRemote, Some(End::new(Code::PATH_LOST)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detached_stream_that_nobody_reads_only_waits() {
    let mut pair = Pair::up().await;
    let (mut here, mut there) = pair.raw_stream().await;
    let writing = tokio::spawn(async move {
        here.write_all(&vec![1; 16 << 20]).await.unwrap();
        here.shutdown().await.unwrap();
        here
    });
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(!writing.is_finished(), "16 MiB went to somebody who does not read");
    let (mut one, mut other) = pair.stream().await;
    one.write(&b"x"[..]).await.unwrap();
    assert_eq!(soon(other.read()).await.unwrap().unwrap(), &b"x"[..]);
    let mut all = Vec::new();
    soon(there.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all.len(), 16 << 20);
    there.shutdown().await.unwrap();
    let here = soon(writing).await.unwrap();
    assert_closed(&closed(&here).await, Cause::Finished, None);
}

const fn how_of(end: p2pos_plugin_protocol::streams::StreamEnd) -> How {
    end.how
}

async fn closed(stream: &RawStream) -> StreamClosed {
    soon(stream.closed()).await.unwrap()
}

/// Reads until the socket ends, however it does: a socket cannot tell.
async fn drain(stream: &mut RawStream) {
    let mut buffer = [0; 4096];
    while soon(stream.read(&mut buffer)).await.is_ok_and(|bytes| bytes > 0) {}
}
