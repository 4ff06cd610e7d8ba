//! A plugin that does not read must cost a bounded amount of memory, stop its own writer, and slow nobody else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use p2pos_plugin_protocol::{
    client::Stream,
    limits::{SEND_BUFFER_BYTES_MAX, STREAM_WINDOW_BYTES},
};

use crate::{
    daemon::{User, eventually, resident_kib},
    plugin::{PROTOCOL, Pair, read_exactly, soon},
};

/// What the writing plugin's SDK and its daemon hold: the SDK's buffer, and the window that the daemon gives.
const AT_THE_WRITER: usize = SEND_BUFFER_BYTES_MAX + STREAM_WINDOW_BYTES as usize;
/// What QUIC holds between the daemons: the window of a stream on loopback (docs/decisions/0009).
const BETWEEN: usize = 1 << 20;
/// The reader's bridge holds one batch: 32 chunks of at most a large packet's size. That of the writer's holds what its plugin got no
/// credit back for, which is counted already.
const IN_THE_BRIDGES: usize = 32 * (9 << 10);
/// What the reading plugin's daemon and SDK hold: the daemon's buffer, and the window that the Rust SDK gives.
const AT_THE_READER: usize = SEND_BUFFER_BYTES_MAX + (1 << 20);
/// A writer whose reader does not read has to stop after this much.
const STALLED_BYTES_MAX: usize = AT_THE_WRITER + BETWEEN + IN_THE_BRIDGES + AT_THE_READER;

const PIECE: Bytes = Bytes::from_static(&[0x5a; 64 << 10]);

/// Writes for ever, counting what it got rid of.
fn flood(mut stream: Stream) -> Arc<AtomicUsize> {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    tokio::spawn(async move {
        while stream.write(PIECE).await.is_ok() {
            count.fetch_add(PIECE.len(), Ordering::Relaxed);
        }
    });
    written
}

/// Waits until nothing moves any more, and gives what was written.
async fn settled(written: &[Arc<AtomicUsize>]) -> usize {
    let sum = || written.iter().map(|one| one.load(Ordering::Relaxed)).sum::<usize>();
    let still = async {
        let mut before = usize::MAX;
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = sum();
            if now == before {
                return now;
            }
            before = now;
        }
    };
    soon(still).await
}

/// Moves so many bytes over a new stream and gives the time that it took.
async fn move_bytes(pair: &mut Pair, bytes: usize) -> Duration {
    let (mut one, mut other) = pair.stream().await;
    let begun = Instant::now();
    let writing = tokio::spawn(async move {
        for _ in 0..bytes / PIECE.len() {
            one.write(PIECE).await.unwrap();
        }
        one.close_write().unwrap();
        one
    });
    let mut read = 0;
    while let Some(piece) = soon(other.read()).await.unwrap() {
        read += piece.len();
    }
    let took = begun.elapsed();
    assert_eq!(read, bytes);
    other.close_write().unwrap();
    assert!(soon(soon(writing).await.unwrap().read()).await.unwrap().is_none());
    took
}

fn resident(users: [&User; 2]) -> u64 {
    users.into_iter().map(|user| resident_kib(user.pid())).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_stops_the_writer_within_the_windows_and_others_go_on() {
    const MOVED_BYTES: usize = 64 << 20;
    let mut pair = Pair::up().await;
    let (writer, reader) = pair.stream().await;
    let written = flood(writer);
    move_bytes(&mut pair, MOVED_BYTES).await;
    let held = settled(std::slice::from_ref(&written)).await;
    assert!(held >= BETWEEN, "{held} bytes: nothing was on the way at all");
    assert!(held <= STALLED_BYTES_MAX, "{held} bytes were taken, {STALLED_BYTES_MAX} have room");
    // It reads again, and the writer writes again.
    let mut reader = reader;
    read_exactly(&mut reader, held + 1).await;
    eventually("the writer goes on", || written.load(Ordering::Relaxed) > held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_stalled_streams_leave_another_its_speed_and_memory_stays_where_it_is() {
    const STALLED: usize = 100;
    const MOVED_BYTES: usize = 48 << 20;
    /// All windows of all stalled streams, in both daemons, and the daemons themselves.
    const RESIDENT_KIB_MAX: u64 = ((STALLED * STALLED_BYTES_MAX) >> 10) as u64 + 2 * (64 << 10);
    /// What a daemon may still take while bytes move on another stream: its allocator is not exact.
    const GROWTH_KIB_MAX: u64 = 16 << 10;
    let mut pair = Pair::up().await;
    move_bytes(&mut pair, MOVED_BYTES).await;
    let free = move_bytes(&mut pair, MOVED_BYTES).await.min(move_bytes(&mut pair, MOVED_BYTES).await);

    let mut written = Vec::new();
    let mut readers = Vec::new();
    for _ in 0..STALLED {
        let (writer, reader) = pair.stream().await;
        written.push(flood(writer));
        readers.push(reader);
    }
    let held = settled(&written).await;
    assert!(held <= STALLED * STALLED_BYTES_MAX, "{held}");
    let resident_then = resident([&pair.a, &pair.b]);
    assert!(resident_then <= RESIDENT_KIB_MAX, "{resident_then} KiB, {RESIDENT_KIB_MAX} are allowed");

    let mut among = Duration::MAX;
    for _ in 0..8 {
        // The best of a few: the machine may do something else meanwhile.
        among = among.min(move_bytes(&mut pair, MOVED_BYTES).await);
        if among <= free * 2 {
            break;
        }
    }
    assert!(among <= free * 2, "{among:?} beside stalled streams, {free:?} without");
    assert_eq!(settled(&written).await, held, "a stalled stream moved");
    let resident_now = resident([&pair.a, &pair.b]);
    assert!(resident_now <= resident_then + GROWTH_KIB_MAX, "{resident_then} KiB grew to {resident_now} KiB");
    println!(
        "{STALLED} stalled streams hold {held} bytes, {resident_now} KiB resident; {free:?} free, {among:?} beside"
    );

    drop(readers);
    eventually("the streams are forgotten", || pair.a.streams() == 0 && pair.b.streams() == 0);
    let (mut one, mut other) = pair.stream().await;
    one.write(&b"x"[..]).await.unwrap();
    assert_eq!(read_exactly(&mut other, 1).await, b"x");
    assert_eq!(one.info().protocol.to_string(), PROTOCOL);
}
