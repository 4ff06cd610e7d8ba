//! The command line's end: connects, asks, waits with a deadline, and says plainly when no daemon is there.
//!
//! Refuses to print anything and to start a daemon by itself.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::document::Document;
use crate::failure::{Exit, Failure};
use crate::frame::{self, FrameError};
use crate::request::Request;
use crate::server::{Answer, ClientFrame, ServerFrame};
use crate::socket_path::{PathTooLong, check_length};

/// What we wait beyond the daemon's own deadline, so that its word about a timeout reaches us before ours.
const GRACE: Duration = Duration::from_secs(5);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No daemon listens there.
    #[error("the daemon is not running (nobody answers on {})", .0.display())]
    NotRunning(PathBuf),
    /// The path does not fit.
    #[error(transparent)]
    PathTooLong(#[from] PathTooLong),
    /// Somebody else's process listens there.
    #[error("{} is served by a process of user {uid}, not by yours", .path.display())]
    NotOurs {
        /// The socket.
        path: PathBuf,
        /// Whose process it is.
        uid: u32,
    },
    /// The system refused.
    #[error("cannot reach the daemon on {}: {source}", .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let text = error.to_string();
        match error {
            ConnectError::NotRunning(_) => Self::new(Exit::NotRunning, text).next("start it: p2pos up"),
            ConnectError::PathTooLong(_) => Self::usage(text),
            ConnectError::NotOurs { .. } | ConnectError::Io { .. } => Self::failed(text),
        }
    }
}

/// Why a request got no good answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The daemon said no, and why.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// It said nothing in time.
    #[error("the daemon did not answer within {0:?}")]
    TimedOut(Duration),
    /// It ended, or was ended, meanwhile.
    #[error("the daemon ended before it answered")]
    Ended,
    /// What came is not of this protocol.
    #[error("the daemon's answer makes no sense: {0}")]
    Nonsense(String),
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let text = error.to_string();
        match error {
            CallError::Failed(failure) => failure,
            CallError::TimedOut(_) => {
                Self::new(Exit::TimedOut, text).next("look at what it does: p2pos status")
            }
            CallError::Ended => Self::failed(text)
                .next("its own words are on the terminal or in the journal it was started from"),
            CallError::Nonsense(_) => {
                Self::failed(text).next("command and daemon may be of different versions: restart the daemon")
            }
        }
    }
}

/// A connection to the daemon. Dropping it drops what was asked for.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    last_id: u32,
}

/// One step of an answer.
#[derive(Debug)]
pub enum Step {
    /// More will come.
    Item(Document),
    /// The last word.
    Done(Document),
}

impl Client {
    /// Connects to the daemon whose control socket lies at `path`.
    ///
    /// # Errors
    /// See [`ConnectError`]; that the daemon is not running is the usual one.
    pub async fn connect(path: &Path) -> Result<Self, ConnectError> {
        check_length(path)?;
        let stream = UnixStream::connect(path).await.map_err(|source| {
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
                return ConnectError::NotRunning(path.to_owned());
            }
            ConnectError::Io { path: path.to_owned(), source }
        })?;
        let credentials =
            stream.peer_cred().map_err(|source| ConnectError::Io { path: path.to_owned(), source })?;
        if credentials.uid() != rustix::process::geteuid().as_raw() {
            return Err(ConnectError::NotOurs { path: path.to_owned(), uid: credentials.uid() });
        }
        Ok(Self { stream, last_id: 0 })
    }

    /// Asks, and gives the last word of the answer; items before it are passed over.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(&mut self, request: Request) -> Result<Document, CallError> {
        let mut answers = self.ask(request).await?;
        loop {
            if let Step::Done(document) = answers.next().await? {
                return Ok(document);
            }
        }
    }

    /// Asks, and gives the answer step by step.
    ///
    /// # Errors
    /// The question could not be sent.
    pub async fn ask(&mut self, request: Request) -> Result<Answers<'_>, CallError> {
        let within = request.deadline().map(|deadline| deadline + GRACE);
        self.last_id = self.last_id.wrapping_add(1).max(1);
        let id = self.last_id;
        let request =
            serde_json::to_value(request).map_err(|error| CallError::Nonsense(error.to_string()))?;
        match frame::write(&mut self.stream, &ClientFrame { id, request }).await {
            // A daemon that turned us away has said why before it closed: reading tells.
            Ok(()) | Err(FrameError::Closed) => {}
            Err(error) => return Err(broken(error)),
        }
        Ok(Answers { client: self, id, within })
    }
}

/// The answer to one request, step by step.
#[derive(Debug)]
pub struct Answers<'a> {
    client: &'a mut Client,
    id: u32,
    within: Option<Duration>,
}

impl Answers<'_> {
    /// The next step. After `Done` or an error there is none.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn next(&mut self) -> Result<Step, CallError> {
        loop {
            let frame = match self.within {
                Some(within) => timeout(within, frame::read::<ServerFrame>(&mut self.client.stream))
                    .await
                    .map_err(|_| CallError::TimedOut(within))?,
                None => frame::read(&mut self.client.stream).await,
            };
            let ServerFrame { id, answer } = frame.map_err(broken)?;
            // Answers to a request that was given up earlier on this connection are passed over; 0 concerns all.
            if id != self.id && id != 0 {
                continue;
            }
            return match answer {
                Answer::Item(document) => Ok(Step::Item(document)),
                Answer::Done(document) => Ok(Step::Done(document)),
                Answer::Failed(failure) => Err(CallError::Failed(failure)),
            };
        }
    }
}

fn broken(error: FrameError) -> CallError {
    match error {
        FrameError::Closed | FrameError::Io(_) => CallError::Ended,
        FrameError::TooLarge { .. } | FrameError::Stalled | FrameError::Json(_) => {
            CallError::Nonsense(error.to_string())
        }
    }
}
