//! Fresh connections: who is it, and may it come in? Owns the accept loops, the limits on strangers, and what each kind
//! of visitor is told.
//!
//! ```text
//!   accept ─ same user? ─ first frame within 5 s ─┬─ Hello + launch token ──> session of that plugin or tool
//!                                                 ├─ Hello + two-way proof ─> session of a tool of the user
//!                                                 ├─ Attach + ticket ───────> the raw socket of a detached stream
//!                                                 └─ anything else ─────────> nothing, or Refused; a log line
//! ```
//! A browser, a TLS client or another user gets not a single byte back. Refuses to know: what sessions do later.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use p2pos_plugin_protocol::{
    code::Code,
    driver::{self, GreetError},
    frame::Foreign,
    hello::{Acceptor, AcceptorConfig, Opening},
    limits::Limits,
    message::{Hello, LaunchToken, Refused, Ticket, Welcome},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
};

use crate::{
    endpoint::{is_same_user_tcp, is_same_user_unix},
    permissions::{Permission, Permissions},
    session,
    shared::{Bearer, Shared, random},
    stream::RawIo,
    tickets::AttachedSocket,
};

/// Connections that may be unauthenticated at once; further ones are closed at once. Each holds at most 4 KiB for at
/// most 5 s.
const STRANGERS_MAX: usize = 32;
/// Pause after the kernel refused us a connection (out of descriptors): without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the last answer to somebody who is turned away may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Who holds the secret of `endpoint.json` speaks as this; no plugin id has a colon.
const SECRET_HOLDER: &str = "tool:endpoint";

enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// Accepts plugins on the unix socket until the host ends.
pub(crate) async fn accept_unix(listener: UnixListener, shared: Arc<Shared>) {
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    while let Some(accepted) = shared.ending.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((socket, _)) => receive(Socket::Unix(socket), &strangers, &shared),
            Err(error) => pause_after(&error).await,
        }
    }
}

/// Accepts plugins on the TCP port until the host ends.
pub(crate) async fn accept_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    while let Some(accepted) = shared.ending.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((socket, _)) => receive(Socket::Tcp(socket), &strangers, &shared),
            Err(error) => pause_after(&error).await,
        }
    }
}

async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "a plugin's connection was not accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

fn receive(socket: Socket, strangers: &Arc<Semaphore>, shared: &Arc<Shared>) {
    let Ok(place) = strangers.clone().try_acquire_owned() else {
        tracing::debug!("more than {STRANGERS_MAX} connections have not said Hello yet: one is closed");
        return;
    };
    let tasks = &shared.tasks;
    let shared = shared.clone();
    tasks.spawn(async move {
        let greeted = shared.ending.run_until_cancelled(greet(socket, &shared)).await;
        drop(place);
        if let Some(Some(work)) = greeted {
            session::run(shared, work.bearer, work.session, work.inbox).await;
        }
    });
}

/// A connection that was let in.
struct Work {
    bearer: Bearer,
    session: driver::Session,
    inbox: driver::Inbox,
}

async fn greet(socket: Socket, shared: &Arc<Shared>) -> Option<Work> {
    let is_same_user = match &socket {
        Socket::Unix(socket) => is_same_user_unix(socket),
        Socket::Tcp(socket) => is_same_user_tcp(socket).await,
    };
    if !is_same_user {
        tracing::warn!("another user of this machine tried to connect as a plugin");
        return None;
    }
    match socket {
        Socket::Unix(socket) => {
            let (read, write) = socket.into_split();
            greet_halves(read, write, |read, write| read.reunite(write).ok().map(RawIo::Unix), shared).await
        }
        Socket::Tcp(socket) => {
            if let Err(error) = socket.set_nodelay(true) {
                tracing::debug!(%error, "a plugin's connection stays with Nagle's algorithm");
            }
            let (read, write) = socket.into_split();
            greet_halves(read, write, |read, write| read.reunite(write).ok().map(RawIo::Tcp), shared).await
        }
    }
}

async fn greet_halves<R, W>(
    mut read: R,
    mut write: W,
    reunite: impl FnOnce(R, W) -> Option<RawIo>,
    shared: &Arc<Shared>,
) -> Option<Work>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (opening, acceptor, leftover) = first_words(&mut read, &mut write, shared).await?;
    match decide(opening, shared) {
        Decision::Attach(ticket) => {
            let waiting = shared.tickets().redeem(&ticket, Instant::now());
            let Some(waiting) = waiting else {
                tracing::info!("a ticket was refused: unknown, used before or too old");
                let message = "this ticket is unknown, was used before, or is too old";
                return turn_away(&mut write, &acceptor, Refused::new(Code::AUTH, message)).await;
            };
            if !tell(&mut write, &acceptor.attached()).await {
                tracing::debug!("a detached stream's socket left before Attached");
                return None;
            }
            let socket = AttachedSocket { io: reunite(read, write)?, leftover };
            if waiting.send(socket).is_err() {
                tracing::debug!("a detached stream ended before its socket came");
            }
            None
        }
        Decision::Admit(bearer, hello) => {
            admit(read, write, (leftover, acceptor, hello, bearer), shared).await
        }
        Decision::Refuse(refused) => turn_away(&mut write, &acceptor, refused).await,
    }
}

