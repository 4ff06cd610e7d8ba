//! The handshake over a socket: the machines of [`crate::hello`] with a deadline and a buffer.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use crate::{
    code::Code,
    hello::{self, Acceptor, CallError, Caller, Opening, Rejection},
    limits::{CLOSE_LINGER, HELLO_TIMEOUT},
    message::{Refused, Ticket, Welcome},
};

/// Room for the first read in bytes; a handshake frame fits.
const FIRST_READ_BYTES: usize = 4 * 1024;

/// Says why a fresh connection did not become anything. It has been answered, if it deserved an answer.
#[derive(Debug, thiserror::Error)]
pub enum GreetError {
    /// It broke a rule, or is no plugin at all.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// It said too little for too long.
    #[error("no whole Hello came within {} s", HELLO_TIMEOUT.as_secs())]
    Timeout,
    /// It left.
    #[error("the connection closed before its Hello")]
    Closed,
    /// The socket broke.
    #[error("the connection broke before its Hello: {0}")]
    Io(#[from] io::Error),
}

/// The daemon's side: reads until it is clear what the connection is, for [`HELLO_TIMEOUT`] at most. Then the caller
/// answers by [`Acceptor::welcome`], [`Acceptor::refuse`] or [`Acceptor::attached`]. Dropping the future drops what was
/// read; do that only with the connection.
///
/// # Errors
/// [`GreetError`]; what had to be said has been said.
pub async fn greet<R, W>(
    read: &mut R,
    write: &mut W,
    buffer: &mut BytesMut,
    acceptor: &mut Acceptor,
) -> Result<Opening, GreetError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let outcome = timeout(HELLO_TIMEOUT, greet_without_hurry(read, write, buffer, acceptor)).await;
    let (error, answer) = match outcome {
        Ok(Ok(opening)) => return Ok(opening),
        Ok(Err(error)) => {
            let answer = match &error {
                GreetError::Rejected(rejection) => rejection.answer.clone(),
                GreetError::Timeout | GreetError::Closed | GreetError::Io(_) => None,
            };
            (error, answer)
        }
        Err(_) => {
            let refused = Refused::new(Code::HANDSHAKE_TIMEOUT, "no whole Hello came in time [S-HELLO-1]");
            // Who has not said a byte is told nothing: it may be anybody.
            (GreetError::Timeout, (!buffer.is_empty()).then(|| acceptor.refuse(refused)))
        }
    };
    if let Some(answer) = answer {
        say_and_close(write, &answer).await;
    }
    Err(error)
}

async fn greet_without_hurry<R, W>(
    read: &mut R,
    write: &mut W,
    buffer: &mut BytesMut,
    acceptor: &mut Acceptor,
) -> Result<Opening, GreetError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        let opening = acceptor.handle(buffer)?;
        if let Some(challenge) = acceptor.poll_transmit() {
            write.write_all(&challenge).await?;
            continue;
        }
        if let Some(opening) = opening {
            return Ok(opening);
        }
        buffer.reserve(FIRST_READ_BYTES);
        if read.read_buf(buffer).await? == 0 {
            return Err(GreetError::Closed);
        }
    }
}

/// Says a last word to somebody who may not be listening.
async fn say_and_close<W: AsyncWrite + Unpin>(write: &mut W, answer: &Bytes) {
    let said = timeout(CLOSE_LINGER, async {
        write.write_all(answer).await?;
        write.shutdown().await
    });
    match said.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a refused connection did not hear why"),
        Err(_) => tracing::debug!("a refused connection did not listen why"),
    }
}

/// Says why a plugin did not get into its daemon.
#[derive(Debug, thiserror::Error)]
pub enum CallFailure {
    /// The daemon, or whoever listens there, said no.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The connection closed without a word: what we said was not understood as a plugin's.
    #[error("the daemon closed the connection without a word")]
    Closed,
    /// The socket broke.
    #[error("the connection to the daemon broke: {0}")]
    Io(#[from] io::Error),
}

/// The plugin's side: says Hello and waits for the Welcome. What was read beyond stays in `buffer`.
///
/// # Errors
/// [`CallFailure`].
pub async fn call<R, W>(
    read: &mut R,
    write: &mut W,
    buffer: &mut BytesMut,
    caller: &mut Caller,
) -> Result<Welcome, CallFailure>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        while let Some(bytes) = caller.poll_transmit() {
            write.write_all(&bytes).await?;
        }
        if let Some(welcome) = caller.handle(buffer)? {
            return Ok(welcome);
        }
        buffer.reserve(FIRST_READ_BYTES);
        if caller.has_transmit() {
            continue;
        }
        if read.read_buf(buffer).await? == 0 {
            return Err(CallFailure::Closed);
        }
    }
}

/// The plugin's side: makes a fresh socket a detached stream. What was read beyond the answer is the stream's first
/// bytes and stays in `buffer`.
///
/// # Errors
/// [`CallFailure`].
pub async fn attach<S>(socket: &mut S, buffer: &mut BytesMut, ticket: Ticket) -> Result<(), CallFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    socket.write_all(&hello::attach(ticket)).await?;
    while !hello::handle_attached(buffer)? {
        buffer.reserve(FIRST_READ_BYTES);
        if socket.read_buf(buffer).await? == 0 {
            return Err(CallFailure::Closed);
        }
    }
    Ok(())
}
