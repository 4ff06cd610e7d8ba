//! The way to the daemon: environment, sockets, handshake.

use std::{
    env, fmt, io,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    pin::Pin,
    str::FromStr,
    task::{Context, Poll},
    thread,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::oneshot,
    time::timeout,
};

use crate::{
    driver::{self, CallFailure, Inbox, Session, Settings},
    hello::{Caller, Credential},
    limits::HELLO_TIMEOUT,
    message::{Hello, LaunchToken, Ticket, Welcome},
};

/// Where the daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `unix:/path`.
    Unix(PathBuf),
    /// `tcp:127.0.0.1:PORT`.
    Tcp(SocketAddr),
}

impl FromStr for Endpoint {
    type Err = ConnectError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ConnectError::Endpoint(text.to_owned());
        match text.split_once(':') {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) => match address.parse::<SocketAddr>() {
                // The daemon listens nowhere else; a token must not leave the machine.
                Ok(address) if address.ip() == Ipv4Addr::LOCALHOST => Ok(Self::Tcp(address)),
                Ok(_) | Err(_) => Err(bad()),
            },
            Some(_) | None => Err(bad()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

/// Says why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The plugin was not started by the daemon.
    #[error("{0} is not set; start the plugin through p2pos, or with `p2pos plugins run DIR`")]
    NoEnvironment(&'static str),
    /// The environment names no place that a daemon listens at.
    #[error("\"{0}\" is no endpoint; it must be unix:/PATH or tcp:127.0.0.1:PORT")]
    Endpoint(String),
    /// The token is empty or far too long.
    #[error("P2POS_TOKEN holds no launch token")]
    Token,
    /// Nobody listens there.
    #[error("cannot reach the daemon at {endpoint}: {error}; does `p2pos up` run?")]
    Connect {
        /// Where.
        endpoint: Endpoint,
        /// What the system says.
        error: io::Error,
    },
    /// The daemon does not let us in.
    #[error(transparent)]
    Handshake(#[from] CallFailure),
    /// The daemon took too long.
    #[error("the daemon did not answer Hello within {} s", HELLO_TIMEOUT.as_secs())]
    Timeout,
}

/// How to get to a daemon.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// How we prove who we are.
    pub credential: Credential,
    /// What we say about ourselves.
    pub hello: Hello,
}

/// Bytes that the daemon may send per stream before this SDK gives credit. Larger than the protocol's default, since a
/// plugin in Rust has the memory, and a plugin that is busy for a millisecond should not stop a fast peer.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

impl Config {
    /// For an endpoint and a token.
    #[must_use]
    pub fn new(endpoint: Endpoint, token: LaunchToken) -> Self {
        let hello = Hello {
            sdk: concat!("sdk-rust ", env!("CARGO_PKG_VERSION")).to_owned(),
            stream_window_bytes: STREAM_WINDOW_BYTES,
            ..Hello::default()
        };
        Self { endpoint, credential: Credential::Token(token), hello }
    }

    /// From the environment that the daemon sets at launch.
    ///
    /// # Errors
    /// [`ConnectError`] names what is missing or wrong.
    pub fn from_env() -> Result<Self, ConnectError> {
        let endpoint =
            env::var("P2POS_ENDPOINT").map_err(|_| ConnectError::NoEnvironment("P2POS_ENDPOINT"))?;
        let token = env::var("P2POS_TOKEN").map_err(|_| ConnectError::NoEnvironment("P2POS_TOKEN"))?;
        let token = LaunchToken::from_env_text(&token).ok_or(ConnectError::Token)?;
        Ok(Self::new(endpoint.parse()?, token))
    }
}

/// A socket to the daemon, of either sort.
#[derive(Debug)]
#[non_exhaustive]
pub enum Socket {
    /// A unix socket.
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
    /// A TCP socket to this machine.
    Tcp(TcpStream),
}

impl Socket {
    async fn connect(endpoint: &Endpoint) -> Result<Self, ConnectError> {
        let socket = match endpoint {
            #[cfg(unix)]
            Endpoint::Unix(path) => tokio::net::UnixStream::connect(path).await.map(Self::Unix),
            #[cfg(not(unix))]
            Endpoint::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
            Endpoint::Tcp(address) => match TcpStream::connect(address).await {
                Ok(socket) => socket.set_nodelay(true).map(|()| Self::Tcp(socket)),
                Err(error) => Err(error),
            },
        };
        socket.map_err(|error| ConnectError::Connect { endpoint: endpoint.clone(), error })
    }
}

/// A detached stream's socket, and what of the stream came with the handshake.
pub(super) struct Attached {
    pub(super) socket: Socket,
    pub(super) early: BytesMut,
}

pub(super) async fn attach(endpoint: &Endpoint, ticket: Ticket) -> Result<Attached, ConnectError> {
    let in_time = timeout(HELLO_TIMEOUT, async {
        let mut socket = Socket::connect(endpoint).await?;
        let mut early = BytesMut::new();
        driver::attach(&mut socket, &mut early, ticket).await?;
        Ok(Attached { socket, early })
    });
    in_time.await.map_err(|_| ConnectError::Timeout)?
}

pub(super) async fn connect(config: Config) -> Result<(Session, Inbox, Welcome), ConnectError> {
    let Config { endpoint, credential, hello } = config;
    let in_time = timeout(HELLO_TIMEOUT, async {
        let socket = Socket::connect(&endpoint).await?;
        match socket {
            #[cfg(unix)]
            Socket::Unix(socket) => {
                let (read, write) = socket.into_split();
                say_hello(read, write, hello, credential).await
            }
            Socket::Tcp(socket) => {
                let (read, write) = socket.into_split();
                say_hello(read, write, hello, credential).await
            }
        }
    });
    in_time.await.map_err(|_| ConnectError::Timeout)?
}

async fn say_hello<R, W>(
    mut read: R,
    mut write: W,
    hello: Hello,
    credential: Credential,
) -> Result<(Session, Inbox, Welcome), ConnectError>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let mut caller = Caller::new(hello.clone(), credential);
    let mut buffer = BytesMut::new();
    let welcome = driver::call(&mut read, &mut write, &mut buffer, &mut caller).await?;
    let (session, inbox) = driver::spawn(read, write, buffer, Settings::plugin(&hello, &welcome));
    Ok((session, inbox, welcome))
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            #[cfg(unix)]
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            #[cfg(unix)]
            Self::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            #[cfg(unix)]
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

/// Waits until the daemon closes the plugin's stdin, which it does when it ends, however it ends. Without
/// `P2POS_EXIT_ON_STDIN_CLOSE=1` in the environment it waits for ever: then stdin is the author's terminal.
///
/// The wait takes a thread that ends with stdin or the process.
pub async fn stdin_closed() {
    if env::var_os("P2POS_EXIT_ON_STDIN_CLOSE").is_none_or(|value| value != "1") {
        return std::future::pending().await;
    }
    let (closed, is_closed) = oneshot::channel::<()>();
    let watch = move || {
        let mut stdin = io::stdin().lock();
        let mut scrap = [0; 256];
        while stdin.read(&mut scrap).is_ok_and(|bytes| bytes > 0) {}
        drop(closed);
    };
    if thread::Builder::new().name("stdin".to_owned()).spawn(watch).is_err() {
        tracing::warn!("no thread to watch stdin; the plugin ends with its socket");
        return std::future::pending().await;
    }
    // The thread sends nothing: its end drops the sender, and that is the news.
    if is_closed.await.is_err() {
        tracing::debug!("stdin is closed");
    }
}
