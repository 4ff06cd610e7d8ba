//! The daemon's end: binds the socket, lets in only this user's processes, and answers.
//!
//! One task per connection reads requests, one writes answers, one per request works. All hang on the connection:
//! when the asker leaves, what it asked for is dropped. Refuses to know what the requests mean ([`Handler`] does).

use std::collections::HashMap;
use std::future::Future;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use serde::{Deserialize, Serialize};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::{self, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::document::Document;
use crate::failure::{Exit, Failure};
use crate::frame::{self, FrameError};
use crate::request::Request;
use crate::socket_path::{PathTooLong, check_length, private_dir};

/// Command lines served at once. Each is a person or a script of one user; 32 `logs -f` are a wall of terminals,
/// and 1 MiB frames times this is the most memory that the socket can cost.
const CONNECTIONS_MAX: usize = 32;
/// Requests under way on one connection; one more is answered with a failure of its own. Ours sends one at a time; more is
/// for programs that keep a connection.
const REQUESTS_MAX: usize = 8;
/// Answers waiting for a slow reader, per connection. The request behind them waits, nothing else does.
const ANSWERS_QUEUED_MAX: usize = 64;
/// A connection that asks nothing and waits for nothing is closed after this long.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// After a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers requests: implemented by the daemon.
pub trait Handler: Send + Sync + 'static {
    /// Does one request. `items` takes what comes before the final answer. Dropped when the asker leaves or the
    /// request's deadline passes, so it must be safe to drop at any await.
    fn handle(
        &self,
        request: Request,
        items: Items,
    ) -> impl Future<Output = Result<Document, Failure>> + Send;
}

/// Where a request puts what comes before its final answer.
#[derive(Debug)]
pub struct Items {
    id: u32,
    queue: mpsc::Sender<ServerFrame>,
}

/// The asker has left.
#[derive(Debug, thiserror::Error)]
#[error("the asker has left")]
pub struct Gone;

impl Items {
    /// Sends one item; waits while the asker reads slowly.
    ///
    /// # Errors
    /// The asker has left: there is no point in going on.
    pub async fn send(&self, item: Document) -> Result<(), Gone> {
        self.queue.send(ServerFrame { id: self.id, answer: Answer::Item(item) }).await.map_err(|_| Gone)
    }
}

/// One frame of the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ServerFrame {
    /// The request that it answers; 0 for a word about the connection itself.
    pub(crate) id: u32,
    pub(crate) answer: Answer,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// More will come.
    Item(Document),
    /// The last word: it went well.
    Done(Document),
    /// The last word: it did not.
    Failed(Failure),
}

/// One frame of the asker. The request stays a bare value at first, so that one which this daemon does not know is
/// answered by name instead of by a closed socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ClientFrame {
    /// Chosen by the asker; not 0.
    pub(crate) id: u32,
    pub(crate) request: serde_json::Value,
}

/// Why the control socket could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The path does not fit.
    #[error(transparent)]
    PathTooLong(#[from] PathTooLong),
    /// A daemon answers there already.
    #[error("another daemon answers on {}", .0.display())]
    InUse(PathBuf),
    /// Something lies there that we did not make.
    #[error("{} is in the way and is no socket; move it away", .0.display())]
    InTheWay(PathBuf),
    /// The directory is not fit for it, or the system refused.
    #[error("cannot open the control socket: {0}")]
    Io(#[from] io::Error),
}

/// The bound socket; its file is removed when this is dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            debug!(%error, "the control socket's file could not be removed");
        }
    }
}

impl Server {
    /// Binds the socket, in a directory that only this user can enter. A file left behind by a killed daemon is
    /// replaced: nobody answers there. Must run within a tokio runtime.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        check_length(path)?;
        private_dir(path.parent().unwrap_or_else(|| Path::new(".")))?;
        remove_stale(path)?;
        let listener = UnixListener::bind(path)?;
        let server = Self { listener, path: path.to_owned() };
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(server)
    }

    /// Serves until dropped; dropping ends every connection.
    pub async fn serve<H: Handler>(self, handler: Arc<H>) {
        let mut connections = JoinSet::new();
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "the control socket accepts nobody for a moment");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            if !is_same_user(&stream) {
                continue;
            }
            if connections.len() >= CONNECTIONS_MAX {
                turn_away(stream).await;
                continue;
            }
            connections.spawn(converse(stream, Arc::clone(&handler)));
        }
    }
}

/// Takes away a socket file on which nobody listens.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let facts = match fs::symlink_metadata(path) {
        Ok(facts) => facts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !facts.file_type().is_socket() {
        return Err(BindError::InTheWay(path.to_owned()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(BindError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(fs::remove_file(path)?),
        Err(error) => Err(error.into()),
    }
}

fn is_same_user(stream: &UnixStream) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(theirs) if theirs.uid() == ours => true,
        Ok(theirs) => {
            warn!(uid = theirs.uid(), "a process of another user was refused at the control socket");
            false
        }
        Err(error) => {
            warn!(%error, "a process without credentials was refused at the control socket");
            false
        }
    }
}

