//! `p2pos dial`: stdin and stdout are a stream to a peer's plugin, so that a shell can be one end of it.
//!
//! The exit code says how the stream ended: 0 only if the other side said that it was done. That is why the stream is a
//! muxed one and not a socket of its own: a socket shows a good end and a broken one alike, and the daemon's last word
//! covers both directions together, while here the end of each matters for itself.

use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use p2pos_control::{Exit, Failure};
use p2pos_identity::{ProtocolName, Untrusted};
use p2pos_plugin_protocol::client::{OpenRequest, Stream};
use p2pos_plugin_protocol::code::End;
use p2pos_plugin_protocol::driver::{Closed, RecvHalf, SendHalf};
use p2pos_plugin_protocol::streams::{How, StreamEnd};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::Context;
use super::args::Dial;
use crate::tool;

/// Bytes read from stdin at once: a pipe holds as many.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces written to stdout before they are flushed together: a burst is one flush, a lone line is flushed at once.
const BURST_PIECES: usize = 32;
/// What the other side is told if stdin cannot be read to its end: a code of ours, as a plugin has its own.
const UNREAD: End = End::app(1);
/// How long the daemon may take to confirm a reset: it is on this machine.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(2);

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
    let mut outward = pin!(outward(tokio::io::stdin(), send));
    let mut inward = pin!(inward(recv));
    let mut said = None;
    let heard = loop {
        tokio::select! {
            heard = &mut inward => break heard,
            end = &mut outward, if said.is_none() => match end {
                Err(Unsaid::Input(error)) => return Err(unread(&error, closed).await),
                end @ (Ok(()) | Err(Unsaid::Stream(_))) => said = Some(end),
            },
        }
    };
    match heard {
        Ok(()) => {}
        Err(Broken::Stream(end)) => return Err(broken(&end)),
        // Whoever read our output has enough.
        Err(Broken::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        Err(Broken::Output(error)) => {
            return Err(Failure::failed(format!("cannot write to stdout: {error}")));
        }
    }
    // They have said all they had to say. They may still read: stdin goes on until it ends, or they have enough.
    let said = match said {
        Some(said) => said,
        None => outward.await,
    };
    match said {
        Ok(()) => closed.await.map(drop).map_err(|error| tool::failed(error.into())),
        Err(Unsaid::Input(error)) => Err(unread(&error, closed).await),
        Err(Unsaid::Stream(end)) if end.how == How::Stopped && end.end == End::app(0) => Ok(()),
        Err(Unsaid::Stream(end)) => Err(broken(&end)),
    }
}

/// They must hear of the reset before our session ends, or it would look like a crash.
async fn unread(error: &io::Error, closed: Closed) -> Failure {
    let failure = Failure::failed(format!("cannot read stdin: {error}; the stream was reset"));
    match tokio::time::timeout(LAST_WORD_TIMEOUT, closed).await {
        Ok(Ok(_)) => failure,
        Ok(Err(end)) => failure.next(format!("the other side may have seen another end: {end}")),
        Err(_) => failure.next("the daemon did not confirm the reset"),
    }
}

/// What can break while their bytes go to stdout.
enum Broken {
    Stream(StreamEnd),
    Output(io::Error),
}

/// What can break while stdin goes to them.
#[derive(Debug)]
enum Unsaid {
    Stream(StreamEnd),
    Input(io::Error),
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

/// A good end of stdin is a good end of what we say. One that cannot be read on is not: the stream is reset, or they would
/// take a piece for the whole.
async fn outward(mut stdin: impl AsyncRead + Unpin, mut send: SendHalf) -> Result<(), Unsaid> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE_BYTES);
        let read = tokio::select! {
            read = stdin.read_buf(&mut buffer) => read,
            end = send.stopped() => return Err(Unsaid::Stream(end)),
        };
        match read {
            Ok(0) => return send.finish().map_err(Unsaid::Stream),
            Ok(_) => send.write(buffer.split().freeze()).await.map_err(Unsaid::Stream)?,
            Err(error) => {
                send.reset(UNREAD);
                return Err(Unsaid::Input(error));
            }
        }
    }
}

fn broken(end: &StreamEnd) -> Failure {
    Failure::new(tool::exit_of(end.end.code), format!("the stream broke off: {end}"))
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{self, Poll};

    use p2pos_identity::PeerId;
    use p2pos_plugin_protocol::driver::{self, Settings};
    use p2pos_plugin_protocol::limits::Limits;
    use p2pos_plugin_protocol::message::{Attachment, Body, Hello, Kind, Open, RelayUse, Welcome};
    use tokio::io::ReadBuf;
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_stdin_that_breaks_resets_the_stream_and_one_that_ends_finishes_it() {
        let (send, (_far_send, mut far), _sessions) = stream().await;
        let said = outward(&b"all of it"[..], send).await;
        assert!(said.is_ok(), "{said:?}");
        assert_eq!(far.read_chunk().await.unwrap().unwrap(), "all of it");
        assert_eq!(far.read_chunk().await, Ok(None));

        let (send, (_far_send, mut far), _sessions) = stream().await;
        let said = outward(b"a piece".chain(Unreadable), send).await;
        assert!(matches!(said, Err(Unsaid::Input(_))), "{said:?}");
        let end = loop {
            match far.read_chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a piece was passed off as the whole"),
                Err(end) => break end,
            }
        };
        assert_eq!(end.end, End::app(1));
    }

    /// What a disk that fails looks like.
    struct Unreadable;

    impl AsyncRead for Unreadable {
        fn poll_read(
            self: Pin<&mut Self>,
            _cx: &mut task::Context<'_>,
            _buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::Error::other("the disk fails")))
        }
    }

    /// The half that dial writes, the other end of the stream, and what must outlive both.
    async fn stream() -> (SendHalf, (SendHalf, RecvHalf), impl Sized) {
        let (near, far) = UnixStream::pair().unwrap();
        let (near, far) = (near.into_split(), far.into_split());
        let welcome = Welcome {
            version: 1,
            features: Vec::new(),
            daemon: String::new(),
            plugin_id: String::new(),
            instance_id: String::new(),
            peer_id: peer(),
            grants: Vec::new(),
            limits: Limits::default(),
        };
        let settings = Settings::plugin(&Hello::default(), &welcome);
        let near = driver::spawn(near.0, near.1, BytesMut::new(), settings);
        let settings = Settings::daemon(&Limits::default(), &Hello::default());
        let mut far = driver::spawn(far.0, far.1, BytesMut::new(), settings);
        let open = |stream| {
            Body::Open(Open {
                stream,
                peer: peer(),
                protocols: vec![ProtocolName::parse("/test/1").unwrap()],
                kind: Kind::Stream,
                attachment: Attachment::Mux,
                timeout: None,
                relay: RelayUse::Allow,
            })
        };
        let opening = near.0.open_stream(open).unwrap();
        far.1.recv().await.unwrap();
        let there = far.0.adopt_stream(opening.id).unwrap();
        (opening.send, there, (opening.recv, near, far))
    }

    fn peer() -> PeerId {
        // The base point of Ed25519: a well-formed key that nobody needs to know a secret for.
        let mut bytes = [0x66; 32];
        bytes[0] = 0x58;
        PeerId::from_bytes(bytes).unwrap()
    }
}
