//! The work that every system does in the same way: bulk, round trips, messages, stream opens.
//!
//! Knows streams of bytes and nothing about who carries them. The first byte of a stream names the job; the serving side answers as the job
//! says and finishes. All figures come from the driving side's clock.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// How a system's two ends are made. `serve` answers jobs for ever; `dial` gives a fresh connection to it.
pub trait System: Send + Sync + 'static {
    type Link: Link;
    /// Binds, spawns its accept loop and returns what `dial` needs.
    fn serve(&self) -> impl Future<Output = Result<String>> + Send;
    /// Does what comes before anybody wishes to talk: binds, or joins a daemon.
    fn prepare(&self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }
    fn dial(&self, target: &str) -> impl Future<Output = Result<Self::Link>> + Send;
}

/// One connection.
pub trait Link: Send + Sync + 'static {
    type Send: Sender;
    type Recv: Receiver;
    fn open(&self) -> impl Future<Output = Result<(Self::Send, Self::Recv)>> + Send;
    /// Ends it so that nothing connects the two any more.
    fn close(self) -> impl Future<Output = Result<()>> + Send;
}

/// The writing half of a stream. `write` returns when the bytes are taken; every write may go out at once.
pub trait Sender: Send + 'static {
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = Result<()>> + Send;
    fn finish(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// The reading half: chunks of any size, `None` at the end.
pub trait Receiver: Send + 'static {
    fn read(&mut self) -> impl Future<Output = Result<Option<Bytes>>> + Send;
}

/// Largest single write of the bulk job, bytes: what a file copy would use.
const CHUNK_BYTES: usize = 64 * 1024;
/// Message body of the message and round-trip jobs, bytes.
const MESSAGE_BYTES: usize = 64;
/// A message on the wire: u32 length and body.
const FRAMED_BYTES: usize = 4 + MESSAGE_BYTES;
/// Messages are written in batches of about this many bytes in the batched job.
const BATCH_BYTES: usize = 8 * 1024;

/// One job and how much of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Job {
    Bulk {
        seconds: f64,
    },
    /// Bulk as the receiver sees it, without what it had got after `skip` seconds.
    WatchedBulk {
        seconds: f64,
        skip: f64,
    },
    RoundTrip {
        count: usize,
    },
    MessagesBatched {
        count: usize,
    },
    MessagesFlushed {
        count: usize,
    },
    Open {
        count: usize,
    },
}

/// What one job measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// `mib_per_s`, `p50_us`, `messages_per_s`.
    pub unit: String,
    pub value: f64,
    /// The 99th percentile where there are samples.
    pub p99: Option<f64>,
}

/// Serves one stream.
pub async fn serve_stream(mut send: impl Sender, mut recv: impl Receiver) -> Result<()> {
    let Some(mut first) = recv.read().await? else { return Ok(()) };
    ensure!(!first.is_empty(), "empty first chunk");
    let job = first.split_to(1)[0];
    match job {
        b'S' => {
            let mut total = first.len() as u64;
            while let Some(chunk) = recv.read().await? {
                total += chunk.len() as u64;
            }
            send.write(Bytes::copy_from_slice(&total.to_be_bytes())).await?;
        }
        b'W' => return report_arrivals(send, recv, first.len() as u64).await,
        b'E' => {
            if !first.is_empty() {
                send.write(first).await?;
            }
            while let Some(chunk) = recv.read().await? {
                send.write(chunk).await?;
            }
        }
        b'M' => {
            let mut count = MessageCount::default();
            count.feed(&first);
            while let Some(chunk) = recv.read().await? {
                count.feed(&chunk);
            }
            send.write(Bytes::copy_from_slice(&count.messages.to_be_bytes())).await?;
        }
        other => bail!("unknown job {other:#x}"),
    }
    send.finish().await
}

/// How often the receiver of a watched bulk stream says how far it is.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// Microseconds since the beginning, and bytes so far, both u64.
const ARRIVAL_BYTES: usize = 16;