/// One short sentence, which fits into the socket's buffer: this does not wait for the asker.
async fn turn_away(stream: UnixStream) {
    let sentence = format!("the daemon answers {CONNECTIONS_MAX} command lines already");
    let failure = Failure::failed(sentence).next("end one of them, a `logs -f` perhaps");
    let (_, mut write) = stream.into_split();
    send_last(&mut write, ServerFrame { id: 0, answer: Answer::Failed(failure) }).await;
}

async fn send_last(write: &mut OwnedWriteHalf, answer: ServerFrame) {
    if let Err(error) = frame::write(write, &answer).await {
        debug!(%error, "an asker did not take its last answer");
    }
}

async fn converse<H: Handler>(stream: UnixStream, handler: Arc<H>) {
    let (read, write) = stream.into_split();
    let (queue, answers) = mpsc::channel(ANSWERS_QUEUED_MAX);
    // Whichever ends first takes the other with it, and with it every request under way.
    let why = tokio::select! {
        error = read_requests(read, queue, handler) => error,
        error = write_answers(write, answers) => error,
    };
    match why {
        FrameError::Closed => {}
        FrameError::TooLarge { .. } | FrameError::Stalled | FrameError::Json(_) | FrameError::Io(_) => {
            debug!(error = %why, "a control connection was closed");
        }
    }
}

async fn read_requests<H: Handler>(
    mut read: OwnedReadHalf,
    queue: mpsc::Sender<ServerFrame>,
    handler: Arc<H>,
) -> FrameError {
    let mut working = Working { tasks: JoinSet::new(), ids: HashMap::new(), queue };
    loop {
        let next = frame::read::<ClientFrame>(&mut read);
        tokio::pin!(next);
        let asked = loop {
            tokio::select! {
                asked = &mut next => break asked,
                () = working.one_ends(), if !working.tasks.is_empty() => {}
                () = sleep(IDLE_MAX), if working.tasks.is_empty() => break Err(FrameError::Stalled),
            }
        };
        let asked = match asked {
            Ok(asked) => asked,
            Err(error) => return error,
        };
        let id = asked.id;
        if working.tasks.len() >= REQUESTS_MAX {
            let sentence = format!("{REQUESTS_MAX} requests are under way on this connection already");
            let failure =
                Failure::failed(sentence).next("wait for one of their answers, or connect once more");
            if working.queue.send(ServerFrame { id, answer: Answer::Failed(failure) }).await.is_err() {
                return FrameError::Closed;
            }
            continue;
        }
        let task = working.tasks.spawn(work(asked, working.queue.clone(), Arc::clone(&handler)));
        working.ids.insert(task.id(), id);
    }
}

/// The requests under way on one connection, at most [`REQUESTS_MAX`]; dropping this drops them.
struct Working {
    tasks: JoinSet<()>,
    ids: HashMap<task::Id, u32>,
    queue: mpsc::Sender<ServerFrame>,
}

impl Working {
    /// Waits for one to end. One that panicked is answered all the same: the asker must not wait for ever.
    async fn one_ends(&mut self) {
        match self.tasks.join_next_with_id().await {
            None => {}
            Some(Ok((task, ()))) => {
                self.ids.remove(&task);
            }
            Some(Err(error)) => {
                tracing::error!(%error, "a control request broke off");
                let id = self.ids.remove(&error.id()).unwrap_or(0);
                let failure = Failure::failed("the daemon met a bug in itself; its log has the details");
                let frame = ServerFrame { id, answer: Answer::Failed(failure) };
                if self.queue.send(frame).await.is_err() {
                    debug!("an asker left before its answer");
                }
            }
        }
    }
}

async fn work<H: Handler>(asked: ClientFrame, queue: mpsc::Sender<ServerFrame>, handler: Arc<H>) {
    let id = asked.id;
    let answer = match serde_json::from_value::<Request>(asked.request) {
        Ok(request) => answer(request, Items { id, queue: queue.clone() }, &*handler).await,
        Err(error) => {
            let failure = Failure::usage(format!("this daemon does not know that request: {error}"));
            Err(failure.next("command and daemon may be of different versions: restart the daemon"))
        }
    };
    let answer = match answer {
        Ok(document) => Answer::Done(document),
        Err(failure) => Answer::Failed(failure),
    };
    if queue.send(ServerFrame { id, answer }).await.is_err() {
        debug!("an asker left before its answer");
    }
}

async fn answer<H: Handler>(request: Request, items: Items, handler: &H) -> Result<Document, Failure> {
    let Some(deadline) = request.deadline() else {
        return handler.handle(request, items).await;
    };
    let late = || Failure::new(Exit::TimedOut, format!("the daemon did not get it done within {deadline:?}"));
    timeout(deadline, handler.handle(request, items)).await.unwrap_or_else(|_| Err(late()))
}

async fn write_answers(mut write: OwnedWriteHalf, mut answers: mpsc::Receiver<ServerFrame>) -> FrameError {
    while let Some(answer) = answers.recv().await {
        match frame::write(&mut write, &answer).await {
            Ok(()) => {}
            Err(FrameError::TooLarge { bytes }) => {
                let sentence = format!("the answer has {bytes} bytes, the control socket carries less");
                let instead = Answer::Failed(Failure::failed(sentence));
                send_last(&mut write, ServerFrame { id: answer.id, answer: instead }).await;
            }
            Err(error) => return error,
        }
    }
    FrameError::Closed
}
