//! `p2pos dial`: stdin and stdout are a stream to a peer's plugin, so that a shell can be one end of it.
//!
//! The stream has a socket of its own (no framing on the way); how it truly ended comes from the daemon, and becomes
//! the exit code.

use std::io;
use std::time::{Duration, Instant};

use p2pos_control::{Exit, Failure};
use p2pos_identity::{ProtocolName, Untrusted};
use p2pos_plugin_protocol::client::{OpenRequest, RawStream};
use p2pos_plugin_protocol::message::Cause;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, ReadHalf, WriteHalf, copy_buf};

use super::Context;
use super::args::Dial;
use crate::tool;

/// Bytes moved at once: large enough that system calls do not matter, small enough to stay in the cache.
const COPY_BYTES: usize = 256 * 1024;

/// Opens the stream and carries it to its end.
pub(crate) async fn run(context: &Context, dial: Dial) -> Result<(), Failure> {
    let protocol = ProtocolName::parse(&dial.protocol)
        .map_err(|error| Failure::usage(format!("\"{}\": {error}", Untrusted(&dial.protocol))))?;
    let mut control = context.daemon().await?;
    let peer = tool::resolve(&mut control, &dial.peer).await?;
    let client = tool::connect(&mut control, "dial").await?;
    let limit = Duration::from_secs(dial.timeout.into());
    let mut request = OpenRequest::new(peer, protocol);
    request.timeout = Some(limit);
    let about = |failure: Failure| failure.during(&format!("{} {}", dial.peer, dial.protocol));
    let begun = Instant::now();
    let stream = client.open_raw(request).await.map_err(|error| {
        let mut failure = about(tool::failed(error));
        // Whatever was tried until then: what the user should hear is that the deadline has passed.
        if begun.elapsed() >= limit {
            failure.exit = Exit::TimedOut;
        }
        failure
    })?;
    carry(stream).await.map_err(about)
}

async fn carry(stream: RawStream) -> Result<(), Failure> {
    let closed = stream.closed();
    let (read, write) = tokio::io::split(stream);
    let outward = tokio::spawn(send(tokio::io::stdin(), write));
    let inward = receive(read, tokio::io::stdout()).await;
    match inward {
        // Whoever read our output has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        // Why it broke off, the daemon knows better.
        Ok(()) | Err(_) => {}
    }
    // The other side writes no more. It may still read, so what stdin has goes on until that ends or they say so.
    let closed = closed.await.map_err(|error| tool::failed(error.into()))?;
    outward.abort();
    let Some(end) = closed.end.filter(|_| closed.cause != Cause::Finished) else { return Ok(()) };
    let how = match end.app {
        0 => end.code.to_string(),
        app => format!("{}, their number {app}", end.code),
    };
    let failure = Failure::new(tool::exit_of(end.code), format!("the stream broke off: {how}"));
    Err(failure.next(format!("{} bytes were read, {} written", closed.bytes_in, closed.bytes_out)))
}

async fn receive(from: ReadHalf<RawStream>, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    copy_buf(&mut BufReader::with_capacity(COPY_BYTES, from), &mut to).await?;
    to.flush().await
}

async fn send(from: impl AsyncRead + Unpin, mut to: WriteHalf<RawStream>) -> io::Result<()> {
    copy_buf(&mut BufReader::with_capacity(COPY_BYTES, from), &mut to).await?;
    to.shutdown().await
}
