//! A host in a temporary directory, with a network that the test plays itself.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part of this")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use p2pos_host::{
    ConnectedPeer, ContactInfo, Host, HostConfig, Kind, Network, Offer, OpenAnswer, OpenRequest, PathKind,
    State, ToolGrants, ToolOpen,
};
use p2pos_identity::{PeerId, ProtocolName, SecretKey};
use p2pos_plugin_protocol::{
    client::{Client, Config, ConnectError},
    message::LaunchToken,
};
use tokio::sync::mpsc;

/// Patience for things that take milliseconds on an idle machine.
pub const LONG: Duration = Duration::from_secs(20);

pub struct TestHost {
    pub host: Host,
    pub network: Arc<FakeNetwork>,
    pub opens: mpsc::Receiver<(OpenRequest, OpenAnswer)>,
    pub root: tempfile::TempDir,
}

pub struct FakeNetwork {
    opens: mpsc::Sender<(OpenRequest, OpenAnswer)>,
    pub contacts: Mutex<Vec<ContactInfo>>,
}

impl Network for FakeNetwork {
    fn open(&self, request: OpenRequest, answer: OpenAnswer) {
        self.opens.try_send((request, answer)).ok();
    }

    fn contacts(&self) -> Vec<ContactInfo> {
        self.contacts.lock().unwrap().clone()
    }

    fn contact(&self, peer: &PeerId) -> Option<ContactInfo> {
        self.contacts().into_iter().find(|contact| contact.peer == *peer)
    }

    fn connected(&self) -> Vec<ConnectedPeer> {
        let connected = self.contacts().into_iter().filter(|contact| contact.is_connected);
        connected
            .map(|contact| ConnectedPeer {
                peer: contact.peer,
                petname: Some(contact.petname),
                path: PathKind::Lan,
            })
            .collect()
    }
}

pub fn peer(seed: u8) -> PeerId {
    SecretKey::from_seed([seed; 32]).peer_id()
}

pub fn name(text: &str) -> ProtocolName {
    ProtocolName::parse(text).unwrap()
}

pub fn guard_exec() -> Vec<std::ffi::OsString> {
    vec![env!("CARGO_BIN_EXE_p2pos-host-fixture").into(), "__guard".into()]
}

impl TestHost {
    pub async fn start() -> Self {
        Self::start_in(tempfile::Builder::new().prefix("p2pos").tempdir().unwrap()).await
    }

    pub async fn start_in(root: tempfile::TempDir) -> Self {
        let (send, opens) = mpsc::channel(16);
        let bo = ContactInfo { peer: peer(1), petname: "bo".into(), is_connected: true };
        let network = Arc::new(FakeNetwork { opens: send, contacts: Mutex::new(vec![bo]) });
        let config = HostConfig {
            plugins_dir: root.path().join("plugins"),
            runtime_dir: root.path().join("run"),
            data_dir: root.path().join("data"),
            log_dir: root.path().join("logs"),
            peer_id: peer(9),
            daemon_name: "p2pos test".into(),
            guard_exec: guard_exec(),
            adopts_orphans: false,
        };
        let host = Host::start(config, network.clone()).await.unwrap();
        Self { host, network, opens, root }
    }

    pub fn plugin_dir(&self, id: &str) -> PathBuf {
        self.root.path().join("plugins").join(id)
    }

    /// Puts a plugin of one Python file into the plugins directory and waits until the host has seen it.
    pub async fn install(&self, id: &str, more: &str, code: &str) {
        write_python_plugin(&self.root.path().join("plugins"), id, more, code);
        self.seen(id).await;
    }