/// Counts what arrives and says so all the time: on a lossy wire, what the sender got rid of is far ahead of it.
async fn report_arrivals(mut send: impl Sender, mut recv: impl Receiver, mut total: u64) -> Result<()> {
    let start = Instant::now();
    let mut next = REPORT_EVERY;
    while let Some(chunk) = recv.read().await? {
        total += chunk.len() as u64;
        let now = start.elapsed();
        if now >= next {
            next = now + REPORT_EVERY;
            let mut report = BytesMut::with_capacity(ARRIVAL_BYTES);
            report.extend_from_slice(&(now.as_micros() as u64).to_be_bytes());
            report.extend_from_slice(&total.to_be_bytes());
            send.write(report.freeze()).await?;
        }
    }
    send.finish().await
}

/// Counts length-prefixed messages in a byte stream without copying it.
#[derive(Default)]
struct MessageCount {
    messages: u64,
    head: [u8; 4],
    head_have: usize,
    body_left: usize,
}

impl MessageCount {
    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let n = self.body_left.min(bytes.len());
                self.body_left -= n;
                bytes = &bytes[n..];
                if self.body_left == 0 {
                    self.messages += 1;
                }
                continue;
            }
            let n = (4 - self.head_have).min(bytes.len());
            self.head[self.head_have..self.head_have + n].copy_from_slice(&bytes[..n]);
            self.head_have += n;
            bytes = &bytes[n..];
            if self.head_have == 4 {
                self.head_have = 0;
                self.body_left = u32::from_be_bytes(self.head) as usize;
            }
        }
    }
}

/// Drives one job over `link`.
pub async fn drive<L: Link>(link: &L, job: Job) -> Result<Measured> {
    match job {
        Job::Bulk { seconds } => bulk(link, seconds).await,
        Job::WatchedBulk { seconds, skip } => watched_bulk(link, seconds, skip).await,
        Job::RoundTrip { count } => round_trips(link, count).await,
        Job::MessagesBatched { count } => messages(link, count, BATCH_BYTES).await,
        Job::MessagesFlushed { count } => messages(link, count, FRAMED_BYTES).await,
        Job::Open { count } => opens(link, count).await,
    }
}

async fn bulk<L: Link>(link: &L, seconds: f64) -> Result<Measured> {
    let chunk = Bytes::from(vec![0x5a; CHUNK_BYTES]);
    let (mut send, mut recv) = link.open().await?;
    let start = Instant::now();
    send.write(Bytes::from_static(b"S")).await?;
    let mut sent = 0_u64;
    while start.elapsed().as_secs_f64() < seconds {
        send.write(chunk.clone()).await?;
        sent += chunk.len() as u64;
    }
    send.finish().await?;
    let got = read_u64(&mut recv).await?;
    let spent = start.elapsed().as_secs_f64();
    ensure!(got == sent, "sent {sent} bytes, the other side counted {got}");
    Ok(Measured { unit: "mib_per_s".into(), value: sent as f64 / f64::from(1 << 20) / spent, p99: None })
}

async fn watched_bulk<L: Link>(link: &L, seconds: f64, skip: f64) -> Result<Measured> {
    let chunk = Bytes::from(vec![0x5a; CHUNK_BYTES]);
    let (mut send, mut recv) = link.open().await?;
    let writing = async move {
        send.write(Bytes::from_static(b"W")).await?;
        loop {
            send.write(chunk.clone()).await?;
        }
    };
    let reading = async move {
        let mut have = BytesMut::new();
        // What had arrived after the skipped beginning: seconds and bytes.
        let mut first = (0.0, 0.0);
        loop {
            have.extend_from_slice(&recv.read().await?.context("the reports ended early")?);
            while have.len() >= ARRIVAL_BYTES {
                let report = have.split_to(ARRIVAL_BYTES);
                let number =
                    |at: usize| u64::from_be_bytes(report[at..at + 8].try_into().expect("8 of 16 bytes"));
                let (at, bytes) = (number(0) as f64 / 1e6, number(8) as f64);
                if at <= skip {
                    first = (at, bytes);
                } else if at >= seconds {
                    return anyhow::Ok((bytes - first.1) / (at - first.0));
                }
            }
        }
    };
    let bytes_per_s = tokio::select! {
        end = writing => end,
        rate = reading => rate,
    }?;
    Ok(Measured { unit: "mib_per_s".into(), value: bytes_per_s / f64::from(1 << 20), p99: None })
}

