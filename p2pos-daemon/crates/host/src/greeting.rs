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

use bytes::{Bytes, BytesMut};
use p2pos_plugin_protocol::{
    code::Code,
    driver::{self, GreetError},
    frame::Foreign,
    hello::{Acceptor, AcceptorConfig, Opening},
    limits::Limits,
    message::{Hello, LaunchToken, Refused, Ticket, Welcome},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
};

use crate::{
    endpoint::{is_same_user_unix, same_users_tcp},
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
/// How long we listen to somebody who was turned away, for their own end of file. A socket that is closed while unread
/// bytes wait in it is reset, and then the other side may never see the answer that was sent before.
const LINGER_WITHIN: Duration = Duration::from_secs(1);
/// How much of it, in bytes: more than any plugin says before it has read its Welcome (256 KiB of Data, some frames).
const LINGER_BYTES_MAX: usize = 512 * 1024;
/// TCP connections whose owner is looked up at once. What comes meanwhile waits in the kernel, and costs us nothing.
const BATCH_MAX: usize = 64;
/// Pause after a batch in which another user's connections were: whoever knocks without end gets us to read the kernel's
/// table fifty times a second and no more, and a plugin of ours waits for as long.
const FOREIGN_PAUSE: Duration = Duration::from_millis(20);
/// How often another user's knocking is told.
const FOREIGN_TOLD_EVERY: Duration = Duration::from_secs(60);

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
    let mut foreigners = Foreigners::default();
    while let Some(accepted) = shared.ending.run_until_cancelled(listener.accept()).await {
        let first = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && let Some(Ok((socket, _))) = now_or_never(listener.accept()).await
        {
            batch.push(socket);
        }
        let came = batch.len();
        let ours = same_users_tcp(batch).await;
        let foreign = came - ours.len();
        for socket in ours {
            receive(Socket::Tcp(socket), &strangers, &shared);
        }
        if foreign > 0 {
            foreigners.note(foreign, Instant::now());
            tokio::time::sleep(FOREIGN_PAUSE).await;
        }
    }
}

/// What is there already. Accepting is cancel-safe.
async fn now_or_never<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = std::future::ready(()) => None,
    }
}

/// Connections of other users of this machine: the daemon's log hears of them now and then, not of each.
#[derive(Debug, Default)]
struct Foreigners {
    untold: usize,
    told: Option<Instant>,
}

impl Foreigners {
    fn note(&mut self, connections: usize, now: Instant) {
        self.untold += connections;
        if self.told.is_none_or(|told| now.saturating_duration_since(told) >= FOREIGN_TOLD_EVERY) {
            let connections = std::mem::take(&mut self.untold);
            self.told = Some(now);
            tracing::warn!(connections, "another user of this machine tried to connect as a plugin");
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
    match socket {
        // Nobody but us can enter the socket's folder, so this is no flood.
        Socket::Unix(socket) if !is_same_user_unix(&socket) => {
            tracing::warn!("another user of this machine tried to connect as a plugin");
            None
        }
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
                let message = "this ticket is unknown, was used before, or is too old [S-ATTACH-2]";
                turn_away(read, write, acceptor.refuse(Refused::new(Code::AUTH, message))).await;
                return None;
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
        Decision::Refuse(refused) => {
            turn_away(read, write, acceptor.refuse(refused)).await;
            None
        }
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
            let (spoke, was_answered) = match &error {
                GreetError::Rejected(rejection) => (rejection.spoke, rejection.answer.is_some()),
                GreetError::Timeout => (None, !leftover.is_empty()),
                GreetError::Closed | GreetError::Io(_) => (None, false),
            };
            if let Some(foreign) = spoke {
                tracing::warn!("{} spoke on the plugin socket: closed unanswered", name_of(foreign));
            } else {
                tracing::info!(%error, "a connection on the plugin socket was turned away");
            }
            if was_answered {
                listen_out(read).await;
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
                let message = "this launch token is unknown, was used before, or is too old [S-HELLO-3]";
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

/// Says why not, so that it is heard: our end of file follows, and we read on until theirs.
async fn turn_away<R, W>(mut read: R, mut write: W, refused: Bytes)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    if !tell(&mut write, &refused).await || write.shutdown().await.is_err() {
        tracing::debug!("a refused connection did not take its answer");
        return;
    }
    listen_out(&mut read).await;
}

/// Reads what somebody still says who was turned away, up to their end of file or a limit.
async fn listen_out<R: AsyncRead + Unpin>(read: &mut R) {
    let reading = async {
        let mut unheard = BytesMut::with_capacity(4096);
        let mut bytes = 0;
        while bytes < LINGER_BYTES_MAX
            && let Ok(more @ 1..) = read.read_buf(&mut unheard).await
        {
            bytes += more;
            unheard.clear();
        }
    };
    if tokio::time::timeout(LINGER_WITHIN, reading).await.is_err() {
        tracing::debug!("a refused connection stays open at its end: it is closed all the same");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_knocking_stranger_does_not_fill_the_log() {
        let begin = Instant::now();
        let mut foreigners = Foreigners::default();
        foreigners.note(1, begin);
        assert_eq!(foreigners.untold, 0, "the first is told at once");
        for n in 1..60_000 {
            foreigners.note(1, begin + Duration::from_millis(n));
        }
        assert_eq!(foreigners.untold, 59_999);
        foreigners.note(1, begin + FOREIGN_TOLD_EVERY);
        assert_eq!(foreigners.untold, 0);
    }
}