    pub async fn install_raw(&self, id: &str, manifest: &str) {
        let dir = self.plugin_dir(id);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("plugin.toml"), format!("manifest = 1\nid = \"{id}\"\n{manifest}")).unwrap();
        self.seen(id).await;
    }

    async fn seen(&self, id: &str) {
        let found = || self.host.plugin(id).is_some_and(|plugin| plugin.state != State::Invalid);
        until("the plugin is seen", found).await;
    }

    pub fn state(&self, id: &str) -> State {
        self.host.plugin(id).unwrap().state
    }

    pub async fn until_state(&self, id: &str, state: State) {
        until(&format!("{id} is {state}"), || self.state(id) == state).await;
    }

    pub async fn log_text(&self, id: &str) -> String {
        self.host.flush_logs().await;
        fs::read_to_string(self.root.path().join("logs").join(format!("{id}.log"))).unwrap_or_default()
    }

    /// Waits for a line that begins with `marker` and gives what follows it.
    pub async fn logged(&self, id: &str, marker: &str) -> String {
        let start = Instant::now();
        loop {
            let text = self.log_text(id).await;
            let found =
                text.lines().find_map(|line| line.split_once(marker).map(|(_, rest)| rest.to_owned()));
            if let Some(rest) = found {
                return rest;
            }
            assert!(start.elapsed() < LONG, "waited too long until {id} logs {marker}:\n{text}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A session of a tool that may open all and serve `accept`.
    pub async fn tool(&self, accept: &[&str]) -> Client {
        let accept = accept.iter().map(|text| name(text)).collect();
        let grants = ToolGrants { name: "test".into(), open: ToolOpen::Any, accept, peers_any: true };
        let launch = self.host.mint_tool(grants).unwrap();
        connect(&launch.env).await.unwrap()
    }

    /// A session of a plugin with this manifest, run by its author.
    pub async fn dev(&self, id: &str, more: &str) -> Client {
        let dir = self.root.path().join(format!("dev-{id}"));
        fs::create_dir_all(&dir).unwrap();
        let manifest = format!("manifest = 1\nid = \"{id}\"\n[run]\nexec = [\"sh\"]\n{more}");
        fs::write(dir.join("plugin.toml"), manifest).unwrap();
        let launch = self.host.run_dev(&dir).await.unwrap();
        let client = connect(&launch.env).await.unwrap();
        self.until_state(id, State::Dev).await;
        client
    }

    pub fn offer(&self, protocol: &str) -> Offer {
        Offer {
            peer: peer(1),
            petname: Some("bo".into()),
            is_contact: true,
            protocols: vec![name(protocol)],
            kind: Kind::Stream,
            path: PathKind::Lan,
            datagram_max: 0,
        }
    }
}

pub fn env<'e>(env: &'e [(String, String)], key: &str) -> &'e str {
    &env.iter().find(|(found, _)| found == key).unwrap_or_else(|| panic!("{key} is not set")).1
}

pub fn config(launch: &[(String, String)]) -> Config {
    let token = LaunchToken::from_env_text(env(launch, "P2POS_TOKEN")).unwrap();
    Config::new(env(launch, "P2POS_ENDPOINT").parse().unwrap(), token)
}

pub async fn connect(launch: &[(String, String)]) -> Result<Client, ConnectError> {
    Client::connect_with(config(launch)).await
}

pub fn write_python_plugin(plugins: &Path, id: &str, more: &str, code: &str) {
    // Made elsewhere and moved in: a host that watches sees it whole.
    let making = plugins.parent().unwrap().join(format!("making-{id}"));
    fs::create_dir_all(&making).unwrap();
    fs::write(making.join("mini.py"), include_str!("../fixture/mini.py")).unwrap();
    fs::write(making.join("main.py"), format!("from mini import *\n{code}\n")).unwrap();
    let manifest = format!("manifest = 1\nid = \"{id}\"\n[run]\nexec = [\"python3\", \"main.py\"]\n{more}");
    fs::write(making.join("plugin.toml"), manifest).unwrap();
    fs::create_dir_all(plugins).unwrap();
    fs::rename(making, plugins.join(id)).unwrap();
}

/// Looks again and again until it is so.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LONG, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How many live processes have `mark` in their command line.
pub fn processes_with(mark: &str) -> usize {
    let is_it = |pid: &str| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        line.windows(mark.len()).any(|part| part == mark.as_bytes()) && !stat.contains(") Z ")
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter(|entry| is_it(&entry.file_name().to_string_lossy())).count()
}

/// A number that no other test uses: `sleep` with it marks a process.
pub fn mark() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}.{:03}", 600_000 + std::process::id() % 100_000, NEXT.fetch_add(1, Ordering::Relaxed))
}
