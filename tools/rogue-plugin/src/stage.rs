//! What a misdeed is played upon: the daemon's socket, the token, the data folder. Knows how to open a session properly, how to
//! listen for the answer, and how to stay in the session afterwards; knows no misdeed.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::wire::{Fields, Message, body, frame};
use crate::{Answer, PROTOCOL, REPORT_FILE};

/// Longest wait for the daemon's answer: its own longest deadline for one (the handshake's 5 s) with room for a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// The first of the two Pings whose Pongs say "the session lives".
const NONCE: u64 = 0x0b5e_55ed;

/// Rids that misdeeds use for requests whose answers do not matter to the report.
pub(crate) const RID_HELLO: u64 = 1;
pub(crate) const RID_REGISTER: u64 = 2;
pub(crate) const RID_OPEN: u64 = 3;
/// The rid whose Error is the report.
pub(crate) const RID_DEED: u64 = 9;

trait Socket: Read + Write {}
impl<T: Read + Write> Socket for T {}

/// The daemon as the environment names it, and one connection to it.
pub struct Stage {
    endpoint: String,
    token: String,
    data_folder: PathBuf,
    /// Whom the stream misdeeds open; the daemon's own PeerId if nobody was named.
    pub(crate) peer: String,
    connection: Option<Box<dyn Socket>>,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Stage {
    /// Reads what the daemon put into the environment.
    ///
    /// # Errors
    /// If this process was not started as a plugin.
    pub fn from_environment(peer: Option<String>) -> Result<Self> {
        let variable = |name: &str| {
            std::env::var(name).with_context(|| format!("{name} is not set: start me as a plugin"))
        };
        Ok(Self {
            endpoint: variable("P2POS_ENDPOINT")?,
            token: variable("P2POS_TOKEN")?,
            data_folder: variable("P2POS_DATA_DIR")?.into(),
            peer: peer.unwrap_or_default(),
            connection: None,
        })
    }

    /// Writes the answer into the data folder, at once and whole.
    ///
    /// # Errors
    /// If the folder is not there.
    pub fn report(&self, answer: Answer) -> Result<()> {
        self.write_file(REPORT_FILE, &format!("{answer}\n"))
    }

    pub(crate) fn write_file(&self, name: &str, text: &str) -> Result<()> {
        let unfinished = self.data_folder.join(format!("{name}.new"));
        fs::write(&unfinished, text)?;
        fs::rename(&unfinished, self.data_folder.join(name)).context("write into the data folder")
    }

    /// Opens a new connection; the one before is dropped.
    pub(crate) fn connect(&mut self) -> Result<()> {
        self.connection = Some(match self.endpoint.split_once(':') {
            Some(("unix", path)) => {
                let socket = UnixStream::connect(path)?;
                socket.set_read_timeout(Some(ANSWER_MAX))?;
                Box::new(socket)
            }
            Some(("tcp", address)) => {
                let socket = TcpStream::connect(address)?;
                socket.set_read_timeout(Some(ANSWER_MAX))?;
                socket.set_nodelay(true)?;
                Box::new(socket)
            }
            _ => bail!("unknown endpoint {}", self.endpoint),
        });
        Ok(())
    }

    /// Sends bytes. False if the daemon has hung up, which is its good right.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let connection = self.connection.as_mut().expect("a misdeed connects before it sends");
        connection.write_all(bytes.as_ref()).and_then(|()| connection.flush()).is_ok()
    }

    /// A well-formed Hello with our token.
    pub(crate) fn hello(&self) -> Message {
        Message::new().bytes(1, "p2pOS").number(2, 1).number(3, 1).bytes(5, "rogue 0.0").bytes(6, &self.token)
    }

    /// Connects and says Hello, Register and Ready like any honest plugin; waits for the Welcome.
    pub(crate) fn enter(&mut self) -> Result<()> {
        self.connect()?;
        let opening = self.opening();
        self.send(opening);
        loop {
            let frame = self.next_frame()?.context("the daemon closed instead of welcoming us")?;
            match frame.body() {
                Some((body::WELCOME, welcome)) => self.meet(&welcome),
                Some((body::DONE, _)) => return Ok(()),
                Some((body::REFUSED | body::ERROR, fields)) => bail!("not welcome: {}", fields.number(1)),
                _ => {}
            }
        }
    }

