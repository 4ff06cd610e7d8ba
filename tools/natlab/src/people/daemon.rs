//! A real daemon in a namespace: the program that users run, started, asked over its control socket, ended with its owner.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{env, io};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use p2pos_control::{Client, ConnectError, ContactRequest, Document, RelayDetail, Request, RouterAnswer};
use p2pos_identity::{KeyFile, PeerId};
use tokio::time::{Instant, sleep};

use crate::lab::Lab;
use crate::namespace::Namespace;
use crate::program;

/// A daemon is ready within 100 ms on an idle machine; a loaded one gets its time.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How often we look whether it is.
const READY_POLL: Duration = Duration::from_millis(5);
/// A daemon without plugins of its own ends within two seconds, by its own rules; a loaded machine gets its time.
const ENDS_WITHIN: Duration = Duration::from_secs(15);
/// Last lines of a daemon's log that an error quotes.
const LAST_WORDS: usize = 6;

/// Numbers the daemons' folders.
static LAST_NUMBER: AtomicU32 = AtomicU32::new(0);

/// The program that users run.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
}

/// What a daemon says about the way to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// `direct`, `lan`, `loopback` or `relayed`; empty while there is none.
    pub kind: String,
    /// The relay that carries it, if one does and the daemon knows its name.
    pub relay: Option<String>,
    /// Why it is so, in the daemon's words.
    pub why: String,
}

impl Program {
    /// The one that was named, or that lies where `cargo build --release` puts it.
    ///
    /// # Errors
    /// There is none.
    pub fn find(named: Option<PathBuf>) -> Result<Self> {
        let beside = || {
            let ours = env::current_exe().ok()?;
            Some(ours.parent()?.parent()?.join("release/p2pos"))
        };
        let path = named.or_else(beside).context("name the p2pos program: --p2pos PATH")?;
        let path = fs::canonicalize(&path).with_context(|| {
            format!("{} is not there: cargo build --release -p p2pos, or --p2pos PATH", path.display())
        })?;
        Ok(Self { path })
    }
}

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    /// Its name in errors.
    pub name: String,
    /// Who it is.
    pub peer_id: PeerId,
    /// Its UDP port.
    pub port: u16,
    home: PathBuf,
    child: Child,
    /// It ends when this does, however we end.
    stdin: Option<ChildStdin>,
}

/// A folder with a fresh identity in it: somebody whom others may know before the daemon starts.
#[derive(Debug)]
pub struct Home {
    /// Its owner.
    pub peer_id: PeerId,
    name: String,
    path: PathBuf,
}

impl Home {
    /// Makes one.
    ///
    /// # Errors
    /// The disk says no.
    pub fn make(lab: &Lab, name: &str) -> Result<Self> {
        let path = lab.folder().join(format!("d{}", LAST_NUMBER.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        let (key, _) = KeyFile::load_or_create(&path)?;
        Ok(Self { peer_id: key.peer_id(), name: name.to_owned(), path })
    }
}

impl Daemon {
    /// Starts the one that lives there, and waits until it answers. Settings are those of the environment: `P2POS_NETWORK_PORT`.
    ///
    /// # Errors
    /// It does not start; the error quotes its log.
    pub async fn start(
        program: &Program,
        Home { peer_id, name, path: home }: Home,
        at: &Namespace,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let log = File::create(home.join("log"))?;
        let mut command = Command::new(&program.path);
        command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default()).env("HOME", &home);
        command.env("P2POS_LOG_LEVEL", "debug").envs(settings.iter().copied());
        command.arg("--data-dir").arg(&home).args(["up", "--until-stdin-closes"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        let mut child = at.spawn(&mut command)?;
        let stdin = child.stdin.take().context("its stdin was asked for")?;
        let port = match ready(&home, &mut child).await {
            Ok(port) => port,
            Err(error) => {
                child.kill().and_then(|()| child.wait()).ok();
                return Err(error.context(format!("daemon {name}: {}", last_words(&home))));
            }
        };
        Ok(Self { name, peer_id, port, home, child, stdin: Some(stdin) })
    }

    /// A connection to its control socket.
    ///
    /// # Errors
    /// It has ended; the error quotes its log.
    pub async fn control(&self) -> Result<Client> {
        let connected = Client::connect(&self.home.join("run/control.sock")).await;
        connected.with_context(|| format!("daemon {}: {}", self.name, last_words(&self.home)))
    }

    /// Asks one question.
    ///
    /// # Errors
    /// It said no.
    pub async fn ask(&self, request: Request) -> Result<Document> {
        let answered = self.control().await?.call(request).await;
        answered.map_err(|error| anyhow!("daemon {}: {error}", self.name))
    }

    /// Makes somebody a contact, reached at these addresses if at any.
    ///
    /// # Errors
    /// The daemon said no.
    pub async fn knows(&self, who: &Self, addresses: &[String]) -> Result<()> {
        self.knows_of(&who.peer_id, &who.name, addresses).await
    }

    /// The same with somebody whose daemon does not run yet.
    ///
    /// # Errors
    /// The daemon said no.
    pub async fn expects(&self, who: &Home) -> Result<()> {
        self.knows_of(&who.peer_id, &who.name, &[]).await
    }

    async fn knows_of(&self, who: &PeerId, name: &str, addresses: &[String]) -> Result<()> {
        let (peer_id, petname, addresses) = (who.to_string(), name.to_owned(), addresses.to_vec());
        let request = ContactRequest::Add { peer_id, petname, addresses, relay: None };
        self.ask(Request::Contacts(request)).await.map(drop)
    }

    /// The addresses at which it can be called through relays, as people pass them on.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn callable_at(&self) -> Result<Vec<String>> {
        Ok(self.relaying().await?.callable_at.into_iter().filter_map(|lease| lease.address).collect())
    }

    /// What it relays for others.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn relaying(&self) -> Result<RelayDetail> {
        let Document::Relay(relay) = self.ask(Request::RelayStatus).await? else {
            bail!("daemon {} answers oddly about relays", self.name);
        };
        Ok(*relay)
    }

    /// Gives it a signal: `KILL`, or `TERM`, upon which it ends in good order, in its own time.
    ///
    /// # Errors
    /// It does not run any more.
    pub fn signal(&self, name: &str) -> Result<()> {
        program::run("kill", &["-s", name, &self.child.id().to_string()], "").map(drop)
    }

    /// What each router said to the wish for a port mapping.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn routers(&self) -> Result<Vec<RouterAnswer>> {
        let Document::Netcheck(netcheck) = self.ask(Request::Netcheck).await? else {
            bail!("daemon {} answers oddly about its network", self.name);
        };
        Ok(netcheck.routers)
    }