async fn round_trips<L: Link>(link: &L, count: usize) -> Result<Measured> {
    let (mut send, mut recv) = link.open().await?;
    send.write(Bytes::from_static(b"E")).await?;
    let message = Bytes::from(vec![7; MESSAGE_BYTES]);
    let warm = count / 10;
    let mut samples = Vec::with_capacity(count);
    for round in 0..warm + count {
        let start = Instant::now();
        send.write(message.clone()).await?;
        read_exactly(&mut recv, MESSAGE_BYTES).await?;
        if round >= warm {
            samples.push(start.elapsed());
        }
    }
    send.finish().await?;
    Ok(percentiles(samples))
}

async fn messages<L: Link>(link: &L, count: usize, batch_bytes: usize) -> Result<Measured> {
    let per_batch = (batch_bytes / FRAMED_BYTES).max(1);
    let mut batch = BytesMut::with_capacity(per_batch * FRAMED_BYTES);
    for _ in 0..per_batch {
        batch.extend_from_slice(&(MESSAGE_BYTES as u32).to_be_bytes());
        batch.extend_from_slice(&[7; MESSAGE_BYTES]);
    }
    let batch = batch.freeze();
    let (mut send, mut recv) = link.open().await?;
    let start = Instant::now();
    send.write(Bytes::from_static(b"M")).await?;
    let mut left = count;
    while left > 0 {
        let now = left.min(per_batch);
        send.write(batch.slice(..now * FRAMED_BYTES)).await?;
        left -= now;
    }
    send.finish().await?;
    let got = read_u64(&mut recv).await?;
    let spent = start.elapsed().as_secs_f64();
    ensure!(got == count as u64, "sent {count} messages, the other side counted {got}");
    Ok(Measured { unit: "messages_per_s".into(), value: count as f64 / spent, p99: None })
}

async fn opens<L: Link>(link: &L, count: usize) -> Result<Measured> {
    let warm = count / 10;
    let mut samples = Vec::with_capacity(count);
    for round in 0..warm + count {
        let start = Instant::now();
        first_reply(link).await?;
        if round >= warm {
            samples.push(start.elapsed());
        }
    }
    Ok(percentiles(samples))
}

/// Opens a stream, sends 64 bytes, waits until they are back, and ends it.
pub async fn first_reply<L: Link>(link: &L) -> Result<()> {
    let (mut send, mut recv) = link.open().await?;
    let mut hello = vec![b'E'];
    hello.extend_from_slice(&[7; MESSAGE_BYTES]);
    send.write(Bytes::from(hello)).await?;
    read_exactly(&mut recv, MESSAGE_BYTES).await?;
    send.finish().await?;
    while recv.read().await?.is_some() {}
    Ok(())
}

async fn read_exactly(recv: &mut impl Receiver, bytes: usize) -> Result<()> {
    let mut have = 0;
    while have < bytes {
        have += recv.read().await?.context("stream ended early")?.len();
    }
    ensure!(have == bytes, "got {have} bytes instead of {bytes}");
    Ok(())
}

async fn read_u64(recv: &mut impl Receiver) -> Result<u64> {
    let mut have = BytesMut::new();
    while let Some(chunk) = recv.read().await? {
        have.extend_from_slice(&chunk);
    }
    Ok(u64::from_be_bytes(have.as_ref().try_into().context("the answer is not eight bytes")?))
}

/// Median and 99th percentile, microseconds.
pub fn percentiles(mut samples: Vec<Duration>) -> Measured {
    samples.sort_unstable();
    let at = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    Measured { unit: "p50_us".into(), value: at(0.5), p99: Some(at(0.99)) }
}

/// Time from the wish to connect to the first byte back, on `count` fresh connections. Several are measured warm, behind some
/// that do not count; a single one is the first that either end ever makes.
pub async fn connects<S: System>(system: &S, target: &str, count: usize) -> Result<Measured> {
    system.prepare().await?;
    let warm = if count == 1 { 0 } else { count / 10 + 1 };
    let mut samples = Vec::with_capacity(count);
    for round in 0..warm + count {
        let start = Instant::now();
        let link = system.dial(target).await?;
        first_reply(&link).await?;
        let spent = start.elapsed();
        link.close().await?;
        if round >= warm {
            samples.push(spent);
        }
    }
    Ok(percentiles(samples))
}
