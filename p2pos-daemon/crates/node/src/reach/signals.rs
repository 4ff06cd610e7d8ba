//! The stream `/p2pos/signal/1` of one connection: opened by the side that dialled, messages both ways, until the
//! connection ends.
//!
//! A peer that refuses it or breaks its rules is steered without it: the connection works, it only gets no better.
//!
//! Refuses to know: what the messages lead to.

use p2pos_identity::ProtocolName;
use p2pos_peer_protocol::{
    Decoder, EndCode, Kind, Message as _, StreamAnswer, StreamHello,
    signal::{SIGNAL_PROTOCOL, SignalMessage},
};
use p2pos_transport::{Connection, RecvStream, SendStream};
use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{Duration, timeout},
};

use crate::hello::read_message;

/// Messages of the peer that wait to be looked at; then it is not read on.
const INBOX: usize = 32;
/// Messages to the peer that wait to be written; then the plan's next one is dropped, which it repeats in its next round.
const OUTBOX: usize = 64;
/// How long the peer may take to accept the stream.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Messages taken from a peer in [`RATE_WINDOW`]: a first connection exchanges a dozen. Beyond, they wait.
const MESSAGES_MAX: u32 = 128;
/// See there.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// A signal stream that the peer has opened, once it is answered.
pub(crate) type SignalStream = (SendStream, RecvStream);

/// Both directions of the signal stream. Ends when dropped.
#[derive(Debug)]
pub(super) struct Signals {
    outbox: mpsc::Sender<SignalMessage>,
    inbox: mpsc::Receiver<SignalMessage>,
    task: AbortHandle,
}

impl Signals {
    /// Opens the stream; what is sent before the peer has answered goes right behind the hello.
    pub(super) fn open(connection: Connection) -> Self {
        Self::start(|outbox, inbox| async move {
            let opened = open(&connection).await;
            if let Some((send, recv)) = opened {
                let accepted = async {
                    let mut recv = recv;
                    match timeout(ANSWER_WAIT, read_message::<StreamAnswer>(&mut recv)).await {
                        Ok(Ok(StreamAnswer::Accepted(_))) => Some(recv),
                        Ok(Ok(StreamAnswer::Refused(_)) | Err(_)) | Err(_) => None,
                    }
                };
                run(send, accepted, outbox, inbox).await;
            }
        })
    }

    /// Takes over a stream that the peer has opened.
    pub(super) fn accept((send, recv): SignalStream) -> Self {
        Self::start(|outbox, inbox| run(send, async { Some(recv) }, outbox, inbox))
    }

    fn start<F>(run: impl FnOnce(mpsc::Receiver<SignalMessage>, mpsc::Sender<SignalMessage>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (outbox, to_write) = mpsc::channel(OUTBOX);
        let (was_read, inbox) = mpsc::channel(INBOX);
        Self { outbox, inbox, task: tokio::spawn(run(to_write, was_read)).abort_handle() }
    }

    /// Sends a message, unless the peer is far behind.
    pub(super) fn send(&self, message: SignalMessage) {
        if self.outbox.try_send(message).is_err() {
            tracing::debug!("a signal was dropped: the stream is gone, or the peer does not read");
        }
    }

    /// Waits for the next message; `None` once the stream has ended. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<SignalMessage> {
        self.inbox.recv().await
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn open(connection: &Connection) -> Option<SignalStream> {
    let name = ProtocolName::parse(SIGNAL_PROTOCOL).expect("the name of the signal stream is valid");
    let hello = StreamHello::new(vec![name], Kind::Stream).expect("one name is not too many");
    let (mut send, recv) = connection.open().await.ok()?;
    send.write_chunks(&mut [hello.encode()]).await.ok()?;
    Some((send, recv))
}

async fn run(
    send: SendStream,
    recv: impl Future<Output = Option<RecvStream>>,
    outbox: mpsc::Receiver<SignalMessage>,
    inbox: mpsc::Sender<SignalMessage>,
) {
    let reading = async {
        if let Some(recv) = recv.await {
            read(recv, inbox).await;
        }
    };
    tokio::select! {
        () = write(send, outbox) => {}
        () = reading => {}
    }
}

async fn write(mut send: SendStream, mut outbox: mpsc::Receiver<SignalMessage>) {
    while let Some(message) = outbox.recv().await {
        if send.write_chunks(&mut [message.encode()]).await.is_err() {
            return;
        }
    }
    send.finish();
}

async fn read(mut recv: RecvStream, inbox: mpsc::Sender<SignalMessage>) {
    let mut decoder = Decoder::<SignalMessage>::new();
    let (mut window_ends, mut taken) = (tokio::time::Instant::now() + RATE_WINDOW, 0);
    while let Ok(Some(mut chunk)) = recv.read_chunk().await {
        loop {
            match decoder.feed(&mut chunk) {
                Ok(Some(message)) => {
                    if tokio::time::Instant::now() >= window_ends {
                        (window_ends, taken) = (tokio::time::Instant::now() + RATE_WINDOW, 0);
                    }
                    taken += 1;
                    if taken > MESSAGES_MAX {
                        tokio::time::sleep_until(window_ends).await;
                    }
                    if inbox.send(message).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "a peer sent no valid signal");
                    return recv.stop(EndCode::PROTOCOL);
                }
            }
        }
    }
}
