//! What the demo moves through the daemons, as a plugin would, and how it knows that every byte is right.
//!
//! One session at each daemon; what a peer's plugin sends back is compared with what must come, byte by byte or by a
//! checksum that both ends compute over all of it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use p2pos_control::{DemoPath, DemoReport, DemoRoundTrip, DemoTransfer, Failure, Status};
use p2pos_identity::{PeerId, ProtocolName};
use p2pos_plugin_protocol::client::{Client, Datagrams, OpenRequest, Stream};
use p2pos_plugin_protocol::message::PathKind;
use tokio::time::timeout;

use super::daemons::Daemon;
use super::echo;
use super::show::Show;
use crate::tool;

const HELLO_PROTOCOL: &str = "/hello-sh/1";
/// A peer's plugin that does not answer for this long is broken: everything is on one machine.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// Answers of a few lines; a plugin that says more is not the one we started.
const SHORT_ANSWER_BYTES_MAX: usize = 4_096;

/// Round trips made; enough for a 99th percentile of ten values above it.
const ROUNDS: u32 = 1_000;
/// Made before those, so that paths and caches are warm.
const ROUNDS_BEFORE: u32 = 50;
/// Bytes of a round trip: what a game or a chat sends.
const ROUND_BYTES: usize = 64;

/// Datagrams sent.
const DATAGRAMS: u32 = 1_000;
/// Bytes of one: fits every path.
const DATAGRAM_BYTES: usize = 200;
/// On the way at once, so that no queue of the way has to drop one.
const DATAGRAMS_UNDER_WAY_MAX: u32 = 16;
/// A datagram that has not come back by then is lost.
const DATAGRAM_BACK_WITHIN: Duration = Duration::from_millis(500);

/// The demo's own sessions.
pub(super) struct Traffic {
    ends: Vec<End>,
    show: Show,
    is_verified: bool,
}

/// Our session at one daemon.
struct End {
    name: &'static str,
    peer: PeerId,
    client: Client,
}

impl Traffic {
    /// Opens a session at each daemon.
    pub(super) async fn begin(daemons: &[Daemon], statuses: &[Status], show: Show) -> Result<Self, Failure> {
        let mut ends = Vec::new();
        for (daemon, status) in daemons.iter().zip(statuses) {
            let peer = status
                .peer_id
                .parse()
                .map_err(|error| Failure::failed(format!("{}: {error}", daemon.name)))?;
            let client = tool::connect(&mut daemon.control().await?, "demo").await?;
            ends.push(End { name: daemon.name, peer, client });
        }
        Ok(Self { ends, show, is_verified: true })
    }

    /// Whether everything so far arrived as it was sent.
    pub(super) fn is_verified(&self) -> bool {
        self.is_verified
    }

    /// A with each of the others: the pairs that have something to say to each other.
    fn pairs(&self) -> impl Iterator<Item = (&End, &End)> {
        self.ends[1..].iter().map(|other| (&self.ends[0], other))
    }

    /// One line of shell at the other end, one process per stream.
    pub(super) async fn hello(&mut self, report: &mut DemoReport) -> Result<(), Failure> {
        let mut is_right = true;
        for (here, there) in self.pairs() {
            let mut stream = open(here, there, HELLO_PROTOCOL).await?;
            report.paths.push(DemoPath {
                from: here.name.to_owned(),
                to: there.name.to_owned(),
                path: path_word(stream.info().path).to_owned(),
            });
            stream.write(format!("{}\n", here.name).into_bytes()).await.map_err(tool::failed)?;
            stream.close_write().map_err(tool::failed)?;
            let answer = read_all(&mut stream).await.map_err(|failure| failure.during(HELLO_PROTOCOL))?;
            is_right &= answer == format!("hello {}, you are {}\n", here.name, here.peer).into_bytes();
        }
        self.is_verified &= is_right;
        self.show.step("a line of shell has answered its peers");
        Ok(())
    }

    /// Small messages there and back on one open stream.
    pub(super) async fn round_trips(&mut self, report: &mut DemoReport) -> Result<(), Failure> {
        let (here, there) = (&self.ends[0], &self.ends[1]);
        let mut stream = open(here, there, p2pos_plugin_echo::ECHO).await?;
        let mut times = Vec::new();
        let mut is_right = true;
        for round in 0..ROUNDS_BEFORE + ROUNDS {
            let sent = pattern(round, ROUND_BYTES);
            let begun = Instant::now();
            stream.write(sent.clone()).await.map_err(tool::failed)?;
            let back = read_exactly(&mut stream, ROUND_BYTES).await?;
            if round >= ROUNDS_BEFORE {
                times.push(micros(begun.elapsed()));
            }
            is_right &= back == sent;
        }
        stream.close_write().map_err(tool::failed)?;
        times.sort_unstable();
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        report.round_trip = DemoRoundTrip { rounds: ROUNDS, p50_us: at(50), p99_us: at(99) };
        self.is_verified &= is_right;
        self.show.step(&format!("{ROUNDS} round trips of {ROUND_BYTES} bytes are done"));
        Ok(())
    }

    /// Datagrams there and back; some may get lost, none may be changed.
    pub(super) async fn datagrams(&mut self, report: &mut DemoReport) -> Result<(), Failure> {
        let (here, there) = (&self.ends[0], &self.ends[1]);
        let request = OpenRequest::new(there.peer, name(p2pos_plugin_echo::ECHO_DATAGRAM));
        let flow = here.client.open_datagrams(request).await.map_err(tool::failed)?;
        let (mut received, mut is_right) = (0, true);
        for number in 0..DATAGRAMS {
            flow.send(pattern(number, DATAGRAM_BYTES)).map_err(tool::failed)?;
            let expected = (number + 1).saturating_sub(DATAGRAMS_UNDER_WAY_MAX);
            while received < expected && come_back(&flow, &mut is_right).await? {
                received += 1;
            }
        }
        while received < DATAGRAMS && come_back(&flow, &mut is_right).await? {
            received += 1;
        }
        report.datagrams_sent = DATAGRAMS;
        report.datagrams_received = received;
        // None at all is not loss, it is a flow that does not flow.
        self.is_verified &= is_right && received > 0;
        self.show.step(&format!("{received} of {DATAGRAMS} datagrams came back"));
        Ok(())
    }