    /// Whether a peer's daemon answers. A side effect is a connection.
    ///
    /// # Errors
    /// Our own daemon does not work.
    pub async fn reaches(&self, who: &Self) -> Result<bool> {
        let request = Request::Ping { who: who.peer_id.to_string(), count: 1, interval_ms: 0 };
        let Document::Ping(report) = self.ask(request).await? else { bail!("a ping is answered oddly") };
        Ok(report.received > 0)
    }

    /// What it says about the way to a peer.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn path_to(&self, who: &PeerId) -> Result<Path> {
        let Document::Status(status) = self.ask(Request::Status).await? else {
            bail!("daemon {} answers status oddly", self.name);
        };
        let who = who.to_string();
        let peer = status.peers.into_iter().find(|peer| peer.peer_id == who);
        Ok(peer.map_or_else(
            || Path { kind: String::new(), relay: None, why: "no such peer".to_owned() },
            |peer| Path { kind: peer.path.unwrap_or_default(), relay: peer.relay, why: peer.why },
        ))
    }

    /// Asks it to end, and waits: so it says goodbye to its peers, who would otherwise keep a place for it.
    ///
    /// # Errors
    /// It does not end, and is killed.
    pub async fn end(mut self) -> Result<()> {
        self.stdin = None;
        let give_up = Instant::now() + ENDS_WITHIN;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < give_up, "daemon {} does not end", self.name);
            sleep(READY_POLL).await;
        }
        Ok(())
    }

    /// The end of its log, for reports of what went wrong.
    #[must_use]
    pub fn last_words(&self) -> String {
        last_words(&self.home)
    }

    pub(super) fn home(&self) -> &std::path::Path {
        &self.home
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself; its guard ends its plugins. Files that stay go with the lab.
        self.child.kill().and_then(|()| self.child.wait()).ok();
        fs::remove_dir_all(&self.home).ok();
    }
}

/// Waits until it answers, and gives its port.
async fn ready(home: &std::path::Path, child: &mut Child) -> Result<u16> {
    let give_up = Instant::now() + READY_WITHIN;
    loop {
        match Client::connect(&home.join("run/control.sock")).await {
            Ok(mut client) => {
                let Document::Status(status) = client.call(Request::Status).await? else {
                    bail!("it answers status oddly");
                };
                return Ok(status.udp_port);
            }
            Err(ConnectError::NotRunning(_)) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = child.try_wait()? {
            bail!("it ended with {status}");
        }
        if Instant::now() > give_up {
            return Err(io::Error::from(io::ErrorKind::TimedOut)).context("it is not ready");
        }
        sleep(READY_POLL).await;
    }
}

fn last_words(home: &std::path::Path) -> String {
    let said = fs::read_to_string(home.join("log")).unwrap_or_default();
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(LAST_WORDS)..].join(" | ")
}
