//! Streams that nobody reads: they cost their window and nothing else.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "helpers of tests fail like tests")]

mod support;

use bytes::Bytes;
use p2pos_transport::{RecvStream, SendStream};

use support::{pair, read_all, soon};

/// Bytes that a stream takes when nobody reads it.
const STREAM_WINDOW: usize = 1024 * 1024;
const STALLED: usize = 100;

/// Writes until the stream takes no more, and says how much it took.
async fn stuff(send: &mut SendStream) -> usize {
    let chunk = Bytes::from(vec![7; 16 * 1024]);
    let mut written = 0;
    loop {
        let mut chunks = [chunk.clone()];
        let write = send.write_chunks(&mut chunks);
        if tokio::time::timeout(std::time::Duration::from_millis(500), write).await.is_err() {
            return written;
        }
        written += chunk.len();
    }
}

#[tokio::test]
async fn a_hundred_stalled_streams_hold_their_windows_and_another_one_runs_on() {
    let (_a, dialed, _b, accepted) = soon(pair()).await;
    accepted.widen();
    let mut stuffing = tokio::task::JoinSet::new();
    let mut unread: Vec<(SendStream, RecvStream)> = Vec::new();
    for _ in 0..STALLED {
        let (mut send, recv) = dialed.open().await.unwrap();
        stuffing.spawn(async move {
            let written = stuff(&mut send).await;
            (written, send, recv)
        });
        unread.push(soon(accepted.accept_stream()).await.unwrap());
    }
    let stuffed = soon(stuffing.join_all()).await;
    for (written, ..) in &stuffed {
        assert!(*written <= STREAM_WINDOW, "a stream took {written} bytes unread");
    }

    let (mut send, _recv) = dialed.open().await.unwrap();
    let total = 32 * STREAM_WINDOW;
    let sending = tokio::spawn(async move {
        for _ in 0..total / (64 * 1024) {
            send.write_chunks(&mut [Bytes::from(vec![1; 64 * 1024])]).await.unwrap();
        }
        send.finish();
        send
    });
    let (_back, mut theirs) = soon(accepted.accept_stream()).await.unwrap();
    assert_eq!(soon(read_all(&mut theirs)).await.unwrap().len(), total);
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn a_stranger_can_make_us_hold_four_full_streams_and_no_more() {
    let (_a, dialed, _b, accepted) = soon(pair()).await;
    let mut stuffing = tokio::task::JoinSet::new();
    let mut unread = Vec::new();
    for _ in 0..8 {
        let (mut send, recv) = dialed.open().await.unwrap();
        stuffing.spawn(async move {
            let written = stuff(&mut send).await;
            (written, send, recv)
        });
    }
    while unread.len() < 4 {
        unread.push(soon(accepted.accept_stream()).await.unwrap());
    }
    let stuffed = soon(stuffing.join_all()).await;
    let total: usize = stuffed.iter().map(|(written, ..)| written).sum();
    assert!(total <= 4 * STREAM_WINDOW, "{total} bytes were taken");
}
