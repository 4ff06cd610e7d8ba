//! p2pOS: a plugin on a daemon, a plugin on another daemon, and everything between them, as users have it.
//!
//! The driving side runs under `p2pos plugins run`, the serving side is launched by its daemon; both speak through the Rust SDK.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use bytes::{Bytes, BytesMut};
use p2pos_identity::{PeerId, ProtocolName};
use p2pos_plugin_protocol::{
    client::{Client, Incoming, OpenRequest, RawStream},
    driver::{Answer, RecvHalf, SendHalf},
    message::{Attachment, Body, Kind, Open, Registration, RelayUse},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split},
    sync::OnceCell,
};

use crate::{
    place::{Between, Place},
    processes::{self, Serving},
    relaying::Forwarded,
    sdks::Plugin,
    work::{Link, Measured, Receiver, Sender, System, serve_stream},
};

const PROTOCOL: &str = "/p2pos-bench/1";
const DETACHED: &str = "/p2pos-bench-detached/1";
/// Between hanging up and the next wish to connect.
const HUNG_UP: Duration = Duration::from_millis(50);
/// Longest read of a detached stream, bytes.
const READ_BYTES_MAX: usize = 256 * 1024;

/// Two daemons, `a` with the driving plugin and `b` with the serving one, each a contact of the other.
pub struct Pair {
    directory: tempfile::TempDir,
    binary: PathBuf,
    /// Running until this is dropped.
    _daemons: [Serving; 2],
    b_peer: String,
    b_address: String,
}

/// One daemon that nobody's plugin uses: idle, or relaying for others.
pub struct Alone {
    binary: PathBuf,
    directory: tempfile::TempDir,
    daemon: Serving,
}

/// Settings under which nobody waits for a relay's rates.
const RELAY_SETTINGS: [(&str, &str); 4] = [
    ("P2POS_RELAY_MODE", "community"),
    ("P2POS_RELAY_TOTAL_MBIT", "100000"),
    ("P2POS_RELAY_CONTACT_MBIT", "100000"),
    ("P2POS_NETWORK_PORT_MAPPING", "off"),
];
/// Until the serving daemon can be called at its relay.
const CALLABLE_MAX: Duration = Duration::from_secs(10);

impl Pair {
    /// Both on loopback.
    pub fn start(binary: &Path) -> Result<Self> {
        Self::start_at(binary, &Place::here(), &Place::here())
    }

