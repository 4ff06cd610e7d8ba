//! Where plugins connect: the unix socket, the TCP port where one is asked for, and the file that tells tools about both.
//! Owns their making, their healing after a crash, and the question "is this the same user?".
//!
//! Nothing here can be switched off: the directory is 0700 and ours, the socket's peer must have our uid, and so must
//! the process behind a loopback TCP connection (plugin-host.md C9, B16, B17).
//!
//! Refuses to know: frames, tokens, plugins.

use std::{
    fs::{self, DirBuilder},
    io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use p2pos_identity::replace_file;
use p2pos_plugin_protocol::hello::EndpointSecret;
use serde::Serialize;
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::OnceCell,
};

use crate::{hex, shared::random};

/// Longest path of a unix socket in bytes: `sun_path` has 108, one is the closing NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// TCP_ESTABLISHED as the kernel's table writes it.
const ESTABLISHED: &str = "01";
/// Readings of the kernel's table for a connection that is not in it: a row that is skipped twice by chance is rare, and
/// one that is gone (the other side has closed) costs no more than this.
const LOOKS_MAX: usize = 3;

/// Why the place for plugins could not be made.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// The runtime directory cannot be used.
    #[error("the runtime directory {path}: {reason}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what would help.
        reason: String,
    },
    /// The socket's path does not fit.
    #[error(
        "the socket path {path} has {bytes} bytes, the kernel takes {SOCKET_PATH_BYTES_MAX}: \
         choose a shorter runtime directory"
    )]
    PathTooLong {
        /// Which.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Another daemon listens there.
    #[error("another p2pos serves {path} already")]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// The disk or the kernel said no.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What came back.
        source: io::Error,
    },
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> EndpointError {
    move |source| EndpointError::Io { what, source }
}

/// The place where plugins connect.
#[derive(Debug)]
pub(crate) struct Endpoint {
    directory: PathBuf,
    secret: EndpointSecret,
    secret_hex: String,
    pub(crate) boot_id: String,
    tcp_port: OnceCell<u16>,
}

#[derive(Serialize)]
struct FileForm<'a> {
    version: u32,
    endpoints: Vec<String>,
    boot_id: &'a str,
    secret: &'a str,
}

impl Endpoint {
    /// Makes directory, socket and file. A socket that a dead daemon left behind is replaced.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub(crate) async fn open(directory: &Path) -> Result<(Self, UnixListener), EndpointError> {
        make_private_directory(directory)?;
        let secret: [u8; 32] = random();
        let endpoint = Self {
            directory: directory.to_owned(),
            secret: EndpointSecret::new(secret),
            secret_hex: hex(&secret),
            boot_id: hex(&random::<8>()),
            tcp_port: OnceCell::new(),
        };
        let path = endpoint.socket_path();
        let bytes = path.as_os_str().len();
        if bytes > SOCKET_PATH_BYTES_MAX {
            return Err(EndpointError::PathTooLong { path, bytes });
        }
        clear_stale_socket(&path).await?;
        let listener = UnixListener::bind(&path).map_err(io_error("cannot listen on the plugin socket"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .map_err(io_error("cannot protect the plugin socket"))?;
        let text = endpoint.file_text().map_err(io_error("cannot write endpoint.json"))?;
        replace_file(&endpoint.file_path(), text.as_bytes())
            .map_err(io_error("cannot write endpoint.json"))?;
        Ok((endpoint, listener))
    }

    fn socket_path(&self) -> PathBuf {
        self.directory.join("plugin.sock")
    }

    fn file_path(&self) -> PathBuf {
        self.directory.join("endpoint.json")
    }

    pub(crate) fn secret(&self) -> EndpointSecret {
        self.secret.clone()
    }

    /// The text for `P2POS_ENDPOINT`.
    pub(crate) fn unix_text(&self) -> String {
        format!("unix:{}", self.socket_path().display())
    }

    /// Opens the TCP port if it is not open yet; `on_listener` starts to accept. Returns the text for `P2POS_ENDPOINT`.
    pub(crate) async fn tcp_text(&self, on_listener: impl FnOnce(TcpListener)) -> io::Result<String> {
        let port = self
            .tcp_port
            .get_or_try_init(|| async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                let port = listener.local_addr()?.port();
                on_listener(listener);
                io::Result::Ok(port)
            })
            .await?;
        let (path, text) = (self.file_path(), self.file_text()?);
        let written = tokio::task::spawn_blocking(move || replace_file(&path, text.as_bytes())).await;
        written.map_err(io::Error::other)??;
        Ok(tcp_text(*port))
    }

    fn file_text(&self) -> io::Result<String> {
        let mut endpoints = vec![self.unix_text()];
        endpoints.extend(self.tcp_port.get().map(|port| tcp_text(*port)));
        let form = FileForm { version: 1, endpoints, boot_id: &self.boot_id, secret: &self.secret_hex };
        let text = serde_json::to_string_pretty(&form).map_err(io::Error::other)?;
        Ok(format!("{text}\n"))
    }

    /// Removes socket and file. They may be gone already.
    pub(crate) fn remove(&self) {
        for path in [self.socket_path(), self.file_path()] {
            if let Err(error) = fs::remove_file(&path) {
                tracing::debug!(path = %path.display(), %error, "already gone");
            }
        }
    }
}

fn tcp_text(port: u16) -> String {
    format!("tcp:127.0.0.1:{port}")
}

