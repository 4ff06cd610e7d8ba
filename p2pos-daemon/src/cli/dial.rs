//! `p2pos dial`: stdin and stdout are a stream to a peer's plugin, so that a shell can be one end of it.
//!
//! The exit code says how the stream ended: 0 only if the other side said that it was done. That is why the stream is a
//! muxed one and not a socket of its own: a socket shows a good end and a broken one alike, and the daemon's last word
//! covers both directions together, while here the end of each matters for itself.

use std::io;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use p2pos_control::{Exit, Failure};
use p2pos_identity::{ProtocolName, Untrusted};
use p2pos_plugin_protocol::client::{OpenRequest, Stream};
use p2pos_plugin_protocol::code::End;
use p2pos_plugin_protocol::driver::{RecvHalf, SendHalf};
use p2pos_plugin_protocol::streams::{How, StreamEnd};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Context;
use super::args::Dial;
use crate::tool;

/// Bytes read from stdin at once: a pipe holds as many.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces written to stdout before they are flushed together: a burst is one flush, a lone line is flushed at once.
const BURST_PIECES: usize = 32;

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
    let stream = client.open_with(request).await.map_err(|error| {
        let mut failure = about(tool::failed(error));
        // Whatever was tried until then: what the user should hear is that the deadline has passed.
        if begun.elapsed() >= limit {
            failure.exit = Exit::TimedOut;
        }
        failure
    })?;
    carry(stream).await.map_err(about)
}

async fn carry(stream: Stream) -> Result<(), Failure> {
    // The session must outlive the halves.
    let _client = stream.client().clone();
    let (send, recv) = stream.split();
    let closed = recv.closed();
    let outward = tokio::spawn(outward(send));
    match inward(recv).await {
        Ok(()) => {}
        Err(Broken::Stream(end)) => return Err(broken(&end)),
        // Whoever read our output has enough.
        Err(Broken::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        Err(Broken::Output(error)) => {
            return Err(Failure::failed(format!("cannot write to stdout: {error}")));
        }
    }
    // They have said all they had to say. They may still read: stdin goes on until it ends, or they have enough.
    match outward.await.map_err(|error| Failure::failed(format!("reading stdin broke off: {error}")))? {
        Ok(()) => closed.await.map(drop).map_err(|error| tool::failed(error.into())),
        Err(end) if end.how == How::Stopped && end.end == End::app(0) => Ok(()),
        Err(end) => Err(broken(&end)),
    }
}

/// What can break while their bytes go to stdout.
enum Broken {
    Stream(StreamEnd),
    Output(io::Error),
}

async fn inward(mut recv: RecvHalf) -> Result<(), Broken> {
    let mut stdout = tokio::io::stdout();
    let mut burst = [const { Bytes::new() }; BURST_PIECES];
    while let Some(count) = recv.read_chunks(&mut burst).await.map_err(Broken::Stream)? {
        for piece in &burst[..count] {
            stdout.write_all(piece).await.map_err(Broken::Output)?;
        }
        stdout.flush().await.map_err(Broken::Output)?;
    }
    Ok(())
}

/// What cannot be read from stdin ends like what is not there.
async fn outward(mut send: SendHalf) -> Result<(), StreamEnd> {
    let mut stdin = tokio::io::stdin();
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE_BYTES);
        let read = tokio::select! {
            read = stdin.read_buf(&mut buffer) => read.unwrap_or(0),
            end = send.stopped() => return Err(end),
        };
        if read == 0 {
            return send.finish();
        }
        send.write(buffer.split().freeze()).await?;
    }
}

fn broken(end: &StreamEnd) -> Failure {
    Failure::new(tool::exit_of(end.end.code), format!("the stream broke off: {end}"))
}