    /// Each at its place.
    pub fn start_at(binary: &Path, a_place: &Place, b_place: &Place) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        plugin_directory(&directory.path().join("b/plugins/bench"))?;
        plugin_directory(&directory.path().join("bench"))?;
        Self::start_in(directory, binary, a_place, b_place)
    }

    /// Both on loopback, with somebody else's plugin.
    pub fn start_plugin(binary: &Path, plugin: &Plugin) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        plugin_directory_for(&directory.path().join("b/plugins/bench"), &plugin.serve)?;
        plugin_directory_for(&directory.path().join("bench"), &plugin.serve)?;
        Self::start_in(directory, binary, &Place::here(), &Place::here())
    }

    fn start_in(
        directory: tempfile::TempDir,
        binary: &Path,
        a_place: &Place,
        b_place: &Place,
    ) -> Result<Self> {
        let (a_dir, b_dir) = (directory.path().join("a"), directory.path().join("b"));
        let (a, b) = (up(binary, &a_dir, a_place, &[])?, up(binary, &b_dir, b_place, &[])?);
        let (a_id, b_id) = (identity(binary, &a_dir)?, identity(binary, &b_dir)?);
        let far = SocketAddr::new(b_place.ip, b_id.port).to_string();
        add_contact(binary, &a_dir, &b_id.peer, &far)?;
        run(binary, &b_dir, &["contacts", "add", &a_id.peer, "a"])?;
        run(binary, &b_dir, &["plugins", "enable", "bench", "--yes"])?;
        run(binary, &b_dir, &["plugins", "start", "bench"])?;
        Ok(Self { directory, binary: binary.to_owned(), _daemons: [a, b], b_peer: b_id.peer, b_address: far })
    }

    /// One at each end, and in the middle the relay through which alone they reach each other.
    pub fn start_through(binary: &Path, between: &Between) -> Result<(Self, Alone)> {
        let directory = tempfile::tempdir()?;
        let (a_dir, b_dir) = (directory.path().join("a"), directory.path().join("b"));
        plugin_directory(&b_dir.join("plugins").join("bench"))?;
        plugin_directory(&directory.path().join("bench"))?;
        let (a_peer, b_peer) = (peer_id(binary, &a_dir)?, peer_id(binary, &b_dir)?);
        let relay = Alone::relay(binary, &between.middle, &[])?;
        relay.add_contact(&a_peer, "a")?;
        relay.add_contact(&b_peer, "b")?;
        let uses = relay.target_at(between.middle.ip)?.replace(',', "@");
        let a = up(binary, &a_dir, &between.a, &[])?;
        let b = up(binary, &b_dir, &between.b, &[("P2POS_RELAY_USE", uses.as_str())])?;
        run(binary, &b_dir, &["contacts", "add", &a_peer, "a"])?;
        run(binary, &b_dir, &["plugins", "enable", "bench", "--yes"])?;
        run(binary, &b_dir, &["plugins", "start", "bench"])?;
        let address = callable_at(binary, &b_dir)?;
        run(binary, &a_dir, &["contacts", "add", &b_peer, "b", "--addr", &address])?;
        Ok((
            Self { directory, binary: binary.to_owned(), _daemons: [a, b], b_peer, b_address: address },
            relay,
        ))
    }

    pub fn start_alone(binary: &Path) -> Result<Alone> {
        Alone::start(binary, &Place::here(), &[])
    }

    /// Drives one job as a plugin on `a`.
    pub fn drive(&self, system: &str, order: &[&str]) -> Result<Measured> {
        let mut command = self.plugin_command();
        let target = serde_json::to_string(&Target {
            peer: self.b_peer.clone(),
            address: self.b_address.clone(),
            binary: std::fs::canonicalize(&self.binary)?,
            data: self.directory.path().join("a"),
        })?;
        command.arg(std::env::current_exe()?).args(["drive", system, &target]).args(order);
        Self::measure(command)
    }

    /// The same with somebody else's plugin.
    pub fn drive_plugin(&self, words: &[String], order: &[&str]) -> Result<Measured> {
        let mut command = self.plugin_command();
        command.args(words).arg(&self.b_peer).args(order);
        Self::measure(command)
    }

    fn plugin_command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--data-dir").arg(self.directory.path().join("a"));
        command.args(["plugins", "run"]).arg(self.directory.path().join("bench")).arg("--");
        command
    }

    fn measure(command: Command) -> Result<Measured> {
        let out = processes::output(command)?;
        let line =
            out.lines().rfind(|line| line.starts_with('{')).context("the driver printed no figures")?;
        Ok(serde_json::from_str(line)?)
    }

    /// How long a user waits for an answer of the command line.
    pub fn time_status(&self) -> Result<Duration> {
        let start = Instant::now();
        run(&self.binary, &self.directory.path().join("a"), &["status"])?;
        Ok(start.elapsed())
    }
}

impl Alone {
    fn start(binary: &Path, place: &Place, settings: &[(&str, &str)]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let daemon = up(binary, directory.path(), place, settings)?;
        Ok(Self { binary: binary.to_owned(), directory, daemon })
    }

    /// One that relays, for contacts as fast as it can.
    pub fn relay(binary: &Path, place: &Place, settings: &[(&str, &str)]) -> Result<Self> {
        Self::start(binary, place, &[&RELAY_SETTINGS[..], settings].concat())
    }

    /// The daemon's PeerId and its address on loopback.
    pub fn target(&self) -> Result<String> {
        self.target_at(Place::here().ip)
    }

    /// The daemon's PeerId and its address under one of its machine's.
    pub fn target_at(&self, ip: IpAddr) -> Result<String> {
        let Identity { peer, port } = identity(&self.binary, self.directory.path())?;
        Ok(format!("{peer},{}", SocketAddr::new(ip, port)))
    }

    /// What it has forwarded so far.
    pub fn forwarded(&self) -> Result<Forwarded> {
        let status = relay_status(&self.binary, self.directory.path())?;
        let number =
            |key: &str| status[key].as_u64().with_context(|| format!("no {key} in the relay's status"));
        Ok(Forwarded { bytes: number("forwarded_bytes")?, packets: number("forwarded_packets")? })
    }

