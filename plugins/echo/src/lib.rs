//! The echo plugin: sends back what it gets, takes as much as it is given, gives as much as it is asked for.
//!
//! It is the throughput reference and the first Rust plugin to read: connect, register, accept, one task per stream. What
//! it speaks stands in `plugins/echo/README.md`. It is a library with a program of five lines, because `p2pos demo` runs
//! it out of the p2pos program itself (`p2pos __echo`), where nothing else has been built.

use std::future::Future;
use std::sync::OnceLock;

use anyhow::{Context as _, ensure};
use bytes::{Bytes, BytesMut};
use p2pos_plugin_protocol::client::{Client, Datagrams, Incoming, Stream, stdin_closed};
use p2pos_plugin_protocol::message::{Kind, Level, Registration};
use sha2::{Digest as _, Sha256};
use tokio::runtime;

/// Sends back every byte, and the end after the last.
pub const ECHO: &str = "/echo/1";
/// Sends back every datagram.
pub const ECHO_DATAGRAM: &str = "/echo-datagram/1";
/// Reads to the end, then answers with count (u64, big-endian) and SHA-256 of what it read.
pub const SINK: &str = "/sink/1";
/// Reads a count (u64, big-endian), then sends so many bytes, then their SHA-256.
pub const SOURCE: &str = "/source/1";

/// Bytes of a count on the wire.
pub const COUNT_BYTES: usize = 8;
/// Bytes of a SHA-256 on the wire.
pub const HASH_BYTES: usize = 32;

/// Bytes handed to the SDK at once; it cuts them into frames.
const PIECE_BYTES: usize = 256 * 1024;
/// Bytes of different content before the source begins again. Prime, so that pieces never look alike at the same place.
const CONTENT_BYTES: usize = 4_194_301;

/// Runs the plugin until the daemon wants it to end. Makes its own runtime; call it from `main`.
///
/// # Errors
/// The daemon cannot be reached, or does not let us serve.
pub fn run() -> anyhow::Result<()> {
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let done = runtime.block_on(serve());
    runtime.shutdown_background();
    done
}

async fn serve() -> anyhow::Result<()> {
    let client = Client::connect().await.context("cannot reach the daemon")?;
    let streams = |incoming: Incoming| incoming.accept_stream();
    let work = [
        serve_each(&client, ECHO, Kind::Stream, streams, echo).await?,
        serve_each(&client, SINK, Kind::Stream, streams, sink).await?,
        serve_each(&client, SOURCE, Kind::Stream, streams, source).await?,
        serve_each(&client, ECHO_DATAGRAM, Kind::Datagram, Incoming::accept_datagrams, echo_datagrams)
            .await?,
    ];
    client.ready();
    tokio::select! {
        shutdown = client.wait_shutdown() => client.log(Level::Debug, format!("ending: {}", shutdown.reason)),
        () = stdin_closed() => {}
    }
    for accepting in work {
        accepting.abort();
    }
    Ok(())
}

/// Registers a protocol and gives every peer that opens it a task. The session's limit bounds how many there are.
async fn serve_each<T, W>(
    client: &Client,
    protocol: &str,
    kind: Kind,
    accept: impl Fn(Incoming) -> Result<T, p2pos_plugin_protocol::client::Error> + Send + 'static,
    work: fn(T) -> W,
) -> anyhow::Result<tokio::task::JoinHandle<()>>
where
    T: Send + 'static,
    W: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let name = protocol.parse().expect("our own protocols have good names");
    let mut listener = client
        .register_with(Registration::new(name, kind))
        .await
        .with_context(|| format!("cannot serve {protocol}"))?;
    let client = client.clone();
    let protocol = protocol.to_owned();
    Ok(tokio::spawn(async move {
        while let Some(incoming) = listener.accept().await {
            let taken = accept(incoming);
            let (client, protocol) = (client.clone(), protocol.clone());
            tokio::spawn(async move {
                let done = match taken {
                    Ok(taken) => work(taken).await,
                    Err(error) => Err(error.into()),
                };
                // A peer that breaks off is the peer's good right; the log keeps it for who looks.
                if let Err(error) = done {
                    client.log(Level::Debug, format!("{protocol}: {error:#}"));
                }
            });
        }
    }))
}

async fn echo(mut stream: Stream) -> anyhow::Result<()> {
    while let Some(bytes) = stream.read().await? {
        stream.write(bytes).await?;
    }
    stream.close_write()?;
    stream.closed().await?;
    Ok(())
}

async fn echo_datagrams(flow: Datagrams) -> anyhow::Result<()> {
    loop {
        let datagram = flow.recv().await?;
        flow.send(datagram)?;
    }
}

async fn sink(mut stream: Stream) -> anyhow::Result<()> {
    let mut hash = Sha256::new();
    let mut count: u64 = 0;
    while let Some(bytes) = stream.read().await? {
        hash.update(&bytes);
        count += bytes.len() as u64;
    }
    let mut answer = BytesMut::with_capacity(COUNT_BYTES + HASH_BYTES);
    answer.extend_from_slice(&count.to_be_bytes());
    answer.extend_from_slice(&hash.finalize());
    stream.write(answer.freeze()).await?;
    stream.close_write()?;
    stream.closed().await?;
    Ok(())
}

async fn source(mut stream: Stream) -> anyhow::Result<()> {
    let mut left = read_count(&mut stream).await?;
    let content = content();
    let mut hash = Sha256::new();
    let mut at = 0;
    while left > 0 {
        let fitting = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES).min(content.len() - at);
        let piece = content.slice(at..at + fitting);
        hash.update(&piece);
        stream.write(piece).await?;
        left -= fitting as u64;
        at = (at + fitting) % content.len();
    }
    stream.write(hash.finalize().to_vec()).await?;
    stream.close_write()?;
    stream.closed().await?;
    Ok(())
}

/// The count that a peer asks for: eight bytes and nothing after them.
async fn read_count(stream: &mut Stream) -> anyhow::Result<u64> {
    let mut asked = BytesMut::new();
    while asked.len() < COUNT_BYTES {
        let more = stream.read().await?.context("the peer asked for no count")?;
        asked.extend_from_slice(&more);
        ensure!(asked.len() <= COUNT_BYTES, "the peer asked with more than {COUNT_BYTES} bytes");
    }
    let count = asked[..].try_into().expect("the loop ends with exactly eight bytes");
    Ok(u64::from_be_bytes(count))
}

/// Bytes that no compression, no cache and no misplaced piece makes right by accident (xorshift64*). Made once.
pub fn content() -> Bytes {
    static CONTENT: OnceLock<Bytes> = OnceLock::new();
    CONTENT
        .get_or_init(|| {
            let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
            let mut content = BytesMut::with_capacity(CONTENT_BYTES + size_of::<u64>());
            while content.len() < CONTENT_BYTES {
                state ^= state >> 12;
                state ^= state << 25;
                state ^= state >> 27;
                content.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
            }
            content.truncate(CONTENT_BYTES);
            content.freeze()
        })
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_is_the_same_each_time_and_has_no_short_period() {
        let content = content();
        assert_eq!(content.len(), CONTENT_BYTES);
        let hash = Sha256::digest(&content);
        assert_eq!(hash[..4], Sha256::digest(super::content())[..4]);
        let pieces: std::collections::BTreeSet<&[u8]> = content.chunks_exact(16).collect();
        assert_eq!(pieces.len(), CONTENT_BYTES / 16);
    }
}