fn make_private_directory(path: &Path) -> Result<(), EndpointError> {
    let refuse = |reason: String| EndpointError::Directory { path: path.to_owned(), reason };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| refuse(error.to_string()))?;
    let facts = fs::symlink_metadata(path).map_err(|error| refuse(error.to_string()))?;
    if !facts.is_dir() {
        return Err(refuse("it is not a directory".to_owned()));
    }
    if facts.uid() != my_uid() {
        return Err(refuse(format!("it belongs to user {}, not to you", facts.uid())));
    }
    if facts.mode() & 0o077 != 0 {
        let mode = facts.mode() & 0o777;
        return Err(refuse(format!("others can enter it (mode {mode:o}); chmod 700 {}", path.display())));
    }
    Ok(())
}

/// Removes a socket that nobody serves.
async fn clear_stale_socket(path: &Path) -> Result<(), EndpointError> {
    match UnixStream::connect(path).await {
        Ok(_) => Err(EndpointError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::debug!(path = %path.display(), "a dead daemon's socket is removed");
            fs::remove_file(path).map_err(io_error("cannot remove the socket of a dead daemon"))
        }
        Err(error) => Err(io_error("cannot look at the plugin socket")(error)),
    }
}

fn my_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether the process at the other end is the same user's.
pub(crate) fn is_same_user_unix(socket: &UnixStream) -> bool {
    socket.peer_cred().is_ok_and(|peer| peer.uid() == my_uid())
}

/// The same for loopback TCP connections, by the kernel's table: those that are ours. A connection that is not in it is
/// refused. One reading of the table, which costs as much as the machine has connections, serves all of them; the kernel
/// may skip a row while others come and go, so who is not found is looked for again.
pub(crate) async fn same_users_tcp(sockets: Vec<TcpStream>) -> Vec<TcpStream> {
    let (mut ours, mut unknown) = (Vec::new(), sockets);
    for _ in 0..LOOKS_MAX {
        if unknown.is_empty() {
            break;
        }
        let read = tokio::task::spawn_blocking(|| fs::read_to_string("/proc/net/tcp")).await;
        let Ok(Ok(table)) = read else { break };
        for socket in std::mem::take(&mut unknown) {
            match owner_in(&table, &socket) {
                Some(Owner::User(uid)) if uid == my_uid() => ours.push(socket),
                Some(Owner::User(_) | Owner::Nobody) => {}
                None => unknown.push(socket),
            }
        }
    }
    ours
}

/// Whose the other end of a connection is.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    User(u32),
    /// It was closed over there. The kernel shows such a row with uid 0, which is nobody's word for it.
    Nobody,
}

fn owner_in(table: &str, socket: &TcpStream) -> Option<Owner> {
    match (socket.peer_addr(), socket.local_addr()) {
        (Ok(SocketAddr::V4(theirs)), Ok(SocketAddr::V4(ours))) => owner_of(table, theirs, ours),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => None,
    }
}

/// The owner in the row of `/proc/net/tcp` whose own side is `local` and whose other side is `remote`.
fn owner_of(table: &str, local: std::net::SocketAddrV4, remote: std::net::SocketAddrV4) -> Option<Owner> {
    // Addresses stand there as the hex of the number in the machine's own byte order.
    let text = |address: std::net::SocketAddrV4| {
        format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
    };
    let (local, remote) = (text(local), text(remote));
    table.lines().skip(1).find_map(|row| {
        let mut columns = row.split_ascii_whitespace().skip(1);
        let is_it = columns.next() == Some(&local) && columns.next() == Some(&remote);
        // Behind them: state, queues, timer, retransmits, uid.
        let state = columns.next().filter(|_| is_it)?;
        let uid = columns.nth(3)?.parse().ok()?;
        Some(if state == ESTABLISHED { Owner::User(uid) } else { Owner::Nobody })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_heals_and_a_live_one_is_respected() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("run");
        let (endpoint, listener) = Endpoint::open(&place).await.unwrap();
        assert!(matches!(Endpoint::open(&place).await, Err(EndpointError::InUse { .. })));
        drop(listener);
        assert!(endpoint.socket_path().exists(), "what a kill -9 leaves behind");
        let (endpoint, _listener) = Endpoint::open(&place).await.unwrap();
        for path in [endpoint.socket_path(), endpoint.file_path()] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::metadata(&place).unwrap().mode() & 0o777, 0o700);
    }

    #[tokio::test]
    async fn a_directory_that_others_can_enter_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let error = Endpoint::open(dir.path()).await.unwrap_err().to_string();
        assert!(error.contains("(mode 755); chmod 700"), "{error}");
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_told_with_its_length() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("x".repeat(100));
        let error = Endpoint::open(&place).await.unwrap_err().to_string();
        assert!(error.contains("the kernel takes 107"), "{error}");
    }

    #[test]
    fn the_kernels_table_tells_whose_a_connection_is() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 0100007F:A3E4 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0\n\
             1: 0100007F:A3E4 0100007F:1F90 01 00000000:00000000 00:00000000 00000000 65534        0 2 1 0\n\
             2: 0100007F:A3E5 0100007F:1F90 05 00000000:00000000 00:00000000 00000000     0        0 3 1 0\n";
        let at = |port| std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        assert_eq!(owner_of(table, at(0xA3E4), at(0x1F90)), Some(Owner::User(65534)));
        assert_eq!(owner_of(table, at(0x1F90), at(0xA3E4)), Some(Owner::User(0)));
        assert_eq!(owner_of(table, at(0xA3E5), at(0x1F90)), Some(Owner::Nobody), "closed is not root's");
        assert_eq!(owner_of(table, at(1), at(2)), None);
    }

    #[tokio::test]
    async fn loopback_connections_of_our_own_pass() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (mut clients, mut accepted) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            clients.push(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
            accepted.push(listener.accept().await.unwrap().0);
        }
        assert_eq!(same_users_tcp(accepted).await.len(), 3);
    }
}