/// Says something, if it can be said in time.
async fn tell<W: AsyncWrite + Unpin>(write: &mut W, answer: &[u8]) -> bool {
    matches!(tokio::time::timeout(ANSWER_WITHIN, write.write_all(answer)).await, Ok(Ok(())))
}

async fn first_words<R, W>(
    read: &mut R,
    write: &mut W,
    shared: &Shared,
) -> Option<(Opening, Acceptor, BytesMut)>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let config = AcceptorConfig { endpoint_secret: Some(shared.endpoint.secret()), server_nonce: random() };
    let mut acceptor = Acceptor::new(config);
    let mut leftover = BytesMut::new();
    match driver::greet(read, write, &mut leftover, &mut acceptor).await {
        Ok(opening) => Some((opening, acceptor, leftover)),
        Err(error) => {
            let spoke = match &error {
                GreetError::Rejected(rejection) => rejection.spoke,
                GreetError::Timeout | GreetError::Closed | GreetError::Io(_) => None,
            };
            if let Some(foreign) = spoke {
                tracing::warn!("{} spoke on the plugin socket: closed unanswered", name_of(foreign));
            } else {
                tracing::info!(%error, "a connection on the plugin socket was turned away");
            }
            None
        }
    }
}

fn name_of(foreign: Foreign) -> String {
    match foreign {
        Foreign::Http => "an HTTP client (a browser?)".to_owned(),
        Foreign::Tls => "a TLS client".to_owned(),
        Foreign::Json => "a JSON client".to_owned(),
        Foreign::Other(byte) => format!("something unknown (first byte {byte:#04x})"),
    }
}

enum Decision {
    Admit(Bearer, Hello),
    Attach(Ticket),
    Refuse(Refused),
}

fn decide(opening: Opening, shared: &Shared) -> Decision {
    match opening {
        Opening::Attach { ticket } => Decision::Attach(ticket),
        Opening::Proven { hello } => Decision::Admit(secret_holder(shared), hello),
        Opening::Token { token, hello } => match bearer_of(&token, shared) {
            Some(bearer) => Decision::Admit(bearer, hello),
            None => {
                tracing::info!(
                    sdk = hello.sdk,
                    "a launch token was refused: unknown, used before or too old"
                );
                let message = "this launch token is unknown, was used before, or is too old";
                Decision::Refuse(Refused::new(Code::AUTH, message))
            }
        },
    }
}

fn bearer_of(token: &LaunchToken, shared: &Shared) -> Option<Bearer> {
    shared.tokens().redeem(token, Instant::now())
}

/// A tool that read the secret: it may open what its user types, and see the contacts; it serves nothing.
fn secret_holder(shared: &Shared) -> Bearer {
    let mut permissions = Permissions::open_all();
    permissions.add(Permission::ContactsRead);
    Bearer {
        owner: SECRET_HOLDER.into(),
        instance: shared.next_instance(),
        permissions: Arc::new(permissions),
        streams_max: Limits::default().streams_max,
        plugin: None,
    }
}

type Admitted = (BytesMut, Acceptor, Hello, Bearer);

async fn admit<R, W>(read: R, mut write: W, admitted: Admitted, shared: &Shared) -> Option<Work>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (leftover, acceptor, hello, bearer) = admitted;
    let limits = Limits { streams_max: bearer.streams_max, ..Limits::default() };
    let welcome = Welcome {
        version: 1,
        features: Vec::new(),
        daemon: shared.config.daemon_name.clone(),
        plugin_id: bearer.owner.to_string(),
        instance_id: format!("{}-{}", shared.endpoint.boot_id, bearer.instance),
        peer_id: shared.config.peer_id,
        grants: bearer.permissions.to_texts(),
        limits,
    };
    let answer = acceptor.welcome(&hello, welcome);
    if !tell(&mut write, &answer).await {
        tracing::debug!(owner = &*bearer.owner, "a plugin left before its Welcome");
        return None;
    }
    tracing::debug!(owner = &*bearer.owner, instance = bearer.instance, sdk = hello.sdk, "session open");
    let (session, inbox) = driver::spawn(read, write, leftover, driver::Settings::daemon(&limits, &hello));
    Some(Work { bearer, session, inbox })
}

async fn turn_away<W: AsyncWrite + Unpin>(
    write: &mut W,
    acceptor: &Acceptor,
    refused: Refused,
) -> Option<Work> {
    if !tell(write, &acceptor.refuse(refused)).await {
        tracing::debug!("a refused connection did not take its answer");
    }
    None
}
