//! One socket: frames in and out, or raw bytes. Blocking, with a deadline for everything; knows lengths and no messages.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use p2pos_plugin_protocol::limits::{FRAME_BYTES_HARD_MAX, PREFIX_BYTES};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Longest that one write may wait for the other side to read: a reader never waits [S-FRAME-6].
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Bytes that one read takes.
const READ_BYTES: usize = 256 * 1024;

/// Where the kit waits for plugins.
#[derive(Debug)]
pub enum Listener {
    /// A unix socket.
    Unix(UnixListener),
    /// TCP on the loopback.
    Tcp(TcpListener),
}

impl Listener {
    /// Listens, and says where, as P2POS_ENDPOINT has it.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn bind(folder: &Path, is_tcp: bool) -> Result<(Self, String)> {
        if is_tcp {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let endpoint = format!("tcp:{}", listener.local_addr()?);
            return Ok((Self::Tcp(listener), endpoint));
        }
        let path = folder.join("plugin.sock");
        let listener = UnixListener::bind(&path).context("listen on a unix socket")?;
        Ok((Self::Unix(listener), format!("unix:{}", path.display())))
    }

    /// Takes the next connection, if one comes in time.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn accept(&self, deadline: Instant) -> Result<Option<Wire>> {
        let descriptor = match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        };
        if !is_readable(descriptor, deadline)? {
            return Ok(None);
        }
        let socket = match self {
            Self::Unix(listener) => Socket::Unix(listener.accept()?.0),
            Self::Tcp(listener) => Socket::Tcp(listener.accept()?.0),
        };
        Wire::new(socket).map(Some)
    }
}

fn is_readable(descriptor: BorrowedFd<'_>, deadline: Instant) -> Result<bool> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
    let mut polled = [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)];
    match poll(&mut polled, Some(&timeout)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[derive(Debug)]
enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// Each frame at once.
    Plain,
    /// Each byte by itself.
    Bytewise,
    /// Not yet: all in one piece, later.
    Held,
}

/// What reading gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A frame's body.
    Frame(Vec<u8>),
    /// The other side has closed; so many bytes of an unfinished frame were left over.
    End(usize),
    /// Nothing, until the deadline.
    Late,
}

/// One connection.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    bytes: Vec<u8>,
    is_ended: bool,
    writing: Writing,
    held: Vec<u8>,
}

impl Wire {
    fn new(socket: Socket) -> Result<Self> {
        match &socket {
            Socket::Unix(socket) => socket.set_write_timeout(Some(WRITE_MAX))?,
            Socket::Tcp(socket) => {
                socket.set_nodelay(true)?;
                socket.set_write_timeout(Some(WRITE_MAX))?;
            }
        }
        Ok(Self { socket, bytes: Vec::new(), is_ended: false, writing: Writing::Plain, held: Vec::new() })
    }

    /// Connects to an endpoint, as P2POS_ENDPOINT has it.
    ///
    /// # Errors
    /// If nobody listens there.
    pub fn connect(endpoint: &str) -> Result<Self> {
        let socket = match endpoint.split_once(':') {
            Some(("unix", path)) => Socket::Unix(UnixStream::connect(path)?),
            Some(("tcp", address)) => Socket::Tcp(TcpStream::connect(address)?),
            _ => bail!("{endpoint:?} is neither unix:PATH nor tcp:ADDRESS:PORT"),
        };
        Self::new(socket)
    }

    /// How to write from now on. What was held is written.
    ///
    /// # Errors
    /// As [`Wire::write`].
    pub fn set_writing(&mut self, writing: Writing) -> Result<()> {
        self.writing = writing;
        let held = std::mem::take(&mut self.held);
        self.put(&held)
    }

    /// Writes, or keeps for later.
    ///
    /// # Errors
    /// If the other side does not read for 10 s, or is gone.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self.writing {
            Writing::Plain => self.put(bytes),
            Writing::Bytewise => bytes.chunks(1).try_for_each(|byte| self.put(byte)),
            Writing::Held => {
                self.held.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let written = match &mut self.socket {
            Socket::Unix(socket) => socket.write_all(bytes),
            Socket::Tcp(socket) => socket.write_all(bytes),
        };
        written.map_err(|error| {
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
                return anyhow::anyhow!("it has read nothing for {} s [S-FRAME-6]", WRITE_MAX.as_secs());
            }
            anyhow::Error::new(error).context("it hung up while the kit wrote")
        })
    }

    /// Says that no more will be written.
    pub fn finish(&mut self) {
        self.shut(Shutdown::Write);
    }

    /// Ends the connection both ways.
    pub fn hang_up(&mut self) {
        self.shut(Shutdown::Both);
        self.is_ended = true;
    }

    fn shut(&self, how: Shutdown) {
        let done = match &self.socket {
            Socket::Unix(socket) => socket.shutdown(how),
            Socket::Tcp(socket) => socket.shutdown(how),
        };
        // Whoever is gone already needs no telling.
        drop(done);
    }

    /// The next frame's body.
    ///
    /// # Errors
    /// If a length breaks [S-FRAME-2] or [S-FRAME-3], judged by `bytes_max`.
    pub fn next(&mut self, bytes_max: u32, deadline: Instant) -> Result<Incoming> {
        loop {
            if let Some(first) = self.bytes.first() {
                ensure!(*first == 0, "the first byte of a frame is 0x{first:02x} [S-FRAME-3]");
            }
            if let Some(prefix) = self.bytes.first_chunk::<PREFIX_BYTES>() {
                let length = u32::from_be_bytes(*prefix);
                ensure!(length > 0, "a frame of length 0 [S-FRAME-2]");
                let most = bytes_max.min(FRAME_BYTES_HARD_MAX);
                ensure!(length <= most, "a frame of {length} bytes, the limit is {most} bytes [S-FRAME-2]");
                let end = PREFIX_BYTES + length as usize;
                if self.bytes.len() >= end {
                    let rest = self.bytes.split_off(end);
                    let mut frame = std::mem::replace(&mut self.bytes, rest);
                    return Ok(Incoming::Frame(frame.split_off(PREFIX_BYTES)));
                }
            }
            if self.is_ended {
                return Ok(Incoming::End(self.bytes.len()));
            }
            if !self.fill(deadline)? {
                return Ok(Incoming::Late);
            }
        }
    }

    /// Reads once. False: nothing came in time.
    fn fill(&mut self, deadline: Instant) -> Result<bool> {
        let descriptor = match &self.socket {
            Socket::Unix(socket) => socket.as_fd(),
            Socket::Tcp(socket) => socket.as_fd(),
        };
        if !is_readable(descriptor, deadline)? {
            return Ok(false);
        }
        let mut piece = vec![0; READ_BYTES];
        let read = match &mut self.socket {
            Socket::Unix(socket) => socket.read(&mut piece),
            Socket::Tcp(socket) => socket.read(&mut piece),
        };
        match read {
            Ok(0) => self.is_ended = true,
            Ok(count) => self.bytes.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Aborted rather than closed: the end all the same.
            Err(_) => self.is_ended = true,
        }
        Ok(true)
    }

    /// Exactly so many raw bytes; fewer only at the end or when the deadline has come.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn read_raw(&mut self, count: usize, deadline: Instant) -> Result<Vec<u8>> {
        while self.bytes.len() < count && !self.is_ended && self.fill(deadline)? {}
        let rest = self.bytes.split_off(count.min(self.bytes.len()));
        Ok(std::mem::replace(&mut self.bytes, rest))
    }

    /// Whether the other side has closed and nothing more is to come.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_ended && self.bytes.is_empty()
    }
}