    /// How many circuits stand.
    pub fn circuits(&self) -> Result<u64> {
        let status = relay_status(&self.binary, self.directory.path())?;
        status["flows"].as_u64().context("no flows in the relay's status")
    }

    pub fn add_contact(&self, peer: &str, petname: &str) -> Result<()> {
        run(&self.binary, self.directory.path(), &["contacts", "add", peer, petname]).map(drop)
    }

    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// How long it took from nothing, its identity to be made, to its ready line.
    pub const fn ready_after(&self) -> Duration {
        self.daemon.ready_after
    }
}

/// What the driving plugin is told.
#[derive(Clone, Serialize, Deserialize)]
struct Target {
    peer: String,
    address: String,
    binary: PathBuf,
    /// The data directory of the daemon that the plugin is at.
    data: PathBuf,
}

struct Identity {
    peer: String,
    port: u16,
}

fn plugin_directory(path: &Path) -> Result<()> {
    let program = std::env::current_exe()?.into_os_string().into_string();
    let program = program.ok().context("this program's path is not UTF-8")?;
    plugin_directory_for(path, &[program, "plugin".to_owned()])
}

fn plugin_directory_for(path: &Path, exec: &[String]) -> Result<()> {
    std::fs::create_dir_all(path)?;
    let manifest = format!(
        "manifest = 1\nid = \"bench\"\nname = \"Bench\"\nversion = \"1.0.0\"\n[run]\nexec = {exec:?}\n\
         [permissions]\nnet.open = [{PROTOCOL:?}, {DETACHED:?}]\nnet.accept = [{PROTOCOL:?}, {DETACHED:?}]\n"
    );
    Ok(std::fs::write(path.join("plugin.toml"), manifest)?)
}

fn up(binary: &Path, data: &Path, place: &Place, settings: &[(&str, &str)]) -> Result<Serving> {
    let mut command = place.command(binary);
    command.envs(settings.iter().copied()).arg("--data-dir").arg(data).arg("up");
    Serving::start_daemon(command)
}

