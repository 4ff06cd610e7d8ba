//! The demo's daemons: real processes of this same program, started, asked over their control sockets, and ended.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use p2pos_control::{Client, ConnectError, ContactRequest, Document, Failure, Request, Status};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::place::{Folder, Found};
use crate::tool;

/// A daemon is ready within 100 ms on an idle machine; a loaded one gets its time.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How often we look whether it is.
const READY_POLL: Duration = Duration::from_millis(5);
/// A daemon ends within 17 s by its own rules, in the demo within one.
const ENDS_WITHIN: Duration = Duration::from_secs(18);
/// Last lines of a daemon's words that are shown when it fails.
const LAST_WORDS: usize = 5;

/// One daemon.
#[derive(Debug)]
pub(super) struct Daemon {
    /// `a`, `b`, `c`: its name here, and its petname at the others.
    pub(super) name: &'static str,
    pub(super) data_dir: PathBuf,
    process: Child,
}

impl Daemon {
    /// Starts one in a folder of its own. Unless it is kept, it ends when we do, however we end: it holds the other
    /// end of a pipe.
    pub(super) fn start(
        name: &'static str,
        found: &Found,
        folder: &Folder,
        keep: bool,
    ) -> Result<Self, Failure> {
        let data_dir = folder.path().join(name);
        let failed = |error: std::io::Error| Failure::failed(format!("cannot start daemon {name}: {error}"));
        fs::create_dir(&data_dir).map_err(failed)?;
        found.install(&data_dir.join("plugins"))?;
        let words = File::create(data_dir.join("daemon.log")).map_err(failed)?;
        let mut command = Command::new(&found.p2pos);
        // A demo leaves nothing at anybody's router.
        command.env("P2POS_NETWORK_PORT_MAPPING", "off");
        command.arg("--data-dir").arg(&data_dir).arg("up").stdout(Stdio::null()).stderr(words);
        // Out of the terminal's group: Ctrl-C is for us, and we end them in order.
        command.process_group(0).env_remove("NOTIFY_SOCKET");
        if keep {
            command.stdin(Stdio::null());
        } else {
            command.arg("--until-stdin-closes").stdin(Stdio::piped()).kill_on_drop(true);
        }
        let process = command.spawn().map_err(failed)?;
        Ok(Self { name, data_dir, process })
    }

    /// Waits until it answers, and gives its first answer.
    pub(super) async fn ready(&mut self) -> Result<Status, Failure> {
        let give_up = Instant::now() + READY_WITHIN;
        loop {
            match Client::connect(&self.control_socket()).await {
                Ok(mut client) => {
                    let Document::Status(status) = client.call(Request::Status).await? else {
                        return Err(tool::odd_answer());
                    };
                    return Ok(status);
                }
                Err(ConnectError::NotRunning(_)) if Instant::now() < give_up => {}
                Err(error) => return Err(self.with_last_words(error.into())),
            }
            if let Ok(Some(status)) = self.process.try_wait() {
                let ended = Failure::failed(format!("daemon {} ended with {status}", self.name));
                return Err(self.with_last_words(ended));
            }
            sleep(READY_POLL).await;
        }
    }

    fn control_socket(&self) -> PathBuf {
        self.data_dir.join("run").join("control.sock")
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// A connection to its control socket.
    pub(super) async fn control(&self) -> Result<Client, Failure> {
        let connected = Client::connect(&self.control_socket()).await;
        connected.map_err(|error| Failure::from(error).during(&format!("daemon {}", self.name)))
    }

    /// Asks one question.
    pub(super) async fn ask(&self, request: Request) -> Result<Document, Failure> {
        let answered = self.control().await?.call(request).await;
        answered.map_err(|error| Failure::from(error).during(&format!("daemon {}", self.name)))
    }

    pub(super) async fn add_contact(&self, other: &'static str, theirs: &Status) -> Result<(), Failure> {
        let addresses = vec![format!("127.0.0.1:{}", theirs.udp_port)];
        let peer_id = theirs.peer_id.clone();
        let request = ContactRequest::Add { peer_id, petname: other.to_owned(), addresses, relay: None };
        self.ask(Request::Contacts(request)).await.map(drop)
    }

    /// Enables a plugin with what it asks for: whoever runs the demo has asked for exactly that.
    pub(super) async fn enable(&self, plugin: &str) -> Result<(), Failure> {
        let Document::Plugin(detail) = self.ask(Request::PluginInfo { plugin: plugin.to_owned() }).await?
        else {
            return Err(tool::odd_answer());
        };
        let approval = detail.approval;
        self.ask(Request::PluginEnable { plugin: plugin.to_owned(), approval }).await.map(drop)
    }

    fn with_last_words(&self, failure: Failure) -> Failure {
        let said = fs::read_to_string(self.data_dir.join("daemon.log")).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines.len().saturating_sub(LAST_WORDS);
        lines[last..].iter().fold(failure, |failure, line| failure.next((*line).to_owned()))
    }

    /// Asks it to end.
    pub(super) fn ask_to_end(&self) {
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw)
            && let Err(error) = kill_process(pid, Signal::TERM)
        {
            debug!(%error, "the daemon had ended already");
        }
    }

    /// Waits until it and its plugins have ended.
    pub(super) async fn ended(&mut self) {
        if timeout(ENDS_WITHIN, self.process.wait()).await.is_err() {
            debug!(name = self.name, "the daemon did not end and is killed; its guard ends its plugins");
            if let Err(error) = self.process.kill().await {
                debug!(%error, "the daemon could not be killed");
            }
        }
    }
}