    /// Much of it, both ways: to the next daemon's plugin, and from it.
    pub(super) async fn bulk(&mut self, bytes: u64, report: &mut DemoReport) -> Result<(), Failure> {
        let count = self.ends.len();
        for index in 0..count {
            let (from, to) = (&self.ends[index], &self.ends[(index + 1) % count]);
            let share = bytes / count as u64 + u64::from((index as u64) < bytes % count as u64);
            let bar = self.show.bar(format!("bulk {} -> {}", from.name, to.name), share);
            let begun = Instant::now();
            // Every other one is asked for by who gets it, so that both directions of opening are seen.
            let is_verified = if index % 2 == 0 {
                echo::fill(open(from, to, p2pos_plugin_echo::SINK).await?, share, |moved| bar.moved(moved))
                    .await?
            } else {
                echo::draw(open(to, from, p2pos_plugin_echo::SOURCE).await?, share, |moved| bar.moved(moved))
                    .await?
            };
            let took = begun.elapsed();
            drop(bar);
            self.is_verified &= is_verified;
            report.transfers.push(DemoTransfer {
                from: from.name.to_owned(),
                to: to.name.to_owned(),
                bytes: share,
                took_ms: micros(took) / 1_000,
                mib_per_s: mib_per_s(share, took),
                is_verified,
            });
        }
        Ok(())
    }
}

async fn open(here: &End, there: &End, protocol: &str) -> Result<Stream, Failure> {
    let opened = here.client.open_with(OpenRequest::new(there.peer, name(protocol))).await;
    opened
        .map_err(|error| tool::failed(error).during(&format!("{} to {}, {protocol}", here.name, there.name)))
}

fn name(protocol: &str) -> ProtocolName {
    ProtocolName::parse(protocol).expect("our own protocols have good names")
}

/// Reads to the end, if that is near.
async fn read_all(stream: &mut Stream) -> Result<Vec<u8>, Failure> {
    let mut all = Vec::new();
    while let Some(bytes) = read(stream).await? {
        all.extend_from_slice(&bytes);
        if all.len() > SHORT_ANSWER_BYTES_MAX {
            return Err(Failure::failed("a plugin answered far more than it should"));
        }
    }
    Ok(all)
}

/// Reads so many bytes and no more; the other side sends no more before we do.
async fn read_exactly(stream: &mut Stream, bytes: usize) -> Result<Vec<u8>, Failure> {
    let mut all = Vec::with_capacity(bytes);
    while all.len() < bytes {
        match read(stream).await? {
            Some(more) => all.extend_from_slice(&more),
            None => return Err(Failure::failed("a plugin ended a stream too early")),
        }
    }
    Ok(all)
}

/// The next bytes of a stream, or a plain word about a plugin that says nothing.
pub(super) async fn read(stream: &mut Stream) -> Result<Option<Bytes>, Failure> {
    let silent = |_| Failure::failed(format!("a plugin said nothing for {ANSWERS_WITHIN:?}"));
    timeout(ANSWERS_WITHIN, stream.read()).await.map_err(silent)?.map_err(tool::failed)
}

/// Waits for one datagram and compares it with what was sent under its number; `false` if none comes any more.
async fn come_back(flow: &Datagrams, is_right: &mut bool) -> Result<bool, Failure> {
    let Ok(datagram) = timeout(DATAGRAM_BACK_WITHIN, flow.recv()).await else { return Ok(false) };
    let datagram = datagram.map_err(tool::failed)?;
    let number = datagram.first_chunk().map(|number| u32::from_be_bytes(*number));
    *is_right &=
        number.is_some_and(|number| number < DATAGRAMS && datagram == pattern(number, DATAGRAM_BYTES));
    Ok(true)
}

/// A number and then bytes that depend on it, so that no message is taken for another.
fn pattern(number: u32, bytes: usize) -> Bytes {
    let [.., low] = number.to_be_bytes();
    let tail = (0_u8..=255).cycle().skip(low.into()).take(bytes.saturating_sub(4));
    number.to_be_bytes().into_iter().chain(tail).collect()
}

fn path_word(path: PathKind) -> &'static str {
    match path {
        PathKind::Unknown => "unknown",
        PathKind::Direct => "direct",
        PathKind::Lan => "lan",
        PathKind::Loopback => "loopback",
        PathKind::Relayed => "relayed",
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people; 2^53 bytes are more than the demo moves")]
fn mib_per_s(bytes: u64, took: Duration) -> f64 {
    let rate = bytes as f64 / (1 << 20) as f64 / took.as_secs_f64().max(1e-6);
    // One digit is more than two runs have in common.
    (rate * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_different_numbers_differ_and_have_their_length() {
        assert_eq!(pattern(7, ROUND_BYTES).len(), ROUND_BYTES);
        assert_ne!(pattern(7, ROUND_BYTES), pattern(7 + 256, ROUND_BYTES));
        assert_ne!(pattern(7, ROUND_BYTES)[4..], pattern(8, ROUND_BYTES)[4..]);
    }

    #[test]
    fn a_rate_is_in_mebibytes() {
        assert!((mib_per_s(1 << 30, Duration::from_secs(2)) - 512.0).abs() < 1e-9);
    }
}