/// The address under which others reach a daemon through its relay, once there is one.
fn callable_at(binary: &Path, data: &Path) -> Result<String> {
    let start = Instant::now();
    while start.elapsed() < CALLABLE_MAX {
        let status = relay_status(binary, data)?;
        if let Some(address) = status["callable_at"][0]["address"].as_str() {
            return Ok(address.to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("the serving daemon got no lease from its relay within {} s", CALLABLE_MAX.as_secs())
}

fn relay_status(binary: &Path, data: &Path) -> Result<serde_json::Value> {
    Ok(serde_json::from_str(&run(binary, data, &["relay", "status", "--json"])?)?)
}

/// Who lives in a data directory; works before the daemon is started.
fn peer_id(binary: &Path, data: &Path) -> Result<String> {
    let id: serde_json::Value = serde_json::from_str(&run(binary, data, &["id", "--json"])?)?;
    Ok(id["peer_id"].as_str().context("no peer_id in `id --json`")?.to_owned())
}

fn identity(binary: &Path, data: &Path) -> Result<Identity> {
    let peer = peer_id(binary, data)?;
    let status: serde_json::Value = serde_json::from_str(&run(binary, data, &["status", "--json"])?)?;
    let port = status["udp_port"].as_u64().context("no udp_port in `status --json`")?;
    Ok(Identity { peer, port: u16::try_from(port)? })
}

fn add_contact(binary: &Path, data: &Path, peer: &str, address: &str) -> Result<()> {
    run(binary, data, &["contacts", "add", peer, "b", "--addr", address]).map(drop)
}

fn run(binary: &Path, data: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(binary);
    command.arg("--data-dir").arg(data).args(arguments);
    processes::output(command)
}

/// The serving plugin: both kinds of streams, until the daemon says that it is over.
pub async fn plugin() -> Result<()> {
    let client = Client::connect().await?;
    let mut muxed = client.register(PROTOCOL).await?;
    let raw =
        Registration { attachment: Attachment::Socket, ..Registration::new(name(DETACHED), Kind::Stream) };
    let mut detached = client.register_with(raw).await?;
    client.ready();
    let muxed = async {
        while let Some(incoming) = muxed.accept().await {
            let (send, recv) = incoming.accept_stream()?.split();
            tokio::spawn(serve_stream(Sending::Mux(send), Receiving::Mux(recv, None)));
        }
        anyhow::Ok(())
    };
    let detached = async {
        while let Some(incoming) = detached.accept().await {
            tokio::spawn(serve_detached(incoming));
        }
        anyhow::Ok(())
    };
    tokio::select! {
        done = muxed => done,
        done = detached => done,
        _ = client.wait_shutdown() => Ok(()),
    }
}

async fn serve_detached(incoming: Incoming) -> Result<()> {
    let (recv, send) = split(incoming.accept_raw().await?);
    serve_stream(Sending::Raw(send), Receiving::Raw(recv, BytesMut::new())).await
}

fn name(text: &str) -> ProtocolName {
    ProtocolName::parse(text).expect("our own names are good")
}

/// The driving plugin's side.
pub struct P2pos {
    is_detached: bool,
    session: OnceCell<Client>,
}

impl P2pos {
    pub fn mux() -> Self {
        Self { is_detached: false, session: OnceCell::new() }
    }

    pub fn detached() -> Self {
        Self { is_detached: true, session: OnceCell::new() }
    }

    async fn session(&self) -> Result<&Client> {
        self.session.get_or_try_init(|| async { anyhow::Ok(Client::connect().await?) }).await
    }
}

impl System for P2pos {
    type Link = Far;

    async fn serve(&self) -> Result<String> {
        bail!("the serving side is a plugin: its daemon starts it")
    }

    async fn prepare(&self) -> Result<()> {
        self.session().await.map(drop)
    }

    /// One session with the daemon serves all; the daemon keeps one connection with the peer.
    async fn dial(&self, target: &str) -> Result<Far> {
        let client = self.session().await?.clone();
        let target: Target = serde_json::from_str(target)?;
        Ok(Far { client, peer: target.peer.parse()?, target, is_detached: self.is_detached })
    }
}

pub struct Far {
    client: Client,
    peer: PeerId,
    target: Target,
    is_detached: bool,
}

impl Link for Far {
    type Send = Sending;
    type Recv = Receiving;

    async fn open(&self) -> Result<(Sending, Receiving)> {
        if self.is_detached {
            let stream = self.client.open_raw(OpenRequest::new(self.peer, name(DETACHED))).await?;
            let (recv, send) = split(stream);
            return Ok((Sending::Raw(send), Receiving::Raw(recv, BytesMut::new())));
        }
        // Written to before the answer is here, as a QUIC stream is; a refusal would end the reading half.
        let opening = self.client.session().open_stream(|stream| {
            Body::Open(Open {
                stream,
                peer: self.peer,
                protocols: vec![name(PROTOCOL)],
                kind: Kind::Stream,
                attachment: Attachment::Mux,
                timeout: None,
                relay: RelayUse::Allow,
            })
        })?;
        Ok((Sending::Mux(opening.send), Receiving::Mux(opening.recv, Some(opening.answer))))
    }

    /// The daemon hangs up on whom its user forgets. The peer hears that at once, and both have a moment to be done with it.
    async fn close(self) -> Result<()> {
        let Target { peer, address, binary, data } = self.target;
        run(&binary, &data, &["contacts", "remove", &peer])?;
        add_contact(&binary, &data, &peer, &address)?;
        tokio::time::sleep(HUNG_UP).await;
        Ok(())
    }
}

pub enum Sending {
    Mux(SendHalf),
    Raw(WriteHalf<RawStream>),
}

impl Sender for Sending {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        match self {
            Self::Mux(send) => Ok(send.write(bytes).await?),
            Self::Raw(send) => Ok(send.write_all(&bytes).await?),
        }
    }

    async fn finish(&mut self) -> Result<()> {
        match self {
            Self::Mux(send) => Ok(send.finish()?),
            Self::Raw(send) => Ok(send.shutdown().await?),
        }
    }
}

pub enum Receiving {
    /// The answer is kept because dropping it would cancel the open.
    Mux(RecvHalf, Option<Answer>),
    Raw(ReadHalf<RawStream>, BytesMut),
}

impl Receiver for Receiving {
    async fn read(&mut self) -> Result<Option<Bytes>> {
        match self {
            Self::Mux(recv, _answer) => Ok(recv.read_chunk().await?),
            Self::Raw(recv, buffer) => {
                buffer.reserve(READ_BYTES_MAX);
                let count = recv.read_buf(buffer).await?;
                Ok((count > 0).then(|| buffer.split_to(count).freeze()))
            }
        }
    }
}