    /// The three frames with which an honest plugin begins.
    pub(crate) fn opening(&self) -> Vec<u8> {
        let register = Message::new().message(1, &Message::new().bytes(1, PROTOCOL).number(2, 1));
        [
            frame(RID_HELLO, body::HELLO, &self.hello()),
            frame(RID_REGISTER, body::REGISTER, &register),
            frame(0, body::READY, &Message::new()),
        ]
        .concat()
    }

    fn meet(&mut self, welcome: &Fields) {
        if self.peer.is_empty() {
            self.peer = String::from_utf8_lossy(welcome.bytes(6)).into_owned();
        }
    }

    /// Asks twice behind the misdeed whether the session lives, and listens for what comes first: a coded answer, the end, or the
    /// second Pong. One would not do: the daemon may answer a Ping while its word about the misdeed still waits its turn.
    pub(crate) fn judge(&mut self) -> Result<Answer> {
        for nonce in [NONCE, NONCE + 1] {
            self.send(frame(0, body::PING, &Message::new().number(1, nonce)));
            let answer = self.listen()?;
            if answer != Answer::Lives {
                return Ok(answer);
            }
        }
        Ok(Answer::Lives)
    }

    /// Listens for the first frame that is an answer to a misdeed, for a Pong, or for the end.
    pub(crate) fn listen(&mut self) -> Result<Answer> {
        let deadline = Instant::now() + ANSWER_MAX;
        while Instant::now() < deadline {
            let Some(frame) = self.next_frame()? else { return Ok(Answer::Silence) };
            let rid = frame.number(1);
            match frame.body() {
                Some((body::REFUSED, fields)) => return Ok(Answer::Refused(fields.number(1))),
                Some((body::RESET, fields)) => return Ok(Answer::Reset(fields.number(2))),
                Some((body::PONG, fields)) if fields.number(1) >= NONCE => return Ok(Answer::Lives),
                // What should have been refused was done.
                Some((body::DONE, _)) if rid == RID_DEED => return Ok(Answer::Lives),
                Some((body::ERROR, fields)) => match (rid, fields.number(1)) {
                    (RID_DEED, code) => return Ok(Answer::Reply(code)),
                    (0, code @ 100..=199) => return Ok(Answer::Fatal(code)),
                    (0, code) => return Ok(Answer::Complaint(code)),
                    // The answer to an Open at a peer who is not there, for instance.
                    _ => {}
                },
                _ => {}
            }
        }
        bail!("no answer within {} s", ANSWER_MAX.as_secs());
    }

    /// Stays in the session as an honest plugin would, until the daemon says Shutdown or hangs up.
    pub(crate) fn stay(&mut self) -> Result<()> {
        loop {
            match self.next_frame() {
                Ok(Some(received)) => match received.body() {
                    Some((body::PING, ping)) => {
                        self.send(frame(
                            received.number(1),
                            body::PONG,
                            &Message::new().number(1, ping.number(1)),
                        ));
                    }
                    Some((body::INCOMING, incoming)) => {
                        self.send(frame(
                            received.number(1),
                            body::ACCEPT,
                            &Message::new().number(1, incoming.number(1)),
                        ));
                    }
                    Some((body::SHUTDOWN, _)) => return Ok(()),
                    _ => {}
                },
                Ok(None) => return Ok(()),
                // Nobody has said anything for a while.
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next frame; `None` at the end, however it came.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Fields>> {
        let connection = self.connection.as_mut().expect("a misdeed connects before it listens");
        let mut length = [0; 4];
        match connection.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if is_end(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let mut bytes = vec![0; usize::try_from(u32::from_be_bytes(length))?];
        match connection.read_exact(&mut bytes) {
            Ok(()) => Fields::read(&bytes).map(Some).context("the daemon sent a frame that is no protobuf"),
            Err(error) if is_end(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_end(error: &io::Error) -> bool {
    let ends = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
    ends.contains(&error.kind())
}

fn is_timeout(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(kind, Some(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
}
